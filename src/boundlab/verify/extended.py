"""A network with further outputs: what a query reads besides the network's own outputs, as one vector.

Margins of nested formulas follow from max(a, b) = a + relu(b - a), which every method bounds and branch and bound splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from boundlab.capture.builder import Builder
from boundlab.capture.joined import include
from boundlab.certificates.unsafe import summed
from boundlab.graph import Model
from boundlab.question.exact import Atom, Floats, Formula, Nested, atoms, ends_of, rounded_down


@dataclass(frozen=True)
class Read:
    """What of a query's values the network gives besides its outputs: all inputs, and margins of nested formulas."""

    inputs: bool
    nested: tuple[Nested, ...]

    @property
    def nothing(self) -> bool:
        """Whether the outputs are enough."""
        return not self.inputs and not self.nested


def read_by(members: Sequence[Formula], outputs: int) -> Read:
    """What formulas read besides outputs."""
    inputs = any(index >= outputs for member in members for atom in atoms(member) for index, _ in atom.terms)
    return Read(inputs, tuple(dict.fromkeys(member for member in members if isinstance(member, Nested))))


def extended(model: Model, read: Read, dtype: Floats) -> Model:
    """The network with one vector as its output: its own outputs, the inputs if they are read, and the margins.

    A network with one output that is all that is read stays as it is.
    """
    if read.nothing and len(model.graph.outputs) == 1:
        return model
    build = Builder(model.dtype)
    fed = {node.name: build.input(node.name, node.shape) for node in model.graph.inputs}
    values = [*include(build, model, fed), *(fed.values() if read.inputs else ())]
    build.name = "values"
    values = [flat(build, place) for place in values]
    vector = concatenated(build, values)
    if read.nested:
        leaves = [atom for nested in read.nested for atom in leaves_of(nested)]
        matrix, offset = affine(leaves, build.shape(vector)[0], dtype)
        build.name = "margins"
        weight, bias = (build.parameter(name, value.to(model.device)) for name, value in (("margins.rows", matrix),
                                                                                        ("margins.offset", offset)))
        margins = build.add("linear", vector, weight, bias)
        starts = np.cumsum([0, *(len(leaves_of(nested)) for nested in read.nested)]).tolist()
        found = [margin(build, nested, margins, start) for nested, start in zip(read.nested, starts, strict=False)]
        vector = concatenated(build, [vector, *found])
    return build.model([vector], ["values"])


def leaves_of(nested: Nested) -> list[Atom]:
    """The constraints of a formula, its own before those of its parts."""
    own = [part for part in nested.parts if isinstance(part, Atom)]
    return own + [atom for part in nested.parts if isinstance(part, Nested) for atom in leaves_of(part)]


def affine(leaves: Sequence[Atom], width: int, dtype: Floats) -> tuple[Tensor, Tensor]:
    """The left sides of constraints as a matrix (leaves, width) and offsets that are not above the exact ones."""
    numpy = np.zeros((len(leaves), width))
    for row, atom in enumerate(leaves):
        total = summed(atom)
        numpy[row, list(total)] = ends_of(list(total.values())).nearest
    return torch.from_numpy(numpy.astype(dtype)), torch.from_numpy(rounded_down([atom.constant for atom in leaves], dtype))


def flat(build: Builder, place: int) -> int:
    """A node as a vector."""
    shape = build.shape(place)
    return place if len(shape) == 1 else build.add("reshape", place, shape=(int(np.prod(shape)),))


def concatenated(build: Builder, places: Sequence[int]) -> int:
    """Vectors end to end."""
    return places[0] if len(places) == 1 else build.add("concat", *places, dim=0)


def margin(build: Builder, nested: Nested, margins: int, start: int) -> int:
    """The margin (1,) of a nested formula, positive where it fails; its constraints' margins lie at `start` and on."""
    run = sum(isinstance(part, Atom) for part in nested.parts)
    found, place = [], start + run
    for part in nested.parts:
        if isinstance(part, Nested):
            found.append(margin(build, part, margins, place))
            place += len(leaves_of(part))
    if run:
        found.insert(0, build.add("slice", margins, slices=(slice(start, start + run, 1),)))
    return extreme(build, concatenated(build, found), nested.every)


def extreme(build: Builder, vector: int, largest: bool) -> int:
    """The largest (or smallest) entry of a vector, as (1,): pairs are joined until one is left."""
    while (count := build.shape(vector)[0]) > 1:
        half = count // 2
        first, second, odd = (build.add("slice", vector, slices=(slice(*ends, 1),)) if ends[1] > ends[0] else None
                              for ends in ((0, half), (half, 2 * half), (2 * half, count)))
        assert first is not None and second is not None
        more = build.add("relu", build.add("sub", second, first) if largest else build.add("sub", first, second))
        joined = build.add("add" if largest else "sub", first, more)
        vector = joined if odd is None else concatenated(build, [joined, odd])
    return vector
