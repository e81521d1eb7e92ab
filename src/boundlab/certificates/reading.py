"""ONNX to `Network`: an importer of its own, which shares nothing with the library's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from boundlab.certificates.attention import ATTENTION, compared
from boundlab.certificates.builder import Builder, Operator, Value, Varying, evaluate, moved
from boundlab.certificates.elementary import FUNCTIONS
from boundlab.certificates.linear import LINEAR, Rule
from boundlab.certificates.network import Input, Network, Nonlinear, Step, arguments_of
from boundlab.certificates.resizing import RESIZED
from boundlab.certificates.windows import WINDOWED
from boundlab.errors import CertificateError

MOVES: dict[str, tuple[int, ...] | None] = {
    **{name: (0,) for name in (
        "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Gather", "GatherElements", "GatherND", "Slice",
        "Split", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "ReverseSequence")},
    "Concat": None, "Pad": (0, 2), "Where": (1, 2), "ScatterND": (0, 2), "ScatterElements": (0, 2),
}
"""Operators that only move entries: the inputs whose entries they move; None for all inputs."""
ORDERED = ("Softmax", "LogSoftmax")
"""Operators that keep the order of what they compare, which is all that is used of them at the end of a network."""
RULES: dict[str, Rule] = {**LINEAR, **WINDOWED, **FUNCTIONS, **RESIZED, **ATTENTION}
DOMAINS = ("", "ai.onnx")
"""What ONNX calls its own operators."""
OTHER_FLOATS = {kind for name, kind in onnx.TensorProto.DataType.items()
                if ("FLOAT" in name and name != "FLOAT") or "DOUBLE" in name or "COMPLEX" in name}
"""Types of numbers with a fraction, but float32."""
FLOATS = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.DOUBLE: np.float64}


def read_network(content: bytes) -> Network:
    """The network that the bytes of an ONNX file state; CertificateError for what the checker cannot read."""
    graph, opsets = parsed(content)
    values: dict[str, Value] = {tensor.name: constant(tensor) for tensor in graph.initializer}
    builder = Builder(opsets)
    dtype = declare_inputs(graph, builder, values)
    ordered = [node for node in graph.node if node.op_type in ORDERED and node.domain in DOMAINS
               and node.output[0] == graph.output[0].name]
    for node in graph.node:
        if node in ordered:
            continue
        found = apply(builder, operator_of(node, values))
        for name, value in zip(node.output, found, strict=False):
            values[name] = value
    if len(graph.output) != 1:
        raise CertificateError(f"the network has {len(graph.output)} outputs; the checker takes networks with one.")
    output = values.get(ordered[0].input[0] if ordered else graph.output[0].name)
    if not isinstance(output, Varying):
        raise CertificateError("the network's output does not depend on its inputs.")
    groups = compared(operator_of(ordered[0], values), opsets.get("", opsets.get("ai.onnx", 1))) if ordered else None
    return pruned(Network(tuple(builder.steps), output.step, dtype, groups, uncovered(graph)))


def uncovered(graph: onnx.GraphProto) -> str:
    """Why nothing is known of the network as it runs in float32; empty if nothing stands against it."""
    kinds = {tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        kinds |= {value.data_type for value in attributes.values() if isinstance(value, onnx.TensorProto)}
        if node.op_type == "Cast":
            kinds.add(attributes["to"])
        if node.op_type in ORDERED:
            return f"it has a {node.op_type} ('{node.output[0]}'), which runtimes compute in several ways"
        if node.op_type in ("Resize", "Upsample") and attributes.get("mode", b"nearest") != b"nearest":
            return f"it interpolates ('{node.output[0]}') at places that are themselves rounded"
    if kinds & OTHER_FLOATS:
        return "it has tensors of another floating-point type than float32"
    return ""


def pruned(network: Network) -> Network:
    """The network without steps that the output does not depend on; inputs stay."""
    used = {network.output}
    for place in range(len(network.steps) - 1, -1, -1):
        if place in used:
            used |= set(arguments_of(network.steps[place]))
    kept = [place for place, step in enumerate(network.steps) if place in used or isinstance(step, Input)]
    number = {place: k for k, place in enumerate(kept)}
    steps = [network.steps[place] for place in kept]
    return replace(network, steps=tuple(renumbered(step, number) for step in steps), output=number[network.output])


def renumbered(step: Step, number: Mapping[int, int]) -> Step:
    """A step that reads the same steps under their new numbers."""
    if isinstance(step, Input):
        return step
    arguments = tuple(number[one] for one in step.arguments)
    if isinstance(step, Nonlinear) and step.asks is not None:
        return replace(step, arguments=arguments, asks=tuple(number[one] for one in step.asks))
    return replace(step, arguments=arguments)


def parsed(content: bytes) -> tuple[onnx.GraphProto, dict[str, int]]:
    """The graph and the operator sets of a file whose weights are all in it."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as problem:  # protobuf raises different kinds in its different implementations
        raise CertificateError(f"the network is not an ONNX file, or is damaged: {problem}.") from problem
    if not model.graph.output or not model.opset_import:
        raise CertificateError("the network is not an ONNX file: it declares no output or no operator set.")
    if model.functions or model.graph.sparse_initializer:
        raise CertificateError("the network has local functions or sparse weights, which the checker does not read.")
    return model.graph, {one.domain: one.version for one in model.opset_import}


