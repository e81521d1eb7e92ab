"""ONNX files: reading them, what they declare, and replaying them in onnxruntime."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from boundlab.capture.builder import MOST_NUMBERS
from boundlab.errors import CaptureError, MissingPackage, ShapeError

FLOATS = ("float32", "float64")


@dataclass(frozen=True)
class OnnxValue:
    """An input or output as the file declares it: `shape` is that of one example, with an unknown leading axis as 1."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def inner(self) -> tuple[int, ...]:
        """The shape that boundlab gives one problem: a leading axis of size 1 is the batch and is left out."""
        return inner_shape(self.shape)


@dataclass(frozen=True)
class OnnxFile:
    """A file as its own reference: what it declares, and what onnxruntime computes from it.

    `content` is the unpacked protobuf. Flat orders (VNN-LIB's X_0, X_1, ...) are row-major in `shape`, and so in `inner`.
    """

    path: Path
    inputs: tuple[OnnxValue, ...]
    outputs: tuple[OnnxValue, ...]
    content: bytes = field(repr=False)

    def replay_all(self, inputs: np.ndarray | Mapping[str, np.ndarray], session: Any = None) -> dict[str, np.ndarray]:
        """Every output (b, *inner) of onnxruntime for inputs (b, *inner), one example at a time (the batch may be baked in).

        `session` is one that `session()` has given, or None for a new one. CaptureError if onnxruntime does not take the file.
        """
        fed = {self.inputs[0].name: inputs} if isinstance(inputs, np.ndarray) else dict(inputs)
        unknown = set(fed) ^ {value.name for value in self.inputs}
        if unknown:
            raise ShapeError(f"{self.path}: inputs {sorted(unknown)} are missing or unknown; the file has "
                             f"{[value.name for value in self.inputs]}.")
        batch = next(iter(fed.values())).shape[0]
        for value in self.inputs:
            if fed[value.name].shape != (batch, *value.inner):
                raise ShapeError(f"{self.path}: input '{value.name}' takes ({batch}, {', '.join(map(str, value.inner))}), "
                                 f"got {fed[value.name].shape}.")
        session = session or self.session()
        with self.refused():
            runs = [session.run(None, {value.name: fed[value.name][i].reshape(value.shape).astype(value.dtype)
                                       for value in self.inputs}) for i in range(batch)]
        return {value.name: np.stack([np.reshape(run[place], inner_shape(np.shape(run[place]))) for run in runs])
                for place, value in enumerate(self.outputs)}

    def replay(self, inputs: np.ndarray | Mapping[str, np.ndarray], session: Any = None) -> np.ndarray:
        """The only output (b, *inner) of onnxruntime for inputs (b, *inner)."""
        if len(self.outputs) != 1:
            raise ShapeError(f"{self.path} has {len(self.outputs)} outputs; use replay_all.")
        return self.replay_all(inputs, session)[self.outputs[0].name]

    def session(self) -> Any:
        """A new onnxruntime session on one thread of the processor; CaptureError if onnxruntime does not take the file."""
        try:
            import onnxruntime
        except ImportError as problem:
            raise MissingPackage("replaying an ONNX file needs 'onnxruntime', which is not installed; "
                                 "pip install boundlab[onnx].") from problem
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        with self.refused():
            return onnxruntime.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])

    @contextmanager
    def refused(self) -> Iterator[None]:
        """Whatever onnxruntime raises as a CaptureError; it has many kinds of errors, and no common class for them."""
        try:
            yield
        except Exception as problem:
            raise CaptureError(f"{self.path}: onnxruntime, which recomputes counterexamples, does not run the file: "
                               f"{problem}.") from problem


def inner_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """A file's shape without a leading batch axis of 1; a value of one axis or none keeps one."""
    return tuple(shape[1:]) if len(shape) > 1 and shape[0] == 1 else tuple(shape) or (1,)


