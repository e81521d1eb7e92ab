"""Optimised bounding lines: the free variables of relaxations, moved to raise the lower bounds of rows.

Lines are sound whatever their free variables are, so every step gives bounds, and each row keeps the best that it has met. The
plain lines are the first step, so no row ends below plain CROWN on the same inner bounds. Lyu et al. 2020 (FROWN), Sec. 3;
Xu et al. 2021 (alpha-CROWN), Sec. 3.1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from boundlab.bounds.backward import Env
from boundlab.bounds.climb import Ascent, Done, Found, climb, never, until
from boundlab.bounds.groups import Ground, Groups, Lower, Neurons, ground_of, neurons_of
from boundlab.bounds.intermediate import Readers, checked, consumers, perturbed_nodes, propagate, relaxer, tighten
from boundlab.bounds.methods import CROWN, asker, check_memory, first_layer, method_value, pulling_of, refiner
from boundlab.bounds.observe import watch
from boundlab.bounds.problem import Bounds, Method, Problem, finite_rows
from boundlab.bounds.space import Own, Space, Variables, one_after_another, taken
from boundlab.bounds.start import NeuronStart, Start
from boundlab.errors import SpecError
from boundlab.graph import Node
from boundlab.interval import Interval
from boundlab.maps import Dense, Rows, flat

COPIES = 12
"""Tensors as large as the rows at the widest node that are alive at once: variables, their gradients, Adam's means, lines."""
CACHED = 2**20
"""Coefficients at the widest node of groups that climb together: a CPU's caches serve these well."""