def constant(tensor: onnx.TensorProto) -> np.ndarray:
    """A tensor of the file; floats have to be finite."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise CertificateError(f"the network keeps '{tensor.name}' in another file, which its hash would not cover.")
    try:
        array = np.array(numpy_helper.to_array(tensor))
    except Exception as problem:  # unknown types, and raw data of the wrong length
        raise CertificateError(f"the tensor '{tensor.name}' of the network cannot be read: {problem}.") from problem
    return array


def declare_inputs(graph: onnx.GraphProto, builder: Builder, values: dict[str, Value]) -> type[Any]:
    """Steps for the inputs; their common type."""
    start, kinds = 0, set()
    for declared in graph.input:
        if declared.name in values:
            continue
        tensor = declared.type.tensor_type
        sizes = [axis.dim_value for axis in tensor.shape.dim]
        shape = tuple([sizes[0] or 1, *sizes[1:]] if sizes else [])
        if tensor.elem_type not in FLOATS or not all(size > 0 for size in shape):
            raise CertificateError(f"input '{declared.name}' is not of type float32 or float64, or of no fixed size.")
        kinds.add(FLOATS[tensor.elem_type])
        size = math.prod(shape)
        values[declared.name] = builder.add(Input(declared.name, size, start), shape)
        start += size
    if len(kinds) != 1:
        raise CertificateError("the network has no input, or inputs of different types.")
    return kinds.pop()


def operator_of(node: onnx.NodeProto, values: dict[str, Value]) -> Operator:
    """A node with the values of its inputs."""
    missing = [name for name in node.input if name and name not in values]
    if missing:
        raise CertificateError(f"node '{node.output[0]}' of the network reads '{missing[0]}', which nothing computes.")
    attributes = {one.name: plain(onnx.helper.get_attribute_value(one)) for one in node.attribute}
    return Operator(node, tuple(values[name] if name else None for name in node.input), attributes)


def plain(attribute: Any) -> Any:
    """An attribute's value, text decoded."""
    return attribute.decode() if isinstance(attribute, bytes) else attribute


def apply(builder: Builder, operator: Operator) -> Sequence[Value]:
    """The values of a node's outputs."""
    kind = operator.proto.op_type
    if operator.proto.domain not in DOMAINS:
        operator.refuse(f"of the domain '{operator.proto.domain}'")
    if kind in ("Shape", "Size") and isinstance(operator.inputs[0], Varying):
        return evaluate(operator, [np.zeros(operator.inputs[0].shape, dtype=np.float32)], builder.opsets)
    if kind.startswith("Random") or kind in ("Bernoulli", "Multinomial"):
        operator.refuse("that draws random numbers")
    fixed = [value for value in operator.inputs if not isinstance(value, Varying)]
    if len(fixed) == len(operator.inputs):
        return evaluate(operator, fixed, builder.opsets)
    if kind == "Dropout" and len(operator.inputs) > 2 and operator.inputs[2] is not None and operator.needed(2).any():
        operator.refuse("in training mode")
    if kind == "Pad" and operator.attributes.get("value", 0):
        operator.refuse("with a value other than 0 as an attribute")
    if kind == "Dropout" or (kind == "Cast" and operator.attributes["to"] in FLOATS):
        return [operator.varying(0)]
    if operator.attributes.get("reduction", "none") != "none" and kind.startswith("Scatter"):
        operator.refuse(f"with the reduction '{operator.attributes['reduction']}'")
    if kind in MOVES:
        places = MOVES[kind]
        return moved(builder, operator, tuple(range(len(operator.inputs))) if places is None else places)
    if kind not in RULES:
        operator.refuse("of tensors that depend on the network's inputs")
    if "broadcast" in operator.attributes:
        operator.refuse("with the broadcasting of operator sets before 7")
    with np.errstate(all="ignore"):
        return [RULES[kind](builder, operator)]
