"""Problem and Bounds: the question that every method answers, and what it answers with."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from boundlab.bounds.backward import Env, Pulled, Sets
from boundlab.bounds.budget import Budget, bytes_of
from boundlab.bounds.intermediate import perturbed_nodes
from boundlab.bounds.observe import Observer
from boundlab.bounds.start import Start
from boundlab.bounds.unfold import unfolded
from boundlab.errors import BoundError, ShapeError
from boundlab.graph import INPUT, Graph, Model, Node, check_model
from boundlab.interval import Interval, laid_together
from boundlab.maps import Dense
from boundlab.ops import lookup
from boundlab.perturbations.joint import Key, Member, Regions, members, names_of
from boundlab.perturbations.sets import PerturbationSet
from boundlab.spec import Specification
from boundlab.table import FEW, Shown, Table, above, below, number, plural


class Rigour(enum.Enum):
    """What a result claims about rounding."""

    FLOAT = "ordinary floating point, rounding not accounted for"
    SOUND = "a theorem about the real-number network: float64 with outward error terms"
    FLOAT32 = "a theorem about the network as it runs in float32, in any order of summation"
    CHECKED = "re-derived from a certificate by the independent checker"


@dataclass(frozen=True)
class Problem:
    """One question: a model, the sets of its perturbed sources, its constant inputs, a specification, known bounds.

    `memory` is how many bytes a method may hold at once (None: a share of what is free); a part that cannot be made smaller
    may take more. `observe` is told of the work that methods do for it.
    """

    model: Model
    sets: Sets
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    spec: Specification | None = None
    known: Mapping[str, Interval] = field(default_factory=dict)
    memory: int | None = None
    observe: Observer | None = None

    def within(self, memory: str | int | None) -> Problem:
        """The problem with another budget of memory, if one is given."""
        return self if memory is None else replace(self, memory=bytes_of(memory))

    @property
    def budget(self) -> Budget:
        """The memory, for numbers of the sets' type where they are."""
        ends = next(iter(self.sets.values())).box().lower
        return Budget(self.memory, ends.device, ends.element_size())

    @property
    def target(self) -> Node:
        """The network's output."""
        return self.model.graph.output

    @property
    def alone(self) -> list[Tensor]:
        """What may differ between problems beside their sets: constant inputs and known bounds, (b or 1, ...) each."""
        return [*self.inputs.values(), *(interval.lower for interval in self.known.values())]

    @property
    def batch(self) -> int:
        """Number of problems b."""
        shared = [] if self.spec is None else [len(self.spec.rows)]
        shared += [len(value) for value in self.alone]
        return max([len(region.box().lower) for region in self.sets.values()] + shared)

    def take(self, index: Tensor) -> Problem:
        """The problems `index` (m,) alone; what all share stays shared."""
        count = self.batch

        def some(value: Tensor) -> Tensor:
            return value[index] if len(value) == count else value

        sets = {place: region.take(index) if len(region.box().lower) == count else region
                for place, region in self.sets.items()}
        inputs = {name: some(value) for name, value in self.inputs.items()}
        known = {name: interval.map(some) for name, interval in self.known.items()}
        spec = None if self.spec is None else Specification(some(self.spec.rows), some(self.spec.offset), self.spec.clause)
        return replace(self, sets=sets, inputs=inputs, spec=spec, known=known)


