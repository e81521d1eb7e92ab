"""Folders of instances: lists are read, outcomes come from a process of their own, failures are rows and not ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import boundlab as bl
from boundlab.verify.competition import by_family, read_instances, run_instances
from boundlab.verify.verdict import Verdict
from tests.question.test_vnnlib import boxed, declared


def doubling(path: Path) -> None:
    """y = 2 x as an ONNX file."""
    node = helper.make_node("Mul", ["x", "two"], ["y"])
    shape = [1, 2]
    graph = helper.make_graph(
        [node], "double", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array([2.0], dtype=np.float32), "two")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    doubling(tmp_path / "net.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    for name, unsafe in (("safe", "(>= Y_0 3)"), ("unsafe", "(>= Y_0 1.5)")):
        (tmp_path / f"{name}.vnnlib").write_text(declared(2, 2) + boxed(2) + f"(assert {unsafe})")
    np.savez(tmp_path / "good.npz", x=np.array([1.0, 0.0]), y=np.array([2.0, 0.0]))
    np.savez(tmp_path / "bad.npz", x=np.array([1.5, 0.0]), y=np.array([3.0, 0.0]))
    (tmp_path / "instances.csv").write_text(
        "onnx,vnnlib,timeout,expected,witness\nnet.onnx,safe.vnnlib,20,unsat,\nbroken.onnx,safe.vnnlib,20,unsat,\n"
        "net.onnx,unsafe.vnnlib,20,sat,good.npz\nnet.onnx,unsafe.vnnlib,20,unsat,bad.npz\n")
    return tmp_path


def test_a_folder_is_run_and_counted(folder: Path) -> None:
    safe, broken, good, bad = run_instances(read_instances(folder))
    assert (safe.verdict, safe.agrees, safe.accepted) == (Verdict.VERIFIED, True, None)
    assert (broken.verdict, broken.agrees) == (Verdict.UNKNOWN, None) and broken.error
    assert (good.verdict, good.agrees, good.accepted) == (Verdict.FALSIFIED, True, True)
    assert (bad.verdict, bad.agrees, bad.accepted) == (Verdict.FALSIFIED, False, False)
    line, = by_family([safe, broken, good, bad])
    assert (line.instances, line.verified, line.falsified, line.undecided, line.errors) == (4, 1, 2, 1, 1)
    assert (line.disagree, line.witnesses, line.accepted) == (1, 2, 1)
    assert [outcome.score for outcome in (safe, broken, good, bad)] == [10, 0, 10, -150] and line.score == -130


def test_certificates_are_written_of_what_is_verified(folder: Path, tmp_path: Path) -> None:
    chosen = [replace(instance, certificate=tmp_path / f"{place}.zip") for place, instance in enumerate(read_instances(folder))]
    safe, broken, *falsified = run_instances(chosen)
    assert safe.verdict is Verdict.VERIFIED and safe.checked and broken.error and not broken.checked
    assert bl.check_certificate(tmp_path / "0.zip", safe.instance.onnx, safe.instance.vnnlib).accepted
    assert not any(outcome.checked for outcome in falsified) and len(list(tmp_path.glob("*.zip"))) == 1


def test_the_competition_s_own_lists_have_no_header(folder: Path) -> None:
    (folder / "instances.csv").write_text("net.onnx,safe.vnnlib,116\n")
    instance, = read_instances(folder)
    assert (instance.onnx, instance.timeout, instance.expected) == (folder / "net.onnx", 116.0, "")


def test_missing_and_malformed_lists_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "instances.csv").write_text("net.onnx,safe.vnnlib\n")
    with pytest.raises(bl.SpecError, match="entry 1"):
        read_instances(folder)
    with pytest.raises(bl.SpecError, match=r"no instances\.csv"):
        read_instances(folder / "nowhere")
