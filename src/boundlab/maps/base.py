"""LinearMap: the linear part of a layer or of a relaxation, kept in the structure it has.

Letters: b problems, s rows, d columns; `in_shape` and `out_shape` are without batch. Any b or s may be 1 (shared).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

Shape = tuple[int, ...]


def flat(tensor: Tensor, lead: int) -> Tensor:
    """The axes after the first `lead` as one; of size 1 if there are none."""
    return tensor.reshape(*tensor.shape[:lead], math.prod(tensor.shape[lead:]))


def channels_last(tensor: Tensor) -> Tensor:
    """The same tensor (..., channels, height, width), its channels innermost in memory: how convolutions run fastest."""
    order = (*range(tensor.dim() - 3), -2, -1, -3)
    return tensor.permute(order).contiguous().permute(*range(tensor.dim() - 3), -1, -3, -2)


def at_owner(tensor: Tensor, owner: Tensor | None) -> Tensor:
    """The entries of `tensor` (b, ...) that each row's problem `owner` (n,) reads; a shared tensor stays shared."""
    if owner is None or tensor.dim() == 0 or tensor.shape[0] == 1:
        return tensor
    return tensor.index_select(0, owner)


@dataclass(frozen=True)
class LinearMap(ABC):
    """A linear function from `in_shape` to `out_shape`; the two directions are adjoint: <push(x), r> = <x, pull(r)>."""

    in_shape: Shape
    out_shape: Shape

    @abstractmethod
    def push(self, columns: Tensor) -> Tensor:
        """Columns (b, d, *in_shape) to columns (b, d, *out_shape)."""

    @abstractmethod
    def pull(self, rows: Tensor) -> Tensor:
        """Rows (b, s, *out_shape) to rows (b, s, *in_shape)."""

    @abstractmethod
    def abs(self) -> LinearMap:
        """A map that is entrywise at least |self| (equal, except for sums of maps)."""

    def at(self, owner: Tensor | None) -> LinearMap:
        """The same map with its per-problem tensors gathered for ragged rows; a shared map is its own answer."""
        return self

    def apply(self, value: Tensor) -> Tensor:
        """One value a problem, (b, *in_shape) to (b, *out_shape)."""
        return self.push(value.unsqueeze(1)).squeeze(1)
