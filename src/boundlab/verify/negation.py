"""Inner intervals that hold where a goal fails, and how to see that: used for that goal alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from boundlab.bounds.backward import Env
from boundlab.bounds.climb import Ascent, Found, climb, never, until
from boundlab.bounds.groups import Ground, Neurons, ground_of, neurons_of
from boundlab.bounds.intermediate import Readers, consumers, perturbed_nodes, relaxer
from boundlab.bounds.methods import asker
from boundlab.bounds.negation import FailingLower, failing
from boundlab.bounds.optimise import groups_at_once, placed
from boundlab.bounds.problem import Problem
from boundlab.bounds.space import Own, Variables, one_after_another, taken
from boundlab.bounds.start import NeuronStart
from boundlab.bounds.terms import MULTIPLIER
from boundlab.graph import Node
from boundlab.interval import Interval
from boundlab.maps import flat
from boundlab.verify.proof import Assumed, of_sides

LAYERS = 2
"""So many of the last nodes that nonlinear functions read are bounded again: earlier ones gain next to nothing (measured)."""
ASCENT = Ascent(20, 0.25, 0.98)


@dataclass(frozen=True)
class Sides:
    """Neurons of a node that were bounded where their goal fails, on the ground of that, and the variables of both sides."""

    ground: Ground
    neurons: Neurons
    variables: Variables


@dataclass(frozen=True)
class Negated:
    """Intervals (i, *shape) that hold where goals fail, which goals can be seen not to fail anywhere (i,), and how each node's
    intervals were found, in that order."""

    env: Env
    empty: Tensor
    sides: Mapping[int, Sides] = field(default_factory=dict)


@dataclass(frozen=True)
class Clauses:
    """What has to fail for each of i problems: all of rows (i, a, *out) . y + offset (i, a) are 0 or less.

    `problem` (i,) is where each problem stands among those whose neurons have variables already.
    """

    rows: Tensor
    offset: Tensor
    problem: Tensor


def asked_nodes(problem: Problem, env: Env) -> Sequence[tuple[Node, Tensor]]:
    """The last nodes that nonlinear functions read, with the neurons (b, *shape) of which tighter bounds would be used."""
    readers = Readers(consumers(problem.model.graph), perturbed_nodes(problem.model.graph, problem.sets))
    asked = asker(problem, readers, relaxer(env))
    inner = [node for node in problem.model.graph if not node.source and isinstance(env.get(node.index), Interval)
             and node.index != problem.target.index]
    masks = [(node, mask) for node in inner if (mask := asked(node, env)) is not None and bool(mask.any())]
    return masks[-LAYERS:]


@torch.no_grad()
def negated(problem: Problem, env: Env, clauses: Clauses, kept: Mapping[int, NeuronStart], deadline: float) -> Negated:
    """Better intervals of some nodes, for each problem where its clause fails; lines begin where variables were `kept`."""
    found, sides = dict(env), dict[int, Sides]()
    empty = torch.zeros(problem.batch, dtype=torch.bool, device=clauses.rows.device)
    for node, mask in asked_nodes(problem, env):
        known = found[node.index]
        assert isinstance(known, Interval)
        known = known.map(lambda end: end.expand(problem.batch, *end.shape[1:]))
        neurons = neurons_of(node, known, mask.expand(known.shape), 1)
        own = Sides(ground_of(problem, dict(found), Own()), neurons, {})
        start = kept[node.index].of(clauses.problem[neurons.owner], neurons.index) if node.index in kept else None
        ends = climbed(own, clauses, start, deadline)
        better = placed(known, neurons, torch.cat([one.best for one in ends]))
        sides[node.index] = Sides(own.ground, neurons, one_after_another([one.variables for one in ends]))
        found[node.index], crossed = ordered(better)
        empty |= crossed
    return Negated(found, empty, sides)


def objective_of(sides: Sides, clauses: Clauses) -> FailingLower:
    """Lower bounds of both sides of all neurons."""
    ground, neurons, groups = sides.ground, sides.neurons, sides.neurons.both_sides()
    known, output = (ground.env[index] for index in (neurons.node.index, ground.problem.target.index))
    assert isinstance(known, Interval) and isinstance(output, Interval)
    width = flat(known.width, 1)
    width = width.expand(int(groups.owner.max()) + 1, -1) if len(width) == 1 else width
    widths = width[neurons.owner, neurons.index].repeat_interleave(2)
    rows, offset = clauses.rows[groups.owner], clauses.offset[groups.owner]
    return FailingLower(ground, groups, failing(rows, offset, widths, output.at(groups.owner)))


def climbed(sides: Sides, clauses: Clauses, start: Variables | None, deadline: float) -> list[Found]:
    """What was found for both sides of all neurons, as many at a time as memory has room for."""
    objective, found = objective_of(sides, clauses), []
    size = parts_of(objective)
    for part in torch.arange(len(objective.groups.owner), device=objective.groups.owner.device).split(size):
        begin = None if start is None else taken(start, part)
        found.append(climb(objective.take(part), ASCENT, until(deadline, never), begin))
    return found


def parts_of(objective: FailingLower) -> int:
    """How many groups are worked on at once, an even number."""
    size = groups_at_once(objective.ground, replace(objective.groups, target=objective.top))
    return max(2, size - size % 2)


@torch.no_grad()
def assumed_of(found: Negated, clauses: Clauses, place: int) -> dict[int, Assumed]:
    """How the intervals of one problem's nodes can be found again."""
    assumed = {}
    for node, sides in found.sides.items():
        own = (sides.neurons.owner == place).nonzero().squeeze(1)
        if len(own) == 0:
            continue
        both = torch.stack([2 * own, 2 * own + 1], 1).flatten()
        objective, variables = objective_of(sides, clauses).take(both), taken(sides.variables, both)
        multipliers = variables[objective.top][MULTIPLIER].squeeze(1).unflatten(0, (-1, 2)).transpose(0, 1)
        assumed[node] = Assumed(sides.neurons.index[own].cpu(), multipliers.cpu().double(), *of_sides(objective, variables))
    return assumed


def ordered(interval: Interval) -> tuple[Interval, Tensor]:
    """The interval with its ends in order, and of which problems (b,) they cross by more than rounding explains."""
    lower, upper = interval.lower, interval.upper
    slack = torch.finfo(lower.dtype).eps ** 0.5 * (1 + lower.abs() + upper.abs())
    crossed = flat(lower > upper + slack, 1).any(1)
    return Interval(torch.minimum(lower, upper), torch.maximum(lower, upper)), crossed
