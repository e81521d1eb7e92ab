"""boundlab export: a folder that boundlab vnncomp runs, with the verdicts of boundlab certify."""

from __future__ import annotations

import json

import numpy as np
import pytest

ASKED = ("net.onnx", "--data", "two.npz", "--eps", "0.1,10", "--clip", "-inf", "inf")


@pytest.fixture
def two(folder):
    np.savez("two.npz", x=np.array([[0.5, -0.5], [-0.5, 0.25], [0.5, -0.5]], np.float32), y=np.array([0, 0, 1]))
    return folder


def test_what_is_exported_has_the_verdicts_of_certify(two, run):
    exported = run("export", *ASKED, "--out", "asked", "--timeout", "5")
    assert exported.exit_code == 0 and exported.stdout.startswith(
        "4 questions about 2 examples. 1 misclassified example left out.\nWritten: asked/instances.csv"), exported.output
    assert (two / "asked/network.onnx").read_bytes() == (two / "net.onnx").read_bytes()
    rows = json.loads(run("certify", *ASKED, "--out", "out", "--engine", "serial", "--json").stdout)["records"]
    codes = {"certified": 0, "falsified": 10}
    expected = [codes[row["status"]] for row in rows if row["status"] != "misclassified"]
    listed = [line.split(",") for line in (two / "asked/instances.csv").read_text().splitlines()]
    assert [run("verify", f"asked/{onnx}", f"asked/{prop}", "--timeout", seconds).exit_code for onnx, prop, seconds in listed
            ] == expected == [0, 0, 10, 10]


@pytest.mark.slow
def test_what_is_exported_is_a_folder_of_the_competition(two, run):
    assert run("export", *ASKED, "--out", "asked", "--timeout", "60").exit_code == 0
    done = json.loads(run("vnncomp", "asked", "--json").stdout)
    assert [one["verdict"] for one in done["instances"]] == ["verified", "verified", "falsified", "falsified"]


def test_a_module_with_a_normalisation_and_only_what_is_open(two, run):
    asked = ("factory_of_test:make", *ASKED[1:], "--mean", "0.1", "--std", "0.5")
    assert run("certify", *asked, "--out", "out", "--engine", "serial", "--method", "ibp").exit_code == 0
    rows = [line.split(",") for line in (two / "out/records.csv").read_text().splitlines()[1:]]
    waiting = sum("unknown" in row for row in rows)
    result = run("export", *asked, "--out", "asked", "--open", "out")
    assert result.exit_code == 0 and result.stdout.startswith(f"{waiting} question"), result.output
    shown = run("show", "asked/network.onnx")
    assert shown.exit_code == 0 and shown.stdout


@pytest.mark.parametrize(("options", "words"), [
    (("--norm", "2"), "use norm inf"), (("--norm", "0"), "norm of order p >= 1"), (("--open", "none"), "none"),
    (("--out", "net.onnx"), "net.onnx"), (("--timeout", "0"), "time limit above 0"), (("--data", "wide.npy"), "network takes")])
def test_bad_input_is_one_sentence(two, run, options, words):
    result = run("export", *ASKED, "--out", "asked", *options)
    assert result.exit_code == 2 and result.stdout == "" and words in result.stderr, result.output
    assert result.stderr.startswith("boundlab: ") and result.stderr.count("\n") == 1
