"""Relaxations of smooth functions from f, f' and where f bends: convex, concave and S-shaped.

A line with any slope is moved until it is sound, so no slope has to be exact: a tangent of a convex function is below
it, and `above_ends` puts a chord above it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import Line, LinearBound, above_ends, below_ends, chord, lines
from boundlab.interval import Interval
from boundlab.ops.op import Free, Op, elementwise_op

Function = Callable[[Tensor], Tensor]
BISECTIONS = 30
"""Halvings of the search for a tangent point; the kept end is sound after any number of them."""


def tangent(f: Function, df: Function, touch: Tensor) -> Line:
    """The tangent of f at `touch` as (slope, intercept)."""
    slope = df(touch)
    return slope, f(touch) - slope * touch


def midpoint(x: Interval) -> Tensor:
    """The middle of an interval, with a row axis."""
    return x.center.unsqueeze(1)


def between(x: Interval, fraction: Tensor) -> Tensor:
    """The point at `fraction` (b, s, *shape) of the way from lower to upper."""
    point = x.row_lower + fraction * (x.row_upper - x.row_lower)
    return torch.minimum(torch.maximum(point, x.row_lower), x.row_upper)


def convex_op(name: str, f: Function, df: Function, interval: Callable[[Interval], Interval], *,
              concave: bool = False, start: Function | None = None, **fields: Any) -> Op:
    """A function that is convex (or concave) on its whole domain: tangent on one side, chord on the other.

    The tangent's place is free: `touch` is the fraction of the way from lower to upper. `start(x)` gives its default as
    a fraction (b, 1, *shape); the middle if left out.
    """
    ends = below_ends if concave else above_ends

    def default(x: Interval, **_: Any) -> Tensor:
        return start(x) if start else torch.full_like(x.row_lower, 0.5)

    def relax(x: Interval, alpha: Any = None, **_: Any) -> LinearBound:
        touch = between(x, default(x) if alpha is None else alpha["touch"])
        slope = chord(f, x, df(midpoint(x)))
        secant, support = (slope, ends(f, slope, x)), tangent(f, df, touch)
        return lines(secant, support) if concave else lines(support, secant)

    free = {"touch": Free(0.0, 1.0, default)}
    return elementwise_op(name, f, interval, relax, alpha=free, **fields)


def farthest_tangent(f: Function, df: Function, x: Interval, bend: float) -> tuple[Tensor, Tensor]:
    """Tangent points for an S-shaped f (convex before `bend`, concave after), (b, 1, *shape) each.

    First the largest point up to `bend` whose tangent is still below f at the upper end, second the smallest point from
    `bend` on whose tangent is still above f at the lower end. Where not even the interval's own end does, the answer is
    that end (a chord is the right line then). Zhang et al. 2018 (CROWN), Sec. 3.2.
    """
    l, u = x.row_lower, x.row_upper
    low, end = torch.stack([l.clamp(max=bend), u.clamp(min=bend)]), torch.stack([u, l])
    high = torch.full_like(low, bend)
    target, side = f(end), torch.tensor([1.0, -1.0], dtype=l.dtype, device=l.device).reshape(2, *[1] * l.dim())
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        sound = side * (f(middle) + df(middle) * (end - middle) - target) <= 0
        low, high = torch.where(sound, middle, low), torch.where(sound, high, middle)
    return low[0], low[1]


def s_shaped_op(name: str, f: Function, df: Function, interval: Callable[[Interval], Interval], *,
                bend: float = 0.0, **fields: Any) -> Op:
    """A function that is convex before `bend` and concave after it (sigmoid, tanh, atan, erf).

    Chord on one side, tangent on the other; where the interval holds the bend, a tangent on both sides as long as one
    reaches the other end. Free: the fractions `lower` and `upper` of the way that the two touching points may move.
    Zhang et al. 2018 (CROWN), Sec. 3.2; Lyu et al. 2020 (FROWN), App. A.8.
    """

    def cases(x: Interval) -> tuple[Tensor, Tensor]:
        return x.row_upper <= bend, x.row_lower >= bend

    def start_lower(x: Interval, **_: Any) -> Tensor:
        convex, _ = cases(x)
        return torch.where(convex, torch.full_like(x.row_lower, 0.5), 1.0)

    def start_upper(x: Interval, **_: Any) -> Tensor:
        _, concave = cases(x)
        return torch.where(concave, torch.full_like(x.row_lower, 0.5), 0.0)

    def relax(x: Interval, alpha: Any = None, **_: Any) -> LinearBound:
        l, u = x.row_lower, x.row_upper
        convex, concave = cases(x)
        last, first = farthest_tangent(f, df, x, bend)
        share = {"lower": start_lower(x), "upper": start_upper(x)} if alpha is None else alpha
        low_touch = l + share["lower"] * (torch.where(convex, u, last) - l)
        high_touch = torch.where(concave, l, first) * (1 - share["upper"]) + share["upper"] * u
        slope = chord(f, x, df(midpoint(x)))
        below = tangent(f, df, low_touch.clamp(max=bend))
        above = tangent(f, df, high_touch.clamp(min=bend))
        low_chord = concave | (~convex & (f(l) + df(l) * (u - l) > f(u)))
        high_chord = convex | (~concave & (f(u) + df(u) * (l - u) < f(l)))
        secant_low, secant_high = (slope, below_ends(f, slope, x)), (slope, above_ends(f, slope, x))
        return lines(pick(low_chord, secant_low, below), pick(high_chord, secant_high, above))

    free = {"lower": Free(0.0, 1.0, start_lower), "upper": Free(0.0, 1.0, start_upper)}
    return elementwise_op(name, f, interval, relax, alpha=free, **fields)


def pick(condition: Tensor, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Line:
    """The first line where `condition`, else the second."""
    return torch.where(condition, first[0], second[0]), torch.where(condition, first[1], second[1])