def onnx_reference(path: str | Path, *, also: Sequence[str] = ()) -> OnnxFile:
    """The declared inputs and outputs of an ONNX file (.onnx or .onnx.gz), and a way to run it in onnxruntime.

    `also` names values inside that become further outputs.
    """
    model = with_outputs(read_model(Path(path)), also, Path(path))
    return reference_of(model, Path(path))


def with_outputs(model: Any, names: Sequence[str], path: Path) -> Any:
    """A file that has been read, with values inside as further outputs; CaptureError for one that no node computes."""
    computed = [name for node in model.graph.node for name in node.output]
    for name in names:
        if name not in computed or name in [value.name for value in model.graph.output]:
            said = "is an output already" if name in computed else "is computed by no node"
            raise CaptureError(f"{path}: the value '{name}' {said}; values inside have the names of nodes' outputs.")
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    return model


def reference_of(model: Any, path: Path) -> OnnxFile:
    """The record of a file that has been read."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(declared(value, path) for value in model.graph.input if value.name not in constants)
    outputs = tuple(declared(value, path, output=True) for value in model.graph.output)
    return OnnxFile(path, inputs, outputs, model.SerializeToString())


def declared(value: Any, path: Path, output: bool = False) -> OnnxValue:
    """One input or output; CaptureError for an input whose type or size is not fixed, but for the leading axis."""
    tensor = value.type.tensor_type
    dtype = type_name(tensor.elem_type)
    sizes = [axis.dim_value for axis in tensor.shape.dim]
    if sizes and sizes[0] == 0:
        sizes[0] = 1
    if not output:
        if dtype not in FLOATS:
            raise CaptureError(f"{path}: input '{value.name}' has type {dtype}; boundlab bounds functions of float32 or "
                               "float64 inputs. Convert the file, or feed the result of its integer part.")
        if math.prod(sizes) > MOST_NUMBERS:
            raise CaptureError(f"{path}: input '{value.name}' has {math.prod(sizes)} numbers, which is more than boundlab "
                               f"takes, {MOST_NUMBERS}.")
        if not tensor.HasField("shape") or not all(size > 0 for size in sizes):
            names = [axis.dim_param or axis.dim_value or "?" for axis in tensor.shape.dim]
            raise CaptureError(f"{path}: input '{value.name}' has the shape {names}, where only the first axis may be unknown; "
                               "write the sizes into the file.")
    return OnnxValue(value.name, tuple(sizes), dtype)


def type_name(code: int) -> str:
    """The numpy name of an ONNX element type."""
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(code))
    except KeyError:
        return "unknown"


def read_model(path: Path) -> Any:
    """The parsed protobuf, with external weights read in; CaptureError for what is missing, damaged or not ONNX."""
    content = read_bytes(path)
    if content.startswith(b"version https://git-lfs"):
        raise CaptureError(f"{path} is only a Git LFS pointer to a network; fetch the file itself with `git lfs pull`.")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as problem:  # protobuf raises different kinds in its different implementations
        raise CaptureError(f"{path} is not an ONNX file, or is damaged or cut short: {problem}.") from problem
    if not model.graph.output or not model.opset_import:
        raise CaptureError(f"{path} is not an ONNX file: it declares no {'output' if model.opset_import else 'operator set'}.")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as problem:
        raise CaptureError(f"{path} keeps weights in other files that cannot be read: {problem}.") from problem
    return model


def read_bytes(path: Path) -> bytes:
    """The file's bytes, unpacked if it is gzipped."""
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise CaptureError(f"cannot read the ONNX file {path}: {problem.strerror or problem}.") from problem
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as problem:
        raise CaptureError(f"{path} is a damaged or cut gzip file: {problem}.") from problem


def array_of(tensor: Any, path: Path, name: str) -> np.ndarray:
    """A protobuf tensor as a numpy array of its own."""
    try:
        return np.array(onnx.numpy_helper.to_array(tensor))
    except Exception as problem:  # unknown types, and raw data of the wrong length
        raise CaptureError(f"{path}: the tensor '{name}' cannot be read: {problem}.") from problem
