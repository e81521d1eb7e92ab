"""The importer against onnxruntime: every operator, shape arithmetic, real networks, and files that are not right."""

from __future__ import annotations

import gzip
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import boundlab as bl
from boundlab.capture.onnx_lowering import ONNX_LOWERINGS
from boundlab.errors import MissingPackage
from boundlab.evaluate import evaluate_all
from tests.capture.onnx_nets import SINGLES, attribute_tensor, ints, numbers, one, save, save_single

TOLERANCE = 1e-4


def difference(path: Path, batch: int, low: float = -2.0, high: float = 3.0, seed: int = 0) -> float:
    """Largest relative difference between our graph and onnxruntime, which runs one example at a time."""
    model, reference = bl.load_onnx(path), bl.onnx_reference(path)
    rng = np.random.default_rng(seed)
    feed = {value.name: rng.uniform(low, high, (batch, *value.inner)).astype(value.dtype) for value in reference.inputs}
    wanted = reference.replay_all(feed)
    values = evaluate_all(model, {name: torch.from_numpy(array) for name, array in feed.items()})
    worst = 0.0
    for index, (name, want) in zip(model.graph.outputs, wanted.items(), strict=True):
        found = values[index].expand(batch, *values[index].shape[1:]).numpy()
        assert found.shape == want.shape, f"{path.name}, output {name}: {found.shape} and {want.shape}"
        if want.dtype.kind == "f":
            assert found.dtype == want.dtype
        want = want.astype(found.dtype)  # whole numbers and truth values are held in the floating type
        worst = max(worst, float(np.abs(found - want).max() / (1 + np.abs(want).max())))
    return worst


# -- operators -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", SINGLES)
def test_operators_agree_with_onnxruntime(name, tmp_path):
    case = SINGLES[name]
    path = save_single(tmp_path / "net.onnx", case)
    for batch in (1, 3):
        assert difference(path, batch, low=case.low) < TOLERANCE


@pytest.mark.parametrize("name", SINGLES)
def test_operators_are_bounded_by_every_method(name, tmp_path):
    low, generator = SINGLES[name].low, torch.Generator().manual_seed(0)
    model = bl.load_onnx(save_single(tmp_path / "net.onnx", SINGLES[name])).detached()
    sets = {}
    for node in model.graph.inputs:
        x = low + (3 - low) * torch.rand(2, *node.shape, generator=generator)
        sets[node.name] = bl.Box((x - 0.05).clamp(min=low).to(model.dtype), (x + 0.05).to(model.dtype))
    points = [{key: box.sample(1, generator)[0] for key, box in sets.items()} for _ in range(8)]
    for output in model.outputs:
        part = model.select_output(output)
        used = {node.name for node in part.graph.inputs}
        values = torch.stack([bl.evaluate(part, {key: x for key, x in point.items() if key in used}) for point in points])
        slack = 1e-4 * (1 + values.abs().amax())
        for method in (bl.IBP(), bl.CROWN(), bl.Forward()):
            found = bl.bound(part, {key: box for key, box in sets.items() if key in used}, method=method)
            assert torch.isfinite(found.lower).all() and torch.isfinite(found.upper).all()
            assert (found.lower <= values + slack).all() and (values <= found.upper + slack).all()


def test_every_rule_has_a_case():
    covered = {case.op for case in SINGLES.values()}
    elsewhere = {"Shape", "Size", "CastLike", "Xor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not",
                 "Swish"}
    assert set(ONNX_LOWERINGS) - covered - elsewhere == set()


def chain(*nodes):
    """Nodes from (operator, inputs, output) in order."""
    return [helper.make_node(op, list(inputs), [output], **attributes) for op, inputs, output, attributes in nodes]


HALF, ONE, ROOT, CUBE, FACTOR, PI = (np.float32(value) for value in (
    0.5, 1, math.sqrt(2), 3, 0.044715, math.sqrt(2 / math.pi)))
