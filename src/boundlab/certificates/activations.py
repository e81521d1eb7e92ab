"""Activation functions of several pieces, and those that bend where no formula says at which point they have a slope.

Elu, Selu, Celu: scale (e^(rate x) - 1), convex, up to 0, by numpy's `expm1` of small relative error; a line from there.
HardSwish: 0, a convex parabola between -3 and 3, x.
Gelu: x times the normal distribution, by scipy's `erfc`, whose relative error of up to 1e-13 in its tail is less than 2^-50 in
absolute numbers there. f'' is phi(x) (2 - x^2), so f bends at -sqrt 2 and sqrt 2.
Gelu with tanh: x sigmoid(z), z = a (x + b x^3). f'' has the sign of 2 + 2 p / (1 + p) - a (1 + p) x tanh(z / 2), p = 3 b x^2.
For x > 0 the terms with p alone rise with a slope of at most 12 b x < 0.54 x, and the last one falls faster: its slope is above
a tanh(z / 2) (1 + 3 p) + a^2 x (1 + p)^2 (1 - tanh(z / 2)^2) / 2. So there is one bend on each side of 0.
Erf: scipy's `erf`; it bends at 0.
Where a bend is computed, f'' has the wrong sign on less than two floats, by less than `UNSURE`, which is counted in. No
slope needs a formula: where a tangent touches is searched by halving, and any place is sound.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import erf, erfc

from boundlab.certificates.curves import UNITS, Curve, Piece, Unary, about_zero, everywhere, sigmoid, sigmoid_derivative
from boundlab.certificates.functions import Alike, Ends, Slopes, chord, largest_of, smallest_of
from boundlab.certificates.rounding import TINY, UNIT

HALVINGS = 24
"""Halvings of the search for a touching point: what is lost is of second order in what is left of the piece."""
UNSURE = UNITS * UNIT
"""More than f'' differs from 0 on the floats beside a computed bend."""
ABSOLUTE = 2.0**-50
"""An absolute error of values that no relative error is known of."""
HALF_LOGARITHM = math.sqrt(0.5)
DENSITY = 1 / math.sqrt(2 * math.pi)
GELU_BEND, TANH_BEND = math.sqrt(2), 1.4185040087908284
TANH_RATE, TANH_CUBE = 2 * math.sqrt(2 / math.pi), 0.044715


@dataclass(frozen=True)
class Spliced(Alike):
    """A continuous function that is `parts[k]` from `places[k - 1]` to `places[k]`; the first and the last part have no end."""

    places: tuple[float, ...]
    parts: tuple[Curve, ...]

    arity = 1

    def regions(self, ends: Ends) -> list[tuple[np.ndarray, Ends]]:
        """For each part where the interval does not meet it, and the interval's part of its domain.

        An interval with an end that is no number meets every part, so that nothing is known on it.
        """
        stops = (-np.inf, *self.places, np.inf)
        (l, u), found = ends, []
        for start, stop in itertools.pairwise(stops):
            found.append(((u < start) | (l > stop), (np.clip(l, start, stop), np.clip(u, start, stop))))
        return found

    def values(self, ends: Sequence[Ends]) -> Ends:
        flat = (np.zeros((1, 1)),)
        return self.intercepts(ends, flat, flat)

    def settled(self, ends: Sequence[Ends]) -> np.ndarray:
        lines = [part.straight & (region[0] == ends[0][0]) & (region[1] == ends[0][1])
                 for part, (_, region) in zip(self.parts, self.regions(ends[0]), strict=True)]
        return np.logical_or.reduce([ends[0][0] == ends[0][1], *lines])

    def of(self, x: np.ndarray, function: Callable[[Curve], Unary]) -> np.ndarray:
        """A function of each part, where x lies in it."""
        found = function(self.parts[-1])(x)
        for place, part in zip(reversed(self.places), reversed(self.parts[:-1]), strict=True):
            found = np.where(x <= place, function(part)(x), found)
        return found

    def defaults(self, ends: Sequence[Ends]) -> tuple[Slopes, Slopes]:
        """The chord, or the slope at the middle: whichever line is nearer there."""
        lower, upper = ends[0]
        middle = lower / 2 + upper / 2
        across = chord((self.of(lower, lambda part: part.value), self.of(upper, lambda part: part.value)), ends[0])
        own = self.of(middle, lambda part: part.derivative)
        chords, tangents = (self.intercepts(ends, (slope,), (slope,)) for slope in (across, own))
        return ((np.where(across * middle + chords[0] > own * middle + tangents[0], across, own),),
                (np.where(across * middle + chords[1] < own * middle + tangents[1], across, own),))

    def float32_units(self, ends: Sequence[Ends], size: np.ndarray) -> np.ndarray | float:
        return largest_of([np.asarray(part.float32_units(ends, size)) for part in self.parts])

    def intercepts(self, ends: Sequence[Ends], lower: Slopes, upper: Slopes) -> Ends:
        lows, highs = [], []
        for part, (apart, region) in zip(self.parts, self.regions(ends[0]), strict=True):
            low, high = part.intercepts([region], lower, upper)
            lows.append(np.where(apart, np.inf, low))
            highs.append(np.where(apart, -np.inf, high))
        return smallest_of(lows), largest_of(highs)


def searched(derivative: Unary, start: np.ndarray, stop: np.ndarray) -> Unary:
    """About where a monotone derivative has a slope between two points."""
    def touch(slope: np.ndarray) -> np.ndarray:
        low, high, _ = np.broadcast_arrays(start, stop, slope)
        rising = derivative(stop) >= derivative(start)
        for _ in range(HALVINGS):
            middle = low / 2 + high / 2
            onward = (derivative(middle) < slope) == rising
            low, high = np.where(onward, middle, low), np.where(onward, high, middle)
        return low / 2 + high / 2
    return touch


def bending(bend: float, derivative: Unary) -> Callable[[np.ndarray, np.ndarray], Sequence[Piece]]:
    """Pieces of a function that is concave up to -bend, convex up to bend, and concave from there on."""
    def pieces(l: np.ndarray, u: np.ndarray) -> Sequence[Piece]:
        cuts = [l, np.clip(-bend, l, u), np.clip(bend, l, u), u]
        return [Piece(start, stop, np.full(l.shape, convex), searched(derivative, start, stop), UNSURE)
                for (start, stop), convex in zip(itertools.pairwise(cuts), (False, True, False), strict=True)]
    return pieces


def straight(slope: float, height: float = 0.0) -> Curve:
    """slope * x + height, one of which is 0."""
    return Curve(lambda x: slope * x + height, lambda x: np.full(x.shape, slope),
                 everywhere(True, lambda m: np.full(m.shape, np.nan)), single=0.0, straight=True)


def exponential_unit(scale: float, rate: float = 1.0, steep: float = 1.0) -> Spliced:
    """scale (e^(rate x) - 1) up to 0, steep * x from there on; no number is below 0."""
    curve = Curve(lambda x: scale * np.expm1(rate * x), lambda x: scale * rate * np.exp(rate * x),
                  everywhere(True, lambda m: np.log(m / (scale * rate)) / rate), blur=scale * rate, single=scale)
    return Spliced((0.0,), (curve, straight(steep)))


def gelu_derivative(x: np.ndarray) -> np.ndarray:
    """Phi(x) + x phi(x), with the normal distribution and its density."""
    return erfc(-HALF_LOGARITHM * x) / 2 + x * (DENSITY * np.exp(-x * x / 2))


def inner(x: np.ndarray) -> np.ndarray:
    """The argument of the sigmoid in Gelu with tanh."""
    return TANH_RATE * (x + TANH_CUBE * (x * x * x))


def tanh_gelu_derivative(x: np.ndarray) -> np.ndarray:
    """sigmoid(z) + x sigmoid'(z) z'."""
    z = inner(x)
    return sigmoid(z) + x * sigmoid_derivative(z) * (TANH_RATE * (1 + 3 * TANH_CUBE * (x * x)))


GELU = Curve(lambda x: x * (erfc(-HALF_LOGARITHM * x) / 2), gelu_derivative, bending(GELU_BEND, gelu_derivative),
             floor=ABSOLUTE, spread=1.0)
TANH_GELU = Curve(lambda x: x * sigmoid(inner(x)), tanh_gelu_derivative, bending(TANH_BEND, tanh_gelu_derivative),
                  floor=ABSOLUTE, spread=1.0)
HARD_SWISH = Spliced((-3.0, 3.0), (
    straight(0.0),
    Curve(lambda x: x * (x + 3) / 6, lambda x: (2 * x + 3) / 6, everywhere(True, lambda m: 3 * m - 1.5), single=4.0),
    straight(1.0)))
ERF = Curve(erf, lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x),
            about_zero(True, lambda m: -erf_of_slope(m), lambda m: erf_of_slope(m)), floor=TINY)


def erf_of_slope(slope: np.ndarray) -> np.ndarray:
    """The x >= 0 at which the error function has a slope."""
    return np.sqrt(np.maximum(-np.log(slope * (math.sqrt(math.pi) / 2)), 0))
