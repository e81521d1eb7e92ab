"""The problems of a search for radii: inputs, what should hold of each, the sets that grow around them, and one trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from boundlab.attack.pgd import PGD, attack
from boundlab.bounds.methods import bound
from boundlab.bounds.problem import Method, check_spec
from boundlab.errors import BoundError, ShapeError, SpecError
from boundlab.evaluate import evaluate
from boundlab.graph import Model, check_model
from boundlab.perturbations.sets import PerturbationSet, check_center
from boundlab.radii.family import Family
from boundlab.radii.search import Outcome, Trial
from boundlab.spec import Specification, at_least, checked_labels, margins
from boundlab.verify.task import Task, task_of_sets, violates
from boundlab.verify.verdict import Witness
from boundlab.verify.verify import chunks


@dataclass(frozen=True)
class Targeted:
    """The statement that `labels` (b,) beat classes `targets` (b,), or (b, t), where each has a radius of its own."""

    labels: Tensor | Sequence[int]
    targets: Tensor | Sequence[int]


Statement = Tensor | Sequence[int] | Targeted | Specification
"""What should hold: labels (b,) that beat all other classes, labels that beat given ones, or a specification (b or 1, s)."""


@dataclass(frozen=True)
class Problems:
    """n problems: inputs x (n, *shape), the specification of each, and the family of sets that grow around them."""

    model: Model
    x: Tensor
    spec: Specification
    family: Family

    @property
    def input(self) -> str:
        """The name of the network's input."""
        return self.model.graph.inputs[0].name

    def full(self, value: float) -> Tensor:
        """One number for every problem, (n,)."""
        return self.x.new_full((len(self.x),), value)

    def sets(self, index: Tensor, eps: Tensor) -> PerturbationSet:
        """The sets of the problems `index` (m,) of radii (m,)."""
        return self.family.sets(self.x[index], eps)

    def largest(self) -> Tensor:
        """The radii (n,) beyond which sets grow no more; inf where they always do."""
        return self.full(torch.inf) if self.family.largest is None else self.family.largest(self.x)

    def outputs(self) -> Tensor:
        """The network at the inputs, (n, *out)."""
        return evaluate(self.model, {self.input: self.x})

    def broken(self) -> dict[int, Witness]:
        """The inputs at which the specification fails already, in exact arithmetic, by problem."""
        outputs = self.outputs()
        return {place: Witness({self.input: self.x[place:place + 1]}, outputs[place:place + 1])
                for place in range(len(self.x)) if violates(self.spec.take(torch.tensor([place])), outputs[place:place + 1])}

    def worst_bounds(self, index: Tensor, eps: Tensor, method: Method) -> Tensor:
        """Lower bounds (m,) of the worst clause at radii (m,); -inf where the method says nothing.

        One bad problem spoils no other: those of a batch that fails are bounded by halves.
        """
        spec = self.spec.take(index)
        try:
            lower = bound(self.model, self.sets(index, eps), method=method, spec=spec).lower
            return torch.where(torch.isfinite(lower).all(1), spec.worst(lower), -torch.inf)
        except BoundError:
            if len(index) == 1:
                return eps.new_full((1,), -torch.inf)
        halves = zip(index.chunk(2), eps.chunk(2), strict=True)
        return torch.cat([self.worst_bounds(*half, method) for half in halves])

    def proofs(self, method: Method) -> Trial:
        """Trials that hold where the method proves the specification."""
        def trial(index: Tensor, eps: Tensor, turn: int) -> Outcome:
            worst = self.worst_bounds(index, eps, method)
            return Outcome(worst > 0, margins=worst)

        return trial

    def attacks(self, how: PGD) -> Trial:
        """Trials that hold where the attack finds no witness; random starts differ from turn to turn."""
        def trial(index: Tensor, eps: Tensor, turn: int) -> Outcome:
            task = task_of_sets(self.model, {self.input: self.sets(index, eps)}, self.spec.take(index), None)
            found = {place: witness for part in chunks(task, torch.arange(len(index)))
                     for place, witness in witnesses_of(task, part, how, turn).items()}
            held = torch.tensor([place not in found for place in range(len(index))], device=index.device)
            return Outcome(held, {int(index[place]): witness for place, witness in found.items()})

        return trial


