"""The tree of boxes of a bisection, so that it can be told how each box came about."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from boundlab.bounds.parts import Splits


@dataclass(frozen=True)
class Cuts:
    """Every box's parent, and the cut that made it: coordinate, side (1: the upper half), place; by number, filled as it grows.

    The first `roots` boxes are whole.
    """

    roots: int
    parent: list[Tensor] = field(default_factory=list)
    coordinate: list[Tensor] = field(default_factory=list)
    side: list[Tensor] = field(default_factory=list)
    point: list[Tensor] = field(default_factory=list)

    def halved(self, parent: Tensor, coordinate: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers of the lower and the upper halves of some boxes, each cut at a place of one coordinate, (n,) all."""
        first = self.roots + sum(len(part) for part in self.parent)
        numbers = torch.arange(first, first + 2 * len(parent), device=parent.device)
        self.parent.append(parent.repeat(2))
        self.coordinate.append(coordinate.repeat(2))
        self.side.append(torch.tensor([-1, 1], device=parent.device).repeat_interleave(len(parent)))
        self.point.append(point.repeat(2))
        lower, upper = numbers.chunk(2)
        return lower, upper

    def paths(self, numbers: Tensor, node: int) -> Splits:
        """The cuts of the input `node` that lead to some boxes (n,), from the first to the last, as constraints."""
        if not self.parent:
            none = torch.zeros(len(numbers), 0, dtype=torch.long)
            return Splits(none, none, none, none.double(), none.double(), none.double())
        parent, coordinate, side, point = (torch.cat(parts) for parts in (self.parent, self.coordinate, self.side, self.point))
        columns = []
        while bool((numbers >= self.roots).any()):
            cut, place = numbers >= self.roots, (numbers - self.roots).clamp(min=0)
            columns.append((coordinate[place], torch.where(cut, side[place], 0), point[place]))
            numbers = torch.where(cut, parent[place], numbers)
        if not columns:
            return self.__class__(self.roots).paths(numbers, node)
        neuron, which, where = (torch.stack([column[part] for column in reversed(columns)], 1) for part in range(3))
        none = torch.zeros_like(where)
        return Splits(torch.full_like(neuron, node), neuron, which, where, none, none)
