"""Builder: writes graph nodes one by one; torch and ONNX capture speak to it and to nothing deeper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from boundlab.errors import CaptureError
from boundlab.graph import INPUT, PARAMETER, Graph, Model, Node
from boundlab.ops import lookup


class Builder:
    """A graph under construction. Nodes are known by index; shapes leave out the batch and follow from `evaluate`."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.nodes: list[Node] = []
        self.params: dict[str, Tensor] = {}
        self.varying: set[int] = set()
        self.written: set[int] = set()
        self.dtype = dtype
        self.name, self.origin = "", ""

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of a node, without batch."""
        return self.nodes[index].shape

    def input(self, name: str, shape: Sequence[int]) -> int:
        """An input of (batch, *shape)."""
        index = self._append(INPUT, (), {}, tuple(shape), name)
        self.varying.add(index)
        return index

    def parameter(self, name: str, value: Tensor) -> int:
        """A parameter, buffer or constant under its own name; the tensor itself is kept, not a copy."""
        index = self._append(PARAMETER, (), {}, tuple(value.shape), name)
        self.params[self.nodes[index].name] = value
        return index

    def constant(self, value: Tensor | float, rank: int = 0) -> int:
        """A number or tensor written in the network, with at least `rank` axes."""
        tensor = torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else self.dtype)
        tensor = tensor.reshape((1,) * (rank - tensor.dim()) + tuple(tensor.shape))
        index = self.parameter(f"constant.{len(self.params)}", tensor)
        self.written.add(index)
        return index

    def add(self, op: str, *args: int, **attrs: Any) -> int:
        """A node that applies operator `op`; its shape is found by running `evaluate` on tensors without data."""
        values = [torch.empty((1, *self.shape(arg)), dtype=self._kind(arg), device="meta") for arg in args]
        try:
            shape = tuple(lookup(op).evaluate(*values, **attrs).shape[1:])
        except (RuntimeError, IndexError, ValueError, TypeError) as problem:
            shapes = ", ".join(str(list(self.shape(arg))) for arg in args)
            raise CaptureError(f"'{self.name}' applies {op} to shapes {shapes} with {attrs}, which does not fit: "
                               f"{problem}") from problem
        index = self._append(op, args, attrs, shape, self.name or op)
        if any(arg in self.varying for arg in args):
            self.varying.add(index)
        if all(arg in self.written for arg in args):
            self.written.add(index)
        return index

    def opaque(self, op: str, args: Sequence[int], shape: Sequence[int]) -> int:
        """A node of an operator that nobody knows, with the shape that it is said to have."""
        index = self._append(op, tuple(args), {}, tuple(shape), self.name or op)
        if any(arg in self.varying for arg in args):
            self.varying.add(index)
        return index

    def aligned(self, index: int, shape: Sequence[int]) -> int:
        """The node with as many axes as `shape`, and of that shape unless it is a written number (which may broadcast)."""
        own, target = self.shape(index), tuple(shape)
        if len(own) < len(target):
            own = (1,) * (len(target) - len(own)) + own
            index = self.add("reshape", index, shape=own)
        if index not in self.written and own != target:
            index = self.add("expand", index, shape=target)
        return index

    def broadcast(self, op: str, *args: int, **attrs: Any) -> int:
        """An elementwise operator on arguments that broadcast against each other."""
        shape = torch.broadcast_shapes(*(self.shape(arg) for arg in args))
        return self.add(op, *(self.aligned(arg, shape) for arg in args), **attrs)

    def model(self, outputs: Sequence[int]) -> Model:
        """The finished network: only what the outputs need, in order."""
        needed, waiting = set[int](), list(outputs)
        while waiting:
            index = waiting.pop()
            if index not in needed:
                needed.add(index)
                waiting.extend(self.nodes[index].args)
        kept = [node for node in self.nodes if node.index in needed or node.op == INPUT]
        place = {node.index: new for new, node in enumerate(kept)}
        nodes = tuple(
            replace(node, index=place[node.index], args=tuple(place[arg] for arg in node.args)) for node in kept)
        names = {node.name for node in nodes if node.op == PARAMETER}
        params = {name: tensor for name, tensor in self.params.items() if name in names}
        return Model(Graph(nodes, tuple(place[index] for index in outputs)), params)

    def _kind(self, index: int) -> torch.dtype:
        """Element type of a parameter node; everything computed counts as floating."""
        node = self.nodes[index]
        return self.params[node.name].dtype if node.op == PARAMETER else self.dtype

    def _append(self, op: str, args: tuple[int, ...], attrs: dict[str, Any], shape: tuple[int, ...], name: str) -> int:
        used = {node.name for node in self.nodes}
        unique, count = name, 2
        while unique in used:
            unique, count = f"{name}#{count}", count + 1
        self.nodes.append(Node(len(self.nodes), op, args, attrs, shape, unique, self.origin))
        return len(self.nodes) - 1
