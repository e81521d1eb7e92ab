"""Perturbation sets: the protocol (where an input or a weight may lie, one set for each problem), and boxes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from boundlab.errors import MissingRule, SpecError
from boundlab.interval import Interval
from boundlab.maps import Dense, Rows, flat, lengths

LONG = 0.25
"""Radii of a long step of an attack: sets that can jump to the best point for a gradient do so at such a step."""


@runtime_checkable
class PerturbationSet(Protocol):
    """A compact set of tensors (*shape), one for each of b problems.

    A set of your own inherits from this class and gives `box` and `concretize`: bounds and proofs need no more. With
    `project` it can be attacked, too. The others have defaults, and better ones where a set knows its points.
    """

    @property
    def independent(self) -> bool:
        """Whether every coordinate varies on its own, so that the set is its box."""
        return False

    @abstractmethod
    def box(self) -> Interval:
        """The smallest box around the set, or one that holds it, (b, *shape)."""

    @abstractmethod
    def concretize(self, rows: Rows) -> Tensor:
        """The minimum over the set (or a lower bound of it) of each row, (n, s)."""

    def l2_ball(self) -> tuple[Tensor, Tensor]:
        """A point (b, *shape), and how far from it in l_2 the set reaches at most, (b,)."""
        center = self.box().center
        return center, farthest(center, self.box())

    def fall(self, rows: Rows) -> Tensor:
        """The minimum of each row minus the row at the center of the box, (n, s): what rows about a reference need."""
        return self.concretize(rows) - rows.dot(self.box().center.unsqueeze(1))

    def project(self, point: Tensor) -> Tensor:
        """A near point of the set for each of `point` (..., b, *shape); points of the set stay where they are.

        MissingRule where a set does not say: `box` and `concretize` alone name no point of it.
        """
        raise MissingRule(f"{type(self).__name__} has no `project`, so no point of it is known: it can be bounded and proven, "
                          "but not attacked or sampled; give it a method project(point).")

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Points of the set, some on its boundary and its corners, (count, b, *shape).

        All problems share their random numbers, so a problem draws the same points alone as in a batch.
        """
        box = self.box()
        return self.project(Box(box.lower, box.upper).sample(count, generator))

    def ascent(self, gradient: Tensor) -> Tensor:
        """A move of about the set's radius along which gradient . x grows fastest, for `gradient` (..., b, *shape)."""
        return gradient.sign() * self.box().radius

    def climb(self, point: Tensor, gradient: Tensor, length: float) -> Tensor:
        """One step of an attack from points of the set: `length` radii up the gradient and back into the set.

        Coordinates that the box already stops are left out.
        """
        box = self.box()
        near = 8 * torch.finfo(point.dtype).eps * (box.lower.abs() + box.upper.abs())
        stopped = ((gradient < 0) & (point <= box.lower + near)) | ((gradient > 0) & (point >= box.upper - near))
        return self.project(point + length * self.ascent(gradient.masked_fill(stopped, 0.0)))

    def take(self, index: Tensor) -> PerturbationSet:
        """The sets of the problems `index` (m,), in that order."""
        return Taken(self, index.to(self.box().lower.device))


def farthest(point: Tensor, box: Interval) -> Tensor:
    """How far in l_2 the farthest corner of a box is from a point of it (b, *shape), (b,)."""
    room = torch.maximum(box.upper - point, point - box.lower)
    return lengths(flat(room, 1), 1)


