"""A captured network as an ONNX file that any other tool reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from boundlab.errors import ShapeError
from boundlab.evaluate import source_value
from boundlab.exchange.operators import OPSET, write
from boundlab.exchange.writer import Floats, Writer
from boundlab.graph import INPUT, PARAMETER, Model, check_model
from boundlab.ops import lookup

KINDS: Mapping[torch.dtype, tuple[Floats, int]] = {
    torch.float32: (np.float32, TensorProto.FLOAT), torch.float64: (np.float64, TensorProto.DOUBLE)}
"""The types of numbers that a file may have, as numpy and ONNX name them."""
FORMAT = 9
"""The version of the file format."""


def onnx_of(model: Model, dtype: torch.dtype | None = None) -> bytes:
    """The bytes of an ONNX file that computes the network for a batch of one; its nodes keep their names.

    `dtype` is float32 or float64 (default: the model's own). What no input reaches is computed and written down. Inputs and
    outputs have a leading axis of 1. UnsupportedOperator for an operator that ONNX has no counterpart of.
    """
    check_model(model)
    kind = dtype or model.dtype
    if kind not in KINDS:
        raise ShapeError(f"an ONNX file gets numbers of type float32 or float64, not {kind}; convert the model first.")
    model = model.detached().to(kind)
    number, code = KINDS[kind]
    writer = Writer(model.graph, constants_of(model), number)
    for node in model.graph:
        if writer.varies(node.index) and not node.source:
            write(writer, node)
    return serialized(writer, code)


def save_onnx(model: Model, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write a network as an ONNX file that computes it for a batch of one; nodes keep their names.

    `dtype` is float32 or float64 (default: the model's own). Inputs and outputs have a leading axis of 1. ShapeError for
    another type, UnsupportedOperator for an operator that ONNX has no counterpart of, OSError if it cannot be written.
    """
    Path(path).write_bytes(onnx_of(model, dtype))


def constants_of(model: Model) -> dict[int, Tensor]:
    """The values (1, *shape) of all nodes that no input reaches, by index."""
    values: dict[int, Tensor] = {}
    for node in model.graph:
        if node.op == PARAMETER:
            values[node.index] = source_value(model, node, {})
        elif node.op != INPUT and all(arg in values for arg in node.args):
            values[node.index] = lookup(node.op).evaluate(*(values[arg] for arg in node.args), **node.attrs)
    return values


def serialized(writer: Writer, code: int) -> bytes:
    """The file's bytes: outputs that are inputs or constants get a node of their own."""
    graph, outputs = writer.graph, []
    for index in graph.outputs:
        node = graph[index]
        name = node.name
        if node.source or not writer.varies(index):
            name = writer.inner("Identity", [writer.argument(index)], node)
        outputs.append(helper.make_tensor_value_info(name, code, [1, *node.shape]))
    inputs = [helper.make_tensor_value_info(node.name, code, [1, *node.shape]) for node in graph.inputs]
    made = helper.make_graph(writer.nodes, "boundlab", inputs, outputs, writer.tensors())
    found = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=FORMAT, producer_name="boundlab")
    onnx.checker.check_model(found)
    return bytes(found.SerializeToString())
