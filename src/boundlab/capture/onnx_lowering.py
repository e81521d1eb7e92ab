"""What a rule needs while one ONNX node becomes graph nodes: values, their two shapes, and constants.

Every problem of a batch is one run of the file at batch size 1, so an ONNX shape (1, ...) is known at load time, whatever
the file bakes in. A value of ONNX shape (1, *rest) has the shape `rest` in our graph, where the batch stands outside;
a value whose first axis is not 1 keeps its whole shape. Both broadcast alike, since shapes align at the last axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from boundlab.capture.builder import Builder
from boundlab.capture.onnx_file import FLOATS
from boundlab.errors import CaptureError, UnsupportedOperator

Shape = tuple[int, ...]


@dataclass(frozen=True)
class OnnxNode:
    """One node of the file, free of protobuf; `name` is its own name or that of its first output."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Value:
    """A value that our graph computes: its node, and its ONNX `shape` at batch size 1.

    `whole` says that the file has whole numbers or truth values there, which our graph holds in its floating type.
    """

    index: int
    shape: Shape
    whole: bool = False


Known = Value | np.ndarray
Rule = Callable[["OnnxLowering", OnnxNode], "Known | Sequence[Known]"]
ONNX_LOWERINGS: dict[str, Rule] = {}
ONNX_CHOICES: dict[str, tuple[int, Rule]] = {}
"""Rules for operators whose argument at a position (of places, say) may vary; with a constant one they are ordinary."""


def chooses(operator: str, position: int) -> Callable[[Rule], Rule]:
    """Enter a rule for an operator where its argument at `position` varies."""

    def enter(rule: Rule) -> Rule:
        ONNX_CHOICES[operator] = (position, rule)
        return rule

    return enter


def lowers(*operators: str) -> Callable[[Rule], Rule]:
    """Enter a rule into the table under ONNX operator names."""

    def enter(rule: Rule) -> Rule:
        ONNX_LOWERINGS.update(dict.fromkeys(operators, rule))
        return rule

    return enter


def stripped(shape: Sequence[int]) -> Shape:
    """Our shape of an ONNX shape: without a leading axis of 1, unless it is the only one."""
    return tuple(shape[1:]) if len(shape) > 1 and shape[0] == 1 else tuple(shape)


