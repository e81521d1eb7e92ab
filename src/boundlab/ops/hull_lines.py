"""Lines of least area around a curve, and all others that its hulls have.

Seen from below, a line of the hull touches a convex piece (a tangent), or bridges from a piece to an end of the interval or to
another piece, or is the chord of both ends. The hull's lines have slopes from that of its first line to that of its last one,
and a share between 0 and 1 picks one of them. The line of the hull at the middle of the interval has the least area of all
lines on its side, since a line's mean is its value there.

Whatever slope k comes out, the line is sound, because of its intercept (`floor_of`): f - k x is least at an end of the interval
or on a convex piece, where the larger of two tangents bounds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from boundlab.interval import Interval
from boundlab.ops.hull import Curve, Function, Line, Pieces, contact, secant, stacked, valley


@dataclass(frozen=True)
class Hull:
    """The hull below sign * f on x: its pieces (pieces, b, 1, *shape), and the slopes `low` to `high` of lines that touch each.

    A `sign` of shape (2, 1, ..., 1) makes two hulls at once, and an axis of that size comes before the batch.
    `first` and `last` are the first and the last touching point of each, and move with the ends of the interval. Of the slopes'
    range `weight` (0 off the hull), the lines from `low` on turn about the first touching point for `rise`, then the touching
    point moves to the last one for `spread`, and about that they turn for the rest. Where f is smooth, the touching point
    moves for all of it.
    """

    curve: Curve
    x: Interval
    sign: float | Tensor
    pieces: Pieces
    first: Tensor
    last: Tensor
    low: Tensor
    high: Tensor
    weight: Tensor
    rise: Tensor
    spread: Tensor

    @property
    def begins(self) -> Tensor:
        """Which pieces begin inside the interval, so that lines come in from their left."""
        return self.pieces.start > self.x.row_lower

    @property
    def finishes(self) -> Tensor:
        """Which pieces end inside the interval."""
        return self.pieces.end < self.x.row_upper


def within(value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The value moved into a range, with its own gradient."""
    if not value.requires_grad:
        return torch.minimum(torch.maximum(value, low), high)
    return torch.minimum(torch.maximum(value, low), high).detach() + (value - value.detach())


def moving(curve: Curve, touch: Tensor, end: Tensor) -> Tensor:
    """A point t whose tangent meets f at `end`, with its derivative (f'(end) - f'(t)) / (f''(t) (end - t)) in that end."""
    if not end.requires_grad:
        return touch
    with torch.no_grad():
        step = torch.finfo(touch.dtype).eps ** (1 / 3) * (1 + touch.abs())
        bend = (curve.slope(touch + step) - curve.slope(touch - step)) / (2 * step)
        steep = bend * (end - touch)
        regular = steep.abs() > torch.finfo(touch.dtype).eps
        turn = curve.slope(end) - curve.slope(touch)
        rate = torch.where(regular, turn / torch.where(regular, steep, 1.0), 0.0).clamp(-1, 1)
    return touch + rate * (end - end.detach())


def hull_of(curve: Curve, x: Interval, pieces: Pieces, sign: float) -> Hull:
    """The hull below sign * f."""
    return touching(curve, x, pieces.part(curve.part(sign)), sign)


def hulls_of(curve: Curve, x: Interval, pieces: Pieces) -> Hull:
    """The hulls below f and below -f at once, for a curve with one bend: each touches one piece."""
    places = (0, 1) if curve.convex else (1, 0)
    one_each = pieces.map(lambda part, axis: part.index_select(axis, torch.tensor(places, device=part.device)).unsqueeze(axis))
    return touching(curve, x, one_each, stacked((1.0, -1.0), x.row_lower))


