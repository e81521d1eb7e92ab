"""Rows: coefficients of linear functionals of one node's value, in the structure they have.

A `Rows` holds s rows for each of n problems. Ragged rows (each example its own neurons) have n = the number of
(example, neuron) pairs and an `owner` (n,) that says which example's tensors a row reads; without it n counts examples.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from boundlab.maps.base import Shape, at_owner, flat


@dataclass(frozen=True)
class Rows(ABC):
    """s linear functionals for each of n problems, over a node of `shape` (without batch)."""

    shape: Shape
    owner: Tensor | None

    @abstractmethod
    def dense(self) -> Tensor:
        """All coefficients, (n, s, *shape)."""

    @abstractmethod
    def spread(self) -> Spread:
        """The same rows as explicit coefficients, over the whole node or a part of it."""

    @abstractmethod
    def dot(self, value: Tensor) -> Tensor:
        """Rows applied to a per-example tensor (b, 1 or s, *shape or broadcastable), (n, s)."""


@dataclass(frozen=True)
class Table:
    """Per-example tensors (b, 1 or s, *shape or broadcastable) of one node, prepared once for all rows that meet them."""

    shape: Shape
    values: tuple[Tensor, ...]

    @cached_property
    def bordered(self) -> tuple[Tensor, ...]:
        """Each value as (b * (height + 2) * (width + 2), channels), zero on a border of one cell: what windows gather from."""
        return tuple(F.pad(value.expand(*value.shape[:2], *self.shape)[:, 0], (1, 1, 1, 1)).permute(0, 2, 3, 1).flatten(0, 2)
                     .contiguous() for value in self.values)


@dataclass(frozen=True)
class Dense(Rows):
    """Explicit coefficients (n, s, *shape)."""

    coefficients: Tensor

    def dense(self) -> Tensor:
        return self.coefficients

    def spread(self) -> Dense:
        return self

    def masked(self) -> Dense:
        """Themselves: no entry lies outside the map."""
        return self

    def with_coefficients(self, coefficients: Tensor) -> Dense:
        """The same rows with other numbers (n, s, *shape)."""
        return Dense(self.shape, self.owner, coefficients)

    def laid(self, table: Table) -> tuple[Tensor, ...]:
        """The table's tensors beside the coefficients: same axes, gathered by owner."""
        return tuple(at_owner(value, self.owner) for value in table.values)

    def aligned(self, value: Tensor) -> Tensor:
        """One per-example tensor (b, 1 or s, *shape) beside the coefficients."""
        return at_owner(value, self.owner)

    def dot(self, value: Tensor) -> Tensor:
        return dot(self.coefficients, self.aligned(value))


@dataclass(frozen=True)
class Partial(Rows):
    """Rows over a vector that vanish outside coordinates `index` (k,), the same for all: coefficients (n, s, k)."""

    index: Tensor
    coefficients: Tensor

    def dense(self) -> Tensor:
        full = self.coefficients.new_zeros(*self.coefficients.shape[:2], *self.shape)
        return full.index_copy(2, self.index, self.coefficients)

    def spread(self) -> Partial:
        return self

    def masked(self) -> Partial:
        """Themselves: every entry is a coordinate."""
        return self

    def with_coefficients(self, coefficients: Tensor) -> Partial:
        """The same coordinates with other numbers (n, s, k)."""
        return Partial(self.shape, self.owner, self.index, coefficients)

    def laid(self, table: Table) -> tuple[Tensor, ...]:
        """The table's tensors beside the coefficients: at the same coordinates, gathered by owner."""
        return tuple(self.aligned(value) for value in table.values)

    def aligned(self, value: Tensor) -> Tensor:
        """One per-example tensor (b, 1 or s, *shape) beside the coefficients."""
        value = value.expand(*value.shape[:2], *self.shape)
        return at_owner(value.index_select(2, self.index), self.owner)

    def dot(self, value: Tensor) -> Tensor:
        return dot(self.coefficients, self.aligned(value))


