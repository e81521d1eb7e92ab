"""Branch and bound on neurons: parts of a problem are split until each is proven, a witness turns up, or the time is over.

Bunel et al. 2020 (branch and bound); De Palma et al. 2021 (filtered branching); Wang et al. 2021 (beta-CROWN). All problems
share one flat list of open parts, of which those with the lowest bounds are split next.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from boundlab.bounds.climb import Ascent, beginning, climb
from boundlab.bounds.groups import Ground, Groups, ground_of
from boundlab.bounds.optimise import groups_at_once
from boundlab.bounds.parts import PartLower, Splits
from boundlab.bounds.problem import Method, problem_of
from boundlab.bounds.space import Own
from boundlab.bounds.start import NeuronStart
from boundlab.errors import BoundError, MissingPackage, MissingRule
from boundlab.interval import Interval
from boundlab.maps import Dense, at_owner
from boundlab.perturbations.sets import PerturbationSet
from boundlab.programs.minima import extra
from boundlab.spec import Specification
from boundlab.verify.base import base_of
from boundlab.verify.parts import Goals, Parts, goals_of, lines_of, whole_sets
from boundlab.verify.proof import Proof, inner_of, joined, settled_slopes
from boundlab.verify.scores import Candidates, candidates, rows_at
from boundlab.verify.task import Task
from boundlab.verify.verdict import Witness

if TYPE_CHECKING:
    from boundlab.programs.leaf import Leaf

OTHER = 1e-3
"""What the bound of the better half counts beside that of the worse one."""
FIRST = 16
"""Parts of the first turn."""
PACE = 1.0
"""Seconds that one turn of a search should take: so many parts share it, and no more."""
DECAY = 0.98
"""By how much a step is shorter than the one before."""


@dataclass(frozen=True)
class Branching:
    """When and how to split neurons: at most `parts` at a time, each bounded by `steps` steps of size `rate` from its parent's
    lines.

    `base` bounds inner nodes once; without one it is CROWN, whose inner bounds are optimised where there is time for that.
    The whole sets get `first_steps`. Of the `candidates` best neurons by score, that one is split whose halves have the best
    bounds by their parent's lines. The search gives up when more than `most_open` parts wait. With `keep` it keeps proofs.
    """

    base: Method | None = None
    parts: int = 256
    steps: int = 12
    first_steps: int = 40
    rate: float = 0.1
    candidates: int = 12
    most_open: int = 100_000
    keep: bool = False


@dataclass(frozen=True)
class Branched:
    """What the search found: witnesses by problem, proven problems with bounds of their rows (s,), parts bounded and left.

    `notes` say why linear programs said nothing. `proofs` are those of proven problems in which no program had to decide.
    """

    witnesses: Mapping[int, Witness]
    proven: Mapping[int, Tensor]
    parts: int
    left: int
    notes: tuple[str, ...] = ()
    proofs: Mapping[int, Proof] = field(default_factory=dict)


@dataclass(frozen=True)
class Search:
    """What all parts have in common: the ground of their bounds, the goals, how to search, and how inner bounds were found."""

    ground: Ground
    goals: Goals
    options: Branching
    kept: Mapping[int, NeuronStart] = field(default_factory=dict)

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
        members = self.goals.rows[parts.goal]
        return at_owner(spec.offset, owner).expand(len(owner), -1).gather(1, members)

    def roots(self) -> Parts:
        """The whole set of every goal."""
        problem = self.ground.problem
        assert problem.spec is not None
        return whole_sets(len(self.goals.problem), problem.spec.rows)

    @cached_property
    def at_once(self) -> int:
        """How many parts may be bounded together."""
        return max(1, min(self.options.parts, groups_at_once(self.ground, self.objective(self.roots()).groups)))

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
        best = torch.where(torch.isfinite(best), best, -torch.inf)
        lower = torch.maximum(parts.lower, (best + self.offset(parts)).amax(1))
        return torch.where(objective.clipped[1], torch.inf, lower)

    def split(self, parts: Parts) -> tuple[Parts, Parts]:
        """Two halves of each part, at the neuron whose halves are best; and the parts that cannot be split."""
        objective = self.objective(parts)
        found = candidates(objective, beginning(objective, len(parts.goal), parts.variables), self.options.candidates)
        possible = found.score.amax(1) > -torch.inf if found.score.shape[1] else torch.zeros_like(parts.goal, dtype=torch.bool)
        stuck, parts, found = parts.select(~possible), parts.select(possible), found.select(possible)
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

    def leaf(self, part: Parts) -> Leaf:
        """What a linear program says of one part."""
        owner, members = self.goals.problem[part.goal], self.goals.rows[part.goal[0]].unique()
        problem = self.ground.problem.take(owner)
        assert problem.spec is not None
        spec = Specification(problem.spec.rows[:, members], problem.spec.offset[:, members], torch.zeros_like(members))
        own = {index: value.at(owner) if isinstance(value, Interval) else at_owner(value, owner)
               for index, value in self.ground.env.items()}
        found: Leaf = extra().leaf.leaf_of(replace(problem, spec=spec), part.splits.clip(own)[0], part.splits)
        return found

    def shown(self, parts: Parts) -> Proof:
        """How to see that a row of each of these parts is positive."""
        objective = self.objective(parts)
        variables = beginning(objective, len(parts.goal), parts.variables)
        best = (objective.at(variables) + self.offset(parts)).argmax(1)
        clause = parts.goal - torch.searchsorted(self.goals.problem, self.goals.problem[parts.goal])
        row = self.goals.rows[parts.goal, best]
        return Proof(clause.cpu(), row.cpu(), parts.splits.cpu(), settled_slopes(objective, objective.slopes(variables), best))

    def points(self, parts: Parts) -> Mapping[str, Tensor]:
        """Points (n, *shape) by input name where the linear bound of each part's best row is smallest on the whole set."""
        objective, problem = self.objective(parts), self.ground.problem
        pulled = objective.pulled(beginning(objective, len(parts.goal), parts.variables))
        owner, found = objective.groups.owner, {}
        for node in problem.model.graph.inputs:
            region = problem.sets.get(node.index)
            if region is None:
                value = problem.inputs[node.name]
                found[node.name] = at_owner(value, owner).expand(len(owner), *value.shape[1:])
                continue
            region = region if region.box().shape[0] == 1 else region.take(owner)
            center = region.box().center.expand(len(owner), *node.shape)
            rows = pulled.coefficients.get(node.index)
            found[node.name] = center if rows is None else center - region.ascent(rows.dense()[:, 0])
        return found


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
    """Those of the problems `index` (m,) that branching is for: all, where inputs vary on their own and nothing else does."""
    names = {node.name for node in task.model.graph.inputs}
    varying = [key for key, region in task.sets.items() if isinstance(region, PerturbationSet)]
    return index if names.issuperset(varying) else index[:0]


