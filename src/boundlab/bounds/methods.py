"""Methods are values: IBP, Forward, CROWN and their combinations, and the one call `bound` that runs them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from boundlab.bounds.around import Around, box_after
from boundlab.bounds.backward import Env, Pulled, Relaxer, Sets, backward, concretize
from boundlab.bounds.budget import bytes_of, problems_at_once
from boundlab.bounds.forward import Found, forms_at_once, forms_batch, forward_refinement, rows_of_forms
from boundlab.bounds.intermediate import (
    Policy,
    Pulling,
    Readers,
    Refine,
    bending,
    box_exact,
    checked,
    consumers,
    fed_by_inputs,
    is_affine,
    perturbed_nodes,
    propagate,
    relaxer,
    tighten,
)
from boundlab.bounds.observe import Observer, watch, watched
from boundlab.bounds.problem import Bounds, Method, Problem, finite_rows, joined, joined_bounds, problem_of
from boundlab.bounds.reach import reached
from boundlab.bounds.reference import pull, reference
from boundlab.bounds.thin import thinned
from boundlab.bounds.zonotope import Filter, zonotope_filter
from boundlab.errors import SpecError
from boundlab.graph import INPUT, Model, Node
from boundlab.interval import Ball, Interval
from boundlab.maps import Dense
from boundlab.ops import lookup
from boundlab.perturbations.joint import Member, Regions
from boundlab.perturbations.sets import PerturbationSet
from boundlab.spec import Specification


def refiner(problem: Problem, *steps: Refine) -> Refine:
    """Several refinements in turn, with the bounds that the caller already knows; each meets what came before."""

    def refine(node: Node, env: dict[int, Any]) -> Interval | None:
        if node.name in problem.known:
            env[node.index] = env[node.index].meet(problem.known[node.name])
        for step in steps:
            better = step(node, env)
            if better is not None:
                env[node.index] = env[node.index].meet(better)
        return None

    return refine


def next_to_sets(problem: Problem) -> Callable[[Node, Env], bool]:
    """Whether a node is affine in sources alone (or in what is made of parameters), and some of their sets are no boxes."""
    graph = problem.model.graph
    fed = fed_by_inputs(graph)
    round_nodes = perturbed_nodes(graph, [index for index, region in problem.sets.items() if not region.independent])

    def adjacent(node: Node, env: Env) -> bool:
        perturbed = {arg for arg in node.args if isinstance(env[arg], Interval)}
        near = node.index in fed and all(graph[arg].source or arg not in fed for arg in perturbed)
        return near and bool(perturbed & round_nodes) and is_affine(node, env)

    return adjacent


def sees_balls(node: Node, env: Env, sets: Sets) -> bool:
    """Whether the node's interval is exact: a layer of a constant, with weights in balls that none of them shares."""
    places = [arg for arg in node.args if isinstance(env[arg], Interval)]
    balls = all(isinstance(ball := env[arg], Ball) and ball.sharp for arg in places)
    owners = {region.sources if isinstance(region := sets.get(arg), Member) else arg for arg in places}
    return lookup(node.op).balls and places[0] != node.args[0] and balls and len(owners) == len(places)


def first_layer(problem: Problem, pulling: Pulling) -> Refine:
    """Affine nodes fed by sources alone are bounded by the sets themselves, not by the boxes around them."""
    adjacent = next_to_sets(problem)

    def refine(node: Node, env: Env) -> Interval | None:
        if not adjacent(node, env) or sees_balls(node, env, problem.sets):
            return None
        interval = env[node.index]
        assert isinstance(interval, Interval)
        places = [arg for arg in node.args if isinstance(env[arg], Interval)]
        ball = env[places[0]]
        if len(places) == 1 and isinstance(ball, Ball) and ball.p == 2:  # rows of all problems have the same norms
            value = lookup(node.op).evaluate(*(ball.center if arg in places else env[arg] for arg in node.args), **node.attrs)
            return box_after(relaxer(env)(node).lower, [Around(ball.center, ball.eps.flatten())], value)
        return tighten(pulling, node, torch.ones_like(interval.lower, dtype=torch.bool))

    return refine


def pulling_of(problem: Problem, env: Env, relax: Relaxer, max_rows: int | None = None) -> Pulling:
    """What pulling rows back needs, of a problem, on the intervals `env` and their relaxations."""
    about = reference(problem.model.graph, env, relax)
    return Pulling(problem.model, problem.sets, env, about, problem.budget, max_rows, problem.observe)


