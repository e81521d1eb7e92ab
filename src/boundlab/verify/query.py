"""A query as batches for a network: its boxes and unsafe outputs as tensors of the network's type."""

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
from boundlab.question.exact import Atom, Case, Floats, Formula, Query, ends_of, rounded_down, stacked
from boundlab.spec import Specification
from boundlab.verify.extended import Read, extended, read_by

NUMPY: Mapping[torch.dtype, Floats] = {torch.float32: np.float32, torch.float64: np.float64}
"""A network's type as numpy names it."""


@dataclass(frozen=True)
class Problems:
    """Cases with clauses of the same layout, as one batch for a network.

    `model` is the network, with further outputs where the cases read more than its own (see `extended`). `sets` hold the
    decimal and the rounded boxes (proofs), `rounded` the rounded ones alone (witnesses), by input name.
    """

    model: Model
    cases: tuple[Case, ...]
    sets: Mapping[str, Box]
    rounded: Mapping[str, Box]
    spec: Specification


def problems(query: Query, model: Model, *, premises: bool = True) -> tuple[Problems, ...]:
    """The cases of a query as batches in the network's type; SpecError if the numbers of inputs or outputs differ.

    With `premises`, what a case says of its inputs besides their box helps to prove it: an input that breaks it is safe.
    """
    inputs, outputs = (sum(math.prod(node.shape) for node in nodes)
                       for nodes in (model.graph.inputs, model.outputs.values()))
    if (query.inputs, query.outputs) != (inputs, outputs):
        raise SpecError(f"the query is about {query.inputs} inputs and {query.outputs} outputs, the network has "
                        f"{inputs} and {outputs}.")
    layouts: dict[tuple[int, ...], list[Asked]] = {}
    for case in query.cases:
        helping = tuple(shifted(atom, outputs) for atom in case.relations if len(atom.terms) > 1) if premises else ()
        asked = Asked(case, tuple((*conjunct, *helping) for conjunct in case.unsafe))
        layouts.setdefault(tuple(map(len, asked.unsafe)), []).append(asked)
    return tuple(batch(tuple(cases), layout, model) for layout, cases in layouts.items())


@dataclass(frozen=True)
class Asked:
    """A case with what has to fail in it: some member of every conjunction."""

    case: Case
    unsafe: tuple[tuple[Formula, ...], ...]


def shifted(atom: Atom, outputs: int) -> Atom:
    """A constraint on inputs with the inputs numbered behind the outputs."""
    return Atom(tuple((outputs + index, weight) for index, weight in atom.terms), atom.constant, atom.strict)


def batch(asked: tuple[Asked, ...], layout: tuple[int, ...], model: Model) -> Problems:
    """Cases of one layout (the number of members of each clause) as a batch."""
    cases = tuple(one.case for one in asked)
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
    hull = boxes(*outward)
    members = [member for one in asked for conjunct in one.unsafe for member in conjunct]
    read = read_by(members, sum(math.prod(node.shape) for node in model.outputs.values()))
    whole = extended(model, read, dtype)
    spec = negation(rows_of(members, read, math.prod(whole.graph.output.shape)), layout, whole)
    return Problems(whole, cases, hull, boxes(lower.rounded(dtype), upper.rounded(dtype)), spec)


def rows_of(members: Sequence[Formula], read: Read, width: int) -> list[Atom]:
    """What has to fail as constraints on the values of the extended network, whose last entries are margins of nested ones."""
    margins = {nested: width - len(read.nested) + place for place, nested in enumerate(read.nested)}
    return [member if isinstance(member, Atom) else Atom(((margins[member], Fraction(1)),), Fraction(0)) for member in members]


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
