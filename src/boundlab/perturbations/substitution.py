"""Substitution of words: a few positions of a sentence, at most, take the vector of one of their candidates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from boundlab.errors import SpecError
from boundlab.interval import Interval
from boundlab.maps import Rows, at_owner
from boundlab.perturbations.sets import LONG, PerturbationSet, check_center, top_mask, top_sum, uniform, whole_numbers


@dataclass(frozen=True)
class Substitution(PerturbationSet):
    """Sentences `center` (b, positions, width), at most `budget` positions replaced by one of their `candidates`.

    `candidates` (b, positions, c, width) are lists of equal length; `allowed` (b, positions, c), booleans, says which of
    them count (None: all), the others are padding. `budget` is a whole number or (b,). SpecError if shapes do not fit, a
    number that counts is not finite, or the budget is negative.

    The minimum is exact. A row is a sum over positions, so a position that is replaced takes its best candidate whatever
    the others do, and the best positions are those with the largest gains. Xu et al. 2020, Theorem 2 compute the same
    number by dynamic programming over positions and words used.
    """

    center: Tensor
    candidates: Tensor
    budget: Tensor | int
    allowed: Tensor | None = None

    def __post_init__(self) -> None:
        check_center(self.center, "sentences of a substitution")
        if self.center.dim() != 3:
            raise SpecError(f"sentences of vectors have shape (batch, positions, width), got {tuple(self.center.shape)}.")
        if not isinstance(self.candidates, Tensor) or self.candidates.dim() != 4:
            raise SpecError("candidates must be a tensor (batch, positions, candidates, width).")
        b, length, width = self.center.shape
        if tuple(self.candidates.shape[:2]) != (b, length) or self.candidates.shape[3] != width:
            raise SpecError(f"candidates {tuple(self.candidates.shape)} do not fit sentences {tuple(self.center.shape)}; they "
                            f"must be ({b}, {length}, candidates, {width}).")
        if self.candidates.dtype != self.center.dtype:
            raise SpecError(f"candidates are {self.candidates.dtype}, the sentences {self.center.dtype}.")
        mask = self.allowed
        if mask is not None and (mask.dtype is not torch.bool or mask.shape != self.candidates.shape[:3]):
            raise SpecError(f"allowed must be booleans of shape {tuple(self.candidates.shape[:3])}, got {mask.dtype} of shape "
                            f"{tuple(mask.shape)}.")
        if not bool(torch.isfinite(self.choices).all()):
            raise SpecError("a candidate that counts holds NaN or infinite numbers.")
        whole_numbers(self.budget, "budget", b)

    @cached_property
    def count(self) -> Tensor:
        """`budget` as (b or 1,)."""
        return whole_numbers(self.budget, "budget", len(self.center)).to(self.center.device)

    @cached_property
    def choices(self) -> Tensor:
        """The word itself and then its candidates, with the word again for padding, (b, positions, 1 + c, width)."""
        own = self.center.unsqueeze(2)
        found = self.candidates if self.allowed is None else torch.where(self.allowed[..., None], self.candidates, own)
        return torch.cat([own, found], 2)

    @cached_property
    def hull(self) -> Interval:
        """The range of every coordinate at positions that may be replaced: all, or none with a budget of 0."""
        some = (self.count > 0)[:, None, None]
        whole = Interval(self.choices.amin(2), self.choices.amax(2))
        return whole.map(lambda end: torch.where(some, end, self.center))

    def box(self) -> Interval:
        return self.hull

    def concretize(self, rows: Rows) -> Tensor:
        coefficients = rows.dense()
        values = torch.einsum("nstd,ntcd->nstc", *together(coefficients, at_owner(self.choices, rows.owner)))
        own = values[..., 0]
        return own.sum(-1) - top_sum(own - values.amin(-1), at_owner(self.count, rows.owner))

    def project(self, point: Tensor) -> Tensor:
        """The positions that differ most from their words are replaced, each by its nearest candidate."""
        far = (point.unsqueeze(-2) - self.choices).abs().sum(-1)
        change = torch.where(far.amin(-1) < far[..., 0], far[..., 0], 0.0)
        return self.worded(torch.where(top_mask(change, self.count) & (change > 0), far.argmin(-1), 0))

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        length, choices = self.choices.shape[1:3]
        scores = uniform((count, 1, length, 1 + choices), self.center, generator).expand(count, len(self.center), -1, -1)
        real = torch.ones_like(self.choices[..., 0], dtype=torch.bool)
        real[:, :, 0] = False
        if self.allowed is not None:
            real[:, :, 1:] = self.allowed
        word = torch.where(real, scores[..., 1:], 0.0).argmax(-1)
        place = torch.where(real.any(-1), scores[..., 0], 0.0)
        spent = uniform((count, 1), self.center, generator) * (2 * self.count + 1)  # half of the samples spend all
        used = torch.minimum(spent.floor().long(), self.count)
        rank = place.argsort(-1, descending=True).argsort(-1)
        return self.worded(torch.where(rank < used[..., None], word, 0))

    def ascent(self, gradient: Tensor) -> Tensor:
        """The way to the best sentence for the gradient."""
        values = torch.einsum("...btd,btcd->...btc", gradient, self.choices)
        gain = values.amax(-1) - values[..., 0]
        return self.worded(torch.where(top_mask(gain, self.count) & (gain > 0), values.argmax(-1), 0)) - self.center

    def climb(self, point: Tensor, gradient: Tensor, length: float) -> Tensor:
        """Long steps go to the best sentence for the gradient; the shorter they are, the more they keep to the words of now."""
        values = torch.einsum("...btd,btcd->...btc", gradient, self.choices)
        spread = (values.amax(-1) - values.amin(-1)).amax(-1)[..., None, None]
        now = (self.choices == point.unsqueeze(-2)).all(-1)
        values = values + max(0.0, 1 - length / LONG) * spread * now
        gain = values.amax(-1) - values[..., 0]
        return self.worded(torch.where(top_mask(gain, self.count) & (gain > 0), values.argmax(-1), 0))

    def worded(self, choice: Tensor) -> Tensor:
        """The sentences with choice number `choice` (..., b, positions) of each word; 0 is the word itself."""
        index = choice[..., None, None].expand(*choice.shape, 1, self.center.shape[2])
        return self.choices.expand(*choice.shape[:-2], *self.choices.shape).gather(-2, index).squeeze(-2)

    def take(self, index: Tensor) -> Substitution:
        budget = self.count[index] if len(self.count) > 1 else self.budget
        allowed = None if self.allowed is None else self.allowed[index]
        return Substitution(self.center[index], self.candidates[index], budget, allowed)


def together(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two tensors with one leading size, where one of them may have size 1."""
    count = max(len(first), len(second))
    return first.expand(count, *first.shape[1:]), second.expand(count, *second.shape[1:])
