"""Projected gradient descent on the margins of a specification: a search for counterexamples (Madry et al. 2018).

Everything is batched over restarts and problems; problems never influence each other, and they share their random
numbers, so that one alone finds what it finds in a batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from boundlab.errors import ShapeError
from boundlab.evaluate import evaluate
from boundlab.graph import Model
from boundlab.ops import lookup
from boundlab.perturbations.joint import Key, Regions, apart, names_of
from boundlab.perturbations.sets import PerturbationSet
from boundlab.spec import Specification

Points = Mapping[Key, Tensor]


@dataclass(frozen=True)
class PGD:
    """How to search. All `restarts` run together for `steps` steps that start at `step` radii of the set and fall to 0.

    The first round lowers the worst clause. Problems that still hold then have their clauses attacked one by one, the
    `targets` most promising ones (multi-targeted attack, Gowal et al. 2019).
    """

    steps: int = 40
    restarts: int = 4
    step: float = 0.25
    targets: int = 4


@dataclass(frozen=True)
class AttackResult:
    """The worst point found for each problem: tensors (b, *shape) by source name, and their margins (b, s)."""

    points: Mapping[str, Tensor]
    margins: Tensor
    worst: Tensor

    @property
    def violated(self) -> Tensor:
        """Whether the specification fails at the point, (b,) booleans."""
        return self.worst <= 0


@dataclass(frozen=True)
class Arena:
    """One batch of problems under attack: sets by their sources and constants by name, all with b problems."""

    model: Model
    regions: Mapping[Key, PerturbationSet]
    constants: Mapping[str, Tensor]
    spec: Specification

    def take(self, index: Tensor) -> Arena:
        """Some of the problems."""
        regions = {name: region.take(index) for name, region in self.regions.items()}
        constants = {name: value[index] for name, value in self.constants.items()}
        return Arena(self.model, regions, constants, self.spec.take(index))

    def outputs(self, points: Points) -> Tensor:
        """The network at points (r, b, *shape), (r, b, *out)."""
        count = next(iter(points.values())).shape[0]
        inputs = {name: value.flatten(0, 1) for name, value in self.by_name(points).items()}
        inputs |= {name: value.repeat(count, *[1] * (value.dim() - 1)) for name, value in self.constants.items()}
        return evaluate(self.model, inputs, guided=True).unflatten(0, (count, -1))

    def by_name(self, points: Points) -> Mapping[str, Tensor]:
        """The same points with vectors of joint sets taken apart."""
        found: dict[str, Tensor] = {}
        for key, value in points.items():
            shapes = [self.model.graph.source_named(name).shape for name in names_of(key)]
            found |= {key: value} if isinstance(key, str) else dict(zip(key, apart(value, shapes), strict=True))
        return found

    def clauses(self, points: Points) -> Tensor:
        """Best row of every clause at points (r, b, *shape), (r, b, clauses)."""
        return torch.stack([self.spec.best(self.spec.values(y)) for y in self.outputs(points)])

    def slopes(self, points: Points, target: Tensor | None) -> tuple[Tensor, Points]:
        """The worst clause (r, b), and gradients of the clause `target` (b,) (None: the worst) in the points."""
        with torch.enable_grad():
            leaves = {name: value.detach().requires_grad_() for name, value in points.items()}
            clauses = self.clauses(leaves)
            worst = clauses.amin(2)
            aim = worst if target is None else clauses.gather(2, target[None, :, None].expand(len(clauses), -1, 1))
            if not aim.requires_grad:  # the network is flat wherever it has a slope: it counts places, or reads no input
                return worst, {name: torch.zeros_like(value) for name, value in points.items()}
            found = torch.autograd.grad(aim.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
        return worst.detach(), dict(zip(leaves, found, strict=True))


@dataclass(frozen=True)
class Best:
    """The lowest worst clause (b,) seen for each problem and where; it is kept as it is once it is a violation."""

    points: Points
    worst: Tensor

    def met(self, points: Points, worst: Tensor) -> Best:
        """With new points (r, b, *shape) whose worst clauses are (r, b)."""
        value, place = worst.nan_to_num(nan=torch.inf).min(0)
        better, problems = (value < self.worst) & (self.worst > 0), torch.arange(len(value), device=value.device)

        def chosen(name: Key, old: Tensor) -> Tensor:
            new = points[name][place, problems]
            return torch.where(better.reshape(-1, *[1] * (new.dim() - 1)), new, old)

        return Best({name: chosen(name, old) for name, old in self.points.items()}, torch.where(better, value, self.worst))

    def put(self, index: Tensor, part: Best) -> Best:
        """With the problems `index` replaced by those of `part`."""
        points = {name: value.index_copy(0, index, part.points[name]) for name, value in self.points.items()}
        return Best(points, self.worst.index_copy(0, index, part.worst))

    def take(self, index: Tensor) -> Best:
        """Some of the problems."""
        return Best({name: value[index] for name, value in self.points.items()}, self.worst[index])


def attack(model: Model, sets: PerturbationSet | Regions, spec: Specification,
           method: PGD | None = None, generator: torch.Generator | None = None, deadline: float = math.inf) -> AttackResult:
    """The worst points of a specification that a gradient search finds; every one lies in its set.

    `sets` is as for `bound`: the set of the only input, or sets (varying) and tensors (constant) by source name; parameters
    are searched for each problem on its own. A problem that is not violated is not thereby proven. Random starts come from
    `generator`. After the deadline, in seconds of `time.perf_counter`, no further step is taken. ShapeError if sets,
    constants and specification do not fit the network or each other; MissingRule for a set without `project`.
    """
    method, whole = method or PGD(), arena_of(model, sets, spec)
    arena = replace(whole, model=ranking(whole.model, spec))
    centers = {name: region.project(region.box().center) for name, region in arena.regions.items()}
    some = next(iter(centers.values()))
    best = Best(centers, torch.full_like(some.flatten(1)[:, 0], torch.inf))
    with torch.no_grad():
        for turn in range(1 + min(method.targets, spec.clauses)):
            open_ones = (best.worst > 0).nonzero().flatten()
            if len(open_ones) == 0 or (turn > 0 and (spec.clauses == 1 or time.perf_counter() >= deadline)):
                break
            part, start = arena.take(open_ones), best.take(open_ones)
            best = best.put(open_ones, descend(part, start, turn, method, generator, deadline))
        margins = spec.values(whole.outputs({name: value[None] for name, value in best.points.items()})[0])
    return AttackResult(arena.by_name(best.points), margins, spec.worst(margins))


def descend(arena: Arena, best: Best, turn: int, method: PGD, generator: torch.Generator | None, deadline: float) -> Best:
    """One round from the best points so far and random ones: on the worst clause, or on the clause that is `turn`th worst."""
    points = {name: starts(region, best.points[name], method.restarts, generator) for name, region in arena.regions.items()}
    target = None
    if turn > 0:
        known = arena.clauses({name: value[None] for name, value in best.points.items()})[0]
        target = known.argsort(1)[:, turn - 1]
    for step in range(method.steps + 1):
        worst, slopes = arena.slopes(points, target)
        best = best.met(points, worst)
        if step == method.steps or bool((best.worst <= 0).all()) or time.perf_counter() >= deadline:
            break
        length = method.step * (1 - step / method.steps)
        points = {name: region.climb(points[name], -slopes[name], length) for name, region in arena.regions.items()}
    return best


def starts(region: PerturbationSet, first: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """`first` (b, *shape) and samples of the set, (count, b, *shape)."""
    return torch.cat([first.unsqueeze(0), region.sample(count, generator)[1:]])


def ranking(model: Model, spec: Specification) -> Model:
    """The network before its last softmax, where all that is asked is which of two scores is larger.

    The answer is the same there, with slopes that do not vanish where one score has all the weight.
    """
    last, rows = model.graph.output, spec.rows
    if last.source or not lookup(last.op).ranks or bool((spec.offset != 0).any()):
        return model
    if model.graph[last.args[0]].source:  # the network is a softmax and nothing else
        return model
    axis = last.attrs["dim"] % len(last.shape) + 2
    pairs = ((rows != 0).flatten(2).sum(2) == 2) & (rows.sum(axis, keepdim=True) == 0).flatten(2).all(2)
    return model.up_to(model.graph.nodes[last.args[0]].name) if bool(pairs.all()) else model


def arena_of(model: Model, sets: PerturbationSet | Regions, spec: Specification) -> Arena:
    """The problems with every set and constant brought to one batch size; ShapeError where shapes do not fit."""
    named = sets if isinstance(sets, Mapping) else {model.graph.inputs[0].name: sets}
    regions = {name: value for name, value in named.items() if not isinstance(value, Tensor)}
    constants = {name: value for name, value in named.items() if isinstance(name, str) and isinstance(value, Tensor)}
    shapes = {name: region.box().shape for name, region in regions.items()} | {name: x.shape for name, x in constants.items()}
    for key, shape in shapes.items():
        own = [model.graph.source_named(name).shape for name in names_of(key)]
        expected = own[0] if isinstance(key, str) else (sum(math.prod(one) for one in own),)
        if tuple(shape[1:]) != expected:
            raise ShapeError(f"'{key}' takes (batch, {', '.join(map(str, expected))}), got {tuple(shape)}.")
    if not regions:
        raise ShapeError("no perturbation set was given: an attack needs at least one input that varies.")
    if tuple(spec.rows.shape[2:]) != model.graph.output.shape:
        raise ShapeError(f"the specification reads outputs of shape {list(spec.rows.shape[2:])}, the network gives "
                         f"{list(model.graph.output.shape)}.")
    sizes = {shape[0] for shape in shapes.values()} | {spec.rows.shape[0]}
    batch = max(sizes)
    if sizes - {1, batch}:
        raise ShapeError(f"sets, constants and specification have batches of {sorted(sizes)}; each must be 1 or {batch}.")
    repeat = torch.zeros(batch, dtype=torch.long, device=spec.rows.device)
    widened = {name: region if shapes[name][0] == batch else region.take(repeat) for name, region in regions.items()}
    fixed = {name: value.expand(batch, *value.shape[1:]) for name, value in constants.items()}
    return Arena(model.detached(), widened, fixed, spec)
