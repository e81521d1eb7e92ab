"""Functions that jump: sign, heaviside, floor, round, trunc, hard shrink, threshold; and soft shrink, which has two kinks.

Between its breaks such a function is linear, so its hulls on an interval are those of finitely many points: its values at the
ends and the lowest (or highest) of its values and limits at breaks. A line with any slope is sound with the least intercept
that these points allow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from boundlab.affine import LinearBound, lines
from boundlab.interval import Interval
from boundlab.ops.hull import Function, Line
from boundlab.ops.op import Alpha, Free, Op, elementwise_op, register
from boundlab.ops.support import Support, at_places

Cells = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Steps:
    """A function that is linear between breaks: its values, its limits from the left and from the right, and its slope.

    `breaks(x)` gives, for intervals (b, 1, *shape), the places (strictly inside or not) at which corners of its hulls may be:
    of a regular staircase the first break and the last.
    """

    f: Function
    left: Function
    right: Function
    slope: Function
    breaks: Callable[[Tensor, Tensor], list[Tensor]]


def corners(steps: Steps, x: Interval, sign: float) -> tuple[Tensor, Tensor, Tensor]:
    """Places and values (corners, b, 1, *shape) of the corners of the hull below sign * f; and where no break is inside."""
    l, u = x.row_lower, x.row_upper
    apart = l < u
    start, end = steps.f(l), steps.f(u)
    after, before = torch.where(apart, steps.right(l), start), torch.where(apart, steps.left(u), end)
    settled = (after == start) & (before == end)
    places, values = [l, u], [torch.minimum(sign * start, sign * after), torch.minimum(sign * end, sign * before)]
    for place in steps.breaks(l, u):
        inside = (l < place) & (place < u)
        at = torch.where(inside, place, l)
        lowest = torch.stack([sign * steps.f(at), sign * steps.left(at), sign * steps.right(at)]).amin(0)
        places.append(at)
        values.append(torch.where(inside, lowest, values[0]))
        settled = settled & ~inside
    return torch.stack(places), torch.stack(values), settled


def slopes_of(places: Tensor, values: Tensor, middle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes of the hull below some points: its first, that of its line at `middle`, and its last, (b, 1, *shape) each.

    Points that nearly coincide count as one: the line through them is so steep that rounding of its intercept is as high as
    the jump between them.
    """
    run, size = places.unsqueeze(0) - places.unsqueeze(1), places.abs()
    apart = run > torch.finfo(run.dtype).eps ** 0.5 * (size.unsqueeze(0) + size.unsqueeze(1))
    slope = torch.where(apart, (values.unsqueeze(0) - values.unsqueeze(1)) / torch.where(apart, run, 1.0), 0.0)
    ceiling = torch.finfo(run.dtype).max ** 0.5
    slope = slope.clamp(-ceiling, ceiling)
    height = values.unsqueeze(1) + slope * (middle - places.unsqueeze(1))
    spans = apart & (places.unsqueeze(1) <= middle) & (middle <= places.unsqueeze(0))
    lowest = torch.where(spans, height, torch.inf).flatten(0, 1).argmin(0, keepdim=True)
    best = slope.flatten(0, 1).gather(0, lowest).squeeze(0)
    first = torch.where(apart[0], slope[0], torch.inf).amin(0)
    last = torch.where(apart[:, 1], slope[:, 1], -torch.inf).amax(0)
    return torch.minimum(first, best), best, torch.maximum(last, best)


def step_line(steps: Steps, x: Interval, sign: float, share: Tensor | None) -> Line:
    """The line of least area below sign * f; with a share, one from the hull's first slope (0) by that (1/2) to its last."""
    places, values, settled = corners(steps, x, sign)
    middle = x.center.unsqueeze(1)
    first, best, last = slopes_of(places, values, middle)
    if share is not None:
        best = best + (2 * share - 1).clamp(min=0) * (last - best) + (1 - 2 * share).clamp(min=0) * (first - best)
    slope = torch.where(settled, sign * steps.slope(middle), best)
    return slope, (values - slope * places).amin(0)


def step_op(name: str, steps: Callable[..., Steps], **fields: Any) -> Op:
    """An operator that is linear between breaks, for each choice of its attributes.

    Free variables `lower` and `upper` choose a slope between those of the first and the last line of a hull.
    """

    def interval(x: Interval, **attributes: Any) -> Interval:
        """Both ends, and every corner inside."""
        low, high = (corners(steps(**attributes), x, sign)[1].amin(0).squeeze(1) for sign in (1.0, -1.0))
        return Interval(low, -high)

    def relax(x: Interval, alpha: Alpha = None, **attributes: Any) -> LinearBound:
        """The function itself where no break lies inside, else the line of least area on each side."""
        shares, own = alpha or {}, steps(**attributes)
        below, (slope, intercept) = step_line(own, x, 1.0, shares.get("lower")), step_line(own, x, -1.0, shares.get("upper"))
        return lines(below, (-slope, -intercept))

    def support(x: Interval, **attributes: Any) -> Support:
        (places, lows, _), (_, highs, _) = (corners(steps(**attributes), x, sign) for sign in (1.0, -1.0))
        return at_places(places.unbind(0), lows.unbind(0), (-highs).unbind(0))

    return elementwise_op(name, lambda x, **attributes: steps(**attributes).f(x), interval, relax, **{
        "support": support, "alpha": {side: Free(0.0, 1.0, 0.5) for side in ("lower", "upper")}, **fields})


def flat(x: Tensor) -> Tensor:
    """Slope zero."""
    return torch.zeros_like(x)


