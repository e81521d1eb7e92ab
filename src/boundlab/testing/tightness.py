"""How tight the relaxation of a function of one number is: the mean gap between its two lines, and the least there could be.

The mean over an interval of what lies between two lines is their distance in its middle. No line below a function is higher
there than its convex hull, and no line above is lower than its concave hull; both are found on samples, without the rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import Affine, LinearBound
from boundlab.interval import Interval
from boundlab.ops import Op
from boundlab.testing.cases import Case, Vary, cases_of

SAMPLES = 1601
HALVINGS = 60
WIDTHS = (0.02, 20.0)
"""Widths of sampled intervals, from the least to the largest."""
REACH = 8.0
"""Where the domain has no end, intervals have their middle within this distance of zero."""


@dataclass(frozen=True)
class Gaps:
    """Distances between the two lines in the middle of intervals (n,): those of the relaxation, and the least possible ones."""

    x: Interval
    found: Tensor
    least: Tensor


def single_cases(op: Op) -> list[Case]:
    """The example calls with one perturbed argument, each coordinate for itself."""
    return [case for case in cases_of(op.name) if len(case.arguments) == 1 and isinstance(case.arguments[0], Vary)]


def sampled_boxes(vary: Vary, count: int, seed: int = 0) -> Interval:
    """Intervals (1, count) of widths from narrow to wide, inside the domain."""
    generator = torch.Generator().manual_seed(seed)
    low, high = (end if math.isfinite(end) else side * REACH for end, side in ((vary.low, -1.0), (vary.high, 1.0)))
    low, high = (low, high) if low < high else (low, low + REACH)
    middle, way = (torch.rand(1, count, generator=generator, dtype=torch.float64) for _ in range(2))
    center, width = low + middle * (high - low), WIDTHS[0] * (WIDTHS[1] / WIDTHS[0]) ** way
    lower = (center - width / 2).clamp(min=vary.low)
    upper = (center + width / 2).clamp(max=vary.high)
    return Interval(lower, torch.maximum(upper, lower + 0.01 * WIDTHS[0]))


def middle_of(affine: Affine, x: Interval) -> Tensor:
    """The value of a line (1, 1, n) in the middle of each interval, (n,)."""
    value = affine.maps[0].push(x.center.unsqueeze(1))
    return (value if affine.bias is None else value + affine.bias)[0, 0]


def gap(bound: LinearBound, x: Interval) -> Tensor:
    """The mean distance of the two lines over each interval, (n,)."""
    return middle_of(bound.upper, x) - middle_of(bound.lower, x)


def samples_of(op: Op, x: Interval, attributes: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Points of each interval (n, points) and the function's values there; close to breaks and whole numbers, too."""
    low, high = x.lower[0, :, None], x.upper[0, :, None]
    steps = torch.lerp(low, high, torch.linspace(0, 1, SAMPLES, dtype=torch.float64))
    near = 1e-9
    places = [float(place) for place in op.breaks_of(attributes) or ()] + [half / 2 for half in range(-40, 41)]
    extra = torch.tensor([place + side for place in places for side in (-near, 0.0, near)], dtype=torch.float64)
    points = torch.cat([steps, torch.minimum(torch.maximum(extra.expand(len(low), -1), low), high)], 1).sort(1).values
    return points, op.evaluate(points, **attributes)


def hull_in_the_middle(points: Tensor, values: Tensor, middle: Tensor) -> Tensor:
    """The convex hull of samples (n, points) at one place (n,): the largest over k of min(y + k (middle - x)), by bisection."""
    reach = (values.amax(1) - values.amin(1)).clamp(min=1e-300) / (points[:, -1] - points[:, 0]) * 1e7
    low, high = -reach, reach
    best = torch.full_like(reach, -math.inf)
    for _ in range(HALVINGS):
        slope = (low + high) / 2
        least, place = (values + slope[:, None] * (middle[:, None] - points)).min(1)
        best = torch.maximum(best, least)
        left = points.gather(1, place[:, None])[:, 0] < middle
        low, high = torch.where(left, slope, low), torch.where(left, high, slope)
    return best


def gaps_of(op: Op, case: Case, count: int = 200, seed: int = 0) -> Gaps:
    """Gaps of an operator of one number, called as `case` says, on `count` sampled intervals."""
    vary = case.arguments[0]
    assert isinstance(vary, Vary)
    x = sampled_boxes(vary, count, seed)
    points, values = samples_of(op, x, case.attributes)
    below, above = (hull_in_the_middle(points, sign * values, x.center[0]) for sign in (1.0, -1.0))
    return Gaps(x, gap(op.lines(x, **case.attributes), x), -above - below)
