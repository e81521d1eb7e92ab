"""A query: input boxes with exact decimal ends, and for each box the outputs that are unsafe, as a formula.

Decimals are rarely floats. Proofs cover the decimal box and the box rounded to the network's input type; a witness counts
if it lies in the rounded box and satisfies the unsafe formula in exact rational arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from boundlab.errors import SpecError
from boundlab.graph import Model
from boundlab.perturbations.sets import Box
from boundlab.spec import Specification

NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


@dataclass(frozen=True)
class Ends:
    """Exact numbers: the nearest float64 of each, and the sign of what that leaves out (number - nearest), (d,) both."""

    nearest: np.ndarray
    excess: np.ndarray

    def rounded(self, dtype: torch.dtype) -> np.ndarray:
        """The nearest float of type `dtype` to each exact number, ties to even, (d,)."""
        if dtype == torch.float64:
            return self.nearest
        with np.errstate(over="ignore"):  # what is too large becomes infinite
            near = self.nearest.astype(np.float32)
        back = near.astype(np.float64)
        other = np.nextafter(near, np.where(self.nearest > back, np.inf, -np.inf).astype(np.float32))
        # float64 first and float32 next rounds twice: at a midpoint of two float32 the digits left out decide.
        middle = (self.nearest != back) & ((back + other.astype(np.float64)) / 2 == self.nearest)
        towards_other = np.sign(other.astype(np.float64) - back) == self.excess
        return np.where(middle & towards_other, other, near)

    def outward(self, dtype: torch.dtype, side: int) -> np.ndarray:
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
class Case:
    """One box of inputs and its unsafe outputs, an or of ands of atoms; `relations` are further constraints on the inputs.

    Proofs leave `relations` out, so they hold for the whole box; a witness has to satisfy them.
    """

    lower: Ends
    upper: Ends
    unsafe: tuple[tuple[Atom, ...], ...]
    relations: tuple[Atom, ...] = ()

    def contains(self, x: np.ndarray, dtype: torch.dtype) -> bool:
        """Whether flat inputs (d,) lie in the box rounded to nearest in `dtype`, at zero tolerance."""
        inside = (self.lower.rounded(dtype) <= x) & (x <= self.upper.rounded(dtype))
        return bool(inside.all()) and all(atom.holds(x.tolist()) for atom in self.relations)

    def violated(self, y: np.ndarray) -> bool:
        """Whether flat outputs (m,) are unsafe, exactly."""
        values = y.tolist()
        return any(all(atom.holds(values) for atom in conjunct) for conjunct in self.unsafe)


@dataclass(frozen=True)
class Query:
    """Is some output unsafe for an input in some case? Inputs and outputs are numbered flat, over all inputs in turn."""

    inputs: int
    outputs: int
    cases: tuple[Case, ...]

    def accepts(self, x: np.ndarray, y: np.ndarray, dtype: torch.dtype) -> bool:
        """Whether flat x (d,) with its outputs y (m,) is a counterexample, at zero tolerance.

        The network takes `dtype`, so x counts as the `dtype` values that it is fed as.
        """
        for name, found, wanted in (("inputs", x, self.inputs), ("outputs", y, self.outputs)):
            if found.shape != (wanted,):
                raise SpecError(f"the query has {wanted} {name}, the witness an array of shape {found.shape}.")
        fed = x.astype(NUMPY[dtype])
        return any(case.contains(fed, dtype) and case.violated(y) for case in self.cases)


@dataclass(frozen=True)
class Problems:
    """Cases with clauses of the same layout, as one batch for a network.

    `sets` hold the decimal and the rounded boxes (proofs), `rounded` the rounded ones alone (witnesses), by input name.
    """

    cases: tuple[Case, ...]
    sets: Mapping[str, Box]
    rounded: Mapping[str, Box]
    spec: Specification


def problems(query: Query, model: Model) -> tuple[Problems, ...]:
    """The cases of a query as batches in the network's type; SpecError if the numbers of inputs or outputs differ."""
    sizes = {node.name: math.prod(node.shape) for node in model.graph.inputs}
    outputs = math.prod(model.graph.output.shape)
    if (query.inputs, query.outputs) != (sum(sizes.values()), outputs):
        raise SpecError(f"the query is about {query.inputs} inputs and {query.outputs} outputs, the network has "
                        f"{sum(sizes.values())} and {outputs}.")
    layouts: dict[tuple[int, ...], list[Case]] = {}
    for case in query.cases:
        layouts.setdefault(tuple(map(len, case.unsafe)), []).append(case)
    return tuple(batch(tuple(cases), layout, model) for layout, cases in layouts.items())


