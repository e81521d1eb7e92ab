"""Operators that are curves: from f, its slope, bends and turns follow interval, lines, free variables and derivative."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import LinearBound, lines
from boundlab.interval import Interval
from boundlab.ops.hull import Curve, Function, Line, Pieces, pieces_of
from boundlab.ops.hull_lines import Hull, best_share, chord_line, hull_of, hulls_of, line_of, symmetric_lines, tangent_line
from boundlab.ops.op import Alpha, Free, Op, elementwise_op
from boundlab.ops.support import Support, branch_support, curve_support

Shares = Mapping[str, Tensor]
Starts = Mapping[str, Callable[..., Tensor]]
SIDES = {"lower": 1.0, "upper": -1.0}
FAR = 1e3
"""How far beyond its last bend a curve's slope is taken for its slope at infinity."""


def midpoint(x: Interval) -> Tensor:
    """The middle of an interval, with a row axis."""
    return x.center.unsqueeze(1)


def between(x: Interval, fraction: Tensor) -> Tensor:
    """The point at `fraction` (b, s, *shape) of the way from lower to upper."""
    point = x.row_lower + fraction * (x.row_upper - x.row_lower)
    return torch.minimum(torch.maximum(point, x.row_lower), x.row_upper)


def share_of(x: Interval, place: Tensor) -> Tensor:
    """How far on the way from lower to upper a place lies; 0 where there is no way."""
    width = x.row_upper - x.row_lower
    return torch.where(width > 0, (place - x.row_lower) / torch.where(width > 0, width, 1.0), 0.0).clamp(0, 1)


# -- the range -----------------------------------------------------------------------------------------------------------

def holds(curve: Curve, x: Interval, place: float) -> Tensor:
    """Whether x holds the place inside, or one that is periods away from it."""
    if curve.period is None:
        return (x.lower < place) & (place < x.upper)
    first, last = ((end - place) / curve.period for end in (x.lower, x.upper))
    return (torch.floor(last) > torch.floor(first)) | (x.width >= curve.period) | ~curve.regular(x)


def range_of(curve: Curve, f: Function, turns: tuple[float, ...], x: Interval) -> Interval:
    """Range of a function that is monotone between `turns`: its ends, and its value at every turn inside."""
    first, second = f(x.lower), f(x.upper)
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    for turn in turns:
        value, inside = f(torch.full_like(x.lower, turn)), holds(curve, x, turn)
        low = torch.where(inside, torch.minimum(low, value), low)
        high = torch.where(inside, torch.maximum(high, value), high)
    return Interval(low, high)


# -- the lines -----------------------------------------------------------------------------------------------------------

Side = Callable[[Tensor | None], Line]


def curve_side(curve: Curve, x: Interval, sign: float, pieces: Pieces | None) -> Side:
    """The line below sign * f at a share of the slopes of its hull; of least area for None."""
    if pieces is not None:
        hull = hull_of(curve, x, pieces, sign)
        return lambda share: line_of(hull, best_share(hull) if share is None else share)
    if sign in curve.signs():
        return lambda share: tangent_line(curve, sign, midpoint(x) if share is None else between(x, share))
    chord = chord_line(curve, x, sign)
    return lambda share: chord


def curve_family(curve: Curve, x: Interval) -> Callable[[Shares], tuple[Line, Line]]:
    """Lines below and above a curve, at the shares of the slopes of its two hulls that are given; else those of least area."""
    pieces = pieces_of(curve, x) if curve.all_bends else None
    if pieces is not None and len(curve.all_bends) == 1 and curve.period is None:
        return both_sides(hulls_of(curve, x, pieces))
    sides = {name: curve_side(curve, x, sign, pieces) for name, sign in SIDES.items()}

    def family(shares: Shares) -> tuple[Line, Line]:
        below, (slope, intercept) = sides["lower"](shares.get("lower")), sides["upper"](shares.get("upper"))
        return between_turns(curve, x, below, (-slope, -intercept))

    return family


def both_sides(hulls: Hull) -> Callable[[Shares], tuple[Line, Line]]:
    """`curve_family` of a curve with one bend, whose two hulls are worked on together."""
    def family(shares: Shares) -> tuple[Line, Line]:
        if len(shares) == len(SIDES):
            share = together([shares[name] for name in SIDES])
        else:
            best = best_share(hulls)
            share = together([shares.get(name, best[place]) for place, name in enumerate(SIDES)]) if shares else best
        slope, intercept = line_of(hulls, share)
        return (slope[0], intercept[0]), (-slope[1], -intercept[1])

    return family


def together(shares: Sequence[Tensor]) -> Tensor:
    """The shares of both sides, with an axis for the side before the batch."""
    return torch.stack(torch.broadcast_tensors(*shares))


def between_turns(curve: Curve, x: Interval, below: Line, above: Line) -> tuple[Line, Line]:
    """The lines themselves; the range where a curve repeats and its pieces inside x are not known."""
    if curve.period is None:
        return below, above
    whole, sure = range_of(curve, curve.f, curve.turns, x), curve.regular(x).unsqueeze(1)
    first, last = ((torch.where(sure, slope, 0.0), torch.where(sure, intercept, end)) for (slope, intercept), end in
                   zip((below, above), (whole.row_lower, whole.row_upper), strict=True))
    return first, last


def curve_lines(curve: Curve, x: Interval, shares: Shares) -> tuple[Line, Line]:
    """`curve_family` for one choice of shares."""
    return curve_family(curve, x)(shares)


