"""A batch of problems as the stages of verification see it, and the one place that accepts a witness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from boundlab.bounds.observe import Observer
from boundlab.errors import SpecError
from boundlab.evaluate import evaluate
from boundlab.graph import Model
from boundlab.perturbations.joint import Key, Regions, apart, end_to_end, names_of
from boundlab.perturbations.sets import Box, PerturbationSet
from boundlab.question.exact import Case
from boundlab.spec import Specification
from boundlab.verify.query import NUMPY, Problems, flat_values, own_values
from boundlab.verify.verdict import Witness

Replay = Callable[[Mapping[str, Tensor]], Tensor]
"""Outputs (1, *out) for inputs (1, *shape) by name, from the network's own runtime."""
Judge = Callable[[int, Mapping[str, Tensor], Tensor], bool]
"""Whether, for problem i, inputs (1, *shape) by name and their output (1, *out) are a counterexample, exactly."""
Settle = Callable[[int, Mapping[str, Tensor]], Mapping[str, Tensor]]
"""Inputs (1, *shape) by name moved into the sets of problem i, from which rounding may have taken them."""
MOST_REPLAYS = 4
"""Candidates of one batch of points that are replayed, the most violating first."""
MOST_TURNS = 4
"""Projections after which a point that still moves is given up; one or two settle it."""


@dataclass(frozen=True)
class Task:
    """b problems about one network: sets (proofs), `reachable` sets (witnesses; a subset), specification, judge, replay.

    `keep` says whether proofs are kept, from which certificates can be made; `asked` are the cases of a query, exactly.
    `observe` is told of the work of bounds, and ends it where there is a deadline.
    """

    model: Model
    sets: Regions
    reachable: Regions
    spec: Specification
    judge: Judge
    replay: Replay
    settle: Settle
    keep: bool = False
    asked: tuple[Case, ...] = ()
    observe: Observer | None = None

    @property
    def count(self) -> int:
        """The number of problems b."""
        return max(self.spec.rows.shape[0], *(batch_of(region) for region in self.sets.values()))

    def take(self, index: Tensor) -> tuple[Regions, Specification]:
        """Sets and specification of the problems `index` (m,)."""
        return take_regions(self.sets, index), self.spec.take(index)

    def accept(self, problem: int, inputs: Mapping[str, Tensor]) -> Witness | None:
        """The witness that inputs (1, *shape) are for a problem, by replay at zero tolerance; None if they are none."""
        inputs = self.settle(problem, inputs)
        output = self.replay(inputs)
        return Witness(inputs, output) if self.judge(problem, inputs, output) else None

    def witnesses(self, owner: Tensor, points: Mapping[str, Tensor]) -> dict[int, Witness]:
        """Witnesses by problem among points (n, *shape) by input name for the problems `owner` (n,); the worst are replayed.

        Inputs that are constant need not be given.
        """
        inside = take_regions(self.reachable, owner)
        cast = {name: value.to(self.spec.rows) for name, value in points.items()}
        constant = [node.name for node in self.model.graph.inputs if isinstance(inside.get(node.name), Tensor)]
        points = {name: region.project(cast[name]) if isinstance(region := inside[name], PerturbationSet) else region
                  for name in (*points, *(name for name in constant if name not in points))}
        spec = self.spec.take(owner)
        margin = spec.worst(spec.values(evaluate(self.model, points)))
        found: dict[int, Witness] = {}
        for place in margin.argsort()[:MOST_REPLAYS].tolist():
            if not bool(margin[place] <= 0):
                break
            problem = int(owner[place])
            chosen = {name: value[place:place + 1] for name, value in points.items()}
            witness = None if problem in found else self.accept(problem, chosen)
            if witness is not None:
                found[problem] = witness
        return found


def batch_of(region: PerturbationSet | Tensor) -> int:
    """The size of a set's or a constant's batch axis."""
    return region.shape[0] if isinstance(region, Tensor) else region.box().shape[0]


