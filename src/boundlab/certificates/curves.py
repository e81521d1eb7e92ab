"""Smooth functions, in pieces on which they are convex or concave.

On a convex piece a tangent lies below the function and the chord above, so the least value of f(x) - m x is at least that of
the tangent at any point, minus m x, at the piece's ends; the largest is at an end. Where the tangent touches only matters for
tightness.
What numpy's functions and these derivatives may be wrong by is `UNITS` relative errors, which a test measures.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from boundlab.certificates.functions import UNITS32, Alike, Ends, Slopes, chord, largest_of, outward
from boundlab.certificates.rounding import TINY, UNIT

UNITS = 16.0
"""Relative errors that a computed value or derivative may have; the library functions stay below 4."""
SMALLEST32 = 2.0**-125
"""No float32 from here on is subnormal."""
Unary = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Piece:
    """The part of an interval between two ends, whether f is convex there (else concave), and where f' is about `slope`.

    `unsure` is the most by which f'' may have the other sign.
    """

    start: np.ndarray
    stop: np.ndarray
    convex: np.ndarray
    touch: Unary
    unsure: np.ndarray | float = 0.0


@dataclass(frozen=True)
class Curve(Alike):
    """A smooth function: its value, its derivative, the pieces of an interval, and the absolute error of a value near 0.

    A derivative's absolute error near 0 is a multiple of `blur`, 0 where it has a relative error only. In float32 a value's
    absolute error near 0 is a multiple of `single`, elsewhere of `single` plus `spread` |x|; infinity where none is known. A
    `singular` function is infinite at 0, and maybe for subnormals; a `straight` one is linear.
    """

    value: Unary
    derivative: Unary
    pieces: Callable[[np.ndarray, np.ndarray], Sequence[Piece]]
    floor: float = TINY
    blur: float = 1.0
    single: float = 1.0
    singular: bool = False
    spread: float = 0.0
    straight: bool = False

    arity = 1

    def values(self, ends: Sequence[Ends]) -> Ends:
        flat = (np.zeros((1, 1)),)
        return self.intercepts(ends, flat, flat)

    def settled(self, ends: Sequence[Ends]) -> np.ndarray:
        return ends[0][0] == ends[0][1]

    def defaults(self, ends: Sequence[Ends]) -> tuple[Slopes, Slopes]:
        """A chord on the side where it is the hull, the tangent at the middle on the other; across pieces the flatter end's."""
        lower, upper = ends[0]
        across = chord((self.value(lower), self.value(upper)), ends[0])
        middle = self.derivative(lower / 2 + upper / 2)
        flat = np.minimum(self.derivative(lower), self.derivative(upper))
        convex, concave = (np.ones(lower.shape, dtype=bool) for _ in range(2))
        for piece in self.pieces(lower, upper):
            inside = piece.start < piece.stop
            convex, concave = convex & (~inside | piece.convex), concave & (~inside | ~piece.convex)
        mixed = ~convex & ~concave
        return (np.where(mixed, flat, np.where(convex, middle, across)),), (
            np.where(mixed, flat, np.where(concave, middle, across)),)

    def float32_units(self, ends: Sequence[Ends], size: np.ndarray) -> np.ndarray | float:
        near = self.single + (np.where(ends[0][0] < SMALLEST32, np.inf, 0) if self.singular else 0)
        if self.spread:
            near = near + self.spread * np.maximum(np.abs(ends[0][0]), np.abs(ends[0][1]))
        return UNITS32 * (size + near)

    def intercepts(self, ends: Sequence[Ends], lower: Slopes, upper: Slopes) -> Ends:
        (l, u), low, high = ends[0], None, None
        for piece in self.pieces(l, u):
            below_, above_ = self.extremes(piece, lower[0])[0], self.extremes(piece, upper[0])[1]
            low = below_ if low is None else np.minimum(low, below_)
            high = above_ if high is None else np.maximum(high, above_)
        assert low is not None and high is not None
        return low, high

    def extremes(self, piece: Piece, slope: np.ndarray) -> Ends:
        """Ends of f(x) - slope x over a piece, outward."""
        a, b = piece.start, piece.stop
        touch = np.clip(piece.touch(np.broadcast_to(slope, np.broadcast_shapes(slope.shape, a.shape))), a, b)
        first, last = self.derivative(a), self.derivative(b)
        # Beyond the slopes of the piece the extreme is an end: there the tangent is taken.
        falling = np.where(piece.convex, slope <= first, slope >= first)
        rising = np.where(piece.convex, slope >= last, slope <= last)
        touch = np.where(falling, a, np.where(rising, b, np.where(np.isnan(touch), a / 2 + b / 2, touch)))
        height, steep = self.value(touch), self.derivative(touch)
        tangents = [height + steep * (end - touch) - slope * end for end in (a, b)]
        chords = [self.value(end) - slope * end for end in (a, b)]
        low = np.where(piece.convex, np.minimum(*tangents), np.minimum(*chords))
        high = np.where(piece.convex, np.maximum(*chords), np.maximum(*tangents))
        width, size = b - a, np.maximum(np.abs(a), np.abs(b))
        scale = largest_of([np.abs(height), *(np.abs(self.value(end)) for end in (a, b))]) + self.floor / UNIT / UNITS
        scale = scale + (np.abs(steep) + self.blur) * width + np.abs(slope) * size
        slack = piece.unsure * width * width
        return outward(low - slack, high + slack, scale, 2 * UNITS)


