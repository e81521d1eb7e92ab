"""Small ONNX networks as bytes, and queries about them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

KINDS = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float64): TensorProto.DOUBLE}


def model(nodes: Sequence[onnx.NodeProto], shape: Sequence[int], constants: dict[str, np.ndarray], output: str = "y",
          opset: int = 13, dtype: type = np.float32) -> bytes:
    """A model with one input x of a shape."""
    kind = KINDS[np.dtype(dtype)]
    inputs = [helper.make_tensor_value_info("x", kind, list(shape))]
    outputs = [helper.make_tensor_value_info(output, kind, None)]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9).SerializeToString()


def perceptron(widths: Sequence[int], seed: int = 0, function: str = "Relu", scale: float = 1.0) -> bytes:
    """Dense layers with a function between them."""
    rng, nodes, constants, last = np.random.default_rng(seed), [], {}, "x"
    for k, (inner, outer) in enumerate(itertools.pairwise(widths)):
        constants[f"w{k}"] = (scale * rng.normal(size=(inner, outer)) / np.sqrt(inner)).astype(np.float32)
        constants[f"b{k}"] = (0.3 * rng.normal(size=outer)).astype(np.float32)
        final = k == len(widths) - 2
        nodes.append(helper.make_node("Gemm", [last, f"w{k}", f"b{k}"], ["y" if final else f"a{k}"]))
        if not final:
            nodes.append(helper.make_node(function, [f"a{k}"], [f"h{k}"]))
        last = f"h{k}"
    return model(nodes, (1, widths[0]), constants)


def query_text(lower: Sequence[float], upper: Sequence[float], outputs: int, unsafe: str) -> str:
    """A VNN-LIB text."""
    lines = [f"(declare-const X_{i} Real)" for i in range(len(lower))] + [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    lines += [f"(assert (>= X_{i} {low!r}))\n(assert (<= X_{i} {high!r}))"
              for i, (low, high) in enumerate(zip(map(float, lower), map(float, upper), strict=True))]
    return "\n".join([*lines, f"(assert {unsafe})"]) + "\n"


FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Relu": lambda x: np.maximum(x, 0), "Abs": np.abs, "Sign": np.sign, "Floor": np.floor, "Tanh": np.tanh, "Exp": np.exp,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)), "Sin": np.sin, "Cos": np.cos, "Softplus": lambda x: np.logaddexp(0, x),
    "LeakyRelu": lambda x: np.where(x > 0, x, float(np.float32(0.01)) * x),
}


def layers(content: bytes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights (in, out) and biases of a perceptron, in float64."""
    stored = {one.name: numpy_helper.to_array(one).astype(np.float64)
              for one in onnx.ModelProto.FromString(content).graph.initializer}
    return [(stored[f"w{k}"], stored[f"b{k}"]) for k in range(len(stored) // 2)]


def inner_values(content: bytes, function: str, x: np.ndarray) -> dict[str, np.ndarray]:
    """What a perceptron's tensors are at points (N, d), (N, size) by name: x, a0, h0, a1, ..., y."""
    found, value = {"x": x}, x
    for k, (weight, bias) in enumerate(layers(content)):
        found[f"a{k}"] = value @ weight + bias
        found[f"h{k}"] = value = FUNCTIONS[function](found[f"a{k}"])
    return found | {"y": found[f"a{len(layers(content)) - 1}"]}
