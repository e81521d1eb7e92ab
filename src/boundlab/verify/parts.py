"""Open parts of problems in branch and bound: one flat list, whatever problem and clause they belong to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from boundlab.bounds.parts import MULTIPLIER, Splits, no_splits
from boundlab.bounds.space import Variables, one_after_another, taken
from boundlab.spec import Specification


@dataclass(frozen=True)
class Goals:
    """What has to be proven, one clause of one problem each: the problem (i,), and its rows (i, g), some of them twice.

    `place` (i,) says which of a ground's intervals are those of the goal.
    """

    problem: Tensor
    rows: Tensor
    place: Tensor


def members_of(clause: Tensor) -> Tensor:
    """The rows (c, a) of every clause, given that of each row (s,); those with fewer rows hold their first one again."""
    members = [(clause == one).nonzero().squeeze(1) for one in range(int(clause.max()) + 1)]
    most = max(map(len, members))
    return torch.stack([torch.cat([own, own[:1].expand(most - len(own))]) for own in members])


def goals_of(spec: Specification, count: int) -> Goals:
    """Every clause of each of `count` problems."""
    rows = members_of(spec.clause)
    problem = torch.arange(count, device=rows.device).repeat_interleave(len(rows))
    return Goals(problem, rows.repeat(count, 1), problem)


@dataclass(frozen=True)
class Parts:
    """n open parts: the goal of each (n,), a bound of its best row (n,), its constraints, and lines to begin at."""

    goal: Tensor
    lower: Tensor
    splits: Splits
    variables: Variables

    def select(self, index: Tensor) -> Parts:
        """The parts at these places, or where a mask is true."""
        return Parts(self.goal[index], self.lower[index], self.splits.take(index), taken(self.variables, index))

    @property
    def bytes(self) -> int:
        """What the parts hold."""
        tensors = [self.goal, self.lower, *self.splits.parts, *(value for named in self.variables.values()
                                                               for value in named.values())]
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
        return Parts(torch.cat([self.goal, other.goal]), torch.cat([self.lower, other.lower]),
                     self.splits.below(other.splits), variables)


def whole_sets(count: int, like: Tensor) -> Parts:
    """One part for each of `count` goals: its whole set."""
    goal = torch.arange(count, device=like.device)
    return Parts(goal, like.new_full((count,), -torch.inf), no_splits(count, like), {})


def lines_of(variables: Variables) -> Variables:
    """The variables of lines alone, without the multipliers of constraints."""
    left = {node: {name: value for name, value in named.items() if name != MULTIPLIER} for node, named in variables.items()}
    return {node: named for node, named in left.items() if named}
