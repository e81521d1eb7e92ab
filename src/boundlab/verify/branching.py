"""Branch and bound on neurons: parts of a problem are split until each is proven, a witness turns up, or the time is over.

All problems share one flat list of open parts, of which those with the lowest bounds are split next.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from boundlab.bounds.budget import FREE_SHARE, bytes_of, free_bytes
from boundlab.bounds.groups import Ground, ground_of
from boundlab.bounds.problem import problem_of
from boundlab.bounds.space import Own
from boundlab.errors import BoundError, MissingPackage, MissingRule
from boundlab.perturbations.sets import PerturbationSet
from boundlab.verify.base import SHARE, Given, base_of
from boundlab.verify.expanded import Expanded, expanded
from boundlab.verify.expansion import Expansion
from boundlab.verify.fixed import fixed
from boundlab.verify.learnt import Learnt, recalled
from boundlab.verify.narrowing import gathered
from boundlab.verify.options import Branching
from boundlab.verify.parts import Parts, below, goals_of
from boundlab.verify.proof import Narrowed, Proof, inner_of, joined, plain_of
from boundlab.verify.search import Found, least, paced
from boundlab.verify.task import Task
from boundlab.verify.team import ALONE, Team
from boundlab.verify.verdict import Witness

if TYPE_CHECKING:
    from boundlab.programs.leaf import Leaf

FIRST = 16
"""Parts of the first turn."""
ROUNDING = 2 / 3
"""The power of the machine's precision beside a row's size by which bounds have to be above 0 for a proof."""
EASY, MOST_GOALS = 64, 32
"""Parts that are bounded before it pays to bound inner neurons for each goal, and goals for which there is memory."""


@dataclass(frozen=True)
class BranchingState:
    """The problems `index` (m,) of a task with their open parts, and what is known of those that are closed.

    `floor` (i,) is the lowest bound of a proven part of each goal, `lost` (m,) says which problems are given up or have a
    witness, `count` is how many parts the next turn takes, `room` how many bytes those that wait may hold. `shown` are proven
    parts with their goals and histories, if proofs are kept. `made` parts have been split off so far; `narrowed` are ends of
    intervals that were found on them, None where that did not pay.
    """

    task: Task
    index: Tensor
    expansion: Expansion
    waiting: Parts
    floor: Tensor
    lost: Tensor
    count: int
    room: int
    done: int = 0
    witnesses: Mapping[int, Witness] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    shown: tuple[tuple[Tensor, Tensor, Proof], ...] = ()
    made: int = 0
    narrowed: tuple[Narrowed, ...] = ()
    narrows: bool = True

    @property
    def over(self) -> bool:
        """Whether no part is left, or too many are."""
        return not 0 < len(self.waiting.goal) <= self.expansion.options.most_open or self.full

    @property
    def full(self) -> bool:
        """Whether the parts that wait hold more than they may."""
        return self.waiting.bytes > self.room

    @property
    def stubborn(self) -> bool:
        """Whether so much was done that it pays to bound inner neurons again, where what is left to prove fails."""
        if not self.expansion.options.negation or self.expansion.negated is not None or self.done < EASY:
            return False
        return len(self.waiting.goal.unique()) <= MOST_GOALS

    def owner(self, parts: Parts) -> Tensor:
        """The place in `index` of the problem of each part, (n,)."""
        return self.expansion.goals.problem[parts.goal]

    def without(self, problems: set[int]) -> BranchingState:
        """The search of the other problems."""
        lost = self.lost | torch.isin(self.index, self.index.new_tensor(list(problems)))
        return replace(self, waiting=self.waiting.select(~lost[self.owner(self.waiting)]), lost=lost)

    @torch.no_grad()
    def step(self, deadline: float, team: Team = ALONE) -> BranchingState:
        """The lowest parts bounded, and those that are not proven split, by all of a team."""
        if self.stubborn:
            return replace(self, expansion=self.expansion.negating(self.waiting.goal.unique(), time_of(SHARE, deadline)))
        started, (now, waiting) = time.perf_counter(), self.waiting.lowest(self.count)
        device, wish = now.goal.device, (self.task.keep, self.narrows, deadline)
        shares = team.shares(len(now.goal))
        each = [(now.select(share.to(device)), self.made + 2 * int(share[0]), *wish) for share in shares]
        turns = team.run(expanded, self.expansion, each, deadline, device)
        moved = replace(self, waiting=waiting, done=self.done + len(now.goal), made=self.made + 2 * len(now.goal))
        for turn in turns:
            moved = moved.turned(turn, deadline)
        seconds, most = time.perf_counter() - started, len(shares) * self.expansion.at_once
        return replace(moved, count=paced(self.count, seconds, most)).without(set(moved.witnesses))

    def turned(self, turn: Expanded, deadline: float) -> BranchingState:
        """With what a turn has made of some parts."""
        narrowed = self.narrowed if turn.ends is None else (*self.narrowed, turn.ends)
        found = witnesses_of(self.task, self.index[self.expansion.goals.problem[turn.tried]], turn.points)
        moved = replace(self, witnesses={**self.witnesses, **found}, narrowed=narrowed, narrows=self.narrows and turn.pays)
        moved = moved.closed(turn.proven, turn.proof).ended(turn.stuck, deadline)
        return replace(moved, waiting=moved.waiting.join(turn.left).join(turn.halves))

    def closed(self, parts: Parts, proof: Proof | None) -> BranchingState:
        """With some proven parts, and their proof if it is kept."""
        floor = self.floor.scatter_reduce(0, parts.goal, parts.lower, "amin")
        shown = self.shown if proof is None else (*self.shown, (parts.goal.cpu(), parts.history.cpu(), proof))
        return replace(self, floor=floor, shown=shown)

    def ended(self, stuck: Parts, deadline: float) -> BranchingState:
        """With parts that cannot be split: linear programs prove them, or their problem is given up."""
        ends = leaves(self, stuck, deadline)
        shown, lost = ends.lower > 0, self.lost.clone()
        lost[self.owner(stuck)[~shown]] = True
        floor = self.floor.scatter_reduce(0, stuck.goal[shown], ends.lower[shown], "amin")
        kept = self.shown
        if self.task.keep and bool(shown.any()):
            proven = [leaf for leaf in ends.leaves if leaf is not None and leaf.lower > 0]
            proof = self.expansion.shown_by(stuck.select(shown), proven)
            kept = (*kept, (stuck.goal[shown].cpu(), stuck.history[shown].cpu(), proof))
        return replace(self, floor=floor, lost=lost, witnesses={**self.witnesses, **ends.witnesses}, shown=kept,
                       notes=tuple(dict.fromkeys((*self.notes, *ends.notes))))

    def found(self) -> Found:
        settled = ~self.lost
        settled[self.owner(self.waiting)] = False
        proven = {int(self.index[place]): self.rows(place) for place in settled.nonzero().squeeze(1).tolist()}
        notes = (*self.notes, f"they hold more than {self.room / 1e9:.2g} GB of memory") if self.full else self.notes
        return Found(self.witnesses, proven, self.done, len(self.waiting.goal), least(self.waiting.lower), notes)

    def rows(self, place: int) -> Tensor:
        """Lower bounds of a problem's rows (s,) from those of its goals; a goal of several rows says nothing of one of them."""
        goals = self.expansion.goals
        lower = self.floor.new_full((self.task.spec.rows.shape[1],), -torch.inf)
        for goal in (goals.problem == place).nonzero().squeeze(1).tolist():
            rows = goals.every[goal].unique()
            if len(rows) == 1 and bool(self.floor[goal] < torch.inf):
                # Where a goal is assumed to fail, a bound above 0 says that it does not, and nothing of its row elsewhere.
                lower[rows] = self.floor[goal].clamp(max=0) if self.expansion.assumes(goal) else self.floor[goal]
        return lower

    def proof(self, problem: int) -> Proof | None:
        place = int((self.index == problem).nonzero())
        if not self.shown:
            return None
        own = self.expansion.goals.problem.cpu() == place
        leaves = joined([proof.take(own[goal]) for goal, _, proof in self.shown if bool(own[goal].any())])
        history = functools.reduce(below, [lineage[own[goal]] for goal, lineage, _ in self.shown])
        ground, here = self.expansion.first, torch.full((len(leaves.clause),), place)
        plain, inner = plain_of(ground.problem.model.graph, ground.env, here), inner_of(ground, self.expansion.kept, place)
        return replace(leaves, plain=plain, inner=inner, assumed=self.expansion.assumed(place),
                       narrowed=gathered(self.narrowed, history))


