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

from boundlab.bounds.backward import Env
from boundlab.bounds.groups import Ground, Lower, neurons_of
from boundlab.bounds.intermediate import relaxer
from boundlab.bounds.parts import Splits, no_splits
from boundlab.bounds.space import Named, Variables, free_node, number, taken
from boundlab.bounds.start import NeuronStart
from boundlab.graph import Graph, Node
from boundlab.interval import Interval
from boundlab.maps import Diagonal, Outer, Sum, at_owner, flat
from boundlab.ops import lookup
from boundlab.ops.curves import SIDES
from boundlab.spec import Specification

Slopes = Mapping[int, Sequence[tuple[Tensor, Tensor]]]
"""By node: for each of its perturbed arguments the slopes (n, size) of lower and of upper lines; NaN where any will do.

Of a softmax, and of its logarithm, two pairs of slopes instead: see `planes`.
"""
AT_ONCE = 2**24
"""Slopes of neurons that are computed together."""


@dataclass(frozen=True)
class Inner:
    """Slopes by which the intervals of some `neurons` (k,) of a node were found, for their lower and their upper ends."""

    neurons: Tensor
    lower: Slopes
    upper: Slopes


@dataclass(frozen=True)
class Assumed:
    """How the intervals of some `neurons` (k,) of a node were found where a clause fails, for lower and for upper ends.

    By `multipliers` (2, k, a) of the clause's rows, and slopes.
    """

    neurons: Tensor
    multipliers: Tensor
    lower: Slopes
    upper: Slopes