def interval_rows(problem: Problem, env: Env, region: Callable[[int], PerturbationSet] | None = None) -> Bounds:
    """A specification on top of intervals: its rows pulled through affine nodes only, so that the last layer is merged.

    They are lowest on the sets, and where they end at another node on its interval or, where it is given, on its `region`.
    """
    graph, spec = problem.model.graph, problem.spec
    if spec is None:
        interval = env[problem.target.index]
        assert isinstance(interval, Interval)
        return Bounds(interval.lower, interval.upper, graph, env)
    rows = Dense(problem.target.shape, None, spec.rows)
    with watch(problem.observe, problem.target, "rows", spec.rows.shape[0] * spec.rows.shape[1]):
        pulled = backward(graph, env, relaxer(env), problem.target.index, rows, stop=bending(graph, problem.sets))
        held = {} if region is None else {index: region(index) for index in pulled.coefficients if index not in problem.sets}
        lower = concretize(pulled, env, {**problem.sets, **held}) + spec.offset
    return Bounds(finite_rows(lower, problem), None, graph, env, pulled)


@dataclass(frozen=True)
class IBP:
    """Interval bound propagation (Gowal et al. 2018); a specification is merged into the last affine layers.

    `memory` ("4GB", or bytes) may be held at once: it changes the size of parts, not results.
    """

    memory: str | int | None = None

    def __post_init__(self) -> None:
        check_memory(self.memory)

    def environment(self, problem: Problem) -> Env:
        env: dict[int, Any] = {}
        pulling = pulling_of(problem.within(self.memory), env, relaxer(env))
        refine = refiner(problem, first_layer(problem, pulling))
        return propagate(problem.model, problem.sets, problem.inputs, env, refine, problem.observe)

    def run(self, problem: Problem) -> Bounds:
        return interval_rows(problem, self.environment(problem))


@dataclass(frozen=True)
class Forward:
    """Forward LiRPA, met with intervals (Xu et al. 2020, Sec. 3.1): every node between two affine functions of the sources.

    `memory` ("4GB", or bytes) may be held at once, by as many `problems` at a time as it has room for: that changes the size of
    parts, not results.
    """

    alpha: Policy | None = None
    problems: int | None = None
    memory: str | int | None = None

    def __post_init__(self) -> None:
        check_memory(self.memory)

    def groups(self, problem: Problem) -> list[Problem]:
        """The problem in parts that are bounded one after the other."""
        problem = problem.within(self.memory)
        size = self.problems or forms_at_once(problem)
        if forms_batch(problem) <= size:
            return [problem]
        return [problem.take(part) for part in torch.arange(problem.batch).split(size)]

    def forms(self, problem: Problem) -> tuple[Pulling, Found]:
        """Intervals of every perturbed node, and the affine forms of those that a specification's rows end at."""
        env: dict[int, Any] = {}
        relax = thinned(env, relaxer(env, self.alpha))
        pulling, found = pulling_of(problem, env, relax), Found()
        step = watched(problem.observe, "forms", forward_refinement(problem, pulling, relax, found))
        propagate(problem.model, problem.sets, problem.inputs, env, refiner(problem, step), problem.observe)
        return pulling, found

    def environment(self, problem: Problem) -> Env:
        parts = [self.forms(part)[0].env for part in self.groups(problem)]
        return parts[0] if len(parts) == 1 else joined(parts, problem)

    def run(self, problem: Problem) -> Bounds:
        if problem.spec is None:
            return interval_rows(problem, self.environment(problem))
        groups = self.groups(problem)
        parts = [forward_rows(part, *self.forms(part)) for part in groups]
        if len(parts) == 1:
            return parts[0]
        return replace(joined_bounds(parts, groups), env=joined([part.env for part in parts], problem))


def forward_rows(problem: Problem, pulling: Pulling, found: Found) -> Bounds:
    """A specification on top of forward forms: pulled through the last affine nodes, applied to the forms, concretized."""
    graph, spec, env = problem.model.graph, problem.spec, pulling.env
    assert spec is not None
    rows = Dense(problem.target.shape, None, spec.rows)
    with watch(problem.observe, problem.target, "rows", spec.rows.shape[0] * spec.rows.shape[1]):
        pulled = backward(graph, env, relaxer(env), problem.target.index, rows, stop=bending(graph, problem.sets))
        linear = rows_of_forms(pulling, found, pulled)
        lower = concretize(linear, env, problem.sets) + spec.offset
    return Bounds(finite_rows(lower, problem), None, graph, env, linear)


