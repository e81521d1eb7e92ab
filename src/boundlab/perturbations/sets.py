"""Perturbation sets: the protocol (where an input or a weight may lie, one set for each problem), and boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from boundlab.errors import SpecError
from boundlab.interval import Interval
from boundlab.maps import Rows


@runtime_checkable
class PerturbationSet(Protocol):
    """A compact set of tensors (*shape), one for each of b problems.

    Bounds need `box`, `concretize` and `independent`; the others serve attacks, tests and searches over many problems.
    """

    @property
    def independent(self) -> bool:
        """Whether every coordinate varies on its own, so that the set is its box."""
        ...

    def box(self) -> Interval:
        """The smallest box around the set, or one that holds it, (b, *shape)."""
        ...

    def concretize(self, rows: Rows) -> Tensor:
        """The minimum over the set (or a lower bound of it) of each row, (n, s)."""
        ...

    def project(self, point: Tensor) -> Tensor:
        """A near point of the set for each of `point` (..., b, *shape); points of the set stay where they are."""
        ...

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Points of the set, some on its boundary and its corners, (count, b, *shape).

        All problems share their random numbers, so a problem draws the same points alone as in a batch.
        """
        ...

    def ascent(self, gradient: Tensor) -> Tensor:
        """A move of about the set's radius along which gradient . x grows fastest, for `gradient` (..., b, *shape)."""
        ...

    def take(self, index: Tensor) -> Self:
        """The sets of the problems `index` (m,), in that order."""
        ...


@runtime_checkable
class Centred(Protocol):
    """A set that tells by itself how far rows fall below their value at the center of its box; cheaper than `concretize`."""

    def fall(self, rows: Rows) -> Tensor:
        """The minimum over the set of each row, minus the row at `box().center`: (n, s)."""
        ...


@dataclass(frozen=True)
class Box:
    """All x with lower <= x <= upper, elementwise; both (b, *shape). SpecError if a lower end is above its upper end."""

    lower: Tensor
    upper: Tensor

    def __post_init__(self) -> None:
        for end in (self.lower, self.upper):
            if not isinstance(end, Tensor) or end.dim() == 0:
                raise SpecError(f"the ends of a box must be tensors with a batch axis, got {end!r}.")
        if self.lower.shape != self.upper.shape:
            raise SpecError(f"a box needs ends of one shape, got {tuple(self.lower.shape)} and {tuple(self.upper.shape)}.")
        if not bool((self.lower <= self.upper).all()):
            count = int((~(self.lower <= self.upper)).sum())
            raise SpecError(f"the box is empty: its lower end exceeds its upper end (or is NaN) at {count} coordinates.")

    @property
    def independent(self) -> bool:
        return True

    def box(self) -> Interval:
        return Interval(self.lower, self.upper)

    def concretize(self, rows: Rows) -> Tensor:
        return box_minimum(self.box(), rows)

    def fall(self, rows: Rows) -> Tensor:
        return box_fall(self.box(), rows)

    def project(self, point: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(point, self.lower), self.upper)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        place = uniform((count, 1, *self.lower.shape[1:]), self.lower, generator)
        kind = torch.arange(count, device=place.device).reshape(-1, *[1] * (place.dim() - 1)) % 3
        faces = ((place - 0.5) * 2 + 0.5).clamp(0, 1)
        place = torch.where(kind == 0, place, torch.where(kind == 1, place.round(), faces))
        return self.project(torch.lerp(self.lower, self.upper, place))

    def ascent(self, gradient: Tensor) -> Tensor:
        return gradient.sign() * self.box().radius

    def take(self, index: Tensor) -> Box:
        return Box(self.lower[index], self.upper[index])


def box_minimum(box: Interval, rows: Rows) -> Tensor:
    """Minimum of rows over a box: center minus radius against absolute coefficients, (n, s)."""
    return rows.dot(box.center.unsqueeze(1)) + box_fall(box, rows)


def box_fall(box: Interval, rows: Rows) -> Tensor:
    """How far rows fall below their value at the center of a box, (n, s)."""
    return -rows.absolute().dot(box.radius.unsqueeze(1))


def as_batch(value: Tensor | float, like: Tensor) -> Tensor:
    """A radius as (b, 1, ..., 1): one number for all problems, or one for each."""
    try:
        radius = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    except (TypeError, ValueError) as problem:
        raise SpecError(f"a radius must be a number, or a tensor with one for each problem, got {value!r}.") from problem
    return radius.reshape(-1, *[1] * (like.dim() - 1))


def uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random numbers from [0, 1), drawn where the generator lives and brought to where `like` lives."""
    source = like.device if generator is None else generator.device
    return torch.rand(shape, generator=generator, dtype=like.dtype, device=source).to(like.device)
