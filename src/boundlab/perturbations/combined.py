"""Sets made of sets: the union of several, and one tensor whose parts vary in sets of their own."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from boundlab.errors import SpecError
from boundlab.interval import Interval
from boundlab.maps import LinearMap, Rows, Shape, Slice, compose, flat, transposed
from boundlab.perturbations.sets import Box, PerturbationSet


def regions_of(parts: Iterable[PerturbationSet | Tensor], name: str) -> tuple[PerturbationSet, ...]:
    """The parts of a combined set with one batch size; tensors stand for themselves. SpecError if they do not fit."""
    found: list[PerturbationSet] = []
    if isinstance(parts, PerturbationSet | Tensor):
        raise SpecError(f"{name} is made of several sets in a tuple, got one {type(parts).__name__}.")
    for part in parts:
        region = Box(part, part) if isinstance(part, Tensor) else part
        if not isinstance(region, PerturbationSet):
            raise SpecError(f"{name} is made of perturbation sets, got {type(part).__name__}.")
        found.append(region)
    if not found:
        raise SpecError(f"{name} of no set is empty; give at least one.")
    kinds = {region.box().lower.dtype for region in found}
    if len(kinds) > 1:
        raise SpecError(f"{name} needs sets of one floating type, got {', '.join(sorted(map(str, kinds)))}.")
    sizes = [len(region.box().lower) for region in found]
    batch = max(sizes)
    if any(size not in (1, batch) for size in sizes):
        raise SpecError(f"the sets of {name} speak of {sorted(set(sizes))} problems; all must agree or be 1.")
    first = torch.zeros(batch, dtype=torch.long, device=found[0].box().lower.device)
    return tuple(region.take(first) if size < batch else region for region, size in zip(found, sizes, strict=True))


@dataclass(frozen=True)
class Union(PerturbationSet):
    """All points of any of `sets`, whose batches agree or are 1. Bounds hold on every member; minima are exact if theirs are.

    Inner nodes are bounded on the box around all members; members that lie far apart get tighter bounds as problems of
    their own. SpecError if there is no set, or shapes differ.
    """

    sets: tuple[PerturbationSet | Tensor, ...]

    def __post_init__(self) -> None:
        shapes = {tuple(region.box().shape[1:]) for region in self.members}
        if len(shapes) > 1:
            raise SpecError(f"a union needs sets of one shape, got {sorted(shapes)}.")

    @cached_property
    def members(self) -> tuple[PerturbationSet, ...]:
        """The sets, each with b problems."""
        return regions_of(self.sets, "a union")

    def box(self) -> Interval:
        return functools.reduce(Interval.hull, [member.box() for member in self.members])

    def concretize(self, rows: Rows) -> Tensor:
        return functools.reduce(torch.minimum, [member.concretize(rows) for member in self.members])

    def project(self, point: Tensor) -> Tensor:
        near = torch.stack([member.project(point) for member in self.members])
        return self.pick(near, -(near - point).abs())

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        share = math.ceil(count / len(self.members))
        return torch.stack([member.sample(share, generator) for member in self.members], 1).flatten(0, 1)[:count]

    def ascent(self, gradient: Tensor) -> Tensor:
        moves = torch.stack([member.ascent(gradient) for member in self.members])
        return self.pick(moves, moves * gradient)

    def pick(self, values: Tensor, scores: Tensor) -> Tensor:
        """Of each member's value (members, ..., b, *shape) that whose scores sum to the most."""
        axes = len(self.box().shape) - 1
        best = flat(scores, scores.dim() - axes).sum(-1).argmax(0)
        index = best.reshape(1, *best.shape, *[1] * axes).expand(1, *values.shape[1:])
        return values.gather(0, index).squeeze(0)

    def take(self, index: Tensor) -> Union:
        return Union(tuple(member.take(index) for member in self.members))


@dataclass(frozen=True)
class Blocks(PerturbationSet):
    """One tensor put together from parts along axis `dim` of *shape (no batch): each part varies in its own set.

    A part is a set or a constant tensor (b, *shape); batches agree or are 1. Every combination of their points is meant;
    minima add up, exactly if theirs are exact. SpecError if there is no part, or shapes do not fit together.
    """

    parts: tuple[PerturbationSet | Tensor, ...]
    dim: int = 0

    def __post_init__(self) -> None:
        shapes = [tuple(region.box().shape[1:]) for region in self.regions]
        axes = len(shapes[0])
        if not 0 <= self.dim < axes or any(len(shape) != axes for shape in shapes):
            raise SpecError(f"blocks of shapes {shapes} have no common axis {self.dim}; axes count from 0, without the batch.")
        if len({shape[:self.dim] + shape[self.dim + 1:] for shape in shapes}) > 1:
            raise SpecError(f"blocks joined along axis {self.dim} must agree in all others, got {shapes}.")

    @cached_property
    def regions(self) -> tuple[PerturbationSet, ...]:
        """The parts as sets, each with b problems."""
        return regions_of(self.parts, "blocks")

    @cached_property
    def sizes(self) -> list[int]:
        """How long each part is along `dim`."""
        return [region.box().shape[self.dim + 1] for region in self.regions]

    @cached_property
    def places(self) -> tuple[LinearMap, ...]:
        """The map that puts each part into the whole, zero elsewhere."""
        whole = self.shape
        starts = [sum(self.sizes[:i]) for i in range(len(self.sizes))]

        def placed(start: int, size: int) -> LinearMap:
            slices = tuple(slice(start, start + size) if axis == self.dim else slice(0, length)
                           for axis, length in enumerate(whole))
            return transposed(Slice(whole, (*whole[:self.dim], size, *whole[self.dim + 1:]), slices))

        return tuple(placed(start, size) for start, size in zip(starts, self.sizes, strict=True))

    @property
    def shape(self) -> Shape:
        """The shape of the whole, without batch."""
        first = tuple(self.regions[0].box().shape[1:])
        return (*first[:self.dim], sum(self.sizes), *first[self.dim + 1:])

    @property
    def independent(self) -> bool:
        return all(region.independent for region in self.regions)

    def box(self) -> Interval:
        boxes = [region.box() for region in self.regions]
        lower, upper = (torch.cat(ends, self.dim + 1) for ends in ([box.lower for box in boxes], [box.upper for box in boxes]))
        return Interval(lower, upper)

    def concretize(self, rows: Rows) -> Tensor:
        minima = [region.concretize(compose(rows, place)) for region, place in zip(self.regions, self.places, strict=True)]
        return functools.reduce(torch.add, minima)

    def project(self, point: Tensor) -> Tensor:
        axis = self.dim - len(self.shape)
        parts = point.split(self.sizes, axis)
        return torch.cat([region.project(part) for region, part in zip(self.regions, parts, strict=True)], axis)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.cat([region.sample(count, generator) for region in self.regions], self.dim + 2)

    def ascent(self, gradient: Tensor) -> Tensor:
        axis = self.dim - len(self.shape)
        parts = gradient.split(self.sizes, axis)
        return torch.cat([region.ascent(part) for region, part in zip(self.regions, parts, strict=True)], axis)

    def take(self, index: Tensor) -> Blocks:
        return Blocks(tuple(region.take(index) for region in self.regions), self.dim)
