"""A query: input boxes with exact decimal ends, and for each box the outputs that are unsafe, as a formula.

Decimals are rarely floats. Proofs cover the decimal box and the box rounded to the network's input type; a witness counts
if it lies in the rounded box and satisfies the unsafe formula in exact rational arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from boundlab.errors import SpecError

Floats = type[np.float32] | type[np.float64]
"""The type of a network's inputs."""


@dataclass(frozen=True)
class Ends:
    """Exact numbers: the nearest float64 of each, and the sign of what that leaves out (number - nearest), (d,) both."""

    nearest: np.ndarray
    excess: np.ndarray

    def rounded(self, dtype: Floats) -> np.ndarray:
        """The nearest float of type `dtype` to each exact number, ties to even, (d,)."""
        if dtype == np.float64:
            return self.nearest
        with np.errstate(over="ignore"):  # what is too large becomes infinite
            near = self.nearest.astype(np.float32)
        back = near.astype(np.float64)
        other = np.nextafter(near, np.where(self.nearest > back, np.inf, -np.inf).astype(np.float32))
        # float64 first and float32 next rounds twice: at a midpoint of two float32 the digits left out decide.
        middle = (self.nearest != back) & ((back + other.astype(np.float64)) / 2 == self.nearest)
        towards_other = np.sign(other.astype(np.float64) - back) == self.excess
        return np.where(middle & towards_other, other, near)

    def outward(self, dtype: Floats, side: int) -> np.ndarray:
        """The first float beyond (side -1: at or below, +1: at or above) both the exact number and its rounding, (d,)."""
        near = self.rounded(dtype)
        back = near.astype(np.float64)
        beyond = np.where(self.nearest == back, self.excess, np.sign(self.nearest - back)) == side
        return np.where(beyond, np.nextafter(near, np.full_like(near, side * np.inf)), near)


def ends_of(numbers: Sequence[Fraction]) -> Ends:
    """Exact numbers as Ends; SpecError for one that is too large for a float64."""
    objects = {id(number): number for number in numbers}  # many constraints share the same few objects
    try:
        known = {key: (near := float(number), (number > Fraction(near)) - (number < Fraction(near)))
                 for key, number in objects.items()}
    except OverflowError as problem:
        raise SpecError("a constraint has a number that is too large for a float64.") from problem
    found = [known[id(number)] for number in numbers]
    return Ends(np.array([near for near, _ in found], dtype=np.float64), np.array([side for _, side in found], dtype=np.int8))


def widened(query: Query) -> Query:
    """The query with boxes whose ends are float64 themselves: what is safe there is safe in the query, exactly."""
    zero = np.zeros(query.inputs, dtype=np.int8)
    return replace(query, cases=tuple(replace(
        case, lower=Ends(case.lower.outward(np.float64, -1), zero), upper=Ends(case.upper.outward(np.float64, 1), zero))
        for case in query.cases))


def stacked(rows: Sequence[Ends]) -> Ends:
    """The ends of n cases in one, (n, d)."""
    return Ends(np.stack([row.nearest for row in rows]), np.stack([row.excess for row in rows]))


def rounded_down(numbers: Sequence[Fraction], dtype: Floats) -> np.ndarray:
    """Floats that are not above exact numbers, so that a proof with them is a proof with the numbers."""
    return ends_of(numbers).outward(dtype, -1)


@dataclass(frozen=True)
class Atom:
    """The linear constraint sum of coefficient * value[index] + constant <= 0, or < 0 if `strict`, in exact numbers."""

    terms: tuple[tuple[int, Fraction], ...]
    constant: Fraction
    strict: bool = False

    def holds(self, values: Sequence[float]) -> bool:
        """Whether the constraint is satisfied at `values`, exactly; never where a value that it reads is not finite."""
        if not all(math.isfinite(values[index]) for index, _ in self.terms):
            return False
        total = sum((weight * Fraction(values[index]) for index, weight in self.terms), self.constant)
        return total < 0 or (total == 0 and not self.strict)


@dataclass(frozen=True)
class Nested:
    """All of some formulas if `every`, else one of them: what is kept as it is, because writing it out would be too long."""

    every: bool
    parts: tuple[Formula, ...]

    def holds(self, values: Sequence[float]) -> bool:
        """Whether the formula is satisfied at `values`, exactly."""
        found = (part.holds(values) for part in self.parts)
        return all(found) if self.every else any(found)


Formula = Atom | Nested
"""What may be said of values: a linear constraint, or an and or an or."""


def atoms(formula: Formula) -> Iterator[Atom]:
    """The constraints of a formula, one after another."""
    if isinstance(formula, Atom):
        yield formula
    else:
        for part in formula.parts:
            yield from atoms(part)


