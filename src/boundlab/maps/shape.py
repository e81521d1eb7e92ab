"""Maps that move, pick or sum coordinates: reshape, permute, slice, gather, reduce, and the transpose of any map."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from boundlab.maps.base import LinearMap, Shape, at_owner, flat


@dataclass(frozen=True)
class Reshape(LinearMap):
    """The same coordinates in the same order under another shape."""

    def push(self, columns: Tensor) -> Tensor:
        return columns.reshape(*columns.shape[:2], *self.out_shape)

    def pull(self, rows: Tensor) -> Tensor:
        return rows.reshape(*rows.shape[:2], *self.in_shape)

    def abs(self) -> LinearMap:
        return self


@dataclass(frozen=True)
class Permute(LinearMap):
    """Axes in another order: output axis i is input axis `dims[i]` (without batch)."""

    dims: Shape

    def push(self, columns: Tensor) -> Tensor:
        return columns.permute(0, 1, *(d + 2 for d in self.dims))

    def pull(self, rows: Tensor) -> Tensor:
        inverse = sorted(range(len(self.dims)), key=self.dims.__getitem__)
        return rows.permute(0, 1, *(d + 2 for d in inverse))

    def abs(self) -> LinearMap:
        return self


@dataclass(frozen=True)
class Slice(LinearMap):
    """A block of coordinates: one slice with positive step for every axis."""

    slices: tuple[slice, ...]

    def push(self, columns: Tensor) -> Tensor:
        return columns[(slice(None), slice(None), *self.slices)]

    def pull(self, rows: Tensor) -> Tensor:
        placed = rows.new_zeros(*rows.shape[:2], *self.in_shape)
        placed[(slice(None), slice(None), *self.slices)] = rows
        return placed

    def abs(self) -> LinearMap:
        return self


@dataclass(frozen=True)
class Gather(LinearMap):
    """Coordinates picked by flat index, with repetition: output i is input `index[i]`; `index` is (numel of out,)."""

    index: Tensor

    def push(self, columns: Tensor) -> Tensor:
        picked = flat(columns, 2).index_select(2, self.index)
        return picked.reshape(*columns.shape[:2], *self.out_shape)

    def pull(self, rows: Tensor) -> Tensor:
        placed = rows.new_zeros(*rows.shape[:2], math.prod(self.in_shape))
        placed = placed.index_add(2, self.index, rows.reshape(*rows.shape[:2], -1))
        return placed.reshape(*rows.shape[:2], *self.in_shape)

    def abs(self) -> LinearMap:
        return self


@dataclass(frozen=True)
class GatherEach(LinearMap):
    """Coordinates picked by flat indices that each problem has of its own: `index` is (b, numel of out)."""

    index: Tensor

    def push(self, columns: Tensor) -> Tensor:
        columns = columns.expand(max(len(columns), len(self.index)), *columns.shape[1:])
        index = self.index[:, None].expand(columns.shape[0], columns.shape[1], -1)
        return flat(columns, 2).gather(2, index).reshape(*columns.shape[:2], *self.out_shape)

    def pull(self, rows: Tensor) -> Tensor:
        rows = rows.expand(max(len(rows), len(self.index)), *rows.shape[1:])
        index = self.index[:, None].expand(rows.shape[0], rows.shape[1], -1)
        placed = rows.new_zeros(*rows.shape[:2], math.prod(self.in_shape))
        return placed.scatter_add(2, index, flat(rows, 2)).reshape(*rows.shape[:2], *self.in_shape)

    def abs(self) -> LinearMap:
        return self

    def at(self, owner: Tensor | None) -> LinearMap:
        return GatherEach(self.in_shape, self.out_shape, at_owner(self.index, owner))


@dataclass(frozen=True)
class Reduce(LinearMap):
    """A weighted sum over axes `dims` (without batch, kept with size 1 in `kept_shape`); `weight` broadcasts to (b, s, *in)."""

    weight: Tensor
    dims: Shape

    def push(self, columns: Tensor) -> Tensor:
        total = (columns * self.weight).sum([d + 2 for d in self.dims])
        return total.reshape(*total.shape[:2], *self.out_shape)

    def pull(self, rows: Tensor) -> Tensor:
        kept = [1 if d in self.dims else size for d, size in enumerate(self.in_shape)]
        spread = rows.reshape(*rows.shape[:2], *kept) * self.weight
        return spread.expand(*spread.shape[:2], *self.in_shape)

    def abs(self) -> LinearMap:
        return Reduce(self.in_shape, self.out_shape, self.weight.abs(), self.dims)

    def at(self, owner: Tensor | None) -> LinearMap:
        return Reduce(self.in_shape, self.out_shape, at_owner(self.weight, owner), self.dims)


@dataclass(frozen=True)
class Transposed(LinearMap):
    """The adjoint of a map: zero padding and concatenation from Slice, expansion from Reduce, conv_transpose from Conv."""

    of: LinearMap

    def push(self, columns: Tensor) -> Tensor:
        return self.of.pull(columns)

    def pull(self, rows: Tensor) -> Tensor:
        return self.of.push(rows)

    def abs(self) -> LinearMap:
        inner = self.of.abs()
        return self if inner is self.of else transposed(inner)

    def at(self, owner: Tensor | None) -> LinearMap:
        return transposed(self.of.at(owner))


def transposed(of: LinearMap) -> Transposed:
    """The adjoint of `of`."""
    return Transposed(of.out_shape, of.in_shape, of)
