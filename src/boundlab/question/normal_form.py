"""Formulas of a query file in disjunctive normal form, and the cases that they make.

A conjunction is a few numbers of `Blocks`, which hold the bounds of single variables as arrays, and a few constraints.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np

from boundlab.errors import SpecError
from boundlab.question.exact import Atom, Case, Ends, ends_of

MOST_CASES = 200_000
"""Conjunctions that a formula may expand to before it is refused."""
MOST_DIGITS = 4000
"""Digits and exponent that a number may have before it is refused: exact arithmetic writes all of them out."""
ALWAYS = Atom((), Fraction(0))
"""The constraint that every output satisfies."""
NO_POINT = "the query has no point at all: the bounds of its inputs contradict each other."


Terms = tuple[tuple[int, Fraction], ...]


@dataclass(frozen=True)
class Linear:
    """A linear expression: coefficients by variable (X_i is i, Y_j is -1 - j) and a constant."""

    terms: Terms
    constant: Fraction

    def plus(self, other: Linear, factor: Fraction = Fraction(1)) -> Linear:
        """This expression plus `factor` times another."""
        terms = dict(self.terms)
        for variable, weight in other.terms:
            terms[variable] = terms.get(variable, Fraction(0)) + factor * weight
        kept = tuple((variable, weight) for variable, weight in terms.items() if weight)
        return Linear(kept, self.constant + factor * other.constant)

    def times(self, factor: Fraction) -> Linear:
        """`factor` times this expression."""
        return Linear((), Fraction(0)).plus(self, factor)


@dataclass(frozen=True)
class Constraint:
    """expression <= 0, or < 0 if `strict`."""

    expression: Linear
    strict: bool


@dataclass(frozen=True)
class Conjunct:
    """A conjunction: numbers of blocks, and single constraints."""

    blocks: tuple[int, ...] = ()
    constraints: tuple[Constraint, ...] = ()

    def and_also(self, other: Conjunct) -> Conjunct:
        """Both together."""
        return Conjunct(self.blocks + other.blocks, self.constraints + other.constraints)


Disjunction = list[Conjunct]


@dataclass(frozen=True)
class Blocks:
    """Bounds of single variables, all blocks in one array; block k is start[k] : start[k + 1].

    `variable` is i for X_i and -1 - j for Y_j; `upper` says that the bound is from above; `text` are the numbers as written.
    """

    start: np.ndarray
    variable: np.ndarray
    upper: np.ndarray
    nearest: np.ndarray
    excess: np.ndarray
    text: list[str]

    def part(self, block: int) -> slice:
        """Where a block lies in the arrays."""
        return slice(int(self.start[block]), int(self.start[block + 1]))


def both(one: Disjunction, other: Disjunction) -> Disjunction:
    """The conjunction of two formulas in disjunctive normal form."""
    if len(one) * len(other) > MOST_CASES:
        raise SpecError(f"the formula has more than {MOST_CASES} cases when its ors are expanded.")
    return [a.and_also(b) for a, b in itertools.product(one, other)]


def read_blocks(found: Sequence[str], known: Mapping[str, int]) -> Blocks:
    """Blocks from texts of bounds, such as `(<= X_0 1.5) (>= Y_3 -2)`; `known` numbers the declared variables."""
    words: list[str] = []
    start = [0]
    for part in found:
        words += part.replace("(", " ").replace(")", " ").split()
        start.append(len(words) // 3)
    numbers = words[2::3]
    missing = set(words[1::3]) - set(known)
    if missing:
        raise SpecError(f"VNN-LIB: '{min(missing)}' is used and not declared.")
    exact = {number: decimal_ends(checked_number(number)) for number in set(numbers)}
    infinite = [number for number, (near, _) in exact.items() if not math.isfinite(near)]
    if infinite:
        raise SpecError(f"VNN-LIB: {infinite[0][:40]} is too large for a float64.")
    pairs = np.array([exact[number] for number in numbers], dtype=np.float64).reshape(-1, 2)
    variable = np.fromiter(map(known.__getitem__, words[1::3]), dtype=np.int64, count=len(numbers))
    upper = np.fromiter(map("<=".__eq__, words[0::3]), dtype=bool, count=len(numbers))
    return Blocks(np.array(start), variable, upper, pairs[:, 0], pairs[:, 1].astype(np.int8), numbers)


def checked_number(number: str) -> str:
    """The number itself; SpecError if writing it out would take more than MOST_DIGITS digits."""
    if len(number) > MOST_DIGITS or abs(Decimal(number).adjusted()) > MOST_DIGITS:
        shown = number if len(number) < 40 else f"{number[:30]}..."
        raise SpecError(f"VNN-LIB: the number {shown} has too many digits; at most {MOST_DIGITS} are read.")
    return number


def decimal_ends(number: str) -> tuple[float, int]:
    """A decimal's nearest float64, and the sign of what that leaves out."""
    near = float(number)
    exact, back = Decimal(number), Decimal(near)
    return near, int(exact > back) - int(exact < back)


Region = tuple[Ends, Ends, tuple[Atom, ...]]
"""Lower ends, upper ends and further relations of the inputs."""


