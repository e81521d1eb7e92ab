"""ONNX arithmetic, activations and reductions, in terms of our operators."""

from __future__ import annotations

import math
from functools import reduce as fold_left

import numpy as np

from boundlab.capture.composed import ordered
from boundlab.capture.onnx_lowering import OnnxLowering, OnnxNode, Rule, Value, lowers
from boundlab.errors import UnsupportedOperator

LARGEST = float(np.finfo(np.float32).max)
"""Ends of a Clip from here on are how exporters write that there is none."""

# -- two arguments -------------------------------------------------------------------------------------------------------


@lowers("Mul")
def multiply(low: OnnxLowering, node: OnnxNode) -> Value:
    """A product; of a value with itself, a square (tighter, since it is one argument)."""
    first, second = low.value(node, 0), low.value(node, 1)
    return low.elementwise("square", first) if first == second else low.elementwise("mul", first, second)


@lowers("Sub")
def subtract(low: OnnxLowering, node: OnnxNode) -> Value:
    """A difference."""
    return low.elementwise("sub", low.value(node, 0), low.value(node, 1))


@lowers("Div")
def divide(low: OnnxLowering, node: OnnxNode) -> Value:
    """x times the reciprocal of y."""
    return low.elementwise("mul", low.value(node, 0), low.elementwise("reciprocal", low.value(node, 1)))


@lowers("Pow")
def power(low: OnnxLowering, node: OnnxNode) -> Value:
    """A power with one known exponent; the common ones have operators of their own."""
    exponents = np.unique(low.array(node, 1, "exponent"))
    if len(exponents) != 1:
        raise UnsupportedOperator(f"it has several exponents {exponents.tolist()}; only one for all entries is supported")
    x, exponent = low.value(node), float(exponents[0])
    if np.broadcast_shapes(x.shape, low.array(node, 1, "exponent").shape) != tuple(x.shape):
        raise UnsupportedOperator("its exponents have more entries than what they are applied to")
    if exponent == 1:
        return x
    own = {2.0: "square", 0.5: "sqrt", -1.0: "reciprocal", -0.5: "rsqrt"}
    if exponent in own:
        return low.elementwise(own[exponent], x)
    odd = exponent > 0 and exponent % 2 == 1
    return low.elementwise("odd_pow" if odd else "pow", x, exponent=int(exponent) if exponent.is_integer() else exponent)


def chained(op: str) -> Rule:
    """An operator of two arguments, applied to any number of them."""
    return lambda low, node: fold_left(lambda x, y: low.elementwise(op, x, y), low.everything(node))


for name, op in (("Add", "add"), ("Sum", "add"), ("Max", "maximum")):
    lowers(name)(chained(op))


@lowers("Min")
def minimum(low: OnnxLowering, node: OnnxNode) -> Value:
    """- max(-x, -y, ...)."""
    negative = [low.elementwise("neg", value) for value in low.everything(node)]
    return low.elementwise("neg", fold_left(lambda x, y: low.elementwise("maximum", x, y), negative))


@lowers("Mean")
def mean_of(low: OnnxLowering, node: OnnxNode) -> Value:
    """The mean of any number of arguments."""
    return low.elementwise("mul", chained("add")(low, node), low.literal(1 / len(node.inputs)))  # type: ignore[arg-type]


# -- one argument --------------------------------------------------------------------------------------------------------

@lowers("Clip")
def clip(low: OnnxLowering, node: OnnxNode) -> Value:
    """x between two known ends; an end that is missing or beyond float32 is none."""
    ends = [low.setting(node, place, name) for place, name in ((1, "min"), (2, "max"))]
    lower, upper = ordered(*(None if end is None or abs(end) >= LARGEST else float(end) for end in ends))
    x = low.value(node)
    return x if lower is None and upper is None else low.elementwise("clip", x, min=lower, max=upper)


def plus(low: OnnxLowering, x: Value, number: float) -> Value:
    """x + number."""
    return low.elementwise("add", x, low.literal(number)) if number else x


@lowers("LeakyRelu")
def leaky_relu(low: OnnxLowering, node: OnnxNode) -> Value:
    """Slope `alpha` below zero."""
    return low.elementwise("leaky_relu", low.value(node), negative_slope=float(node.attributes.get("alpha", 0.01)))