@dataclass(frozen=True)
class Select(Rows):
    """Single coordinates with signs: row j of problem i is signs[j] * e_index[i]; `index` (n,) is flat, `signs` (s,)."""

    index: Tensor
    signs: Tensor

    def dense(self) -> Tensor:
        rows = self.signs.new_zeros(len(self.index), len(self.signs), math.prod(self.shape))
        index = self.index[:, None, None].expand(-1, len(self.signs), 1)
        rows = rows.scatter(2, index, self.signs[None, :, None].expand(len(self.index), -1, 1))
        return rows.reshape(*rows.shape[:2], *self.shape)

    def dot(self, value: Tensor) -> Tensor:
        values = flat(value.expand(*value.shape[:2], *self.shape), 2)
        examples = torch.arange(len(self.index), device=self.index.device) if self.owner is None else self.owner
        picked = values[examples if len(values) > 1 else torch.zeros_like(self.index), :, self.index]
        return picked * self.signs

    def spread(self) -> Spread:
        if len(self.shape) != 3:
            return Dense(self.shape, self.owner, self.dense())
        channels, height, width = self.shape
        channel = Select((channels,), self.owner, self.index // (height * width), self.signs).dense()
        origin = Origin(self.index, (height, width), (1, 1), (0, 0))
        return Windows(self.shape, self.owner, channel[:, :, None, None, :], origin)


@dataclass(frozen=True)
class Origin:
    """Where windows begin: corner = scale * position + offset, with `position` where the rows became windows.

    The position is that of flat coordinate `index` (n,) in a map whose height and width are `space`. Scale and offset are
    two plain numbers an axis, so the relative place of two windows that began alike is known without looking at data.
    """

    index: Tensor
    space: tuple[int, int]
    scale: tuple[int, int]
    offset: tuple[int, int]

    def corner(self) -> Tensor:
        """Row and column of each window's first entry, (n, 2); may lie outside the map."""
        place = self.index % (self.space[0] * self.space[1])
        position = torch.stack([place // self.space[1], place % self.space[1]], dim=1)
        return position * position.new_tensor(self.scale) + position.new_tensor(self.offset)

    def parallel(self, other: Origin) -> bool:
        """Whether both began at the same coordinates of maps of one size and move alike, so that their offsets tell all.

        Rows that became windows at different nodes (one path through a slice, say) hold different index tensors.
        """
        return self.index is other.index and self.space == other.space and self.scale == other.scale


@dataclass(frozen=True)
class Corners:
    """Where windows begin when they follow no common pattern: row and column of each first entry (n, 2)."""

    position: Tensor

    def corner(self) -> Tensor:
        """Row and column of each window's first entry, (n, 2); may lie outside the map."""
        return self.position


@dataclass(frozen=True)
class Windows(Rows):
    """Rows over a (channels, height, width) node that vanish outside a window: coefficients (n, s, kh, kw, channels).

    Entries that lie outside the map count as zero; `clean` says that they are zero in fact. Replaces the patches of Xu et
    al. 2020, App. B, with one corner a row instead of stride and padding bookkeeping. Channels come last because that is
    the order in which convolutions and gathers run fastest.
    """

    coefficients: Tensor
    origin: Origin | Corners
    clean: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the windows."""
        return self.coefficients.shape[2], self.coefficients.shape[3]

    def spread(self) -> Windows:
        return self

    def with_coefficients(self, coefficients: Tensor, clean: bool = True) -> Windows:
        """The same windows with other numbers."""
        return Windows(self.shape, self.owner, coefficients, self.origin, clean)

    def lines(self) -> tuple[Tensor, Tensor]:
        """Which row (n, kh) and column (n, kw) of the map with a border of one cell each entry lies in; the border if outside."""
        corner, (height, width) = self.origin.corner(), self.shape[1:]
        y = corner[:, :1] + torch.arange(1, self.size[0] + 1, device=corner.device)
        x = corner[:, 1:] + torch.arange(1, self.size[1] + 1, device=corner.device)
        return y.clamp(0, height + 1), x.clamp(0, width + 1)

    def places(self) -> Tensor:
        """Flat spatial index of each entry in the map with a border of one cell, (n, kh, kw)."""
        y, x = self.lines()
        return (y * (self.shape[2] + 2))[:, :, None] + x[:, None, :]

    def inside(self) -> Tensor:
        """Which entries lie in the map, (n, kh, kw)."""
        (y, x), (height, width) = self.lines(), self.shape[1:]
        return ((y > 0) & (y <= height))[:, :, None] & ((x > 0) & (x <= width))[:, None, :]

    def laid(self, table: Table) -> tuple[Tensor, ...]:
        """The table's tensors (with one row) gathered at the windows, zero outside the map: (n, 1, kh, kw, channels) each."""
        places = self.places()
        count, cells = len(places), (self.shape[1] + 2) * (self.shape[2] + 2)
        examples = torch.arange(count, device=places.device) if self.owner is None else self.owner
        found = []
        for whole in table.bordered:
            index = places if len(whole) == cells else places + (examples * cells)[:, None, None]
            found.append(whole.index_select(0, index.flatten()).reshape(count, 1, *self.size, self.shape[0]))
        return tuple(found)

    def aligned(self, value: Tensor) -> Tensor:
        """One per-example tensor (b, 1, *shape or broadcastable) gathered at the windows."""
        return self.laid(Table(self.shape, (value,)))[0]

    def dot(self, value: Tensor) -> Tensor:
        if value.shape[-2:] == (1, 1) and value.shape[0] == 1:
            return self.masked().coefficients.sum((2, 3)) @ value.flatten().expand(self.shape[0])
        return dot(self.coefficients, self.aligned(value))

    def masked(self) -> Windows:
        """The same windows with everything outside the map set to zero."""
        if self.clean:
            return self
        return self.with_coefficients(self.coefficients * self.inside()[:, None, :, :, None])

    def dense(self) -> Tensor:
        places = self.places()
        channels, height, width = self.shape
        count, rows = self.coefficients.shape[:2]
        cells = (height + 2) * (width + 2)
        start = torch.arange(count * rows, device=places.device).reshape(count, rows, 1) * cells
        index = (start + flat(places, 1)[:, None, :]).flatten()
        full = self.coefficients.new_zeros(count * rows * cells, channels)
        full.index_copy_(0, index, self.coefficients.reshape(-1, channels))
        return full.reshape(count, rows, height + 2, width + 2, channels)[:, :, 1:-1, 1:-1].permute(0, 1, 4, 2, 3)


Spread = Dense | Partial | Windows


def dot(coefficients: Tensor, aligned: Tensor) -> Tensor:
    """Sum over coordinates of coefficients (n, s, *k) times aligned (n or 1, s or 1, *k or broadcastable), (n, s)."""
    if aligned.shape[2:] != coefficients.shape[2:]:
        aligned = aligned.expand(*aligned.shape[:2], *coefficients.shape[2:])
    if aligned.shape[0] == 1 and aligned.shape[1] == 1:
        return flat(coefficients, 2) @ aligned.flatten()
    if coefficients.shape[0] == 1 and aligned.shape[1] == 1:
        return flat(aligned, 1) @ flat(coefficients[0], 1).mT
    return torch.linalg.vecdot(flat(coefficients, 2), flat(aligned, 2))