def touching(curve: Curve, x: Interval, own: Pieces, sign: float | Tensor) -> Hull:
    """Which pieces of one sign the hull touches, and with which slopes."""
    l, u = x.row_lower, x.row_upper
    (before, first), (last, after) = own.first, own.last
    slope_before, slope_first, slope_last, slope_after = own.slopes
    to_left, to_right = sign * secant(curve, l, first, u - l), sign * secant(curve, last, u, u - l)
    endless = torch.inf  # at an end of a piece that no bisection has left, the slope may jump by any amount
    low = within(to_left, torch.where(before > own.start, slope_before, -endless),
                 torch.where(first < own.end, slope_first, endless))
    high = within(to_right, torch.where(last > own.start, slope_last, -endless),
                  torch.where(after < own.end, slope_after, endless))
    if curve.several:  # a line from another piece may be the one that counts; where it is, the slope here is the tangent's
        low = torch.where(to_left >= slope_before, within(low, slope_before, slope_first), slope_first)
        high = torch.where(to_right <= slope_after, within(high, slope_last, slope_after), slope_last)
    low, high = torch.where(own.start > l, low, slope_before), torch.where(own.end < u, high, slope_after)
    with torch.no_grad():
        touched = first <= last
        if not curve.several:
            touched = touched | (to_left <= to_right)
        weight = torch.where(touched & own.present, (high - low).clamp(min=0), 0.0)
        rise = torch.minimum((slope_first - low).clamp(min=0), weight)
        spread = torch.minimum((slope_last - slope_first).clamp(min=0), weight - rise)
    first_touch = torch.where(own.start > l, moving(curve, first, l), l)
    last_touch = torch.where(own.end < u, moving(curve, last, u), u)
    return Hull(curve, x, sign, own, first_touch, last_touch, low, high, weight, rise, spread)


def best_share(hull: Hull) -> Tensor:
    """The share whose line is the hull's in the middle of the interval, (b, 1, *shape)."""
    middle, first, last = hull.x.center.unsqueeze(1), hull.first, hull.last
    apart = last > first
    way = (middle - first) / torch.where(apart, last - first, 1.0)
    begun = torch.where(apart & (middle < last), hull.rise + hull.spread * way, hull.weight)
    passed = torch.where(middle <= first, 0.0, begun).sum(0)
    total = hull.weight.sum(0)
    return passed / torch.where(total > 0, total, 1.0)


def line_of(hull: Hull, share: Tensor) -> Line:
    """The line of the hull at a share (b, s, *shape) of its slopes: slope and intercept, below sign * f."""
    curve, sign, first, last = hull.curve, hull.sign, hull.pieces.first, hull.pieces.last
    sums = hull.weight.cumsum(0)
    place = share * sums[-1]
    hit = (hull.weight > 0) & (place <= sums)
    hit = hit & (hit.cumsum(0) == 1)
    inner = torch.minimum((place - (sums - hull.weight)).clamp(min=0), hull.weight)
    way = ((inner - hull.rise) / torch.where(hull.spread > 0, hull.spread, 1.0)).clamp(0, 1)
    touch = hull.first + way * (hull.last - hull.first)
    touch = within(touch, touch, last[1])
    # at the end of a range the line is a tangent, whose slope moves with its point alone (or, on a straight piece, not at all)
    turn_first = hull.begins & ((inner < hull.rise) | (inner <= 0))
    turn_last = hull.finishes & ((inner > hull.rise + hull.spread) | (inner >= hull.weight)) & ~turn_first
    slope = torch.where(turn_first, hull.low + inner, torch.where(
        turn_last, hull.high - (hull.weight - inner), sign * curve.slope(touch)))
    around = torch.where(turn_first, first, torch.where(turn_last, last, torch.stack([touch, touch]))).detach()
    through = torch.where(turn_first, around[1], around[0])
    chosen, l, u = hit.any(0), hull.x.row_lower, hull.x.row_upper
    slope = torch.where(chosen, torch.where(hit, slope, 0.0).sum(0), sign * secant(curve, l, u, u - l))
    through = torch.where(chosen, torch.where(hit, through, 0.0).sum(0), l)
    intercept = sign * curve.f(through) - slope * through
    excess = intercept - floor_of(hull, slope, torch.where(hit, around, first), hit)
    return slope, intercept - excess.clamp(min=0).detach()