@lowers("PRelu")
def p_relu(low: OnnxLowering, node: OnnxNode) -> Value:
    """A slope below zero for each coordinate or channel, which must be constant."""
    if low.varies(low.given(node, 1)):
        raise UnsupportedOperator("its slope depends on the network input")
    return low.elementwise("prelu", low.value(node, 0), low.value(node, 1))


@lowers("HardSigmoid")
def hard_sigmoid(low: OnnxLowering, node: OnnxNode) -> Value:
    """alpha x + beta, cut to [0, 1]."""
    scaled = low.elementwise("mul", low.value(node), low.literal(node.attributes.get("alpha", 0.2)))
    return low.elementwise("clip", plus(low, scaled, node.attributes.get("beta", 0.5)), min=0.0, max=1.0)


@lowers("HardSwish")
def hard_swish(low: OnnxLowering, node: OnnxNode) -> Value:
    """x times (x / 6 + 1/2 cut to [0, 1])."""
    x = low.value(node)
    gate = plus(low, low.elementwise("mul", x, low.literal(1 / 6)), 0.5)
    return low.elementwise("mul", x, low.elementwise("clip", gate, min=0.0, max=1.0))


@lowers("Ceil")
def ceil(low: OnnxLowering, node: OnnxNode) -> Value:
    """- floor(-x)."""
    return low.elementwise("neg", low.elementwise("floor", low.elementwise("neg", low.value(node))))


# -- along axes ----------------------------------------------------------------------------------------------------------

def reduced(low: OnnxLowering, node: OnnxNode, op: str, x: Value) -> Value:
    """`op` (sum, mean or reduce_max) over the axes that the node names."""
    axes = low.setting(node, 1, "axes")
    if not axes and node.attributes.get("noop_with_empty_axes", 0):
        return x
    dims = sorted({low.axis(x, axis) for axis in axes or range(len(x.shape))})
    keep = bool(node.attributes.get("keepdims", 1))
    shape = tuple(1 if axis in dims else size for axis, size in enumerate(x.shape) if keep or axis not in dims)
    long = [axis for axis in dims if x.shape[axis] > 1]
    if not long:
        return low.close(x.index, shape)
    index, left_out = low.open(x, long)
    if op != "reduce_max":
        return low.close(low.builder.add(op, index, dims=tuple(axis - left_out for axis in long), keepdim=True), shape)
    for axis in reversed(long):
        index = low.builder.add("reduce_max", index, dim=axis - left_out)
    return low.close(index, shape)


@lowers("ReduceSum", "ReduceMean", "ReduceMax")
def reduce(low: OnnxLowering, node: OnnxNode) -> Value:
    """Sum, mean or maximum over axes."""
    return reduced(low, node, {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "reduce_max"}[node.op], low.value(node))


@lowers("ReduceMin")
def reduce_min(low: OnnxLowering, node: OnnxNode) -> Value:
    """- max(-x) over axes."""
    return low.elementwise("neg", reduced(low, node, "reduce_max", low.elementwise("neg", low.value(node))))


@lowers("ReduceSumSquare", "ReduceL1", "ReduceL2")
def reduce_norm(low: OnnxLowering, node: OnnxNode) -> Value:
    """A norm over axes, or its square."""
    total = reduced(low, node, "sum", low.elementwise("abs" if node.op == "ReduceL1" else "square", low.value(node)))
    return low.elementwise("sqrt", total) if node.op == "ReduceL2" else total


@lowers("Softmax", "LogSoftmax")
def softmax(low: OnnxLowering, node: OnnxNode) -> Value:
    """Softmax along an axis; before operator set 13, over all axes from `axis` on."""
    x = low.value(node)
    shape, first = x.shape, low.axis(x, node.attributes.get("axis", -1 if low.opset >= 13 else 1))
    if low.opset < 13:
        x = low.close(x.index, (*shape[:first], math.prod(shape[first:])))
    index, left_out = low.open(x, [first])
    op = "softmax" if node.op == "Softmax" else "log_softmax"
    return low.close(low.builder.add(op, index, dim=first - left_out), shape)


@lowers("GlobalAveragePool", "GlobalMaxPool")
def global_pool(low: OnnxLowering, node: OnnxNode) -> Value:
    """Mean or maximum over all cells of each channel."""
    x = low.value(node)
    axes = OnnxNode(node.op, node.name, node.inputs, node.outputs, {"axes": list(range(2, len(x.shape)))})
    return reduced(low, axes, "mean" if node.op == "GlobalAveragePool" else "reduce_max", x)
