"""A query as batches for a network: its boxes and unsafe outputs as tensors of the network's type."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import cast

import numpy as np
import torch
from torch import Tensor

from boundlab.certificates.unsafe import summed
from boundlab.errors import SpecError
from boundlab.graph import Model
from boundlab.perturbations.sets import Box
from boundlab.question.exact import Atom, Case, Floats, Formula, Query, atoms, ends_of, rounded_down, stacked
from boundlab.spec import Specification
from boundlab.verify.extended import Read, extended, read_by

NUMPY: Mapping[torch.dtype, Floats] = {torch.float32: np.float32, torch.float64: np.float64}
"""A network's type as numpy names it."""


@dataclass(frozen=True)
class Problems:
    """Cases with clauses of the same layout, as one batch for a network.

    `model` is the network, with further outputs where the cases `asked` read more than its own; `places` are the numbers of
    these in the query. `sets` hold the decimal and the rounded boxes (proofs), `rounded` the rounded ones alone (witnesses),
    by input name.
    """

    model: Model
    places: tuple[int, ...]
    asked: tuple[Case, ...]
    sets: Mapping[str, Box]
    rounded: Mapping[str, Box]
    spec: Specification


@dataclass(frozen=True)
class Reduced:
    """A query as one about the outputs of a network alone, in constraints: `model` has further outputs where that needs them.

    `cases` are those of the query that was asked, in order, and `exact` says whether the further outputs are without rounding.
    """

    model: Model
    query: Query
    cases: tuple[Case, ...]
    exact: bool = True


def reduced(query: Query, model: Model) -> Reduced:
    """A query about a network as one of its own, or longer, outputs; SpecError if the numbers of inputs or outputs differ.

    What a case says of its inputs besides their box helps to prove it: an input that breaks it is safe.
    """
    if model.dtype not in NUMPY:
        raise SpecError(f"a query is about a network of float32 or float64, not of {model.dtype}; convert the model first.")
    inputs, outputs = (sum(math.prod(node.shape) for node in nodes)
                       for nodes in (model.graph.inputs, model.outputs.values()))
    if (query.inputs, query.outputs) != (inputs, outputs):
        raise SpecError(f"the query is about {query.inputs} inputs and {query.outputs} outputs, the network has "
                        f"{inputs} and {outputs}.")
    helping = [tuple(shifted(atom, outputs) for atom in case.relations if len(atom.terms) > 1)
               for case in query.cases]
    if query.plain and not any(helping) and len(model.graph.outputs) == 1:
        return Reduced(model, query, query.cases)
    unsafe = [tuple((*conjunct, *more) for conjunct in case.unsafe) for case, more in zip(query.cases, helping, strict=True)]
    members, dtype = [member for conjuncts in unsafe for conjunct in conjuncts for member in conjunct], NUMPY[model.dtype]
    read = read_by(members, outputs)
    whole = extended(model, read, dtype)
    width = math.prod(whole.graph.output.shape)
    atoms_of = dict(zip(members, rows_of(members, read, width), strict=True))
    cases = tuple(replace(case, unsafe=tuple(tuple(atoms_of[member] for member in conjunct) for conjunct in conjuncts))
                  for case, conjuncts in zip(query.cases, unsafe, strict=True))
    exact = all(Fraction(float(dtype(float(weight)))) == weight for nested in read.nested for atom in atoms(nested)
                for weight in summed(atom).values())
    return Reduced(whole, Query(inputs, width, cases), query.cases, exact)


def shifted(atom: Atom, outputs: int) -> Atom:
    """A constraint on inputs with the inputs numbered behind the outputs."""
    return Atom(tuple((outputs + index, weight) for index, weight in atom.terms), atom.constant, atom.strict)


def rows_of(members: Sequence[Formula], read: Read, width: int) -> list[Atom]:
    """What has to fail as constraints on the values of the extended network, whose last entries are margins of nested ones."""
    margins = {nested: width - len(read.nested) + place for place, nested in enumerate(read.nested)}
    return [member if isinstance(member, Atom) else Atom(((margins[member], Fraction(1)),), Fraction(0)) for member in members]


def problems(query: Query, model: Model) -> tuple[Problems, ...]:
    """The cases of a query as batches in the network's type; see `reduced`."""
    return batches(reduced(query, model))


def batches(asked: Reduced) -> tuple[Problems, ...]:
    """The cases of a reduced query as batches in the network's type."""
    layouts: dict[tuple[int, ...], list[int]] = {}
    for place, case in enumerate(asked.query.cases):
        layouts.setdefault(tuple(map(len, case.unsafe)), []).append(place)
    return tuple(batch(asked, tuple(places), layout) for layout, places in layouts.items())


def batch(asked: Reduced, places: tuple[int, ...], layout: tuple[int, ...]) -> Problems:
    """The cases at some places, of one layout (the number of atoms in each clause), as a batch."""
    model, cases = asked.model, tuple(asked.query.cases[place] for place in places)
    dtype, device = NUMPY[model.dtype], model.device

    def boxes(lower: np.ndarray, upper: np.ndarray) -> Mapping[str, Box]:
        nodes = model.graph.inputs
        sizes = [math.prod(node.shape) for node in nodes]
        flat = [torch.from_numpy(rows).to(device).split(sizes, dim=1) for rows in (lower, upper)]
        return {node.name: Box(*(part.reshape(-1, *node.shape) for part in parts))
                for node, *parts in zip(nodes, *flat, strict=True)}

    lower, upper = stacked([case.lower for case in cases]), stacked([case.upper for case in cases])
    outward = lower.outward(dtype, -1), upper.outward(dtype, 1)
    if not all(np.isfinite(ends).all() for ends in outward):
        raise SpecError(f"an input has a bound that is too large for the network's type, {dtype.__name__}.")
    members = [cast(Atom, member) for case in cases for conjunct in case.unsafe for member in conjunct]
    rounded = boxes(lower.rounded(dtype), upper.rounded(dtype))
    return Problems(model, places, tuple(asked.cases[place] for place in places), boxes(*outward), rounded,
                    negation(members, layout, model))


def negation(atoms: Sequence[Atom], layout: tuple[int, ...], model: Model) -> Specification:
    """What is safe: in each unsafe conjunct some atom fails, with a margin above 0 also where the atom is strict."""
    shape, dtype = model.graph.output.shape, model.dtype
    count = len(atoms) // sum(layout)
    rows = torch.zeros(len(atoms), math.prod(shape), dtype=dtype)
    places = torch.tensor([(place, index) for place, atom in enumerate(atoms) for index, _ in atom.terms], dtype=torch.long)
    weights = ends_of([weight for atom in atoms for _, weight in atom.terms]).nearest
    rows.index_put_(tuple(places.reshape(-1, 2).T), torch.from_numpy(weights).to(dtype), accumulate=True)
    constants = [atom.constant for atom in atoms]
    offset = rounded_down(constants, NUMPY[dtype]).reshape(count, -1)
    clause = torch.repeat_interleave(torch.arange(len(layout)), torch.tensor(layout))
    rows = rows.reshape(count, -1, *shape)
    return Specification(rows.to(model.device), torch.from_numpy(offset).to(model.device), clause.to(model.device))


def own_values(model: Model) -> Model:
    """The network with its outputs in one tensor: end to end if there are several."""
    return extended(model, Read(False, ()), NUMPY[model.dtype])


def flat_values(values: Mapping[str, Tensor], model: Model) -> np.ndarray:
    """One point's inputs (1, *shape) by name as the query numbers them, (d,)."""
    return np.concatenate([values[node.name].detach().cpu().numpy().reshape(-1) for node in model.graph.inputs])
