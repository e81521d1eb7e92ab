"""The larger of two values, and the largest along an axis. The smaller is the larger of negatives, made so at capture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import Affine, LinearBound
from boundlab.interval import Interval
from boundlab.maps import LinearMap, Reduce, diagonal
from boundlab.ops.op import Argument, Free, Op, elementwise_op, intervals_of, never, region_of, register
from boundlab.ops.shape import shape_of

Alpha = Mapping[str, Tensor] | None


# -- of two values -------------------------------------------------------------------------------------------------------

def max_interval(x: Argument, y: Argument) -> Interval:
    """The larger of the lower ends and of the upper ends."""
    first, second = region_of(x), region_of(y)
    return Interval(torch.maximum(first.lower, second.lower), torch.maximum(first.upper, second.upper))


def share_of(part: Tensor, width: Tensor) -> Tensor:
    """part / width for 0 <= part <= width; 0 where there is no width."""
    wide = width > 0
    return torch.where(wide, part / torch.where(wide, width, 1.0), 0.0).clamp(0, 1)


def start_max_lower(x: Argument, y: Argument) -> Tensor:
    """Share 1 (the line y >= x) where the middle of x is above that of y, else 0."""
    first, second = region_of(x), region_of(y)
    return (first.center > second.center).to(first.lower.dtype).unsqueeze(1)


def half(x: Argument, y: Argument) -> Tensor:
    """Share 1/2 everywhere."""
    return torch.full_like(intervals_of((x, y))[0].row_lower, 0.5)


Plane = tuple[Tensor, Tensor, Tensor]


def upper_planes(first: Interval, second: Interval) -> tuple[Plane, Plane]:
    """The two planes of the concave hull of max over a box, as slopes and intercept, where neither argument always wins.

    Both pass through (lower, upper) and (upper, lower); one through the two lower ends, the other through the upper ends.
    """
    xl, xu, yl, yu = first.row_lower, first.row_upper, second.row_lower, second.row_upper
    least, most = torch.maximum(xl, yl), torch.maximum(xu, yu)

    def plane(along_x: Tensor, along_y: Tensor, corner: tuple[Tensor, Tensor], value: Tensor) -> Plane:
        return along_x, along_y, value - along_x * corner[0] - along_y * corner[1]

    return (plane(share_of(xu - least, xu - xl), share_of(yu - least, yu - yl), (xl, yl), least),
            plane(share_of(most - yu, xu - xl), share_of(most - xu, yu - yl), (xu, yu), most))


def relax_maximum(x: Argument, y: Argument, alpha: Alpha = None) -> LinearBound:
    """Exact where one argument always wins; else its hull: a share of each argument below, of each plane above."""
    first, second = region_of(x), region_of(y)
    wins, loses = first.row_lower >= second.row_upper, second.row_lower >= first.row_upper
    settled = wins | loses
    shares = alpha or {"lower": start_max_lower(x, y), "upper": half(x, y)}
    one, zero = torch.ones_like(shares["lower"]), torch.zeros_like(shares["lower"])
    along = torch.where(wins, one, torch.where(loses, zero, shares["lower"]))
    low, high = upper_planes(first, second)
    mixed = [shares["upper"] * a + (1 - shares["upper"]) * b for a, b in zip(low, high, strict=True)]
    sure = torch.where(wins, one, zero)
    upper = [torch.where(settled, known, part) for known, part in zip((sure, 1 - sure, zero), mixed, strict=True)]
    return LinearBound(two_sided(x, y, along, 1 - along, None), two_sided(x, y, *upper))


def two_sided(x: Argument, y: Argument, along_x: Tensor, along_y: Tensor, bias: Tensor | None) -> Affine:
    """along_x * x + along_y * y + bias; what belongs to a constant argument joins the bias."""
    maps: list[LinearMap] = []
    for argument, slope in ((x, along_x), (y, along_y)):
        if isinstance(argument, Interval):
            maps.append(diagonal(slope, shape_of(argument)))
        else:
            term = slope * argument.unsqueeze(1)
            bias = term if bias is None else bias + term
    return Affine(tuple(maps), bias)


def either(x: Argument, y: Argument) -> tuple[Affine, Affine]:
    """x, and y."""
    like = intervals_of((x, y))[0].row_lower
    one, zero = torch.ones_like(like), torch.zeros_like(like)
    return two_sided(x, y, one, zero, None), two_sided(x, y, zero, one, None)


maximum = register(Op(
    "maximum", torch.maximum, max_interval, relax_maximum, never, lipschitz=1.0, breaks=(), integers=either,
    alpha={"lower": Free(0.0, 1.0, start_max_lower), "upper": Free(0.0, 1.0, half)}, meaning="the larger of x and y",
))


# -- along an axis -------------------------------------------------------------------------------------------------------

def present(x: Tensor, absent: Tensor | None) -> Tensor:
    """x with minus infinity where entries do not take part."""
    return x if absent is None else x.masked_fill(absent.to(x.device), -math.inf)


def max_values(x: Tensor, *, dim: int, keepdim: bool = False, absent: Tensor | None = None) -> Tensor:
    """The largest entry along axis `dim` (without batch) among those that `absent` (*shape) booleans do not leave out."""
    return present(x, absent).amax(dim + 1, keepdim=keepdim)


def one_hot(index: Tensor, size: int, dim: int, like: Tensor) -> Tensor:
    """1 at `index` (kept axis of size 1) along `dim`, else 0."""
    shape = [*index.shape]
    shape[dim] = size
    return like.new_zeros(shape).scatter(dim, index, 1.0)


def two_largest(value: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The largest and second largest along `dim` with their places, all with that axis of size 1; a lone entry is both."""
    top = value.topk(min(2, value.shape[dim]), dim)
    first, second = top.values.split(1, dim) if value.shape[dim] > 1 else (top.values, top.values)
    here, there = top.indices.split(1, dim) if value.shape[dim] > 1 else (top.indices, top.indices)
    return first, second, here, there