def take_regions(regions: Regions, index: Tensor) -> Regions:
    """Sets and constants of the problems `index` (m,); what they share is spread to a batch of m if it is a constant."""
    def taken(region: PerturbationSet | Tensor) -> PerturbationSet | Tensor:
        shared = batch_of(region) == 1
        if isinstance(region, Tensor):
            return region[torch.zeros_like(index) if shared else index]
        return region if shared else region.take(index)
    return {key: taken(region) for key, region in regions.items()}


def task_of_sets(model: Model, sets: Regions, spec: Specification, replay: Replay | None) -> Task:
    """The task of `sets` as they are: floats mean themselves."""
    def judge(problem: int, inputs: Mapping[str, Tensor], output: Tensor) -> bool:
        index = torch.tensor([problem])
        own = take_regions(sets, index)
        inside = all(holds(region, point_of(key, inputs)) for key, region in own.items())
        return inside and violates(spec.take(index), output)

    def settle(problem: int, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        own = take_regions(sets, torch.tensor([problem]))
        found = dict(inputs)
        for key, region in own.items():
            if not isinstance(region, Tensor) and not holds(region, point_of(key, inputs)):
                shapes = [inputs[name].shape[1:] for name in names_of(key)]
                point = settled(region, point_of(key, inputs))
                found |= {key: point} if isinstance(key, str) else dict(zip(key, apart(point, shapes), strict=True))
        return found

    return Task(model, sets, sets, spec, judge, replay or replay_of(model, sets), settle)


def task_of_cases(model: Model, cases: Problems, replay: Replay | None) -> Task:
    """The task of a query's cases: proofs of the enclosing boxes, witnesses judged by the exact decimals.

    Proofs are of the network with what the query reads besides its outputs; a witness has the network's own outputs alone.
    """
    def judge(problem: int, inputs: Mapping[str, Tensor], output: Tensor) -> bool:
        case, x = cases.asked[problem], flat_values(inputs, model)
        try:
            inside = case.contains(x, NUMPY[model.dtype])
        except SpecError:  # nobody knows exactly whether a point lies in a ball of broken order: it is no witness
            return False
        return inside and case.violated(output.detach().cpu().numpy().reshape(-1), x)

    return Task(cases.model, cases.sets, cases.rounded, cases.spec, judge, replay or replay_of(own_values(model), cases.sets),
                lambda problem, inputs: inputs, asked=cases.asked)


def replay_of(model: Model, sets: Regions) -> Replay:
    """Evaluation of the graph, on one example."""
    def replay(inputs: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            return evaluate(model, inputs)
    return replay


def point_of(key: Key, inputs: Mapping[str, Tensor]) -> Tensor:
    """What a set is asked about: the value of its source, or the vector of those that share it."""
    return inputs[key] if isinstance(key, str) else end_to_end([inputs[name] for name in key], 1)


def settled(region: PerturbationSet, point: Tensor) -> Tensor:
    """The point, projected until it stays: a projection alone may round otherwise than one in a batch."""
    for _ in range(MOST_TURNS):
        point, before = region.project(point), point
        if torch.equal(point, before):
            break
    return point


def holds(region: PerturbationSet | Tensor, value: Tensor) -> bool:
    """Whether a value (1, *shape) is the constant, or a point of the set that its projection leaves where it is."""
    if isinstance(region, Tensor):
        return torch.equal(region, value)
    inside = bool(region.box().contains(value).all())
    return inside and (isinstance(region, Box) or torch.equal(region.project(value), value))


def violates(spec: Specification, output: Tensor) -> bool:
    """Whether in some clause no row is positive at an output (1, *out), in exact rational arithmetic; NaN never counts."""
    if not bool(torch.isfinite(output).all()):
        return False
    values = output.flatten().tolist()
    positive = set()
    for row, offset, clause in zip(spec.rows[0].flatten(1), spec.offset[0].tolist(), spec.clause.tolist(), strict=True):
        places = row.nonzero().flatten().tolist()
        products = (Fraction(row[place].item()) * Fraction(values[place]) for place in places)
        if sum(products, Fraction(offset)) > 0:
            positive.add(clause)
    return len(positive) < spec.clauses
