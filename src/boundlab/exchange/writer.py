"""Building an ONNX graph: constants and nodes under names that no two of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch import Tensor

from boundlab.errors import CaptureError
from boundlab.graph import Graph, Node

Floats = type[np.float32] | type[np.float64]
"""The type of the file's numbers."""


@dataclass
class Writer:
    """The nodes and constants so far of one graph, whose nodes keep their names, for a batch of one.

    `values` (1, *shape) are those of the nodes that no input reaches, by index.
    """

    graph: Graph
    values: Mapping[int, Tensor]
    dtype: Floats
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.taken |= {node.name for node in self.graph}
        if len(self.taken) < len(self.graph.nodes):
            raise CaptureError("two nodes of the network have the same name, which an ONNX file cannot have.")

    def varies(self, index: int) -> bool:
        """Whether inputs reach a node."""
        return index not in self.values

    def number(self, index: int) -> np.ndarray:
        """The value of a node that no input reaches, (1, *shape)."""
        found = self.values[index].detach().cpu().numpy()
        return found.astype(self.dtype) if np.issubdtype(found.dtype, np.floating) else found

    def argument(self, index: int) -> str:
        """The name of a node's value; constants are written down when they are first read."""
        name = self.graph[index].name
        if not self.varies(index) and name not in self.constants:
            self.constants[name] = self.number(index)
        return name

    def arguments(self, node: Node) -> list[str]:
        """The names of all that a node reads."""
        return [self.argument(index) for index in node.args]

    def fresh(self, name: str) -> str:
        """A name like this one that nothing has."""
        found, count = name, 0
        while found in self.taken:
            count += 1
            found = f"{name}.{count}"
        self.taken.add(found)
        return found

    def constant(self, name: str, value: np.ndarray | Sequence[int]) -> str:
        """A tensor of the file; lists become whole numbers, floats take the file's type."""
        array = np.asarray(value, dtype=None if isinstance(value, np.ndarray) else np.int64)
        found = self.fresh(name)
        self.constants[found] = array.astype(self.dtype) if np.issubdtype(array.dtype, np.floating) else array
        return found

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """A node with one output."""
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def inner(self, operator: str, inputs: Sequence[str], node: Node, **attributes: Any) -> str:
        """A node for a step on the way to what `node` computes."""
        return self.add(operator, inputs, self.fresh(f"{node.name}:{operator.lower()}"), **attributes)

    def tensors(self) -> list[onnx.TensorProto]:
        """The constants that something reads."""
        read = {name for node in self.nodes for name in node.input}
        return [numpy_helper.from_array(np.array(value, order="C"), name) for name, value in self.constants.items()
                if name in read]
