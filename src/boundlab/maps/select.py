"""Select: single coordinates of a node, where the rows of intermediate bounds begin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from boundlab.maps.base import flat
from boundlab.maps.local import Local, Place
from boundlab.maps.rows import Dense, Explicit, Rows
from boundlab.maps.windows import Origin, Windows


@dataclass(frozen=True)
class Select(Rows):
    """Single coordinates: row j of problem i is values[i, j] * e_index[i]; `index` (n,) is flat, `values` (n or 1, s)."""

    index: Tensor
    values: Tensor

    def dense(self) -> Tensor:
        count, values = math.prod(self.shape), self.values.expand(len(self.index), -1)
        rows = values.new_zeros(*values.shape, count)
        index = self.index[:, None, None].expand(*values.shape, 1)
        return rows.scatter(2, index, values.unsqueeze(2)).reshape(*values.shape, *self.shape)

    def at(self, value: Tensor) -> Tensor:
        """A per-example tensor (b, 1 or s, *shape or broadcastable) at the coordinates, (n, 1 or s)."""
        values = flat(value.expand(*value.shape[:2], *self.shape), 2)
        examples = torch.arange(len(self.index), device=self.index.device) if self.owner is None else self.owner
        return values[examples if len(values) > 1 else torch.zeros_like(self.index), :, self.index]

    def dot(self, value: Tensor) -> Tensor:
        return self.at(value) * self.values

    def split(self) -> tuple[Rows, Rows]:
        return self.with_values(self.values.clamp(min=0)), self.with_values(self.values.clamp(max=0))

    def with_values(self, values: Tensor) -> Select:
        """The same coordinates with other numbers (n or 1, s)."""
        return Select(self.shape, self.owner, self.index, values)

    def spread(self) -> Explicit:
        if len(self.shape) < 2:
            return Dense(self.shape, self.owner, self.dense())
        return self.window() if len(self.shape) == 3 else self.local()

    def local(self) -> Local:
        """The same coordinates as rows that are fixed along every axis."""
        fixed, divisor = {}, 1
        for axis in reversed(range(len(self.shape))):
            fixed[axis] = Place(self.index, divisor, self.shape[axis])
            divisor *= self.shape[axis]
        values = self.values.expand(len(self.index), -1)
        return Local(self.shape, self.owner, values.reshape(*values.shape, *[1] * len(self.shape)), fixed)

    def window(self) -> Windows:
        """The same coordinates of an image as windows of one cell."""
        channels, height, width = self.shape
        channel = Select((channels,), self.owner, self.index // (height * width), self.values).dense()
        origin = Origin(self.index, (height, width), (1, 1), (0, 0))
        return Windows(self.shape, self.owner, channel[:, :, None, None, :], origin)
