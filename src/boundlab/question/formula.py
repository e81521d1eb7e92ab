"""Formulas of linear constraints: their negation, and the cases that an unsafe formula makes, without blow-up.

A product of ors is written out only while the whole stays linear in the formula; beyond that an or stays as it is (`Nested`),
and whoever bounds it takes the smallest of its margins for it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from boundlab.question.exact import Atom, Case, Formula, Nested, atoms
from boundlab.question.normal_form import (
    ALWAYS,
    Blocks,
    Conjunct,
    Constraint,
    Linear,
    Region,
    identity,
    region,
)

NEVER = Atom((), Fraction(1))
"""The constraint that nothing satisfies."""
GROWTH = 8
"""How many times as many constraints as the formula has its ors of ands may have."""
MOST_BOXES = 256
"""Boxes that ors of inputs alone may make by products; ors that would make more stay, and do not bound the box."""
NO_BLOCKS = Blocks(np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0), np.zeros(0, np.int8), [])


def joint(parts: Sequence[Formula], every: bool) -> Formula:
    """All of the formulas if `every`, else one of them; parts of the same kind are taken in."""
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, Nested) and part.every is every else (part,))]
    return flat[0] if len(flat) == 1 else Nested(every, tuple(flat))


def negated(formula: Formula) -> Formula:
    """What holds where the formula does not."""
    if isinstance(formula, Atom):
        terms = tuple((index, -weight) for index, weight in formula.terms)
        return Atom(terms, -formula.constant, not formula.strict)
    return Nested(not formula.every, tuple(map(negated, formula.parts)))


def size(formulas: Sequence[Formula]) -> int:
    """The number of constraints."""
    return sum(1 for formula in formulas for _ in atoms(formula))


Members = tuple[Formula, ...]
"""A conjunction."""


def conjunctions(formula: Formula) -> list[Members]:
    """The formula as an or of ands, of at most GROWTH times as many constraints."""
    if isinstance(formula, Atom):
        return [(formula,)]
    if not formula.every:
        return [members for part in formula.parts for members in conjunctions(part)]
    parts = [inner for part in formula.parts for inner in (part.parts if isinstance(part, Nested) and part.every else (part,))]
    options = [conjunctions(part) for part in parts]
    expanded = affordable(parts, options)
    chosen = [found if place in expanded else [(part,)] for place, (part, found) in enumerate(zip(parts, options, strict=True))]
    return [tuple(itertools.chain.from_iterable(pick)) for pick in itertools.product(*chosen)]


def affordable(parts: Sequence[Formula], options: Sequence[list[Members]]) -> set[int]:
    """Which parts of an and may be written out, the shortest first."""
    lengths, sizes = [len(found) for found in options], [size((part,)) for part in parts]
    written = [sum(map(size, found)) for found in options]
    expanded = {place for place, length in enumerate(lengths) if length == 1}
    for place in sorted(set(range(len(parts))) - expanded, key=lambda place: lengths[place]):
        tried = expanded | {place}
        count = math.prod(lengths[one] for one in tried)
        total = sum(Fraction(count, lengths[one]) * written[one] if one in tried else count * sizes[one]
                    for one in range(len(parts)))
        if total > GROWTH * sum(sizes):
            break
        expanded = tried
    return expanded


@dataclass(frozen=True)
class Split:
    """An and of constraints on the inputs alone, and of formulas about all values."""

    inputs: tuple[Atom, ...] = ()
    rest: tuple[Formula, ...] = ()

    def and_also(self, other: Split) -> Split:
        """Both together."""
        return Split(self.inputs + other.inputs, self.rest + other.rest)


def on_inputs(atom: Atom, outputs: int) -> bool:
    """Whether a constraint reads inputs alone."""
    return bool(atom.terms) and all(index >= outputs for index, _ in atom.terms)


def split(formula: Formula, outputs: int) -> list[Split]:
    """A formula as an or of what it says of the inputs with what it says of all values."""
    if not any(on_inputs(atom, outputs) for atom in atoms(formula)):
        return [Split(rest=(formula,))]
    if isinstance(formula, Atom):
        return [Split(inputs=(formula,))]
    if not formula.every:
        return [one for part in formula.parts for one in split(part, outputs)]
    return product([split(part, outputs) for part in formula.parts], formula.parts)


def worth_it(options: Sequence[list[Split]]) -> set[int]:
    """Which ors of an and are multiplied: those of inputs alone while they make few boxes, and a sole other one."""
    wide = sorted((place for place, found in enumerate(options) if len(found) > 1), key=lambda place: len(options[place]))
    mixed = [place for place in wide if any(one.rest for one in options[place])]
    expanded, count = set(range(len(options))) - set(wide), 1
    for place in wide:
        if place not in mixed and (count == 1 or count * len(options[place]) <= MOST_BOXES):
            expanded.add(place)
            count *= len(options[place])
    return expanded | set(mixed if len(mixed) == 1 else ())


def product(options: Sequence[list[Split]], parts: Sequence[Formula]) -> list[Split]:
    """The and of several ors, of which some stay as they are (`parts`), so that there is no blow-up."""
    expanded = worth_it(options)
    found = [Split()]
    for wide, group in itertools.groupby(range(len(options)), key=lambda place: place in expanded and len(options[place]) > 1):
        places = list(group)
        if wide:
            for place in places:
                found = [one.and_also(other) for one, other in itertools.product(found, options[place])]
            continue
        single = [options[place][0] if place in expanded else Split(rest=(parts[place],)) for place in places]
        inputs = tuple(itertools.chain.from_iterable(one.inputs for one in single))
        rest = tuple(itertools.chain.from_iterable(one.rest for one in single))
        found = [one.and_also(Split(inputs, rest)) for one in found]
    return found


def cases_of(unsafe: Formula, inputs: int, outputs: int) -> tuple[Case, ...]:
    """The cases of an unsafe formula, whose values are the outputs and behind them the inputs.

    None at all if no input satisfies what it says of them alone; SpecError where an input has no bounds.
    """
    regions: dict[tuple[Atom, ...], Region | None] = {}
    found: dict[tuple[object, ...], tuple[Region, list[Formula]]] = {}
    for one in split(unsafe, outputs):
        if one.inputs not in regions:
            constraints = tuple(constraint_of(atom, outputs) for atom in one.inputs)
            regions[one.inputs] = region(Conjunct(constraints=constraints), NO_BLOCKS, inputs)
        inside = regions[one.inputs]
        if inside is not None:
            found.setdefault(identity(inside), (inside, []))[1].append(joint(one.rest or (ALWAYS,), True))
    return tuple(Case(lower, upper, tuple(conjunctions(joint(rest, False))), relations)
                 for (lower, upper, relations), rest in found.values())


def constraint_of(atom: Atom, outputs: int) -> Constraint:
    """A constraint on inputs, with the inputs numbered from 0."""
    return Constraint(Linear(tuple((index - outputs, weight) for index, weight in atom.terms), atom.constant), atom.strict)