@dataclass(frozen=True)
class CROWN:
    """Backward bounds (Zhang et al. 2018); `intermediate` bounds the inner nodes, None means CROWN itself.

    `CROWN(intermediate=IBP())` is CROWN-IBP (Zhang et al. 2020), `CROWN(alpha=parallel)` Fast-Lin (Weng et al. 2018).
    `filter` bounds all neurons with a zonotope first, so that only those that it leaves open are pulled back (None: pull all
    that intervals leave open). `memory` ("4GB", or bytes) may be held at once; it says how many `problems` are bounded at a
    time, and how many neurons are pulled (`max_rows`). That changes the size of parts, not results.
    """

    intermediate: Method | None = None
    alpha: Policy | None = None
    filter: Filter | None = field(default_factory=Filter)
    max_rows: int | None = None
    problems: int | None = None
    memory: str | int | None = None

    def __post_init__(self) -> None:
        check_memory(self.memory)
        if self.intermediate is not None:
            method_value(self.intermediate)
        if self.alpha is not None and not callable(self.alpha):
            raise SpecError(f"alpha is a function that chooses slopes, such as boundlab.parallel, got {self.alpha!r}.")

    def environment(self, problem: Problem) -> Env:
        return self.prepared(problem)[0]

    def prepared(self, problem: Problem) -> tuple[Env, Relaxer]:
        """Intervals of every node and the relaxations that follow from them."""
        problem = problem.within(self.memory)
        if self.intermediate is not None:
            env = self.intermediate.environment(problem)
            return env, relaxer(env, self.alpha)
        groups = torch.arange(problem.batch).split(self.problems or group_size(problem))
        if len(groups) == 1:
            return self.backward_environment(problem)
        env = joined([self.backward_environment(problem.take(group))[0] for group in groups], problem)
        return env, relaxer(env, self.alpha)

    def backward_environment(self, problem: Problem) -> tuple[Env, Relaxer]:
        """Intervals of every node: what a nonlinear operator reads is filtered by a zonotope and then pulled back."""
        graph, env = problem.model.graph, dict[int, Any]()
        relax = thinned(env, relaxer(env, self.alpha))
        pulling = pulling_of(problem, env, relax, self.max_rows)
        readers = Readers(consumers(graph), perturbed_nodes(graph, problem.sets))
        asked = asker(problem, readers, relax)

        def pull(node: Node, env: Env) -> Interval | None:
            mask = asked(node, env)
            return None if mask is None else tighten(pulling, node, mask)

        steps: tuple[Refine, ...] = (first_layer(problem, pulling), pull)
        if self.filter is not None:
            zonotope = zonotope_filter(problem, relax, readers, self.filter)
            steps = (steps[0], watched(problem.observe, "zonotope", zonotope), pull)
        return propagate(problem.model, problem.sets, problem.inputs, env, refiner(problem, *steps), problem.observe), relax

    def run(self, problem: Problem) -> Bounds:
        return self.output_rows(problem, *self.prepared(problem))

    def output_rows(self, problem: Problem, env: Env, relax: Relaxer) -> Bounds:
        """Bounds of the output, or of the specification's rows, given intervals of every node and relaxations."""
        graph, target, spec = problem.model.graph, problem.target, problem.spec
        pulling = pulling_of(problem.within(self.memory), env, relax, self.max_rows)
        if spec is None:
            interval = env[target.index]
            assert isinstance(interval, Interval)
            tight = tighten(pulling, target, torch.ones_like(interval.lower, dtype=torch.bool))
            found = checked(target, interval.meet(tight))
            return Bounds(found.lower, found.upper, graph, {**env, target.index: found})
        parts, lows = list[Pulled](), list[Tensor]()
        for rows in spec.rows.split(pulling.rows_a_chunk(), dim=1):
            with watch(problem.observe, target, "rows", rows.shape[0] * rows.shape[1]):
                parts.append(pulled_specification(pulling, target, rows, problem.batch))
                lows.append(concretize(parts[-1], env, problem.sets))
        lower = torch.cat(lows, dim=1) + spec.offset
        return Bounds(finite_rows(lower, problem), None, graph, env, joined_rows(parts, dim=1))


def check_memory(memory: str | int | None) -> None:
    """SpecError unless a budget of memory is None, a number of bytes or text such as "4GB"."""
    if memory is not None:
        bytes_of(memory)


def group_size(problem: Problem) -> int:
    """How many problems share a pass, judged by the inputs that vary, the widest node and the largest matrix."""
    graph = problem.model.graph
    coordinates = sum(math.prod(graph[index].shape) for index in problem.sets if graph[index].op == INPUT)
    widest = max(math.prod(graph[index].shape) for index in fed_by_inputs(graph))
    matrices = (math.prod(graph[node.args[1]].shape) for node in graph if node.op == "linear" and len(node.shape) == 1)
    return problems_at_once(max(1, coordinates * widest), max(matrices, default=1), problem.budget)


