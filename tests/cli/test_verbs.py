import json
import re
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import boundlab as bl
from boundlab.cli.answer import Table, jsonable
from boundlab.cli.methods import METHODS
from boundlab.ops.op import REGISTRY
from boundlab.verify.vnnlib import parse_vnnlib

BALL = ("--data", "x.npy", "--eps", "0.1")


def answered(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_version_and_help(run):
    assert run("--version").stdout == f"boundlab {version('boundlab')}\n"
    listed = run("--help")
    assert listed.exit_code == 0
    assert all(name in listed.stdout for name in ("show", "bound", "verify", "attack", "vnncomp", "ops", "demo"))


def test_show_names_every_node_and_how_it_is_bounded(folder, run):
    shown = answered(run("show", "net.onnx", "--json"))
    graph = bl.load_onnx("net.onnx").graph
    assert [node["node"] for node in shown["nodes"]] == [node.name for node in graph]
    assert {node["bounded"] for node in shown["nodes"] if node["operator"] == "relu"} == {"relaxed"}
    assert {node["bounded"] for node in shown["nodes"] if node["operator"] == "linear"} == {"exact"}
    assert [node["output"] for node in shown["nodes"]][-1]
    plain = run("show", "net.onnx").stdout
    assert plain.splitlines()[0].split() == ["node", "operator", "shape", "bounded", "reads"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", ["inf", "1", "2", "3.5"])
def test_bound_prints_what_the_library_proves(folder, run, method, norm):
    found = answered(run("bound", "net.onnx", *BALL, "--method", method, "--norm", norm, "--clip", "-1", "1", "--json"))
    x = torch.from_numpy(np.load("x.npy"))
    ball = bl.LpBall(x, 0.1, float(norm), (-1.0, 1.0))
    expected = bl.bound(bl.load_onnx("net.onnx"), ball, method=METHODS[method])
    assert torch.equal(torch.tensor(found["lower"]), expected.lower.detach())
    assert torch.equal(torch.tensor(found["upper"]), expected.upper.detach())
    assert found["rigour"] == "float"


def test_bound_with_labels_gives_margins(folder, run):
    found = answered(run("bound", "net.onnx", *BALL, "--label", "0", "--json"))
    assert found["verified"] == [True, True] and found["upper"] is None
    found = answered(run("bound", "net.onnx", *BALL, "--label", "0", "--label", "1", "--json"))
    assert found["verified"] == [True, False] and found["labels"] == [0, 1]
    found = answered(run("bound", "net.onnx", "--data", "labelled.npz", "--eps", "0.1", "--json"))
    assert found["labels"] == [0] and found["verified"] == [True]


@pytest.mark.parametrize("file", ["weights.pt", "weights.safetensors"])
def test_a_factory_and_its_weights(folder, run, file):
    torch.manual_seed(5)
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    (save_file if file.endswith("safetensors") else torch.save)(net.state_dict(), file)
    found = answered(run("bound", "factory_of_test:make", "--input-shape", "2", "--weights", file, *BALL, "--json"))
    y = net(torch.from_numpy(np.load("x.npy"))).detach()
    assert (torch.tensor(found["lower"]) <= y).all() and (y <= torch.tensor(found["upper"])).all()


@pytest.mark.parametrize(("spec", "code", "word"), [("safe", 0, "unsat"), ("unsafe", 10, "sat")])
def test_verify_answers_by_exit_code_and_in_the_competition_s_words(folder, run, spec, code, word):
    plain = run("verify", "net.onnx", f"{spec}.vnnlib")
    assert plain.exit_code == code, plain.output
    competition = run("verify", "net.onnx", f"{spec}.vnnlib", "--format", "vnncomp")
    assert competition.exit_code == code and competition.stdout.splitlines()[0] == word
    verdict = json.loads(run("verify", "net.onnx", f"{spec}.vnnlib", "--json").stdout)["results"][0]
    assert (verdict["verdict"], verdict["witness"] is None) == (("verified", True) if code == 0 else ("falsified", False))
    assert verdict["rigour"] == "float"


@pytest.mark.parametrize("verb", ["verify", "attack"])
def test_a_printed_witness_is_a_counterexample(folder, run, verb):
    printed = run(verb, "net.onnx", "unsafe.vnnlib", "--format", "vnncomp")
    assert printed.exit_code == 10
    word, witness = printed.stdout.split("\n", 1)
    assert word == "sat" and re.fullmatch(r"\((\([XY]_\d+ \S+\)\s*)+\)\s*", witness)
    values = dict(re.findall(r"([XY]_\d+) ([^)\s]+)", witness))
    x, y = (np.array([float(values[f"{letter}_{place}"]) for place in range(2)], dtype=np.float32) for letter in "XY")
    assert parse_vnnlib(folder / "unsafe.vnnlib").accepts(x, y, torch.float32)
    assert np.allclose(bl.onnx_reference("net.onnx").replay(x[None])[0], y)


def test_verify_without_time_is_not_decided(folder, run):
    late = run("verify", "net.onnx", "safe.vnnlib", "--timeout", "0", "--format", "vnncomp")
    assert late.exit_code == 20 and late.stdout == "timeout\n"


def test_verify_and_attack_on_data(folder, run):
    assert run("verify", "net.onnx", *BALL, "--label", "0").exit_code == 0
    assert run("verify", "net.onnx", *BALL, "--label", "1").exit_code == 10
    assert run("attack", "net.onnx", *BALL, "--label", "0").exit_code == 20
    found = run("attack", "net.onnx", *BALL, "--label", "1", "--json")
    assert found.exit_code == 10 and {result["verdict"] for result in json.loads(found.stdout)["results"]} == {"falsified"}


def test_vnncomp_runs_a_folder(folder, run):
    (folder / "instances.csv").write_text("net.onnx,safe.vnnlib,30\nnet.onnx,unsafe.vnnlib,30\nnet.onnx,three.vnnlib,30\n")
    found = answered(run("vnncomp", folder, "--json"))
    assert [instance["verdict"] for instance in found["instances"]] == ["verified", "falsified", "unknown"]
    assert "3 inputs" in found["instances"][2]["error"]
    assert (found["families"][0]["verified"], found["families"][0]["falsified"]) == (1, 1)


def test_ops_lists_the_registry(run):
    listed = answered(run("ops", "--json"))["operators"]
    assert [op["name"] for op in listed] == sorted(REGISTRY)
    relu = next(op for op in listed if op["name"] == "relu")
    assert (relu["breaks"], relu["free variables"], relu["exact when"]) == ("0", "slope", "between its breaks")
    assert "Relu" in relu["ONNX"] and "relu" in relu["torch"] and relu["what it is"] == "max(x, 0)"


def test_output_in_a_pipe_is_plain(folder):
    command = [sys.executable, "-c", "from boundlab.cli import main; main()", "bound", "net.onnx", *BALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.isascii() and "\x1b" not in done.stdout
    header, *rows = [line.split() for line in done.stdout.split("\n\n")[0].splitlines()]
    assert header == ["input", "output", "lower", "upper", "width"]
    assert len(rows) == 4 and all(float(row[2]) <= float(row[3]) for row in rows)


def test_plain_tables_align_and_json_has_no_bare_nan():
    table = Table(("name", "value"), [("a", "1"), ("longer", "10")], numbers=frozenset({"value"}))
    assert table.plain() == "name    value\na           1\nlonger     10"
    assert json.dumps(jsonable({"a": float("nan"), "b": torch.tensor([1.0, float("inf")])}), allow_nan=False)
