"""Branch and bound on neurons: parts of a problem are split at a neuron until each is proven, a witness turns up, or time ends.

Bunel et al. 2020 (branch and bound); De Palma et al. 2021 (filtered branching); Wang et al. 2021 (beta-CROWN). All problems share
one flat list of open parts, of which those with the lowest bounds are split next.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from boundlab.bounds.climb import Ascent, beginning, climb
from boundlab.bounds.groups import Ground, Groups, ground_of
from boundlab.bounds.methods import CROWN
from boundlab.bounds.optimise import Optimised, groups_at_once
from boundlab.bounds.parts import PartLower, Splits
from boundlab.bounds.problem import Method, problem_of
from boundlab.bounds.space import Own
from boundlab.maps import Dense
from boundlab.perturbations.sets import PerturbationSet
from boundlab.verify.parts import Goals, Parts, goals_of, lines_of, whole_sets
from boundlab.verify.scores import Candidates, candidates, rows_at
from boundlab.verify.task import Task
from boundlab.verify.verdict import Witness

OTHER = 1e-3
"""What the bound of the better half counts beside that of the worse one."""
DECAY = 0.98
"""By how much a step is shorter than the one before."""


@dataclass(frozen=True)
class Branching:
    """When and how to split neurons: `parts` at a time, each bounded by `steps` steps of size `rate` from its parent's lines.

    `base` bounds inner nodes once; the whole sets get `first_steps`. Of the `candidates` best neurons by score, that one is
    split whose halves have the best bounds by their parent's lines. The search gives up when more than `most_open` parts wait.
    """

    base: Method = field(default_factory=lambda: Optimised(CROWN(), inner=True))
    parts: int = 128
    steps: int = 12
    first_steps: int = 40
    rate: float = 0.1
    candidates: int = 6
    most_open: int = 100_000


@dataclass(frozen=True)
class Branched:
    """What the search found: witnesses by problem, proven problems with bounds of their rows (s,), parts bounded and left."""

    witnesses: Mapping[int, Witness]
    proven: Mapping[int, Tensor]
    parts: int
    left: int


@dataclass(frozen=True)
class Search:
    """What all parts have in common: the ground of their bounds, the goals, and how to search."""

    ground: Ground
    goals: Goals
    options: Branching

    def objective(self, parts: Parts) -> PartLower:
        """Lower bounds of the goals' rows on parts, without their offset."""
        problem, owner, members = self.ground.problem, self.goals.problem[parts.goal], self.goals.rows[parts.goal]
        assert problem.spec is not None
        rows, target = problem.spec.rows, problem.target
        shared = torch.zeros_like(owner) if len(rows) == 1 else owner

        def rows_of(places: Tensor) -> Dense:
            return Dense(target.shape, None, rows[shared[places, None], members[places]])

        return PartLower(self.ground, Groups(target.index, members.shape[1], owner, rows_of), parts.splits)

    def offset(self, parts: Parts) -> Tensor:
        """What is added to the goals' rows, (n, g)."""
        spec, owner = self.ground.problem.spec, self.goals.problem[parts.goal]
        assert spec is not None
        return spec.offset[torch.zeros_like(owner) if len(spec.offset) == 1 else owner].gather(1, self.goals.rows[parts.goal])

    @cached_property
    def at_once(self) -> int:
        """How many parts are bounded together."""
        groups = self.objective(whole_sets(1, self.ground.problem.spec.rows)).groups  # type: ignore[union-attr]
        return max(1, min(self.options.parts, groups_at_once(self.ground, groups)))

    def bounded(self, parts: Parts) -> Parts:
        """The parts with bounds of their own, climbed to from the lines that they bring."""
        objective, offset = self.objective(parts), self.offset(parts)
        steps = self.options.steps if parts.splits.node.shape[1] else self.options.first_steps

        def done(best: Tensor) -> Tensor:
            return (best + offset).amax(1) > 0

        found = climb(objective, Ascent(steps, self.options.rate, DECAY), done, parts.variables)
        lower = self.least(parts, objective, found.best)
        return Parts(parts.goal, lower, parts.splits.weighed(found.variables), lines_of(found.variables))

    def least(self, parts: Parts, objective: PartLower, best: Tensor) -> Tensor:
        """The best row of each part (n,), by its own bounds or its parent's; infinite where a part is seen to be empty."""
        lower = torch.maximum(parts.lower, (best + self.offset(parts)).amax(1))
        return torch.where(objective.clipped[1], torch.inf, lower)

    def split(self, parts: Parts) -> tuple[Parts, Tensor]:
        """Two halves of each part, at the neuron whose halves are best; and the goals (k,) of parts that cannot be split."""
        objective = self.objective(parts)
        found = candidates(objective, beginning(objective, len(parts.goal), parts.variables), self.options.candidates)
        possible = found.score.amax(1) > -torch.inf if found.score.shape[1] else torch.zeros_like(parts.goal, dtype=torch.bool)
        stuck, parts, found = parts.goal[~possible], parts.select(possible), found.select(possible)
        if len(parts.goal) == 0:
            return parts, stuck
        tried = [self.tried(parts, found, place) for place in range(found.score.shape[1])]
        worth = torch.stack([value for value, _ in tried], 1)
        best = torch.where(found.score > -torch.inf, worth, -torch.inf).argmax(1)
        weight = torch.stack([weight for _, weight in tried], 2).gather(2, best[None, :, None].expand(2, -1, 1))
        return halves(parts, found.gather(best[:, None]), weight.squeeze(2)), stuck

    def tried(self, parts: Parts, found: Candidates, place: int) -> tuple[Tensor, Tensor]:
        """What a split at one candidate is worth to each part (n,), and the multipliers (2, n) at which its halves begin.

        The worth is the bound of the worse half by their parent's lines, and a little of the other. Multipliers make the
        rows below the neuron those of the parent where that is possible, so that nothing is lost at the start.
        """
        here = found.gather(torch.full_like(parts.goal, place)[:, None])
        both = halves(parts, here, here.row.new_zeros(2, len(here.row)))
        objective = self.objective(both)
        arrived = objective.arriving(beginning(objective, len(both.goal), both.variables))
        change = rows_at(arrived, both.splits.node[:, -1], both.splits.neuron[:, -1]).reshape(2, -1) - here.row.T
        weight = torch.stack([change[0], -change[1]]).clamp(min=0)
        both = halves(parts, here, weight)
        objective = self.objective(both)
        lower = objective.at(beginning(objective, len(both.goal), both.variables))
        bounds = self.least(both, objective, lower).clamp(max=0).reshape(2, -1)
        return bounds.amin(0) + OTHER * bounds.amax(0), weight

    def points(self, parts: Parts) -> Mapping[str, Tensor]:
        """Points (n, *shape) by input name where the linear bound of each part's best row is smallest on the whole set."""
        objective, problem = self.objective(parts), self.ground.problem
        pulled = objective.pulled(beginning(objective, len(parts.goal), parts.variables))
        owner, found = objective.groups.owner, {}
        for node in problem.model.graph.inputs:
            region = problem.sets.get(node.index)
            if region is None:
                found[node.name] = self.taken(problem.inputs[node.name], owner)
                continue
            region = region if region.box().shape[0] == 1 else region.take(owner)
            center = region.box().center.expand(len(owner), *node.shape)
            rows = pulled.coefficients.get(node.index)
            found[node.name] = center if rows is None else center - region.ascent(rows.dense()[:, 0])
        return found

    def taken(self, value: Tensor, owner: Tensor) -> Tensor:
        """A constant input of each owner."""
        return value[torch.zeros_like(owner) if len(value) == 1 else owner]