def cases(formula: Disjunction, blocks: Blocks, inputs: int, outputs: int) -> list[Case]:
    """One case for each region of inputs, with all the unsafe conjunctions that go with it; SpecError if there is none."""
    of_outputs = output_atoms(blocks)
    bounds_inputs = [bool((blocks.variable[blocks.part(block)] >= 0).any()) for block in range(len(blocks.start) - 1)]
    regions: dict[Conjunct, Region | None] = {}
    found: dict[tuple[object, ...], tuple[Region, list[tuple[Atom, ...]]]] = {}
    for conjunct in formula:
        about_inputs = Conjunct(tuple(block for block in conjunct.blocks if bounds_inputs[block]),
                                tuple(filter(reads_inputs_only, conjunct.constraints)))
        if about_inputs not in regions:
            regions[about_inputs] = region(about_inputs, blocks, inputs)
        inside = regions[about_inputs]
        if inside is None:
            continue
        atoms = [atom for block in conjunct.blocks for atom in of_outputs.get(block, ())]
        atoms += [atom_of(one, outputs) for one in conjunct.constraints if not reads_inputs_only(one)]
        found.setdefault(identity(inside), (inside, []))[1].append(tuple(atoms) or (ALWAYS,))
    if not found:
        raise SpecError(NO_POINT)
    return [Case(lower, upper, tuple(unsafe), relations) for (lower, upper, relations), unsafe in found.values()]


def identity(inside: Region) -> tuple[object, ...]:
    """A key that is equal for equal regions."""
    lower, upper, relations = inside
    return (*(array.tobytes() for ends in (lower, upper) for array in (ends.nearest, ends.excess)), relations)


def reads_inputs_only(constraint: Constraint) -> bool:
    """Whether a constraint is one on the inputs."""
    terms = constraint.expression.terms
    return bool(terms) and all(variable >= 0 for variable, _ in terms)


def atom_of(constraint: Constraint, outputs: int) -> Atom:
    """A constraint on the values of a case: the outputs, and behind them the inputs."""
    terms = tuple((outputs + variable if variable >= 0 else -1 - variable, weight)
                  for variable, weight in constraint.expression.terms)
    return Atom(terms, constraint.expression.constant, constraint.strict)


def output_atoms(blocks: Blocks) -> Mapping[int, list[Atom]]:
    """The bounds of outputs in each block that has some."""
    found: dict[int, list[Atom]] = {}
    places = np.flatnonzero(blocks.variable < 0)
    owners = np.searchsorted(blocks.start, places, side="right") - 1
    for place, owner in zip(places.tolist(), owners.tolist(), strict=True):
        sign = Fraction(1 if blocks.upper[place] else -1)
        term = (-1 - int(blocks.variable[place]), sign)
        found.setdefault(owner, []).append(Atom((term,), -sign * Fraction(blocks.text[place])))
    return found


def region(about: Conjunct, blocks: Blocks, inputs: int) -> Region | None:
    """The box that a conjunction leaves the inputs, and further relations; None if it is empty.

    SpecError if an input has no bound on some side.
    """
    singles = [one for one in about.constraints if len(one.expression.terms) == 1]
    parts = [blocks.part(block) for block in about.blocks]
    variable, upper, ends = single_bounds(singles)
    variable = np.concatenate([variable, *(blocks.variable[part] for part in parts)])
    upper = np.concatenate([upper, *(blocks.upper[part] for part in parts)])
    nearest = np.concatenate([ends.nearest, *(blocks.nearest[part] for part in parts)])
    excess = np.concatenate([ends.excess, *(blocks.excess[part] for part in parts)])
    if not (variable >= 0).any():
        raise SpecError("no input has a bound; proofs need a bounded box: give every X_i a lower and an upper bound.")
    order = np.lexsort((excess, nearest))
    lower, missing = strongest(order[(~upper & (variable >= 0))[order]], variable, Ends(nearest, excess), inputs)
    above, lacking = strongest(order[(upper & (variable >= 0))[order]][::-1], variable, Ends(nearest, excess), inputs)
    for name, absent in (("lower", missing), ("upper", lacking)):
        if absent.any():
            raise SpecError(f"input X_{int(absent.argmax())} has no {name} bound; proofs need a bounded box.")
    empty = (lower.nearest > above.nearest) | ((lower.nearest == above.nearest) & (lower.excess > above.excess))
    boxes = {one for one in singles if not one.strict}
    relations = tuple(atom_of(one, 0) for one in about.constraints if one not in boxes)
    return None if empty.any() else (lower, above, relations)


def single_bounds(constraints: Sequence[Constraint]) -> tuple[np.ndarray, np.ndarray, Ends]:
    """Constraints of one input each: the input, whether it is bounded from above, and the bound. Strictness is left out."""
    pairs = [one.expression.terms[0] for one in constraints]
    ends = ends_of([-one.expression.constant / weight for one, (_, weight) in zip(constraints, pairs, strict=True)])
    variable = np.array([variable for variable, _ in pairs], dtype=np.int64)
    return variable, np.array([weight > 0 for _, weight in pairs], dtype=bool), ends


def strongest(order: np.ndarray, variable: np.ndarray, ends: Ends, inputs: int) -> tuple[Ends, np.ndarray]:
    """For each input the last of its bounds in `order`, and which inputs have none."""
    last = np.full(inputs, -1)
    last[variable[order]] = order
    filled = last.clip(min=0)
    return Ends(ends.nearest[filled], ends.excess[filled]), last < 0
