"""The logarithm of a sum of exponentials as one function of its terms, and the range of log softmax.

Below, f(x) = log sum e^x_k is at least q . x + H(q) for every distribution q, H its entropy: equality where q is the softmax of
x (Boyd and Vandenberghe 2004, Sec. 3.3.1, the conjugate of f). Above, log S <= log S0 - 1 + S / S0 for S0 > 0, so f(x) - m . x
is at most log S0 - 1 plus the sum of the largest e^x_k / S0 - m_k x_k, each of which is convex, hence largest at an end.
The planes that Wei et al. 2023 (Convex bounds on the softmax function, Sec. 3) lay around softmax are those around f, and then
lines around the exponential of x_j - f(x).

Rounding: exponents y = x - c with c the largest of them are rounded themselves, by |y| 2^-53, so e^y has the relative error
(`UNITS` + |y|) 2^-53. The number of terms is `n`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from boundlab.certificates.curves import UNITS
from boundlab.certificates.functions import Alike, Ends, Slopes, chord, largest_of, outward
from boundlab.certificates.rounding import TINY, UNIT, largest

SMALL, LARGE = 2.0**-400, 2.0**400
"""Between these lie the weights of a distribution, before they are made to sum up to 1; others count as 0 or as `LARGE`."""
LEAST = 2.0**-60
"""The least sum, of terms of which one may be 1, at which a tangent of the logarithm is taken."""
LOST = 2.0**-900
"""Of a smaller sum of exponentials underflow may have taken a share."""


@dataclass(frozen=True)
class LogSumExp(Alike):
    """log sum e^x_k of `arity` arguments."""

    arity: int

    def total(self, terms: Sequence[np.ndarray]) -> np.ndarray:
        """The sum of as many arrays as there are arguments."""
        return functools.reduce(np.add, terms)

    def values(self, ends: Sequence[Ends]) -> Ends:
        """At both ends, since f rises; the largest exponential is 1, which the errors of the others are shares of."""
        found = []
        for side in range(2):
            top = largest_of([pair[side] for pair in ends])
            found.append((top + np.log(self.total([np.exp(pair[side] - top) for pair in ends])), np.abs(top)))
        (low, bottom), (high, top) = found
        return outward(low, high, np.maximum(bottom, top) + self.arity + 1, 2 * UNITS)

    def settled(self, ends: Sequence[Ends]) -> np.ndarray:
        return functools.reduce(np.logical_and, [low == high for low, high in ends])

    def shifted(self, ends: Sequence[Ends]) -> tuple[np.ndarray, list[Ends]]:
        """The largest upper end, and the ends from there, which are 0 at most."""
        top = largest_of([high for _, high in ends])
        return top, [(low - top, high - top) for low, high in ends]

    def steep(self, ends: Sequence[Ends]) -> list[np.ndarray]:
        """The slopes of the chords of exponentials."""
        return [np.where(high > low, chord((np.exp(low), np.exp(high)), (low, high)), np.exp(high)) for low, high in ends]

    def defaults(self, ends: Sequence[Ends]) -> tuple[Slopes, Slopes]:
        """The tangent plane at the middle; above, that of the logarithm of the sum of chords."""
        _, moved = self.shifted(ends)
        middle = [np.exp(low / 2 + high / 2) for low, high in moved]
        chords = self.total([np.exp(low) / 2 + np.exp(high) / 2 for low, high in moved])
        return tuple(term / self.total(middle) for term in middle), tuple(slope / chords for slope in self.steep(moved))

    def float32_units(self, ends: Sequence[Ends], size: np.ndarray) -> np.ndarray | float:
        return np.inf

    def intercepts(self, ends: Sequence[Ends], lower: Slopes, upper: Slopes) -> Ends:
        below_, above_ = self.from_below(ends, lower), self.from_above(ends, upper)
        units = 4 * (self.arity + UNITS)
        return outward(below_[0], below_[0], below_[1], units)[0], outward(above_[0], above_[0], above_[1], units)[1]

    def from_below(self, ends: Sequence[Ends], slopes: Slopes) -> tuple[np.ndarray, np.ndarray]:
        """What f minus a linear function is at least, and the size of its terms: the distribution is that of the slopes."""
        weights = [np.where(slope > SMALL, np.minimum(slope, LARGE), 0) for slope in slopes]
        none = self.total(weights) == 0
        weights = [np.where(none, 1.0, weight) for weight in weights]
        shares = [weight / self.total(weights) for weight in weights]
        found = self.total([-share * np.log(np.where(share > 0, share, 1)) for share in shares])
        scale = np.zeros_like(found) + 1 + math.log(self.arity) + TINY / UNIT
        for share, slope, pair in zip(shares, slopes, ends, strict=True):
            rest = share - slope
            found = found + np.minimum(rest * pair[0], rest * pair[1])
            scale = scale + (share + np.abs(slope)) * largest(*pair)
        return found, scale

    def from_above(self, ends: Sequence[Ends], slopes: Slopes) -> tuple[np.ndarray, np.ndarray]:
        """What f minus a linear function is at most, and the size of its terms.

        The logarithm's tangent touches where the slopes of the exponentials' chords are multiples of the given ones, if so.
        """
        top, moved = self.shifted(ends)
        powers = [(np.exp(low), np.exp(high)) for low, high in moved]
        least, most = self.total([low for low, _ in powers]), self.total([high for _, high in powers])
        meant = self.total(self.steep(moved)) / self.total(list(slopes))
        touch = np.where(np.isfinite(meant), np.clip(meant, np.maximum(least, LEAST), np.maximum(most, LEAST)), most)
        level = np.log(touch)
        found, scale = top + level - 1, 1 + np.abs(top) + np.abs(level) + TINY / UNIT
        for pair, near, (low, high), slope in zip(ends, moved, powers, slopes, strict=True):
            found = found + np.maximum(low / touch - slope * pair[0], high / touch - slope * pair[1])
            # (1 + |y|) e^y rises up to 0, so the lower end's error is no larger.
            scale = scale + (1 + np.abs(near[1])) * high / touch + np.abs(slope) * largest(*pair)
        return found, scale


@dataclass(frozen=True)
class LogShares:
    """The range of x_j - log sum e^x_k over the entries that `members` (groups, n) lists, n at least 2: it is exact but for
    rounding, since an entry and the others each have one best end."""

    members: np.ndarray

    def within(self, ends: Ends) -> Ends:
        """Ends (size, f) of all entries from those of x; no numbers where underflow may have spoilt a sum of exponentials."""
        low, high = (end[self.members] for end in ends)
        size = largest(low, high).max(axis=1, keepdims=True)
        scale = 4 * size + self.members.shape[1] + 1
        found = [np.empty_like(end) for end in ends]
        for out, own, others, side in zip(found, (low, high), (high, low), (0, 1), strict=True):
            excess = log_of_others(others) - own
            out[self.members] = outward(*2 * (-np.logaddexp(0, excess),), scale, 4 * UNITS)[side]
        return found[0], found[1]


def log_of_others(x: np.ndarray) -> np.ndarray:
    """For every j the logarithm of the sum of e^x_k over the other k along axis 1, from both sides: a difference cancels."""
    top = x.max(axis=1, keepdims=True)
    terms = np.exp(x - top)
    before, after = np.cumsum(terms, axis=1), np.cumsum(terms[:, ::-1], axis=1)[:, ::-1]
    none = np.zeros_like(terms[:, :1])
    others = np.concatenate([none, before[:, :-1]], axis=1) + np.concatenate([after[:, 1:], none], axis=1)
    return top + np.log(np.where(others > LOST, others, np.nan))