def batch(cases: tuple[Case, ...], layout: tuple[int, ...], model: Model) -> Problems:
    """Cases of one layout (the number of atoms in each clause) as a batch."""
    dtype, device = model.dtype, model.device

    def boxes(lower: np.ndarray, upper: np.ndarray) -> Mapping[str, Box]:
        nodes = model.graph.inputs
        sizes = [math.prod(node.shape) for node in nodes]
        flat = [torch.from_numpy(rows).to(device).split(sizes, dim=1) for rows in (lower, upper)]
        return {node.name: Box(*(part.reshape(-1, *node.shape) for part in parts))
                for node, *parts in zip(nodes, *flat, strict=True)}

    lower, upper = stacked([case.lower for case in cases]), stacked([case.upper for case in cases])
    outward = lower.outward(dtype, -1), upper.outward(dtype, 1)
    if not all(np.isfinite(ends).all() for ends in outward):
        raise SpecError(f"an input has a bound that is too large for the network's type, {str(dtype).removeprefix('torch.')}.")
    hull = boxes(*outward)
    return Problems(cases, hull, boxes(lower.rounded(dtype), upper.rounded(dtype)), negation(cases, layout, model))


def stacked(rows: Sequence[Ends]) -> Ends:
    """The ends of n cases in one, (n, d)."""
    return Ends(np.stack([row.nearest for row in rows]), np.stack([row.excess for row in rows]))


def negation(cases: tuple[Case, ...], layout: tuple[int, ...], model: Model) -> Specification:
    """What is safe: in each unsafe conjunct some atom fails, with a margin above 0 also where the atom is strict."""
    shape, dtype = model.graph.output.shape, model.dtype
    rows = torch.zeros(len(cases) * sum(layout), math.prod(shape), dtype=dtype)
    atoms = [atom for case in cases for conjunct in case.unsafe for atom in conjunct]
    places = torch.tensor([(place, index) for place, atom in enumerate(atoms) for index, _ in atom.terms], dtype=torch.long)
    weights = ends_of([weight for atom in atoms for _, weight in atom.terms]).nearest
    rows.index_put_(tuple(places.reshape(-1, 2).T), torch.from_numpy(weights).to(dtype), accumulate=True)
    constants = [atom.constant for atom in atoms]
    offset = rounded_down(constants, dtype).reshape(len(cases), -1)
    clause = torch.repeat_interleave(torch.arange(len(layout)), torch.tensor(layout))
    rows = rows.reshape(len(cases), -1, *shape)
    return Specification(rows.to(model.device), torch.from_numpy(offset).to(model.device), clause.to(model.device))


def rounded_down(numbers: Sequence[Fraction], dtype: torch.dtype) -> np.ndarray:
    """Floats that are not above exact numbers, so that a proof with them is a proof with the numbers."""
    return ends_of(numbers).outward(dtype, -1)


def flat_values(values: Mapping[str, Tensor], model: Model) -> np.ndarray:
    """One point's inputs (1, *shape) by name as the query numbers them, (d,)."""
    return np.concatenate([values[node.name].detach().cpu().numpy().reshape(-1) for node in model.graph.inputs])