@dataclass(frozen=True, repr=False)
class Bounds(Shown):
    """Proven bounds: of the output (b, *out), or of a specification's rows (b, s), where `upper` is None.

    `env` holds every node's interval by index, `linear` the rows pulled to the sources (None where a method has none),
    `rigour` says what is claimed about rounding, `variables` are where an optimiser ended, for another one to start at.
    """

    lower: Tensor
    upper: Tensor | None
    graph: Graph = field(repr=False)
    env: Env = field(repr=False)
    linear: Pulled | None = field(default=None, repr=False)
    rigour: Rigour = Rigour.FLOAT
    variables: Start | None = field(default=None, repr=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """What made these bounds looser than they need be: nodes where the interval stood in for a missing relaxation."""
        return tuple(
            f"{node.describe()} was bounded by its interval alone: its operator has no relaxation (docs: add an operator)."
            for node in self.graph if not node.source and lookup(node.op).relax is None
            and isinstance(self.env.get(node.index), Interval))

    @property
    def intermediate(self) -> Mapping[str, Interval]:
        """The interval of every perturbed node, by name."""
        return {node.name: interval for node in self.graph if isinstance(interval := self.env.get(node.index), Interval)}

    def shown(self) -> Table:
        """The first few numbers, and how far the ends are apart."""
        lower, upper, out = self.lower.detach(), self.upper, list(self.lower.shape[1:])
        asked = f"{plural(len(lower), 'problem')}, rigour {self.rigour.name}"
        if upper is None:
            title = f"Lower bounds of rows {out} for {asked}: the least is {below(float(lower.amin()))}"
        else:
            width = upper.detach() - lower
            title = (f"Bounds of outputs {out} for {asked}: {number(float(width.amin()))} to {number(float(width.amax()))} "
                     f"apart, {number(float(width.mean()))} on average")
        ends = [lower] if upper is None else [lower, upper.detach(), width]
        few = [end.flatten()[:FEW].tolist() for end in ends]
        places = [place_of(flat, self.lower.shape) for flat in range(len(few[0]))]
        columns = ("problem", "output", "lower", "upper", "width") if upper is not None else ("problem", "row", "lower")
        words = [map(shown, values) for shown, values in zip((below, above, above), few, strict=False)]
        rows = [(*place, *texts) for place, texts in zip(places, zip(*words, strict=True), strict=True)]
        return Table(columns, rows, title, frozenset(columns), lower.numel() - len(rows))


def place_of(flat: int, shape: Sequence[int]) -> tuple[str, str]:
    """The problem, and the place in its output, of a number in the bounds' order; the only output is in place 0."""
    problem, *inner = map(int, np.unravel_index(flat, tuple(shape)))
    return str(problem), ",".join(map(str, inner)) or "0"


@runtime_checkable
class Method(Protocol):
    """A way to bound: anything with these two functions.

    A method of your own is a frozen dataclass; `bound`, `verify`, `radius` and `certify` take it like those of the library.
    """

    def environment(self, problem: Problem) -> Env:
        """Intervals of every node."""
        ...

    def run(self, problem: Problem) -> Bounds:
        """Bounds of the output or of the specification's rows."""
        ...


def finite_rows(lower: Tensor, problem: Problem) -> Tensor:
    """The bounds themselves; BoundError if one is NaN or infinite."""
    if not bool(torch.isfinite(lower).all()):
        raise BoundError(f"the bounds of the specification on {problem.target.describe()} are NaN or infinite.")
    return lower


def own_nodes(problem: Problem) -> set[int]:
    """The nodes that differ between problems: those that depend on a set, a constant or a known bound with a batch axis."""
    own = {index for index, region in problem.sets.items() if len(region.box().lower) > 1}
    named = {name for name, value in problem.inputs.items() if len(value) > 1}
    named |= {name for name, interval in problem.known.items() if len(interval.lower) > 1}
    for node in problem.model.graph:
        if node.name in named or any(arg in own for arg in node.args):
            own.add(node.index)
    return own


def joined(parts: list[Env], problem: Problem) -> Env:
    """Intervals and constants of several groups of problems as one; what all problems share is taken once."""
    own = own_nodes(problem)

    def together(index: int) -> Tensor | Interval:
        values = [part[index] for part in parts]
        if index not in own:
            return values[0]
        tensors = [value for value in values if isinstance(value, Tensor)]
        if tensors:
            return torch.cat(tensors)
        return laid_together([value for value in values if isinstance(value, Interval)])

    return {index: together(index) for index in parts[0]}


def joined_bounds(parts: list[Bounds], groups: list[Problem]) -> Bounds:
    """Bounds of a specification's rows for several groups of problems as one, given those that were asked about them."""
    sizes = [group.batch for group in groups]

    def whole(values: list[Tensor]) -> Tensor:
        """Tensors (group or 1, ...) one after the other."""
        return torch.cat([value.expand(size, *value.shape[1:]) for value, size in zip(values, sizes, strict=True)])

    pulled = [part.linear for part in parts if part.linear is not None]
    rows = {index: Dense(first.shape, None, whole([part.coefficients[index].dense() for part in pulled]))
            for index, first in pulled[0].coefficients.items()}
    biases = [part.bias for part in pulled if part.bias is not None]
    references = {index: whole([part.reference[index] for part in pulled]) for index in pulled[0].reference}
    return Bounds(whole([part.lower for part in parts]), None, parts[0].graph, {},
                  Pulled(rows, whole(biases) if biases else None, references))


def alike(problem: Problem) -> Problem:
    """Sets of inputs with one batch: shared ones are repeated beside sets, constants and known bounds of single problems.

    Sets of parameters stay shared: they are large, and all problems have the same.
    """
    graph = problem.model.graph
    batch = max(*(len(region.box().lower) for region in problem.sets.values()), *(len(value) for value in problem.alone), 1)
    first = torch.zeros(batch, dtype=torch.long)

    def repeated(index: int, region: PerturbationSet) -> bool:
        sources = region.sources if isinstance(region, Member) else (index,)
        return len(region.box().lower) < batch and any(graph[source].op == INPUT for source in sources)

    sets = {index: region.take(first) if repeated(index, region) else region for index, region in problem.sets.items()}
    return replace(problem, sets=sets)


def problem_of(model: Model, sets: PerturbationSet | Regions,
               spec: Specification | None = None, known: Mapping[str, Interval] | None = None) -> Problem:
    """The question as methods see it: sets by node index, shapes checked."""
    check_model(model)
    named = sets if isinstance(sets, Mapping) else {model.graph.inputs[0].name: sets}
    inputs = {name: value for name, value in named.items() if isinstance(name, str) and isinstance(value, Tensor)}
    names = [name for key in named for name in names_of(key)]
    sources = {model.graph.source_named(name).index for name in names if name not in inputs}
    model = unfolded(model, perturbed_nodes(model.graph, sources))
    regions: dict[int, PerturbationSet] = {}
    for key, value in named.items():
        if key not in inputs:
            regions |= placed(key, value, model, regions)
    if not regions:
        raise ShapeError("no perturbation set was given: bounds need at least one input or parameter that varies.")
    if spec is not None:
        check_spec(spec, model)
    check_known(known or {}, model)
    problem = Problem(model, regions, inputs, spec, known or {})
    if model.graph.output.index not in perturbed_nodes(model.graph, regions):
        raise ShapeError(f"the output, {model.graph.output.describe()}, depends on nothing that varies; evaluate it instead.")
    sizes = [len(region.box().lower) for region in regions.values()] + [len(value) for value in problem.alone]
    sizes += [] if spec is None else [len(spec.rows)]
    if any(size not in (1, problem.batch) for size in sizes):
        raise ShapeError(f"sets, inputs, known bounds and specification speak of {sorted(set(sizes))} problems; all must agree "
                         "or be 1.")
    return alike(problem)


def placed(key: Key, value: Any, model: Model, taken: Mapping[int, PerturbationSet]) -> dict[int, PerturbationSet]:
    """A set by the nodes of its sources; ShapeError if it is none, does not fit them, or they have one already."""
    nodes = [model.graph.source_named(name) for name in names_of(key)]
    title = " and ".join(f"'{node.name}'" for node in nodes)
    if not isinstance(value, PerturbationSet):
        raise ShapeError(f"{title} needs a perturbation set, such as LpBall, Box or a class of your own that inherits from "
                         f"PerturbationSet, got {type(value).__name__}.")
    twice = [node.name for place, node in enumerate(nodes) if node.index in taken or node in nodes[:place]]
    if twice:
        raise ShapeError(f"'{twice[0]}' is in two sets; every source has one.")
    found, shapes = tuple(value.box().shape), [node.shape for node in nodes]
    wanted = shapes[0] if isinstance(key, str) else (sum(math.prod(shape) for shape in shapes),)
    if found[1:] != wanted:
        layout = "" if isinstance(key, str) else ", its sources laid end to end (joint_ball makes such a set)"
        raise ShapeError(f"the set of {title} holds tensors of shape {found}, the network takes "
                         f"(batch, {', '.join(map(str, wanted))}){layout}.")
    check_type(title, value, model)
    if isinstance(key, str):
        return {nodes[0].index: value}
    indices = [node.index for node in nodes]
    return dict(zip(indices, members(value, indices, shapes), strict=True))


def check_spec(spec: Specification, model: Model) -> None:
    """ShapeError if a specification reads outputs of another shape or type than the network's."""
    if tuple(spec.rows.shape[2:]) != model.graph.output.shape:
        raise ShapeError(f"the specification reads outputs of shape {list(spec.rows.shape[2:])}, the network gives "
                         f"{list(model.graph.output.shape)}.")
    if model.params and spec.rows.dtype != model.dtype:
        raise ShapeError(f"the specification holds {spec.rows.dtype}, the network {model.dtype}; margins(..., dtype=...) and "
                         "Tensor.to convert.")


def check_known(known: Mapping[str, Interval], model: Model) -> None:
    """ShapeError if a known interval names no node of the network, or has another shape than that node."""
    shapes = {node.name: node.shape for node in model.graph}
    for name, interval in known.items():
        if name not in shapes:
            raise ShapeError(f"known bounds are given for '{name}', which is no node of the network; it has "
                             f"{', '.join(repr(node.name) for node in model.graph if not node.source)}.")
        if not isinstance(interval, Interval) or tuple(interval.shape[1:]) != shapes[name]:
            raise ShapeError(f"the known bounds of '{name}' must be an Interval of shape "
                             f"(batch, {', '.join(map(str, shapes[name]))}).")


def check_type(name: str, region: PerturbationSet, model: Model) -> None:
    """ShapeError if a set's numbers are of another floating type than the network's."""
    found = region.box().lower.dtype
    wanted = {tensor.dtype for tensor in model.params.values() if tensor.is_floating_point()} or {found}
    if wanted != {found} or found not in (torch.float32, torch.float64):
        held = ", ".join(sorted(str(kind) for kind in wanted))
        raise ShapeError(f"the set of {name} holds {found}, the network's parameters {held}; all must be float32 or all "
                         "float64 (Model.to and Tensor.to convert).")
