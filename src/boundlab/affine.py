"""Affine, LinearBound and the small helpers that relaxations are written with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from boundlab.interval import Interval
from boundlab.maps import Diagonal, LinearMap, Table, Zero

Number = Tensor | float


@dataclass(frozen=True)
class Affine:
    """`sum_i maps[i](x_i) + bias`, one map for each perturbed argument; `bias` broadcasts to (b, s, *out), None means none."""

    maps: tuple[LinearMap, ...]
    bias: Tensor | None = None


@dataclass(frozen=True)
class LinearBound:
    """lower(x) <= y <= upper(x) on the region it was made for.

    The relaxation of an operator in its arguments (the field's word) is one of these. Where both sides are one and the
    same object it is exact, and rows pass through without looking at signs.
    """

    lower: Affine
    upper: Affine

    @property
    def exact(self) -> bool:
        """Whether the operator is affine here, known from structure and not from numbers."""
        return self.lower is self.upper

    @property
    def elementwise(self) -> bool:
        """Whether every map of both sides is diagonal, so that signs can be chosen coordinate by coordinate."""
        return all(isinstance(layer, Diagonal) for layer in (*self.lower.maps, *self.upper.maps))

    @cached_property
    def choice(self) -> Table:
        """What rows meet where both sides are elementwise, each (b, 1 or s, *shape).

        The lower slopes, one for each argument; how much steeper the upper ones are; the lower intercept, if any; how much
        higher the upper one is, unless there is neither. A row r then is r * lower + min(r, 0) * (upper - lower).
        """
        low = [layer.scale for layer in self.lower.maps if isinstance(layer, Diagonal)]
        high = [layer.scale for layer in self.upper.maps if isinstance(layer, Diagonal)]
        below, above = self.lower.bias, self.upper.bias
        offsets = [] if below is None else [below, -below if above is None else above - below]
        if below is None and above is not None:
            offsets = [above]
        turns = [steep - flat for flat, steep in zip(low, high, strict=True)]
        return Table(self.lower.maps[0].out_shape, (*low, *turns, *offsets))


def exact(*maps: LinearMap, bias: Tensor | None = None) -> LinearBound:
    """The relaxation of an affine operator: itself."""
    affine = Affine(maps, bias)
    return LinearBound(affine, affine)


def constants(value: Interval, perturbed: Sequence[Interval]) -> LinearBound:
    """Between the ends of an interval (b, *out), whatever the perturbed arguments are."""
    maps = tuple(Zero(tuple(x.shape[1:]), tuple(value.shape[1:])) for x in perturbed)
    return LinearBound(Affine(maps, value.row_lower), Affine(maps, value.row_upper))


Line = tuple[Tensor, Tensor | None]


def lines(lower: Line, upper: Line) -> LinearBound:
    """The relaxation of an elementwise operator from (slope, intercept) of its two lines, all (b, s, *shape)."""

    def affine(line: Line) -> Affine:
        shape = tuple(line[0].shape[2:])
        return Affine((Diagonal(shape, shape, line[0]),), line[1])

    return LinearBound(affine(lower), affine(upper))


def where3(first: Tensor, a: Number, second: Tensor, b: Number, otherwise: Tensor) -> Tensor:
    """a where `first`, else b where `second`, else `otherwise`."""
    return torch.where(first, a, torch.where(second, b, otherwise))


def chord(f: Callable[[Tensor], Tensor], x: Interval, narrow: Tensor) -> Tensor:
    """Slope of the line through f's ends (b, 1, *shape).

    Where the ends nearly coincide the quotient is all rounding, and `narrow` (a slope of f inside) stands in; lines made
    with `above_ends` or `below_ends` are sound with any slope.
    """
    l, u = x.row_lower, x.row_upper
    width = u - l
    wide = width > torch.finfo(l.dtype).eps ** 0.5 * (l.abs() + u.abs())
    slope = (f(u) - f(l)) / torch.where(wide, width, 1.0)
    return torch.where(wide, slope, narrow)


def above_ends(f: Callable[[Tensor], Tensor], slope: Tensor, x: Interval) -> Tensor:
    """Intercept of the lowest line with `slope` that is not below f at either end: above a convex f everywhere between."""
    l, u = x.row_lower, x.row_upper
    return torch.maximum(f(l) - slope * l, f(u) - slope * u)


def below_ends(f: Callable[[Tensor], Tensor], slope: Tensor, x: Interval) -> Tensor:
    """Intercept of the highest line with `slope` that is not above f at either end: below a concave f everywhere between."""
    l, u = x.row_lower, x.row_upper
    return torch.minimum(f(l) - slope * l, f(u) - slope * u)