@torch.no_grad()
def branch(task: Task, index: Tensor, options: Branching, deadline: float, first: bool) -> Branched:
    """Split the problems `index` (m,) until the deadline; with `first`, the first witness ends the search."""
    search = search_of(task, index, options, deadline)
    problem_of_goal = search.goals.problem
    witnesses, notes = dict[int, Witness](), tuple[str, ...]()
    over = torch.zeros(len(index), dtype=torch.bool, device=index.device)
    floor = task.spec.rows.new_full((len(problem_of_goal),), torch.inf)
    waiting, done = search.roots(), 0
    count, proofs, programs = min(FIRST, search.at_once), list[tuple[Tensor, Proof]](), set[int]()
    while len(waiting.goal) and len(waiting.goal) <= options.most_open and time.perf_counter() < deadline:
        now, waiting, started = *waiting.lowest(count), time.perf_counter()
        now, done = search.bounded(now), done + len(now.goal)
        proven = now.lower > 0
        floor = floor.scatter_reduce(0, now.goal[proven], now.lower[proven], "amin")
        if options.keep and bool(proven.any()):
            proofs.append((now.goal[proven].cpu(), search.shown(now.select(proven))))
        now = now.select(~proven)
        if len(now.goal) == 0:
            continue
        witnesses |= found_at(task, index[problem_of_goal[now.goal]], functools.partial(search.points, now))
        if first and witnesses:
            break
        fresh, stuck = search.split(now)
        ends = leaves(task, search, index, stuck, deadline)
        witnesses, notes, shown = witnesses | ends.witnesses, (*notes, *ends.notes), ends.lower > 0
        floor = floor.scatter_reduce(0, stuck.goal[shown], ends.lower[shown], "amin")
        over[problem_of_goal[stuck.goal[~shown]]] = True
        programs |= set(problem_of_goal[stuck.goal].tolist())
        over |= torch.isin(index, torch.tensor(list(witnesses), dtype=index.dtype, device=index.device))
        waiting = waiting.join(fresh)
        waiting = waiting.select(~over[problem_of_goal[waiting.goal]])
        count = paced(count, time.perf_counter() - started, search.at_once)
    over[problem_of_goal[waiting.goal]] = True
    settled = [] if first and witnesses else (~over).nonzero().squeeze(1).tolist()
    proven_rows = {int(index[place]): rows_of_goals(search, floor, place) for place in settled}
    kept = {int(index[place]): proof_of(search, proofs, place) for place in settled if options.keep and place not in programs}
    return Branched(witnesses, proven_rows, done, len(waiting.goal), tuple(dict.fromkeys(notes)), kept)