def between_poles(x: np.ndarray) -> np.ndarray:
    """x where the tangent's branch around 0 goes, whose ends the nearest floats lie within; elsewhere no number."""
    return np.where(np.abs(x) <= np.pi / 2, x, np.nan)


def everywhere(convex: bool, touch: Unary) -> Callable[[np.ndarray, np.ndarray], Sequence[Piece]]:
    """Pieces of a function that is convex, or concave, on all of its domain."""
    return lambda l, u: [Piece(l, u, np.full(l.shape, convex), touch)]


def about_zero(convex_below: bool, below: Unary, above: Unary) -> Callable[[np.ndarray, np.ndarray], Sequence[Piece]]:
    """Pieces of a function that bends at 0 only."""
    def pieces(l: np.ndarray, u: np.ndarray) -> Sequence[Piece]:
        return [Piece(l, np.clip(0, l, u), np.full(l.shape, convex_below), below),
                Piece(np.clip(0, l, u), u, np.full(l.shape, not convex_below), above)]
    return pieces


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    tail = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, tail) / (1 + tail)


def sigmoid_derivative(x: np.ndarray) -> np.ndarray:
    """exp(-|x|) / (1 + exp(-|x|))^2."""
    tail = np.exp(-np.abs(x))
    return tail / (1 + tail) ** 2


def logit_of_slope(slope: np.ndarray) -> np.ndarray:
    """The x <= 0 at which a sigmoid has a slope."""
    root = np.sqrt(np.maximum(1 - 4 * slope, 0))
    return np.log((1 - root) / (1 + root))


def atanh_of_slope(slope: np.ndarray) -> np.ndarray:
    """The x >= 0 at which tanh has a slope."""
    return np.arctanh(np.sqrt(np.maximum(1 - slope, 0)))


def sided(l: np.ndarray, u: np.ndarray) -> Sequence[Piece]:
    """The pieces of 1 / x; no numbers at all where the interval holds 0."""
    broken = (l <= 0) & (u >= 0)
    return [Piece(np.where(broken, np.nan, l), np.where(broken, np.nan, u), l > 0,
                  lambda m: np.where(l > 0, 1, -1) / np.sqrt(-m))]


def waves(shift: float, touch: Callable[[np.ndarray, np.ndarray], np.ndarray]
          ) -> Callable[[np.ndarray, np.ndarray], Sequence[Piece]]:
    """Pieces of sine (shift 0) or cosine (1/2) over at most one period; `touch` of the slope counts from piece `turn`."""
    def pieces(l: np.ndarray, u: np.ndarray) -> Sequence[Piece]:
        turn = np.floor(l / np.pi + shift)
        cuts = [l, *(np.clip((turn + k - shift) * np.pi, l, u) for k in (1, 2)), u]
        unsure = UNITS * UNIT * (np.maximum(np.abs(l), np.abs(u)) + 4)
        return [Piece(start, stop, (turn + k) % 2 == 1, lambda m, k=k: touch(turn + k, m), unsure)  # type: ignore[misc]
                for k, (start, stop) in enumerate(itertools.pairwise(cuts))]
    return pieces


