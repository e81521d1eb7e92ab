"""Rows: coefficients of linear functionals of one node's value, in the structure they have.

A `Rows` holds s rows for each of n problems. Ragged rows (each example its own neurons) have n = the number of
(example, neuron) pairs and an `owner` (n,) that says which example's tensors a row reads; without it n counts examples.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from boundlab.maps.base import Shape, at_owner, channels_last, flat

MANY_ROWS = 16
"""Rows of one problem from which on a matrix product is faster than a dot product of each (measured on a CPU)."""


@dataclass(frozen=True)
class Table:
    """Per-example tensors (b, 1 or s, *shape or broadcastable) of one node, prepared once for all rows that meet them."""

    shape: Shape
    values: tuple[Tensor, ...]

    @cached_property
    def whole(self) -> tuple[Tensor, ...]:
        """Each value as rows over the whole node meet it, in memory as convolutions leave those."""
        return tuple(channels_last(value) if len(self.shape) == 3 and value.dim() == 5 else value for value in self.values)

    @cached_property
    def bordered(self) -> tuple[Tensor, ...]:
        """Each value as (b * (height + 2) * (width + 2), channels), zero on a border of one cell: what windows gather from."""
        return tuple(F.pad(value.expand(*value.shape[:2], *self.shape)[:, 0], (1, 1, 1, 1)).permute(0, 2, 3, 1).flatten(0, 2)
                     .contiguous() for value in self.values)


@dataclass(frozen=True)
class Rows(ABC):
    """s linear functionals for each of n problems, over a node of `shape` (without batch)."""

    shape: Shape
    owner: Tensor | None

    @abstractmethod
    def dense(self) -> Tensor:
        """All coefficients, (n, s, *shape)."""

    def owned_by(self, owner: Tensor) -> Rows:
        """The same rows with other owners (n,)."""
        return replace(self, owner=owner)

    @abstractmethod
    def spread(self) -> Explicit:
        """The same rows as explicit coefficients, over the whole node or a part of it."""

    @abstractmethod
    def split(self) -> tuple[Rows, Rows]:
        """The positive and the negative part of the coefficients."""

    @abstractmethod
    def dot(self, value: Tensor) -> Tensor:
        """Rows applied to a per-example tensor (b, 1 or s, *shape or broadcastable), (n, s)."""

    def absolute(self) -> Rows:
        """The rows of absolute coefficients."""
        return self.spread().absolute()

    def norm(self, order: float) -> Tensor:
        """The norm of each row's coefficients, (n, s)."""
        return norm(flat(self.spread().masked().coefficients, 2), order)


@dataclass(frozen=True)
class Explicit(Rows):
    """Rows that hold a tensor of coefficients (n, s, ...), over the whole node or a part of it."""

    coefficients: Tensor

    @abstractmethod
    def with_coefficients(self, coefficients: Tensor) -> Explicit:
        """The same places with other numbers."""

    @abstractmethod
    def aligned(self, value: Tensor) -> Tensor:
        """A per-example tensor (b, 1 or s, *shape) beside the coefficients: same axes, same places, gathered by owner."""

    @property
    def holds_rows(self) -> bool:
        """Whether tensors with s rows can be laid beside the coefficients, not only those with one for all."""
        return True

    def absolute(self) -> Explicit:
        return self.with_coefficients(self.coefficients.abs())

    def laid(self, table: Table) -> tuple[Tensor, ...]:
        """The table's tensors beside the coefficients."""
        return tuple(self.aligned(value) for value in table.values)

    def masked(self) -> Explicit:
        """The same rows with whatever lies outside the node set to zero."""
        return self

    def spread(self) -> Explicit:
        return self

    def split(self) -> tuple[Rows, Rows]:
        held = self.masked()
        positive, negative = held.coefficients.clamp(min=0), held.coefficients.clamp(max=0)
        return held.with_coefficients(positive), held.with_coefficients(negative)

    def dot(self, value: Tensor) -> Tensor:
        return dot(self.coefficients, self.aligned(value))


@dataclass(frozen=True)
class Dense(Explicit):
    """Coefficients of all coordinates, (n, s, *shape)."""

    def dense(self) -> Tensor:
        return self.coefficients

    def with_coefficients(self, coefficients: Tensor) -> Dense:
        return Dense(self.shape, self.owner, coefficients)

    def laid(self, table: Table) -> tuple[Tensor, ...]:
        return tuple(self.aligned(value) for value in table.whole)

    def aligned(self, value: Tensor) -> Tensor:
        if value.dim() != 5:
            return at_owner(value, self.owner)
        return at_owner(value.permute(0, 1, 3, 4, 2), self.owner).permute(0, 1, 4, 2, 3)  # in the order it is stored in


@dataclass(frozen=True)
class Partial(Explicit):
    """Rows over a vector that vanish outside coordinates `index` (k,), the same for all: coefficients (n, s, k)."""

    index: Tensor

    def dense(self) -> Tensor:
        full = self.coefficients.new_zeros(*self.coefficients.shape[:2], *self.shape)
        return full.index_copy(2, self.index, self.coefficients)

    def with_coefficients(self, coefficients: Tensor) -> Partial:
        return Partial(self.shape, self.owner, coefficients, self.index)

    def aligned(self, value: Tensor) -> Tensor:
        value = value.expand(*value.shape[:2], *self.shape)
        return at_owner(value.index_select(2, self.index), self.owner)


def dot(coefficients: Tensor, aligned: Tensor) -> Tensor:
    """Sum over coordinates of coefficients (n, s, *k) times aligned (n or 1, s or 1, *k or broadcastable), (n, s)."""
    wide = [axis for axis in range(2, aligned.dim()) if aligned.shape[axis] < coefficients.shape[axis]]
    if wide:  # one number for a whole axis: that axis is summed first, which gradients then need not remember
        coefficients = coefficients.sum(wide, keepdim=True)
    coefficients, aligned = in_memory_order(coefficients, aligned)
    if aligned.shape[0] == 1 and aligned.shape[1] == 1:
        return flat(coefficients, 2) @ aligned.flatten()
    if coefficients.shape[0] == 1 and aligned.shape[1] == 1:
        return flat(aligned, 1) @ flat(coefficients[0], 1).mT
    if aligned.shape[1] == 1 and coefficients.shape[1] >= MANY_ROWS:
        return (flat(coefficients, 2) @ flat(aligned, 2).mT).squeeze(2)
    return torch.linalg.vecdot(flat(coefficients, 2), flat(aligned, 2))


def in_memory_order(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both with their axes after the second as they lie in the larger one's memory, so that flattening it copies nothing."""
    if first.dim() <= 3:
        return first, second
    larger = first if first.numel() >= second.numel() else second
    axes = sorted(range(2, larger.dim()), key=larger.stride().__getitem__, reverse=True)
    return first.permute(0, 1, *axes), second.permute(0, 1, *axes)


def norm(c: Tensor, order: float) -> Tensor:
    """The norm over the last axis, scaled so that powers neither vanish nor overflow."""
    if math.isinf(order):
        return torch.linalg.vector_norm(c, order, dim=-1)
    size = c.detach().abs().amax(-1, keepdim=True).clamp(min=torch.finfo(c.dtype).tiny)
    return size.squeeze(-1) * torch.linalg.vector_norm(c / size, order, dim=-1)
