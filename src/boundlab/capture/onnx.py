"""ONNX protobuf to Graph: our own importer, which folds shape arithmetic while it loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boundlab.capture import onnx_arith, onnx_choice, onnx_layers, onnx_norms, onnx_sequence, onnx_shape, onnx_windows
from boundlab.capture.builder import Builder
from boundlab.capture.missing import Missing
from boundlab.capture.onnx_file import (
    OnnxFile,
    OnnxValue,
    array_of,
    onnx_reference,
    read_model,
    reference_of,
    type_name,
    with_outputs,
)
from boundlab.capture.onnx_fold import FOLDS, fold
from boundlab.capture.onnx_lowering import ONNX_CHOICES, ONNX_LOWERINGS, Known, OnnxLowering, OnnxNode, Value
from boundlab.errors import CaptureError, UnsupportedOperator
from boundlab.graph import Model
from boundlab.ops import Op, by_source

__all__ = ["OnnxFile", "OnnxValue", "load_onnx", "onnx_reference"]

THEMES = (onnx_arith, onnx_choice, onnx_layers, onnx_norms, onnx_sequence, onnx_shape, onnx_windows)
"""The modules whose import fills the table of rules."""
TYPES = {"float32": torch.float32, "float64": torch.float64}
STANDARD = ("", "ai.onnx")
Handle = Callable[[OnnxLowering, OnnxNode, Path, Mapping[str, Op]], None]
CHOOSES = ("ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Xor",
           "NonZero", "TopK", "OneHot", "Hardmax", "Unique", "IsNaN", "IsInf", "NonMaxSuppression", "If", "Loop", "Scan")
"""Operators whose results jump with the values of the input."""
COUNTING = ("ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Xor")
"""Operators that give whole numbers or truth values."""


def load_onnx(path: str | Path, *, also: Sequence[str] = ()) -> Model:
    """The network of an ONNX file (.onnx or .onnx.gz), its initializers as parameters under their own names.

    One problem is one run of the file at batch size 1, so a batch that the file bakes in does no harm. An input of ONNX
    shape (1 or unknown, *rest) takes (b, *rest) and any other input (b, *shape); outputs likewise. `onnx_reference` gives
    the shapes of the file itself and replays it in onnxruntime. `also` names values inside that become further outputs.
    UnsupportedOperator names the node that cannot be read, CaptureError a file that is none, or a node that is malformed.
    """
    return load(Path(path), run, also=also)


def survey_onnx(path: str | Path) -> tuple[Model, tuple[Missing, ...]]:
    """A file as a graph of what could be read, and every node that could not, those behind them included.

    For looking at, not for bounds: what reads a missing value is left out of the graph. CaptureError if the file itself
    cannot be read.
    """
    missing: list[Missing] = []

    def attempt(low: OnnxLowering, node: OnnxNode, path: Path, one_to_one: Mapping[str, Op]) -> None:
        origin = f"ONNX node '{node.name}' ({node.op})"
        blind = node.op not in ONNX_LOWERINGS and node.op not in FOLDS and f"onnx:{node.op}" not in one_to_one
        if any(name and name not in low.values for name in node.inputs):  # what it reads is missing: only its name is known
            if blind and node.op != "Constant":
                reason = f"{path}: node '{node.name}' ({node.op}) is not supported: no operator declares 'onnx:{node.op}'."
                missing.append(Missing(node.outputs[0], node.op, origin, reason, blind))
            return
        try:
            run(low, node, path, one_to_one)
        except (UnsupportedOperator, CaptureError) as problem:
            missing.append(Missing(low.builder.name, node.op, origin, str(problem), blind))

    return load(Path(path), attempt, partial=True), tuple(missing)


def load(where: Path, handle: Handle, partial: bool = False, also: Sequence[str] = ()) -> Model:
    """The network of a file, each node made by `handle`; `partial` keeps whatever was made if not all outputs were."""
    file = with_outputs(read_model(where), also, where)
    reference = reference_of(file, where)
    kinds = {value.dtype for value in reference.inputs}
    if len(kinds) != 1:
        raise CaptureError(f"{where} has inputs of types {sorted(kinds) or 'none'}; at least one input is needed, and "
                           "all of one floating type.")
    low = OnnxLowering(Builder(TYPES[kinds.pop()]), opset_of(file, where))
    for value in reference.inputs:
        low.builder.name, low.builder.origin = value.name, ""
        low.values[value.name] = low.close(low.builder.input(value.name, value.inner), value.shape)
    for tensor in file.graph.initializer:
        low.values[tensor.name] = array_of(tensor, where, tensor.name)
    if file.graph.sparse_initializer:
        raise UnsupportedOperator(f"{where} stores sparse initializers, which boundlab does not read; store them dense.")
    one_to_one = by_source()
    for proto in file.graph.node:
        handle(low, plain_node(proto, where), where, one_to_one)
    made = [value.name for value in reference.outputs if value.name in low.values]
    if partial and len(made) < len(reference.outputs):
        return low.builder.model(range(len(low.builder.nodes)))
    return low.builder.model([output_index(low, value.name, where) for value in reference.outputs])


def opset_of(file: Any, path: Path) -> int:
    """The version of ONNX's own operators that the file uses."""
    versions = [entry.version for entry in file.opset_import if entry.domain in STANDARD]
    if not versions:
        raise CaptureError(f"{path} names no version of ONNX's own operators, so their meaning is not known.")
    return int(versions[0])


