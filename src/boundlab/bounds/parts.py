"""Bounds on parts of sets: what the value of some neurons cuts out.

A constraint on a neuron acts twice. Its interval ends there, so lines are made on less; and it is a term with a multiplier
(Wang et al. 2021, beta-CROWN, Sec. 3.2). A part without points has bounds that grow without end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from boundlab.bounds.backward import Env
from boundlab.bounds.space import Prepare, Range, Variables
from boundlab.bounds.terms import MULTIPLIER, Term, TermLower
from boundlab.graph import Node
from boundlab.interval import Interval
from boundlab.maps import flat
from boundlab.ops import lookup


@dataclass(frozen=True)
class Splits:
    """Up to k constraints on neurons for each of n parts, all (n, k).

    `side` 1: the value of the `neuron` of the `node` (an index) is at least `point`; -1: at most; 0: no constraint. `weight` is
    the multiplier of each at which an ascent begins, `size` the length of its steps.
    """

    node: Tensor
    neuron: Tensor
    side: Tensor
    point: Tensor
    weight: Tensor
    size: Tensor

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The six tensors."""
        return self.node, self.neuron, self.side, self.point, self.weight, self.size

    def cpu(self) -> Splits:
        """The same on the CPU."""
        return Splits(*(part.cpu() for part in self.parts))

    def take(self, index: Tensor) -> Splits:
        """The constraints of the parts `index` (m,)."""
        return Splits(*(part[index] for part in self.parts))

    def beside(self, other: Splits) -> Splits:
        """The constraints of both, part by part."""
        return Splits(*(torch.cat(pair, 1) for pair in zip(self.parts, other.parts, strict=True)))

    def below(self, other: Splits) -> Splits:
        """The parts of both, one list after the other; shorter rows are filled with what constrains nothing."""
        count = max(self.node.shape[1], other.node.shape[1])
        pairs = zip(self.padded(count), other.padded(count), strict=True)
        return Splits(*(torch.cat(pair) for pair in pairs))

    def padded(self, count: int) -> tuple[Tensor, ...]:
        """The six tensors with `count` columns."""
        more = count - self.node.shape[1]
        return tuple(torch.nn.functional.pad(part, (0, more)) for part in self.parts)

    @property
    def nodes(self) -> list[int]:
        """The nodes that some part constrains."""
        return self.node[self.side != 0].unique().tolist()

    def at(self, node: int) -> Splits:
        """The constraints of one node, in the same columns; neuron and side are 0 where a part constrains another node."""
        here = (self.node == node) & (self.side != 0)
        return Splits(*(torch.where(here, part, 0) for part in self.parts))

    def weighed(self, variables: Variables) -> Splits:
        """With the multipliers that an ascent has found, (n, 1, k) by node."""
        weight = self.weight
        for node in self.nodes:
            weight = torch.where(self.node == node, variables[node][MULTIPLIER].squeeze(1), weight)
        return replace(self, weight=weight)

    def clip(self, env: Env) -> tuple[Env, Tensor]:
        """Intervals (n, *shape) that end at the constraints, and which parts are seen to be empty, (n,) booleans."""
        found, empty = dict(env), torch.zeros(len(self.node), dtype=torch.bool, device=self.node.device)
        for node in self.nodes:
            here = self.at(node)
            interval = env[node]
            assert isinstance(interval, Interval)
            shape = (len(self.node), *interval.shape[1:])
            low, high = flat(interval.lower.expand(shape), 1), flat(interval.upper.expand(shape), 1)
            low = low.scatter_reduce(1, here.neuron, torch.where(here.side > 0, here.point, -math.inf), "amax")
            high = high.scatter_reduce(1, here.neuron, torch.where(here.side < 0, here.point, math.inf), "amin")
            found[node], crossed = ordered(low.reshape(shape), high.reshape(shape))
            empty |= crossed
        return found, empty


def intervals_of(inner: Mapping[int, Interval], index: Tensor) -> dict[int, Interval]:
    """Intervals (n, *shape) by node for some of n parts."""
    return {node: interval.map(lambda end: end[index]) for node, interval in inner.items()}