SPELLED = {
    "silu": chain(("Sigmoid", "x", "s", {}), ("Mul", "xs", "y", {})),
    "mish": chain(("Softplus", "x", "p", {}), ("Tanh", "p", "t", {}), ("Mul", "xt", "y", {})),
    "gelu": chain(("Div", ("x", "root"), "a", {}), ("Erf", "a", "b", {}), ("Add", ("b", "one"), "c", {}),
                  ("Mul", "xc", "d", {}), ("Mul", ("d", "half"), "y", {})),
    "tanh_gelu": chain(("Pow", ("x", "cube"), "a", {}), ("Mul", ("factor", "a"), "b", {}), ("Add", "xb", "c", {}),
                       ("Mul", ("pi", "c"), "d", {}), ("Tanh", "d", "e", {}), ("Add", ("one", "e"), "f", {}),
                       ("Mul", ("half", "x"), "g", {}), ("Mul", "gf", "y", {})),
    "softsign": chain(("Abs", "x", "a", {}), ("Add", ("one", "a"), "b", {}), ("Div", "xb", "y", {})),
    "relu": chain(("Greater", ("x", "zero"), "c", {}), ("Where", ("c", "x", "zero"), "y", {})),
    "select": chain(("Greater", ("x", "half"), "c", {}), ("LessOrEqual", ("x", "zero"), "d", {}), ("Or", "cd", "e", {}),
                    ("Not", "e", "f", {}), ("And", ("f", "f"), "g", {}), ("Where", "gxh", "y", {})),
    "heaviside": chain(("Less", ("x", "zero"), "c", {}), ("GreaterOrEqual", ("x", "one"), "d", {}), ("Or", "cd", "e", {}),
                       ("Cast", "e", "y", {"to": TensorProto.FLOAT})),
}


@pytest.mark.parametrize("name", SPELLED)
def test_functions_that_are_spelled_out_become_one_operator(tmp_path, name):
    nodes = SPELLED[name]
    numbers_ = {"half": HALF, "one": ONE, "root": ROOT, "cube": CUBE, "factor": FACTOR, "pi": PI, "zero": np.float32(0)}
    inputs = {name: [1, 4] for name in ("x", "h") if any(name in node.input for node in nodes)}
    used = {key: np.asarray(value) for key, value in numbers_.items() if any(key in node.input for node in nodes)}
    path = save(tmp_path / "net.onnx", nodes, inputs, used, ["y"], opset=18)
    assert difference(path, 3) < TOLERANCE
    assert name in [node.op for node in bl.load_onnx(path).graph]


@settings(max_examples=40, deadline=None)
@given(size=st.integers(4, 9), kernel=st.integers(1, 3), stride=st.integers(1, 3), dilation=st.integers(1, 2),
       before=st.integers(0, 2), after=st.integers(0, 2), ceil=st.booleans(),
       op=st.sampled_from(["Conv", "ConvTranspose", "MaxPool", "AveragePool"]))
def test_windows_of_any_geometry(tmp_path_factory, size, kernel, stride, dilation, before, after, ceil, op):
    options = {"strides": [stride], "pads": [min(before, kernel - 1), min(after, kernel - 1)]}
    if op != "AveragePool":
        options["dilations"] = [dilation]
    if "Pool" in op:
        options |= {"kernel_shape": [kernel], "ceil_mode": int(ceil)}
    if dilation * (kernel - 1) + 1 > size:
        return
    weights = [] if "Pool" in op else [numbers(2, 2, kernel)]
    path = save_single(tmp_path_factory.mktemp("onnx") / "net.onnx", one(op, (1, 2, size), *weights, **options))
    assert difference(path, 2) < TOLERANCE


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_slices_of_any_kind(tmp_path_factory, data):
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    steps = [data.draw(st.sampled_from([-2, -1, 1, 2, 3])) for _ in shape]
    starts = [data.draw(st.integers(-size, size - 1)) for size in shape]
    ends = [10**9 if step > 0 else -(10**9) for step in steps]
    case = one("Slice", shape, ints(*starts), ints(*ends), ints(*range(len(shape))), ints(*steps))
    assert difference(save_single(tmp_path_factory.mktemp("onnx") / "net.onnx", case), 2) < TOLERANCE


# -- shape arithmetic and batches ----------------------------------------------------------------------------------------

