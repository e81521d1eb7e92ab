"""Rows over weights: products of two vectors instead of whole matrices, and rows of several nodes laid end to end."""

from __future__ import annotations

import functools
import math
import operator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from boundlab.maps.base import LinearMap, at_owner, flat
from boundlab.maps.rows import Dense, Rows, norm


@dataclass(frozen=True)
class RankOne(Rows):
    """Rows left * right': `left` (n or 1, s, m) and `right` (n or 1, 1, k), whose m * k products fill *shape in order.

    What a row over a layer's output is over the layer's weight, where the weight meets one vector (a linear layer) or the
    row asks for one cell (a convolution): m + k numbers instead of m * k.
    """

    left: Tensor
    right: Tensor

    def dense(self) -> Tensor:
        table = self.left.unsqueeze(-1) * self.right.unsqueeze(-2)
        return table.reshape(*table.shape[:2], *self.shape)

    def spread(self) -> Dense:
        return Dense(self.shape, self.owner, self.dense())

    def split(self) -> tuple[Rows, Rows]:
        return self.spread().split()

    def dot(self, value: Tensor) -> Tensor:
        value = value.expand(*value.shape[:2], *self.shape)
        if value.shape[1] > 1:
            return self.spread().dot(value)
        table = at_owner(value, self.owner).reshape(-1, self.left.shape[-1], self.right.shape[-1])
        image = self.right @ table[0].mT if len(table) == 1 else self.right @ table.mT
        return torch.linalg.vecdot(self.left, image)

    def absolute(self) -> RankOne:
        return RankOne(self.shape, self.owner, self.left.abs(), self.right.abs())

    def norm(self, order: float) -> Tensor:
        return norm(self.left, order) * norm(self.right, order)


@dataclass(frozen=True)
class EndToEnd(Rows):
    """Rows over several nodes at once: part (start, rows) covers the flat coordinates from `start`; elsewhere they are zero.

    `shape` is (d,), and all parts have one owner. What a set of vectors is asked that holds several sources.
    """

    parts: tuple[tuple[int, Rows], ...]

    def dense(self) -> Tensor:
        pieces = [(start, flat(rows.dense(), 2)) for start, rows in self.parts]
        lead = np.broadcast_shapes(*(piece.shape[:2] for _, piece in pieces))
        whole = pieces[0][1].new_zeros(*lead, self.shape[0])
        for start, piece in pieces:
            whole[..., start:start + piece.shape[-1]] = piece
        return whole

    def owned_by(self, owner: Tensor) -> EndToEnd:
        return EndToEnd(self.shape, owner, tuple((start, rows.owned_by(owner)) for start, rows in self.parts))

    def spread(self) -> Dense:
        return Dense(self.shape, self.owner, self.dense())

    def split(self) -> tuple[Rows, Rows]:
        return self.spread().split()

    def dot(self, value: Tensor) -> Tensor:
        value = value.expand(*value.shape[:2], *self.shape)
        pieces = (value[..., start:start + math.prod(rows.shape)].reshape(*value.shape[:2], *rows.shape)
                  for start, rows in self.parts)
        terms = [rows.dot(piece) for (_, rows), piece in zip(self.parts, pieces, strict=True)]
        return functools.reduce(operator.add, terms)

    def absolute(self) -> EndToEnd:
        return EndToEnd(self.shape, self.owner, tuple((start, rows.absolute()) for start, rows in self.parts))

    def norm(self, order: float) -> Tensor:
        norms = torch.broadcast_tensors(*(rows.norm(order) for _, rows in self.parts))
        return norm(torch.stack(norms, -1), order)


@dataclass(frozen=True)
class Chain(LinearMap):
    """Maps one after the other, the first one first."""

    links: tuple[LinearMap, ...]

    def push(self, columns: Tensor) -> Tensor:
        for link in self.links:
            columns = link.push(columns)
        return columns

    def pull(self, rows: Tensor) -> Tensor:
        for link in reversed(self.links):
            rows = link.pull(rows)
        return rows

    def abs(self) -> LinearMap:
        return chain(*(link.abs() for link in self.links))

    def at(self, owner: Tensor | None) -> LinearMap:
        return chain(*(link.at(owner) for link in self.links))


def chain(*links: LinearMap) -> Chain:
    """The maps `links` one after the other."""
    return Chain(links[0].in_shape, links[-1].out_shape, links)
