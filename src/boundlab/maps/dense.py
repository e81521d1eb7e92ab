"""Maps that are given by numbers: identity, diagonal, matrices, and sums of maps."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from boundlab.maps.base import LinearMap, Shape, at_owner, ends
from boundlab.maps.boxes import CenterAndRadius, MatrixImage

FEW_OUTPUTS = 256
"""Of a matrix with so few outputs, a product with zeros is cheaper than to gather what it reads (measured on a CPU)."""


@dataclass(frozen=True)
class Identity(LinearMap):
    """The map that changes nothing: a skip connection."""

    def push(self, columns: Tensor) -> Tensor:
        return columns

    def pull(self, rows: Tensor) -> Tensor:
        return rows

    def abs(self) -> LinearMap:
        return self


@dataclass(frozen=True)
class Zero(LinearMap):
    """The map that forgets its argument: a constant bound."""

    def push(self, columns: Tensor) -> Tensor:
        return columns.new_zeros(*columns.shape[:2], *self.out_shape)

    def pull(self, rows: Tensor) -> Tensor:
        return rows.new_zeros(*rows.shape[:2], *self.in_shape)

    def abs(self) -> LinearMap:
        return self


@dataclass(frozen=True)
class Diagonal(LinearMap):
    """One factor a coordinate; `scale` broadcasts to (b, s, *shape)."""

    scale: Tensor

    def push(self, columns: Tensor) -> Tensor:
        return columns * self.scale

    def pull(self, rows: Tensor) -> Tensor:
        return rows * self.scale

    def image(self, lower: Tensor, upper: Tensor, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        low, high = self.apply(lower), self.apply(upper)
        low, high = torch.minimum(low, high), torch.maximum(low, high)
        return (low, high) if offset is None else (low + offset, high + offset)

    def abs(self) -> LinearMap:
        return Diagonal(self.in_shape, self.out_shape, self.scale.abs())

    def at(self, owner: Tensor | None) -> LinearMap:
        return Diagonal(self.in_shape, self.out_shape, at_owner(self.scale, owner))


@dataclass(frozen=True)
class Matrix(LinearMap):
    """A matrix (out, in), shared by all problems, on the last axis; earlier axes are carried along.

    With `live` (k,) it reads only these inputs, and `weight` (out, k) holds their columns; the others count as zero.
    """

    weight: Tensor
    live: Tensor | None = None

    def reading(self, live: Tensor) -> Matrix:
        """The same matrix with all columns but `live` set to zero, for a vector; products skip them."""
        return Matrix(self.in_shape, self.out_shape, self.weight.index_select(1, live), live)

    @cached_property
    def transposed(self) -> Tensor:
        """The weight as (in, out), laid out so that blocks of inputs are read in order; zero where it reads nothing."""
        if self.live is None:
            return self.weight.mT.contiguous()
        return self.weight.new_zeros(self.in_shape[-1], self.out_shape[-1]).index_copy(0, self.live, self.weight.mT)

    def push(self, columns: Tensor) -> Tensor:
        if self.live is None:
            return columns @ self.weight.mT
        if self.out_shape[-1] < FEW_OUTPUTS:
            return columns @ self.transposed
        return columns.index_select(-1, self.live) @ self.weight.mT

    def pull(self, rows: Tensor) -> Tensor:
        return self.written_out(rows @ self.weight)

    def written_out(self, held: Tensor) -> Tensor:
        """Numbers for the inputs that it reads (..., k) as numbers for all, zero for the others."""
        if self.live is None:
            return held
        return held.new_zeros(*held.shape[:-1], self.in_shape[-1]).index_copy(-1, self.live, held)

    def image(self, lower: Tensor, upper: Tensor, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.live is not None:
            return super().image(lower, upper, offset)
        vectors = (end.reshape(-1, end.shape[-1]) for end in CenterAndRadius.apply(lower, upper))
        center, radius = (part.reshape(-1, *self.out_shape) for part in MatrixImage.apply(*vectors, self.weight))
        return ends(center, radius, offset)

    def abs(self) -> LinearMap:
        return Matrix(self.in_shape, self.out_shape, self.weight.abs(), self.live)


@dataclass(frozen=True)
class MatmulRight(LinearMap):
    """x -> x @ factor, with `factor` (b, s, *lead, k, n) its own for every problem."""

    factor: Tensor

    def push(self, columns: Tensor) -> Tensor:
        return columns @ self.factor

    def pull(self, rows: Tensor) -> Tensor:
        return rows @ self.factor.mT

    def abs(self) -> LinearMap:
        return MatmulRight(self.in_shape, self.out_shape, self.factor.abs())

    def at(self, owner: Tensor | None) -> LinearMap:
        return MatmulRight(self.in_shape, self.out_shape, at_owner(self.factor, owner))


@dataclass(frozen=True)
class MatmulLeft(LinearMap):
    """y -> factor @ y, with `factor` (b, s, *lead, m, k) its own for every problem."""

    factor: Tensor

    def push(self, columns: Tensor) -> Tensor:
        return self.factor @ columns

    def pull(self, rows: Tensor) -> Tensor:
        return self.factor.mT @ rows

    def abs(self) -> LinearMap:
        return MatmulLeft(self.in_shape, self.out_shape, self.factor.abs())

    def at(self, owner: Tensor | None) -> LinearMap:
        return MatmulLeft(self.in_shape, self.out_shape, at_owner(self.factor, owner))


@dataclass(frozen=True)
class Outer(LinearMap):
    """Rank one along axis `dim` (counted without batch): x -> left * sum(right * x); factors broadcast to (b, s, *shape)."""

    left: Tensor
    right: Tensor
    dim: int

    def push(self, columns: Tensor) -> Tensor:
        return self.left * (self.right * columns).sum(self.dim + 2, keepdim=True)

    def pull(self, rows: Tensor) -> Tensor:
        return self.right * (self.left * rows).sum(self.dim + 2, keepdim=True)

    def abs(self) -> LinearMap:
        return Outer(self.in_shape, self.out_shape, self.left.abs(), self.right.abs(), self.dim)

    def at(self, owner: Tensor | None) -> LinearMap:
        left, right = at_owner(self.left, owner), at_owner(self.right, owner)
        return Outer(self.in_shape, self.out_shape, left, right, self.dim)


@dataclass(frozen=True)
class Sum(LinearMap):
    """The sum of maps of one shape."""

    terms: tuple[LinearMap, ...]

    def push(self, columns: Tensor) -> Tensor:
        return functools.reduce(operator.add, (term.push(columns) for term in self.terms))

    def pull(self, rows: Tensor) -> Tensor:
        return functools.reduce(operator.add, (term.pull(rows) for term in self.terms))

    def abs(self) -> LinearMap:
        return Sum(self.in_shape, self.out_shape, tuple(term.abs() for term in self.terms))

    def at(self, owner: Tensor | None) -> LinearMap:
        return Sum(self.in_shape, self.out_shape, tuple(term.at(owner) for term in self.terms))


def identity(shape: Shape) -> Identity:
    """The identity on `shape`."""
    return Identity(shape, shape)


def diagonal(scale: Tensor, shape: Shape) -> Diagonal:
    """The diagonal map on `shape` with factors `scale`, broadcastable to (b, s, *shape)."""
    return Diagonal(shape, shape, scale)
