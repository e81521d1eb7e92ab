"""Support: the least value of a f(z) - m z over an interval of z, for any numbers a and m.

It says which lines lie below or above f: with a = 1 it is the best intercept of a lower line of slope m, with a = -1 the
negative of that of an upper line of slope -m. With any multiplier m of the constraint y = f(z) it is what the constraint leaves of
a y in the Lagrangian dual of a layer-wise problem (Dvijotham et al. 2018; Salman et al. 2019, Eq. 11). Where f is affine between a
few places the least value is at one of these; on a convex piece of a curve two tangents bound it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from boundlab.interval import Interval
from boundlab.ops.hull import Curve, Function, contact, edges_of, valley

HALVINGS = 10
"""Halvings of the search for the least value: what is lost is of second order in the width that is left."""


class Least(NamedTuple):
    """A sound lower bound `value` of a f(z) - m z, and the `place` z and `height` f(z) near which it is taken; (b, s, *shape).

    The derivatives of the least value are the height (in a) and minus the place (in m).
    """

    place: Tensor
    height: Tensor
    value: Tensor


Support = Callable[[Tensor, Tensor], Least]
"""The least value on a given interval (b, 1, *shape) for a and m (b, s, *shape) each."""


def lower_of(first: Least, second: Least) -> Least:
    """The lower of two least values."""
    below = second.value < first.value
    return Least(*(torch.where(below, two, one) for one, two in zip(first, second, strict=True)))


def at_places(places: Sequence[Tensor], lows: Sequence[Tensor], highs: Sequence[Tensor]) -> Support:
    """Of a function that is linear between places (b, 1, *shape), given the least and the largest value or limit at each."""

    @torch.no_grad()
    def support(a: Tensor, m: Tensor) -> Least:
        positive, found = a >= 0, None
        for place, low, high in zip(places, lows, highs, strict=True):
            height = low.expand_as(a) if low is high else torch.where(positive, low, high)
            one = Least(place.expand_as(a), height, a * height - m * place)
            found = one if found is None else lower_of(found, one)
        assert found is not None
        return found

    return support


def corner_support(f: Function, x: Interval, breaks: Sequence[float]) -> Support:
    """Of a continuous function that is affine between breaks."""
    l, u = x.row_lower, x.row_upper
    places = [l, u, *(torch.minimum(torch.maximum(torch.full_like(l, place), l), u) for place in breaks)]
    heights = [f(place) for place in places]
    return at_places(places, heights, heights)


class Piece(NamedTuple):
    """For every coordinate a stretch from `start` to `end` on which a curve bends one way, if `present`."""

    start: Tensor
    end: Tensor
    present: Tensor


def piece_support(curve: Curve, x: Interval, bowls: Sequence[Piece], domes: Sequence[Piece]) -> Support:
    """Of a curve, given its convex (`bowls`) and its concave pieces (`domes`), as many of both."""
    l, u = x.row_lower, x.row_upper
    ends = at_places([l, u], *[[curve.f(l), curve.f(u)]] * 2)

    @torch.no_grad()
    def support(a: Tensor, m: Tensor) -> Least:
        found, positive = ends(a, m), a >= 0
        for bowl, dome in zip(bowls, domes, strict=True):
            piece = Piece(*(torch.where(positive, one, other) for one, other in zip(bowl, dome, strict=True)))
            one = on_convex(curve, a, m, piece)
            found = lower_of(found, one._replace(value=torch.where(piece.present, one.value, torch.inf)))
        return found

    return support


def on_convex(curve: Curve, a: Tensor, m: Tensor, piece: Piece) -> Least:
    """The least value on a piece on which a f is convex.

    A slope beyond those that f has there is cut off; what is left of m z is least at an end of the piece. So nothing is divided
    by a small a that could matter.
    """
    sign, size, (start, end, _) = torch.where(a >= 0, 1.0, -1.0).to(a.dtype), a.abs(), piece
    low, high = sign * curve.slope(start), sign * curve.slope(end)
    k = torch.minimum(torch.maximum(m / size.clamp(min=torch.finfo(a.dtype).tiny), low), high)
    rest = size * k - m
    if curve.reach is None:
        touches = contact(curve, sign, k, start, end, HALVINGS)
        lowest, place = valley(curve, sign, touches, k, (start, end)), touches.mean(0)
        place = torch.where(k <= low, start, torch.where(k >= high, end, place))
        height = curve.f(place)
    else:
        place = torch.minimum(torch.maximum(-sign * curve.reach(sign * k), start), end)
        height, along = curve.f(place), sign * curve.slope(place)
        turn = along - k
        lowest = sign * height - along * place + torch.minimum(turn * start, turn * end)
    return Least(place, height, size * lowest + torch.minimum(rest * start, rest * end))


def curve_support(curve: Curve, x: Interval, whole: Interval) -> Support:
    """Of a curve on x, where its values lie in `whole`: that decides where a curve repeats and its pieces are not known."""
    start, end = edges_of(curve, x)
    pieces = [Piece(*parts, parts[0] < parts[1]) for parts in zip(start, end, strict=True)]
    sides = [[piece for piece, own in zip(pieces, curve.signs(), strict=True) if own == sign] for sign in (1.0, -1.0)]
    none = Piece(x.row_lower, x.row_lower, torch.zeros_like(x.row_lower, dtype=torch.bool))
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
    l, u, bowl = x.row_lower, x.row_upper, convex.unsqueeze(1)
    return piece_support(curve, x, [Piece(l, u, bowl & (l < u))], [Piece(l, u, ~bowl & (l < u))])
