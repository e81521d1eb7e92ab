"""Node, Graph and Model: a network as data. Operators are names here; their rules live in `boundlab.ops`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from boundlab.errors import CaptureError, ShapeError

INPUT, PARAMETER = "input", "parameter"


@dataclass(frozen=True)
class Node:
    """One value of the network. `args` are indices of earlier nodes; `shape` and axes in `attrs` leave out the batch."""

    index: int
    op: str
    args: tuple[int, ...]
    attrs: Mapping[str, Any]
    shape: tuple[int, ...]
    name: str
    origin: str = ""

    @property
    def source(self) -> bool:
        """Whether the value enters from outside: an input, or a parameter (buffers and constants included)."""
        return self.op in (INPUT, PARAMETER)

    def describe(self) -> str:
        """The node for a message: its name, operator, shape, and where it stands in the user's source."""
        where = f", from {self.origin}" if self.origin else ""
        return f"node '{self.name}' ({self.op}, shape {list(self.shape)}{where})"


@dataclass(frozen=True)
class BatchNorm:
    """A batch norm of the network, as a place where statistics of a batch may be put instead of those that were captured.

    `value` computes what it normalises, (channels, *space). If it is a part of the layer before it, that layer is the node
    `folded`, and `value` is the layer without it, which is no node of the graph: its index is -1. `mean` and `variance` are
    parameter nodes, `scale` and `shift` those computed from them: the result is value * scale + shift.
    """

    value: Node
    folded: int | None
    mean: int
    variance: int
    scale: int
    shift: int

    def at(self, place: Mapping[int, int]) -> BatchNorm:
        """The same in a graph whose nodes have the indices `place`."""
        args = tuple(place[arg] for arg in self.value.args)
        value = replace(self.value, index=place.get(self.value.index, -1), args=args)
        folded = None if self.folded is None else place.get(self.folded)
        return BatchNorm(value, folded, *(place[index] for index in (self.mean, self.variance, self.scale, self.shift)))


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order; `outputs` are the indices of the network's results, `norms` its batch norms."""

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    norms: tuple[BatchNorm, ...] = ()

    def __post_init__(self) -> None:
        for place, node in enumerate(self.nodes):
            if node.index != place or any(arg >= place for arg in node.args):
                raise CaptureError(f"{node.describe()} is out of order; nodes must come after their arguments.")

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, index: int) -> Node:
        return self.nodes[index]

    @property
    def output(self) -> Node:
        """The only output; ShapeError if there are several."""
        if len(self.outputs) != 1:
            raise ShapeError(f"the network has {len(self.outputs)} outputs; choose one with Model.select_output(i).")
        return self.nodes[self.outputs[0]]

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes that a caller feeds."""
        return tuple(node for node in self.nodes if node.op == INPUT)

    def source_named(self, name: str) -> Node:
        """The input or parameter called `name`."""
        for node in self.nodes:
            if node.source and node.name == name:
                return node
        known = ", ".join(f"'{node.name}'" for node in self.nodes if node.source)
        raise ShapeError(f"the network has no input or parameter '{name}'; it has {known}.")


@dataclass(frozen=True)
class Model:
    """A graph with the tensors that its parameter nodes name; captured parameters are the user's live ones."""

    graph: Graph
    params: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        taken = ", ".join(f"{node.name} {list(node.shape)}" for node in self.graph.inputs)
        given = ", ".join(str(list(self.graph[index].shape)) for index in self.graph.outputs)
        numbers = sum(tensor.numel() for tensor in self.params.values())
        return f"Model({taken} -> {given}; {len(self.graph.nodes)} nodes, {numbers} numbers, {self.dtype})"

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the parameters (float32 if there are none)."""
        floating = [tensor.dtype for tensor in self.params.values() if tensor.is_floating_point()]
        return floating[0] if floating else torch.float32

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next((tensor.device for tensor in self.params.values()), torch.device("cpu"))

    def detached(self) -> Model:
        """The same model with parameters that carry no gradient."""
        return replace(self, params={name: tensor.detach() for name, tensor in self.params.items()})

    def to(self, target: torch.dtype | torch.device) -> Model:
        """The same model in another floating type or on another device."""
        def moved(tensor: Tensor) -> Tensor:
            if isinstance(target, torch.dtype) and not tensor.is_floating_point():
                return tensor
            return tensor.to(target)
        return replace(self, params={name: moved(tensor) for name, tensor in self.params.items()})

    def select_output(self, index: int) -> Model:
        """The same network with only its output number `index`."""
        return replace(self, graph=replace(self.graph, outputs=(self.graph.outputs[index],)))

    def up_to(self, name: str) -> Model:
        """The part of the network that computes the node called `name`, as a network with that output.

        ShapeError if no node has that name; the message lists those that do.
        """
        found = [node.index for node in self.graph if node.name == name]
        if not found:
            known = ", ".join(f"'{node.name}'" for node in self.graph if not node.source)
            raise ShapeError(f"the network has no node '{name}'; it has {known}.")
        norms = tuple(norm for norm in self.graph.norms if max(norm.scale, norm.shift) <= found[0])
        return replace(self, graph=Graph(self.graph.nodes[:found[0] + 1], (found[0],), norms))
