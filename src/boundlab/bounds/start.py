"""Where an ascent ended, so that another one may begin there: variables of a specification's rows, and of neurons by node."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from boundlab.bounds.space import Variables
from boundlab.errors import SpecError


@dataclass(frozen=True)
class NeuronStart:
    """Variables (2 k, 1 or g, *shape) of both sides of k groups of a node's neurons; `group` (b, neurons) is each one's, or -1.

    They are 1 where the g neurons of a group share them.
    """

    group: Tensor
    variables: Variables

    def of(self, owner: Tensor, index: Tensor) -> Variables:
        """The variables of both sides of the groups of neurons `index` (n,) of examples `owner` (n,), (2 n, 1 or g, *shape).

        NaN where a neuron was in no group. What is kept of one example is that of all owners.
        """
        own = owner if len(self.group) > 1 else torch.zeros_like(owner)
        place = self.group[own, index].to(owner.device)
        sides = torch.stack([2 * place, 2 * place + 1], 1).flatten()

        def chosen(value: Tensor) -> Tensor:
            known = (sides >= 0).reshape(-1, *[1] * (value.dim() - 1))
            return torch.where(known, value[sides.clamp(min=0)], math.nan)

        return {node: {name: chosen(value) for name, value in named.items()} for node, named in self.variables.items()}


@dataclass(frozen=True)
class Start:
    """Variables to begin at: of a specification's rows (b, groups of rows, 1 or g, *shape) by node and name, and of neurons."""

    rows: Variables | None = None
    neurons: Mapping[int, NeuronStart] = field(default_factory=dict)

    def some_rows(self, part: Tensor, count: int) -> Variables | None:
        """The variables of some of `count` groups of rows, counted through all problems, as (n, 1 or g, *shape).

        SpecError if they are those of another number of groups.
        """
        if self.rows is None:
            return None
        sizes = {value.shape[0] * value.shape[1] for named in self.rows.values() for value in named.values()}
        if sizes - {count}:
            raise SpecError(f"start holds variables of {sorted(sizes)} groups of rows, the question has {count}; give it the "
                            "variables of bounds of as many problems and rows.")
        return {index: {name: value.flatten(0, 1)[part] for name, value in named.items()}
                for index, named in self.rows.items()}

    def some_neurons(self, node: int, shape: tuple[int, int], owner: Tensor, index: Tensor) -> Variables | None:
        """As `NeuronStart.of`, for a node with `shape` (b, neurons); SpecError if it was of another."""
        if node not in self.neurons:
            return None
        found = self.neurons[node]
        if tuple(found.group.shape) != shape:
            raise SpecError(f"start holds variables of {list(found.group.shape)} (problems, neurons) of node {node}, the "
                            f"question has {list(shape)}; give it the variables of bounds of as many problems of the same "
                            "network.")
        return found.of(owner, index)
