"""Which neurons are worth a split: what their lines cost the rows that pass them, where the rows are least and at most.

Where a row is negative the upper line counts, where it is positive the lower one. The gap between line and function is taken
where all lines together let the rows have their least value: the split that cuts that off furthest, as in integer programs.
A small share of what the lines cost at most breaks ties: the largest gap at the place of the split and at both ends, for a
ReLU the score of Bunel et al. 2020 (BaBSR) without its bias.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from boundlab.bounds.backward import Env
from boundlab.bounds.intermediate import relaxer
from boundlab.bounds.parts import PartLower
from boundlab.bounds.reference import value_of
from boundlab.bounds.space import Variables
from boundlab.graph import Node
from boundlab.interval import Interval
from boundlab.maps import flat
from boundlab.ops import lookup

AT_MOST = 1e-3
"""What a gap at most counts beside the gap where the rows are least."""
LEAST_SIZE = 0.2
"""Rows are taken to have such a share of their mean size at least."""
NARROW = 1e-4
"""Where an operator may be split anywhere, intervals narrower than such a share of their size are not."""


@dataclass(frozen=True)
class Candidates:
    """The c best places to split each of n parts, (n, c): node, neuron, place, and score (-inf: there is none).

    `row` is what the part's rows are there on average, `size` how large rows of that node are at least.
    """

    node: Tensor
    neuron: Tensor
    point: Tensor
    score: Tensor
    row: Tensor
    size: Tensor

    @property
    def columns(self) -> tuple[Tensor, ...]:
        """The six tensors."""
        return self.node, self.neuron, self.point, self.score, self.row, self.size

    def gather(self, place: Tensor) -> Candidates:
        """Some of each part's, (n, j)."""
        return Candidates(*(part.gather(1, place) for part in self.columns))

    def one_by_one(self, index: Tensor) -> Candidates:
        """Some of all n c places, part after part, (m, 1)."""
        return Candidates(*(part.reshape(-1)[index, None] for part in self.columns))

    def select(self, index: Tensor) -> Candidates:
        """Those of some parts."""
        return Candidates(*(part[index] for part in self.columns))


def candidates(objective: PartLower, variables: Variables, count: int) -> Candidates:
    """The best `count` places by score, fewer where the network has not so many."""
    graph, (rows, least) = objective.ground.problem.model.graph, objective.meeting(variables)
    found = [one for index in sorted(rows) for one in scores(objective, graph[index], rows, least)]
    if not found:
        return nothing(objective)
    whole = Candidates(*(torch.cat(parts, 1) for parts in zip(*(one.columns for one in found), strict=True)))
    return whole.gather(whole.score.topk(min(count, whole.score.shape[1]), dim=1).indices)


def nothing(objective: PartLower) -> Candidates:
    """No place at all."""
    owner = objective.groups.owner
    none, number = owner.new_zeros(len(owner), 0), objective.rows.dense().new_zeros(len(owner), 0)
    return Candidates(none, none, number, number, number, number)


def scores(objective: PartLower, reader: Node, arrived: Mapping[int, Tensor], least: Mapping[int, Tensor]
           ) -> Iterator[Candidates]:
    """All neurons of the argument of a nonlinear function of one argument, for each place where that may be split.

    `arrived` and `least` are the rows and the values where these are least, by node.
    """
    graph, env = objective.ground.problem.model.graph, objective.env
    perturbed = [arg for arg in reader.args if isinstance(env[arg], Interval)]
    if reader.source or len(perturbed) != 1 or graph[perturbed[0]].source:
        return
    op, interval = lookup(reader.op), env[perturbed[0]]
    assert isinstance(interval, Interval)
    breaks, bound = op.breaks_of(reader.attrs), relaxer(env)(reader)
    if op.affine(tuple(arg in perturbed for arg in reader.args)) or breaks is None or not bound.elementwise:
        return
    lower, upper, rows = interval.lower, interval.upper, arrived[reader.index]
    own = flat(arrived[perturbed[0]].mean(1), 1)
    shortest = (LEAST_SIZE * own.abs().mean(1, keepdim=True)).expand_as(own)
    size = torch.maximum(lower.abs(), upper.abs())
    inexact = (rows * (value_at(reader, env, least[perturbed[0]]) - least[reader.index])).nan_to_num(0).clamp(min=0)

    def gaps(place: Tensor) -> tuple[Tensor, Tensor]:
        value = op.evaluate(*(place if arg in perturbed else env[arg] for arg in reader.args), **reader.attrs)
        below, above = (value_of(side, [place])[:, 0] for side in (bound.lower, bound.upper))
        return value - below, above - value

    ends = [gaps(lower), gaps(upper)]
    for point in [torch.full_like(lower, place) for place in breaks] or [(lower + upper) / 2]:
        inside = (lower < point) & (point < upper) & ((upper - lower > NARROW * size) | bool(breaks))
        here = gaps(torch.where(inside, point, lower))
        below, above = (torch.stack([here[side], *(end[side] for end in ends)]).amax(0) for side in (0, 1))
        most = rows.clamp(min=0) * below.unsqueeze(1) - rows.clamp(max=0) * above.unsqueeze(1)
        score = (torch.minimum(inexact, most) + AT_MOST * most).amax(1)
        score = flat(torch.where(inside & (score >= 0), score, -math.inf), 1)
        neuron = torch.arange(score.shape[1], device=score.device).expand_as(score)
        place = flat(point.expand_as(lower), 1).expand_as(score)
        yield Candidates(torch.full_like(neuron, perturbed[0]), neuron, place, score, own, shortest)


def value_at(node: Node, env: Env, value: Tensor) -> Tensor:
    """A function of one perturbed argument at values (n, g, *shape) of that."""
    count = value.shape[1]

    def argument(index: int) -> Tensor:
        constant = env[index]
        if isinstance(constant, Interval):
            return value.flatten(0, 1)
        return constant if len(constant) == 1 else constant.repeat_interleave(count, 0)

    return lookup(node.op).evaluate(*map(argument, node.args), **node.attrs).unflatten(0, (-1, count))


def rows_at(arrived: Mapping[int, Tensor], node: Tensor, neuron: Tensor) -> Tensor:
    """The rows of n parts at one neuron of each, on average, (n,)."""
    found = torch.zeros_like(neuron, dtype=next(iter(arrived.values())).dtype)
    for index in node.unique().tolist():
        own = flat(arrived[index].mean(1), 1)
        found = torch.where(node == index, own.gather(1, torch.where(node == index, neuron, 0)[:, None]).squeeze(1), found)
    return found
