"""Functions that are convex or concave where they are defined: exponentials, logarithms, roots, reciprocals, powers.

Outside the domain an interval is infinite or NaN, so that the search for bounds stops there and names the node.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import LinearBound, lines
from boundlab.interval import Interval
from boundlab.ops.curves import branch_op, curve_lines, curve_op, share_of
from boundlab.ops.hull import Curve, Function
from boundlab.ops.op import Free, Op, elementwise_op, register
from boundlab.ops.support import Least, Support, corner_support, curve_support, lower_of

# -- exponentials and logarithms -----------------------------------------------------------------------------------------

def short_of_zero(x: Interval, base: float = math.e) -> Tensor:
    """Touching point of base ** x: the middle, but so near to the lower end that the tangent stays positive there.

    The tangent of exp at t is zero at t - 1. Shi et al. 2020, Sec. 3.3.
    """
    return share_of(x, torch.minimum(x.center.unsqueeze(1), x.row_lower + 0.99 / math.log(base)))


def exponential(name: str, meaning: str, f: Function, slope: Function, base: float = math.e) -> Op:
    """A power of `base`, perhaps shifted."""
    return register(curve_op(name, Curve(f, slope), starts={"lower": lambda x: short_of_zero(x, base)}, meaning=meaning,
                             sources=(f"aten.{name}.default", *(("onnx:Exp",) if name == "exp" else ()))))


exp = exponential("exp", "e^x", torch.exp, torch.exp)
exp2 = exponential("exp2", "2^x", torch.exp2, lambda x: math.log(2) * torch.exp2(x), 2.0)
expm1 = exponential("expm1", "e^x - 1", torch.expm1, torch.exp)


def logarithm(name: str, meaning: str, f: Function, slope: Function) -> Op:
    """A logarithm: concave, minus infinity at the end of its domain and NaN beyond."""
    return register(curve_op(name, Curve(f, slope, convex=False), meaning=meaning,
                             sources=(f"aten.{name}.default", *(("onnx:Log",) if name == "log" else ()))))


log = logarithm("log", "natural logarithm, x > 0", torch.log, torch.reciprocal)
log2 = logarithm("log2", "logarithm of base 2, x > 0", torch.log2, lambda x: torch.reciprocal(x) / math.log(2))
log10 = logarithm("log10", "logarithm of base 10, x > 0", torch.log10, lambda x: torch.reciprocal(x) / math.log(10))
log1p = logarithm("log1p", "log(1 + x), x > -1", torch.log1p, lambda x: torch.reciprocal(1 + x))
cosh = register(curve_op("cosh", Curve(torch.cosh, torch.sinh, turns=(0.0,)), meaning="hyperbolic cosine",
                         sources=("aten.cosh.default", "onnx:Cosh")))


# -- powers --------------------------------------------------------------------------------------------------------------

def off_zero(x: Tensor) -> Tensor:
    """x, or a tiny positive number: a line with the slope there is above a concave root everywhere."""
    return x.clamp(min=torch.finfo(x.dtype).eps ** 2)


def inside_only(f: Function, x: Tensor, inside: Tensor, within: float, otherwise: Tensor | float) -> Tensor:
    """f where `inside` its domain, which holds the number `within`; else another value, with a gradient of zero."""
    return torch.where(inside, f(torch.where(inside, x, within)), otherwise)


def positive_power(x: Tensor, exponent: float) -> Tensor:
    """x ** exponent for x >= 0: NaN below zero, and at zero 0 or infinity."""
    at_zero = 0.0 if exponent > 0 else math.inf
    return inside_only(lambda value: value.pow(exponent), x, x > 0, 1.0, torch.where(x == 0, at_zero, math.nan))


def pole_free(x: Tensor, exponent: float) -> Tensor:
    """x ** exponent for a whole negative exponent; infinity at zero."""
    return inside_only(lambda value: value.pow(exponent), x, x != 0, 1.0, math.inf)


def power_curve(*, exponent: float) -> Curve:
    """x ** exponent: its sign and parity say how it bends, and where it is defined."""
    odd = exponent % 2 == 1
    if exponent != int(exponent):
        return Curve(lambda x: positive_power(x, exponent), lambda x: exponent * off_zero(x).pow(exponent - 1),
                     convex=not 0 < exponent < 1)
    if exponent < 0:  # the pole counts as a turn: an interval around it is infinite
        return Curve(lambda x: pole_free(x, exponent), lambda x: exponent * pole_free(x, exponent - 1),
                     (0.0,) if odd else (), convex=not odd, turns=(0.0,))
    return Curve(lambda x: x.pow(exponent), lambda x: exponent * x.pow(exponent - 1),
                 (0.0,) if odd and exponent > 1 else (), convex=not odd or exponent == 1, turns=() if odd else (0.0,))


power = register(curve_op("pow", power_curve, meaning="x^p for any p but 0, where that is defined"))
"""x ** exponent for any exponent but 0: on the whole line for whole positive ones, away from zero for whole negative ones, and
for x >= 0 (x > 0 below zero) for all others."""


def named_power(name: str, exponent: float, **fields: Any) -> Op:
    """A power with a name of its own."""
    return register(curve_op(name, power_curve(exponent=exponent), **fields))


square = named_power("square", 2.0, meaning="x^2", sources=("aten.square.default",))
sqrt = named_power("sqrt", 0.5, derivative=None, meaning="root of x, x >= 0", sources=("aten.sqrt.default", "onnx:Sqrt"))
rsqrt = named_power("rsqrt", -0.5, meaning="1 / sqrt(x), x > 0", sources=("aten.rsqrt.default",))
reciprocal = register(branch_op(
    "reciprocal", lambda x: pole_free(x, -1.0), lambda x: -pole_free(x, -2.0), lambda x: x.lower > 0,
    lambda x: power.interval(x, exponent=-1.0), meaning="1 / x, on either side of 0",
    sources=("aten.reciprocal.default", "onnx:Reciprocal")))


def acosh_values(x: Tensor) -> Tensor:
    """The inverse of cosh on x >= 1; NaN below."""
    return inside_only(torch.acosh, x, x > 1, 2.0, torch.where(x == 1, 0.0, math.nan))


acosh = register(curve_op("acosh", Curve(acosh_values, lambda x: off_zero(x - 1).rsqrt() * (x + 1).rsqrt(), convex=False),
                          derivative=None, meaning="inverse of cosh, x >= 1", sources=("aten.acosh.default", "onnx:Acosh")))


# -- softplus ------------------------------------------------------------------------------------------------------------

def softplus_values(x: Tensor) -> Tensor:
    """log(1 + exp(x)), without overflow."""
    return torch.logaddexp(x, torch.zeros_like(x))


def cut_softplus(x: Tensor, threshold: float = math.inf) -> Tensor:
    """softplus(x) up to a threshold, x itself from there on, which is lower by log(1 + exp(-threshold))."""
    return softplus_values(x) if threshold == math.inf else torch.where(x > threshold, x, softplus_values(x))


SOFTPLUS = Curve(softplus_values, torch.sigmoid)


def softplus_interval(x: Interval, *, threshold: float = math.inf) -> Interval:
    """Both ends, and the threshold itself where it lies between them: softplus may be above what comes after it."""
    low, high = cut_softplus(x.lower, threshold), cut_softplus(x.upper, threshold)
    if threshold == math.inf:
        return Interval(low, high)
    crossing = (x.lower <= threshold) & (threshold < x.upper)
    top = softplus_values(torch.full_like(high, threshold))
    return Interval(torch.where(crossing, low.clamp(max=threshold), low), torch.where(crossing, torch.maximum(high, top), high))


def relax_softplus(x: Interval, alpha: Mapping[str, Tensor] | None = None, *, threshold: float = math.inf) -> LinearBound:
    """The chord above and a tangent below, lower by the jump at a threshold inside (or x, if that is higher); x beyond it."""
    (slope, low), above = curve_lines(SOFTPLUS, x, alpha or {})
    if threshold == math.inf:
        return lines((slope, low), above)
    line, middle = x.row_lower > threshold, x.center.unsqueeze(1)
    fall = max(-threshold, 0.0) + math.log1p(math.exp(-abs(threshold)))
    low = torch.where((x.row_upper > threshold) & ~line, low - fall, low)
    lower = line | (middle > slope * middle + low)
    return lines((torch.where(lower, 1.0, slope), torch.where(lower, 0.0, low)),
                 (torch.where(line, 1.0, above[0]), torch.where(line, 0.0, above[1])))


def softplus_support(x: Interval, *, threshold: float = math.inf) -> Support:
    """The lower of what softplus and x take on their sides of the threshold, with the limit there."""
    if threshold == math.inf:
        return curve_support(SOFTPLUS, x, softplus_interval(x))
    before, after = x.map(lambda end: end.clamp(max=threshold)), x.map(lambda end: end.clamp(min=threshold))
    curve, line = curve_support(SOFTPLUS, before, before), corner_support(lambda value: value, after, ())
    some, more = x.row_lower <= threshold, x.row_upper > threshold

    def support(a: Tensor, m: Tensor) -> Least:
        first, second = curve(a, m), line(a, m)
        return lower_of(first._replace(value=torch.where(some, first.value, torch.inf)),
                        second._replace(value=torch.where(more, second.value, torch.inf)))

    return support


softplus = register(elementwise_op(
    "softplus", cut_softplus, softplus_interval, relax_softplus, alpha={"lower": Free(0.0, 1.0, 0.5)}, breaks=(),
    support=softplus_support,
    meaning="log(1 + e^x), or x itself beyond a threshold", sources=("onnx:Softplus",)))
log_sigmoid = register(curve_op("log_sigmoid", Curve(lambda x: -softplus_values(-x), lambda x: torch.sigmoid(-x), convex=False),
                                meaning="log of sigmoid", sources=("aten.log_sigmoid.default",)))
