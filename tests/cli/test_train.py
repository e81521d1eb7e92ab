"""boundlab train: the verb, its files, and what it refuses."""

import csv
import json

import pytest
from safetensors.torch import load_file

import boundlab as bl
from boundlab.train.sources import training_and_test

RECIPE = """
title = "a test"
source = "boundlab"
network = "crown-ibp-a-mnist"
data = "digits"
eps = 0.05
epochs = 3
batch = 128
examples = 300
rate = { first = 5e-3 }
ramp = { start = 1, end = 2 }
[method.crown-ibp]
[[published]]
source = "nobody"
eps = 0.05
verified_error = 50
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def test_the_list(run):
    result = run("train", "--list")
    assert result.exit_code == 0 and "crown-ibp-mnist-a-0.1" in result.stdout and "Zhang et al. 2020" in result.stdout
    found = json.loads(run("train", "--list", "--json").stdout)
    assert {"digits-smoke", "mnist-a-short"} <= {one["name"] for one in found["recipes"]}


def test_a_run_and_going_on_with_one_that_is_done(run, tmp_path, recipe):
    result = run("train", recipe, "--out", tmp_path / "out", "--limit", 100, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    errors = said["errors"]
    with (tmp_path / "out" / "records.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 100 == said["test examples"] and len(said["history"]) == 3
    for name in ("clean", "attacked", "verified IBP", "verified CROWN-IBP", "verified CROWN"):
        key = name.replace("verified ", "verified, ")
        assert errors[key] == pytest.approx(1 - sum(int(row[name]) for row in rows) / 100)
    assert errors["clean"] <= errors["attacked"] <= errors["verified, any"]
    assert errors["verified, any"] <= min(errors[f"verified, {proof}"] for proof in ("IBP", "CROWN-IBP", "CROWN"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "weights.safetensors", "network.onnx", "records.csv", "result.json", "checkpoint.safetensors", "history.csv"}
    test = training_and_test(None, "digits", 0)[1].take(range(100))
    network = bl.load_onnx(tmp_path / "out" / "network.onnx").detached()
    wrong = (bl.evaluate(network, test.x).argmax(1) != test.labels).double().mean()
    assert errors["clean"] == pytest.approx(float(wrong))
    before = load_file(tmp_path / "out" / "weights.safetensors")
    again = run("train", recipe, "--out", tmp_path / "out", "--limit", 100, "--resume")
    assert again.exit_code == 0 and "50 %" in again.stdout
    after = load_file(tmp_path / "out" / "weights.safetensors")
    assert all(bool((before[name] == value).all()) for name, value in after.items())


def test_results_are_never_replaced_without_a_word(run, tmp_path, recipe):
    out = tmp_path / "out"
    recipe.write_text(RECIPE.replace("epochs = 3", "epochs = 1").replace("end = 2", "end = 1"))
    assert run("train", recipe, "--out", out, "--limit", 5).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    again = run("train", recipe, "--out", out, "--limit", 5)
    assert again.exit_code == 2 and "--resume" in again.stderr and again.stderr.count("\n") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (out / "checkpoint.safetensors").unlink()
    for more in ((), ("--resume",)):
        foreign = run("train", recipe, "--out", out, "--limit", 5, *more)
        assert foreign.exit_code == 2 and "network.onnx" in foreign.stderr and "another" in foreign.stderr


def test_ctrl_c_says_how_to_go_on(run, tmp_path, recipe, monkeypatch):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr("boundlab.train.run.measure", interrupted)
    result = run("train", recipe, "--out", tmp_path / "out", "--limit", 5)
    assert result.exit_code == 130 and "--resume goes on" in result.stderr and "Traceback" not in result.stderr
    monkeypatch.undo()
    assert run("train", recipe, "--out", tmp_path / "out", "--limit", 5, "--resume").exit_code == 0


@pytest.mark.parametrize(("change", "said"), [
    (("eps = 0.05", "eps = -1"), "greater than or equal to 0"),
    (("batch", "bach"), "no key"),
    (("crown-ibp-a-mnist", "mlp-z"), "no network 'mlp-z'"),
    (("crown-ibp-a-mnist", "sst2-lstm"), "sst2"),
    (('"digits"', '"mnist"'), "--data"),
    (("crown-ibp-a-mnist", "8c2f-tiny"), "does not fit"),
    (("epochs = 3", "epochs = 3\nclip = [1.0, 0.0]"), "clip is"),
    (("[method.crown-ibp]", "[augmentation]\nshift = -1\n[method.crown-ibp]"), "at least 0, got -1"),
    (("[method.crown-ibp]", "[optimiser.adam]\ndecay = -1.0\n[method.crown-ibp]"), "decay"),
    (("[method.crown-ibp]", "[normalise]\nmean = [0.1, 0.2]\ndeviation = [1.0, 1.0]\n[method.crown-ibp]"), "2 channels"),
    (("[method.crown-ibp]", "[averaging]\nstart = -1\n[method.crown-ibp]"), "recipe.toml' is not valid: weights are averaged"),
    (("[method.crown-ibp]", "[method.taps]\nlayers = 0"), "recipe.toml' is not valid: layers must be"),
    (("end = 2 }", "end = 2, smooth = { middle = 1.5 } }"), "middle"),
])
def test_bad_recipes_end_in_a_sentence(run, tmp_path, recipe, change, said):
    assert change[0] in RECIPE
    recipe.write_text(RECIPE.replace(*change, 1))
    result = run("train", recipe, "--out", tmp_path / "out")
    assert result.exit_code == 2 and said in result.stderr and "Traceback" not in result.stderr, result.stderr
    assert result.stderr.strip().count("\n") == 0


def test_torchrun_is_asked_for_where_there_is_one(run, recipe, tmp_path):
    result = run("train", recipe, "--out", tmp_path / "out", "--torchrun")
    assert result.exit_code == 2 and "torchrun --nproc-per-node 2" in result.stderr and result.stderr.count("\n") == 1


def test_a_recipe_must_be_named(run):
    assert "--list" in run("train").stderr
