"""Lowerings of the operators that torch's autograd writes: derivatives of layers inside a network (a Jacobian).

A derivative of a function with a bend is a step, which is 0 or 1 (and at the bend itself whatever torch takes there).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from boundlab.capture import functions
from boundlab.capture.lowering import Lowering
from boundlab.capture.table import argument, lowers, operands, per_axis, unsupported


def step(low: Lowering, x: int, place: float = 0.0) -> int:
    """1 where x is above `place`, else 0."""
    return functions.greater(low.builder, x, low.builder.constant(place))


def gated(low: Lowering, node: fx.Node, gate: int) -> int:
    """The gradient that arrives (the node's first argument) times a factor of each coordinate."""
    build, gradient = low.builder, low.index(node.args[0])
    return build.broadcast("mul", gradient, gate)


def argument_of(low: Lowering, node: fx.Node) -> int:
    """What the layer read, or gave: the node's second argument, aligned with the gradient."""
    return operands(low, *node.args[:2])[1]


@lowers("leaky_relu_backward.default")
def leaky_relu(low: Lowering, node: fx.Node) -> int:
    """1 above zero, the slope below."""
    build, slope = low.builder, float(argument(node, 2, "negative_slope"))
    rise = functions.times(build, step(low, argument_of(low, node)), 1 - slope)
    return gated(low, node, functions.plus(build, rise, slope))


@lowers("hardtanh_backward.default")
def hardtanh(low: Lowering, node: fx.Node) -> int:
    """1 between the ends, 0 beyond."""
    build, x = low.builder, argument_of(low, node)
    bottom, top = (float(argument(node, place, name)) for place, name in ((2, "min_val"), (3, "max_val")))
    inside = build.add("mul", step(low, x, bottom), step(low, build.add("neg", x), -top))
    return gated(low, node, inside)


@lowers("softplus_backward.default")
def softplus(low: Lowering, node: fx.Node) -> int:
    """The sigmoid of beta x; torch's linear piece beyond a threshold of 20 or more differs by rounding only."""
    build, beta = low.builder, float(argument(node, 2, "beta", 1.0))
    if argument(node, 3, "threshold", 20.0) < 20:
        raise unsupported(node, "is softplus with a threshold below 20, where it jumps to a line; leave the threshold out")
    return gated(low, node, build.add("sigmoid", functions.times(build, argument_of(low, node), beta)))


@lowers("elu_backward.default")
def elu(low: Lowering, node: fx.Node) -> int:
    """scale * (1 above zero, alpha * inner * exp(inner * x) below)."""
    alpha, scale, inner = (float(part) for part in node.args[1:4])  # type: ignore[arg-type]
    if node.args[4]:
        raise unsupported(node, "is the derivative of an elu in place; write it with inplace=False")
    build, x = low.builder, operands(low, node.args[0], node.args[5])[1]
    below = build.add("exp", functions.times(build, build.add("neg", build.add("relu", build.add("neg", x))), inner))
    bent, jump = functions.times(build, below, alpha * inner), functions.times(build, step(low, x), 1 - alpha * inner)
    return gated(low, node, functions.times(build, bent if alpha * inner == 1 else build.add("add", bent, jump), scale))


@lowers("avg_pool2d_backward.default")
def average_pool(low: Lowering, node: fx.Node) -> int:
    """What arrives at each window, shared out evenly to its cells."""
    gradient, x, kernel, stride, padding, ceil, counted, divisor = node.args
    build, index, space = low.builder, low.index(gradient), low.shape_of(x)[1:]  # type: ignore[arg-type]
    kernel, padding = per_axis(kernel, 2), per_axis(padding, 2)
    stride = per_axis(stride or kernel, 2)
    if ceil or (any(padding) and not counted):
        raise unsupported(node, "differentiates average pooling with ceil_mode or uncounted padding")
    channels, sizes = build.shape(index)[0], zip(space, build.shape(index)[1:], kernel, stride, padding, strict=True)
    more = tuple(size - ((out - 1) * jump - 2 * pad + width) for size, out, width, jump, pad in sizes)
    cells: Any = divisor or math.prod(kernel)
    weight = build.constant(torch.full((channels, 1, *kernel), 1 / cells, dtype=build.dtype))
    return build.add("conv_transpose", index, weight, stride=stride, padding=padding, dilation=(1, 1), output_padding=more,
                     groups=channels)


@lowers("convolution.default")
def convolution(low: Lowering, node: fx.Node) -> int:
    """A convolution or its transpose, in torch's form for both."""
    x, weight, bias, stride, padding, dilation, turned, more, groups = node.args
    parts = [low.index(part) for part in (x, weight, bias) if part is not None]
    axes = len(low.builder.shape(parts[1])) - 2
    settings: dict[str, Any] = {"stride": per_axis(stride, axes), "padding": per_axis(padding, axes),
                                "dilation": per_axis(dilation, axes), "groups": groups}
    if turned:
        settings["output_padding"] = per_axis(more, axes)
    return low.builder.add("conv_transpose" if turned else "conv", *parts, **settings)


@lowers("convolution_backward.default")
def convolution_backward(low: Lowering, node: fx.Node) -> Any:
    """The gradient of a convolution's input: the transposed convolution of what arrives."""
    gradient, x, weight, _, stride, padding, dilation, turned, _, groups, wanted = node.args
    if turned or wanted[1] or wanted[2] or low.varies(weight):  # type: ignore[index]
        raise unsupported(node, "differentiates a convolution by its weights, or a transposed one; only inputs of convolutions "
                          "are supported")
    build, index = low.builder, low.index(gradient)
    kernel = build.shape(low.index(weight))[2:]
    steps = [per_axis(part, len(kernel)) for part in (stride, padding, dilation)]
    sizes = zip(low.shape_of(x)[1:], build.shape(index)[1:], kernel, *steps, strict=True)  # type: ignore[arg-type]
    more = tuple(size - ((out - 1) * jump - 2 * pad + gap * (width - 1) + 1) for size, out, width, jump, pad, gap in sizes)
    found = build.add("conv_transpose", index, low.index(weight), stride=steps[0], padding=steps[1], dilation=steps[2],
                      output_padding=more, groups=groups)
    return [found, None, None]
