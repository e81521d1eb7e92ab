"""Lowering: what a rule needs while one program node becomes graph nodes; axes lose the batch here."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from boundlab.capture.builder import Builder
from boundlab.errors import CaptureError


class Lowering:
    """The graph so far, and what every program node has become: an index, or a plain Python value."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.values: dict[fx.Node, Any] = {}
        self.node: fx.Node | None = None
        self.merged: dict[fx.Node, int] = {}
        self.inputs: list[fx.Node] = []

    def at(self, node: fx.Node) -> None:
        """Begin a program node: its module path and source line name what is built for it."""
        self.node = node
        self.builder.name, self.builder.origin = path_of(node), where_from(node).removeprefix(", from ")

    def index(self, value: Any) -> int:
        """The graph node of a program value; a number becomes a constant."""
        if isinstance(value, fx.Node):
            found = self.values[value]
            if found is None:
                raise CaptureError(f"the size of the batch is used as a number{where_from(self.node)}; results would depend on "
                                   "how many examples are given together.")
            return int(found) if isinstance(found, int) else self.builder.constant(found)
        if isinstance(value, (int, float, Tensor)):
            return self.builder.constant(value)
        raise CaptureError(f"expected a tensor{where_from(self.node)}, got {value!r}.")

    def varies(self, value: Any) -> bool:
        """Whether a program value depends on an input, and so has a batch axis."""
        found = self.values.get(value) if isinstance(value, fx.Node) else None
        parts = found if isinstance(found, list) else [found]
        return any(isinstance(part, int) and part in self.builder.varying for part in parts)

    def rank(self, value: fx.Node) -> int:
        """Number of axes in the program, batch included."""
        return int(value.meta["val"].dim())

    def batch(self, value: fx.Node) -> Batch:
        """Where the batch stands among the axes of a program value; constants repeated over the batch have one too."""
        shape = value.meta["val"].shape
        places = [(place, factor) for place, size in enumerate(shape) if (factor := batch_factor(size)) is not None]
        if len(places) != 1 or any(isinstance(size, torch.SymInt) for place, size in enumerate(shape) if place != places[0][0]):
            raise CaptureError(f"'{value}'{where_from(value)} has shape {list(shape)}: the batch must stay one axis.")
        place, factor = places[0]
        return Batch(place, factor, self.outer(value) if factor > 1 else 1)

    def outer(self, value: fx.Node) -> int:
        """The part of a merged batch axis that stands before the batch, as the reshape that merged it left it."""
        if value in self.merged:
            return self.merged[value]
        return next((self.outer(arg) for arg in value.all_input_nodes if batched(arg)), 1)

    def axis(self, value: fx.Node, dim: int) -> int:
        """A program axis as ours: negative ones counted from the end, without the batch. CaptureError for the batch axis."""
        dim = dim % max(self.rank(value), 1)
        if not batched(value):
            return dim
        batch = self.batch(value)
        if dim == batch.place:
            raise CaptureError(f"'{self.node}'{where_from(self.node)} works along the batch axis; examples of a batch must "
                               "not be mixed.")
        return dim - 1 if dim > batch.place and batch.factor == 1 else dim

    def axes(self, value: fx.Node, dims: Sequence[int] | None) -> tuple[int, ...]:
        """Several axes; None or an empty list means all, the batch included, and is refused where there is one."""
        dims = dims or range(self.rank(value))
        return tuple(self.axis(value, dim) for dim in dims)

    def result_shape(self) -> tuple[int, ...]:
        """Shape of the program node's result as ours."""
        assert self.node is not None
        return self.shape_of(self.node)

    def shape_of(self, value: fx.Node) -> tuple[int, ...]:
        """Shape of a program value as ours: without the batch, and with what is merged into its axis."""
        shape = value.meta["val"].shape
        if not batched(value):
            return tuple(int(size) for size in shape)
        batch = self.batch(value)
        middle = () if batch.factor == 1 else (batch.factor,)
        return (*map(int, shape[:batch.place]), *middle, *map(int, shape[batch.place + 1:]))

    def check_reshape(self, value: fx.Node) -> None:
        """A reshape must keep the examples apart: the entries before the batch stay before it. Notes what it merges."""
        assert self.node is not None
        if not batched(value):
            return
        shape, batch = value.meta["val"].shape, self.batch(value)
        before = math.prod(int(size) for size in shape[:batch.place]) * batch.outer
        result = self.node.meta["val"].shape
        place, factor = next(((place, factor) for place, size in enumerate(result)
                              if (factor := batch_factor(size)) is not None), (0, 0))
        first = math.prod(int(size) for size in result[:place])
        outer = before // max(first, 1)
        if factor == 0 or first * outer != before or factor % outer:
            raise CaptureError(f"'{self.node}'{where_from(self.node)} reshapes {list(shape)} to {list(result)}, which mixes "
                               "examples of a batch.")
        self.merged[self.node] = outer


@dataclass(frozen=True)
class Batch:
    """The batch axis of a program value: its place, what other axes are merged into it, and how much of that is before it."""

    place: int
    factor: int
    outer: int


def batched(value: fx.Node) -> bool:
    """Whether a program value has a batch axis."""
    found = value.meta.get("val")
    return isinstance(found, Tensor) and any(isinstance(size, torch.SymInt) for size in found.shape)


def batch_factor(size: Any) -> int | None:
    """k if a size is k times the batch, None if it is a number; CaptureError for other formulas of the batch."""
    if not isinstance(size, torch.SymInt):
        return None
    parts = re.fullmatch(r"(?:(\d+)\*)?(s\w*)", str(size))
    if re.search(r"\bu\d+", str(size)):
        raise CaptureError("an axis has a size that depends on values of a tensor, such as a boolean mask or repeats; name the "
                           "places by whole numbers instead.")
    if parts is None:
        raise CaptureError(f"an axis has the size {size}; only the batch, or a multiple of it, may depend on the batch.")
    return int(parts[1] or 1)


def path_of(node: fx.Node) -> str:
    """The module path that a program node comes from, else its own name."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values() if entry and entry[0]]
    return re.sub(r"^L\['self'\]\.?", "", paths[-1]) if paths else node.name


def where_from(node: fx.Node | None) -> str:
    """", from file:line" of the user's source, if torch knows it: the innermost line that is not torch's or ours."""
    trace = (node.meta.get("stack_trace") or "") if node is not None else ""
    places = re.findall(r'File "([^"]+)", line (\d+)', trace)
    places = [place for place in places if not place[0].startswith((torch.__path__[0], str(Path(__file__).parent), "<"))]
    return f", from {places[-1][0]}:{places[-1][1]}" if places else ""


def lower_by_source(low: Lowering, node: fx.Node, op: str) -> int:
    """An operator that a record declares one to one: tensor arguments in order, the others as attributes by name."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    tensors, attributes = [], {}
    for position, argument in enumerate(schema):
        given = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name, argument.default_value)
        if "Tensor" in str(argument.type) and given is not None:
            tensors.append(low.index(given))
        elif given is not None and not argument.kwarg_only:
            attributes[argument.name] = given
    write = low.builder.broadcast if len(tensors) > 1 else low.builder.add
    return write(op, *tensors, **attributes)
