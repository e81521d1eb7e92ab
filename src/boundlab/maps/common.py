"""Common: the same single coordinates of a vector for all problems, where rows of intermediate bounds begin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from boundlab.maps.base import flat
from boundlab.maps.rows import Dense, Rows


@dataclass(frozen=True)
class Common(Rows):
    """Single coordinates that all problems share: row i k + j is signs[i] * e_index[j], for `index` (k,) and `signs` (m,).

    Rows of one problem then read its tensors where they lie, and need no owner; those of all problems are one copy until a
    relaxation enters them.
    """

    index: Tensor
    signs: Tensor

    def signed(self, picked: Tensor) -> Tensor:
        """What the coordinates pick (b, k, ...) times each sign, (b, m k, ...)."""
        signs = self.signs.reshape(1, -1, *[1] * (picked.dim() - 1))
        return (signs * picked.unsqueeze(1)).flatten(1, 2)

    def dense(self) -> Tensor:
        count = len(self.index)
        chosen = self.signs.new_zeros(1, count, math.prod(self.shape))
        chosen = chosen.index_put((torch.zeros_like(self.index), torch.arange(count, device=chosen.device), self.index),
                                  self.signs.new_ones(()))
        return self.signed(chosen).reshape(1, -1, *self.shape)

    def spread(self) -> Dense:
        return Dense(self.shape, None, self.dense())

    def split(self) -> tuple[Rows, Rows]:
        return self.spread().split()

    def dot(self, value: Tensor) -> Tensor:
        if value.shape[1] > 1:
            return self.spread().dot(value)
        values = flat(value.expand(*value.shape[:2], *self.shape), 2)
        return self.signed(values[:, 0].index_select(1, self.index))
