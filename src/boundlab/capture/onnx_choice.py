"""ONNX operators that choose by values that depend on the input: places of maxima, whole numbers, places that vary.

Whole numbers and truth values are held in the network's floating type, where they are exact.
"""

from __future__ import annotations

import math

import numpy as np

from boundlab.capture.onnx_file import type_name
from boundlab.capture.onnx_lowering import OnnxLowering, OnnxNode, Value, chooses, lowers
from boundlab.errors import UnsupportedOperator

LONG = ("int32", "int64")
"""Types of whole numbers that hold whatever a network counts."""

# -- truth values and whole numbers --------------------------------------------------------------------------------------


def differs(low: OnnxLowering, x: Value, y: Value) -> Value:
    """1 where two values differ, else 0."""
    return low.elementwise("sign", low.elementwise("abs", low.elementwise("sub", x, y)))


def negated(low: OnnxLowering, x: Value) -> Value:
    """1 for 0 and 0 for 1."""
    return low.elementwise("add", low.elementwise("neg", x), low.literal(1.0))


@lowers("Equal")
def equal(low: OnnxLowering, node: OnnxNode) -> Value:
    """1 where two values are equal, else 0."""
    return negated(low, differs(low, *low.everything(node)))


@lowers("Xor")
def exclusive_or(low: OnnxLowering, node: OnnxNode) -> Value:
    """1 where two truth values differ."""
    return differs(low, *low.everything(node))


@lowers("Cast", "CastLike")
def cast(low: OnnxLowering, node: OnnxNode) -> Value:
    """Between the network's floating type, whole numbers (cut towards zero) and truth values."""
    x, like = low.value(node), low.given(node, 1) if node.op == "CastLike" else None
    own = str(low.builder.dtype).removeprefix("torch.")
    kind = type_name(node.attributes["to"]) if node.op == "Cast" else str(like.dtype) if isinstance(like, np.ndarray) else own
    if kind == own:
        return x
    if kind == "bool":
        return low.elementwise("sign", low.elementwise("abs", x))
    if kind not in LONG:
        raise UnsupportedOperator(f"it casts a value that depends on the network input to {kind}; supported are {own}, which "
                                  f"is the network's only floating type, {' and '.join(LONG)}, and bool")
    return x if x.whole else low.elementwise("trunc", x)


# -- places of maxima ----------------------------------------------------------------------------------------------------

@lowers("ArgMax", "ArgMin")
def argmax(low: OnnxLowering, node: OnnxNode) -> Value:
    """The first place of the largest (smallest) entry along an axis."""
    if node.attributes.get("select_last_index", 0):
        raise UnsupportedOperator("it takes the last place of several equal ones; only the first is supported")
    x = low.value(node)
    axis = low.axis(x, node.attributes.get("axis", 0))
    shape = list(x.shape)
    shape[axis] = 1
    index, left_out = low.open(x if node.op == "ArgMax" else low.elementwise("neg", x), [axis])
    found = low.builder.add("argmax", index, dim=axis - left_out, keepdim=True)
    return low.close(found, tuple(shape) if node.attributes.get("keepdims", 1) else (*shape[:axis], *shape[axis + 1:]))


@chooses("OneHot", 0)
def one_hot(low: OnnxLowering, node: OnnxNode) -> Value:
    """One of two values along a new axis: the second where the axis' place is the index, counted from either end."""
    index, values = low.value(node), low.array(node, 2, "values")
    depth = int(low.array(node, 1, "depth").reshape(-1)[0])
    axis = low.axis(index, node.attributes.get("axis", -1), extra=1)
    wide = low.close(index.index, (*index.shape[:axis], 1, *index.shape[axis:]))
    places = np.arange(depth).reshape(-1, *[1] * (len(index.shape) - axis))
    hits = [negated(low, differs(low, wide, low.literal(places - shift))) for shift in (0, depth)]
    hot = low.elementwise("add", *hits)
    rise = low.elementwise("mul", hot, low.literal(float(values[1]) - float(values[0])))
    return low.elementwise("add", rise, low.literal(float(values[0]))) if values[0] else rise


# -- places that vary ----------------------------------------------------------------------------------------------------

@chooses("Gather", 1)
def gather(low: OnnxLowering, node: OnnxNode) -> Value:
    """The slices of one axis at places that vary."""
    data, index = low.value(node, 0), low.value(node, 1)
    axis = low.axis(data, node.attributes.get("axis", 0))
    shape = (*data.shape[:axis], *index.shape, *data.shape[axis + 1:])
    found = low.builder.add("pick", low.whole(data), low.whole(index), dim=axis)
    return low.close(found, shape)


@chooses("Slice", 1)
def slice_(low: OnnxLowering, node: OnnxNode) -> Value:
    """A slice of known length whose start varies; of a row of numbers 0, 1, ... the places themselves."""
    start, end, data = low.value(node, 1), low.value(node, 2), low.given(node, 0)
    axes = low.setting(node, 3, "axes") or [0]
    length = distance(low, start, end)
    if len(axes) != 1 or start.shape != (1,) or length is None or (low.setting(node, 4, "steps") or [1]) != [1]:
        raise UnsupportedOperator("its start depends on the network input; that is supported for one axis, step 1, and an end "
                                  "that is the start plus a constant")
    assert data is not None
    axis = axes[0] % len(data.shape)
    places = low.builder.add("places", low.reshaped(start.index, ()), size=data.shape[axis], length=length)
    row = isinstance(data, np.ndarray) and data.ndim == 1 and np.array_equal(data, np.arange(len(data)))
    found = places if row else low.builder.add("pick", low.whole(low.value(node, 0)), places, dim=axis)
    return low.close(found, (*data.shape[:axis], length, *data.shape[axis + 1:]))


def distance(low: OnnxLowering, start: Value, end: Value) -> int | None:
    """The constant that `end` is more than `start`, if the graph says so; else None."""
    nodes = low.builder.nodes

    def plain(index: int) -> int:
        return plain(nodes[index].args[0]) if nodes[index].op == "reshape" else index

    total = nodes[plain(end.index)]
    if total.op != "add":
        return None
    first, second = (plain(arg) for arg in total.args)
    if first != plain(start.index) or second in low.builder.varying:
        return None
    return int(low.builder.known(second).reshape(-1)[0])


@chooses("ScatterND", 1)
def scatter(low: OnnxLowering, node: OnnxNode) -> Value:
    """Slices written at places that vary; what lies beyond an axis is not written."""
    if node.attributes.get("reduction", "none") != "none":
        raise UnsupportedOperator(f"its reduction is '{node.attributes['reduction']}'; only 'none' is supported")
    data, index, update = (low.value(node, position) for position in range(3))
    count, depth = math.prod(index.shape[:-1]), index.shape[-1]
    places = low.reshaped(index.index, (count, depth))
    written = low.reshaped(update.index, (count, *data.shape[depth:]))
    return low.close(low.builder.add("put", low.whole(data), places, written), data.shape)
