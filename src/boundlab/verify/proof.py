"""What a search has shown, leaf by leaf: the numbers from which anyone can derive it again.

A leaf is a part of a problem's set, a clause, and a row of it that is positive there. Slopes and multipliers say how to see
that; they need not be trusted, since whatever they are gives bounds that hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from boundlab.bounds.groups import Ground, Lower, neurons_of
from boundlab.bounds.parts import Splits, no_splits
from boundlab.bounds.start import NeuronStart
from boundlab.interval import Interval
from boundlab.maps import flat
from boundlab.ops import lookup

Slopes = Mapping[int, Sequence[Tensor]]
"""By node: the slopes (n, size) for each of its perturbed arguments; NaN where any will do."""
AT_ONCE = 2**24
"""Slopes of neurons that are computed together."""


@dataclass(frozen=True)
class Inner:
    """Slopes by which the intervals of some `neurons` (k,) of a node were found, for their lower and their upper ends."""

    neurons: Tensor
    lower: Slopes
    upper: Slopes


@dataclass(frozen=True)
class Proof:
    """n leaves of one problem: the clause and the positive row of each (n,), and its constraints in the order of the splits.

    A constraint on an input cuts its set. `slopes` are those of the row, `inner` those of inner intervals by node (one for all
    leaves), where plain lines were not all. Everything is on the CPU.
    """

    clause: Tensor
    row: Tensor
    splits: Splits
    slopes: Slopes = field(default_factory=dict)
    inner: Mapping[int, Inner] = field(default_factory=dict)

    def take(self, index: Tensor) -> Proof:
        """Some leaves."""
        slopes = {node: [part[index] for part in parts] for node, parts in self.slopes.items()}
        return Proof(self.clause[index], self.row[index], self.splits.take(index), slopes, self.inner)


def whole(clauses: Tensor, rows: Tensor) -> Proof:
    """One leaf for each clause: the whole set, with plain lines."""
    return Proof(clauses.cpu(), rows.cpu(), no_splits(len(rows), torch.zeros(1)))


def joined(proofs: Sequence[Proof]) -> Proof:
    """The leaves of all proofs in one list."""
    splits = proofs[0].splits
    for proof in proofs[1:]:
        splits = splits.below(proof.splits)
    nodes = {node: [part.shape[1] for part in parts] for proof in proofs for node, parts in proof.slopes.items()}

    def slopes_of(node: int, place: int, size: int) -> Tensor:
        return torch.cat([proof.slopes[node][place] if node in proof.slopes else torch.full((len(proof.row), size), math.nan)
                          for proof in proofs])

    slopes = {node: [slopes_of(node, place, size) for place, size in enumerate(sizes)] for node, sizes in nodes.items()}
    return Proof(torch.cat([proof.clause for proof in proofs]), torch.cat([proof.row for proof in proofs]), splits, slopes,
                 proofs[0].inner)


def settled_slopes(objective: Lower, found: Mapping[int, list[Tensor]], row: Tensor) -> Slopes:
    """Of slopes (n, g, *shape) by node those of one row of each group (n,), where some other slope would do worse."""
    graph, place = objective.ground.problem.model.graph, torch.arange(len(row), device=row.device)

    def chosen(index: int, slopes: Tensor, argument: Interval | Tensor) -> Tensor:
        node, own = graph[index], flat(slopes.expand(len(row), *slopes.shape[1:])[place, row], 1)
        op = lookup(node.op)
        if not op.piecewise or not isinstance(argument, Interval):
            return own.cpu()
        return torch.where(flat(op.unsettled(argument, node.attrs), 1), own, math.nan).cpu()

    def arguments(index: int) -> list[Interval | Tensor]:
        return [objective.env[arg] for arg in graph[index].args if isinstance(objective.env[arg], Interval)]

    return {index: [chosen(index, *pair) for pair in zip(parts, arguments(index), strict=True)]
            for index, parts in found.items()}


def inner_of(ground: Ground, kept: Mapping[int, NeuronStart], problem: int) -> dict[int, Inner]:
    """By which slopes the intervals of one problem's inner neurons were found, from the variables where they ended."""
    return {node: found for node, start in kept.items() if (found := inner_at(ground, node, start, problem)) is not None}


def inner_at(ground: Ground, index: int, start: NeuronStart, problem: int) -> Inner | None:
    """The same for one node; None if no neuron of it was optimised."""
    node, known = ground.problem.model.graph[index], ground.env[index]
    assert isinstance(known, Interval)
    mask = torch.zeros_like(start.group, dtype=torch.bool)
    mask[problem] = start.group[problem] >= 0
    neurons = neurons_of(node, known, mask.reshape(len(mask), *node.shape), 1)
    if len(neurons.index) == 0:
        return None
    groups, variables = neurons.both_sides(), start.of(neurons.owner, neurons.index)
    widest = max(math.prod(one.shape) for one in ground.problem.model.graph)
    parts: list[Slopes] = []
    for some in torch.arange(len(groups.owner)).split(max(2, AT_ONCE // widest // 2 * 2)):
        objective = Lower(ground, groups.take(some))
        named = {one: {name: value[some] for name, value in values.items()} for one, values in variables.items()}
        parts.append(settled_slopes(objective, objective.slopes(named), torch.zeros_like(some)))

    def side(place: int) -> Slopes:
        return {one: [torch.cat([part[one][argument][place::2] for part in parts]) for argument in range(len(parts[0][one]))]
                for one in parts[0]}

    return Inner(neurons.index.cpu(), side(0), side(1))
