"""Parts bounded and split: what one turn of branch and bound on neurons does to them.

Bunel et al. 2020 (branch and bound); De Palma et al. 2021 (filtered branching); Wang et al. 2021 (beta-CROWN).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from boundlab.bounds.climb import Ascent, beginning, climb, until
from boundlab.bounds.groups import Ground, Groups, ground_of
from boundlab.bounds.optimise import groups_at_once
from boundlab.bounds.parts import PartLower, Splits
from boundlab.bounds.start import NeuronStart
from boundlab.interval import Interval
from boundlab.maps import Dense, at_owner
from boundlab.programs.minima import extra
from boundlab.spec import Specification
from boundlab.verify.negation import Clauses, Negated, assumed_of, negated
from boundlab.verify.options import Branching
from boundlab.verify.parts import Goals, Parts, lines_of, whole_sets
from boundlab.verify.proof import Assumed, Proof, either, used
from boundlab.verify.scores import Candidates, candidates, rows_at

if TYPE_CHECKING:
    from boundlab.programs.leaf import Leaf

OTHER = 1e-3
"""What the bound of the better half counts beside that of the worse one."""
DECAY = 0.98
"""By how much a step is shorter than the one before."""
SHORTER, MEANS = 0.4, (0.6, 0.99)
"""How long steps on parts are beside those on whole sets, and what stays of Adam's means there. Lines that come from a part's
parent are near their best, and few steps have no time for long means."""
LONGER = 10.0
"""How much longer the steps of a multiplier are than those of lines, as a share of the row at its neuron: the new one has yet
to find its size."""


@dataclass(frozen=True)
class Expansion:
    """What all parts have in common: the ground of their bounds, the goals, how to search, and how inner bounds were found.

    `first` is the ground of whole problems. Once some goals are `negated`, the ground's intervals hold where these fail: those
    of goal `open[k]` stand in place k.
    """

    ground: Ground
    goals: Goals
    options: Branching
    first: Ground
    kept: Mapping[int, NeuronStart] = field(default_factory=dict)
    open: Tensor | None = None
    negated: Negated | None = None

    def negating(self, goals: Tensor, deadline: float) -> Expansion:
        """With inner intervals for each of some goals (k,) that hold where it fails; only these are searched from then on."""
        owner, spec = self.goals.problem[goals], self.first.problem.spec
        assert spec is not None
        problem = self.first.problem.take(owner)
        env = {index: value.at(owner) if isinstance(value, Interval) else at_owner(value, owner)
               for index, value in self.first.env.items()}
        found = negated(problem, env, self.clauses(goals), self.kept, deadline)
        place = torch.zeros_like(self.goals.place).index_copy(0, goals, torch.arange(len(goals), device=goals.device))
        return replace(self, ground=ground_of(problem, found.env, self.first.space), goals=replace(self.goals, place=place),
                       open=goals, negated=found)

    def assumes(self, goal: int) -> bool:
        """Whether a goal's intervals hold only where it fails."""
        return self.open is not None and bool((self.open == goal).any())

    def assumed(self, problem: int) -> dict[int, Mapping[int, Assumed]]:
        """By clause and node how intervals were found that hold where one problem's clause fails."""
        if self.negated is None or self.open is None:
            return {}
        first, clauses = int((self.goals.problem == problem).nonzero()[0]), self.clauses(self.open)
        return {goal - first: assumed_of(self.negated, clauses, place) for place, goal in enumerate(self.open.tolist())
                if self.goals.problem[goal] == problem}

    def clauses(self, goals: Tensor) -> Clauses:
        """What fails where some goals (k,) do."""
        owner, members, spec = self.goals.problem[goals], self.goals.every[goals], self.first.problem.spec
        assert spec is not None
        place = torch.zeros_like(owner) if len(spec.rows) == 1 else owner
        return Clauses(spec.rows[place[:, None], members], spec.offset[place[:, None], members], owner)

    def objective(self, parts: Parts) -> PartLower:
        """Lower bounds of the goals' rows on parts, without their offset."""
        problem, owner, members = self.ground.problem, self.goals.place[parts.goal], self.goals.rows[parts.goal]
        assert problem.spec is not None
        rows, target = problem.spec.rows, problem.target
        shared = torch.zeros_like(owner) if len(rows) == 1 else owner

        def rows_of(places: Tensor) -> Dense:
            return Dense(target.shape, None, rows[shared[places, None], members[places]])

        return PartLower(self.ground, Groups(target.index, members.shape[1], owner, rows_of), parts.splits, parts.inner)

    def offset(self, parts: Parts) -> Tensor:
        """What is added to the goals' rows, (n, g)."""
        spec, owner = self.ground.problem.spec, self.goals.place[parts.goal]
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

    def bounded(self, parts: Parts, deadline: float) -> Parts:
        """The parts with bounds of their own, climbed to from the lines that they bring."""
        objective, offset, margin = self.objective(parts), self.offset(parts), self.goals.margin[parts.goal]
        ascent = Ascent(self.options.first_steps, self.options.rate, DECAY)
        if parts.splits.node.shape[1]:
            ascent = Ascent(self.options.steps, SHORTER * self.options.rate, DECAY, means=MEANS)

        def done(best: Tensor) -> Tensor:
            return (best + offset).amax(1) > margin

        def best_row(lower: Tensor, places: Tensor) -> Tensor:
            return (lower + offset[places]).amax(1)

        found = climb(objective, ascent, until(deadline, done), parts.variables, best_row)
        lower = self.least(parts, objective, found.best)
        return replace(parts, lower=lower, splits=parts.splits.weighed(found.variables), variables=lines_of(found.variables))

    def least(self, parts: Parts, objective: PartLower, best: Tensor) -> Tensor:
        """The best row of each part (n,), by its own bounds or its parent's; infinite where a part is seen to be empty."""
        best = torch.where(torch.isfinite(best), best, -torch.inf)
        lower = torch.maximum(parts.lower, (best + self.offset(parts)).amax(1))
        empty = objective.clipped[1]
        if self.negated is not None:
            empty = empty | self.negated.empty[objective.groups.owner]
        return torch.where(empty, torch.inf, lower)

    def split(self, parts: Parts) -> tuple[Parts, Parts]:
        """Two halves of each part, at the neuron whose halves are best; and the parts that cannot be split."""
        objective = self.objective(parts)
        found = candidates(objective, beginning(objective, len(parts.goal), parts.variables), self.options.candidates)
        possible = found.score.amax(1) > -torch.inf if found.score.shape[1] else torch.zeros_like(parts.goal, dtype=torch.bool)
        stuck, parts, found = parts.select(~possible), parts.select(possible), found.select(possible)
        if len(parts.goal) == 0:
            return parts, stuck
        count = found.score.shape[1]
        every = torch.arange(len(parts.goal) * count, device=parts.goal.device)
        tried = [self.tried(parts.select(some // count), found.one_by_one(some)) for some in every.split(self.at_once)]
        worth, weight = (torch.cat(results, -1) for results in zip(*tried, strict=True))
        best = torch.where(found.score > -torch.inf, worth.reshape(-1, count), -torch.inf).argmax(1)
        chosen = torch.arange(len(best), device=best.device) * count + best
        return halves(parts, found.gather(best[:, None]), weight[:, chosen]), stuck

    def tried(self, parts: Parts, here: Candidates) -> tuple[Tensor, Tensor]:
        """What a split at a candidate (n, 1) is worth to each part (n,), and the multipliers (2, n) at which its halves begin.

        The worth is the bound of the worse half by their parent's lines, and a little of the other. Multipliers make the
        rows below the neuron those of the parent where that is possible, so that nothing is lost at the start.
        """
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
        owner, members = self.goals.place[part.goal], self.goals.every[part.goal[0]].unique()
        problem = self.ground.problem.take(owner)
        assert problem.spec is not None
        spec = Specification(problem.spec.rows[:, members], problem.spec.offset[:, members], torch.zeros_like(members))
        own = {index: value.at(owner) if isinstance(value, Interval) else at_owner(value, owner)
               for index, value in self.ground.env.items()}
        found: Leaf = extra().leaf.leaf_of(replace(problem, spec=spec), part.splits.clip({**own, **part.inner})[0], part.splits)
        return found

    def shown(self, parts: Parts) -> Proof:
        """How to see that a row of each of these parts is positive: by the lines that it brings, or by plain ones."""
        objective = self.objective(parts)
        variables = beginning(objective, len(parts.goal), parts.variables)
        own, plain = (objective.at(chosen).nan_to_num(-torch.inf) + self.offset(parts) for chosen in (variables, {}))
        worse = own.amax(1) < plain.amax(1)
        best = torch.where(worse[:, None], plain, own).argmax(1)
        clause = parts.goal - torch.searchsorted(self.goals.problem, self.goals.problem[parts.goal])
        place = self.goals.place_in_clause(parts.goal, self.goals.rows[parts.goal].gather(1, best[:, None]).squeeze(1))
        weights = torch.nn.functional.one_hot(place, self.goals.every.shape[1]).double()
        splits = replace(parts.splits, weight=torch.where(worse[:, None], 0.0, parts.splits.weight))
        slopes = either(worse.cpu(), used(objective, {}, best), used(objective, variables, best))
        return Proof(clause.cpu(), weights.cpu(), splits.cpu(), slopes)

    def shown_by(self, parts: Parts, found: Sequence[Leaf]) -> Proof:
        """The same for parts of which linear programs know it: on them functions are affine, so that no slopes are needed."""
        clause = parts.goal - torch.searchsorted(self.goals.problem, self.goals.problem[parts.goal])
        weights = torch.zeros(len(found), self.goals.every.shape[1], dtype=torch.float64)
        for place, leaf in enumerate(found):
            weights[place, :len(leaf.weights)] = torch.from_numpy(leaf.weights)
        multipliers = torch.from_numpy(np.stack([leaf.multipliers for leaf in found]))
        return Proof(clause.cpu(), weights, replace(parts.splits.cpu(), weight=multipliers))

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
    size = LONGER * torch.maximum(at.row.abs(), at.size)
    sides = [Splits(at.node, at.neuron, torch.full_like(at.node, side), at.point, weight[place][:, None], size)
             for place, side in enumerate((1, -1))]
    above, below = (replace(parts, splits=parts.splits.beside(side)) for side in sides)
    return above.join(below)
