"""Intervals of neurons made tighter on parts, by what constraints on other neurons say of them.

Only neurons that are affine functions of the inputs are bounded again: their rows pass no relaxation, so that all that is
sought is a multiplier for each constraint (weak duality), as cheap as a few products. Each of the deeper ones costs as much as
a bound of the part itself. Where this gains next to nothing a search ends it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from boundlab.bounds.backward import Env
from boundlab.bounds.climb import Ascent, beginning, climb, never, until
from boundlab.bounds.groups import Groups
from boundlab.bounds.intermediate import is_affine, read_by
from boundlab.bounds.optimise import groups_at_once
from boundlab.bounds.parts import PartLower
from boundlab.graph import Graph
from boundlab.interval import Interval
from boundlab.maps import Select, flat
from boundlab.verify.expansion import Expansion
from boundlab.verify.parts import Parts
from boundlab.verify.proof import Narrowed
from boundlab.verify.scores import candidates

NEURONS = 16
"""How many neurons of a part are bounded again: those whose lines cost most."""
ASCENT, SIZE = Ascent(16, 0.25, 0.95), 0.5
"""The ascent of the multipliers, and the length of their steps where neurons are rows of size 1."""
LEAST, PAYS = 0.01, 0.02
"""The share of its interval that a new end has to cut off to be kept, and that neurons have to lose on average."""


@dataclass(frozen=True)
class Found:
    """Parts with tighter intervals, what was found, by number of the part, and which share of its interval a neuron lost on
    average (without any: infinity)."""

    parts: Parts
    narrowed: Narrowed
    gain: float


def straight(graph: Graph, env: Env) -> set[int]:
    """The nodes that are affine functions of the inputs."""
    found: set[int] = set()
    for node in graph:
        varying = [arg for arg in node.args if isinstance(env.get(arg), Interval)]
        if isinstance(env.get(node.index), Interval) and (node.source or (found.issuperset(varying) and is_affine(node, env))):
            found.add(node.index)
    return found


@torch.no_grad()
def narrowed(expansion: Expansion, parts: Parts, first: int, deadline: float) -> Found:
    """Tighter intervals of the neurons whose lines cost most, on parts that have just been split.

    The parts get numbers from `first` on.
    """
    number = first + torch.arange(len(parts.goal), device=parts.goal.device)
    parts = replace(parts, history=torch.cat([parts.history, number[:, None]], 1))
    objective, graph = expansion.objective(parts), expansion.ground.problem.model.graph
    wanted = candidates(objective, beginning(objective, len(parts.goal), parts.variables), NEURONS)
    rows, shares = [nothing(parts)], [parts.lower.new_zeros(0)]
    for node in sorted(straight(graph, expansion.ground.env) & set(wanted.node.unique().tolist())):
        said = torch.isin(parts.splits.node[:, -1], torch.tensor(sorted(read_by(graph, node)), device=parts.goal.device))
        part, column = ((wanted.node == node) & (wanted.score > 0) & said[:, None]).nonzero(as_tuple=True)
        if len(part):
            interval = objective.interval(node)
            ends = ends_of(expansion, parts, node, (part, wanted.neuron[part, column]), deadline)
            better, share = improved(interval, ends)
            parts = replace(parts, inner={**parts.inner, node: tightened(interval, ends.at(better))})
            rows.append(replace(ends.at(better), part=number[ends.part[better]]))
            shares.append(share)
    share = torch.cat(shares)
    return Found(parts, stacked(rows), float(share.mean()) if len(share) else math.inf)


def ends_of(expansion: Expansion, parts: Parts, node: int, pairs: tuple[Tensor, Tensor], deadline: float) -> Narrowed:
    """Both ends of the neurons of a node at pairs (part, neuron) (m,): first all lower ones, then all upper ones."""
    part, neuron = (torch.cat([half, half]) for half in pairs)
    side = torch.ones_like(part)
    side[len(part) // 2:] = -1
    shape, sign = expansion.ground.problem.model.graph[node].shape, side.to(parts.lower)
    groups = Groups(node, 1, expansion.goals.place[parts.goal[part]],
                    lambda places: Select(shape, None, neuron[places], sign[places, None]))
    begin = replace(parts.splits, weight=torch.zeros_like(parts.splits.weight), size=torch.full_like(parts.splits.size, SIZE))
    points, multipliers = [], []
    for chosen in torch.arange(len(part), device=part.device).split(groups_at_once(expansion.ground, groups)):
        objective = PartLower(expansion.ground, groups.take(chosen), begin.take(part[chosen]))
        found = climb(objective, ASCENT, until(deadline, never))
        points.append(found.best[:, 0])
        multipliers.append(objective.splits.weighed(found.variables).weight)
    return Narrowed(part, torch.full_like(part, node), neuron, side, torch.cat(points) * sign, torch.cat(multipliers))


def improved(interval: Interval, ends: Narrowed) -> tuple[Tensor, Tensor]:
    """Which ends cut off enough of an interval (n, *shape), and the share of it that each neuron's two cut off together."""
    lower, upper = (flat(end, 1)[ends.part, ends.neuron] for end in (interval.lower, interval.upper))
    cut = torch.where(ends.side > 0, ends.point - lower, upper - ends.point) / (upper - lower)
    cut = torch.where(torch.isfinite(cut), cut, 0.0).clamp(0, 1)
    return (cut > LEAST).nonzero().squeeze(1), cut.reshape(2, -1).sum(0).clamp(max=1)