def branchable(task: Task, index: Tensor) -> Tensor:
    """Those of the problems `index` (m,) that branching is for: all, where inputs vary on their own and nothing else does."""
    names = {node.name for node in task.model.graph.inputs}
    varying = [key for key, region in task.sets.items() if isinstance(region, PerturbationSet)]
    return index if names.issuperset(varying) else index[:0]


@torch.no_grad()
def branching(task: Task, index: Tensor, options: Branching, deadline: float, known: Sequence[Learnt] = ()) -> BranchingState:
    """The search of the problems `index` (m,) of a task at its beginning; `known` are intervals by the base's method."""
    sets, spec = task.take(index)
    problem = problem_of(*fixed(task.model, sets), spec)
    base = base_of(replace(problem, observe=task.observe), options.base, deadline, task.keep, recalled(known, problem, index))
    ground = ground_of(problem, base.env, Own())
    lower = Given(base.env).run(problem).lower.expand(len(index), -1)
    goals = goals_of(spec, lower, rounding(ground, lower) if task.keep else torch.zeros_like(lower))
    expansion = Expansion(ground, goals, options, ground, base.kept)
    floor = task.spec.rows.new_full((len(expansion.goals.problem),), torch.inf)
    lost = torch.zeros(len(index), dtype=torch.bool, device=index.device)
    room = free_bytes(index.device) // FREE_SHARE if options.memory is None else bytes_of(options.memory)
    return BranchingState(task, index, expansion, expansion.roots(), floor, lost, min(FIRST, expansion.at_once), room)


