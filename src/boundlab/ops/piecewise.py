"""ReLU and its kin: affine between a few breaks.

Hinges (relu, leaky_relu, prelu, abs) have one break at zero; clip has one at each of its ends.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from boundlab.affine import LinearBound, Number, above_ends, below_ends, lines, where3
from boundlab.errors import MissingRule
from boundlab.interval import Interval
from boundlab.ops.op import Alpha, Argument, Free, Op, elementwise_op, monotone, never, register
from boundlab.ops.support import corner_support


def steeper_side(x: Interval) -> Tensor:
    """The lower slope with the smaller area: 1 where the interval reaches farther up than down, else 0."""
    return (x.row_upper + x.row_lower).detach().sign().clamp_(min=0)


class ShareAbove(torch.autograd.Function):
    """The share of an interval that lies above zero, u / (u - l) cut off to [0, 1]; 0 for the interval [0, 0].

    Written with clamps, since they are many times faster than `where`; the gradient is exactly zero where no zero is inside.
    """

    @staticmethod
    def forward(ctx: Any, lower: Tensor, upper: Tensor) -> Tensor:
        ctx.save_for_backward(lower, upper)
        above, below = upper.clamp(min=0), lower.clamp(max=0)
        kind = torch.finfo(above.dtype)
        return above.div_(torch.sub(above, below, out=below).clamp_(min=kind.tiny * kind.eps))  # the least number above zero

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = ctx.saved_tensors
        above, below = upper.clamp(min=0), lower.clamp(max=0)
        width = (above - below).clamp_(min=torch.finfo(above.dtype).tiny)
        change = (gradient / width).mul_(above.sign()).mul_(below.sign())  # minus the quotient where zero lies inside
        return change * above.div_(-width), change.mul_(below.div_(width))


def share_above(x: Interval) -> tuple[Tensor, Tensor]:
    """Slope and intercept of the chord of relu, its line through both ends; quotients of size at most 1 cannot overflow."""
    share = ShareAbove.apply(x.row_lower, x.row_upper)
    return share, share * -x.row_lower.clamp(max=0)


def hinge_chord(x: Interval, left: Number, right: Number) -> tuple[Tensor, Tensor]:
    """Slope and intercept of the chord of `left * x` before zero and `right * x` after it; the side itself if there is one."""
    share, offset = share_above(x)
    start, end = (torch.as_tensor(side, dtype=share.dtype, device=share.device) for side in (left, right))
    return torch.lerp(start, end, share), (right - left) * offset


def one_sided(x: Interval, left: Number, right: Number, slope: Tensor) -> Tensor:
    """A line through the kink with `slope` where zero lies inside, else the slope of the side."""
    return where3(x.row_upper <= 0, left, x.row_lower >= 0, right, slope)


def relax_hinge(x: Interval, left: float, right: float, slope: Tensor) -> LinearBound:
    """Triangle relaxation of a hinge: the chord on one side, on the other a line through the kink with a free slope.

    Zhang et al. 2018 (CROWN), Sec. 3.2; Xu et al. 2021 (alpha-CROWN).
    """
    chord, kink = hinge_chord(x, left, right), (one_sided(x, left, right, slope), None)
    return lines(kink, chord) if right >= left else lines(chord, kink)


def relax_relu(x: Interval, alpha: Alpha = None) -> LinearBound:
    """Triangle relaxation; the lower slope is free in [0, 1]."""
    slope = steeper_side(x) if alpha is None else one_sided(x, 0.0, 1.0, alpha["slope"])
    return lines((slope, None), share_above(x))


relu = register(elementwise_op(
    "relu", evaluate=torch.relu, interval=monotone(torch.relu), relax=relax_relu,
    alpha={"slope": Free(0.0, 1.0, steeper_side)},
    derivative=lambda x: Interval((x.lower > 0).to(x.lower), (x.upper > 0).to(x.upper)),
    support=lambda x: corner_support(torch.relu, x, (0.0,)),
    breaks=(0.0,), piecewise=True, meaning="max(x, 0)", sources=("aten.relu.default", "onnx:Relu"),
))


# -- leaky_relu and prelu ------------------------------------------------------------------------------------------------

def leak(x: Tensor, slope: Number) -> Tensor:
    """x after zero, slope * x before it."""
    return torch.where(x >= 0, x, slope * x)


def hinge_interval(x: Interval, slope: Number) -> Interval:
    """Both ends, and zero where it lies inside and the slope is negative."""
    first, second = leak(x.lower, slope), leak(x.upper, slope)
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    crossing = (x.lower < 0) & (x.upper > 0)
    return Interval(torch.where(crossing, low.clamp(max=0), low), high)


def hinge_slopes(x: Interval, left: Number) -> Interval:
    """The slope of each side that x reaches; at zero both count, whichever a framework takes there."""
    slope = torch.as_tensor(left, dtype=x.lower.dtype, device=x.lower.device)
    before, after = torch.where(x.lower <= 0, slope, 1.0), torch.where(x.upper >= 0, 1.0, slope)
    return Interval(torch.minimum(before, after), torch.maximum(before, after))


def start_hinge(x: Interval, left: Number) -> Tensor:
    """Slope 1 or `left`, whichever line has the smaller area."""
    side = steeper_side(x)
    return side + (1 - side) * left


def relax_leaky_relu(x: Interval, alpha: Alpha = None, negative_slope: float = 0.01) -> LinearBound:
    """Triangle relaxation; the line through the kink has a free slope between `negative_slope` and 1."""
    slope = start_hinge(x, negative_slope) if alpha is None else alpha["slope"]
    return relax_hinge(x, negative_slope, 1.0, slope)


def filled(x: Interval, value: float) -> Tensor:
    """One number for every coordinate, (b, 1, *shape)."""
    return torch.full_like(x.row_lower, value)


leaky_relu = register(elementwise_op(
    "leaky_relu", lambda x, negative_slope=0.01: F.leaky_relu(x, negative_slope),
    lambda x, negative_slope=0.01: hinge_interval(x, negative_slope), relax_leaky_relu,
    alpha={"slope": Free(lambda x, negative_slope=0.01: filled(x, min(negative_slope, 1.0)),
                         lambda x, negative_slope=0.01: filled(x, max(negative_slope, 1.0)),
                         lambda x, negative_slope=0.01: start_hinge(x, negative_slope))},
    derivative=lambda x, negative_slope=0.01: hinge_slopes(x, negative_slope),
    support=lambda x, negative_slope=0.01: corner_support(lambda value: leak(value, negative_slope), x, (0.0,)),
    breaks=(0.0,), piecewise=True, meaning="x above 0, a fixed multiple below",
    sources=("aten.leaky_relu.default",),
))


def constant_slope_of(weight: Argument) -> Tensor:
    """The slope before zero, (b or 1, *shape); MissingRule if it is perturbed."""
    if isinstance(weight, Interval):
        raise MissingRule("the slope of 'prelu' is perturbed, and 'prelu' has no rule for that; write it as relu(x) - "
                          "weight * relu(-x).")
    return weight


def row_slope(x: Interval, weight: Argument) -> Tensor:
    """The slope before zero for every coordinate, with a row axis."""
    return constant_slope_of(weight).unsqueeze(1).expand(*[-1] * 2, *x.shape[1:])


def relax_prelu(x: Interval, weight: Argument, alpha: Alpha = None) -> LinearBound:
    """As leaky_relu, with a slope of its own for every coordinate."""
    left = row_slope(x, weight)
    slope, offset = hinge_chord(x, left, 1.0)
    kink = one_sided(x, left, 1.0, start_hinge(x, left) if alpha is None else alpha["slope"])
    convex = left <= 1
    zero = torch.zeros_like(offset)
    return lines((torch.where(convex, kink, slope), torch.where(convex, zero, offset)),
                 (torch.where(convex, slope, kink), torch.where(convex, offset, zero)))


prelu = register(Op(
    "prelu", leak, lambda x, weight: hinge_interval(x, constant_slope_of(weight)), relax_prelu, never,
    alpha={"slope": Free(lambda x, weight: row_slope(x, weight).clamp(max=1),
                         lambda x, weight: row_slope(x, weight).clamp(min=1),
                         lambda x, weight: start_hinge(x, row_slope(x, weight)))},
    derivative=lambda x, weight: hinge_slopes(x, constant_slope_of(weight)),
    support=lambda x, weight: corner_support(lambda value: leak(value, row_slope(x, weight)), x, (0.0,)),
    breaks=(0.0,), piecewise=True,
))


# -- abs -----------------------------------------------------------------------------------------------------------------

def start_abs(x: Interval) -> Tensor:
    """Slope 1 or -1, whichever has the smaller area."""
    return 2 * steeper_side(x) - 1


def abs_interval(x: Interval) -> Interval:
    """The larger size of the two ends, the smaller one, or zero where it lies inside."""
    low = torch.maximum(x.lower, -x.upper).clamp(min=0)
    return Interval(low, torch.maximum(-x.lower, x.upper))


def relax_abs(x: Interval, alpha: Alpha = None) -> LinearBound:
    """Chord above; below a line through zero with a free slope in [-1, 1]."""
    return relax_hinge(x, -1.0, 1.0, start_abs(x) if alpha is None else alpha["slope"])


abs_ = register(elementwise_op(
    "abs", torch.abs, abs_interval, relax_abs, alpha={"slope": Free(-1.0, 1.0, start_abs)},
    derivative=lambda x: hinge_slopes(x, -1.0), support=lambda x: corner_support(torch.abs, x, (0.0,)),
    breaks=(0.0,), piecewise=True, meaning="size of x", sources=("aten.abs.default", "onnx:Abs"),
))


# -- clip ----------------------------------------------------------------------------------------------------------------

def clip_values(x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """x cut off below `min` and above `max`; None cuts nothing."""
    return x if min is None and max is None else torch.clamp(x, min, max)


def rise(x: Interval, place: float, toward: Tensor, min: float | None, max: float | None) -> Tensor:
    """Slope of the line from the break (place, place) to f at the end `toward` of the interval; 0 where they coincide."""
    run = toward - place
    apart = run != 0
    slope = (clip_values(toward, min, max) - place) / torch.where(apart, run, 1.0)
    return torch.where(apart, slope, 0.0).clamp(0, 1)


def steepest_lower(x: Interval, min: float | None = None, max: float | None = None) -> Tensor:
    """The largest slope of a line through (min, min) that stays below f: it meets f at the upper end."""
    if min is None:
        return torch.zeros_like(x.row_lower)
    return torch.where(x.row_upper > min, rise(x, min, x.row_upper, min, max), 0.0)


def steepest_upper(x: Interval, min: float | None = None, max: float | None = None) -> Tensor:
    """The largest slope of a line through (max, max) that stays above f: it meets f at the lower end."""
    if max is None:
        return torch.zeros_like(x.row_lower)
    return torch.where(x.row_lower < max, rise(x, max, x.row_lower, min, max), 0.0)


def start_clip_lower(x: Interval, min: float | None = None, max: float | None = None) -> Tensor:
    """The steepest line where the middle lies above `min`, else the flat one: the smaller area."""
    steepest = steepest_lower(x, min, max)
    return steepest if min is None else torch.where(x.center.unsqueeze(1) > min, steepest, 0.0)


def start_clip_upper(x: Interval, min: float | None = None, max: float | None = None) -> Tensor:
    """The steepest line where the middle lies below `max`, else the flat one."""
    steepest = steepest_upper(x, min, max)
    return steepest if max is None else torch.where(x.center.unsqueeze(1) < max, steepest, 0.0)


def clip_chord(x: Interval, min: float | None, max: float | None) -> Tensor:
    """Slope of the line through f's ends, 1 where nothing is cut off; with its intercept from the ends any slope is sound."""
    l, u = x.row_lower, x.row_upper
    low, high = clip_values(l, min, max), clip_values(u, min, max)
    wide = u > l
    slope = ((high - low) / torch.where(wide, u - l, 1.0)).clamp(0, 1)
    return where3((low == l) & (high == u), 1.0, wide, slope, torch.zeros_like(l))


