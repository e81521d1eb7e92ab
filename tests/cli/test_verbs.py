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
from boundlab import zoo
from boundlab.cli.answer import Table, jsonable
from boundlab.cli.methods import METHODS
from boundlab.ops.op import REGISTRY
from boundlab.question.vnnlib import parse_vnnlib

BALL = ("--data", "x.npy", "--eps", "0.1")


def answered(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_version_and_help(run):
    assert run("--version").stdout == f"boundlab {version('boundlab')}\n"
    listed = run("--help")
    assert listed.exit_code == 0
    verbs = ("show", "bound", "radius", "verify", "attack", "vnncomp", "ops", "zoo", "demo")
    assert all(name in listed.stdout for name in verbs)


def test_show_names_every_node_and_how_it_is_bounded(folder, run):
    shown = answered(run("show", "net.onnx", "--json"))
    graph = bl.load_onnx("net.onnx").graph
    assert [node["node"] for node in shown["nodes"]] == [node.name for node in graph]
    assert {node["bounded"] for node in shown["nodes"] if node["operator"] == "relu"} == {"relaxed"}
    assert {node["bounded"] for node in shown["nodes"] if node["operator"] == "linear"} == {"exact"}
    assert [node["output"] for node in shown["nodes"]][-1]
    plain = run("show", "net.onnx").stdout
    assert plain.splitlines()[0].split() == ["node", "operator", "shape", "bounded", "multiply-adds", "reads", "from"]


def test_show_says_what_is_missing_and_what_to_expect(folder, run):
    shown = run("show", "unknown.onnx")
    assert shown.exit_code == 2 and "missing" in shown.stdout and "ONNX node" in shown.stdout and "To do:" in shown.stdout
    lacking = json.loads(run("show", "factory_of_test:unsupported", "--input-shape", "2", "--json").stdout)
    assert not lacking["ok"] and "aten.fft_fft.default" in {node["operator"] for node in lacking["nodes"]}
    assert all(node["remedy"] for node in lacking["nodes"] if node["bounded"] == "missing")
    fine = answered(run("show", "net.onnx", "--batch", "7", "--rows", "3", "--json"))
    assert fine["ok"] and [cost["method"] for cost in fine["costs"]] == ["IBP", "CROWN-IBP", "CROWN, at most"]
    assert fine["costs"][1]["rows"] == 21 and all(cost["seconds"] > 0 for cost in fine["costs"])
    assert "seconds" in run("show", "net.onnx").stdout


def test_zoo_lists_the_papers_networks(run):
    listed = answered(run("zoo", "--json"))["networks"]
    assert [network["name"] for network in listed] == list(zoo.NAMES)
    few = answered(run("zoo", "4c3f", "wrn", "--json"))["networks"]
    assert {network["name"]: network["parameters"] for network in few} == {
        "4c3f-mnist": 1974762, "4c3f-cifar": 2466858, "wrn-cifar": 4214850}
    assert run("zoo", "nothing-like-this").exit_code == 2


def test_zoo_times_bounds(run):
    timed = answered(run("zoo", "frown-4x20-relu", "--time", "--batch", "2", "--json"))["networks"][0]
    assert set(timed["measured"]) == set(timed["expected"]) == {"IBP", "CROWN-IBP"} and timed["rows"] == 9
    assert all(value > 0 for value in (*timed["measured"].values(), *timed["expected"].values(), timed["capture"]))


@pytest.mark.parametrize("file", ["weights.pt", "weights.safetensors"])
def test_a_network_of_the_zoo_with_weights(folder, run, file):
    torch.manual_seed(3)
    net = zoo.build("frown-4x20-tanh-drive")
    (save_file if file.endswith("safetensors") else torch.save)(net.state_dict(), file)
    x = torch.rand(2, 48)
    np.save("drive.npy", x.numpy())
    asked = ("bound", "zoo:frown-4x20-tanh-drive", "--data", "drive.npy", "--eps")
    found = answered(run(*asked, "0.01", "--weights", file, "--json"))
    y = net(x).detach()
    assert (torch.tensor(found["lower"]) <= y).all() and (y <= torch.tensor(found["upper"])).all()
    first, second = (run(*asked, "0").stdout for _ in range(2))
    assert first.rsplit(",", 1)[0] == second.rsplit(",", 1)[0]  # the same weights each time; only the seconds differ


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", ["inf", "1", "2", "3.5"])
def test_bound_prints_what_the_library_proves(folder, run, method, norm):
    result = run("bound", "net.onnx", *BALL, "--method", method, "--norm", norm, "--clip", "-1", "1", "--json")
    if norm == "3.5" and method in ("lp-last", "lp", "milp"):
        assert result.exit_code == 2 and "norm 1, 2 and inf, not 3.5" in result.stderr
        return
    found = answered(result)
    x = torch.from_numpy(np.load("x.npy"))
    ball = bl.LpBall(x, 0.1, float(norm), (-1.0, 1.0))
    expected = bl.bound(bl.load_onnx("net.onnx"), ball, method=METHODS[method])
    assert torch.equal(torch.tensor(found["lower"]), expected.lower.detach())
    assert torch.equal(torch.tensor(found["upper"]), expected.upper.detach())
    assert found["rigour"] == "float"


@pytest.mark.parametrize("targets", [(), ("--targets", "all"), ("--targets", "1"), ("--targets", "runner-up")])
def test_radius_prints_what_the_library_proves(folder, run, targets):
    found = answered(run("radius", "net.onnx", "--data", "x.npy", "--norm", "2", *targets, "--json"))
    x, model = torch.from_numpy(np.load("x.npy")), bl.load_onnx("net.onnx").detached()
    statement = bl.Targeted([0, 0], found["targets"]) if targets else [0, 0]
    expected = bl.radius(model, x, statement, family=bl.balls(2))
    assert found["labels"] == [0, 0] and found["rigour"] == "float"
    proven, attacked = torch.tensor(found["proven"]), torch.tensor(found["attacked"])
    assert torch.equal(proven, expected.proven) and torch.equal(attacked, expected.attacked)
    assert found["holds"] == expected.holds.tolist()
    assert [witness["problem"] for witness in found["witnesses"]] == [list(key) for key in sorted(expected.witnesses)]
    # y_0 - y_1 = relu(x_0) + 3 - relu(x_1): from (0.5, -0.5) the nearest tie is (0, 3), from (-0.5, 0.25) it is (-0.5, 3)
    exact = torch.tensor([12.5, 2.75**2]).sqrt().reshape(proven.shape)
    assert (proven < exact).all() and (proven > 0.5 * exact).all()
    assert (attacked >= exact * (1 - 1e-6)).all() and (attacked < 1.5 * exact).all()


@pytest.mark.parametrize("method", ["optimised", "frown"])
def test_radius_goes_on_from_crown_and_never_ends_below(folder, run, method):
    asked = ("radius", "net.onnx", "--data", "x.npy", "--no-attack", "--json")
    plain, found = (answered(run(*asked, "--method", name)) for name in ("crown", method))
    assert all(ours >= crown for ours, crown in zip(found["proven"], plain["proven"], strict=True))
    assert found["method"] == method and max(found["proven"]) > 0


def test_radius_shows_a_table_and_means(folder, run):
    asked = ("radius", "net.onnx", "--data", "labelled.npz", "--no-attack", "--method", "ibp")
    found, shown = answered(run(*asked, "--json")), run(*asked).stdout.splitlines()
    assert shown[0].split() == ["input", "label", "proven", "attacked", "gap"] and shown[1].split()[3:] == ["-", "-"]
    printed = float(shown[1].split()[2])
    assert 0.9999 * found["proven"][0] <= printed <= found["proven"][0], "a proven radius is rounded down"
    assert found["attacked"] == ["inf"] and "mean proven radius" in shown[3] and "(float)" in shown[3]
    assert "the network's own answers" not in "".join(shown)
    wrong = run("radius", "net.onnx", "--data", "x.npy", "--label", "1", "--norm", "0", "--clip", "-1", "1").stdout
    assert "2 of 2 fail at the input itself" in wrong and "mean proven radius -" in wrong
    kept = run("radius", "net.onnx", "--data", "x.npy", "--targets", "random").stdout
    assert "the network's own answers" in kept and kept.splitlines()[0].split()[2] == "target"


def test_profile_says_where_time_went_by_node(folder, run):
    profile = answered(run("bound", "net.onnx", *BALL, "--profile", "--json"))["profile"]
    graph = bl.load_onnx("net.onnx").graph
    assert [node["node"] for node in profile["nodes"]] == [node.name for node in graph if not node.source]
    assert profile["nodes"][-1]["work"]["rows"]["rows"] == 2 * 2 * 2, "both signs of two outputs of two inputs"
    assert sum(node["seconds"] for node in profile["nodes"]) + profile["elsewhere"] == pytest.approx(profile["seconds"])
    plain = run("bound", "net.onnx", *BALL, "--profile").stdout
    assert all(node["node"] in plain for node in profile["nodes"]) and "(elsewhere)" in plain
    assert "profile" not in answered(run("bound", "net.onnx", *BALL, "--json"))


def test_norm_0_counts_coordinates(folder, run):
    arguments = ("--data", "x.npy", "--eps", "1", "--norm", "0", "--clip", "-1", "2")
    found = answered(run("bound", "net.onnx", *arguments, "--json"))
    expected = bl.bound(bl.load_onnx("net.onnx"), bl.L0Ball(torch.from_numpy(np.load("x.npy")), 1, -1.0, 2.0))
    for side, ends in (("lower", expected.lower), ("upper", expected.upper)):
        assert torch.equal(torch.tensor(found[side]), ends)
    undecided = run("verify", "net.onnx", *arguments, "--label", "0")
    assert undecided.exit_code == 20 and "float_only" in undecided.output and "L0Ball has no exact form" in undecided.output
    assert run("verify", "net.onnx", *arguments, "--label", "0", "--rigour", "float").exit_code == 0
    assert run("verify", "net.onnx", *arguments, "--label", "1").exit_code == 10
    assert run("attack", "net.onnx", *arguments, "--label", "1").exit_code == 10


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
    assert verdict["rigour"] == ("checked" if code == 0 else "float")


@pytest.mark.parametrize("verb", ["verify", "attack"])
def test_a_printed_witness_is_a_counterexample(folder, run, verb):
    printed = run(verb, "net.onnx", "unsafe.vnnlib", "--format", "vnncomp")
    assert printed.exit_code == 10
    word, witness = printed.stdout.split("\n", 1)
    assert word == "sat" and re.fullmatch(r"\((\([XY]_\d+ \S+\)\s*)+\)\s*", witness)
    values = dict(re.findall(r"([XY]_\d+) ([^)\s]+)", witness))
    x, y = (np.array([float(values[f"{letter}_{place}"]) for place in range(2)], dtype=np.float32) for letter in "XY")
    assert parse_vnnlib(folder / "unsafe.vnnlib").accepts(x, y, np.float32)
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
    assert found["score"] == found["families"][0]["score"] == 20


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