def plain_node(proto: Any, path: Path) -> OnnxNode:
    """A protobuf node as our record; operators of other domains are called "domain.Name"."""
    name = proto.name or (proto.output[0] if proto.output else proto.op_type)
    attributes = {entry.name: plain_attribute(entry, path, name) for entry in proto.attribute}
    op = proto.op_type if proto.domain in STANDARD else f"{proto.domain}.{proto.op_type}"
    return OnnxNode(op, name, tuple(proto.input), tuple(proto.output), attributes)


def plain_attribute(entry: Any, path: Path, name: str) -> Any:
    """An attribute as numbers, text, lists of them, or an array."""
    kind = entry.AttributeType.Name(entry.type)
    if kind == "TENSOR":
        return array_of(entry.t, path, f"{name}.{entry.name}")
    if kind == "STRING":
        return entry.s.decode("utf-8", "replace")
    plain = {"FLOAT": entry.f, "INT": entry.i, "FLOATS": list(entry.floats), "INTS": list(entry.ints),
             "STRINGS": [part.decode("utf-8", "replace") for part in entry.strings]}
    return plain.get(kind, entry)


def run(low: OnnxLowering, node: OnnxNode, path: Path, one_to_one: Mapping[str, Op]) -> None:
    """One node of the file: its outputs become known arrays or graph values; errors name the file and the node."""
    place = f"{path}: node '{node.name}' ({node.op})"
    low.builder.name, low.builder.origin = (node.outputs or (node.name,))[0], f"ONNX node '{node.name}' ({node.op})"
    try:
        results = lower(low, node, one_to_one)
    except UnsupportedOperator as problem:
        raise UnsupportedOperator(f"{place} is not supported: {str(problem).rstrip('.')}.") from problem
    except CaptureError as problem:
        raise CaptureError(f"{place} cannot be read: {str(problem).rstrip('.')}.") from problem
    except (LookupError, ArithmeticError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError) as problem:
        raise CaptureError(f"{place} is malformed; its inputs are {shapes(low, node)} and reading it gave "
                           f"{type(problem).__name__}: {problem}.") from problem
    kept = counts(node, low.counting)
    low.values.update({name: replace(result, whole=kept) if isinstance(result, Value) else result
                       for name, result in zip(node.outputs, results, strict=False)})


def counts(node: OnnxNode, counting: bool) -> bool:
    """Whether the file has whole numbers or truth values where a node gives its results; most keep what they read."""
    if node.op in COUNTING:
        return True
    if node.op == "Cast":
        return "float" not in type_name(node.attributes["to"])
    return counting and node.op not in ("OneHot", "CastLike")


def shapes(low: OnnxLowering, node: OnnxNode) -> str:
    """The inputs of a node with their shapes, for a message."""
    known = ((name, low.values.get(name)) for name in node.inputs)
    return ", ".join(f"'{name}' {list(value.shape) if value is not None else '(unknown)'}" for name, value in known) or "none"


def lower(low: OnnxLowering, node: OnnxNode, one_to_one: Mapping[str, Op]) -> Sequence[Known]:
    """The results of a node: folded if all its inputs are known, else by the table, else by the operator that names it."""
    if node.op == "Constant":
        return [constant(node)]
    given = [low.given(node, position) for position in range(len(node.inputs))]
    if node.op in FOLDS and not any(isinstance(value, Value) for value in given):
        return [fold(node, given)]  # type: ignore[arg-type]
    low.counting = any(isinstance(value, Value) and value.whole for value in given)
    position, rule = ONNX_CHOICES.get(node.op, (0, None))
    if rule is not None and position < len(given) and low.varies(given[position]):
        return several(rule(low, node))
    if node.op in ONNX_LOWERINGS:
        return several(ONNX_LOWERINGS[node.op](low, node))
    source = f"onnx:{node.op}"
    if source in one_to_one:
        return [low.elementwise(one_to_one[source].name, *low.everything(node), **node.attributes)]
    if node.op in CHOOSES:
        raise UnsupportedOperator("it chooses by values that depend on the network input, so its result jumps; bounds are "
                                  "computed for networks without such choices")
    raise UnsupportedOperator(f"no operator declares the source '{source}'; register one (docs: add an operator)")


def several(found: Known | Sequence[Known]) -> Sequence[Known]:
    """The results of a node as a list."""
    return [found] if isinstance(found, (Value, np.ndarray)) else found


def constant(node: OnnxNode) -> np.ndarray:
    """The array of a Constant node."""
    for name, value in node.attributes.items():
        if name in ("value_float", "value_floats", "value_int", "value_ints"):
            return np.asarray(value, np.float32 if "float" in name else np.int64)
        if name == "value":
            return np.asarray(value)
    raise UnsupportedOperator(f"a constant of kind {sorted(node.attributes)}; numbers and dense tensors are supported")


def output_index(low: OnnxLowering, name: str, path: Path) -> int:
    """The graph node of an output; one without axes gets one."""
    if name not in low.values:
        raise CaptureError(f"{path}: no node computes the output '{name}'.")
    found = low.values[name]
    low.builder.name = name
    try:
        value = found if isinstance(found, Value) else low.held(name, found)
    except (UnsupportedOperator, CaptureError) as problem:
        raise type(problem)(f"{path}: the output '{name}' cannot be read: {problem}.") from problem
    return low.reshaped(value.index, low.builder.shape(value.index) or (1,))
