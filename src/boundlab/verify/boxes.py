"""Open boxes of a bisection, and the order in which they are taken: those whose parents had the lowest bounds first."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from boundlab.verify.search import least

NEAR, MOST = 2**13, 2
"""Boxes among which the next ones are sought, up to `MOST` times as many; the others are not looked at until these are done."""


@dataclass(frozen=True)
class Boxes:
    """n open boxes: the problem of each (n,), ends (n, d), the bound that its parent had (n,), its number among all (n,), and
    which clauses are proven on a larger one, (n, c) booleans."""

    owner: Tensor
    lower: Tensor
    upper: Tensor
    parent: Tensor
    number: Tensor
    shown: Tensor

    def __len__(self) -> int:
        return len(self.owner)

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The six tensors."""
        return self.owner, self.lower, self.upper, self.parent, self.number, self.shown

    @cached_property
    def owners(self) -> set[int]:
        """The problems that have a box."""
        return set(self.owner.unique().tolist())

    @cached_property
    def least(self) -> float:
        """The lowest bound of a parent, infinite without a box."""
        return least(self.parent)

    def select(self, index: Tensor) -> Boxes:
        """The boxes at these places, or where a mask is true."""
        return Boxes(*(part[index] for part in self.parts))

    def without(self, problems: Collection[int]) -> Boxes:
        """The boxes of other problems than these."""
        if not problems:
            return self
        return self.select(~torch.isin(self.owner, torch.tensor(sorted(problems), device=self.owner.device)))


def joined(lists: Sequence[Boxes]) -> Boxes:
    """The boxes of all lists, of which there is at least one."""
    columns = zip(*(one.parts for one in lists), strict=True)
    return lists[0] if len(lists) == 1 else Boxes(*(torch.cat(parts) for parts in columns))


@dataclass(frozen=True)
class Heap:
    """Open boxes: `near` are those with bounds of at most `limit`, `far` the others, in lists as they came.

    So a turn costs what the boxes that it handles cost, however many wait. `dropped` are problems that have none any more.
    """

    near: Boxes
    far: tuple[Boxes, ...] = ()
    limit: float = math.inf
    dropped: frozenset[int] = frozenset()

    @property
    def count(self) -> int:
        """How many boxes there are."""
        return len(self.near) + sum(map(len, self.far))

    @property
    def least(self) -> float:
        """The lowest bound of a parent, infinite without a box."""
        return min(boxes.least for boxes in (self.near, *self.far))

    @property
    def owners(self) -> set[int]:
        """The problems that have a box."""
        return set().union(*(boxes.owners for boxes in (self.near, *self.far)))

    def worst(self, count: int) -> tuple[Boxes, Heap]:
        """The `count` boxes with the lowest bounds, or all if there are fewer, and the others."""
        short = self.far and len(self.near) < count
        heap = self.gathered() if short or len(self.near) > MOST * NEAR else self
        order = heap.near.parent.argsort(stable=True)
        rest = Heap(heap.near.select(order[count:]), heap.far, heap.limit, heap.dropped)
        return heap.near.select(order[:count]), rest

    def gathered(self) -> Heap:
        """The same boxes, the nearest of all in `near`."""
        every = joined((self.near, *self.far))
        order = every.parent.argsort(stable=True)
        near, far = every.select(order[:NEAR]), every.select(order[NEAR:])
        limit = float(near.parent[-1]) if len(far) else math.inf
        return Heap(near, (far,) if len(far) else (), limit, self.dropped)

    def joined(self, boxes: Boxes) -> Heap:
        """With more boxes, none of them of a problem that was dropped."""
        soon = boxes.parent <= self.limit
        later = boxes.select(~soon)
        near = joined((self.near, boxes.select(soon)))
        return Heap(near, (*self.far, later) if len(later) else self.far, self.limit, self.dropped)

    def without(self, problems: Collection[int]) -> Heap:
        """The boxes of other problems than these."""
        new = set(problems) - self.dropped
        if not new:
            return self
        far = tuple(one for one in (boxes.without(new) for boxes in self.far) if len(one))
        return Heap(self.near.without(new), far, self.limit, self.dropped | new)
