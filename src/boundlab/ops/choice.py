"""Operators that choose by values: the place of a maximum, entries at places that vary, and writing there.

Places are whole numbers in the network's floating type (others are cut towards zero). Where only values vary, picking is
affine; where places vary, bounds are the hull over all places that are possible, and there is no relaxation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from boundlab.affine import LinearBound, constants, exact
from boundlab.interval import Interval
from boundlab.maps import GatherEach
from boundlab.ops.op import Argument, Op, interval_op, intervals_of, register
from boundlab.ops.shape import shape_of

# -- the place of the largest entry --------------------------------------------------------------------------------------


def argmax_values(x: Tensor, *, dim: int, keepdim: bool = False) -> Tensor:
    """The first place of the largest entry along axis `dim` (without batch)."""
    return x.argmax(dim + 1, keepdim=keepdim).to(x.dtype)


def argmax_interval(x: Interval, *, dim: int, keepdim: bool = False) -> Interval:
    """From the first to the last place whose upper end is above all earlier lower ends and not below any later one."""
    axis, beyond = dim + 1, torch.full_like(x.lower.narrow(dim + 1, 0, 1), -math.inf)
    rest = x.shape[axis] - 1
    earlier = torch.cat([beyond, x.lower.narrow(axis, 0, rest)], axis).cummax(axis).values
    later = torch.cat([x.lower.narrow(axis, 1, rest), beyond], axis).flip(axis).cummax(axis).values.flip(axis)
    possible = (x.upper > earlier) & (x.upper >= later)
    places = torch.arange(x.shape[dim + 1], dtype=x.lower.dtype, device=x.lower.device)
    places = places.reshape(-1, *[1] * (x.lower.dim() - dim - 2))
    first = torch.where(possible, places, math.inf).amin(dim + 1, keepdim=keepdim)
    return Interval(first, torch.where(possible, places, -math.inf).amax(dim + 1, keepdim=keepdim))


argmax = register(interval_op("argmax", argmax_values, argmax_interval,
                              meaning="the first place of the largest entry along an axis"))


# -- entries at places that vary -----------------------------------------------------------------------------------------

def wrapped(index: Tensor, size: int) -> Tensor:
    """Places as whole numbers; negative ones count from the end."""
    places = index.long()
    return torch.where(places < 0, places + size, places)


def pick_values(x: Tensor, index: Tensor, *, dim: int) -> Tensor:
    """The slices of axis `dim` of x (b, *shape) at `index` (b, *places): (b, *shape before, *places, *shape after)."""
    batch, ahead = max(len(x), len(index)), x.movedim(dim + 1, 1)
    places = wrapped(index, ahead.shape[1]).reshape(len(index), -1, *[1] * (ahead.dim() - 2))
    picked = ahead.expand(batch, *ahead.shape[1:]).gather(1, places.expand(batch, places.shape[1], *ahead.shape[2:]))
    return picked.movedim(1, dim + 1).reshape(batch, *x.shape[1:dim + 1], *index.shape[1:], *x.shape[dim + 2:])


def possible_places(index: Interval, size: int) -> Tensor:
    """Which places an index (b, *places) can mean, (b, number of places, size)."""
    places = torch.arange(size, device=index.lower.device)
    low, high = (end.trunc().reshape(len(end), -1, 1) for end in (index.lower, index.upper))
    return ((low <= places) & (places <= high)) | ((low <= places - size) & (places - size <= high))


def pick_interval(x: Argument, index: Argument, *, dim: int) -> Interval:
    """The slices themselves where places are known, else the hull of all possible ones."""
    ends = (x.lower, x.upper) if isinstance(x, Interval) else (x, x)
    if isinstance(index, Tensor):
        return Interval(*(pick_values(end, index, dim=dim) for end in ends))
    size, shape = shape_of(x)[dim], shape_of(x)
    possible = possible_places(index, size)
    out = (-1, *shape[:dim], *shape_of(index), *shape[dim + 1:])

    def hull(end: Tensor, nothing: float) -> Tensor:
        ahead = end.movedim(dim + 1, 1)
        mask = possible.reshape(*possible.shape, *[1] * (ahead.dim() - 2))
        chosen = torch.where(mask, ahead[:, None], nothing)
        found = chosen.amin(2) if nothing > 0 else chosen.amax(2)
        return found.movedim(1, dim + 1).reshape(out)

    return Interval(hull(ends[0], math.inf), hull(ends[1], -math.inf))


def relax_pick(x: Argument, index: Argument, alpha: Mapping[str, Tensor] | None = None, *, dim: int) -> LinearBound:
    """The picking itself where places are known; else the ends of the interval."""
    if isinstance(index, Interval):
        return constants(pick_interval(x, index, dim=dim), intervals_of((x, index)))
    shape = shape_of(x)
    positions = torch.arange(math.prod(shape), device=index.device).reshape(1, *shape)
    picked = pick_values(positions, index, dim=dim)
    return exact(GatherEach(shape, tuple(picked.shape[1:]), picked.flatten(1)))


def affine_pick(perturbed: tuple[bool, ...]) -> bool:
    """Affine in the values, while places are constant."""
    return perturbed[0] and not perturbed[1]


pick = register(Op("pick", pick_values, pick_interval, relax_pick, affine_pick,
                   meaning="slices of one axis at places that each problem has of its own"))


# -- places of a slice, and writing --------------------------------------------------------------------------------------

def places_values(start: Tensor, *, size: int, length: int) -> Tensor:
    """The places that a slice [start, start + length) keeps of an axis of `size`, (b, *shape, length); `size` for none."""
    start = start.trunc()
    first, last = ((end + size * (end < 0)).clamp(0, size) for end in (start, start + length))
    places = first.unsqueeze(-1) + torch.arange(length, device=start.device)
    return torch.where(places < last.unsqueeze(-1), places, float(size))


def places_interval(start: Interval, *, size: int, length: int) -> Interval:
    """Increasing in the start from 0 on; where it may be below 0 and is not known, anything."""
    low, high = (places_values(end, size=size, length=length) for end in (start.lower, start.upper))
    negative = ((start.lower <= -1) & (start.lower.trunc() < start.upper.trunc())).unsqueeze(-1)
    return Interval(torch.where(negative, 0.0, low), torch.where(negative, float(size), high))


places = register(interval_op("places", places_values, places_interval,
                              meaning="the places that a slice of known length keeps, from its start"))


def put_values(x: Tensor, index: Tensor, update: Tensor) -> Tensor:
    """x (b, *shape) with slices written at `index` (b, m, k), places on its first k axes; places beyond an axis write nothing.

    `update` is (b, m, *rest of the shape).
    """
    axes, shape = index.shape[-1], tuple(x.shape[1:])
    batch, cells = max(len(x), len(index), len(update)), math.prod(shape[:axes])
    sizes = torch.tensor(shape[:axes], device=x.device)
    strides = torch.tensor([math.prod(shape[d + 1:axes]) for d in range(axes)], device=x.device)
    index = index.long()
    kept = ((index >= 0) & (index < sizes)).all(-1)
    flat = torch.where(kept, (index * strides).sum(-1), cells)
    room = x.expand(batch, *shape).reshape(batch, cells, -1)
    room = torch.cat([room, torch.zeros_like(room[:, :1])], 1)
    written = update.expand(batch, *update.shape[1:]).reshape(batch, flat.shape[1], -1).to(x.dtype)
    where = flat.expand(batch, -1)[..., None].expand_as(written)
    return room.scatter(1, where, written)[:, :cells].reshape(batch, *shape)


def put_interval(x: Argument, index: Argument, update: Argument) -> Interval:
    """The hull of what was there, unless it is surely overwritten, and of every update that may land there."""
    spots = index if isinstance(index, Interval) else Interval(index, index)
    axes, shape = spots.shape[-1], shape_of(x)
    low, high = spots.lower.trunc(), spots.upper.trunc()
    along = [reached(low[..., axis], high[..., axis], size) for axis, size in enumerate(shape[:axes])]
    sure = (low == high).all(-1)

    def ends(part: Argument, rows: int) -> list[Tensor]:
        both = (part.lower, part.upper) if isinstance(part, Interval) else (part, part)
        return [end.reshape(len(end), rows, -1) for end in both]

    (least, most), new = ends(x, math.prod(shape[:axes])), ends(update, low.shape[1])
    before, after = least, most
    least, most = torch.full_like(least, math.inf), torch.full_like(most, -math.inf)
    overwritten = torch.zeros_like(least[..., 0], dtype=torch.bool)
    for place in range(low.shape[1]):  # one at a time: all at once would hold every pair of an update and a cell
        lands = cells([mask[:, place] for mask in along])
        overwritten = overwritten | (lands & sure[:, place, None])
        down, up = (end[:, place, None] for end in new)
        least = torch.where(lands[..., None], torch.minimum(least, down), least)
        most = torch.where(lands[..., None], torch.maximum(most, up), most)
    kept = ~overwritten[..., None]
    return Interval(torch.where(kept, torch.minimum(least, before), least).reshape(-1, *shape),
                    torch.where(kept, torch.maximum(most, after), most).reshape(-1, *shape))


def reached(low: Tensor, high: Tensor, size: int) -> Tensor:
    """Which places of an axis lie between two ends (b, m), (b, m, size)."""
    places = torch.arange(size, device=low.device)
    return (low[..., None] <= places) & (places <= high[..., None])


def cells(along: Sequence[Tensor]) -> Tensor:
    """The cells of a grid, in rows (b, cells), all of whose places are marked on their axes (b, size)."""
    first, *others = along
    for mask in others:
        first = (first[:, :, None] & mask[:, None]).flatten(1)
    return first


put = register(interval_op("put", put_values, put_interval, meaning="slices written at places that vary"))
