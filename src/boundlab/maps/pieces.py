"""Pieces: rows that slices left, which vanish outside some stretches of one axis and are laid side by side where they meet."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from boundlab.maps.rows import Dense, Rows
from boundlab.maps.shape import Slice


@dataclass(frozen=True)
class Pieces(Rows):
    """Coefficients on stretches of axis `axis` (without batch): (start, (n, s, *shape with a shorter axis)) in order, apart."""

    axis: int
    held: tuple[tuple[int, Tensor], ...]

    def dense(self) -> Tensor:
        parts, place, dim = [], 0, self.axis + 2
        lead = [max(part.shape[axis] for _, part in self.held) for axis in (0, 1)]  # some are shared by all problems
        for start, part in (*self.held, (self.shape[self.axis], None)):
            if start > place:
                first = self.held[0][1]
                parts.append(first.new_zeros(*lead, *first.shape[2:dim], start - place, *first.shape[dim + 1:]))
            if part is not None:
                parts.append(part.expand(*lead, *part.shape[2:]))
                place = start + part.shape[dim]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim)

    def spread(self) -> Dense:
        return Dense(self.shape, self.owner, self.dense())

    def split(self) -> tuple[Rows, Rows]:
        return self.spread().split()

    def dot(self, value: Tensor) -> Tensor:
        return self.spread().dot(value)

    def end(self, place: int) -> int:
        """Where stretch number `place` ends."""
        start, part = self.held[place]
        return start + part.shape[self.axis + 2]


def dense_slice(rows: Dense, layer: Slice) -> Rows:
    """Rows of a slice: one stretch, if the slice narrows one axis without leaving out cells in between."""
    narrowed = [axis for axis, size in enumerate(layer.in_shape) if layer.out_shape[axis] != size]
    if len(narrowed) != 1 or layer.slices[narrowed[0]].step not in (None, 1):
        return Dense(layer.in_shape, rows.owner, layer.pull(rows.coefficients))
    start, _, _ = layer.slices[narrowed[0]].indices(layer.in_shape[narrowed[0]])
    return Pieces(layer.in_shape, rows.owner, narrowed[0], ((start, rows.coefficients),))


def beside(first: Pieces, second: Pieces) -> Pieces | None:
    """The sum of pieces as pieces: stretches that are the same are added, others kept; None if some overlap in part."""
    if first.axis != second.axis:
        return None
    held = dict(first.held)
    for start, part in second.held:
        if start in held and held[start].shape != part.shape:
            return None
        held[start] = held[start] + part if start in held else part
    joined = Pieces(first.shape, first.owner, first.axis, tuple(sorted(held.items(), key=lambda piece: piece[0])))
    apart = all(joined.end(place) <= start for place, (start, _) in enumerate(joined.held[1:]))
    return joined if apart else None