@dataclass(frozen=True)
class Narrowed:
    """m ends of neurons' intervals that hold on one of n parts each: the `part`, node, neuron, and side (m,).

    Where `side` is 1 it is a lower end, where it is -1 an upper one; `point` (m,) is where it lies. It was found by
    multipliers (m, c) of the part's constraints.
    """

    part: Tensor
    node: Tensor
    neuron: Tensor
    side: Tensor
    point: Tensor
    multiplier: Tensor

    @property
    def columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What there is of each end, but for the multipliers."""
        return self.part, self.node, self.neuron, self.side, self.point

    def cpu(self) -> Narrowed:
        """The same on the CPU."""
        part, node, neuron, side, point = (column.cpu() for column in self.columns)
        return Narrowed(part, node, neuron, side, point, self.multiplier.cpu())

    def at(self, rows: Tensor) -> Narrowed:
        """Some ends."""
        part, node, neuron, side, point = (column[rows] for column in self.columns)
        return Narrowed(part, node, neuron, side, point, self.multiplier[rows])


@dataclass(frozen=True)
class Proof:
    """n leaves of one problem: the clause of each (n,), of whose rows the sum with `weights` (n, a) is positive there, and
    its constraints in the order of the splits.

    A constraint on an input cuts its set. `slopes` are those of the row's lines, `plain` those of plain lines on the leaf's
    box, `inner` those by which inner intervals were found where plain lines were not all, by node. `assumed` are those of
    intervals that hold where a clause fails, by clause and node, in the order in which they were found. `narrowed` are ends of
    intervals that hold on single leaves. Leaves with the same `frame` (n,) have the same plain lines, on their hull; without it
    those that lie in the same box. All is on the CPU.
    """

    clause: Tensor
    weights: Tensor
    splits: Splits
    slopes: Slopes = field(default_factory=dict)
    plain: Slopes = field(default_factory=dict)
    inner: Mapping[int, Inner] = field(default_factory=dict)
    assumed: Mapping[int, Mapping[int, Assumed]] = field(default_factory=dict)
    narrowed: Narrowed | None = None
    frame: Tensor | None = None

    def take(self, index: Tensor) -> Proof:
        """Some leaves, without ends of single ones, which are gathered when all leaves are known."""
        slopes, plain = (some(slopes, index) for slopes in (self.slopes, self.plain))
        return Proof(self.clause[index], self.weights[index], self.splits.take(index), slopes, plain, self.inner, self.assumed,
                     frame=None if self.frame is None else self.frame[index])


def some(slopes: Slopes, index: Tensor) -> Slopes:
    """The slopes of some leaves."""
    return {node: [(low[index], high[index]) for low, high in parts] for node, parts in slopes.items()}


def either(first: Tensor, one: Slopes, other: Slopes) -> Slopes:
    """The slopes `one` of the leaves where `first` (n,) is true, and `other` elsewhere."""
    mask = first[:, None]
    return {node: [(torch.where(mask, a[0], b[0]), torch.where(mask, a[1], b[1]))
                   for a, b in zip(one[node], other[node], strict=True)] for node in other}


def whole(weights: Tensor, plain: Slopes) -> Proof:
    """One leaf for each clause (c, a): the whole set, with plain lines, of which slopes (1, size) are given."""
    clauses = torch.arange(len(weights))
    return Proof(clauses, weights, no_splits(len(weights), torch.zeros(1)), plain=some(plain, torch.zeros_like(clauses)))


def best_rows(spec: Specification, lower: Tensor) -> Tensor:
    """For bounds (n, s) of rows: weights (clauses, n, a) that are 1 for the best row of each clause, on the CPU."""
    own = [lower[:, spec.clause == clause].argmax(1).cpu() for clause in range(spec.clauses)]
    most = int(torch.bincount(spec.clause).max())
    return torch.nn.functional.one_hot(torch.stack(own), most).double()


def joined(proofs: Sequence[Proof]) -> Proof:
    """The leaves of all proofs in one list."""
    splits = proofs[0].splits
    for proof in proofs[1:]:
        splits = splits.below(proof.splits)
    counts = [len(proof.clause) for proof in proofs]
    clause, weights = torch.cat([proof.clause for proof in proofs]), torch.cat([proof.weights for proof in proofs])
    return Proof(clause, weights, splits, together([proof.slopes for proof in proofs], counts),
                 together([proof.plain for proof in proofs], counts), proofs[0].inner)


def together(parts: Sequence[Slopes], counts: Sequence[int]) -> Slopes:
    """Slopes of lists of leaves as those of one list; NaN for leaves that have none at a node."""
    sizes = {node: [low.shape[1] for low, _ in pairs] for part in parts for node, pairs in part.items()}

    def column(node: int, argument: int, side: int, size: int) -> Tensor:
        return torch.cat([part[node][argument][side] if node in part else torch.full((count, size), math.nan)
                          for part, count in zip(parts, counts, strict=True)])

    return {node: [(column(node, argument, 0, size), column(node, argument, 1, size)) for argument, size in enumerate(every)]
            for node, every in sizes.items()}


def needed(node: Node, argument: Interval, slopes: Tensor) -> Tensor:
    """Slopes (n, *shape) as (n, size) on the CPU, NaN where the function is affine on its argument's interval."""
    op, own = lookup(node.op), flat(slopes, 1)
    if not op.piecewise:
        return own.cpu()
    return torch.where(flat(op.unsettled(argument, node.attrs), 1).expand_as(own), own, math.nan).cpu()


def intervals_at(node: Node, env: Env) -> list[Interval]:
    """The intervals of a node's perturbed arguments."""
    return [interval for arg in node.args if isinstance(interval := env[arg], Interval)]


@torch.no_grad()
def plain_of(graph: Graph, env: Env, index: Tensor) -> Slopes:
    """The slopes of plain lines around functions of single coordinates, for the problems `index` (n,)."""
    relax, found = relaxer(env), dict[int, list[tuple[Tensor, Tensor]]]()
    for node in graph:
        if node.index not in env or not free_node(node, env) or not (bound := relax(node)).elementwise:
            continue
        pairs = []
        for low, high, x in zip(bound.lower.maps, bound.upper.maps, intervals_at(node, env), strict=True):
            assert isinstance(low, Diagonal) and isinstance(high, Diagonal)
            own = x.at(index) if len(x.lower) > 1 else x
            scales = (at_owner(layer.scale, index)[:, 0].expand(len(index), *node.shape) for layer in (low, high))
            pairs.append(tuple(needed(node, own, scale) for scale in scales))
        found[node.index] = [(low, high) for low, high in pairs]
    return found


