"""Sigmoid, tanh, atan and erf: increasing, convex before zero and concave after it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from boundlab.interval import Interval
from boundlab.ops.curves import Curve, Function, s_shaped_op
from boundlab.ops.op import monotone, register


def sigmoid_slope(x: Tensor) -> Tensor:
    """Derivative of the logistic function, written so that it does not cancel for large x."""
    return torch.sigmoid(x) * torch.sigmoid(-x)


def tanh_slope(x: Tensor) -> Tensor:
    """Derivative of tanh, as 4 sigmoid'(2x), which does not cancel for large x."""
    return 4 * sigmoid_slope(2 * x)


def bell(slope: Function) -> Callable[[Interval], Interval]:
    """Range of a derivative that rises to its only peak at zero and is even."""

    def derivative(x: Interval) -> Interval:
        near = torch.zeros_like(x.lower).clamp(x.lower, x.upper)
        far = torch.maximum(-x.lower, x.upper)
        return Interval(slope(far), slope(near))

    return derivative


sigmoid = register(s_shaped_op(
    "sigmoid", Curve(torch.sigmoid, sigmoid_slope, lambda x: -sigmoid_slope(x) * torch.tanh(x / 2)), monotone(torch.sigmoid),
    derivative=bell(sigmoid_slope), sources=("aten.sigmoid.default", "onnx:Sigmoid"),
))

tanh = register(s_shaped_op(
    "tanh", Curve(torch.tanh, tanh_slope, lambda x: -2 * torch.tanh(x) * tanh_slope(x)), monotone(torch.tanh),
    derivative=bell(tanh_slope), sources=("aten.tanh.default", "onnx:Tanh"),
))


def atan_slope(x: Tensor) -> Tensor:
    """Derivative of the arc tangent."""
    return 1 / (1 + x.square())


atan = register(s_shaped_op(
    "atan", Curve(torch.atan, atan_slope, lambda x: -2 * x * atan_slope(x).square()), monotone(torch.atan),
    derivative=bell(atan_slope), sources=("aten.atan.default", "onnx:Atan"),
))


def erf_slope(x: Tensor) -> Tensor:
    """Derivative of the error function."""
    return 2 / math.sqrt(math.pi) * torch.exp(-x.square())


erf = register(s_shaped_op(
    "erf", Curve(torch.erf, erf_slope, lambda x: -2 * x * erf_slope(x)), monotone(torch.erf),
    derivative=bell(erf_slope), sources=("aten.erf.default", "onnx:Erf"),
))