class OnnxLowering:
    """The graph so far, and what every value of the file is: a known array, or a node."""

    def __init__(self, builder: Builder, opset: int) -> None:
        self.builder, self.opset = builder, opset
        self.values: dict[str, Known] = {}
        self.wholes: dict[int, int] = {}
        self.parameters: dict[str, int] = {}
        self.counting = False

    # -- reading a node's inputs -----------------------------------------------------------------------------------------

    def given(self, node: OnnxNode, position: int) -> Known | None:
        """The input at `position`, or None if it is left out."""
        name = node.inputs[position] if position < len(node.inputs) else ""
        if not name:
            return None
        if name not in self.values:
            raise CaptureError(f"it reads '{name}', which no earlier node, input or initializer provides")
        return self.values[name]

    def array(self, node: OnnxNode, position: int, what: str) -> np.ndarray:
        """The input at `position` where it must be known at load time."""
        value = self.given(node, position)
        if isinstance(value, Value) and not self.varies(value):
            return self.builder.known(self.whole(value))[0].detach().numpy()
        if not isinstance(value, np.ndarray):
            found = "is missing" if value is None else "depends on the network input"
            raise UnsupportedOperator(f"its {what} must be constant, and {found}")
        return value

    def setting(self, node: OnnxNode, position: int, name: str, default: Any = None) -> Any:
        """A setting that older operator sets hold in attribute `name` and newer ones in the input at `position`."""
        if name in node.attributes:
            return node.attributes[name]
        return default if self.given(node, position) is None else self.array(node, position, f"'{name}'").tolist()

    def value(self, node: OnnxNode, position: int = 0) -> Value:
        """The input at `position` as a graph value; a known array becomes a parameter."""
        found = self.given(node, position)
        if found is None:
            raise CaptureError(f"it lacks input number {position}")
        return found if isinstance(found, Value) else self.held(node.inputs[position], found)

    def everything(self, node: OnnxNode) -> list[Value]:
        """All inputs as graph values."""
        return [self.value(node, position) for position in range(len(node.inputs))]

    def varies(self, value: Known | None) -> bool:
        """Whether a value depends on the network's input."""
        return isinstance(value, Value) and value.index in self.builder.varying

    # -- constants -------------------------------------------------------------------------------------------------------

    def held(self, name: str, array: np.ndarray) -> Value:
        """A known array as a graph value."""
        return self.close(self.parameter(name, array), array.shape)

    def parameter(self, name: str, array: np.ndarray) -> int:
        """The parameter node of a known array, in its whole shape and under its own name."""
        if name in self.parameters:
            return self.parameters[name]
        tensor = self.checked(name, array)
        self.parameters[name] = self.builder.parameter(name, tensor)
        return self.parameters[name]

    def checked(self, name: str, array: np.ndarray) -> torch.Tensor:
        """The array as a tensor; an error unless it is finite and of the network's floating type."""
        wanted = str(self.builder.dtype).removeprefix("torch.")
        if self.counting and array.dtype.kind in "iub" and np.array_equal(array.astype(wanted).astype(array.dtype), array):
            array = array.astype(wanted)
        if str(array.dtype) != wanted:
            reason = "mixes floating types" if str(array.dtype) in FLOATS else "is not a float32 or float64 network there"
            raise UnsupportedOperator(f"the constant '{name}' has type {array.dtype} where the network's inputs have {wanted}; "
                                      f"the file {reason}")
        if not np.isfinite(array).all():
            kind = "NaN" if np.isnan(array).any() else "infinity"
            raise CaptureError(f"the constant '{name}' contains {kind}; no bound of such a network means anything")
        return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape).copy())

    def literal(self, array: np.ndarray | float) -> Value:
        """A number or array that a rule made up, as a graph value."""
        kind = str(self.builder.dtype).removeprefix("torch.")
        tensor = torch.from_numpy(np.array(array, dtype=kind))
        return self.close(self.builder.constant(tensor), tuple(tensor.shape))

    # -- shapes ----------------------------------------------------------------------------------------------------------

    def close(self, index: int, shape: Sequence[int]) -> Value:
        """A node with as many entries as ONNX `shape`, as the value of that shape."""
        value = Value(self.reshaped(index, stripped(shape)), tuple(shape))
        if value.index != index and self.builder.shape(index) == value.shape:
            self.wholes[value.index] = index
        return value

    def reshaped(self, index: int, shape: Shape) -> int:
        """The node in another shape."""
        return index if self.builder.shape(index) == shape else self.builder.add("reshape", index, shape=shape)

    def whole(self, value: Value) -> int:
        """A node of the value's whole ONNX shape."""
        if value.index not in self.wholes:
            self.wholes[value.index] = self.reshaped(value.index, value.shape)
        return self.wholes[value.index]

    def open(self, value: Value, axes: Sequence[int]) -> tuple[int, int]:
        """A node to work on along ONNX `axes`, and how many leading ONNX axes it leaves out (0 or 1)."""
        left_out = len(value.shape) - len(stripped(value.shape))
        if left_out and 0 in axes:
            return self.whole(value), 0
        return value.index, left_out

    def closed(self, index: int, left_out: int) -> Value:
        """The value of a node that leaves out `left_out` leading ONNX axes of size 1."""
        return self.close(index, (1,) * left_out + self.builder.shape(index))

    def axis(self, value: Value, axis: int, extra: int = 0) -> int:
        """An ONNX axis counted from the front; CaptureError if there is none such."""
        rank = len(value.shape) + extra
        if not -rank <= axis < max(rank, 1):
            raise CaptureError(f"axis {axis} does not exist in shape {list(value.shape)}")
        return axis % rank if rank else 0

    # -- building --------------------------------------------------------------------------------------------------------

    def elementwise(self, op: str, *values: Value, **attributes: Any) -> Value:
        """An elementwise operator on values that broadcast against each other."""
        shape = np.broadcast_shapes(*(value.shape for value in values))
        aligned = [self.builder.aligned(value.index, stripped(shape)) for value in values]
        return self.close(self.builder.add(op, *aligned, **attributes), shape)

    def moved(self, value: Value, index: np.ndarray) -> Value:
        """The entries of a value at flat positions `index`, whose shape is the ONNX shape of the result."""
        flat = torch.from_numpy(np.ascontiguousarray(index, dtype=np.int64).reshape(-1))
        return self.close(self.builder.add("gather", value.index, index=flat, shape=stripped(index.shape)), index.shape)

    def positions(self, value: Value) -> np.ndarray:
        """The flat position of every entry, in the ONNX shape: what rules rearrange to get the index of a `moved`."""
        return np.arange(math.prod(value.shape)).reshape(value.shape)
