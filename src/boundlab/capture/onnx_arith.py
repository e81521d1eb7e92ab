"""ONNX functions that work coordinate by coordinate, and reductions, in terms of our operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce as fold_left
from typing import Any

import numpy as np

from boundlab.capture import functions
from boundlab.capture.builder import Builder
from boundlab.capture.onnx_lowering import OnnxLowering, OnnxNode, Rule, Value, lowers, stripped
from boundlab.errors import UnsupportedOperator

LARGEST = float(np.finfo(np.float32).max)
"""Ends of a Clip from here on are how exporters write that there is none."""


def operand(low: OnnxLowering, node: OnnxNode, position: int) -> Value:
    """An argument as a graph value; a known number becomes a written one, so that functions with it are recognised."""
    found = low.given(node, position)
    if not isinstance(found, np.ndarray) or found.size != 1:
        return low.value(node, position)
    return low.literal(low.checked(node.inputs[position], found).numpy())


def applied(low: OnnxLowering, rule: Callable[..., int], *values: Value, **options: Any) -> Value:
    """A function of `capture.functions` on values that broadcast against each other."""
    shape = np.broadcast_shapes(*(value.shape for value in values))
    aligned = [low.builder.aligned(value.index, stripped(shape)) for value in values]
    return low.close(rule(low.builder, *aligned, **options), shape)


# -- two arguments -------------------------------------------------------------------------------------------------------

def binary(rule: Callable[[Builder, int, int], int]) -> Rule:
    """A function of two values."""
    return lambda low, node: applied(low, rule, operand(low, node, 0), operand(low, node, 1))


def chained(rule: Callable[[Builder, int, int], int]) -> Callable[[OnnxLowering, OnnxNode], Value]:
    """A function of two arguments, applied to any number of them."""

    def lower(low: OnnxLowering, node: OnnxNode) -> Value:
        values = [operand(low, node, position) for position in range(len(node.inputs))]
        return fold_left(lambda x, y: applied(low, rule, x, y), values)

    return lower


def add(build: Builder, x: int, y: int) -> int:
    """A sum."""
    return build.broadcast("add", x, y)


for name, pair in (("Mul", functions.multiply), ("Sub", functions.subtract), ("Div", functions.divide)):
    lowers(name)(binary(pair))
for name, pair in (("Add", add), ("Sum", add), ("Max", functions.maximum), ("Min", functions.minimum)):
    lowers(name)(chained(pair))


@lowers("Pow")
def power(low: OnnxLowering, node: OnnxNode) -> Value:
    """A power with one known exponent; the common ones have operators of their own. Of others, exp(y log x)."""
    x = low.value(node)
    if low.varies(low.given(node, 1)):
        return applied(low, functions.powers, x, low.value(node, 1))
    exponents = low.array(node, 1, "exponent")
    found = np.unique(exponents)
    if len(found) != 1:
        return applied(low, functions.powers, x, low.value(node, 1))
    if np.broadcast_shapes(x.shape, exponents.shape) != tuple(x.shape):
        raise UnsupportedOperator("its exponents have more entries than what they are applied to")
    return applied(low, functions.power, x, exponent=float(found[0]))


@lowers("Mod")
def remainder(low: OnnxLowering, node: OnnxNode) -> Value:
    """x - y floor(x / y), or with the whole part for the floor."""
    divisors = np.unique(low.array(node, 1, "divisor"))
    if len(divisors) != 1 or not 1 / LARGEST <= abs(divisors[0]) <= LARGEST:
        raise UnsupportedOperator("its divisor must be one number other than 0, whose inverse is no extreme number either")
    return applied(low, functions.remainder, low.value(node), y=float(divisors[0]),
                   rounding="trunc" if node.attributes.get("fmod", 0) else "floor")


@lowers("Mean")
def mean_of(low: OnnxLowering, node: OnnxNode) -> Value:
    """The mean of any number of arguments."""
    return low.elementwise("mul", chained(add)(low, node), low.literal(1 / len(node.inputs)))


# -- conditions ----------------------------------------------------------------------------------------------------------

def comparison(first: int, second: int, *, or_equal: bool) -> Rule:
    """Whether argument number `first` is greater than number `second`."""
    return lambda low, node: applied(low, functions.greater, *(operand(low, node, place) for place in (first, second)),
                                     or_equal=or_equal)


for name, places, equal in (("Greater", (0, 1), False), ("GreaterOrEqual", (0, 1), True), ("Less", (1, 0), False),
                            ("LessOrEqual", (1, 0), True)):
    lowers(name)(comparison(*places, or_equal=equal))


def condition(low: OnnxLowering, node: OnnxNode, position: int) -> Value:
    """A condition as the numbers 1 and 0."""
    found = low.given(node, position)
    return low.literal(found.astype(float)) if isinstance(found, np.ndarray) else low.value(node, position)


@lowers("And", "Or", "Not")
def junction(low: OnnxLowering, node: OnnxNode) -> Value:
    """Whether both conditions hold, one of them, or not the only one."""
    rules: dict[str, Callable[..., int]] = {"And": functions.both, "Or": functions.either, "Not": functions.negation}
    return applied(low, rules[node.op], *(condition(low, node, place) for place in range(len(node.inputs))))


# -- one argument --------------------------------------------------------------------------------------------------------

@lowers("Clip")
def clip(low: OnnxLowering, node: OnnxNode) -> Value:
    """x between two known ends; an end that is missing, or so far out on its own side that all float32 pass it, is none."""
    bottom, top = (low.setting(node, place, name) for place, name in ((1, "min"), (2, "max")))
    for end, name, side in ((bottom, "min", 1), (top, "max", -1)):
        if end is not None and not side * end < LARGEST:  # NaN, or everything is clipped to an infinite number
            raise UnsupportedOperator(f"its {name} is {float(end):g}, which leaves no number as it is")
    bottom = None if bottom is None or bottom <= -LARGEST else float(bottom)
    top = None if top is None or top >= LARGEST else float(top)
    return applied(low, functions.clip, low.value(node), bottom=bottom, top=top)


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


@lowers("Elu", "Selu", "Celu")
def exponential_unit(low: OnnxLowering, node: OnnxNode) -> Value:
    """Exponential below zero, linear above."""
    alpha = float(node.attributes.get("alpha", functions.SELU[0] if node.op == "Selu" else 1.0))
    scale = float(node.attributes.get("gamma", functions.SELU[1])) if node.op == "Selu" else 1.0
    rate = 1 / alpha if node.op == "Celu" else 1.0
    return applied(low, functions.exponential_unit, low.value(node), alpha=alpha, scale=scale, rate=rate)


@lowers("Gelu")
def gelu(low: OnnxLowering, node: OnnxNode) -> Value:
    """x times the normal distribution, or its approximation with tanh."""
    approximate = node.attributes.get("approximate", "none") in ("tanh", b"tanh")
    return low.elementwise("tanh_gelu" if approximate else "gelu", low.value(node))


@lowers("Swish")
def swish(low: OnnxLowering, node: OnnxNode) -> Value:
    """x sigmoid(alpha x)."""
    alpha = float(node.attributes.get("alpha", 1.0))
    x = low.value(node)
    found = low.elementwise("silu", applied(low, functions.times, x, factor=alpha))
    return applied(low, functions.times, found, factor=1 / alpha)


@lowers("HardSigmoid")
def hard_sigmoid(low: OnnxLowering, node: OnnxNode) -> Value:
    """alpha x + beta, cut to [0, 1]."""
    return applied(low, functions.hard_sigmoid, low.value(node), slope=float(node.attributes.get("alpha", 0.2)),
                   shift=float(node.attributes.get("beta", 0.5)))


@lowers("ThresholdedRelu")
def thresholded_relu(low: OnnxLowering, node: OnnxNode) -> Value:
    """x above a threshold, 0 up to it."""
    return low.elementwise("threshold", low.value(node), threshold=float(node.attributes.get("alpha", 1.0)), value=0.0)


@lowers("Shrink")
def shrink(low: OnnxLowering, node: OnnxNode) -> Value:
    """x moved towards 0 by `bias` where it is farther from 0 than `lambd`, else 0."""
    lambd, bias = (float(node.attributes.get(name, default)) for name, default in (("lambd", 0.5), ("bias", 0.0)))
    if bias == lambd:
        return low.elementwise("soft_shrink", low.value(node), lambd=lambd)
    if bias != 0:
        raise UnsupportedOperator(f"its bias is {bias} and its lambd {lambd}; the bias must be 0 or lambd")
    return low.elementwise("hard_shrink", low.value(node), lambd=lambd)


@lowers("Ceil")
def ceil(low: OnnxLowering, node: OnnxNode) -> Value:
    """- floor(-x)."""
    return applied(low, functions.ceil, low.value(node))


# -- along axes ----------------------------------------------------------------------------------------------------------

def reduced(low: OnnxLowering, node: OnnxNode, op: str, x: Value) -> Value:
    """`op` (sum, mean, reduce_max, norm or logsumexp) over the axes that the node names."""
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
    if op in ("sum", "mean"):
        return low.close(low.builder.add(op, index, dims=tuple(axis - left_out for axis in long), keepdim=True), shape)
    for axis in reversed(long):
        index = low.builder.add(op, index, dim=axis - left_out)
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
    if node.op == "ReduceL2":
        return reduced(low, node, "norm", low.value(node))
    return reduced(low, node, "sum", low.elementwise("abs" if node.op == "ReduceL1" else "square", low.value(node)))


@lowers("ReduceLogSum", "ReduceLogSumExp")
def reduce_log(low: OnnxLowering, node: OnnxNode) -> Value:
    """The logarithm of a sum, or of a sum of exponentials."""
    if node.op == "ReduceLogSumExp":
        return reduced(low, node, "logsumexp", low.value(node))
    return low.elementwise("log", reduced(low, node, "sum", low.value(node)))


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
