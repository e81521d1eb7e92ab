"""A choice between two values by the sign of a third: what `torch.where` with a comparison becomes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from boundlab.affine import Affine, LinearBound, exact
from boundlab.interval import Interval
from boundlab.maps import LinearMap, diagonal
from boundlab.ops.op import Argument, Free, Op, intervals_of, region_of, register
from boundlab.ops.shape import shape_of
from boundlab.ops.steps import Steps, jump, step_line


def truth(at_zero: bool) -> Steps:
    """1 above zero and 0 below; at zero as is said."""
    return jump(0.0, float(at_zero), 1.0)


def select_values(condition: Tensor, x: Tensor, y: Tensor, *, at_zero: bool = False) -> Tensor:
    """x where the condition is above zero (or at it), else y."""
    return torch.where(condition >= 0 if at_zero else condition > 0, x, y)


def select_interval(condition: Argument, x: Argument, y: Argument, *, at_zero: bool = False) -> Interval:
    """That of the chosen value where the condition's sign is settled, else both values'."""
    known, first, second = region_of(condition).map(truth(at_zero).f), region_of(x), region_of(y)
    sure, never, hull = known.lower > 0, known.upper < 1, first.hull(second)
    return Interval(torch.where(sure, first.lower, torch.where(never, second.lower, hull.lower)),
                    torch.where(sure, first.upper, torch.where(never, second.upper, hull.upper)))


def relax_select(condition: Argument, x: Argument, y: Argument, alpha: Mapping[str, Tensor] | None = None, *,
                 at_zero: bool = False) -> LinearBound:
    """y + c (x - y) with c = 1 or 0 by the condition's sign: exact in x and y where that is settled, else McCormick's planes.

    For d = x - y in [d_l, d_u] and c in [0, 1], c d is at least d_l c and d + d_u c - d_u, and at most d_u c and
    d + d_l c - d_l, with c between the lines around a step; free shares mix the two planes of a side. McCormick 1976.
    """
    like = intervals_of((condition, x, y))[0].row_lower
    if isinstance(condition, Tensor):
        holds = truth(at_zero).f(condition.to(like.dtype)).unsqueeze(1)
        parts = combined((condition, x, y), (torch.zeros_like(holds), None), holds)
        return exact(*parts.maps, bias=parts.bias)
    known, first, second = condition.map(truth(at_zero).f), region_of(x), region_of(y)
    open_, surely = known.row_lower < known.row_upper, known.row_lower
    least, most = (first.lower - second.upper).unsqueeze(1), (first.upper - second.lower).unsqueeze(1)
    rising, (slope, bias) = step_line(truth(at_zero), condition, 1.0, None), step_line(truth(at_zero), condition, -1.0, None)
    falling = -slope, -bias

    def side(share: Tensor | None, near: Tensor, far: Tensor, sign: float) -> Affine:
        part = torch.ones_like(like) if share is None else share
        factor = torch.where(open_, far + part * (near - far), 0.0)
        along, offset = (torch.where(sign * factor >= 0, factor * up, factor * down)
                         for up, down in zip(rising, falling, strict=True))
        gate = torch.where(open_, 1 - part, surely)
        return combined((condition, x, y), (along, offset - torch.where(open_, (1 - part) * far, 0.0)), gate)

    shares = alpha or {}
    return LinearBound(side(shares.get("lower"), least, most, 1.0), side(shares.get("upper"), most, least, -1.0))


def combined(arguments: tuple[Argument, Argument, Argument], line: tuple[Tensor, Tensor | None], gate: Tensor) -> Affine:
    """The line in the condition, gate * x and (1 - gate) * y; what belongs to a constant argument joins the bias."""
    maps: list[LinearMap] = []
    along, bias = line
    for argument, slope in zip(arguments, (along, gate, 1 - gate), strict=True):
        if isinstance(argument, Interval):
            maps.append(diagonal(slope, shape_of(argument)))
        else:
            term = slope * argument.unsqueeze(1)
            bias = term if bias is None else bias + term
    return Affine(tuple(maps), bias)


def settled(perturbed: tuple[bool, ...]) -> bool:
    """Affine while the condition is constant."""
    return not perturbed[0]


def all_ones(condition: Argument, x: Argument, y: Argument, *, at_zero: bool = False) -> Tensor:
    """Share 1 everywhere: the first plane alone."""
    return torch.ones_like(intervals_of((condition, x, y))[0].row_lower)


select = register(Op(
    "select", select_values, select_interval, relax_select, settled, breaks=(),
    alpha={"lower": Free(0.0, 1.0, all_ones), "upper": Free(0.0, 1.0, all_ones)},
))
