"""Support: the least value of a f(z) - m z over an interval of z, for any numbers a and m.

It says which lines lie below or above f: with a = 1 it is the best intercept of a lower line of slope m, with a = -1 the
negative of that of an upper line of slope -m. In the Lagrangian dual of a layer-wise problem it is what the constraint y = f(z)
with a multiplier m leaves of a y (Dvijotham et al. 2018; Salman et al. 2019, Eq. 11). Where f is affine between a few places
the least value is at one of these; on a convex piece of a curve two tangents bound it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from boundlab.interval import Interval
from boundlab.ops.hull import Curve, Function, Line, contact, edges_of, valley

HALVINGS = 10
"""Halvings of the search for the least value: what is lost is of second order in the width that is left."""

CLOSE = 4
"""Units of rounding by which two least values may differ and count as one, so that rounding does not decide on a derivative."""


class Least(NamedTuple):
    """A sound lower bound `value` of a f(z) - m z, and the `place` z and `height` f(z) near which it is taken; (b, s, *shape).

    The derivatives of the least value are the height (in a) and minus the place (in m).
    """

    place: Tensor
    height: Tensor
    value: Tensor


Support = Callable[[Tensor, Tensor], Least]
"""The least value on a given interval (b, 1, *shape) for a and m (b, s, *shape) each."""


def chosen(second: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """`other` where `second` is 1, `one` where it is 0: much faster than a choice by booleans."""
    return torch.lerp(one.expand_as(second), other.expand_as(second), second)


def lower_of(first: Least, second: Least) -> Least:
    """The lower of two least values; where rounding alone may decide, with the place of the first."""
    close = CLOSE * torch.finfo(first.value.dtype).eps
    below = (first.value - second.value > close * second.value.abs()).to(first.value.dtype)
    return Least(chosen(below, first.place, second.place), chosen(below, first.height, second.height),
                 torch.minimum(first.value, second.value))


def at_places(places: Sequence[Tensor], lows: Sequence[Tensor], highs: Sequence[Tensor]) -> Support:
    """Of a function that is linear between places (b, 1, *shape), given the least and the largest value or limit at each."""

    @torch.no_grad()
    def support(a: Tensor, m: Tensor) -> Least:
        negative, found = (a < 0).to(a.dtype), None
        for place, low, high in zip(places, lows, highs, strict=True):
            height = low if low is high else chosen(negative, low, high)
            one = Least(place, height, a * height - m * place)
            found = one if found is None else lower_of(found, one)
        assert found is not None
        return Least(*(part.expand_as(a) for part in found))

    return support


def corner_support(f: Function, x: Interval, breaks: Sequence[float]) -> Support:
    """Of a continuous function that is affine between breaks."""
    l, u = x.row_lower, x.row_upper
    places = [l, u, *(torch.minimum(torch.maximum(torch.full_like(l, place), l), u) for place in breaks)]
    heights = [f(place) for place in places]
    return at_places(places, heights, heights)


class Piece(NamedTuple):
    """For every coordinate a stretch from `start` to `end` on which a curve bends one way, and its slopes there.

    All (b, 1, *shape). Where a curve has no such piece the stretch is one point of the interval.
    """

    start: Tensor
    end: Tensor
    first: Tensor
    last: Tensor


def piece_of(curve: Curve, start: Tensor, end: Tensor) -> Piece:
    """A piece with its slopes."""
    return Piece(start, end, curve.slope(start), curve.slope(end))


def piece_support(curve: Curve, x: Interval, bowls: Sequence[Piece], domes: Sequence[Piece]) -> Support:
    """Of a curve, given its convex (`bowls`) and its concave pieces (`domes`), as many of both."""
    l, u = x.row_lower, x.row_upper
    heights = [curve.f(l), curve.f(u)]
    ends = at_places([l, u], heights, heights)

    @torch.no_grad()
    def support(a: Tensor, m: Tensor) -> Least:
        found, negative = ends(a, m), (a < 0).to(a.dtype)
        sign, size = 1 - 2 * negative, a.abs()
        k = m / size.clamp(min=torch.finfo(a.dtype).tiny)
        for bowl, dome in zip(bowls, domes, strict=True):
            start, end, first, last = (chosen(negative, one, other) for one, other in zip(bowl, dome, strict=True))
            slopes = sign * first, sign * last
            slope = torch.minimum(torch.maximum(k, slopes[0]), slopes[1])
            least = on_convex(curve, sign, slope, (start, end), slopes)
            rest = size * slope - m
            value = size * least.value + torch.minimum(rest * start, rest * end)
            found = lower_of(found, least._replace(value=value))
        return found

    return support


def on_convex(curve: Curve, sign: Tensor, k: Tensor, ends: Line, slopes: Line) -> Least:
    """The least value of sign f(z) - k z between the ends of a piece on which that is convex, for k between its `slopes` there.

    Slopes beyond are cut off before; what is left of m z is least at an end. So nothing is divided by a small a that matters.
    """
    start, end = ends
    if curve.reach is None:
        touches = contact(curve, sign, k, start, end, HALVINGS)
        place = torch.where(k <= slopes[0], start, torch.where(k >= slopes[1], end, touches.mean(0)))
        return Least(place, curve.f(place), valley(curve, sign, touches, k, ends))
    place = torch.minimum(torch.maximum(-sign * curve.reach(sign * k), start), end)
    height, along = curve.f(place), sign * curve.slope(place)
    turn = along - k
    return Least(place, height, sign * height - along * place + torch.minimum(turn * start, turn * end))


def curve_support(curve: Curve, x: Interval, whole: Interval) -> Support:
    """Of a curve on x, where its values lie in `whole`: that decides where a curve repeats and its pieces are not known."""
    pieces = [piece_of(curve, start, end) for start, end in zip(*edges_of(curve, x), strict=True)]
    sides = [[piece for piece, own in zip(pieces, curve.signs(), strict=True) if own == sign] for sign in (1.0, -1.0)]
    none = piece_of(curve, x.row_lower, x.row_lower)
    count = max(map(len, sides))
    bowls, domes = ([*side, *[none] * (count - len(side))] for side in sides)
    support = piece_support(curve, x, bowls, domes)
    if curve.period is None:
        return support
    sure = curve.regular(x).unsqueeze(1)

    @torch.no_grad()
    def within_range(a: Tensor, m: Tensor) -> Least:
        known = support(a, m)
        height, place = torch.where(a >= 0, whole.row_lower, whole.row_upper), torch.where(m >= 0, x.row_upper, x.row_lower)
        ranged = Least(place, height, a * height - m * place)
        return Least(*(torch.where(sure, one, other) for one, other in zip(known, ranged, strict=True)))

    return within_range


def branch_support(curve: Curve, x: Interval, convex: Tensor) -> Support:
    """Of a curve that is convex all over x where `convex` (b, *shape) says so, else concave."""
    l, bowl = x.row_lower, convex.unsqueeze(1)
    ends = [torch.where(own, x.row_upper, l) for own in (bowl, ~bowl)]
    return piece_support(curve, x, *([piece_of(curve, l, end)] for end in ends))