@dataclass(frozen=True)
class Ball:
    """All points whose distance from a center, in the norm of order p, is at most a radius, in exact numbers.

    p is at least 1, or infinite; SpecError for another, and for a radius below 0.
    """

    center: tuple[Fraction, ...]
    radius: Fraction
    p: float

    def __post_init__(self) -> None:
        if not self.p >= 1 or self.radius < 0:
            raise SpecError(f"a ball needs p >= 1 and a radius of at least 0; found p = {self.p}, radius {float(self.radius)}.")

    def contains(self, x: Sequence[float]) -> bool:
        """Whether a point lies in it, in rational arithmetic; SpecError for a p that is no whole number."""
        if len(x) != len(self.center):
            raise SpecError(f"the ball has {len(self.center)} coordinates, the point {len(x)}.")
        if not all(map(math.isfinite, x)):
            return False
        gaps = [abs(Fraction(value) - middle) for value, middle in zip(x, self.center, strict=True)]
        if math.isinf(self.p):
            return max(gaps, default=Fraction(0)) <= self.radius
        if self.p != int(self.p):
            raise SpecError(f"membership in a ball of order {self.p} is not decided in exact arithmetic; use a whole number.")
        return sum((gap ** int(self.p) for gap in gaps), Fraction(0)) <= self.radius ** int(self.p)


@dataclass(frozen=True)
class Case:
    """One box of inputs and its unsafe outputs, an or of ands; `relations` are further constraints on the inputs.

    Its points lie in the box and, if there is one, in the `ball` (over all inputs in turn), which is meant exactly.
    The values that `unsafe` reads are the outputs, and behind them the inputs. Certificates leave `relations` out, so they
    hold for the whole box; a witness has to satisfy them.
    """

    lower: Ends
    upper: Ends
    unsafe: tuple[tuple[Formula, ...], ...]
    relations: tuple[Atom, ...] = ()
    ball: Ball | None = None

    def contains(self, x: np.ndarray, dtype: Floats) -> bool:
        """Whether flat inputs (d,) lie in the box rounded to nearest in `dtype`, and in the ball, at zero tolerance."""
        inside = bool(((self.lower.rounded(dtype) <= x) & (x <= self.upper.rounded(dtype))).all())
        if not inside or (self.ball is not None and not self.ball.contains(x.tolist())):
            return False
        return all(atom.holds(x.tolist()) for atom in self.relations)

    def violated(self, y: np.ndarray, x: np.ndarray) -> bool:
        """Whether flat outputs (m,) of flat inputs (d,) are unsafe, exactly."""
        values = [*y.tolist(), *x.tolist()]
        return any(all(part.holds(values) for part in conjunct) for conjunct in self.unsafe)


@dataclass(frozen=True)
class Query:
    """Is some output unsafe for an input in some case? Inputs and outputs are numbered flat, over all of them in turn."""

    inputs: int
    outputs: int
    cases: tuple[Case, ...]

    def __post_init__(self) -> None:
        for place, case in enumerate(self.cases):
            read = [index for conjunct in case.unsafe for part in conjunct for atom in atoms(part) for index, _ in atom.terms]
            read += [index + self.outputs for atom in case.relations for index, _ in atom.terms]
            if not all(0 <= index < self.outputs + self.inputs for index in read):
                raise SpecError(f"case {place} of the query reads a value that neither an output nor an input is.")
            sizes = {len(end.nearest) for end in (case.lower, case.upper)} | ({len(case.ball.center)} if case.ball else set())
            if sizes != {self.inputs} or not case.unsafe or not all(case.unsafe):
                raise SpecError(f"case {place} of the query needs ends (and a ball) of {self.inputs} numbers and an unsafe "
                                f"formula without empty parts; it has sizes {sorted(sizes)}.")

    @property
    def plain(self) -> bool:
        """Whether all that is unsafe is an or of ands of constraints that read outputs alone."""
        members = (part for case in self.cases for conjunct in case.unsafe for part in conjunct)
        return all(isinstance(part, Atom) and all(index < self.outputs for index, _ in part.terms) for part in members)

    def accepts(self, x: np.ndarray, y: np.ndarray, dtype: Floats) -> bool:
        """Whether flat x (d,) with its outputs y (m,) is a counterexample, at zero tolerance.

        The network takes `dtype`, so x counts as the `dtype` values that it is fed as.
        """
        for name, found, wanted in (("inputs", x, self.inputs), ("outputs", y, self.outputs)):
            if found.shape != (wanted,):
                raise SpecError(f"the query has {wanted} {name}, the witness an array of shape {found.shape}.")
        fed = x.astype(dtype)
        return any(case.contains(fed, dtype) and case.violated(y, fed) for case in self.cases)
