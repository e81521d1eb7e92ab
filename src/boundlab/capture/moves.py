"""Rearrangements as structured operators: from where each entry of a result comes from to reshape, slice, pad or gather.

Torch's and ONNX's operators that move, repeat, pick or drop entries are many, and each is run once on the numbers of the
entries instead of their values. What comes out says what the operator does, whatever its name and options are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from boundlab.capture.builder import Builder

ZERO = -1
"""The position of an entry that is zero and comes from nowhere."""


def picked(build: Builder, x: int, positions: Tensor) -> int:
    """The entries of node `x` at flat `positions` (*out, whole numbers, -1 for zeros), by the most structured operator."""
    shape, out = build.shape(x), tuple(positions.shape)
    if positions.numel() == math.prod(shape) and torch.equal(positions.flatten(), torch.arange(positions.numel())):
        return x if out == shape else build.add("reshape", x, shape=out)
    if bool((positions < 0).any()):
        return with_zeros(build, x, positions)
    slices = block(shape, positions)
    if slices is None:
        return build.add("gather", x, index=positions.flatten(), shape=out)
    cut = build.add("slice", x, slices=slices)
    return cut if build.shape(cut) == out else build.add("reshape", cut, shape=out)


def with_zeros(build: Builder, x: int, positions: Tensor) -> int:
    """`picked` where some entries are zeros: a block in a padding, or entries times a mask."""
    present = positions >= 0
    places = present.nonzero()
    if len(places) == 0:
        return build.constant(torch.zeros(positions.shape, dtype=build.dtype))
    low, high = places.amin(0).tolist(), (places.amax(0) + 1).tolist()
    inside = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
    if bool(present[inside].all()):
        return build.add("pad", picked(build, x, positions[inside]), before=tuple(low), shape=tuple(positions.shape))
    if x not in build.varying:  # which may hold infinity, as attention masks do
        whole = side_by_side(build, [x, build.constant(torch.zeros(1, dtype=build.kinds[x]))])
        return picked(build, whole, torch.where(present, positions, math.prod(build.shape(x))))
    mask = build.constant(present.to(build.dtype))
    return build.broadcast("mul", picked(build, x, positions.clamp(min=0)), mask)


def block(shape: Sequence[int], positions: Tensor) -> tuple[slice, ...] | None:
    """The slices of a tensor of `shape` that give flat `positions` in this order, or None if there are none."""
    slices = []
    for places in torch.unravel_index(positions.flatten(), tuple(shape)) if shape else ():
        used = places.unique()
        step = int(used[1] - used[0]) if len(used) > 1 else 1
        slices.append(slice(int(used[0]), int(used[-1]) + 1, step))
    same = torch.arange(math.prod(shape)).reshape(tuple(shape))[tuple(slices)].flatten()
    return tuple(slices) if torch.equal(same, positions.flatten()) else None


def side_by_side(build: Builder, parts: Sequence[int]) -> int:
    """The entries of several nodes in one axis."""
    flat = [build.add("reshape", part, shape=(math.prod(build.shape(part)),)) for part in parts]
    return flat[0] if len(flat) == 1 else build.add("concat", *flat, dim=0)


def joined(build: Builder, parts: Sequence[int], positions: Tensor) -> int:
    """`picked` from several nodes, whose entries are counted one node after the other."""
    used, start, shifted = [], 0, positions.clone()
    kept = 0
    for part in parts:
        size = math.prod(build.shape(part))
        here = (positions >= start) & (positions < start + size)
        if bool(here.any()):
            shifted = torch.where(here, positions - start + kept, shifted)
            used.append(part)
            kept += size
        start += size
    if len(used) == 1:
        return picked(build, used[0], shifted)
    return picked(build, side_by_side(build, used or parts), shifted)
