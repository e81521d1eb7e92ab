"""Relaxations of smooth functions from f, f' and where f bends: convex, concave and S-shaped.

A line with any slope is moved until it is sound, so no slope has to be exact: a tangent of a convex function is below
it, and `above_ends` puts a chord above it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from boundlab.affine import LinearBound, above_ends, below_ends, chord, lines
from boundlab.interval import Interval
from boundlab.ops.op import Free, Op, elementwise_op

Function = Callable[[Tensor], Tensor]
Lines = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
BISECTIONS = 24
"""Halvings of the search for a tangent point; the kept end is sound after any number of them."""


def tangent(f: Function, df: Function, touch: Tensor) -> tuple[Tensor, Tensor]:
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


def middle(x: Interval, **_: Any) -> Tensor:
    """Half the way, everywhere, (b, 1, *shape)."""
    return torch.full_like(x.row_lower, 0.5)


def convex_lines(f: Function, df: Function, x: Interval, touch: Tensor) -> Lines:
    """Below and above a convex f: the tangent at `touch` and the chord."""
    slope = chord(f, x, df(midpoint(x)))
    return tangent(f, df, touch), (slope, above_ends(f, slope, x))


def concave_lines(f: Function, df: Function, x: Interval, touch: Tensor) -> Lines:
    """Below and above a concave f: the chord and the tangent at `touch`."""
    slope = chord(f, x, df(midpoint(x)))
    return (slope, below_ends(f, slope, x)), tangent(f, df, touch)


def convex_op(name: str, f: Function, df: Function, interval: Callable[[Interval], Interval], *,
              concave: bool = False, start: Callable[..., Tensor] = middle, **fields: Any) -> Op:
    """A function that is convex (or concave) on its whole domain: tangent on one side, chord on the other.

    The tangent's place is free: `touch` is the fraction of the way from lower to upper. `start(x)` gives its default as
    a fraction (b, 1, *shape); the middle if left out.
    """
    between_lines = concave_lines if concave else convex_lines

    def relax(x: Interval, alpha: Mapping[str, Tensor] | None = None) -> LinearBound:
        return lines(*between_lines(f, df, x, between(x, start(x) if alpha is None else alpha["touch"])))

    return elementwise_op(name, f, interval, relax, **{"alpha": {"touch": Free(0.0, 1.0, start)}, "breaks": (), **fields})


class Curve(NamedTuple):
    """An S-shaped function: f, f', f'' and its bend; convex before the bend and concave after it."""

    f: Function
    df: Function
    ddf: Function
    bend: float = 0.0


def farthest_tangent(curve: Curve, x: Interval) -> tuple[Tensor, Tensor]:
    """Tangent points of an S-shaped curve, (b, 1, *shape) each.

    First the largest point up to the bend whose tangent is still below f at the upper end, second the smallest point from
    the bend on whose tangent is still above f at the lower end. Where not even the interval's own end does, the answer is
    that end (a chord is the right line then). Zhang et al. 2018 (CROWN), Sec. 3.2.

    Found by bisection; the gradient is that of the equation f(t) + f'(t) (end - t) = f(end) which the point solves.
    """
    ends = torch.stack([x.row_upper, x.row_lower])
    own = torch.stack([x.row_lower.clamp(max=curve.bend), x.row_upper.clamp(min=curve.bend)])
    side = torch.tensor([1.0, -1.0], dtype=ends.dtype, device=ends.device).reshape(2, *[1] * (ends.dim() - 1))
    with torch.no_grad():
        low, high, target = own, torch.full_like(own, curve.bend), curve.f(ends)
        for _ in range(BISECTIONS):
            half = (low + high) / 2
            sound = side * (curve.f(half) + curve.df(half) * (ends - half) - target) <= 0
            low, high = torch.where(sound, half, low), torch.where(sound, high, half)
    return implicit(curve, low, ends).unbind(0) if ends.requires_grad else low.unbind(0)  # type: ignore[return-value]


