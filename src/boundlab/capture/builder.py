"""Builder: writes graph nodes one by one; torch and ONNX capture speak to it and to nothing deeper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boundlab.errors import CaptureError
from boundlab.graph import AGAIN, INPUT, PARAMETER, BatchNorm, Graph, Model, Node, pruned
from boundlab.ops import lookup

MOST_NUMBERS = 2**28
"""Numbers that one value may hold for one example; more is a mistake in a file, and would fill the memory."""
FEW = 2**28
"""Up to this product of the sizes of arguments and of numbers in attributes a result is computed rather than only sized."""
GROWN = 2**26
"""The same for the largest argument alone: layers that a short file asks for may each make a result of a gigabyte."""
INDEXING = ("pick",)
"""Operators that read whole numbers as numbers of places."""


def sized(count: float) -> int:
    """A number of numbers, as it is; CaptureError if it is more than MOST_NUMBERS."""
    if count > MOST_NUMBERS:
        raise CaptureError(f"a value of {count:.0f} numbers is more than boundlab takes, {MOST_NUMBERS}")
    return int(count)


@torch.no_grad()
def trial(op: str, kinds: Sequence[tuple[tuple[int, ...], torch.dtype]], attrs: Mapping[str, Any]) -> Tensor:
    """A result of an operator on arguments of some shapes and types, of which only the shape and the type count.

    Torch's device for tensors without data takes more than a second to be loaded, so small results are computed from zeros.
    """
    evaluate, sizes, factor = lookup(op).evaluate, [math.prod(shape) for shape, _ in kinds], extent(list(attrs.values()))
    if math.prod(sizes) * factor <= FEW and max(sizes, default=1) * factor <= GROWN:
        try:
            return evaluate(*(torch.zeros((), dtype=kind).expand(shape) for shape, kind in kinds), **attrs)
        except (RuntimeError, IndexError, ValueError, TypeError, ArithmeticError):
            pass  # zeros may be wrong values
    return evaluate(*(torch.empty(shape, dtype=kind, device="meta") for shape, kind in kinds), **attrs)


def extent(value: Any) -> float:
    """The product of the numbers in an attribute, infinite for what is none: no result is larger by a larger factor."""
    if isinstance(value, (list, tuple)):
        return math.prod(map(extent, value))
    return max(1.0, abs(value)) if isinstance(value, (bool, int, float)) else 1.0 if value is None else math.inf


class Builder:
    """A graph under construction. Nodes are known by index; shapes leave out the batch and follow from `evaluate`."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.nodes: list[Node] = []
        self.params: dict[str, Tensor] = {}
        self.varying: set[int] = set()
        self.written: set[int] = set()
        self.norms: list[BatchNorm] = []
        self.dtype = dtype
        self.name, self.origin = "", ""
        self.counted: dict[str, int] = {}
        self.kinds: list[torch.dtype] = []

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of a node, without batch."""
        return self.nodes[index].shape

    def input(self, name: str, shape: Sequence[int], kind: torch.dtype | None = None) -> int:
        """An input of (batch, *shape); `kind` is its element type if that is not the network's floating type."""
        sized(math.prod(shape))
        index = self._append(INPUT, (), {}, tuple(shape), name, kind or self.dtype)
        self.varying.add(index)
        return index

    def parameter(self, name: str, value: Tensor) -> int:
        """A parameter, buffer or constant under its own name; the tensor itself is kept, not a copy."""
        index = self._append(PARAMETER, (), {}, tuple(value.shape), name, value.dtype)
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
        """A node that applies operator `op`; its shape is found by running `evaluate` on tensors that hold nothing."""
        if any(arg in self.varying for arg in args) and op not in INDEXING:
            args = tuple(self.floating(arg) for arg in args)
        kinds = [((1, *self.shape(arg)), self.kinds[arg]) for arg in args]
        try:
            result = trial(op, kinds, attrs)
        except (RuntimeError, IndexError, ValueError, TypeError) as problem:
            shapes = ", ".join(str(list(self.shape(arg))) for arg in args)
            raise CaptureError(f"'{self.name}' applies {op} to shapes {shapes} with {attrs}, which does not fit: "
                               f"{problem}") from problem
        sized(math.prod(result.shape[1:]))
        index = self._append(op, args, attrs, tuple(result.shape[1:]), self.name or op, result.dtype)
        if any(arg in self.varying for arg in args):
            self.varying.add(index)
        if all(arg in self.written for arg in args):
            self.written.add(index)
        return index

    def copied(self, node: Node, args: Sequence[int], name: str) -> int:
        """A computed node of another graph, applied to nodes of this one."""
        self.origin = node.origin
        index = self._append(node.op, tuple(args), dict(node.attrs), node.shape, name, self.dtype)
        self.origin = ""
        if any(arg in self.varying for arg in args):
            self.varying.add(index)
        return index

    def opaque(self, op: str, args: Sequence[int], shape: Sequence[int]) -> int:
        """A node of an operator that nobody knows, with the shape that it is said to have."""
        index = self._append(op, tuple(args), {}, tuple(shape), self.name or op, self.dtype)
        if any(arg in self.varying for arg in args):
            self.varying.add(index)
        return index

    def known(self, index: int) -> Tensor:
        """The value (1, *shape) of a node that depends on no input, computed now."""
        node = self.nodes[index]
        if node.op == PARAMETER:
            return self.params[node.name].unsqueeze(0)
        return lookup(node.op).evaluate(*(self.known(arg) for arg in node.args), **node.attrs)

    def floating(self, index: int) -> int:
        """The node in the network's floating type, where it holds constant whole numbers or truth values."""
        if self.kinds[index].is_floating_point or index in self.varying:
            return index
        return self.constant(self.known(index)[0].to(self.dtype))

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
        shape = np.broadcast_shapes(*(self.shape(arg) for arg in args))
        return self.add(op, *(self.aligned(arg, shape) for arg in args), **attrs)

    def model(self, outputs: Sequence[int], names: Sequence[str] = ()) -> Model:
        """The finished network: what the outputs need, in order, and all inputs; `names` of the outputs, if they have any."""
        graph = pruned(Graph(tuple(self.nodes), tuple(outputs), tuple(names), tuple(self.norms)))
        kept = {node.name for node in graph if node.op == PARAMETER}
        return Model(graph, {name: tensor for name, tensor in self.params.items() if name in kept})

    def _append(self, op: str, args: tuple[int, ...], attrs: dict[str, Any], shape: tuple[int, ...], name: str,
                kind: torch.dtype) -> int:
        unique = name
        while unique in self.counted:
            self.counted[name] = self.counted.get(name, 0) + 1
            unique = f"{name}{AGAIN}{self.counted[name]}"
        self.counted[unique] = 1
        self.nodes.append(Node(len(self.nodes), op, args, attrs, shape, unique, self.origin))
        self.kinds.append(kind)
        return len(self.nodes) - 1