def halves(parts: Parts, at: Candidates, weight: Tensor) -> Parts:
    """Both halves of each part, at one candidate (n, 1) of each: first all upper ones, then all lower ones.

    Their multipliers begin at `weight` (2, n).
    """
    size = torch.maximum(at.row.abs(), at.size)
    sides = [Splits(at.node, at.neuron, torch.full_like(at.node, side), at.point, weight[place][:, None], size)
             for place, side in enumerate((1, -1))]
    above, below = (replace(parts, splits=parts.splits.beside(side)) for side in sides)
    return above.join(below)


def branchable(task: Task, index: Tensor) -> Tensor:
    """Those of the problems `index` (m,) that branching is for: all of them, where inputs vary on their own and nothing else."""
    names = {node.name for node in task.model.graph.inputs}
    varying = [key for key, region in task.sets.items() if isinstance(region, PerturbationSet)]
    return index if names.issuperset(varying) else index[:0]


@torch.no_grad()
def branch(task: Task, index: Tensor, options: Branching, deadline: float, first: bool) -> Branched:
    """Split the problems `index` (m,) until the deadline; with `first`, the first witness ends the search."""
    search = search_of(task, index, options)
    problem_of_goal = search.goals.problem
    witnesses: dict[int, Witness] = {}
    over = torch.zeros(len(index), dtype=torch.bool, device=index.device)
    floor = task.spec.rows.new_full((len(problem_of_goal),), torch.inf)
    waiting, done = whole_sets(len(problem_of_goal), task.spec.rows), 0
    while len(waiting.goal) and len(waiting.goal) <= options.most_open and time.perf_counter() < deadline:
        now, waiting = waiting.lowest(search.at_once)
        now, done = search.bounded(now), done + len(now.goal)
        proven = now.lower > 0
        floor = floor.scatter_reduce(0, now.goal[proven], now.lower[proven], "amin")
        now = now.select(~proven)
        if len(now.goal) == 0:
            continue
        witnesses |= task.witnesses(index[problem_of_goal[now.goal]], search.points(now))
        if first and witnesses:
            break
        fresh, stuck = search.split(now)
        over[problem_of_goal[stuck]] = True
        waiting = waiting.join(fresh)
        over |= torch.isin(index, torch.tensor(list(witnesses), dtype=index.dtype, device=index.device))
        waiting = waiting.select(~over[problem_of_goal[waiting.goal]])
    over[problem_of_goal[waiting.goal]] = True
    settled = [] if first and witnesses else (~over).nonzero().squeeze(1).tolist()
    proven_rows = {int(index[place]): rows_of_goals(search, floor, place) for place in settled}
    return Branched(witnesses, proven_rows, done, len(waiting.goal))


def rows_of_goals(search: Search, floor: Tensor, place: int) -> Tensor:
    """Lower bounds of a problem's rows (s,) from those of its goals; a goal of several rows says nothing of one of them."""
    spec = search.ground.problem.spec
    assert spec is not None
    lower = floor.new_full((spec.rows.shape[1],), -torch.inf)
    for goal in (search.goals.problem == place).nonzero().squeeze(1).tolist():
        rows = search.goals.rows[goal].unique()
        if len(rows) == 1 and bool(floor[goal] < torch.inf):
            lower[rows] = floor[goal]
    return lower


def search_of(task: Task, index: Tensor, options: Branching) -> Search:
    """The search for the problems `index` (m,) of a task."""
    sets, spec = task.take(index)
    problem = problem_of(task.model, sets, spec)
    ground = ground_of(problem, options.base.environment(problem), Own())
    return Search(ground, goals_of(spec, len(index)), options)
