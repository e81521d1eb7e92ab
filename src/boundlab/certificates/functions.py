"""What a nonlinear function has to say to the checker, and lines of any slope around it.

Arrays are (size, r): r columns for leaves, frames or rows, 1 where they share. A function may get any slopes; the intercepts
that it answers make true lines of them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from boundlab.certificates.rounding import UNIT, above, below

Ends = tuple[np.ndarray, np.ndarray]
"""Lower and upper ends."""
Slopes = tuple[np.ndarray, ...]
"""A slope for each argument."""
UNITS32 = 32.0
"""Relative errors 2^-24 that a runtime's value of a function may have, with those that it may have of 1 where that is said."""


class Function(Protocol):
    """A function of `arity` arguments, entry by entry."""

    @property
    def arity(self) -> int:
        """How many varying arguments it has."""

    def on(self, read: np.ndarray | None) -> Function:
        """The function on some entries alone, None for all."""

    def values(self, ends: Sequence[Ends]) -> Ends:
        """Ends of the values, outward of all rounding."""

    def settled(self, ends: Sequence[Ends]) -> np.ndarray:
        """Where the function is linear on the intervals, so that nobody's slopes are better than `defaults`."""

    def defaults(self, ends: Sequence[Ends]) -> tuple[Slopes, Slopes]:
        """The checker's own slopes of lower and upper lines."""

    def float32_units(self, ends: Sequence[Ends], size: np.ndarray) -> np.ndarray | float:
        """By how many 2^-24 a float32 may differ from the value where it is computed; values are at most `size`."""

    def intercepts(self, ends: Sequence[Ends], lower: Slopes, upper: Slopes) -> Ends:
        """A number not above the function minus its lower slopes on the intervals, and one not below with the upper slopes."""


class Alike:
    """A function that is the same on every entry."""

    def on(self, read: np.ndarray | None) -> Self:
        return self


@dataclass(frozen=True)
class Lines:
    """lower . x + low <= f(x) <= upper . x + high on the intervals that the lines were made for."""

    lower: Slopes
    upper: Slopes
    low: np.ndarray
    high: np.ndarray


def lines_of(function: Function, ends: Sequence[Ends], given: Sequence[Ends | None]) -> Lines:
    """Lines with the slopes that are given for each argument, or the function's own where there are none (or NaN)."""
    lower, upper = function.defaults(ends)
    if any(pair is not None for pair in given):
        settled = function.settled(ends)
        lower = tuple(chosen(own, pair and pair[0], settled) for own, pair in zip(lower, given, strict=True))
        upper = tuple(chosen(own, pair and pair[1], settled) for own, pair in zip(upper, given, strict=True))
    low, high = function.intercepts(ends, lower, upper)
    return Lines(lower, upper, low, high)


def chosen(own: np.ndarray, given: np.ndarray | None, settled: np.ndarray) -> np.ndarray:
    """The given slopes, but the function's own where none is given or where it is linear."""
    return own if given is None else np.where(settled | np.isnan(given), own, given)


def smallest_of(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """The smallest entries of arrays, with broadcasting."""
    return functools.reduce(np.minimum, arrays)


def largest_of(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """The largest entries of arrays, with broadcasting."""
    return functools.reduce(np.maximum, arrays)


def chord(values: Ends, ends: Ends) -> np.ndarray:
    """The slope between two points, 0 where they are one."""
    width = ends[1] - ends[0]
    return np.where(width > 0, (values[1] - values[0]) / np.where(width > 0, width, 1), 0)


def outward(low: np.ndarray, high: np.ndarray, scale: np.ndarray, units: float) -> Ends:
    """Ends moved outward by `units` relative rounding errors of numbers of size `scale`, and by one float more."""
    slack = units * UNIT * scale
    return below(low - slack), above(high + slack)
