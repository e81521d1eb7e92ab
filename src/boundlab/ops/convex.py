"""Functions that are convex or concave where they are defined: exp, log, roots, reciprocals, powers.

Outside the domain an interval is infinite or NaN, so that the search for bounds stops there and names the node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import LinearBound, lines
from boundlab.interval import Interval
from boundlab.ops.curves import (
    Curve,
    Function,
    Lines,
    between,
    concave_lines,
    convex_lines,
    convex_op,
    middle,
    negated,
    pick,
    s_lines,
    start_shares,
)
from boundlab.ops.op import Free, Op, antitone, elementwise_op, monotone, register

Alpha = Mapping[str, Tensor] | None


def short_of_zero(x: Interval) -> Tensor:
    """Touching point of exp as a fraction: the middle, but less than 1 from the lower end, where the tangent stays positive.

    The tangent of exp at t is zero at t - 1. Shi et al. 2020, Sec. 3.3.
    """
    width = x.row_upper - x.row_lower
    return (0.99 / width.clamp(min=0.99)).clamp(max=0.5)


exp = register(convex_op("exp", torch.exp, torch.exp, monotone(torch.exp), start=short_of_zero,
                         derivative=monotone(torch.exp), sources=("aten.exp.default", "onnx:Exp")))

log = register(convex_op("log", torch.log, torch.reciprocal, monotone(torch.log), concave=True,
                         derivative=antitone(torch.reciprocal), sources=("aten.log.default", "onnx:Log")))


def softplus_values(x: Tensor) -> Tensor:
    """log(1 + exp(x)), without overflow."""
    return torch.logaddexp(x, torch.zeros_like(x))


softplus = register(convex_op("softplus", softplus_values, torch.sigmoid, monotone(softplus_values),
                              derivative=monotone(torch.sigmoid), sources=("onnx:Softplus",)))


# -- roots: no finite slope at zero --------------------------------------------------------------------------------------

def off_zero(x: Tensor) -> Tensor:
    """x, or a tiny positive number: a tangent touching there is above a concave root everywhere."""
    return x.clamp(min=torch.finfo(x.dtype).eps ** 2)


def root(x: Tensor, exponent: float) -> Tensor:
    """x ** exponent for exponents in (0, 1): NaN below zero, and a gradient of zero at zero instead of an infinite one."""
    inside = x > 0
    power = torch.where(inside, x, 1.0).pow(exponent)
    return torch.where(inside, power, torch.where(x == 0, 0.0, math.nan))


def root_lines(exponent: float, x: Interval, touch: Tensor) -> Lines:
    """Chord below and tangent above a concave root."""
    def f(value: Tensor) -> Tensor:
        return root(value, exponent)

    def df(value: Tensor) -> Tensor:
        return exponent * off_zero(value).pow(exponent - 1)

    return concave_lines(f, df, x, off_zero(touch))


# -- powers --------------------------------------------------------------------------------------------------------------

def mirrored(x: Interval) -> tuple[Tensor, Interval]:
    """Where x is below zero throughout, and the interval of |x| as far as x keeps one sign."""
    negative = x.upper < 0
    return negative, Interval(torch.where(negative, -x.upper, x.lower), torch.where(negative, -x.lower, x.upper))


def reflected(pair: Lines, negative: Tensor, odd: bool) -> Lines:
    """Lines in |x| as lines in x: around f(-x) = -f(x) for an odd f, f(-x) = f(x) for an even one."""
    (a, b), (c, d) = pair
    other = ((c, -d), (a, -b)) if odd else ((-a, b), (-c, d))
    where = negative.unsqueeze(1)
    return pick(where, other[0], (a, b)), pick(where, other[1], (c, d))


def falling(x: Tensor, exponent: float) -> Tensor:
    """x ** exponent for a negative exponent and positive x; infinite at zero and below."""
    inside = x > 0
    return torch.where(inside, torch.where(inside, x, 1.0).pow(exponent), math.inf)


def falling_interval(x: Interval, exponent: float) -> Interval:
    """Range of a negative power: whole exponents are defined on both sides of the pole, others only above it."""
    negative, size = mirrored(x)
    if exponent != int(exponent):
        return Interval(falling(x.upper, exponent), falling(x.lower, exponent))
    low, high = falling(size.upper, exponent), falling(size.lower, exponent)
    if exponent % 2 == 0:
        return Interval(low, high)
    pole = ~negative & (x.lower <= 0)
    return Interval(torch.where(negative, -high, torch.where(pole, -math.inf, low)), torch.where(negative, -low, high))


def falling_lines(exponent: float, x: Interval, touch: Tensor) -> Lines:
    """Tangent below and chord above a negative power where it is positive; mirrored on the other side of the pole."""
    negative, size = mirrored(x)
    pair = convex_lines(lambda value: falling(value, exponent), lambda value: exponent * falling(value, exponent - 1),
                        size, between(size, touch))
    return reflected(pair, negative, exponent % 2 == 1) if exponent == int(exponent) else pair


def even_interval(x: Interval, exponent: float) -> Interval:
    """Range of an even power: zero where it lies inside."""
    near = torch.maximum(x.lower, -x.upper).clamp(min=0)
    return Interval(near.pow(exponent), torch.maximum(-x.lower, x.upper).pow(exponent))


def power_interval(x: Interval, *, exponent: float) -> Interval:
    """Range of x ** exponent where it is convex or concave."""
    if exponent < 0:
        return falling_interval(x, exponent)
    return even_interval(x, exponent) if exponent % 2 == 0 else x.map(lambda value: root(value, exponent))


def power_lines(exponent: float, x: Interval, fraction: Tensor) -> Lines:
    """Tangent and chord of x ** exponent on its domain; sign and parity of the exponent say how it bends."""
    if exponent < 0:
        return falling_lines(exponent, x, fraction)
    touch = between(x, fraction)
    if exponent < 1:
        return root_lines(exponent, x, touch)
    even = exponent % 2 == 0

    def f(value: Tensor) -> Tensor:
        return value.pow(exponent) if even else root(value, exponent)

    def df(value: Tensor) -> Tensor:
        return exponent * (value.pow(exponent - 1) if even else root(value, exponent - 1))

    return convex_lines(f, df, x, touch)


def relax_power(x: Interval, alpha: Alpha = None, *, exponent: float) -> LinearBound:
    """Tangent and chord; Zhang et al. 2018 (CROWN), Sec. 3.2, applied to powers."""
    return lines(*power_lines(exponent, x, middle(x) if alpha is None else alpha["touch"]))


power = register(elementwise_op(
    "pow", lambda x, *, exponent: x.pow(exponent), power_interval, relax_power, breaks=(),
    alpha={"touch": Free(0.0, 1.0, middle)},
))
"""x ** exponent where it is convex or concave: whole even exponents everywhere, negative whole ones away from zero, all
others for x >= 0. Whole odd exponents on both sides of zero are `odd_pow`."""


def register_power(name: str, evaluate: Function, exponent: float, **fields: Any) -> Op:
    """A power with a name of its own."""
    return register(elementwise_op(
        name, evaluate, lambda x: power_interval(x, exponent=exponent),
        lambda x, alpha=None: relax_power(x, alpha, exponent=exponent), breaks=(),
        alpha={"touch": Free(0.0, 1.0, middle)}, **fields))


square = register_power("square", torch.square, 2.0, derivative=lambda x: Interval(2 * x.lower, 2 * x.upper),
                        sources=("aten.square.default",))
sqrt = register_power("sqrt", torch.sqrt, 0.5, sources=("aten.sqrt.default", "onnx:Sqrt"))
rsqrt = register_power("rsqrt", torch.rsqrt, -0.5, sources=("aten.rsqrt.default",))
reciprocal = register_power("reciprocal", torch.reciprocal, -1.0, sources=("aten.reciprocal.default", "onnx:Reciprocal"))


# -- odd powers ----------------------------------------------------------------------------------------------------------

def odd_curve(exponent: float) -> Curve:
    """-x ** exponent for a whole odd exponent >= 3: convex before zero and concave after it."""
    return Curve(lambda x: -x.pow(exponent), lambda x: -exponent * x.pow(exponent - 1),
                 lambda x: -exponent * (exponent - 1) * x.pow(exponent - 2))


def start_odd(side: str) -> Callable[..., Tensor]:
    """Default touching point of one side, for a record."""
    return lambda x, *, exponent: start_shares(odd_curve(exponent), x)[side]


def relax_odd(x: Interval, alpha: Alpha = None, *, exponent: float) -> LinearBound:
    """The lines of an S-shaped curve, upside down; the free shares are named after the sides of -f."""
    return lines(*negated(s_lines(odd_curve(exponent), x, alpha)))


odd_power = register(elementwise_op(
    "odd_pow", lambda x, *, exponent: x.pow(exponent), lambda x, *, exponent: x.map(lambda value: value.pow(exponent)),
    relax_odd, breaks=(), alpha={"lower": Free(0.0, 1.0, start_odd("lower")), "upper": Free(0.0, 1.0, start_odd("upper"))},
))