@dataclass(frozen=True)
class Optimised:
    """CROWN with optimised lines: `steps` of projected Adam of size `rate`, which shrinks by `decay` after each.

    Never looser than plain CROWN on the same inner bounds; without gradients of their own. Inner bounds are those of `base`;
    with `inner` they are then optimised layer by layer, too, each side of each unsettled neuron (FROWN). `group` rows (neurons
    of a layer, or rows of a specification) share their lines, which maximise the mean of their bounds; a result depends on no
    other group. `space` says what is free. Rows of a specification above `enough` climb no further; a group whose mean has not
    gained the share `tolerance` of its size in any of `patience` steps stops. `start` is where to begin (`Bounds.variables` of
    earlier bounds of the same network in the same space, on any sets); plain lines count all the same. These hold the variables
    of a specification's rows, and with `keep` those of every neuron that was optimised, too; inner bounds then rest on these
    alone, and may be looser than those of `base`. `memory` ("4GB", or bytes) may be
    held at once, by `base` too; what is kept comes on top, a number for each such neuron's side and each free variable. Nothing
    climbs after the `deadline`, in seconds of `time.perf_counter`: what was found by then counts.
    """

    base: Method = field(default_factory=CROWN)
    steps: int = 20
    rate: float = 0.1
    memory: str | int | None = None
    inner: bool = False
    group: int = 1
    space: Space = field(default_factory=Own)
    decay: float = 0.98
    enough: float | None = None
    patience: int | None = None
    tolerance: float = 0.01
    start: Start | None = None
    keep: bool = False
    deadline: float | None = None

    def __post_init__(self) -> None:
        method_value(self.base)
        check_memory(self.memory)
        if self.start is not None and not isinstance(self.start, Start):
            raise SpecError(f"start are the `variables` of earlier bounds, got {type(self.start).__name__}.")
        if isinstance(self.space, type):
            raise SpecError(f"a space is a value such as Own() or Full(), got {self.space!r}.")
        if self.steps < 0 or not 0 < self.rate < math.inf:
            raise SpecError(f"steps must be at least 0 and rate a positive number, got {self.steps!r} and {self.rate!r}.")
        if not 0 < self.decay <= 1:
            raise SpecError(f"decay is a factor above 0, and 1 at most, got {self.decay!r}.")
        if self.group < 1 or (self.patience is not None and self.patience < 1):
            raise SpecError("group is the number of rows that share variables and patience a number of steps, both at least 1, "
                            f"got {self.group!r} and {self.patience!r}.")

    @property
    def ascent(self) -> Ascent:
        """How variables move."""
        return Ascent(self.steps, self.rate, self.decay, self.patience, self.tolerance)

    def environment(self, problem: Problem) -> Env:
        return self.stages(problem.within(self.memory))[0][-1]

    def stages(self, problem: Problem) -> tuple[tuple[Env, ...], dict[int, NeuronStart]]:
        """The intervals by `base`, and those that were optimised from there; and where the neurons' variables ended."""
        env, kept = detached(self.base.environment(problem)), dict[int, NeuronStart]()
        return ((env, self.inner_bounds(problem, env, kept)) if self.inner else (env,)), kept

    def run(self, problem: Problem) -> Bounds:
        problem = problem.within(self.memory)
        stages, kept = self.stages(problem)
        first, env = stages[0], stages[-1]
        steps = [self.bounded(ground_of(problem, env, self.space), kept)]
        if self.inner:  # plain lines on tighter intervals need not be tighter ones
            steps.append(replace(self, steps=0, start=None, keep=False).bounded(ground_of(problem, first, self.space), {}))
        graph, target, variables = problem.model.graph, problem.target, steps[0].variables
        lower = functools.reduce(torch.maximum, (one.lower for one in steps))
        if problem.spec is not None:
            return Bounds(finite_rows(lower, problem), None, graph, env, variables=variables)
        upper = functools.reduce(torch.minimum, (one.upper for one in steps if one.upper is not None))
        found = checked(target, Interval(lower, upper))
        return Bounds(found.lower, found.upper, graph, {**env, target.index: found}, variables=variables)

    def bounded(self, ground: Ground, kept: dict[int, NeuronStart]) -> Bounds:
        """Optimised bounds of the specification's rows or of the output, on given inner bounds, whose variables are `kept`."""
        graph, target = ground.problem.model.graph, ground.problem.target
        if ground.problem.spec is not None:
            lower, rows = self.raised(ground)
            return Bounds(lower, None, graph, ground.env, variables=Start(rows, kept))
        interval = ground.env[target.index]
        assert isinstance(interval, Interval)
        found = self.sides(ground, target, torch.ones_like(interval.lower, dtype=torch.bool), None, kept)
        return Bounds(found.lower, found.upper, graph, ground.env, variables=Start(None, kept) if kept else None)

    def inner_bounds(self, problem: Problem, known: Env, kept: dict[int, NeuronStart]) -> Env:
        """Bounds of every node from those that are known, optimised in order: later lines are made on tightened intervals.

        Where variables ended goes to `kept`, if it is to be. Who derives the intervals from that has no base, and lines on
        tighter intervals need not show all that the base has shown: what is known only says then where there is no ascent.
        """
        env: dict[int, Any] = {}
        readers = Readers(consumers(problem.model.graph), perturbed_nodes(problem.model.graph, problem.sets))
        asked, pulling = asker(problem, readers, relaxer(env)), pulling_of(problem, env, relaxer(env))
        first = first_layer(problem, pulling)

        def met(node: Node, env: dict[int, Any]) -> Interval | None:
            own, interval = env[node.index], known[node.index]
            assert isinstance(interval, Interval)
            if not self.keep or node.index == problem.target.index or not bool(own.width.isfinite().all()):
                return interval
            every = asked(node, env)
            if every is None:
                return first(node, env)
            still = asked(node, {**env, node.index: own.meet(interval)})
            settled = every if still is None else every & ~still
            return tighten(pulling, node, settled) if bool(settled.any()) else None

        def raise_sides(node: Node, env: dict[int, Any]) -> Interval | None:
            mask = asked(node, env)
            if mask is None or node.index == problem.target.index:
                return None
            return self.sides(ground_of(problem, dict(env), self.space), node, mask, readers, kept)

        return propagate(problem.model, problem.sets, problem.inputs, env, refiner(problem, met, raise_sides))

    def sides(self, ground: Ground, node: Node, mask: Tensor, readers: Readers | None, kept: dict[int, NeuronStart]
              ) -> Interval:
        """Optimised bounds of the neurons of `node` that `mask` (b, *shape) selects; the others keep their interval.

        With `readers`, neurons that these use no tighter bounds of are done. With `keep` their variables go to `kept`.
        """
        known = ground.env[node.index]
        assert isinstance(known, Interval)
        neurons = neurons_of(node, known, mask, self.group)
        groups = neurons.both_sides()
        if len(groups.owner) == 0:
            return known
        with watch(ground.problem.observe, node, "rows", 2 * len(neurons.owner)):
            done, start = settled(known, neurons, readers) if readers else None, self.start_of(known, neurons)
            found = self.climbed(ground, groups, done, start, together=2)
        if self.keep:
            kept[node.index] = ended(known, neurons, found)
        return placed(known, neurons, torch.cat([one.best for one in found]))

    def start_of(self, known: Interval, neurons: Neurons) -> Variables | None:
        """Where both sides of groups of neurons begin, if that is given: where the group of their first neuron ended."""
        if self.start is None:
            return None
        lead = neurons.members[:, 0]
        shape = len(known.lower), math.prod(neurons.node.shape)
        return self.start.some_neurons(neurons.node.index, shape, neurons.owner[lead], neurons.index[lead])

    def raised(self, ground: Ground) -> tuple[Tensor, Variables]:
        """Lower bounds of the specification's rows (b, s), and the variables that give them."""
        problem = ground.problem
        assert problem.spec is not None
        batch, count = problem.batch, problem.spec.rows.shape[1]
        places = torch.arange(-(-count // self.group) * self.group, device=problem.spec.rows.device).clamp(max=count - 1)
        members = places.reshape(-1, self.group)
        rows = problem.spec.rows.expand(batch, *problem.spec.rows.shape[1:])
        offset = problem.spec.offset.expand(batch, count)

        def chosen(index: Tensor) -> tuple[Tensor, Tensor]:
            return index[:, None] // len(members), members[index % len(members)]

        def rows_of(index: Tensor) -> Rows:
            return Dense(problem.target.shape, None, rows[chosen(index)])

        def enough(index: Tensor) -> Done:
            limit = math.inf if self.enough is None else self.enough
            return lambda best: (best + offset[chosen(index)] > limit).all(1)

        owner = torch.arange(batch, device=rows.device).repeat_interleave(len(members))
        start = None if self.start is None else self.start.some_rows(torch.arange(len(owner)), len(owner))
        with watch(problem.observe, problem.target, "rows", batch * count):
            found = self.climbed(ground, Groups(problem.target.index, self.group, owner, rows_of), enough, start)
        lower = torch.cat([one.best for one in found]).reshape(batch, -1)[:, :count] + offset
        return lower, side_by_side(found, batch)

    def climbed(self, ground: Ground, groups: Groups, done: Callable[[Tensor], Done] | None, start: Variables | None = None,
                together: int = 1) -> list[Found]:
        """What was found for all groups, a part at a time that memory has room for; `together` of them stay side by side.

        `start` are variables (groups, 1 or g, *shape).
        """
        size = groups_at_once(ground, groups)
        size = max(together, size - size % together)
        found = []
        for part in torch.arange(len(groups.owner), device=groups.owner.device).split(size):
            objective = Lower(ground, groups.take(part))
            begin = None if start is None else taken(start, part)
            found.append(climb(objective, self.ascent, until(self.deadline, never if done is None else done(part)), begin))
        return found


def groups_at_once(ground: Ground, groups: Groups) -> int:
    """How many groups climb side by side."""
    nodes = ground.problem.model.graph.nodes[:groups.target + 1]
    widest = max(math.prod(node.shape) for node in nodes if isinstance(ground.env[node.index], Interval))
    each = groups.size * widest
    fastest = max(1, CACHED // each) if groups.owner.device.type == "cpu" else max(1, 16 * CACHED // each)
    return max(1, ground.problem.budget.share(fastest * each * COPIES) // (each * COPIES))


def side_by_side(found: list[Found], batch: int) -> Variables:
    """Variables of all parts, (b, groups, 1 or g, *shape)."""
    return {index: {name: value.unflatten(0, (batch, -1)) for name, value in named.items()}
            for index, named in one_after_another([one.variables for one in found]).items()}


def ended(known: Interval, neurons: Neurons, found: list[Found]) -> NeuronStart:
    """Where the variables of both sides of groups of neurons ended."""
    group = torch.full_like(flat(known.lower, 1), -1, dtype=torch.long)
    members = neurons.members
    place = torch.arange(len(members), device=members.device)[:, None].expand_as(members)
    group[neurons.owner[members], neurons.index[members]] = place
    return NeuronStart(group, one_after_another([one.variables for one in found]))


def settled(known: Interval, neurons: Neurons, readers: Readers) -> Callable[[Tensor], Done]:
    """When both sides of groups are done: nothing that reads their neurons would use tighter bounds."""

    def of(part: Tensor) -> Done:
        groups = part[::2] // 2
        some = replace(neurons, members=neurons.members[groups])

        def done(best: Tensor) -> Tensor:
            mask = readers.unsettled(neurons.node, placed(known, some, best))
            if mask is None:
                return never(best)
            open_ = flat(mask, 1)[neurons.owner[some.members], neurons.index[some.members]]
            return (~open_).all(1).repeat_interleave(2)

        return done

    return of


def placed(known: Interval, neurons: Neurons, best: Tensor) -> Interval:
    """The known interval met with lower bounds of both sides (2 groups, g) of some neurons."""
    low, high = best[::2], -best[1::2]
    place = neurons.owner[neurons.members], neurons.index[neurons.members]
    lower, upper = flat(known.lower, 1).clone(), flat(known.upper, 1).clone()
    lower[place] = torch.maximum(lower[place], low)
    upper[place] = torch.minimum(upper[place], high)
    return Interval(lower.reshape(known.shape), upper.reshape(known.shape))


def detached(env: Env) -> dict[int, Any]:
    """The same intervals and values without a way back for autograd: inner bounds are constants here."""
    return {index: value.map(Tensor.detach) if isinstance(value, Interval) else value.detach() for index, value in env.items()}
