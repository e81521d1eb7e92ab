"""Lowering: what a rule needs while one program node becomes graph nodes; axes lose the batch here."""

from __future__ import annotations

import re
from collections.abc import Sequence
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

    def at(self, node: fx.Node) -> None:
        """Begin a program node: its module path and source line name what is built for it."""
        self.node = node
        self.builder.name, self.builder.origin = path_of(node), where_from(node).removeprefix(", from ")

    def index(self, value: Any) -> int:
        """The graph node of a program value; a number becomes a constant."""
        if isinstance(value, fx.Node):
            found = self.values[value]
            return int(found) if isinstance(found, int) else self.builder.constant(found)
        if isinstance(value, (int, float, Tensor)):
            return self.builder.constant(value)
        raise CaptureError(f"expected a tensor{where_from(self.node)}, got {value!r}.")

    def varies(self, value: Any) -> bool:
        """Whether a program value depends on an input, and so has a batch axis."""
        return isinstance(value, fx.Node) and self.values.get(value) in self.builder.varying

    def rank(self, value: fx.Node) -> int:
        """Number of axes in the program, batch included."""
        return int(value.meta["val"].dim())

    def axis(self, value: fx.Node, dim: int) -> int:
        """A program axis as ours: negative ones counted from the end, without the batch. CaptureError for the batch axis."""
        dim = dim % max(self.rank(value), 1)
        if not self.varies(value):
            return dim
        if dim == 0:
            raise CaptureError(f"'{self.node}'{where_from(self.node)} works along the batch axis; examples of a batch must "
                               "not be mixed.")
        return dim - 1

    def axes(self, value: fx.Node, dims: Sequence[int] | None) -> tuple[int, ...]:
        """Several axes; None or an empty list means all."""
        if not dims:
            dims = range(1 if self.varies(value) else 0, self.rank(value))
        return tuple(self.axis(value, dim) for dim in dims)

    def result_shape(self) -> tuple[int, ...]:
        """Shape of the program node's result, without batch; CaptureError where the batch is not the first axis."""
        assert self.node is not None
        shape = self.node.meta["val"].shape
        varies = any(self.varies(arg) for arg in self.node.all_input_nodes)
        inner = shape[1:] if varies else shape
        first_is_batch = not varies or (len(shape) > 0 and is_plain_symbol(shape[0]))
        if not first_is_batch or any(isinstance(size, torch.SymInt) for size in inner):
            raise CaptureError(f"'{self.node}'{where_from(self.node)} has shape {list(shape)}: the batch must stay the first axis, "
                               "on its own.")
        return tuple(int(size) for size in inner)


def is_plain_symbol(size: Any) -> bool:
    """Whether a size is the batch itself, and not a multiple of it."""
    return isinstance(size, torch.SymInt) and re.fullmatch(r"\w+", str(size)) is not None


def path_of(node: fx.Node) -> str:
    """The module path that a program node comes from, else its own name."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values() if entry and entry[0]]
    return re.sub(r"^L\['self'\]\.?", "", paths[-1]) if paths else node.name


def where_from(node: fx.Node | None) -> str:
    """", from file:line" of the user's source, if torch knows it."""
    trace = (node.meta.get("stack_trace") or "") if node is not None else ""
    places = re.findall(r'File "([^"]+)", line (\d+)', trace)
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
    return low.builder.broadcast(op, *tensors, **attributes) if len(tensors) > 1 else low.builder.add(op, *tensors, **attributes)