def test_flatten_by_shape_arithmetic_is_one_reshape(tmp_path):
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]), helper.make_node("Gather", ["shape", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n"], ["n1"], axes=[0]), helper.make_node("Constant", [], ["rest"], value_ints=[-1]),
        helper.make_node("Concat", ["n1", "rest"], ["target"], axis=0), helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    path = save(tmp_path / "net.onnx", nodes, {"x": ["batch", 2, 3]}, {"zero": np.array(0, np.int64)}, ["y"], opset=12)
    model = bl.load_onnx(path)
    assert [node.op for node in model.graph] == ["input", "reshape"]
    assert model.graph.output.shape == (6,)
    assert not model.params
    assert difference(path, 3) == 0


def test_folded_operators(tmp_path):
    """A mask made of known shapes: ConstantOfShape, Range, Equal, Where, Cast, Expand, Size, comparisons."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["ones"], value=attribute_tensor(np.float32([1]))),
        helper.make_node("Size", ["x"], ["size"]), helper.make_node("Constant", [], ["start"], value_int=0),
        helper.make_node("Constant", [], ["step"], value_int=1),
        helper.make_node("Range", ["start", "size", "step"], ["range"]),
        helper.make_node("Constant", [], ["three"], value_ints=[3]), helper.make_node("Div", ["range", "three"], ["third"]),
        helper.make_node("Equal", ["third", "step"], ["equal"]), helper.make_node("Not", ["equal"], ["other"]),
        helper.make_node("Where", ["other", "range", "third"], ["chosen"]),
        helper.make_node("Cast", ["chosen"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["float", "shape"], ["mask"]), helper.make_node("Add", ["mask", "ones"], ["sum"]),
        helper.make_node("Mul", ["x", "sum"], ["y"]),
    ]
    path = save(tmp_path / "net.onnx", nodes, {"x": [1, 2, 3]}, {}, ["y"])
    assert [node.op for node in bl.load_onnx(path).graph if node.op != "parameter"] == ["input", "reshape", "mul"]
    assert difference(path, 3) == 0


def test_a_baked_batch_does_no_harm(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "target"], ["flat"]), helper.make_node("Gemm", ["flat", "w", "b"], ["y"])]
    constants = {"target": ints(1, 6), "w": numbers(6, 4), "b": numbers(1, 4)}
    path = save(tmp_path / "net.onnx", nodes, {"x": [1, 2, 3]}, constants, ["y"])
    assert difference(path, 5) < TOLERANCE


@pytest.mark.parametrize(("declared", "inner"), [
    ([1, 3], (3,)), (["n", 3], (3,)), ([None, 3], (3,)), ([5], (5,)), ([12, 8], (12, 8)), ([1], (1,)), ([1, 1, 3], (1, 3))])
def test_batch_axis_of_inputs(tmp_path, declared, inner):
    path = save(tmp_path / "net.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": declared}, {}, ["y"])
    model, reference = bl.load_onnx(path), bl.onnx_reference(path)
    assert model.graph.inputs[0].shape == model.graph.output.shape == reference.inputs[0].inner == inner
    assert difference(path, 3) == 0


def test_scalar_output_gets_an_axis(tmp_path):
    path = save_single(tmp_path / "net.onnx", one("ReduceSum", (1, 4), keepdims=0))
    assert bl.load_onnx(path).graph.output.shape == (1,)


def test_initializers_are_parameters_by_name(tmp_path):
    w, b = numbers(4, 3), numbers(3)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], name="w"), helper.make_node("Add", ["h", "b"], ["y"], name="b")]
    model = bl.load_onnx(save(tmp_path / "net.onnx", nodes, {"x": [1, 4]}, {"w": w, "b": b, "unused": b}, ["y"]))
    assert set(model.params) == {"w", "b"}
    assert np.array_equal(model.params["w"], w) and np.array_equal(model.params["b"], b)


def test_several_outputs_and_inputs(tmp_path):
    nodes = [helper.make_node("Sub", ["x", "z"], ["d"]), helper.make_node("Relu", ["d"], ["r"])]
    path = save(tmp_path / "net.onnx", nodes, {"x": [1, 4], "z": [1, 4]}, {"c": numbers(2)}, ["r", "d", "x", "c"])
    assert difference(path, 3) == 0
    with pytest.raises(bl.ShapeError, match="4 outputs"):
        bl.onnx_reference(path).replay({"x": numbers(2, 4), "z": numbers(2, 4)})
    with pytest.raises(bl.ShapeError, match="missing or unknown"):
        bl.onnx_reference(path).replay_all(numbers(2, 4))
    with pytest.raises(bl.ShapeError, match=r"takes \(2, 4\)"):
        bl.onnx_reference(path).replay_all({"x": numbers(2, 4), "z": numbers(2, 5)})


def test_float64_networks_keep_their_type(tmp_path):
    w = numbers(4, 3).astype(np.float64)
    nodes = [helper.make_node("Gemm", ["x", "w"], ["h"], alpha=0.5), helper.make_node("Relu", ["h"], ["y"])]
    path = save(tmp_path / "net.onnx", nodes, {"x": [1, 4]}, {"w": w}, ["y"], dtype=np.float64)
    assert bl.load_onnx(path).dtype == torch.float64
    assert difference(path, 3) < 1e-14


def test_gzipped_and_external_files(tmp_path):
    path = save_single(tmp_path / "net.onnx", SINGLES["gemm"])
    packed = tmp_path / "net.onnx.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    outside = tmp_path / "outside.onnx"
    onnx.save(onnx.load(path), outside, save_as_external_data=True, location="weights.bin", size_threshold=0)
    for other in (packed, outside, str(outside)):
        assert torch.equal(bl.load_onnx(other).params["c1"], bl.load_onnx(path).params["c1"])
        assert difference(Path(other), 2) < TOLERANCE
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(bl.CaptureError, match=r"outside\.onnx keeps weights in other files"):
        bl.load_onnx(outside)


def test_bounds_of_an_imported_network_hold(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["h"], pads=[1, 1, 1, 1], strides=[2, 2]), helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2]), helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"]),
    ]
    constants = {"k": numbers(4, 2, 3, 3), "w": numbers(16, 3), "b": numbers(3)}
    path = save(tmp_path / "net.onnx", nodes, {"x": [1, 2, 6, 6]}, constants, ["y"])
    reference, center = bl.onnx_reference(path), torch.from_numpy(numbers(2, 2, 6, 6))
    bounds = bl.bound(bl.load_onnx(path), bl.Box(center - 0.1, center + 0.1), method=bl.CROWN())
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (50, *center.shape)).astype(np.float32)
    for shift in noise:
        y = torch.from_numpy(reference.replay(center.numpy() + shift))
        assert (bounds.lower - 1e-4 <= y).all() and (y <= bounds.upper + 1e-4).all()


def test_a_missing_runtime_is_named(tmp_path, monkeypatch):
    path = save_single(tmp_path / "net.onnx", SINGLES["relu"])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackage, match=r"pip install boundlab\[onnx\]"):
        bl.onnx_reference(path).session()


# -- files that are not right --------------------------------------------------------------------------------------------

def refused(path: Path, kind: type[Exception], *words: str) -> None:
    """Loading raises `kind` with one sentence that names the file and holds all `words`."""
    with pytest.raises(kind) as caught:
        bl.load_onnx(path)
    message = str(caught.value)
    for word in (path.name, *words):
        assert word in message, f"'{word}' is not in: {message}"


def test_files_that_are_not_networks(tmp_path):
    refused(tmp_path / "missing.onnx", bl.CaptureError, "cannot read")
    refused(tmp_path, bl.CaptureError, "cannot read")
    good = save_single(tmp_path / "good.onnx", SINGLES["gemm"]).read_bytes()
    packed = gzip.compress(good)
    for name, content, words in (
        ("text.onnx", b"this is no network", "not an ONNX file"), ("empty.onnx", b"", "not an ONNX file"),
        ("cut.onnx", good[:len(good) // 2], "cut short"), ("cut.onnx.gz", packed[:len(packed) // 2], "cut gzip file"),
        ("broken.onnx.gz", packed[:30] + b"xxxx" + packed[34:], "gzip"),
        ("pointer.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        refused(path, bl.CaptureError, words)


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1), value=st.integers(0, 255))
def test_damaged_files_never_crash(tmp_path_factory, place, value):
    """One byte changed anywhere: the file loads, or one of our errors names it."""
    path = save_single(tmp_path_factory.mktemp("onnx") / "net.onnx", SINGLES["conv"])
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] = value
    path.write_bytes(bytes(content))
    try:
        bl.load_onnx(path)
    except bl.BoundlabError as problem:
        assert "net.onnx" in str(problem)


@pytest.mark.parametrize(("number", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
def test_weights_that_are_not_finite(tmp_path, number, word):
    weight = numbers(4, 3)
    weight[1, 2] = number
    path = save_single(tmp_path / "net.onnx", one("Gemm", (1, 4), weight))
    refused(path, bl.CaptureError, "the_node", "c1", word)


@pytest.mark.parametrize(("case", "kind", "words"), [
    (one("Det", (3, 3)), bl.UnsupportedOperator, ("Det", "register one")),
    (one("TopK", (1, 4), ints(2), outputs=2), bl.UnsupportedOperator, ("TopK", "depend on the network input")),
    (one("ArgMax", (1, 4), axis=1, select_last_index=1), bl.UnsupportedOperator, ("last place",)),
    (one("Cast", (1, 4), to=TensorProto.UINT8), bl.UnsupportedOperator, ("uint8",)),
    (one("Cast", (1, 4), to=TensorProto.DOUBLE), bl.UnsupportedOperator, ("float64", "only floating type")),
    (one("Add", (1, 4), numbers(4).astype(np.float64)), bl.UnsupportedOperator, ("c1", "float64", "mixes")),
    (one("Add", (1, 4), ints(1, 2, 3, 4)), bl.UnsupportedOperator, ("c1", "int64")),
    (one("Reshape", (1, 4), (2,)), bl.UnsupportedOperator, ("shape", "depends on the network input")),
    (one("Reshape", (1, 4), ints(1, 5)), bl.CaptureError, ("[1, 4]", "reshape")),
    (one("Reshape", (1, 4)), bl.CaptureError, ()),
    (one("Gemm", (1, 4), numbers(5, 3)), bl.CaptureError, ("[1, 4]", "[5, 3]")),
    (one("MatMul", (1, 4), (5, 3)), bl.CaptureError, ("[1, 4]", "[5, 3]")),
    (one("Add", (1, 4), (1, 3)), bl.CaptureError, ("[1, 4]", "[1, 3]")),
    (one("Conv", (1, 2, 5, 5), numbers(3, 4, 2, 2)), bl.CaptureError, ()),
    (one("Conv", (2, 2, 5, 5), numbers(3, 2, 2, 2)), bl.UnsupportedOperator, ("[2, 2, 5, 5]",)),
    (one("Concat", (1, 4), (1, 3), axis=2), bl.CaptureError, ("axis 2",)),
    (one("Slice", (1, 4), ints(4), ints(4), ints(1)), bl.UnsupportedOperator, ("empty",)),
    (one("Gather", (1, 4), ints(9), axis=1), bl.CaptureError, ()),
    (one("Mod", (1, 2), np.float32([2, 3]), fmod=1), bl.UnsupportedOperator, ("divisor",)),
    (one("Tile", (1, 4), ints(1, 2**40)), bl.CaptureError, ("4398046511104 numbers",)),
    (one("Expand", (1, 4), ints(2**31, 4)), bl.CaptureError, ("numbers",)),
    (one("AveragePool", (1, 1, 4), kernel_shape=[2**40], pads=[2**40, 0]), bl.CaptureError, ("numbers",)),
    (one("Clip", (1, 2), np.float32(np.inf)), bl.UnsupportedOperator, ("min", "inf")),
    (one("Clip", (1, 2), None, np.float32(-np.inf)), bl.UnsupportedOperator, ("max", "-inf")),
    (one("Clip", (1, 2), np.float32(np.nan)), bl.UnsupportedOperator, ("min", "nan")),
    (one("Mod", (1, 2), np.float32(1e-42), fmod=1), bl.UnsupportedOperator, ("inverse",)),
    (one("GridSample", (1, 1, 2, 2), np.full((1, 1, 1, 2), 1e38, np.float32)), bl.UnsupportedOperator, ("place beyond",)),
    (one("Shrink", (1, 4), lambd=0.5, bias=0.3), bl.UnsupportedOperator, ("bias is 0.3",)),
    (one("Resize", (1, 1, 4, 4), None, np.float32([1, 1, 2, 2]), mode="linear", antialias=1, opset=18),
     bl.UnsupportedOperator, ("antialias",)),
    (one("LSTM", (2, 1, 3), numbers(1, 8, 3), numbers(1, 8, 2), hidden_size=2, clip=1.0, outputs=3),
     bl.UnsupportedOperator, ("clip",)),
    (one("Einsum", (1, 3), (1, 4), equation="bi,bi->b"), bl.CaptureError, ()),
    (one("Dropout", (1, 4), np.float32(0.5), np.array(True)), bl.UnsupportedOperator, ("training mode",)),
])
def test_nodes_that_cannot_be_read(tmp_path, case, kind, words):
    refused(save_single(tmp_path / "net.onnx", case), kind, "the_node", case.op, *words)


@pytest.mark.parametrize(("dtype", "shape", "word"), [
    (np.float16, [1, 4], "float16"), (np.int64, [1, 4], "int64"), (np.float32, [1, "width"], "width"),
    (np.float32, None, "shape"), (np.float32, [1, 2**31, 2**20], "more than boundlab takes")])
def test_inputs_that_cannot_be_bounded(tmp_path, dtype, shape, word):
    path = save(tmp_path / "net.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": shape}, {}, ["y"], dtype=dtype)
    refused(path, bl.CaptureError, "'x'", word)


def test_known_values_that_would_fill_the_memory(tmp_path):
    ends = [ints(number).reshape(()) for number in (0, 2**40, 1)]
    for op, constants in (("ConstantOfShape", [ints(2**20, 2**20)]), ("Range", ends)):
        names = [f"c{place}" for place in range(len(constants))]
        nodes = [helper.make_node(op, names, ["k"], name="the_node"), helper.make_node("Relu", ["x"], ["y"])]
        refused(save(tmp_path / "net.onnx", nodes, {"x": [1, 4]}, dict(zip(names, constants, strict=True)), ["y"]),
                bl.CaptureError, "the_node", "numbers is more than")


def test_graphs_that_do_not_hang_together(tmp_path):
    relu = helper.make_node("Relu", ["x"], ["y"], name="the_node")
    refused(save(tmp_path / "a.onnx", [relu], {"x": [1, 4]}, {}, ["z"]), bl.CaptureError, "no node computes the output 'z'")
    refused(save(tmp_path / "b.onnx", [relu], {"w": [1, 4]}, {}, ["y"]), bl.CaptureError, "the_node", "reads 'x'")
    refused(save(tmp_path / "c.onnx", [relu], {}, {"x": numbers(1, 4)}, ["y"]), bl.CaptureError, "at least one input")
    custom = helper.make_node("Wobble", ["x"], ["y"], domain="com.example", name="the_node")
    refused(save(tmp_path / "d.onnx", [custom], {"x": [1, 4]}, {}, ["y"]), bl.UnsupportedOperator, "onnx:com.example.Wobble")


# -- real networks -------------------------------------------------------------------------------------------------------

HIGHEST = {"traffic_signs": 255.0}
"""Families whose inputs are not between 0 and 1."""


def test_competition_networks_agree_with_onnxruntime():
    folder = os.environ.get("BOUNDLAB_DATA")
    if not folder:
        pytest.skip("BOUNDLAB_DATA is not set; it names the folder that holds vnncomp/<family>/onnx")
    files = sorted(Path(folder, "vnncomp").glob("*/onnx/*.onnx*"))
    assert files, f"{folder} holds no vnncomp/<family>/onnx/*.onnx files"
    table: dict[str, list[float]] = {}
    for path in files:
        family = path.parts[-3]
        row = table.setdefault(family, [0, 0, 0.0, 0.0])
        row[0] += 1
        start = time.perf_counter()
        bl.load_onnx(path)
        row[1] += 1
        row[2] += time.perf_counter() - start
        row[3] = max(row[3], *(difference(path, batch, low=0.0, high=HIGHEST.get(family, 1.0)) for batch in (1, 3)))
    lines = [f"{family:22} {count:5} {loaded:6} {seconds:7.2f}  {worst:.1e}"
             for family, (count, loaded, seconds, worst) in table.items()]
    sys.stdout.write("\n".join(["", f"{'family':22} files loaded  load s  difference", *lines, ""]))
    assert all(worst < TOLERANCE for *_, worst in table.values())