def witnesses_of(task: Task, part: Tensor, how: PGD, seed: int) -> dict[int, Witness]:
    """What the attack finds for the problems `part` (m,) of a task, replayed and judged at zero tolerance."""
    sets, spec = task.take(part)
    found = attack(task.model, sets, spec, how, torch.Generator().manual_seed(seed))
    judged = {}
    for place in found.violated.nonzero().flatten().tolist():
        point = {name: points[place:place + 1] for name, points in found.points.items()}
        judged[int(part[place])] = task.accept(int(part[place]), point)
    return {place: witness for place, witness in judged.items() if witness is not None}


def problems_of(model: Model, x: Tensor, statement: Statement, family: Family) -> Problems:
    """The problems with their shapes checked; with (b, t) targets example i has the problems i t to i t + t - 1."""
    check_model(model)
    if not isinstance(family, Family):
        raise SpecError(f"a family of sets is a value such as balls(p=2) or Family(function), got {family!r:.60}.")
    if len(model.graph.inputs) != 1:
        raise ShapeError(f"a radius is about the only input of a network; this one has {len(model.graph.inputs)}.")
    shape = model.graph.inputs[0].shape
    if not isinstance(x, Tensor) or tuple(x.shape[1:]) != shape or x.dim() != len(shape) + 1 or len(x) == 0:
        found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ShapeError(f"radii are about inputs of shape (batch, {', '.join(map(str, shape))}), got {found}.")
    if x.dtype != model.dtype:
        raise ShapeError(f"the inputs hold {x.dtype}, the network {model.dtype}; Model.to and Tensor.to convert.")
    check_center(x, "input of a radius")
    spec = specification_of(model, statement)
    check_spec(spec, model)
    repeat = len(spec.rows) // len(x) if isinstance(statement, Targeted) else 1
    shared = isinstance(statement, Specification) and len(spec.rows) == 1
    if not shared and len(spec.rows) != repeat * len(x):
        raise ShapeError(f"there are {len(x)} inputs and labels or specifications for {len(spec.rows)} problems.")
    return Problems(model.detached(), x.detach().repeat_interleave(repeat, 0), spec, family)


def specification_of(model: Model, statement: Statement) -> Specification:
    """What should hold, as a specification of (b or 1, s) rows; for targets one row of (b t, 1)."""
    if isinstance(statement, Specification):
        return statement
    shape = model.graph.output.shape
    if len(shape) != 1 or shape[0] < 2:
        raise ShapeError(f"labels need an output of shape (batch, classes); the network gives (batch, "
                         f"{', '.join(map(str, shape))}).")
    if not isinstance(statement, Targeted):
        return margins(torch.as_tensor(statement, device=model.device), shape[0], model.dtype)
    targets = torch.as_tensor(statement.targets, device=model.device)
    labels = checked_labels(torch.as_tensor(statement.labels, device=model.device), shape[0])
    if targets.dim() not in (1, 2) or len(targets) != len(labels) or targets.numel() == 0:
        raise SpecError(f"targets must be (b,) or (b, t) classes for the {len(labels)} labels, got {tuple(targets.shape)}.")
    labels = labels.repeat_interleave(targets[0].numel())
    rivals = checked_labels(targets.flatten(), shape[0])
    if bool((labels == rivals).any()):
        raise SpecError(f"a target must be another class than the label; problem {int((labels == rivals).nonzero()[0])} has "
                        f"{int(labels[labels == rivals][0])} for both.")
    eye = torch.eye(shape[0], dtype=model.dtype, device=labels.device)
    return at_least((eye[labels] - eye[rivals]).unsqueeze(1))
