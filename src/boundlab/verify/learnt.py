"""Intervals that a stage has found, handed on to the search that begins with the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from boundlab.bounds.backward import Env
from boundlab.bounds.problem import Bounds, Problem, joined
from boundlab.graph import Graph
from boundlab.interval import Interval
from boundlab.maps import at_owner


@dataclass(frozen=True)
class Learnt:
    """Intervals of every node of a graph for the problems `index` (m,), and the seconds that they took."""

    index: Tensor
    graph: Graph
    env: Env
    seconds: float

    def on(self, index: Tensor) -> Learnt:
        """The same of those of the problems that are in `index` (k,), with their share of the seconds."""
        places = torch.isin(self.index, index).nonzero().flatten()
        if len(places) == len(self.index):
            return self
        env = {node: of_some(value, places) for node, value in self.env.items()}
        return Learnt(self.index[places], self.graph, env, self.seconds * len(places) / len(self.index))


def of_some(value: Tensor | Interval, places: Tensor) -> Tensor | Interval:
    """A value of some problems; one that all share stays shared."""
    return value.at(places) if isinstance(value, Interval) else at_owner(value, places)


def learnt(found: Bounds, index: Tensor, still: Tensor, seconds: float) -> tuple[Learnt, ...]:
    """What bounds of the problems `index` (m,) know of those that are `still` (k,) open; nothing if there are none."""
    own = Learnt(index, found.graph, found.env, seconds).on(still)
    return (own,) if len(own.index) else ()


def recalled(known: Sequence[Learnt], problem: Problem, index: Tensor) -> Learnt | None:
    """The intervals of a problem whose parts are the problems `index` (k,); None where they are not known of all.

    Nor where parts have other sources: what varies in some of them is constant in others.
    """
    sources = [node.source for node in problem.model.graph]
    parts = [part for one in known if len((part := one.on(index)).index)]
    if not parts or not torch.equal(torch.cat([part.index for part in parts]), index):
        return None
    if any([node.source for node in part.graph] != sources for part in parts):
        return None
    env = parts[0].env if len(parts) == 1 else joined([part.env for part in parts], problem)
    return Learnt(index, problem.model.graph, env, sum(part.seconds for part in parts))