def sine_touch(turn: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Where cos x is `slope` in [turn pi, (turn + 1) pi]."""
    return turn * np.pi + np.arccos(np.where(turn % 2 == 0, slope, -slope))


def cosine_touch(turn: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Where -sin x is `slope` in [(turn - 1/2) pi, (turn + 1/2) pi]."""
    return turn * np.pi + np.arcsin(np.where(turn % 2 == 0, -slope, slope))


@dataclass(frozen=True)
class Wave(Alike):
    """Sine or cosine: a curve up to one period, and within -1 and 1 beyond it."""

    curve: Curve

    arity = 1

    def long(self, ends: Ends) -> np.ndarray:
        """Where the interval is longer than a period, or so far out that a float is no good angle."""
        return (ends[1] - ends[0] > 6.25) | (np.maximum(np.abs(ends[0]), np.abs(ends[1])) > 1e6)

    def values(self, ends: Sequence[Ends]) -> Ends:
        flat = (np.zeros((1, 1)),)
        low, high = self.intercepts(ends, flat, flat)
        return np.maximum(low, -1), np.minimum(high, 1)

    def settled(self, ends: Sequence[Ends]) -> np.ndarray:
        return self.curve.settled(ends)

    def defaults(self, ends: Sequence[Ends]) -> tuple[Slopes, Slopes]:
        (lower,), (upper,) = self.curve.defaults(ends)
        long = self.long(ends[0])
        return (np.where(long, 0, lower),), (np.where(long, 0, upper),)

    def float32_units(self, ends: Sequence[Ends], size: np.ndarray) -> np.ndarray | float:
        return UNITS32 * (1 + np.maximum(np.abs(ends[0][0]), np.abs(ends[0][1])))

    def intercepts(self, ends: Sequence[Ends], lower: Slopes, upper: Slopes) -> Ends:
        (l, u), long = ends[0], self.long(ends[0])
        near = (np.where(long, 0, l), np.where(long, 0, u))
        low, high = self.curve.intercepts([near], lower, upper)
        size = 1 + np.maximum(np.abs(l), np.abs(u)) * np.maximum(np.abs(lower[0]), np.abs(upper[0]))
        far = outward(np.minimum(-1 - lower[0] * l, -1 - lower[0] * u), np.maximum(1 - upper[0] * l, 1 - upper[0] * u), size, 4)
        return np.where(long, far[0], low), np.where(long, far[1], high)


EXP = Curve(np.exp, np.exp, everywhere(True, np.log), single=0.0)
LOG = Curve(np.log, lambda x: 1 / x, everywhere(False, lambda m: 1 / m), blur=0.0, singular=True)
SQRT = Curve(np.sqrt, lambda x: 0.5 / np.sqrt(x), everywhere(False, lambda m: 0.25 / (m * m)))
SQUARE = Curve(np.square, lambda x: 2 * x, everywhere(True, lambda m: m / 2), single=0.0)
CUBE = Curve(lambda x: x * x * x, lambda x: 3 * x * x,
             about_zero(False, lambda m: -np.sqrt(m / 3), lambda m: np.sqrt(m / 3)), single=0.0)
RECIPROCAL = Curve(lambda x: 1 / x, lambda x: -1 / x / x, sided, blur=0.0, single=0.0)
SOFTPLUS = Curve(lambda x: np.logaddexp(0, x), sigmoid, everywhere(True, lambda m: np.log(m / (1 - m))))
SIGMOID = Curve(sigmoid, sigmoid_derivative, about_zero(True, logit_of_slope, lambda m: -logit_of_slope(m)))
TANH = Curve(np.tanh, lambda x: 4 * sigmoid_derivative(2 * x),
             about_zero(True, lambda m: -atanh_of_slope(m), atanh_of_slope))
SINH = Curve(np.sinh, np.cosh, about_zero(False, lambda m: -np.arccosh(m), np.arccosh), single=np.inf)
COSH = Curve(np.cosh, np.sinh, everywhere(True, np.arcsinh), single=np.inf)
ASINH = Curve(np.arcsinh, lambda x: 1 / np.sqrt(1 + x * x),
              about_zero(True, lambda m: -np.sqrt(1 / (m * m) - 1), lambda m: np.sqrt(1 / (m * m) - 1)), single=np.inf)
ACOSH = Curve(np.arccosh, lambda x: 1 / np.sqrt((x - 1) * (x + 1)), everywhere(False, lambda m: np.sqrt(1 + 1 / (m * m))),
              single=np.inf)
ASIN = Curve(np.arcsin, lambda x: 1 / np.sqrt((1 - x) * (1 + x)),
             about_zero(False, lambda m: -np.sqrt(1 - 1 / (m * m)), lambda m: np.sqrt(1 - 1 / (m * m))), single=np.inf)
ACOS = Curve(np.arccos, lambda x: -1 / np.sqrt((1 - x) * (1 + x)),
             about_zero(True, lambda m: -np.sqrt(1 - 1 / (m * m)), lambda m: np.sqrt(1 - 1 / (m * m))), single=np.inf)
ATAN = Curve(np.arctan, lambda x: 1 / (1 + x * x),
             about_zero(True, lambda m: -np.sqrt(1 / m - 1), lambda m: np.sqrt(1 / m - 1)))
ATANH = Curve(np.arctanh, lambda x: 1 / ((1 - x) * (1 + x)),
              about_zero(False, lambda m: -np.sqrt(1 - 1 / m), lambda m: np.sqrt(1 - 1 / m)), single=np.inf)
SOFTSIGN = Curve(lambda x: x / (1 + np.abs(x)), lambda x: 1 / (1 + np.abs(x)) / (1 + np.abs(x)),
                 about_zero(True, lambda m: 1 - 1 / np.sqrt(m), lambda m: 1 / np.sqrt(m) - 1))
TAN = Curve(lambda x: np.tan(between_poles(x)), lambda x: 1 + np.square(np.tan(between_poles(x))),
            about_zero(False, lambda m: -np.arctan(np.sqrt(m - 1)), lambda m: np.arctan(np.sqrt(m - 1))), single=np.inf)
SIN = Wave(Curve(np.sin, np.cos, waves(0.0, sine_touch), UNITS * UNIT))
COS = Wave(Curve(np.cos, lambda x: -np.sin(x), waves(0.5, cosine_touch), UNITS * UNIT))