def soft(x: Tensor) -> Tensor:
    """x / (|x| + s), with s the mean size of a problem's entries: it rises everywhere, most around zero."""
    scale = x.detach().abs().flatten(1).mean(1).clamp(min=torch.finfo(x.dtype).tiny).reshape(-1, *[1] * (x.dim() - 1))
    return x / (x.abs() + scale)


def same(x: Tensor) -> Tensor:
    """x itself: what a staircase rises by on average."""
    return x.clone()


def fixed(*places: float) -> Callable[[Tensor, Tensor], list[Tensor]]:
    """Breaks at known places."""
    return lambda l, u: [torch.full_like(l, place) for place in places]


# -- one jump ------------------------------------------------------------------------------------------------------------

def jump(low: float, at: float, high: float) -> Steps:
    """`low` below zero, `at` there, `high` above."""

    def choose(negative: Tensor, positive: Tensor) -> Tensor:
        return torch.where(positive, high, torch.where(negative, low, at))

    def between(x: Tensor, negative: Tensor, positive: Tensor) -> Tensor:
        return choose(negative, positive).to(x.dtype)

    return Steps(lambda x: between(x, x < 0, x > 0), lambda x: between(x, x <= 0, x > 0),
                 lambda x: between(x, x < 0, x >= 0), flat, fixed(0.0))


sign = register(step_op("sign", lambda: jump(-1.0, 0.0, 1.0), breaks=(0.0,), piecewise=True, guide=soft, meaning="-1, 0 or 1",
                        sources=("aten.sign.default", "aten.sgn.default", "onnx:Sign")))
heaviside = register(step_op("heaviside", lambda *, at_zero=0.0: jump(0.0, at_zero, 1.0), breaks=(0.0,), piecewise=True,
                             guide=lambda x, *, at_zero=0.0: soft(x) / 2,
                             meaning="0 below zero, 1 above: comparisons, the slope of ReLU"))


def threshold_steps(*, threshold: float, value: float) -> Steps:
    """x above a threshold, a fixed value up to it."""
    return Steps(lambda x: torch.where(x > threshold, x, value), lambda x: torch.where(x > threshold, x, value),
                 lambda x: torch.where(x >= threshold, x, value), lambda x: (x > threshold).to(x.dtype), fixed(threshold))


threshold = register(step_op("threshold", threshold_steps, breaks=lambda *, threshold, value: (threshold,), piecewise=True,
                             meaning="x above a threshold, else a fixed value", sources=("aten.threshold.default",)))


# -- shrinking -----------------------------------------------------------------------------------------------------------

def hard_shrink_steps(*, lambd: float = 0.5) -> Steps:
    """x where |x| > lambd, else 0."""

    def zero(x: Tensor, inside: Tensor) -> Tensor:
        return torch.where(inside, 0.0, x)

    return Steps(lambda x: zero(x, (x >= -lambd) & (x <= lambd)), lambda x: zero(x, (x > -lambd) & (x <= lambd)),
                 lambda x: zero(x, (x >= -lambd) & (x < lambd)), lambda x: (x.abs() > lambd).to(x.dtype), fixed(-lambd, lambd))


def soft_shrink_steps(*, lambd: float = 0.5) -> Steps:
    """x moved towards 0 by lambd, at most to 0."""

    def f(x: Tensor) -> Tensor:
        return F.softshrink(x, lambd)

    return Steps(f, f, f, lambda x: (x.abs() > lambd).to(x.dtype), fixed(-lambd, lambd))


hard_shrink = register(step_op("hard_shrink", hard_shrink_steps, breaks=lambda *, lambd=0.5: (-lambd, lambd), piecewise=True,
                               meaning="x where abs(x) > lambd, else 0", sources=("aten.hardshrink.default",)))
soft_shrink = register(step_op("soft_shrink", soft_shrink_steps, breaks=lambda *, lambd=0.5: (-lambd, lambd), piecewise=True,
                               meaning="x moved by lambd towards 0", sources=("aten.softshrink.default",)))


# -- staircases ----------------------------------------------------------------------------------------------------------

def floor_steps() -> Steps:
    """The largest whole number up to x."""
    return Steps(torch.floor, lambda x: torch.ceil(x) - 1, torch.floor, flat,
                 lambda l, u: [torch.floor(l) + 1, torch.ceil(u) - 1])


def round_steps() -> Steps:
    """The nearest whole number; of two, the even one."""
    return Steps(torch.round, lambda x: torch.ceil(x - 0.5), lambda x: torch.floor(x + 0.5), flat,
                 lambda l, u: [torch.floor(l + 0.5) + 0.5, torch.ceil(u - 0.5) - 0.5])


def trunc_steps() -> Steps:
    """x without what comes after the point: one step is twice as long as the others, from -1 to 1."""
    return Steps(torch.trunc, lambda x: torch.where(x > 0, torch.ceil(x) - 1, torch.ceil(x)),
                 lambda x: torch.where(x < 0, torch.floor(x) + 1, torch.floor(x)), flat,
                 lambda l, u: [torch.floor(l) + 1, torch.ceil(u) - 1, torch.full_like(l, -1.0), torch.full_like(l, 1.0)])


floor = register(step_op("floor", floor_steps, breaks=(), guide=same, meaning="largest whole number up to x",
                         sources=("aten.floor.default", "onnx:Floor")))
round_ = register(step_op("round", round_steps, breaks=(), guide=same, meaning="nearest whole number, of two the even one",
                          sources=("aten.round.default", "onnx:Round")))
trunc = register(step_op("trunc", trunc_steps, breaks=(), guide=same, meaning="x without its fraction",
                         sources=("aten.trunc.default", "aten.fix.default")))
