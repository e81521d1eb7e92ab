"""VNN-LIB 2.0 on the command line: one network, several, values inside; and what is refused, in one sentence."""

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from boundlab.capture.onnx import onnx_reference

ONE = "(vnnlib-version <2.0>)\n(declare-network f (declare-input X float32 [1,2]){hidden} (declare-output Y float32 [1,2]))\n"
BOX = "".join(f"(assert (>= X[0,{i}] -1.0))\n(assert (<= X[0,{i}] 1.0))\n" for i in range(2))
SAME = "".join(f"(assert (== X[0,{i}] A[0,{i}]))\n" for i in range(2))
DIFFERS = "(assert (or (>= (- Y[0,0] Z[0,0]) {eps}) (<= (- Y[0,0] Z[0,0]) -{eps})))"


def second(folder: Path) -> None:
    """A network whose outputs are 0.001 above those of the first."""
    model = onnx.load(folder / "net.onnx")
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "b2")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.001), "b2"))
    onnx.save(model, folder / "other.onnx")


def state(folder: Path, body: str, hidden: str = "", relation: str | None = None) -> str:
    text = ONE.format(hidden=hidden)
    if relation is not None:
        text += f"(declare-network g {relation} (declare-input A float32 [1,2]) (declare-output Z float32 [1,2]))\n"
    (folder / "new.vnnlib").write_text(text + BOX + body)
    return "new.vnnlib"


def test_one_network_with_its_certificate(folder: Path, run) -> None:
    spec = state(folder, "(assert (<= Y[0,0] Y[0,1]))")
    made = run("verify", "net.onnx", spec, "--certificate", "proof.zip")
    assert made.exit_code == 0 and "verified (checked)" in made.stdout
    assert run("check", "proof.zip", "net.onnx", spec).exit_code == 0


@pytest.mark.parametrize("eps, code", [("0.01", 0), ("0.0005", 10)])
def test_two_networks_are_equivalent_up_to_their_difference(folder: Path, run, eps: str, code: int) -> None:
    second(folder)
    spec = state(folder, SAME + DIFFERS.format(eps=eps), relation="(isomorphic-to f)")
    assert run("verify", "net.onnx", spec, "--network", "g=other.onnx").exit_code == code
    assert run("verify", "other.onnx", spec, "--network", "f=net.onnx").exit_code == code
    assert run("attack", "net.onnx", spec, "--network", "g=other.onnx").exit_code == (code or 20)


def test_a_network_is_equal_to_itself_and_not_to_itself_elsewhere(folder: Path, run) -> None:
    assert run("verify", "net.onnx", state(folder, SAME + DIFFERS.format(eps="0.01"), relation="(equal-to f)")).exit_code == 0
    apart = BOX.replace("X", "A") + DIFFERS.format(eps="0.5")
    assert run("verify", "net.onnx", state(folder, apart, relation="(equal-to f)")).exit_code == 10


def test_a_value_inside_is_what_the_file_computes(folder: Path, run) -> None:
    hidden = ' (declare-hidden H float32 [1,2] "h")'
    assert run("verify", "net.onnx", state(folder, "(assert (> H[0,0] Y[0,0]))", hidden)).exit_code == 0
    found = run("verify", "net.onnx", state(folder, "(assert (> H[0,0] 0.5))\n(assert (< Y[0,1] 0.1))", hidden))
    assert found.exit_code == 10
    words = found.stdout.replace("(", " ").replace(")", " ").split()
    value = {name: float(words[words.index(name) + 1]) for name in ("X_0", "X_1", "Y_0", "Y_1", "Y_2", "Y_3")}
    replayed = onnx_reference(folder / "net.onnx", also=("h",)).replay_all(np.array([[value["X_0"], value["X_1"]]], np.float32))
    assert np.allclose([*replayed["y"][0], *replayed["h"][0]], [value[f"Y_{i}"] for i in range(4)])


@pytest.mark.parametrize("arguments, said", [
    ((), "name all but one by --network"),
    (("--network", "h=net.onnx"), "'h=net.onnx' is not NAME=NET"),
    (("--network", "g"), "'g' is not NAME=NET"),
    (("--network", "g=none.onnx"), "does not exist"),
    (("--network", "g=net.onnx", "--network", "g=net.onnx"), "each at most once"),
    (("--network", "g=net.onnx", "--certificate", "proof.zip"), "the checker takes no others"),
])
def test_networks_that_are_missing_or_unknown_are_refused(folder: Path, run, arguments: tuple[str, ...], said: str) -> None:
    spec = state(folder, SAME + DIFFERS.format(eps="0.01"), relation="")
    made = run("verify", "net.onnx", spec, *arguments)
    assert made.exit_code == 2 and said in made.stderr and len(made.stderr.strip().splitlines()) == 1
    assert not (folder / "proof.zip").exists()


@pytest.mark.parametrize("arguments, said", [
    (("safe.vnnlib", "--network", "g=net.onnx"), "this is version 1.0"),
    (("--data", "x.npy", "--eps", "0.1", "--label", "0", "--network", "g=net.onnx"), "--data has one, NET"),
])
def test_names_of_networks_without_such_a_file_are_refused(folder: Path, run, arguments: tuple[str, ...], said: str) -> None:
    made = run("verify", "net.onnx", *arguments)
    assert made.exit_code == 2 and said in made.stderr


def test_a_certificate_of_several_networks_is_not_checked_as_one_of_one(folder: Path, run) -> None:
    made = run("verify", "net.onnx", "safe.vnnlib", "--certificate", "proof.zip")
    assert made.exit_code == 0
    spec = state(folder, SAME + DIFFERS.format(eps="0.01"), relation="(equal-to f)")
    checked = run("check", "proof.zip", "net.onnx", spec, "--ignore-hashes")
    assert checked.exit_code == 2 and "several networks" in checked.stderr


def test_a_query_that_relates_outputs_to_inputs_gets_no_certificate(folder: Path, run) -> None:
    spec = state(folder, "(assert (<= Y[0,0] X[0,0]))")
    assert run("verify", "net.onnx", spec).exit_code == 0
    made = run("verify", "net.onnx", spec, "--certificate", "proof.zip")
    assert made.exit_code == 2 and "verified (sound)" in made.stderr and "not the files" in made.stderr
    assert not (folder / "proof.zip").exists()
