"""Functions of several varying arguments: the product of two, the largest and the smallest of several."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from boundlab.certificates.functions import Alike, Ends, Slopes, largest_of, outward, smallest_of
from boundlab.certificates.rounding import largest


@dataclass(frozen=True)
class Product(Alike):
    """x y, which minus any linear function has its extremes at corners of a box; `anchored` says which slopes are its own."""

    anchored: bool = False

    arity = 2

    def values(self, ends: Sequence[Ends]) -> Ends:
        products = [x * y for x, y in itertools.product(*ends)]
        low, high = smallest_of(products), largest_of(products)
        return outward(low, high, largest(low, high), 2)

    def settled(self, ends: Sequence[Ends]) -> np.ndarray:
        return (ends[0][0] == ends[0][1]) | (ends[1][0] == ends[1][1])

    def defaults(self, ends: Sequence[Ends]) -> tuple[Slopes, Slopes]:
        """Planes of McCormick 1976 through the corner of both lower ends, and through that of a lower and an upper end.

        Anchored ones touch where x is nearest to 0, so that y has the smallest coefficient there; x's is that of the chord of
        the rest |x - anchor| (y's radius).
        """
        (x, upper), (y, _) = ends
        if not self.anchored:
            return (y, x), (y, upper)
        anchor, middle, radius = np.maximum(x, 0) + np.minimum(upper, 0), y / 2 + ends[1][1] / 2, ends[1][1] / 2 - y / 2
        share = np.where(upper > x, (x + upper - 2 * anchor) / np.where(upper > x, upper - x, 1), 0)
        return (middle - share * radius, anchor), (middle + share * radius, anchor)

    def float32_units(self, ends: Sequence[Ends], size: np.ndarray) -> np.ndarray | float:
        return 4 * size

    def intercepts(self, ends: Sequence[Ends], lower: Slopes, upper: Slopes) -> Ends:
        corners = list(itertools.product(*ends))
        low = smallest_of([x * y - lower[0] * x - lower[1] * y for x, y in corners])
        high = largest_of([x * y - upper[0] * x - upper[1] * y for x, y in corners])
        sizes = [largest(*pair) for pair in ends]
        scale = sizes[0] * sizes[1]
        for slopes in (lower, upper):
            scale = scale + np.abs(slopes[0]) * sizes[0] + np.abs(slopes[1]) * sizes[1]
        return outward(low, high, scale, 6)


@dataclass(frozen=True)
class Largest(Alike):
    """The largest of `arity` arguments."""

    arity: int

    def values(self, ends: Sequence[Ends]) -> Ends:
        return largest_of([l for l, _ in ends]), largest_of([u for _, u in ends])

    def winner(self, ends: Sequence[Ends]) -> np.ndarray:
        """The argument whose lower end is largest."""
        return np.argmax(np.stack(np.broadcast_arrays(*(l for l, _ in ends))), axis=0)

    def settled(self, ends: Sequence[Ends]) -> np.ndarray:
        best, low = self.winner(ends), largest_of([l for l, _ in ends])
        return functools.reduce(np.logical_and, [(best == k) | (u <= low) for k, (_, u) in enumerate(ends)])

    def defaults(self, ends: Sequence[Ends]) -> tuple[Slopes, Slopes]:
        best, settled = self.winner(ends), self.settled(ends)
        lower = tuple((best == k).astype(np.float64) for k in range(self.arity))
        return lower, tuple(np.where(settled, slope, 0) for slope in lower)

    def float32_units(self, ends: Sequence[Ends], size: np.ndarray) -> np.ndarray | float:
        return 0.0

    def intercepts(self, ends: Sequence[Ends], lower: Slopes, upper: Slopes) -> Ends:
        """The largest is at least each argument, and it is one of them."""
        low = largest_of([self.rest(ends, lower, k, 0) for k in range(self.arity)])
        high = largest_of([self.rest(ends, upper, k, 1) for k in range(self.arity)])
        parts = [largest(*pair) * (1 + np.abs(m) + np.abs(k)) for pair, m, k in zip(ends, lower, upper, strict=True)]
        return outward(low, high, functools.reduce(np.add, parts), 2 * self.arity + 4)

    def rest(self, ends: Sequence[Ends], slopes: Slopes, chosen: int, side: int) -> np.ndarray:
        """The least (side 0) or largest (1) value of one argument minus the linear function."""
        total = np.zeros((1, 1))
        for k, (pair, slope) in enumerate(zip(ends, slopes, strict=True)):
            factor = (1.0 if k == chosen else 0.0) - slope
            total = total + np.where(factor > 0, factor * pair[side], factor * pair[1 - side])
        return total


@dataclass(frozen=True)
class Smallest(Alike):
    """The smallest of `arity` arguments: minus the largest of their negatives."""

    arity: int

    def mirrored(self, ends: Sequence[Ends]) -> Sequence[Ends]:
        """The intervals of the negatives."""
        return [(-u, -l) for l, u in ends]

    def values(self, ends: Sequence[Ends]) -> Ends:
        low, high = Largest(self.arity).values(self.mirrored(ends))
        return -high, -low

    def settled(self, ends: Sequence[Ends]) -> np.ndarray:
        return Largest(self.arity).settled(self.mirrored(ends))

    def defaults(self, ends: Sequence[Ends]) -> tuple[Slopes, Slopes]:
        lower, upper = Largest(self.arity).defaults(self.mirrored(ends))
        return upper, lower

    def float32_units(self, ends: Sequence[Ends], size: np.ndarray) -> np.ndarray | float:
        return 0.0

    def intercepts(self, ends: Sequence[Ends], lower: Slopes, upper: Slopes) -> Ends:
        low, high = Largest(self.arity).intercepts(self.mirrored(ends), upper, lower)
        return -high, -low