def one_curve(node: Node, env: Env, relax: Relaxer) -> bool:
    """Whether the node is a nonlinear function of each coordinate of one argument, so that backward rows cannot help.

    Its lines are below (above) the function on the argument's interval, and a row's bound is a value of such a line at an
    end no better than that interval's; the operator's own range over the interval is never looser.
    """
    perturbed = [arg for arg in node.args if isinstance(env[arg], Interval)]
    if lookup(node.op).relax is None:  # its lines are the ends of its interval
        return True
    return len(perturbed) == 1 and not is_affine(node, env) and relax(node).elementwise


def asker(problem: Problem, readers: Readers, relax: Relaxer) -> Callable[[Node, Env], Tensor | None]:
    """Which neurons of a node are worth rows of their own, (b, *shape) booleans; None for none. BoundError if one is NaN.

    Where there is a specification, its rows have to reach them.
    """
    graph, reach = problem.model.graph, reached(problem)
    settled = box_exact(graph, problem.sets, readers.perturbed)
    adjacent, fed = next_to_sets(problem), fed_by_inputs(graph)

    def asked(node: Node, env: Env) -> Tensor | None:
        interval = env[node.index]
        assert isinstance(interval, Interval)
        skipped = node.index in settled or node.index not in fed or adjacent(node, env) or one_curve(node, env, relax)
        mask = None if skipped else readers.unsettled(node, interval)
        if mask is not None:
            checked(node, interval)
        if mask is None or reach is None:
            return mask
        return mask & reach[node.index] if node.index in reach else None

    return asked


def pulled_specification(pulling: Pulling, target: Node, rows: Tensor, batch: int) -> Pulled:
    """A specification's rows (b or 1, s, *out) pulled to the sources, for as many problems at a time as memory allows.

    Where parameters vary all problems go at once: rows over these are kept as factors, which parts would multiply out.
    """
    graph, env, count = pulling.model.graph, pulling.env, pulling.problems_a_part(batch, rows.shape[1])
    if count >= batch or any(graph[index].op != INPUT for index in pulling.sets):
        return pull(graph, env, pulling.about, target.index, Dense(target.shape, None, rows))
    rows, parts = rows.expand(batch, *rows.shape[1:]), []
    for owner in torch.arange(batch, device=rows.device).split(count):
        parts.append(pull(graph, env, pulling.about, target.index, Dense(target.shape, owner, rows[owner])))
    return joined_rows(parts, dim=0)


def joined_rows(parts: list[Pulled], dim: int) -> Pulled:
    """Pulled rows of several chunks as one: chunks of all problems' rows (dim 1), or of the problems (dim 0)."""
    if len(parts) == 1:
        return parts[0]

    def together(index: int) -> Dense:
        shape = parts[0].coefficients[index].shape
        return Dense(shape, None, torch.cat([part.coefficients[index].dense() for part in parts], dim))

    biases = [part.bias for part in parts if part.bias is not None]
    bias = torch.cat(biases, dim) if biases else None
    return Pulled({index: together(index) for index in parts[0].coefficients}, bias, parts[0].reference)


def bound(model: Model, sets: PerturbationSet | Regions, *, method: Method | None = None, spec: Specification | None = None,
          known: Mapping[str, Interval] | None = None, observe: Observer | None = None) -> Bounds:
    """Proven bounds of a network over perturbation sets.

    `sets` is the set of the only input, or a mapping from input or parameter names to sets (perturbed) or tensors
    (constant inputs); a tuple of names stands for one set that they share. `known` are intervals by node name that are
    already proven; `observe` is told of the work by node. Without `spec` the output's lower and upper bounds (b, *out);
    with it lower bounds of its rows (b, s). `method` is CROWN if left out. ShapeError if sets, inputs, known bounds and
    specification do not fit the network or each other; MissingRule for an operator or set that the method cannot take;
    BoundError if a bound is NaN or infinite. Xu et al. 2020 (auto_LiRPA) for general graphs.
    """
    problem = replace(problem_of(model, sets, spec, known), observe=observe)
    return for_each(method_value(method or CROWN()).run(problem), problem.batch)


def for_each(bounds: Bounds, batch: int) -> Bounds:
    """The same bounds with an entry for each problem, also where all share what the network's output depends on."""
    def repeated(end: Tensor) -> Tensor:
        return end.expand(batch, *end.shape[1:])

    upper = None if bounds.upper is None else repeated(bounds.upper)
    return replace(bounds, lower=repeated(bounds.lower), upper=upper)


def method_value(method: Method) -> Method:
    """The method itself; SpecError for a name or a class."""
    if isinstance(method, type) or not isinstance(method, Method):
        raise SpecError(f"a method is a value such as CROWN() or CROWN(intermediate=IBP()), got {method!r}.")
    return method
