"""Monotone functions with one bend, most of them S-shaped: sigmoid, tanh and their kin, and the slopes of these two.

Where a function has poles or an end of its domain, intervals beyond are infinite or NaN, and the search stops there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from boundlab.ops.convex import inside_only, off_zero
from boundlab.ops.curves import curve_op
from boundlab.ops.hull import Curve, Function
from boundlab.ops.op import register

TOUCH_STEPS = 2
"""An error of 0.13 becomes 1e-3, then 7e-8."""


def sigmoid_slope(x: Tensor) -> Tensor:
    """Derivative of the logistic function, written so that it does not cancel for large x."""
    return torch.sigmoid(x) * torch.sigmoid(-x)


def tanh_slope(x: Tensor) -> Tensor:
    """Derivative of tanh, as 4 sigmoid'(2x), which does not cancel for large x."""
    return 4 * sigmoid_slope(2 * x)


def sigmoid_reach(k: Tensor) -> Tensor:
    """Where the slope of sigmoid has fallen from 1/4 to k: s (1 - s) = k for the smaller s, and x = log((1 - s) / s)."""
    s = 2 * k / (1 + (1 - 4 * k).clamp(min=0).sqrt())
    return -torch.logit(s, torch.finfo(k.dtype).tiny)


def tanh_reach(k: Tensor) -> Tensor:
    """Where the slope of tanh has fallen from 1 to k."""
    return sigmoid_reach(k / 4) / 2


def sigmoid_touch(u: Tensor) -> Tensor:
    """The x >= 0 with the tangent of sigmoid at -x that meets it at u >= 0, to 2^-25 (1 + x).

    asinh(u / 2) is x to third order near 0, and right for large u; in between it is off by 0.13 at most. Of all chords from u
    to -x the one sought is steepest, so that a chord's slope is off by the square of what its end is, and the point with that
    slope, too. Near 0 this would be lost in rounding.
    """
    start, at_u = torch.asinh(u / 2), torch.sigmoid(u)
    point = start
    for _ in range(TOUCH_STEPS):
        point = sigmoid_reach((at_u - torch.sigmoid(-point)) / (u + point))
    return torch.where(u < torch.finfo(u.dtype).eps ** 0.25, start, point)


def tanh_touch(u: Tensor) -> Tensor:
    """The same for tanh."""
    return sigmoid_touch(2 * u) / 2


def sign_free(x: Tensor) -> Tensor:
    """|x|, with a gradient of zero at zero."""
    return torch.where(x < 0, -x, x)


def arc(f: Function, x: Tensor) -> Tensor:
    """The inverse of sine or cosine on [-1, 1], with a gradient of zero at its ends and NaN beyond."""
    ends = torch.where(x.abs() == 1, f(x.detach()), math.nan)
    return inside_only(f, x, x.abs() < 1, 0.0, ends)


def softsign_values(x: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return x / (1 + sign_free(x))


def tanhshrink_values(x: Tensor) -> Tensor:
    """x - tanh(x), by its series near zero, where the difference would cancel."""
    near = x.clamp(-0.03, 0.03)
    square = near.square()
    series = near * square * (1 / 3 - square * (2 / 15 - square * (17 / 315 - square * (62 / 2835))))
    return torch.where(x == near, series, x - torch.tanh(x))


# -- convex, then concave ------------------------------------------------------------------------------------------------

sigmoid = register(curve_op("sigmoid", Curve(torch.sigmoid, sigmoid_slope, (0.0,), reach=sigmoid_reach, touch=sigmoid_touch),
                            meaning="1 / (1 + e^-x)", sources=("aten.sigmoid.default", "onnx:Sigmoid")))
tanh = register(curve_op("tanh", Curve(torch.tanh, tanh_slope, (0.0,), reach=tanh_reach, touch=tanh_touch),
                         meaning="hyperbolic tangent", sources=("aten.tanh.default", "onnx:Tanh")))
atan = register(curve_op("atan", Curve(torch.atan, lambda x: 1 / (1 + x.square()), (0.0,)), meaning="arc tangent",
                         sources=("aten.atan.default", "onnx:Atan")))
erf = register(curve_op("erf", Curve(torch.erf, lambda x: 2 / math.sqrt(math.pi) * torch.exp(-x.square()), (0.0,)),
                        meaning="error function",
                        sources=("aten.erf.default", "onnx:Erf")))
softsign = register(curve_op("softsign", Curve(softsign_values, lambda x: (1 + sign_free(x)).square().reciprocal(), (0.0,)),
                             meaning="x / (1 + abs(x))", sources=("onnx:Softsign",)))
asinh = register(curve_op("asinh", Curve(torch.asinh, lambda x: torch.hypot(x, torch.ones_like(x)).reciprocal(), (0.0,)),
                          meaning="inverse of sinh", sources=("aten.asinh.default", "onnx:Asinh")))
acos = register(curve_op("acos", Curve(lambda x: arc(torch.acos, x), lambda x: -off_zero(1 - x.square()).rsqrt(), (0.0,)),
                         derivative=None, meaning="arc cosine, -1 <= x <= 1", sources=("aten.acos.default", "onnx:Acos")))


# -- concave, then convex ------------------------------------------------------------------------------------------------

sinh = register(curve_op("sinh", Curve(torch.sinh, torch.cosh, (0.0,), convex=False), meaning="hyperbolic sine",
                         sources=("aten.sinh.default", "onnx:Sinh")))
asin = register(curve_op("asin", Curve(lambda x: arc(torch.asin, x), lambda x: off_zero(1 - x.square()).rsqrt(), (0.0,),
                                       convex=False), derivative=None, meaning="arc sine, -1 <= x <= 1",
                         sources=("aten.asin.default", "onnx:Asin")))
atanh = register(curve_op("atanh", Curve(torch.atanh, lambda x: off_zero(1 - x.square()).reciprocal(), (0.0,), convex=False),
                          meaning="inverse of tanh, -1 < x < 1", sources=("aten.atanh.default", "onnx:Atanh")))
tanhshrink = register(curve_op("tanhshrink", Curve(tanhshrink_values, lambda x: torch.tanh(x).square(), (0.0,), convex=False),
                                meaning="x - tanh(x)"))


# -- the slopes of sigmoid and tanh, as in a network's Jacobian -----------------------------------------------------------

sigmoid_grad = register(curve_op("sigmoid_grad", Curve(
    sigmoid_slope, lambda x: -sigmoid_slope(x) * torch.tanh(x / 2), (-math.log(2 + math.sqrt(3)), math.log(2 + math.sqrt(3))),
    turns=(0.0,)), meaning="slope of sigmoid"))
tanh_grad = register(curve_op("tanh_grad", Curve(
    tanh_slope, lambda x: -2 * torch.tanh(x) * tanh_slope(x), (-math.log(2 + math.sqrt(3)) / 2, math.log(2 + math.sqrt(3)) / 2),
    turns=(0.0,)), meaning="slope of tanh"))
