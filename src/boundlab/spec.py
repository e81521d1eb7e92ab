"""Specification: what should hold of a network's output, as rows, offsets and clauses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from boundlab.errors import SpecError
from boundlab.maps import flat


@dataclass(frozen=True)
class Specification:
    """Safe at a point if in every clause some row has rows . y + offset > 0.

    `rows` (b, s, *out) and `offset` (b, s), with b = 1 if all problems share them; `clause` (s,) names each row's clause,
    0 to the number of clauses - 1. SpecError if shapes do not fit together, a clause has no row, or rows are no floating
    numbers.
    """

    rows: Tensor
    offset: Tensor
    clause: Tensor

    def __post_init__(self) -> None:
        count = self.rows.shape[1]
        if self.offset.shape != self.rows.shape[:2] or self.clause.shape != (count,):
            raise SpecError(f"a specification of rows {tuple(self.rows.shape)} needs offsets {tuple(self.rows.shape[:2])} and "
                            f"clauses ({count},), got {tuple(self.offset.shape)} and {tuple(self.clause.shape)}.")
        if not self.rows.is_floating_point() or not self.offset.is_floating_point():
            raise SpecError(f"a specification's rows and offsets are floating tensors, got {self.rows.dtype} and "
                            f"{self.offset.dtype}.")
        if set(self.clause.tolist()) != set(range(self.clauses)):
            raise SpecError("clauses must be numbered from 0 without gaps, and there must be at least one row.")

    @property
    def clauses(self) -> int:
        """Number of clauses."""
        return int(self.clause.max()) + 1 if self.clause.numel() else 0

    def values(self, y: Tensor) -> Tensor:
        """Margins of concrete outputs y (b, *out), (b, s)."""
        return torch.linalg.vecdot(flat(self.rows, 2), flat(y, 1)[:, None].to(self.rows)) + self.offset

    def best(self, margins: Tensor) -> Tensor:
        """The best row of every clause, (b, clauses): where all are positive the specification holds."""
        empty = margins.new_full((margins.shape[0], self.clauses), -torch.inf)
        return empty.scatter_reduce(1, self.clause.expand_as(margins), margins, "amax")

    def worst(self, margins: Tensor) -> Tensor:
        """The smallest, over clauses, of each clause's best row: positive means that the specification holds, (b,)."""
        return self.best(margins).amin(1)

    def take(self, index: Tensor) -> Specification:
        """The specifications of the problems `index` (m,); a shared one is its own answer."""
        if self.rows.shape[0] == 1:
            return self
        return Specification(self.rows[index], self.offset[index], self.clause)


def checked_labels(labels: Tensor | Sequence[int], classes: int) -> Tensor:
    """Labels as whole numbers (b,); SpecError if one is not, or is outside 0 .. classes - 1."""
    labels = torch.as_tensor(labels)
    if labels.is_floating_point() or labels.dtype is torch.bool:
        raise SpecError(f"labels must be whole numbers, got {labels.dtype}.")
    labels = labels.long()
    if labels.dim() != 1:
        raise SpecError(f"labels must be a (b,) tensor of classes 0 to {classes - 1}, got one of shape {list(labels.shape)}.")
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise SpecError(f"labels must be of the classes 0 to {classes - 1}, got {int(wrong[0])}.")
    return labels


def labelled_right(scores: Tensor, labels: Tensor) -> Tensor:
    """Whether the label of each example has the highest of its scores (b, classes), alone, and all are finite numbers, (b,)."""
    own, others = scores.gather(1, labels[:, None]), scores.scatter(1, labels[:, None], -torch.inf)
    return (own > others).all(1) & torch.isfinite(scores).all(1)


def margins(labels: Tensor | Sequence[int], classes: int, dtype: torch.dtype = torch.float32) -> Specification:
    """Every other class stays below the label: row y minus row j for each j != y, one clause each, (b, classes - 1).

    Labels are (b,). `dtype` is the network's type of numbers. SpecError if a label is no whole number or outside
    0 .. classes - 1.
    """
    labels = checked_labels(labels, classes)
    eye = torch.eye(classes, dtype=dtype, device=labels.device)
    differences = eye[labels].unsqueeze(1) - eye
    others = ~torch.nn.functional.one_hot(labels, classes).bool()
    rows = differences[others].reshape(len(labels), classes - 1, classes)
    return Specification(rows, rows.new_zeros(rows.shape[:2]), torch.arange(classes - 1, device=labels.device))


def at_least(rows: Tensor, offset: Tensor | None = None) -> Specification:
    """rows . y + offset > 0 for every row, each its own clause; `rows` (b or 1, s, *out), `offset` (b or 1, s) or none.

    SpecError if shapes do not fit together, or there is no row.
    """
    filled = rows.new_zeros(rows.shape[:2]) if offset is None else offset
    return Specification(rows, filled, torch.arange(rows.shape[1], device=rows.device))


def both_sides(shape: tuple[int, ...], like: Tensor) -> Specification:
    """Rows for every output of `shape` and then for its negative, which together bound it from both sides; like in type."""
    size = math.prod(shape)
    eye = torch.eye(size, dtype=like.dtype, device=like.device).reshape(1, size, *shape)
    return at_least(torch.cat([eye, -eye], dim=1))
