"""Bounds of inner neurons where a specification fails: what is asked about then are only points at which it does.

To prove one clause of a specification, it is enough to show that no point of the set makes all its rows 0 or less. So that may
be assumed while inner neurons are bounded: the rows are terms at the output, and go back together with those of the neurons
(Kotha et al. 2023, INVPROP, Sec. 3). Such bounds answer no other question: they say nothing of points where the clause holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from boundlab.affine import LinearBound
from boundlab.bounds.backward import Left, Passage, through
from boundlab.bounds.space import Range, Variables
from boundlab.bounds.terms import Term, TermLower
from boundlab.graph import Node
from boundlab.interval import Interval
from boundlab.maps import Dense, Rows, add, flat


@dataclass(frozen=True)
class Failing(Term):
    """rows (n, a, *out) . y + offset (n, a) are 0 or less; multipliers move by steps of `size` (n, a)."""

    rows: Tensor
    offset: Tensor
    size: Tensor

    @property
    def range(self) -> Range:
        none = torch.zeros_like(self.size).unsqueeze(1)
        return Range(none, none, torch.full_like(none, torch.inf), self.size.unsqueeze(1))

    def take(self, index: Tensor) -> Failing:
        """Those of the groups `index` (m,)."""
        return Failing(self.rows[index], self.offset[index], self.size[index])

    def subtracted(self, rows: Tensor, multiplier: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        added = (multiplier @ flat(self.rows, 2)).reshape(len(rows), 1, *rows.shape[2:])
        height = torch.linalg.vecdot(flat(self.rows, 2), flat(reference, 1).unsqueeze(1)) + self.offset
        return rows + added, (multiplier.squeeze(1) * height).sum(1, keepdim=True)


def failing(rows: Tensor, offset: Tensor, widths: Tensor, output: Interval) -> Failing:
    """The term of groups whose own rows vary by `widths` (n,), where the output (n or 1, *out) lies in an interval."""
    spread = torch.linalg.vecdot(flat(rows.abs(), 2), flat(output.width, 1).unsqueeze(1))
    tiny = torch.finfo(spread.dtype).tiny
    return Failing(rows, offset, widths.unsqueeze(1) / spread.clamp(min=tiny))


@dataclass(frozen=True)
class FailingLower(TermLower):
    """Lower bounds of rows of inner neurons at the points of their owners' sets where a clause fails."""

    failing: Failing

    def take(self, index: Tensor) -> FailingLower:
        return FailingLower(self.ground, self.groups.take(index), self.failing.take(index))

    @property
    def terms(self) -> Mapping[int, Term]:
        return {self.top: self.failing}

    @property
    def top(self) -> int:
        return self.ground.problem.target.index

    @cached_property
    def begin(self) -> Rows:
        rows = self.failing.rows
        return Dense(self.ground.problem.target.shape, None, rows.new_zeros(len(rows), 1, *rows.shape[2:]))

    def passing(self, variables: Variables) -> Callable[[Node], LinearBound | Passage]:
        """As for all terms; at the neurons' node their own rows join those that come from the output."""
        relax = super().passing(variables)

        def joined(node: Node) -> LinearBound | Passage:
            step = relax(node)
            if node.index != self.groups.target:
                return step

            def passage(rows: Rows) -> Left:
                return through(step, add(rows, self.rows))

            return passage

        return joined

    def weighed(self, node: Node, rows: Rows, variables: Variables) -> Rows:
        rows = super().weighed(node, rows, variables)
        return add(rows, self.rows) if node.index == self.groups.target else rows