def proof_of(search: Search, proofs: Sequence[tuple[Tensor, Proof]], problem: int) -> Proof:
    """The proof of one problem from what was shown of all goals, part by part."""
    own = search.goals.problem.cpu() == problem
    found = joined([proof.take(own[goal]) for goal, proof in proofs if bool(own[goal].any())])
    return replace(found, inner=inner_of(search.ground, search.kept, problem))


def found_at(task: Task, problem: Tensor, points: Callable[[], Mapping[str, Tensor]]) -> dict[int, Witness]:
    """Witnesses of problems (n,) among points (n, *shape) by input name; none where a set does not say which points it has."""
    try:
        return task.witnesses(problem, points())
    except MissingRule:
        return {}


@dataclass(frozen=True)
class Leaves:
    """What linear programs say of n parts that cannot be split further: bounds (n,), witnesses, and why they said nothing."""

    lower: Tensor
    witnesses: dict[int, Witness]
    notes: tuple[str, ...]


def leaves(task: Task, search: Search, index: Tensor, parts: Parts, deadline: float) -> Leaves:
    """Bounds by linear programs; the first part of a problem that is not proven ends the search for it: others are -inf."""
    lower, witnesses, lost, notes = torch.full_like(parts.lower, -torch.inf), dict[int, Witness](), set[int](), list[str]()
    for place, goal in enumerate(parts.goal.tolist()):
        problem = int(index[search.goals.problem[goal]])
        if problem in lost or time.perf_counter() >= deadline:
            continue
        try:
            leaf = search.leaf(parts.select(torch.tensor([place], device=parts.goal.device)))
        except (BoundError, MissingPackage, MissingRule) as why:  # what one part's program cannot say spoils no other part
            notes.append(str(why))
            lost.add(problem)
            continue
        lower[place] = leaf.lower
        if not leaf.lower > 0:
            lost.add(problem)
            if leaf.point is not None:
                witnesses |= found_at(task, index.new_tensor([problem]), functools.partial(dict, leaf.point))
    return Leaves(lower, witnesses, tuple(notes))


def paced(count: int, seconds: float, most: int) -> int:
    """How many parts the next turn takes, if `count` took so many seconds."""
    if seconds > 2 * PACE:
        return max(1, count // 2)
    return min(2 * count, most) if seconds < PACE else count


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


def search_of(task: Task, index: Tensor, options: Branching, deadline: float) -> Search:
    """The search for the problems `index` (m,) of a task."""
    sets, spec = task.take(index)
    problem = problem_of(task.model, sets, spec)
    base = base_of(problem, options.base, deadline, options.keep)
    return Search(ground_of(problem, base.env, Own()), goals_of(spec, len(index)), options, base.kept)
