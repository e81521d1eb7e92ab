"""The checker's reader against onnxruntime: at single points the intervals of its network hold what the runtime computes."""

from __future__ import annotations

import csv
import gzip
import itertools
import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from boundlab.certificates.known import Slopes, derive
from boundlab.certificates.network import Network
from boundlab.certificates.reading import read_network
from boundlab.errors import CertificateError
from tests.certificates.models import model

RNG = np.random.default_rng(0)
DATA = os.environ.get("BOUNDLAB_DATA")


def f32(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def node(kind: str, *inputs: str, output: str = "y", **attributes: object):
    return helper.make_node(kind, list(inputs), [output], **attributes)


IMAGE, FLAT = (1, 2, 5, 6), (1, 6)
W = f32(3, 2, 3, 2)
CASES = {
    "Gemm": ((1, 6), [node("Gemm", "x", "w", "b", transB=1, alpha=0.7, beta=1.3)], {"w": f32(4, 6), "b": f32(4)}),
    "Gemm of a constant left": ((6, 2), [node("Gemm", "w", "x", "b")], {"w": f32(4, 6), "b": f32(4, 2)}),
    "Gemm transposed": ((6, 2), [node("Gemm", "x", "w", transA=1)], {"w": f32(6, 3)}),
    "MatMul": ((1, 6), [node("MatMul", "x", "w")], {"w": f32(6, 4)}),
    "MatMul of stacks": ((1, 2, 3, 4), [node("MatMul", "x", "w")], {"w": f32(2, 4, 5)}),
    "MatMul by a vector": ((1, 3, 4), [node("MatMul", "x", "w")], {"w": f32(4)}),
    "MatMul left": ((1, 4, 3), [node("MatMul", "w", "x")], {"w": f32(5, 4)}),
    "MatMul of two": ((1, 2, 3, 3), [node("Transpose", "x", output="t", perm=[0, 1, 3, 2]), node("Relu", "x", output="z"),
                                     node("MatMul", "z", "t")], {}),
    "MatMul of two with broadcasting": ((2, 3), [node("Tanh", "x", output="z"), node("Reshape", "z", "s", output="t"),
                                                 node("MatMul", "x", "t")], {"s": ints(1, 3, 2)}),
    "MatMul of two vectors": ((1, 4), [node("Reshape", "x", "s", output="v"), node("Tanh", "v", output="t"),
                                       node("MatMul", "v", "t", output="p"), node("Reshape", "p", "o")],
                              {"s": ints(4), "o": ints(1, 1)}),
    "MatMul of a row and a matrix": ((3, 4), [node("Slice", "x", "b", "e", "a", output="r"),
                                              node("Reshape", "r", "s", output="v"),
                                              node("Transpose", "x", output="t", perm=[1, 0]), node("MatMul", "v", "t")],
                                     {"s": ints(4), "b": ints(1), "e": ints(2), "a": ints(0)}),
    "Gemm of two": ((3, 2), [node("Tanh", "x", output="z"), node("Gemm", "x", "z", transA=1)], {}),
    "Gemm of two, transposed": ((3, 2), [node("Tanh", "x", output="z"), node("Gemm", "x", "z", transB=1)], {}),
    "inner Softmax": (IMAGE, [node("Softmax", "x", output="z", axis=2), node("Neg", "z")], {}),
    "inner Softmax of the last axis": (IMAGE, [node("Softmax", "x", output="z"), node("Mul", "z", "z")], {}),
    "inner Softmax of one": ((3, 1), [node("Softmax", "x", output="z"), node("Add", "z", "x")], {}),
    "inner LogSoftmax": (IMAGE, [node("LogSoftmax", "x", output="z", axis=1), node("Neg", "z")], {}),
    "attention": ((1, 4, 3), [node("MatMul", "x", "q", output="u"), node("MatMul", "x", "k", output="v"),
                              node("Transpose", "v", output="t", perm=[0, 2, 1]), node("MatMul", "u", "t", output="w"),
                              node("Softmax", "w", output="p"), node("MatMul", "p", "x")], {"q": f32(3, 5), "k": f32(3, 5)}),
    "Resize": (IMAGE, [node("Resize", "x", "", "s")], {"s": np.array([1, 1, 2, 3], np.float32)}),
    "Resize to a size": (IMAGE, [node("Resize", "x", "", "", "s", mode="linear")], {"s": ints(1, 2, 15, 12)}),
    **{f"Resize {mode} {where} {rounding}": (IMAGE, [node("Resize", "x", "", "s", mode=mode, nearest_mode=rounding,
                                                          coordinate_transformation_mode=where)],
                                             {"s": np.array([1, 1, 3, 2], np.float32)})
       for mode in ("nearest", "linear") for where in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
       for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")},
    "Conv": (IMAGE, [node("Conv", "x", "w", "b", pads=[1, 0, 2, 1], strides=[2, 1])], {"w": W, "b": f32(3)}),
    "Conv dilated in groups": (IMAGE, [node("Conv", "x", "w", group=2, dilations=[2, 1])], {"w": f32(4, 1, 2, 3)}),
    "Conv padded by name": (IMAGE, [node("Conv", "x", "w", auto_pad="SAME_LOWER", strides=[2, 2])], {"w": W}),
    "Conv of a signal": ((1, 2, 9), [node("Conv", "x", "w")], {"w": f32(3, 2, 4)}),
    "ConvTranspose": (IMAGE, [node("ConvTranspose", "x", "w", "b", strides=[2, 3], pads=[1, 0, 0, 1], output_padding=[1, 0])],
                      {"w": f32(2, 3, 3, 4), "b": f32(3)}),
    "ConvTranspose in groups": (IMAGE, [node("ConvTranspose", "x", "w", group=2)], {"w": f32(2, 2, 2, 2)}),
    "AveragePool": (IMAGE, [node("AveragePool", "x", kernel_shape=[3, 2], pads=[1, 1, 1, 0], strides=[2, 2])], {}),
    "AveragePool with padding": (IMAGE, [node("AveragePool", "x", kernel_shape=[3, 2], pads=[1, 1, 1, 0],
                                 count_include_pad=1)], {}),
    "AveragePool up": (IMAGE, [node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)], {}),
    "GlobalAveragePool": (IMAGE, [node("GlobalAveragePool", "x")], {}),
    "MaxPool": (IMAGE, [node("MaxPool", "x", kernel_shape=[3, 2], pads=[1, 1, 1, 0], strides=[2, 2])], {}),
    "BatchNormalization": (IMAGE, [node("BatchNormalization", "x", "s", "b", "m", "v", epsilon=0.01)],
                           {"s": f32(2), "b": f32(2), "m": f32(2), "v": f32(2)**2}),
    "Add constant": (FLAT, [node("Add", "x", "c")], {"c": f32(3, 1)}), "Add twice": (FLAT, [node("Add", "x", "x")], {}),
    "Sub": (FLAT, [node("Sub", "c", "x")], {"c": f32(6)}), "Neg": (FLAT, [node("Neg", "x")], {}),
    "Sub of itself scaled": (FLAT, [node("Mul", "x", "c", output="z"), node("Sub", "x", "z")], {"c": f32(6)}),
    "Mul": (FLAT, [node("Mul", "c", "x")], {"c": f32(2, 1)}), "Div": (FLAT, [node("Div", "x", "c")], {"c": f32(6)}),
    "Mul of two": (FLAT, [node("Relu", "x", output="z"), node("Mul", "x", "z")], {}),
    "Mul with broadcasting": ((2, 3), [node("ReduceSum", "x", "a", output="z"), node("Mul", "x", "z")], {"a": ints(1)}),
    "Square": (FLAT, [node("Mul", "x", "x")], {}), "Pow": (FLAT, [node("Pow", "x", "c")], {"c": np.float32(3)}),
    "Div of two": (FLAT, [node("Exp", "x", output="z"), node("Div", "x", "z")], {}),
    "Div of a constant": (FLAT, [node("Exp", "x", output="z"), node("Div", "c", "z")], {"c": f32(6)}),
    "ReduceSum": (IMAGE, [node("ReduceSum", "x", "a", keepdims=0)], {"a": ints(1, -1)}),
    "ReduceMean": (IMAGE, [node("ReduceMean", "x", axes=[2, 3])], {}),
    "ReduceMean of all": (IMAGE, [node("ReduceMean", "x")], {}),
    "Sum": (FLAT, [node("Relu", "x", output="z"), node("Sum", "x", "z", "c")], {"c": f32(6)}),
    **{kind: (FLAT, [node(kind, "x")], {}) for kind in ("Relu", "Abs", "Sign", "Floor", "Sigmoid", "Tanh", "Exp", "Softplus",
                                                       "Sin", "Cos", "LeakyRelu", "HardSigmoid", "Identity", "Dropout")},
    **{kind: (FLAT, [node("Exp", "x", output="z"), node(kind, "z")], {}) for kind in ("Log", "Sqrt", "Reciprocal")},
    "PRelu": (IMAGE, [node("PRelu", "x", "s")], {"s": f32(2, 1, 1)}),
    "Clip": (FLAT, [node("Clip", "x", "l", "u")], {"l": np.float32(-0.5), "u": np.float32(0.7)}),
    "Clip on one side": (FLAT, [node("Clip", "x", "", "u")], {"u": np.float32(0.1)}),
    "Max with constant": (FLAT, [node("Max", "x", "c")], {"c": f32(6)}),
    "Min with constant": (FLAT, [node("Min", "c", "x")], {"c": f32(6)}),
    "Max": (FLAT, [node("Neg", "x", output="z"), node("Max", "x", "z")], {}),
    "Min": (FLAT, [node("Neg", "x", output="z"), node("Min", "x", "z", "c")], {"c": f32(6)}),
    "Reshape": (IMAGE, [node("Transpose", "x", output="z", perm=[0, 2, 1, 3]), node("Reshape", "z", "s")],
                {"s": ints(1, -1, 4)}),
    "Flatten": (IMAGE, [node("Flatten", "x", axis=2)], {}),
    "Squeeze": ((1, 1, 3), [node("Squeeze", "x", "a", output="z"), node("Unsqueeze", "z", "b")],
                {"a": ints(1), "b": ints(0, 3)}),
    "Slice": (IMAGE, [node("Slice", "x", "s", "e", "a", "t")],
              {"s": ints(-1, 1), "e": ints(-5, 9), "a": ints(3, 2), "t": ints(-2, 1)}),
    "Gather": (IMAGE, [node("Gather", "x", "i", axis=2)], {"i": np.array([[3, 0], [0, -1]])}),
    "Split": (IMAGE, [helper.make_node("Split", ["x"], ["p", "q"], axis=1), node("Sub", "q", "p")], {}),
    "Concat": (FLAT, [node("Neg", "x", output="z"), node("Concat", "z", "c", "x", axis=1)], {"c": f32(1, 2)}),
    "Pad": (IMAGE, [node("Pad", "x", "p", "v")], {"p": ints(0, 0, 1, 2, 0, 0, 0, 1), "v": np.float32(0.3)}),
    "Pad by reflection": (IMAGE, [node("Pad", "x", "p", mode="reflect")], {"p": ints(0, 0, 1, 2, 0, 0, 0, 1)}),
    "Expand": ((1, 1, 3), [node("Expand", "x", "s")], {"s": ints(2, 2, 3)}),
    "Tile": (FLAT, [node("Tile", "x", "r")], {"r": ints(1, 2)}),
    "DepthToSpace": ((1, 4, 2, 2), [node("DepthToSpace", "x", blocksize=2)], {}),
    "Where": (FLAT, [node("Where", "m", "x", "c")], {"m": np.array([True, False] * 3), "c": f32(6)}),
    "Shape": (FLAT, [node("Shape", "x", output="s"), node("ConstantOfShape", "s", output="o"), node("Add", "x", "o")], {}),
    "Constant": (FLAT, [helper.make_node("Constant", [], ["c"], value_floats=[1.5, 2.5]), node("Gemm", "x", "w", "c")],
                 {"w": f32(6, 2)}),
    "Cast": (FLAT, [node("Cast", "x", output="z", to=11), node("Cast", "z", to=1)], {}),
}


def outputs_at(network: Network, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the outputs on the single point x (d,)."""
    points = [x[step.start:step.start + step.size, None].astype(np.float64) for step in network.inputs]
    known = derive(network, [(point, point) for point in points], Slopes())
    lower, upper = known.ends[network.output]
    return lower[:, 0], upper[:, 0]


def replay(content: bytes, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    start, feeds = 0, {}
    for one in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in one.shape]
        feeds[one.name] = x[start:start + int(np.prod(shape))].reshape(shape)
        start += int(np.prod(shape))
    return session.run(None, feeds)[0].reshape(-1).astype(np.float64)


@pytest.mark.parametrize("name", CASES)
def test_operators_agree_with_the_runtime(name: str) -> None:
    shape, nodes, constants = CASES[name]
    content = model(nodes, shape, constants)
    network = read_network(content)
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=int(np.prod(shape))).astype(np.float32)
        expected, (lower, upper) = replay(content, x), outputs_at(network, x)
        assert lower.shape == expected.shape
        scale = 1 + np.abs(expected)
        assert (lower <= upper).all() and (upper - lower <= 1e-12 * scale).all(), "a point has a value, up to rounding"
        assert (np.abs(lower - expected) <= 4e-6 * scale).all()


@pytest.mark.parametrize("nodes, constants, message", [
    ([node("TopK", "x", "k", output="z"), node("Neg", "z")], {"k": ints(2)}, "does not know TopK"),
    ([node("Resize", "x", "", "s")], {"s": np.array([1, 1.5], np.float32)}, "whole factors"),
    ([node("Resize", "x", "", "s", mode="cubic")], {"s": np.array([1, 2], np.float32)}, "mode 'cubic'"),
    ([node("Pow", "x", "c")], {"c": np.float32(2.5)}, "exponents"),
    ([node("MatMul", "x", "t", output="y")], {}, "nothing computes"),
    ([node("Shape", "x", output="s"), node("Cast", "s", to=1)], {}, "does not depend"),
    ([node("Gemm", "x", "w")], {"w": np.full((6, 1), np.nan, np.float32)}, "not finite"),
])
def test_what_it_does_not_know_is_said(nodes: list, constants: dict, message: str) -> None:
    with pytest.raises(CertificateError, match=message):
        read_network(model(nodes, FLAT, constants))


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\x07" * 40])
def test_bytes_that_are_no_network_are_refused(content: bytes) -> None:
    with pytest.raises(CertificateError, match="ONNX"):
        read_network(content)


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 12, 13, 17, 18, 19, 21])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1])
def test_softmax_means_what_its_operator_set_says(opset: int, axis: int | None) -> None:
    """Before 13 it is about all axes from `axis` on, which is 1 unless said; from then on about one, the last unless said."""
    given = {} if axis is None else {"axis": axis}
    content = model([node("Softmax", "x", output="z", **given), node("Sub", "z", "x")], (1, 3, 2, 2), {}, opset=opset)
    x = np.random.default_rng(0).normal(size=12).astype(np.float32)
    lower, upper = outputs_at(read_network(content), x)
    assert (np.abs((lower + upper) / 2 - replay(content, x)) <= 1e-6).all() and (upper - lower <= 1e-12).all()


@pytest.mark.parametrize("opset, mode", [(7, "nearest"), (9, "nearest"), (9, "linear"), (10, "nearest"), (10, "linear")])
def test_older_resizing_agrees_with_the_runtime(opset: int, mode: str) -> None:
    kind, scales = "Resize" if opset == 10 else "Upsample", np.array([1, 1, 2, 3], np.float32)
    given = {"scales": scales.tolist()} if opset == 7 else {}
    nodes = [node(kind, *(["x"] if given else ["x", "s"]), mode=mode, **given)]
    content = model(nodes, IMAGE, {} if given else {"s": scales}, opset=opset)
    x = np.random.default_rng(0).normal(size=60).astype(np.float32)
    (lower, upper), expected = outputs_at(read_network(content), x), replay(content, x)
    assert (np.abs(lower - expected) <= 1e-6 * (1 + np.abs(expected))).all() and (upper - lower <= 1e-12).all()


UNKNOWN = {"carvana_unet": "ArgMax", "cctsdb_yolo": "Cast"}
"""Families whose networks the checker does not know, and what stops it."""


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="BOUNDLAB_DATA does not name the data folder")
def test_competition_networks_agree_with_the_runtime() -> None:
    folder = Path(DATA or "") / "vnncomp"
    with open(folder / "instances.csv") as stream:
        rows = sorted(csv.DictReader(stream), key=lambda row: row["family"])
    refused = {}
    for family, group in itertools.groupby(rows, key=lambda row: row["family"]):
        content = gzip.decompress((folder / family / f"{next(group)['onnx']}.gz").read_bytes())
        try:
            network = read_network(content)
        except CertificateError as problem:
            refused[family] = str(problem)
            continue
        x = np.random.default_rng(0).uniform(0, 1, sum(step.size for step in network.inputs)).astype(np.float32)
        expected, (lower, upper) = replay(content, x), outputs_at(network, x)
        if network.groups is not None:
            assert lower.argmax() == expected.argmax()
            continue
        assert (np.abs((lower + upper) / 2 - expected) <= 3e-5 * np.abs(expected).max()).all(), family
        assert (upper - lower).max() <= 1e-5 * np.abs(expected).max(), family
    assert set(refused) == set(UNKNOWN)
    assert all(UNKNOWN[family] in text for family, text in refused.items())
