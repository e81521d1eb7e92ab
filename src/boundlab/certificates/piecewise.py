"""Functions that are linear between breaks: ReLU and its kin; and those that are constant between jumps: sign and floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from boundlab.certificates.functions import Alike, Ends, Slopes, chord, largest_of, outward, smallest_of


@dataclass(frozen=True)
class PiecewiseLinear:
    """A continuous function with `slopes[0]` before the first break and `slopes[k]` after break k - 1; `values_at` the breaks.

    `breaks` are in increasing order and may, like slopes and values, be numbers or arrays (size, 1).
    """

    breaks: tuple[np.ndarray, ...]
    values_at: tuple[np.ndarray, ...]
    slopes: tuple[np.ndarray, ...]

    arity = 1

    def on(self, read: np.ndarray | None) -> PiecewiseLinear:
        if read is None:
            return self
        breaks, values, slopes = (tuple(one if np.size(one) == 1 else one[read] for one in part) for part in
                                  (self.breaks, self.values_at, self.slopes))
        return PiecewiseLinear(breaks, values, slopes)

    def at(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The value at x and a number that is as large as all terms of its computation."""
        ramp = self.slopes[0] * (x - self.breaks[0])
        value, scale = self.values_at[0] + ramp, np.abs(self.values_at[0]) + np.abs(ramp)
        for start, height, slope in zip(self.breaks, self.values_at, self.slopes[1:], strict=True):
            ramp, after = slope * (x - start), x > start
            value = np.where(after, height + ramp, value)
            scale = np.where(after, np.abs(height) + np.abs(ramp), scale)
        return value, scale

    def corners(self, ends: Ends) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Points of the interval between which the function is linear, its values there, and how large their terms are."""
        points = [(end, *self.at(end)) for end in ends]
        lower, upper = ends
        for start, height in zip(self.breaks, self.values_at, strict=True):
            inside = (lower < start) & (start < upper)
            point, value, scale = points[0]
            points.append((np.where(inside, start, point), np.where(inside, height, value),
                           np.where(inside, np.abs(height), scale)))
        return points

    def extremes(self, ends: Ends, slope: np.ndarray | float) -> tuple[Ends, np.ndarray]:
        """Least and largest value of f(x) - slope x over the interval as computed, and the size of the terms."""
        low = high = scale = None
        for point, value, size in self.corners(ends):
            term = slope * point
            rest, size = value - term, size + np.abs(term)
            low = rest if low is None else np.minimum(low, rest)
            high = rest if high is None else np.maximum(high, rest)
            scale = size if scale is None else np.maximum(scale, size)
        assert low is not None and high is not None and scale is not None
        return (low, high), scale

    def values(self, ends: Sequence[Ends]) -> Ends:
        found, scale = self.extremes(ends[0], 0.0)
        return outward(*found, scale, 6)

    def bent(self, ends: Ends) -> tuple[np.ndarray, np.ndarray]:
        """Whether it is convex, and whether it is concave, on the interval."""
        convex = concave = np.ones(np.broadcast_shapes(ends[0].shape, np.shape(self.breaks[0])), dtype=bool)
        for start, before, after in zip(self.breaks, self.slopes[:-1], self.slopes[1:], strict=True):
            inside = (ends[0] < start) & (start < ends[1])
            convex, concave = convex & (~inside | (before <= after)), concave & (~inside | (before >= after))
        return convex, concave

    def settled(self, ends: Sequence[Ends]) -> np.ndarray:
        convex, concave = self.bent(ends[0])
        return convex & concave

    def slope_at(self, x: np.ndarray) -> np.ndarray:
        """The slope of the piece that x lies in."""
        slope = np.broadcast_to(self.slopes[0], x.shape)
        for start, after in zip(self.breaks, self.slopes[1:], strict=True):
            slope = np.where(x > start, after, slope)
        return slope

    def defaults(self, ends: Sequence[Ends]) -> tuple[Slopes, Slopes]:
        lower, upper = ends[0]
        across = chord((self.at(lower)[0], self.at(upper)[0]), ends[0])
        own = self.slope_at(lower / 2 + upper / 2)
        convex, concave = self.bent(ends[0])
        return (np.where(convex, own, across),), (np.where(concave, own, across),)

    def float32_units(self, ends: Sequence[Ends], size: np.ndarray) -> np.ndarray | float:
        exact = all(np.isin(slope, (-1, 0, 1)).all() for slope in self.slopes)
        return 0.0 if exact else 4 * size

    def intercepts(self, ends: Sequence[Ends], lower: Slopes, upper: Slopes) -> Ends:
        (low, _), scale = self.extremes(ends[0], lower[0])
        (_, high), other = self.extremes(ends[0], upper[0])
        return outward(low, high, np.maximum(scale, other), 8)


def relu(slope: np.ndarray | float = 0.0) -> PiecewiseLinear:
    """ReLU, or with another slope below 0 its leaky or parametric form."""
    zero = np.zeros((1, 1))
    return PiecewiseLinear((zero,), (zero,), (np.asarray(slope, dtype=np.float64).reshape(-1, 1), np.ones((1, 1))))


def absolute() -> PiecewiseLinear:
    """|x|."""
    return relu(-1.0)


def clipped(low: np.ndarray | None, high: np.ndarray | None) -> PiecewiseLinear:
    """min(max(x, low), high) with ends (size, 1) or (1, 1), either of which may be absent; low <= high."""
    breaks = tuple(end for end in (low, high) if end is not None)
    zero, one = np.zeros((1, 1)), np.ones((1, 1))
    slopes = (zero if low is not None else one, *((one,) if low is not None and high is not None else ()),
              zero if high is not None else one)
    return PiecewiseLinear(breaks, breaks, slopes)


@dataclass(frozen=True)
class Sign(Alike):
    """-1, 0 or 1."""

    arity = 1

    def values(self, ends: Sequence[Ends]) -> Ends:
        return np.sign(ends[0][0]), np.sign(ends[0][1])

    def settled(self, ends: Sequence[Ends]) -> np.ndarray:
        return np.sign(ends[0][0]) == np.sign(ends[0][1])

    def defaults(self, ends: Sequence[Ends]) -> tuple[Slopes, Slopes]:
        flat = np.zeros(np.broadcast_shapes(*(end.shape for end in ends[0])))
        return (flat,), (flat,)

    def float32_units(self, ends: Sequence[Ends], size: np.ndarray) -> np.ndarray | float:
        return 0.0

    def intercepts(self, ends: Sequence[Ends], lower: Slopes, upper: Slopes) -> Ends:
        l, u = ends[0]
        touched = (l <= 0) & (u >= 0)
        scale = 1 + np.maximum(np.abs(l), np.abs(u)) * np.maximum(np.abs(lower[0]), np.abs(upper[0]))
        corners = [(l, np.sign(l)), (u, np.sign(u)), (np.where(touched, 0, l), np.where(touched, 0, np.sign(l)))]
        # Up to 0 from either side the value is that of the side's end.
        corners += [(np.where(touched, 0, end), np.sign(end)) for end in (l, u)]
        low = smallest_of([value - lower[0] * point for point, value in corners])
        high = largest_of([value - upper[0] * point for point, value in corners])
        return outward(low, high, scale, 4)


@dataclass(frozen=True)
class Floor(Alike):
    """The largest whole number that is not above x."""

    arity = 1

    def values(self, ends: Sequence[Ends]) -> Ends:
        return np.floor(ends[0][0]), np.floor(ends[0][1])

    def settled(self, ends: Sequence[Ends]) -> np.ndarray:
        return np.floor(ends[0][0]) == np.floor(ends[0][1])

    def defaults(self, ends: Sequence[Ends]) -> tuple[Slopes, Slopes]:
        l, u = ends[0]
        slope = np.where(np.floor(u) - np.floor(l) > 1, 1.0, 0.0)
        return (slope,), (slope,)

    def float32_units(self, ends: Sequence[Ends], size: np.ndarray) -> np.ndarray | float:
        return 0.0

    def intercepts(self, ends: Sequence[Ends], lower: Slopes, upper: Slopes) -> Ends:
        """Two steps at most are treated exactly; over more, x - 1 <= floor(x) <= x is used."""
        l, u = ends[0]
        first, last = np.floor(l), np.floor(u)
        few = last - first <= 1
        corners = [(l, first), (last, first), (last, last), (u, last)]
        ramp_low = np.minimum(l - 1 - lower[0] * l, u - 1 - lower[0] * u)
        ramp_high = np.maximum(l - upper[0] * l, u - upper[0] * u)
        constant = first == last
        exact_low = smallest_of([value - lower[0] * np.where(constant, l, point) for point, value in corners])
        exact_high = largest_of([value - upper[0] * np.where(constant, u, point) for point, value in corners])
        exact_low = np.where(constant, np.minimum(exact_low, first - lower[0] * u), exact_low)
        exact_high = np.where(constant, np.maximum(exact_high, first - upper[0] * l), exact_high)
        size = np.maximum(np.abs(l), np.abs(u)) + 1
        scale = size * (1 + np.maximum(np.abs(lower[0]), np.abs(upper[0])))
        return outward(np.where(few, exact_low, ramp_low), np.where(few, exact_high, ramp_high), scale, 6)