def implicit(curve: Curve, point: Tensor, ends: Tensor) -> Tensor:
    """The tangent point itself, with the derivative (f'(end) - f'(t)) / (f''(t) (end - t)) in the end it reaches."""
    with torch.no_grad():
        slope, steep = curve.df(ends) - curve.df(point), curve.ddf(point) * (ends - point)
        regular = steep.abs() > torch.finfo(ends.dtype).eps
        rate = torch.where(regular, slope / torch.where(regular, steep, 1.0), 0.0).clamp(-1, 1)
    return point + rate * (ends - ends.detach())


def touching_ranges(curve: Curve, x: Interval) -> tuple[Tensor, Tensor]:
    """How far from the lower end the tangent below may touch, and from where to the upper end the one above, (b, 1, *shape)."""
    last, first = farthest_tangent(curve, x)
    return torch.where(x.row_upper <= curve.bend, x.row_upper, last), torch.where(x.row_lower >= curve.bend, x.row_lower, first)


def least_area(x: Interval, reach: Tensor, since: Tensor) -> dict[str, Tensor]:
    """Default touching points as shares of their ranges: the middle, or the end nearest to it.

    The area below the tangent at t is proportional to its height over the middle m, whose derivative f''(t) (m - t) keeps
    its sign up to m.
    """
    l, u, m = x.row_lower, x.row_upper, midpoint(x)

    def share(part: Tensor, whole: Tensor) -> Tensor:
        return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0).clamp(0, 1)

    return {"lower": share(m - l, reach - l), "upper": share(m - since, u - since)}


def start_shares(curve: Curve, x: Interval) -> dict[str, Tensor]:
    """The shares that `s_lines` takes where none are given."""
    return least_area(x, *touching_ranges(curve, x))


def s_lines(curve: Curve, x: Interval, alpha: Mapping[str, Tensor] | None) -> Lines:
    """Lines below and above an S-shaped curve, touching at the shares `alpha` of the ranges in which the points may move."""
    f, df, bend = curve.f, curve.df, curve.bend
    l, u = x.row_lower, x.row_upper
    reach, since = touching_ranges(curve, x)
    shares = least_area(x, reach, since) if alpha is None else alpha
    touch_below, touch_above = l + shares["lower"] * (reach - l), since + shares["upper"] * (u - since)
    below = tangent(f, df, torch.where(touch_below > reach, reach, touch_below))
    above = tangent(f, df, torch.where(touch_above < since, since, touch_above))
    slope = chord(f, x, df(midpoint(x)))
    low_chord = (l >= bend) | ((u > bend) & (f(l) + df(l) * (u - l) > f(u)))
    high_chord = (u <= bend) | ((l < bend) & (f(u) + df(u) * (l - u) < f(l)))
    return (pick(low_chord, (slope, below_ends(f, slope, x)), below),
            pick(high_chord, (slope, above_ends(f, slope, x)), above))


def pick(condition: Tensor, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The first line where `condition`, else the second."""
    return torch.where(condition, first[0], second[0]), torch.where(condition, first[1], second[1])


def negated(pair: Lines) -> Lines:
    """Lines around -f from lines around f."""
    (a, b), (c, d) = pair
    return (-c, -d), (-a, -b)


def s_shaped_op(name: str, curve: Curve, interval: Callable[[Interval], Interval], **fields: Any) -> Op:
    """A function that is convex before its bend and concave after it (sigmoid, tanh, atan, erf).

    Chord on one side, tangent on the other; where the interval holds the bend, a tangent on both sides as long as one
    reaches the other end. Free: the fractions `lower` and `upper` of the way that the two touching points may move.
    Zhang et al. 2018 (CROWN), Sec. 3.2; Lyu et al. 2020 (FROWN), App. A.8.
    """

    def relax(x: Interval, alpha: Mapping[str, Tensor] | None = None) -> LinearBound:
        return lines(*s_lines(curve, x, alpha))

    free = {side: Free(0.0, 1.0, lambda x, side=side: start_shares(curve, x)[side]) for side in ("lower", "upper")}
    return elementwise_op(name, curve.f, interval, relax, **{"alpha": free, "breaks": (), **fields})