@dataclass(frozen=True)
class Taken(PerturbationSet):
    """The sets of the problems `index` (m,) among those of `of`: the problems of a batch that rows with owners ask about."""

    of: PerturbationSet
    index: Tensor

    @property
    def independent(self) -> bool:
        return self.of.independent

    def box(self) -> Interval:
        return self.of.box().map(lambda end: end[self.index])

    def concretize(self, rows: Rows) -> Tensor:
        if rows.owner is not None:
            return self.of.concretize(rows.owned_by(self.index[rows.owner]))
        dense = rows.dense()
        return self.of.concretize(Dense(rows.shape, self.index, dense.expand(len(self.index), *dense.shape[1:])))

    def l2_ball(self) -> tuple[Tensor, Tensor]:
        center, radius = self.of.l2_ball()
        return center[self.index], radius[self.index]

    def project(self, point: Tensor) -> Tensor:
        return self.among_all(self.of.project, point)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return self.of.sample(count, generator)[:, self.index]

    def ascent(self, gradient: Tensor) -> Tensor:
        return self.among_all(self.of.ascent, gradient)

    def take(self, index: Tensor) -> Taken:
        return Taken(self.of, self.index[index.to(self.index.device)])

    def among_all(self, function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
        """A function of (..., b, *shape) applied to `value` (..., m, *shape); others of the b problems get their box's center.

        A problem that was taken several times takes several turns.
        """
        center = self.of.box().center
        lead = value.dim() - center.dim()
        turn = (self.index[:, None] == self.index).tril(-1).sum(1)
        whole = center.expand(int(turn.max()) + 1 if len(turn) else 1, *value.shape[:lead], *center.shape).clone()
        whole.movedim(lead + 1, 1)[turn, self.index] = value.movedim(lead, 0)
        return function(whole).movedim(lead + 1, 1)[turn, self.index].movedim(0, lead)


@dataclass(frozen=True)
class Box(PerturbationSet):
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


def as_like(value: Tensor | float, like: Tensor) -> Tensor:
    """A number or tensor in the type of another, at once: 0.3 by way of float32 is another float64."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


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


def all_finite(value: Tensor) -> bool:
    """Whether no entry is NaN or infinite. Their sum is neither then, unless it overflows, and takes one pass."""
    return bool(torch.isfinite(value.sum())) or bool(torch.isfinite(value).all())


def check_center(center: Tensor, name: str) -> None:
    """SpecError unless the middle of a set is a finite floating tensor with a batch axis."""
    if not isinstance(center, Tensor) or center.dim() == 0:
        raise SpecError(f"the {name} must be a tensor with a batch axis, got {center!r:.60}.")
    if not center.is_floating_point() or not all_finite(center):
        raise SpecError(f"the {name} must be a finite floating tensor, got {center.dtype} with "
                        f"{int((~torch.isfinite(center)).sum())} entries that are NaN or infinite.")


def whole_numbers(value: Tensor | int, name: str, batch: int) -> Tensor:
    """Counts as (b or 1,): one whole number >= 0 for all problems, or one for each. SpecError for anything else."""
    wrong = SpecError(f"{name} must be a whole number, or a tensor with one for each problem, got {value!r:.60}.")
    try:
        counts = torch.as_tensor(value).reshape(-1)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise wrong from problem
    if counts.is_floating_point() or counts.is_complex() or counts.dtype is torch.bool:
        raise wrong
    if len(counts) not in (1, batch):
        raise SpecError(f"{name} must be one number or one for each of {batch} problems, got {len(counts)}.")
    if bool((counts < 0).any()):
        raise SpecError(f"{name} must not be negative, got {counts.tolist()}.")
    return counts.long()


def top_sum(values: Tensor, count: Tensor) -> Tensor:
    """The sum of the `count` (n or 1,) largest of `values` (n, s, m), (n, s)."""
    most = min(int(count.max()), values.shape[-1])
    taken = torch.arange(most, device=values.device) < count[:, None, None]
    return (values.topk(most, dim=-1).values * taken).sum(-1)


def top_mask(values: Tensor, count: Tensor) -> Tensor:
    """Where the `count` (b or 1,) largest of `values` (..., b, m) are, as booleans."""
    most = min(int(count.max()), values.shape[-1])
    place = values.topk(most, dim=-1).indices
    taken = torch.arange(most, device=values.device) < count[:, None]
    return torch.zeros_like(values, dtype=torch.bool).scatter(-1, place, taken.expand(place.shape))