def tightened(interval: Interval, ends: Narrowed) -> Interval:
    """An interval (n, *shape) with some ends. Where they cross by no more than rounding they meet, else a part has no point."""
    lower, upper = (flat(end, 1).clone() for end in (interval.lower, interval.upper))
    low, high = ends.at(ends.side > 0), ends.at(ends.side < 0)
    lower[low.part, low.neuron] = torch.maximum(lower[low.part, low.neuron], low.point)
    upper[high.part, high.neuron] = torch.minimum(upper[high.part, high.neuron], high.point)
    slack = torch.finfo(lower.dtype).eps ** 0.5 * (1 + lower.abs() + upper.abs())
    near = (lower > upper) & (lower <= upper + slack)
    ordered = torch.where(near, upper, lower), torch.where(near, lower, upper)
    return Interval(*(end.reshape(interval.lower.shape) for end in ordered))


def nothing(parts: Parts) -> Narrowed:
    """No end at all."""
    none = parts.goal.new_zeros(0)
    return Narrowed(none, none, none, none, parts.lower.new_zeros(0), parts.lower.new_zeros(0, 0))


def stacked(every: Sequence[Narrowed]) -> Narrowed:
    """All ends in one list; shorter rows of multipliers are filled with 0."""
    most = max(one.multiplier.shape[1] for one in every)
    wide = [torch.nn.functional.pad(one.multiplier, (0, most - one.multiplier.shape[1])) for one in every]
    part, node, neuron, side, point = (torch.cat(columns) for columns in zip(*(one.columns for one in every), strict=True))
    return Narrowed(part, node, neuron, side, point, torch.cat(wide))


def gathered(every: Sequence[Narrowed], history: Tensor) -> Narrowed | None:
    """The best ends of each neuron on leaves with such a `history` (n, t), by place of the leaf; None without any."""
    if not every:
        return None
    found = stacked(every)
    place = torch.arange(len(history))[:, None].expand_as(history)[history >= 0]
    number, order = history[history >= 0].sort()
    start, end = torch.searchsorted(number, found.part), torch.searchsorted(number, found.part, right=True)
    count = end - start
    row = torch.arange(len(count)).repeat_interleave(count)
    rank = torch.arange(len(row)) - (count.cumsum(0) - count).repeat_interleave(count)
    leaf = place[order][start.repeat_interleave(count) + rank]
    keys = [key.numpy() for key in (leaf, found.node[row], found.neuron[row], found.side[row])]
    best = np.lexsort((-(found.side * found.point)[row].numpy(), *reversed(keys)))
    whole = np.stack(keys, 1)[best]
    first = torch.from_numpy(best[np.append(True, (whole[1:] != whole[:-1]).any(1))[:len(best)]])
    return replace(found.at(row[first]), part=leaf[first]) if len(first) else None