def start_of(curve: Curve, x: Interval, name: str) -> Tensor:
    """The share of one side whose line has the least area."""
    if not curve.all_bends:
        return torch.full_like(x.row_lower, 0.5)
    return best_share(hull_of(curve, x, pieces_of(curve, x), SIDES[name]))


def slopes_at(curve: Curve, places: Sequence[float]) -> list[float]:
    """The slope at some places, in double precision."""
    return curve.slope(torch.tensor(places, dtype=torch.float64)).tolist() if places else []


def crosses(curve: Curve) -> bool:
    """Whether two pieces that bend the same way have slopes in common, so that one line may touch both."""
    if curve.period is not None or len(curve.bends) < 2:
        return curve.period is not None and len(curve.bends) > 2
    bends = [float(bend) for bend in curve.bends]
    slopes = slopes_at(curve, [bends[0] - FAR, *bends, bends[-1] + FAR])
    signs = curve.signs()
    margin = 1e-6 * max(abs(slope) for slope in slopes)
    return any(signs[i] == signs[j] and not signs[i] * (slopes[i] - slopes[j + 1]) >= -margin
               for i, j in combinations(range(len(signs)), 2))


def kinked(curve: Curve) -> bool:
    """Whether the slope jumps at a bend."""
    near = 1e-7
    before, after = (slopes_at(curve, [float(bend) + side * near for bend in curve.bends]) for side in (-1, 1))
    return any(not abs(first - second) < 1e-3 * (1 + abs(first)) for first, second in zip(before, after, strict=True))


def curve_op(name: str, curve: Curve | Callable[..., Curve], *, starts: Starts | None = None, **fields: Any) -> Op:
    """An operator that is a curve (`Curve`), or one for each choice of the node's attributes.

    Both sides have the line of least area by default. Free variables `lower` and `upper` are shares between 0 and 1 of the
    slopes that lines of the hull have; there is none on a side where only the chord is possible. `starts` are other
    defaults, functions of the interval. Zhang et al. 2018 (CROWN), Sec. 3.2, for curves with any number of bends.
    """
    fixed = replace(curve, crossing=curve.crossing or crosses(curve)) if isinstance(curve, Curve) else None
    others = starts or {}

    def at(attributes: Mapping[str, Any]) -> Curve:
        return curve(**attributes) if fixed is None else fixed  # type: ignore[operator]

    def interval(x: Interval, **attributes: Any) -> Interval:
        """Both ends, and every turn inside."""
        chosen = at(attributes)
        return range_of(chosen, chosen.f, chosen.turns, x)

    def derivative(x: Interval, **attributes: Any) -> Interval:
        chosen = at(attributes)
        return range_of(chosen, chosen.slope, tuple(map(float, chosen.bends)), x)

    def prepared(x: Interval, **attributes: Any) -> Callable[[Alpha], LinearBound]:
        """`relax` on one interval as a function of its shares."""
        family = curve_family(at(attributes), x)

        def relaxed(alpha: Alpha) -> LinearBound:
            return lines(*family(alpha if alpha is not None else {side: default(x) for side, default in others.items()}))

        return relaxed

    def relax(x: Interval, alpha: Alpha = None, **attributes: Any) -> LinearBound:
        """The line of least area on each side: a tangent, a line from an end that touches, or the chord."""
        if alpha is None and not others and fixed is not None and fixed.touch is not None and fixed.reach is not None:
            return lines(*symmetric_lines(fixed, x))
        return prepared(x, **attributes)(alpha)

    def support(x: Interval, **attributes: Any) -> Support:
        return curve_support(at(attributes), x, interval(x, **attributes))

    def start(side: str) -> Callable[..., Tensor]:
        return others[side] if side in others else lambda x, **attributes: start_of(at(attributes), x, side)

    sides = [side for side, sign in SIDES.items() if fixed is None or sign in fixed.signs()]
    smooth = {} if fixed is None or kinked(fixed) else {"derivative": derivative}
    return elementwise_op(name, lambda x, **attributes: at(attributes).f(x), interval, relax, **{
        "alpha": {side: Free(0.0, 1.0, start(side)) for side in sides}, "breaks": (), "prepared": prepared, "support": support,
        **smooth, **fields})


def branch_op(name: str, f: Function, slope: Function, convex: Callable[[Interval], Tensor],
              interval: Callable[[Interval], Interval], **fields: Any) -> Op:
    """A function with poles: convex on some branches, as `convex` (b, *shape) says of an interval, concave on the others.

    An interval that holds a pole must be infinite. The tangent's place is free: `touch` is a fraction of the way.
    """
    curve = Curve(f, slope)

    def relax(x: Interval, alpha: Alpha = None) -> LinearBound:
        """The tangent on one side and the chord on the other, as the branch bends."""
        bowl = convex(x).unsqueeze(1)
        tangent = tangent_line(curve, 1.0, midpoint(x) if alpha is None else between(x, alpha["touch"]))
        (steep, top), (_, bottom) = chord_line(curve, x, -1.0), chord_line(curve, x, 1.0)
        below = torch.where(bowl, tangent[0], -steep), torch.where(bowl, tangent[1], bottom)
        return lines(below, (torch.where(bowl, -steep, tangent[0]), torch.where(bowl, -top, tangent[1])))

    return elementwise_op(name, f, interval, relax, **{
        "alpha": {"touch": Free(0.0, 1.0, 0.5)}, "breaks": (),
        "support": lambda x: branch_support(curve, x, convex(x)), **fields})
