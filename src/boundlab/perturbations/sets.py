"""Perturbation sets: where an input (or a weight) may lie. Two methods are required, the rest have defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from boundlab.errors import SpecError
from boundlab.interval import Interval
from boundlab.maps import Rows


@runtime_checkable
class PerturbationSet(Protocol):
    """A compact set of tensors (*shape), one for each of b problems."""

    def box(self) -> Interval:
        """The smallest box around the set, (b, *shape)."""
        ...

    def concretize(self, rows: Rows) -> Tensor:
        """The minimum over the set (or a lower bound of it) of each row, (n, s)."""
        ...


@dataclass(frozen=True)
class Box:
    """All x with lower <= x <= upper, elementwise; both (b, *shape). SpecError if a lower end is above its upper end."""

    lower: Tensor
    upper: Tensor

    def __post_init__(self) -> None:
        if self.lower.shape != self.upper.shape:
            raise SpecError(f"a box needs ends of one shape, got {tuple(self.lower.shape)} and {tuple(self.upper.shape)}.")
        if not bool((self.lower <= self.upper).all()):
            count = int((~(self.lower <= self.upper)).sum())
            raise SpecError(f"the box is empty: its lower end exceeds its upper end (or is NaN) at {count} coordinates.")

    def box(self) -> Interval:
        return Interval(self.lower, self.upper)

    def concretize(self, rows: Rows) -> Tensor:
        return box_minimum(self.box(), rows)


def box_minimum(box: Interval, rows: Rows) -> Tensor:
    """Minimum of rows over a box: center minus radius against absolute coefficients, (n, s)."""
    spread = rows.spread()
    return spread.dot(box.center.unsqueeze(1)) - spread.with_coefficients(spread.coefficients.abs()).dot(box.radius.unsqueeze(1))


def as_batch(value: Tensor | float, like: Tensor) -> Tensor:
    """A radius as (b, 1, ..., 1): one number for all problems, or one for each."""
    radius = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return radius.reshape(-1, *[1] * (like.dim() - 1))
