"""Functions that repeat: sine, cosine; and tangent and secant, whose branches lie between poles."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from boundlab.affine import LinearBound, lines
from boundlab.interval import Interval
from boundlab.ops.curves import branch_op, curve_lines, curve_op, start_of
from boundlab.ops.hull import Curve
from boundlab.ops.op import Free, elementwise_op, register
from boundlab.ops.support import curve_support

TURN = 2 * math.pi

sin = register(curve_op("sin", Curve(
    torch.sin, torch.cos, (math.pi, TURN), convex=False, turns=(math.pi / 2, 3 * math.pi / 2), period=TURN),
    meaning="sine", sources=("aten.sin.default", "onnx:Sin")))
cos = register(curve_op("cos", Curve(
    torch.cos, lambda x: -torch.sin(x), (math.pi / 2, 3 * math.pi / 2), convex=False, turns=(math.pi, TURN), period=TURN),
    meaning="cosine", sources=("aten.cos.default", "onnx:Cos")))


# -- branches between poles ----------------------------------------------------------------------------------------------

def narrow(x: Interval) -> Tensor:
    """Whether x is narrower than the distance of two poles, beyond doubt by rounding."""
    return x.width + 4 * torch.finfo(x.lower.dtype).eps * (x.lower.abs() + x.upper.abs()) < math.pi


def tan_curve(x: Interval) -> Curve:
    """Concave where it is negative, convex where it is positive; it bends at the zero nearest to the middle if both occur."""
    zero = torch.round(x.center / math.pi) * math.pi
    bend = torch.where(torch.tan(x.lower) >= 0, -math.inf, torch.where(torch.tan(x.upper) <= 0, math.inf, zero))
    return Curve(torch.tan, lambda value: 1 + torch.tan(value).square(), (bend.detach().unsqueeze(1),), convex=False)


def tan_interval(x: Interval) -> Interval:
    """Both ends, in order unless a pole lies between them; infinite then."""
    low, high = torch.tan(x.lower), torch.tan(x.upper)
    one = narrow(x) & (low <= high)
    return Interval(torch.where(one, low, -math.inf), torch.where(one, high, math.inf))


def sec_slope(x: Tensor) -> Tensor:
    """sin(x) / cos(x)^2."""
    return torch.sin(x) / torch.cos(x).square()


def sec_interval(x: Interval) -> Interval:
    """Both ends, and 1 or -1 where a turn lies between them; infinite where a pole does."""
    first, second = torch.cos(x.lower), torch.cos(x.upper)
    one, low, high = narrow(x) & (first * second > 0), first.reciprocal(), second.reciprocal()
    turned = torch.sin(x.lower) * torch.sin(x.upper) <= 0
    low, high = torch.minimum(low, high), torch.maximum(low, high)
    low, high = torch.where(turned & (low > 0), 1.0, low), torch.where(turned & (high < 0), -1.0, high)
    return Interval(torch.where(one, low, -math.inf), torch.where(one, high, math.inf))


def relax_tan(x: Interval, alpha: Mapping[str, Tensor] | None = None) -> LinearBound:
    """The line of least area on each side of one branch."""
    return lines(*curve_lines(tan_curve(x), x, alpha or {}))


tan = register(elementwise_op(
    "tan", torch.tan, tan_interval, relax_tan, breaks=(), meaning="tangent, between two poles",
    sources=("aten.tan.default", "onnx:Tan"), support=lambda x: curve_support(tan_curve(x), x, tan_interval(x)),
    alpha={side: Free(0.0, 1.0, lambda x, side=side: start_of(tan_curve(x), x, side)) for side in ("lower", "upper")}))
sec = register(branch_op(
    "sec", lambda x: torch.cos(x).reciprocal(), sec_slope, lambda x: torch.cos(x.center) > 0, sec_interval,
    meaning="1 / cos(x), between two poles"))