def planes(node: Node, env: Env, shares: Named, index: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The planes around a softmax, or its logarithm, for problems or groups `index`: two pairs of slopes (n, size).

    Those of the share in its own entry's distance from log-sum-exp, and of log-sum-exp in each entry: what is below log-sum-exp
    is above the share. Without shares the planes touch where they begin.
    """
    arguments, free = intervals_at(node, env), lookup(node.op).alpha
    own = {side: shares[side] if side in shares else number(free[side].start, node, env) for side in SIDES}
    bound = lookup(node.op).lines(*arguments, alpha=own, **node.attrs)
    pairs = []
    for layer in (bound.lower.maps[0], bound.upper.maps[0]):
        assert isinstance(layer, Sum)
        diagonal, mixing = layer.terms
        assert isinstance(diagonal, Diagonal) and isinstance(mixing, Outer)
        pairs.append([flat(at_owner(part, index)[:, 0].expand(len(index), *node.shape), 1).cpu()
                      for part in (diagonal.scale, mixing.right)])
    (low, above), (high, below) = pairs
    return [(low, high), (below, above)]


def used(objective: Lower, variables: Variables, row: Tensor) -> Slopes:
    """By which slopes one row of each group (n,) passes; it meets but one of both lines at a coordinate, so both have that.

    Planes around a softmax are those of a group.
    """
    graph, place = objective.ground.problem.model.graph, torch.arange(len(row), device=row.device)
    found = {}
    for index, parts in objective.slopes(variables).items():
        chosen = [slopes.expand(len(row), *slopes.shape[1:])[place, row] for slopes in parts]
        arguments = intervals_at(graph[index], objective.env)
        own = [needed(graph[index], x, slopes) for slopes, x in zip(chosen, arguments, strict=True)]
        found[index] = [(slopes, slopes) for slopes in own]
    for node in graph:
        if node.index in objective.families and lookup(node.op).ranks:
            found[node.index] = planes(node, objective.env, variables.get(node.index, {}), place)
    return found


def inner_of(ground: Ground, kept: Mapping[int, NeuronStart], problem: int) -> dict[int, Inner]:
    """By which slopes the intervals of one problem's inner neurons were found, from the variables where they ended."""
    return {node: found for node, start in kept.items() if (found := inner_at(ground, node, start, problem)) is not None}


@torch.no_grad()
def inner_at(ground: Ground, index: int, start: NeuronStart, problem: int) -> Inner | None:
    """The same for one node, which all problems may share; None if no neuron of it was optimised."""
    node, known = ground.problem.model.graph[index], ground.env[index]
    assert isinstance(known, Interval)
    mask, place = torch.zeros_like(start.group, dtype=torch.bool), problem if len(start.group) > 1 else 0
    mask[place] = start.group[place] >= 0
    neurons = neurons_of(node, known, mask.reshape(len(mask), *node.shape), 1)
    if len(neurons.index) == 0:
        return None
    groups, variables = neurons.both_sides(), start.of(neurons.owner, neurons.index)
    return Inner(neurons.index.cpu(), *of_sides(Lower(ground, groups), variables))


def of_sides(objective: Lower, variables: Variables) -> tuple[Slopes, Slopes]:
    """By which slopes rows of both sides of neurons pass, one row a group, the sides side by side."""
    widest = max(math.prod(one.shape) for one in objective.ground.problem.model.graph)
    parts, counts, groups = list[Slopes](), list[int](), len(objective.groups.owner)
    for chosen in torch.arange(groups).split(max(2, AT_ONCE // widest // 2 * 2)):
        parts.append(used(objective.take(chosen), taken(variables, chosen), torch.zeros_like(chosen)))
        counts.append(len(chosen))
    every, sides = together(parts, counts), torch.arange(groups)
    return some(every, sides[::2]), some(every, sides[1::2])