@torch.no_grad()
def floor_of(hull: Hull, slope: Tensor, touches: Tensor, hit: Tensor) -> Tensor:
    """The largest intercept that is sound with a slope: the least of both ends and of the valleys of all pieces.

    `touches` (2, pieces, ...) are the points of tangents. Where a line touches one piece (`hit`), another one may meet it only
    at an end of its own, unless one line may touch several.
    """
    curve, sign, l, u = hull.curve, hull.sign, hull.x.row_lower, hull.x.row_upper
    lowest = torch.minimum(sign * curve.f(l) - slope * l, sign * curve.f(u) - slope * u)
    several, pieces = len(hit) > 1, hull.pieces
    for place, (a, b, present) in enumerate(zip(pieces.start, pieces.end, pieces.present, strict=True)):
        touch = touches[:, place]
        if several:
            other = contact(curve, sign, slope, a, b) if curve.several else torch.stack([a, b])
            touch = torch.where(hit[place] | ~hit.any(0), touch, other)
        lowest = torch.where(present, torch.minimum(lowest, valley(curve, sign, touch, slope, (a, b))), lowest)
    return lowest


def symmetric_lines(curve: Curve, x: Interval) -> tuple[Line, Line]:
    """The lines of least area below and above a curve that has `reach` and `touch`, from formulas instead of a search.

    Turned upside down and from right to left the curve bends as before, so both lines are found as lines below a curve. There
    a line is a tangent on the convex side, in the middle of the interval, unless that would cut the curve at u: then it
    bridges from u to a touching point, or to l. Slopes need not be exact, since `symmetric_floor` gives the intercept.
    """
    sign = stacked((1.0, -1.0), x.row_lower)
    l, u = torch.stack([x.row_lower, -x.row_upper]), torch.stack([x.row_upper, -x.row_lower])

    def f(place: Tensor) -> Tensor:
        return sign * curve.f(sign * place)

    middle = (l + u) / 2
    with torch.no_grad():
        touch = -curve.touch(u.clamp(min=0))  # type: ignore[misc]
        bridges = touch < middle
    first, at_u, slope = torch.maximum(touch, l), f(u), curve.slope(middle)
    run = u - first
    wide = run > torch.finfo(run.dtype).eps ** 0.5 * (first.abs() + u.abs())
    slope = torch.where(bridges & wide, (at_u - f(first)) / torch.where(wide, run, 1.0), slope)
    through = torch.where(bridges, u, middle)
    intercept = f(through) - slope * through
    with torch.no_grad():
        touches = torch.where(bridges, -curve.reach(slope), middle)  # type: ignore[misc]
        floor = symmetric_floor((f, curve.slope), (l, u, at_u), slope, touches)
    intercept = intercept - (intercept.detach() - floor).clamp(min=0)
    intercept = torch.where(intercept > floor, floor, intercept)  # by rounding
    return (slope[0], intercept[0]), (slope[1], -intercept[1])


def symmetric_floor(curve: tuple[Function, Function], ends: tuple[Tensor, ...], slope: Tensor, touches: Tensor) -> Tensor:
    """The largest intercept that is sound with a slope below a curve (f and its slope), convex up to 0 and concave from there.

    `ends` are l, u and f(u). Up to 0 the tangent at any point there is below f, and less slope x it is least at an end; from 0
    on f - slope x is least at an end itself.
    """
    (f, slope_of), (l, u, at_u) = curve, ends
    bend = u.clamp(max=0)
    touches = torch.minimum(torch.maximum(touches, l), bend)
    along = slope_of(touches)
    rest = along - slope
    bowl = f(touches) - along * touches + torch.minimum(rest * l, rest * bend)
    return torch.minimum(torch.where(l < 0, bowl, f(l) - slope * l), at_u - slope * u)


def chord_line(curve: Curve, x: Interval, sign: float) -> Line:
    """The line through both ends, below a function sign * f that is concave between them."""
    l, u = x.row_lower, x.row_upper
    slope = sign * secant(curve, l, u, u - l)
    return slope, torch.minimum(sign * curve.f(l) - slope * l, sign * curve.f(u) - slope * u)


def tangent_line(curve: Curve, sign: float, touch: Tensor) -> Line:
    """The tangent of sign * f at a point: below it if it is convex."""
    slope = sign * curve.slope(touch)
    return slope, sign * curve.f(touch) - slope * touch
