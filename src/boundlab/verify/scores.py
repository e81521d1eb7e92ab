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
from boundlab.graph import Graph, Node
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
    """All numbers that a nonlinear function reads, for each place where they may be split.

    `arrived` and `least` are the rows and the values where these are least, by node.
    """
    env = objective.env
    op, perturbed = lookup(reader.op), [arg for arg in reader.args if isinstance(env[arg], Interval)]  # some of them twice
    if reader.source or op.affine(tuple(arg in perturbed for arg in reader.args)):
        return
    if len(perturbed) > 1 or not relaxer(env)(reader).elementwise:
        yield from of_several(objective, reader, arrived, least)
    elif op.breaks_of(reader.attrs) is not None and not objective.ground.problem.model.graph[perturbed[0]].source:
        yield from of_one(objective, reader, arrived, least)


def of_one(objective: PartLower, reader: Node, arrived: Mapping[int, Tensor], least: Mapping[int, Tensor]
           ) -> Iterator[Candidates]:
    """All neurons of the argument of a function of one number, for each place where that may be split."""
    env, op = objective.env, lookup(reader.op)
    perturbed = [arg for arg in reader.args if isinstance(env[arg], Interval)]
    breaks, bound, interval = op.breaks_of(reader.attrs), relaxer(env)(reader), env[perturbed[0]]
    assert isinstance(interval, Interval) and breaks is not None
    lower, upper, rows = interval.lower, interval.upper, arrived[reader.index]
    size, inexact = torch.maximum(lower.abs(), upper.abs()), lost(reader, env, arrived, least)

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
        yield entries(perturbed[0], point.expand_as(lower), torch.where(inside, score, -math.inf), arrived)


def of_several(objective: PartLower, reader: Node, arrived: Mapping[int, Tensor], least: Mapping[int, Tensor]
               ) -> Iterator[Candidates]:
    """All numbers that a function of several numbers reads, each to be split in the middle.

    What its planes cost is shared among them, by how much of the function's range each of them moves it through.
    """
    env, graph, rows = objective.env, objective.ground.problem.model.graph, arrived[reader.index]
    width = objective.whole(reader.index).width
    cost = (lost(reader, env, arrived, least) + AT_MOST * rows.abs() * width.unsqueeze(1)).amax(1)
    share = torch.where(width > 0, cost / torch.where(width > 0, width, 1.0), 0.0)
    for arg, slope in slopes_at_ends(reader, env, share).items():
        node, slope = moved_from(graph, arg, slope)
        if not graph[node].source:
            interval = objective.interval(node)
            size, middle = torch.maximum(interval.lower.abs(), interval.upper.abs()), interval.center
            inside = (interval.lower < middle) & (middle < interval.upper) & (interval.width > NARROW * size)
            yield entries(node, middle, torch.where(inside, slope * interval.width / 3, -math.inf), arrived)


def moved_from(graph: Graph, index: int, amount: Tensor) -> tuple[int, Tensor]:
    """Where a node's entries are moved from, and amounts (n, *shape) of these as sums at their sources.

    Only what is there has a name in a network's file: pooling, for example, is written as one operator with its windows.
    """
    while not (node := graph[index]).source and lookup(node.op).moves and not graph[node.args[0]].source:
        index = node.args[0]
        with torch.enable_grad():
            source = amount.new_zeros(len(amount), *graph[index].shape).requires_grad_()
            amount, = torch.autograd.grad(lookup(node.op).evaluate(source, **node.attrs), source, amount)
    return index, amount


def entries(node: int, place: Tensor, score: Tensor, arrived: Mapping[int, Tensor]) -> Candidates:
    """Every number of a node as a candidate, from places and scores (n, *shape)."""
    score = flat(torch.where(score >= 0, score, -math.inf), 1)
    own = flat(arrived[node].mean(1), 1)
    shortest = (LEAST_SIZE * own.abs().mean(1, keepdim=True)).expand_as(own)
    neuron = torch.arange(score.shape[1], device=score.device).expand_as(score)
    return Candidates(torch.full_like(neuron, node), neuron, flat(place, 1).expand_as(score), score, own, shortest)


def lost(node: Node, env: Env, arrived: Mapping[int, Tensor], least: Mapping[int, Tensor]) -> Tensor:
    """What lines of a function cost the rows (n, g, *shape) that pass it, where all lines together are least."""
    count = arrived[node.index].shape[1]

    def argument(index: int) -> Tensor:
        constant = env[index]
        if isinstance(constant, Interval):
            return least[index].flatten(0, 1)
        return constant if len(constant) == 1 else constant.repeat_interleave(count, 0)

    value = lookup(node.op).evaluate(*map(argument, node.args), **node.attrs).unflatten(0, (-1, count))
    return (arrived[node.index] * (value - least[node.index])).nan_to_num(0).clamp(min=0)


def slopes_at_ends(node: Node, env: Env, share: Tensor) -> dict[int, Tensor]:
    """By perturbed argument how steep the outputs, weighed by `share` (n, *shape), are there, summed over three points.

    These are both ends and the middle of all intervals: at one point alone the slopes of a product or a maximum may vanish.
    """
    intervals = {arg: value for arg in node.args if isinstance(value := env[arg], Interval)}
    steep = {arg: torch.zeros_like(value.lower.expand(len(share), *value.shape[1:])) for arg, value in intervals.items()}
    for points in zip(*((value.lower, value.center, value.upper) for value in intervals.values()), strict=True):
        with torch.enable_grad():
            at = {arg: point.expand(len(share), *point.shape[1:]).detach().requires_grad_()
                  for arg, point in zip(intervals, points, strict=True)}
            value = lookup(node.op).evaluate(*(at.get(arg, env[arg]) for arg in node.args), **node.attrs)
            if value.requires_grad:  # a function that jumps has no slopes
                slopes = torch.autograd.grad(value, list(at.values()), share.expand_as(value), materialize_grads=True)
                steep = {arg: steep[arg] + slope.abs().nan_to_num(0) for arg, slope in zip(at, slopes, strict=True)}
    return steep


def rows_at(arrived: Mapping[int, Tensor], node: Tensor, neuron: Tensor) -> Tensor:
    """The rows of n parts at one neuron of each, on average, (n,)."""
    found = torch.zeros_like(neuron, dtype=next(iter(arrived.values())).dtype)
    for index in node.unique().tolist():
        own = flat(arrived[index].mean(1), 1)
        found = torch.where(node == index, own.gather(1, torch.where(node == index, neuron, 0)[:, None]).squeeze(1), found)
    return found