def no_splits(parts: int, like: Tensor) -> Splits:
    """No constraint for any of the parts; numbers will have the type of `like`."""
    none = torch.zeros(parts, 0, dtype=torch.long, device=like.device)
    number = like.new_zeros(parts, 0)
    return Splits(none, none, none, number, number, number)


def ordered(low: Tensor, high: Tensor) -> tuple[Interval, Tensor]:
    """The interval between ends (n, *shape), where they cross with one for the other, and in which parts (n,) some cross."""
    crossed = low > high
    return Interval(torch.where(crossed, high, low), torch.where(crossed, low, high)), flat(crossed, 1).any(1)


@dataclass(frozen=True)
class NeuronTerm(Term):
    """Constraints on neurons of one node, as `Splits.at` gives them: side * (value - point) is nowhere negative on a part."""

    here: Splits

    @property
    def range(self) -> Range:
        high = torch.where(self.here.side != 0, math.inf, 0.0).to(self.here.weight)
        return Range(*(part.unsqueeze(1) for part in (self.here.weight, torch.zeros_like(high), high, self.here.size)))

    def subtracted(self, rows: Tensor, multiplier: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        height = flat(reference.expand(len(rows), *rows.shape[2:]), 1).gather(1, self.here.neuron)
        weight = multiplier.squeeze(1) * self.here.side
        places = self.here.neuron.unsqueeze(1).expand(-1, rows.shape[1], -1)
        moved = flat(rows, 2).scatter_add(2, places, -weight.unsqueeze(1).expand_as(places))
        return moved.reshape(rows.shape), (weight * (self.here.point - height)).sum(1, keepdim=True)


@dataclass(frozen=True)
class PartLower(TermLower):
    """Lower bounds of the rows of groups, each on the part of its owner's set where its constraints hold.

    `inner` are tighter intervals of some nodes that hold on the parts, (n, *shape).
    """

    splits: Splits
    inner: Mapping[int, Interval] = field(default_factory=dict)

    def take(self, index: Tensor) -> PartLower:
        return PartLower(self.ground, self.groups.take(index), self.splits.take(index), intervals_of(self.inner, index))

    @cached_property
    def narrowed(self) -> frozenset[int]:
        """The nodes whose intervals differ from part to part: those that have constraints or tighter intervals, and those whose
        entries are moved from there."""
        found = {*self.splits.nodes, *self.inner}
        for node in self.ground.problem.model.graph:
            if node.args and node.args[0] in found and lookup(node.op).moves:
                found.add(node.index)
        return frozenset(found)

    def whole(self, index: int) -> Interval:
        """The interval of a node on the set of each part's owner, (n, *shape)."""
        interval = self.ground.env[index]
        assert isinstance(interval, Interval)
        return interval.at(self.groups.owner)

    @cached_property
    def clipped(self) -> tuple[Env, Tensor]:
        """Intervals that end at the constraints, and which parts are seen to be empty."""
        env, graph = self.ground.beside(self.groups.owner), self.ground.problem.model.graph
        clipped, empty = self.splits.clip({**env, **{index: self.whole(index) for index in self.narrowed}, **self.inner})
        found = dict(clipped)
        for index in sorted(self.narrowed):
            node, op = graph[index], lookup(graph[index].op)
            if op.moves and node.args[0] in self.narrowed:
                here, moved = found[index], found[node.args[0]]
                assert isinstance(here, Interval) and isinstance(moved, Interval)
                image = moved.map(partial(op.evaluate, **node.attrs))
                found[index], crossed = ordered(torch.maximum(here.lower, image.lower), torch.minimum(here.upper, image.upper))
                empty = empty | crossed
        return found, empty

    def interval(self, index: int) -> Interval:
        """The interval of a node on each part, (n, *shape)."""
        found = self.env[index] if index in self.narrowed else self.whole(index)
        assert isinstance(found, Interval)
        return found

    @cached_property
    def env(self) -> Env:
        return self.clipped[0]

    @cached_property
    def terms(self) -> Mapping[int, Term]:  # none where there are no constraints at all
        return {index: NeuronTerm(self.splits.at(index)) for index in self.splits.nodes}

    def prepared(self, node: Node, prepare: Prepare) -> tuple[Tensor, ...]:
        if self.narrowed.isdisjoint(node.args):
            return super().prepared(node, prepare)
        return prepare(node, self.env)
