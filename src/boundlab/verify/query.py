"""A query as batches for a network: its boxes and unsafe outputs as tensors of the network's type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from boundlab.errors import SpecError
from boundlab.graph import Model
from boundlab.perturbations.sets import Box
from boundlab.question.exact import Case, Floats, Query, ends_of, rounded_down, stacked
from boundlab.spec import Specification

NUMPY: Mapping[torch.dtype, Floats] = {torch.float32: np.float32, torch.float64: np.float64}
"""A network's type as numpy names it."""


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
    return Problems(cases, hull, boxes(lower.rounded(dtype), upper.rounded(dtype)), negation(cases, layout, model))


def negation(cases: tuple[Case, ...], layout: tuple[int, ...], model: Model) -> Specification:
    """What is safe: in each unsafe conjunct some atom fails, with a margin above 0 also where the atom is strict."""
    shape, dtype = model.graph.output.shape, model.dtype
    rows = torch.zeros(len(cases) * sum(layout), math.prod(shape), dtype=dtype)
    atoms = [atom for case in cases for conjunct in case.unsafe for atom in conjunct]
    places = torch.tensor([(place, index) for place, atom in enumerate(atoms) for index, _ in atom.terms], dtype=torch.long)
    weights = ends_of([weight for atom in atoms for _, weight in atom.terms]).nearest
    rows.index_put_(tuple(places.reshape(-1, 2).T), torch.from_numpy(weights).to(dtype), accumulate=True)
    constants = [atom.constant for atom in atoms]
    offset = rounded_down(constants, NUMPY[dtype]).reshape(len(cases), -1)
    clause = torch.repeat_interleave(torch.arange(len(layout)), torch.tensor(layout))
    rows = rows.reshape(len(cases), -1, *shape)
    return Specification(rows.to(model.device), torch.from_numpy(offset).to(model.device), clause.to(model.device))


def flat_values(values: Mapping[str, Tensor], model: Model) -> np.ndarray:
    """One point's inputs (1, *shape) by name as the query numbers them, (d,)."""
    return np.concatenate([values[node.name].detach().cpu().numpy().reshape(-1) for node in model.graph.inputs])