def rounding(ground: Ground, lower: Tensor) -> Tensor:
    """How far above 0 bounds of rows have to be for a proof (b, s), given their first bounds: a share of what they vary by."""
    spec = ground.problem.spec
    assert spec is not None
    size = lower.abs() + spec.values(ground.about.value(ground.problem.target.index)).abs()
    return torch.finfo(lower.dtype).eps ** ROUNDING * size.nan_to_num(0, posinf=0)


def witnesses_of(task: Task, problem: Tensor, points: Mapping[str, Tensor]) -> dict[int, Witness]:
    """Witnesses of problems (n,) among points (n, *shape) by input name; none where a set does not say which points it has."""
    try:
        named = {node.name: points[node.name] for node in task.model.graph.inputs if node.name in points}
        return task.witnesses(problem, named) if named else {}
    except MissingRule:
        return {}


@dataclass(frozen=True)
class Leaves:
    """What linear programs say of n parts that cannot be split further: bounds (n,), witnesses, and why they said nothing."""

    lower: Tensor
    leaves: list[Leaf | None]
    witnesses: dict[int, Witness]
    notes: tuple[str, ...]


def leaves(state: BranchingState, parts: Parts, deadline: float) -> Leaves:
    """Bounds by linear programs; the first part of a problem that is not proven ends the search for it: others are -inf."""
    lower, witnesses, lost, notes = torch.full_like(parts.lower, -torch.inf), dict[int, Witness](), set[int](), list[str]()
    found: list[Leaf | None] = [None] * len(lower)
    for place, problem in enumerate(state.index[state.owner(parts)].tolist()):
        if problem in lost or time.perf_counter() >= deadline:
            continue
        try:
            leaf = state.expansion.leaf(parts.select(torch.tensor([place], device=parts.goal.device)))
        except (BoundError, MissingPackage, MissingRule) as why:  # what one part's program cannot say spoils no other part
            notes.append(str(why))
            lost.add(problem)
            continue
        lower[place], found[place] = leaf.lower, leaf
        if not leaf.lower > 0:
            lost.add(problem)
            if leaf.point is not None:
                witnesses |= witnesses_of(state.task, state.index.new_tensor([problem]), leaf.point)
    return Leaves(lower, found, witnesses, tuple(notes))


def time_of(share: float, deadline: float) -> float:
    """When a share of the time until the deadline will be over."""
    now = time.perf_counter()
    return now + share * (deadline - now)
