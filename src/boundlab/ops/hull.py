"""Curves, their pieces, and where tangents touch that stay on one side of the whole curve.

Between two bends a curve is convex, or its negative is. `pieces_of` finds by bisection the stretch of every piece on which
tangents stay on their side of the curve; `valley` bounds a piece from below by any two of its tangents, which is what makes
the lines of `ops/hull_lines.py` sound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from boundlab.interval import Interval

Function = Callable[[Tensor], Tensor]
Line = tuple[Tensor, Tensor]
Bend = float | Tensor
BISECTIONS = 16
"""Halvings of the search for a touching point; a line is sound after any number of them."""
TOUCH_ERROR = 2.0**-25
"""How far from the touching point that is meant one may be that a formula gives, beside its size."""
WIDEST = 2
"""Periods of a curve that repeats up to which its pieces are told apart."""


@dataclass(frozen=True)
class Curve:
    """A function of one number: f, its slope, and where it bends (from convex to concave or back) and turns.

    `convex` says how it bends before the first of `bends`. Its slope is continuous, or jumps at bends only; there the
    slope has the larger value if f is convex before it, else the smaller one. `turns` are its local extrema. A curve that
    repeats has its bends and turns in (0, period], and `convex` is about what comes before the first of them. `crossing`
    says that one line may touch two convex (or two concave) pieces within a period, as with a double well. `reach` and `touch`
    are for rising S-shaped functions that are symmetric about 0, where they bend: the x >= 0 where the slope has fallen to a
    number, and the x >= 0 with the tangent at -x that meets the function at a number u >= 0, to TOUCH_ERROR (1 + x).
    """

    f: Function
    slope: Function
    bends: tuple[Bend, ...] = ()
    convex: bool = True
    turns: tuple[float, ...] = ()
    period: float | None = None
    crossing: bool = False
    reach: Function | None = None
    touch: Function | None = None

    @property
    def several(self) -> bool:
        """Whether one line may touch several pieces of one sign."""
        return self.crossing or self.period is not None

    @property
    def all_bends(self) -> tuple[Bend, ...]:
        """The bends that can lie inside an interval: of a curve that repeats, counted from the period where it begins."""
        if self.period is None:
            return self.bends
        later = (bend + turn * self.period for turn in range(3) for bend in self.bends)
        return tuple(bend for bend in later if bend < (1 + WIDEST) * self.period)

    def signs(self) -> tuple[float, ...]:
        """1 for every convex piece, -1 for every concave one, in order."""
        return tuple(1.0 if (place % 2 == 0) == self.convex else -1.0 for place in range(len(self.all_bends) + 1))

    def part(self, sign: float) -> slice:
        """The places of the pieces with this sign."""
        return slice(0 if self.signs()[0] == sign else 1, None, 2)

    def regular(self, x: Interval) -> Tensor:
        """Where the pieces inside x are known, (b, *shape): x is not too wide, nor so far out that rounding moves it."""
        if self.period is None:
            return torch.ones_like(x.lower, dtype=torch.bool)
        far = torch.finfo(x.lower.dtype).eps ** -0.5
        return (x.width < WIDEST * self.period) & (x.lower > -far) & (x.upper < far)


@dataclass(frozen=True)
class Pieces:
    """The pieces of a curve inside an interval, stacked along a new first axis: (pieces, b, 1, *shape) each.

    `first` and `last` are brackets (2, ...) around the first and the last point at which a tangent stays on its side of the
    whole curve; `slopes` (4, ...) belong to their four ends. A concave piece is upside down: its slopes are those of -f.
    """

    start: Tensor
    end: Tensor
    first: Tensor
    last: Tensor
    slopes: Tensor

    @property
    def present(self) -> Tensor:
        """Which pieces the interval holds a part of."""
        return self.start < self.end

    def map(self, function: Callable[[Tensor, int], Tensor]) -> Pieces:
        """All parts changed alike; the function is told which axis of a part counts the pieces."""
        return Pieces(function(self.start, 0), function(self.end, 0), *(function(part, 1) for part in (
            self.first, self.last, self.slopes)))

    def part(self, places: slice) -> Pieces:
        """Some of the pieces."""
        return self.map(lambda part, axis: part[places] if axis == 0 else part[:, places])


def stacked(values: tuple[float, ...], like: Tensor) -> Tensor:
    """One number for each piece, with axes for the rest."""
    return torch.tensor(values, dtype=like.dtype, device=like.device).reshape(-1, *[1] * like.dim())


def edges_of(curve: Curve, x: Interval) -> Line:
    """Where the pieces of the curve inside x start and end, (pieces, b, 1, *shape) each; those that x does not hold at l."""
    l, u = x.row_lower, x.row_upper
    edges = [torch.as_tensor(bend, dtype=l.dtype, device=l.device) for bend in curve.all_bends]
    if curve.period is not None:
        edges = [torch.floor(l / curve.period) * curve.period + bend for bend in edges]
    start = torch.stack([l, *(torch.maximum(l, edge) for edge in edges)])
    end = torch.stack([*(torch.minimum(u, edge) for edge in edges), u])
    present = start < end
    return torch.where(present, start, l), torch.where(present, end, l)


@torch.no_grad()
def pieces_of(curve: Curve, x: Interval) -> Pieces:
    """The pieces of the curve inside x, and the stretches of them that belong to a hull."""
    l, u = x.row_lower, x.row_upper
    start, end = edges_of(curve, x)
    sign = stacked(curve.signs(), l)
    first, last = torch.stack([start, start]), torch.stack([end, end])
    count = len(curve.all_bends)
    if count:
        low, high = searched(curve, x, start, end, sign) if curve.touch is None else by_formula(curve.touch, x, start, end)
        first[:, 1:] = torch.where(start[1:] > l, torch.stack([low[:count], high[:count]]), start[1:])
        last[:, :-1] = torch.where(end[:-1] < u, torch.stack([low[count:], high[count:]]), end[:-1])
    touches = torch.cat([first, last])
    return Pieces(start, end, first, last, sign * curve.slope(touches))


def searched(curve: Curve, x: Interval, start: Tensor, end: Tensor, sign: Tensor) -> Line:
    """Brackets of the first touching points of all pieces but the first, then of the last ones of all but the last.

    As a tangent's point moves to the right, the tangent rises at all points to its right and falls at those to its left. So
    tangents that stay below to the left are those from some point on, and to the right those up to some point. Where no
    tangent does both, the hull bridges over the piece, and the search goes to the slope of the chord.
    """
    l, u, count = x.row_lower, x.row_upper, len(curve.all_bends)
    low, high, sign = (torch.cat([part[1:], part[:-1]]) for part in (start, end, sign))
    last, concave = stacked((0.0,) * count + (1.0,) * count, l) > 0, sign < 0
    near, far = torch.where(last, u, l), torch.where(last, l, u)
    value_near, value_far = curve.f(near), curve.f(far)
    chord = secant(curve, l, u, u - l) if count > 1 else None
    inner, turned = torch.where(last, low > l, high < u), concave ^ last
    rivals = rivals_of(curve, x, start, end, count)
    first, step = low, high - low
    for _ in range(BISECTIONS):
        step = step / 2
        point = low + step
        value, slope = curve.f(point), curve.slope(point)
        onward = (value + slope * (near - point) > value_near) ^ turned
        if chord is not None:
            cut, other = onward ^ last, inner & ((value + slope * (far - point) > value_far) ^ concave)
            if rivals is not None:
                before, after = rivals(point, sign * value, sign * slope)
                cut, other = cut | torch.where(last, after, before), other | torch.where(last, before, after)
            onward = torch.where(cut & other, (slope < chord) ^ concave, cut ^ last)
        moved = onward.to(step.dtype) * step  # a choice between tensors by booleans takes several times as long
        low, high = low + moved, high + (moved - step)  # an end that never moves stays exactly what it was
    high = torch.maximum(high, first)
    return torch.minimum(low, high), high


def by_formula(touch: Function, x: Interval, start: Tensor, end: Tensor) -> Line:
    """What `searched` finds, of a curve that has `touch`."""
    point = touch(torch.cat([-x.row_lower, x.row_upper]).clamp(min=0)).reshape(2, *x.row_lower.shape)
    point, reach = torch.stack([point[0], -point[1]]), TOUCH_ERROR * (1 + point)
    low, high = start.flip(0), end.flip(0)
    return tuple(torch.minimum(torch.maximum(place, low), high) for place in (point - reach, point + reach))  # type: ignore


Rivals = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def rivals_of(curve: Curve, x: Interval, start: Tensor, end: Tensor, count: int) -> Rivals | None:
    """Whether a tangent cuts off another piece that bends the same way, to its left and to its right; None if none can.

    One period on, a curve has the same value and slope, so a rising tangent is above it there. Of other pieces the lowest
    point in the direction of the tangent is found by bisection.
    """
    if not curve.several:
        return None
    signs, like = curve.signs(), x.row_lower
    own, own_sign = stacked((*range(1, count + 1), *range(count)), like), stacked((*signs[1:], *signs[:-1]), like)

    def rivals(point: Tensor, value: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        before = after = torch.zeros_like(point, dtype=torch.bool)
        if curve.period is not None:
            before = (point - curve.period >= x.row_lower) & (slope < 0)
            after = (point + curve.period <= x.row_upper) & (slope > 0)
        for place, sign in enumerate(signs if curve.crossing else ()):
            a, b = start[place], end[place]
            lowest = valley(curve, sign, contact(curve, sign, slope, a, b), slope, (a, b))
            cut = (value - slope * point > lowest) & (a < b) & (own_sign == sign)
            before, after = before | (cut & (own > place)), after | (cut & (own < place))
        return before, after

    return rivals


def contact(curve: Curve, sign: float | Tensor, k: Tensor, a: Tensor, b: Tensor, halvings: int = BISECTIONS) -> Tensor:
    """A bracket (2, ...) of the point of a convex piece [a, b] where it has slope k, or of the end that is nearest to it."""
    low, high = (part.expand(np.broadcast_shapes(k.shape, a.shape)) for part in (a, b))
    for _ in range(halvings):
        point = (low + high) / 2
        onward = sign * curve.slope(point) < k
        low, high = torch.where(onward, point, low), torch.where(onward, high, point)
    return torch.stack([low, high])


def secant(curve: Curve, first: Tensor, second: Tensor, width: Tensor) -> Tensor:
    """Slope of f between two points; where they nearly coincide beside `width`, its slope half-way between them."""
    run, half = second - first, (first + second) / 2
    wide = run.abs() > torch.finfo(run.dtype).eps ** 0.5 * (first.abs() + second.abs() + width)
    quotient = (curve.f(second) - curve.f(first)) / torch.where(wide, run, 1.0)
    return torch.where(wide, quotient, curve.slope(half))


def valley(curve: Curve, sign: float | Tensor, touches: Tensor, k: Tensor, ends: tuple[Tensor, Tensor]) -> Tensor:
    """A lower bound of f - k x on a convex piece between `ends` a <= b, from its tangents at two points p <= q (2, ...) of it.

    The larger of the two tangents less k x is convex and linear but for the point where they cross, so it is least at a, at
    b or there. At any point near the crossing the smaller tangent is no higher than at the crossing itself if k lies
    between their slopes, and else one of the ends is least; so the crossing need not be exact.
    """
    (p, q), (at_p, at_q) = touches.unbind(0), (sign * curve.f(touches)).unbind(0)
    along_p, along_q = (sign * curve.slope(touches)).unbind(0)

    def height(place: Tensor) -> Tensor:
        return torch.maximum(at_p + along_p * (place - p), at_q + along_q * (place - q)) - k * place

    turn = along_q - along_p
    step = (at_p - at_q + along_q * (q - p)) / torch.where(turn > 0, turn, 1.0)
    cross = torch.where(turn > 0, torch.minimum(torch.maximum(p + step, p), q), p)
    meet = torch.minimum(at_p + along_p * (cross - p), at_q + along_q * (cross - q)) - k * cross
    return torch.minimum(meet, torch.minimum(height(ends[0]), height(ends[1])))
