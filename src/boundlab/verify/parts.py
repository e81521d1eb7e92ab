"""Open parts of problems in branch and bound: one flat list, whatever problem and clause they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from boundlab.bounds.parts import MULTIPLIER, Splits, intervals_of, no_splits
from boundlab.bounds.space import Variables, one_after_another, taken
from boundlab.interval import Interval
from boundlab.spec import Specification

FAR = 4.0
"""Of a clause's rows those are sought whose bounds are at most so many times as far below zero as that of the best one."""


@dataclass(frozen=True)
class Goals:
    """What has to be proven, one clause of one problem each: the problem (i,), its rows `every` (i, a), and those `rows` (i, g)
    of them by which it is sought, some of them twice.

    `place` (i,) says which of a ground's intervals are those of the goal, `margin` (i,) how far above 0 a bound of a part has
    to be: what is derived again with rounding counted in comes out a little lower.
    """

    problem: Tensor
    every: Tensor
    rows: Tensor
    place: Tensor
    margin: Tensor

    def place_in_clause(self, goal: Tensor, row: Tensor) -> Tensor:
        """At which of its goal's places (n,) a row (n,) of the specification stands first."""
        return (self.every[goal] == row[:, None]).to(torch.uint8).argmax(1)


def members_of(clause: Tensor) -> Tensor:
    """The rows (c, a) of every clause, given that of each row (s,); those with fewer rows hold their first one again."""
    members = [(clause == one).nonzero().squeeze(1) for one in range(int(clause.max()) + 1)]
    most = max(map(len, members))
    return torch.stack([torch.cat([own, own[:1].expand(most - len(own))]) for own in members])


def goals_of(spec: Specification, lower: Tensor, margin: Tensor) -> Goals:
    """Every clause of each problem, whose rows are above `lower` (b, s) and have margins (b or 1, s)."""
    members = members_of(spec.clause)
    every = members.repeat(len(lower), 1)
    problem = torch.arange(len(lower), device=every.device).repeat_interleave(len(members))
    order = lower[problem[:, None], every].argsort(dim=1, descending=True, stable=True)
    rows = every.gather(1, order)
    bounds = lower[problem[:, None], rows]
    near = bounds >= torch.minimum(bounds[:, :1], FAR * bounds[:, :1])
    rows = torch.where(near, rows, rows[:, :1])[:, :max(1, int(near.sum(1).max()))]
    return Goals(problem, every, rows, problem, margin.expand_as(lower)[problem, rows[:, 0]])


@dataclass(frozen=True)
class Parts:
    """n open parts: the goal of each (n,), a bound of its best row (n,), its constraints, and lines to begin at.

    `inner` are tighter intervals (n, *shape) of some nodes, which were found where a part of the `history` (n, t) was made:
    numbers of the part and of those that it was split from, -1 for none.
    """

    goal: Tensor
    lower: Tensor
    splits: Splits
    variables: Variables
    history: Tensor
    inner: Mapping[int, Interval] = field(default_factory=dict)

    def select(self, index: Tensor) -> Parts:
        """The parts at these places, or where a mask is true."""
        return Parts(self.goal[index], self.lower[index], self.splits.take(index), taken(self.variables, index),
                     self.history[index], intervals_of(self.inner, index))

    @property
    def bytes(self) -> int:
        """What the parts hold."""
        tensors = [self.goal, self.lower, *self.splits.parts, self.history,
                   *(value for named in self.variables.values() for value in named.values()),
                   *(end for interval in self.inner.values() for end in (interval.lower, interval.upper))]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def lowest(self, count: int) -> tuple[Parts, Parts]:
        """The `count` parts with the lowest bounds, and the others."""
        order = self.lower.argsort(stable=True)
        return self.select(order[:count]), self.select(order[count:])

    def join(self, other: Parts) -> Parts:
        """Both lists."""
        if len(self.goal) == 0 or len(other.goal) == 0:
            return self if len(self.goal) else other
        variables = one_after_another([self.variables, other.variables])
        inner = {node: Interval(torch.cat([self.inner[node].lower, other.inner[node].lower]),
                                torch.cat([self.inner[node].upper, other.inner[node].upper]))
                 for node in self.inner.keys() & other.inner.keys()}
        return Parts(torch.cat([self.goal, other.goal]), torch.cat([self.lower, other.lower]),
                     self.splits.below(other.splits), variables, below(self.history, other.history), inner)


def whole_sets(count: int, like: Tensor) -> Parts:
    """One part for each of `count` goals: its whole set."""
    goal = torch.arange(count, device=like.device)
    return Parts(goal, like.new_full((count,), -torch.inf), no_splits(count, like), {}, goal.new_empty(count, 0))


def below(first: Tensor, second: Tensor) -> Tensor:
    """Two lists of numbers (n, t) one after the other, shorter rows filled with -1."""
    most = max(first.shape[1], second.shape[1])
    return torch.cat([torch.nn.functional.pad(part, (0, most - part.shape[1]), value=-1) for part in (first, second)])


def lines_of(variables: Variables) -> Variables:
    """The variables of lines alone, without the multipliers of constraints."""
    left = {node: {name: value for name, value in named.items() if name != MULTIPLIER} for node, named in variables.items()}
    return {node: named for node, named in left.items() if named}