def max_reduction(x: Interval, weight: Tensor, dim: int, keepdim: bool, bias: Tensor | None) -> Affine:
    """A weighted sum along the axis, plus the bias (b, s, *kept)."""
    shape = shape_of(x)
    out = tuple(1 if d == dim else size for d, size in enumerate(shape) if keepdim or d != dim)
    offset = None if bias is None else bias.reshape(*bias.shape[:2], *out)
    return Affine((Reduce(shape, out, weight, (dim,)),), offset)


def kept(share: Tensor, x: Interval, dim: int) -> Tensor:
    """A share for each coordinate of the output, laid beside the input with the axis of size 1."""
    shape = [1 if d == dim else size for d, size in enumerate(shape_of(x))]
    return share.reshape(*share.shape[:2], *shape)


def relax_reduce_max(x: Interval, alpha: Alpha = None, *, dim: int, keepdim: bool = False,
                     absent: Tensor | None = None) -> LinearBound:
    """Below, the entry with the best lower end (its free share; the rest goes to the one with the best upper end of all).

    Above, max(x_j, c) for the entry j with the largest upper end and the largest upper end c of the others: the chord of
    that hinge, which is x_j itself where x_j always wins. Zhang et al. 2018 (CROWN), Sec. 3.2; Singh et al. 2019 (DeepPoly).
    """
    low, high = present(x.row_lower, absent), present(x.row_upper, absent)
    size, axis = x.shape[dim + 1], dim + 2
    best, rival, winner, _ = two_largest(high, axis)
    floor, _, safest, _ = two_largest(low, axis)
    start = torch.gather(low, axis, winner)
    certain = (start >= rival) | torch.tensor(size == 1, device=start.device)
    share = torch.ones_like(floor) if alpha is None else kept(alpha["lower"], x, dim)
    share = torch.where(certain, 0.0, share)
    chosen, leading = one_hot(safest, size, axis, low), one_hot(winner, size, axis, low)
    corner, width = torch.where(certain, start, rival), torch.where(certain, 1.0, best - start)
    slope = torch.where(certain, 1.0, (best - corner) / width)
    bias = torch.where(certain, 0.0, corner - slope * start)
    return LinearBound(max_reduction(x, share * chosen + (1 - share) * leading, dim, keepdim, None),
                       max_reduction(x, slope * leading, dim, keepdim, bias))


def ones_of_output(x: Interval, *, dim: int, keepdim: bool = False, absent: Tensor | None = None) -> Tensor:
    """Share 1 for every coordinate of the output."""
    return torch.ones_like(max_values(x.lower, dim=dim, keepdim=keepdim, absent=absent)).unsqueeze(1)


def reduce_max_interval(x: Interval, **attributes: Any) -> Interval:
    """The largest lower end and the largest upper end."""
    return x.map(lambda value: max_values(value, **attributes))


def entries_along(x: Interval, *, dim: int, keepdim: bool = False, absent: Tensor | None = None) -> tuple[Affine, ...]:
    """Every entry along the axis; one that does not take part is the first that does."""
    size, low = x.shape[dim + 1], x.row_lower
    there = torch.ones_like(low, dtype=torch.bool) if absent is None else ~absent.to(low.device).expand_as(low)
    first = there.to(torch.uint8).argmax(dim + 2, keepdim=True)
    places = (torch.where(there.narrow(dim + 2, place, 1), place, first) for place in range(size))
    return tuple(max_reduction(x, one_hot(place, size, dim + 2, low), dim, keepdim, None) for place in places)


reduce_max = register(elementwise_op(
    "reduce_max", max_values, reduce_max_interval, relax_reduce_max, lipschitz=1.0, breaks=(), integers=entries_along,
    alpha={"lower": Free(0.0, 1.0, ones_of_output)}, meaning="the largest entry along an axis",
))