def relax_clip(x: Interval, alpha: Alpha = None, min: float | None = None, max: float | None = None) -> LinearBound:
    """The two hull lines on each side: through a break that lies inside with a free slope, else the chord."""
    given = alpha or {"lower": start_clip_lower(x, min, max), "upper": start_clip_upper(x, min, max)}
    chord = clip_chord(x, min, max)
    below = chord, below_ends(lambda value: clip_values(value, min, max), chord, x)
    above = chord, above_ends(lambda value: clip_values(value, min, max), chord, x)
    if min is not None:
        inside, slope = (x.row_lower < min) & (x.row_upper > min), given["lower"]
        below = torch.where(inside, slope, below[0]), torch.where(inside, min - slope * min, below[1])
    if max is not None:
        inside, slope = (x.row_lower < max) & (x.row_upper > max), given["upper"]
        above = torch.where(inside, slope, above[0]), torch.where(inside, max - slope * max, above[1])
    return lines(below, above)


def clip_slopes(x: Interval, min: float | None = None, max: float | None = None) -> Interval:
    """1 where nothing is cut off, 0 where all is; at the ends themselves either."""
    low, high = -math.inf if min is None else min, math.inf if max is None else max
    whole, none = (low < x.lower) & (x.upper < high), (x.upper < low) | (high < x.lower)
    return Interval(whole.to(x.lower), (~none).to(x.lower))


def clip_breaks(min: float | None = None, max: float | None = None) -> tuple[float, ...]:
    """The ends that cut something off."""
    return tuple(place for place in (min, max) if place is not None)


clip = register(elementwise_op(
    "clip", clip_values, lambda x, **ends: x.map(lambda value: clip_values(value, **ends)), relax_clip,
    alpha={"lower": Free(0.0, steepest_lower, start_clip_lower), "upper": Free(0.0, steepest_upper, start_clip_upper)},
    derivative=clip_slopes,
    support=lambda x, **ends: corner_support(lambda value: clip_values(value, **ends), x, clip_breaks(**ends)),
    breaks=clip_breaks, piecewise=True,
))
