"""What each operator of a graph is in ONNX: a table of rules, one an operator.

A node that is one operator of ONNX keeps its name there, so slopes and splits of it can be found again in the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from boundlab.errors import UnsupportedOperator
from boundlab.exchange.writer import Writer
from boundlab.graph import Node

Rule = Callable[[Writer, Node], str]
OPSET = 20
"""The first operator set with Gelu, which is also the newest that the rules were tried with."""


def write(writer: Writer, node: Node) -> None:
    """One node; UnsupportedOperator if it is none that the table has."""
    if node.op not in RULES:
        known = ", ".join(sorted(RULES))
        raise UnsupportedOperator(f"{node.describe()} cannot be written as ONNX; operators that can: {known}.")
    RULES[node.op](writer, node)


def refuse(node: Node, why: str) -> UnsupportedOperator:
    """An error that names a node which ONNX has no operator for."""
    return UnsupportedOperator(f"{node.describe()} cannot be written as ONNX {why}.")


def same(operator: str) -> Rule:
    """An operator that ONNX has, without attributes."""
    return lambda writer, node: writer.add(operator, writer.arguments(node), node.name)


def along(operator: str) -> Rule:
    """An operator along the axis `dim`."""
    return lambda writer, node: writer.add(operator, writer.arguments(node), node.name, axis=node.attrs["dim"] + 1)


def reduced(operator: str) -> Rule:
    """A reduction over axes, which ONNX takes as an input."""
    def rule(writer: Writer, node: Node) -> str:
        dims = node.attrs["dims"] if "dims" in node.attrs else (node.attrs["dim"],)
        axes = writer.constant(f"{node.name}:axes", [dim + 1 for dim in dims])
        return writer.add(operator, [*writer.arguments(node), axes], node.name, keepdims=int(node.attrs.get("keepdim", False)))
    return rule


def shaped(operator: str) -> Rule:
    """An operator that takes the shape of its result as an input."""
    def rule(writer: Writer, node: Node) -> str:
        shape = writer.constant(f"{node.name}:shape", [1, *node.shape])
        return writer.add(operator, [*writer.arguments(node), shape], node.name)
    return rule


def around(inner: str, outer: str) -> Rule:
    """The outer operator of the inner one."""
    def rule(writer: Writer, node: Node) -> str:
        return writer.add(outer, [writer.inner(inner, writer.arguments(node), node)], node.name)
    return rule


# -- layers --------------------------------------------------------------------------------------------------------------

def held(writer: Writer, node: Node) -> list[np.ndarray]:
    """The weight and, if there is one, the bias of a layer; UnsupportedOperator if inputs reach them."""
    if any(map(writer.varies, node.args[1:])):
        raise refuse(node, "with a weight or bias that inputs reach")
    return [writer.number(index)[0] for index in node.args[1:]]


def linear(writer: Writer, node: Node) -> str:
    """x times the transposed weight, plus bias."""
    weight, *bias = held(writer, node)
    taken = [writer.argument(node.args[0]), writer.constant(f"{node.name}:weight", weight.T)]
    if not bias:
        return writer.add("MatMul", taken, node.name)
    return writer.add("Add", [writer.inner("MatMul", taken, node), writer.constant(f"{node.name}:bias", bias[0])], node.name)


def convolution(operator: str) -> Rule:
    """A convolution or its transpose, with a constant weight."""
    def rule(writer: Writer, node: Node) -> str:
        take, names = node.attrs, ("weight", "bias")
        constants = [writer.constant(f"{node.name}:{name}", value)
                     for name, value in zip(names, held(writer, node), strict=False)]
        how = {"strides": list(take["stride"]), "pads": [*take["padding"], *take["padding"]],
               "dilations": list(take["dilation"]), "group": take["groups"]}
        if "output_padding" in take:
            how["output_padding"] = list(take["output_padding"])
        return writer.add(operator, [writer.argument(node.args[0]), *constants], node.name, **how)
    return rule


# -- moves ---------------------------------------------------------------------------------------------------------------

def permute(writer: Writer, node: Node) -> str:
    """Axes in another order."""
    order = [0, *(dim + 1 for dim in node.attrs["dims"])]
    return writer.add("Transpose", writer.arguments(node), node.name, perm=order)


def sliced(writer: Writer, node: Node) -> str:
    """A slice along every axis, in steps forward."""
    shape = writer.graph[node.args[0]].shape
    parts = [part.indices(size) for part, size in zip(node.attrs["slices"], shape, strict=True)]
    ends = [writer.constant(f"{node.name}:{name}", list(numbers))
            for name, numbers in zip(("starts", "ends", "axes", "steps"), (
                [start for start, _, _ in parts], [stop for _, stop, _ in parts], range(1, len(parts) + 1),
                [step for _, _, step in parts]), strict=True)]
    return writer.add("Slice", [*writer.arguments(node), *ends], node.name)


def gather(writer: Writer, node: Node) -> str:
    """Entries at known places of the flat value."""
    index = node.attrs["index"].cpu().numpy().astype(np.int64).reshape(node.attrs["shape"])
    return picked(writer, node, flattened(writer, node), index, node.name)


def flattened(writer: Writer, node: Node) -> str:
    """The only argument of a node as a list of its entries."""
    size = math.prod(writer.graph[node.args[0]].shape)
    return writer.inner("Reshape", [*writer.arguments(node), writer.constant(f"{node.name}:flat", [1, size])], node)


def picked(writer: Writer, node: Node, flat: str, index: np.ndarray, name: str) -> str:
    """The entries `index` of a list, in its shape."""
    found = writer.inner("Gather", [flat, writer.constant(f"{node.name}:index", index.reshape(-1))], node, axis=1)
    return writer.add("Reshape", [found, writer.constant(f"{node.name}:shape", [1, *index.shape])], name)


def pad(writer: Writer, node: Node) -> str:
    """Entries in a larger block of one value."""
    inner, before = writer.graph[node.args[0]].shape, node.attrs["before"]
    after = [whole - size - start for whole, size, start in zip(node.attrs["shape"], inner, before, strict=True)]
    pads = writer.constant(f"{node.name}:pads", [0, *before, 0, *after])
    value = writer.constant(f"{node.name}:value", np.array(float(node.attrs.get("value", 0.0))))
    return writer.add("Pad", [*writer.arguments(node), pads, value], node.name)


# -- functions -----------------------------------------------------------------------------------------------------------

def holds(writer: Writer, number: float) -> bool:
    """Whether an attribute, which is a float32, is this number to within the file's precision."""
    return writer.dtype is np.float32 or float(np.float32(number)) == number


def leaky_relu(writer: Writer, node: Node) -> str:
    """LeakyRelu; PRelu where no attribute holds the slope."""
    slope = float(node.attrs.get("negative_slope", 0.01))
    if holds(writer, slope):
        return writer.add("LeakyRelu", writer.arguments(node), node.name, alpha=slope)
    return writer.add("PRelu", [*writer.arguments(node), writer.constant(f"{node.name}:slope", np.array([slope]))], node.name)


def clip(writer: Writer, node: Node) -> str:
    """Clip to numbers."""
    ends = [node.attrs.get(name) for name in ("min", "max")]
    names = ["" if end is None else writer.constant(f"{node.name}:{name}", np.array(float(end)))
            for name, end in zip(("min", "max"), ends, strict=True)]
    return writer.add("Clip", [*writer.arguments(node), *names], node.name)


def power(writer: Writer, node: Node) -> str:
    """Pow with a constant exponent."""
    exponent = writer.constant(f"{node.name}:exponent", np.array(float(node.attrs["exponent"])))
    return writer.add("Pow", [*writer.arguments(node), exponent], node.name)


def square(writer: Writer, node: Node) -> str:
    """x times x."""
    return writer.add("Mul", writer.arguments(node) * 2, node.name)


def softplus(writer: Writer, node: Node) -> str:
    """Softplus without a threshold, from which on it would be the identity."""
    if node.attrs.get("threshold", math.inf) != math.inf:
        raise refuse(node, f"with the threshold {node.attrs['threshold']}: softplus of ONNX has none")
    return writer.add("Softplus", writer.arguments(node), node.name)


def elu(writer: Writer, node: Node) -> str:
    """Elu, or Celu where the rate is one over the scale."""
    scale, rate = (float(node.attrs.get(name, 1.0)) for name in ("scale", "rate"))
    if rate not in (1, 1 / scale if scale else 1) or not holds(writer, scale):
        raise refuse(node, f"with the scale {scale!r} and the rate {rate!r}")
    return writer.add("Elu" if rate == 1 else "Celu", writer.arguments(node), node.name, alpha=scale)


def silu(writer: Writer, node: Node) -> str:
    """x sigmoid(x)."""
    taken = writer.arguments(node)
    return writer.add("Mul", [*taken, writer.inner("Sigmoid", taken, node)], node.name)


def log_sigmoid(writer: Writer, node: Node) -> str:
    """-softplus(-x)."""
    opposite = writer.inner("Neg", writer.arguments(node), node)
    return writer.add("Neg", [writer.inner("Softplus", [opposite], node)], node.name)


def tanh_gelu(writer: Writer, node: Node) -> str:
    """Gelu by tanh."""
    return writer.add("Gelu", writer.arguments(node), node.name, approximate="tanh")


def select(writer: Writer, node: Node) -> str:
    """Where, with a comparison of the condition with zero."""
    condition, *values = node.args
    names, at_zero = [writer.argument(index) for index in values], node.attrs.get("at_zero", False)
    if not writer.varies(condition):
        number = writer.number(condition)
        chosen = writer.constant(f"{node.name}:condition", number >= 0 if at_zero else number > 0)
    else:
        zero = writer.constant(f"{node.name}:zero", np.array(0.0))
        operator = "GreaterOrEqual" if at_zero else "Greater"
        chosen = writer.inner(operator, [writer.argument(condition), zero], node)
    return writer.add("Where", [chosen, *names], node.name)


def largest(writer: Writer, node: Node) -> str:
    """The largest entry along an axis, as Max of its slices; where an entry is absent, another one is repeated."""
    dim, shape = node.attrs["dim"], writer.graph[node.args[0]].shape
    index, absent = np.arange(math.prod(shape)).reshape(shape), node.attrs.get("absent")
    if absent is not None:
        missing = np.broadcast_to(absent.cpu().numpy(), shape)
        if missing.all(axis=dim).any():
            raise refuse(node, "with a maximum of nothing")
        present = np.take_along_axis(index, missing.argmin(axis=dim, keepdims=True), axis=dim)
        index = np.where(missing, present, index)
    flat = flattened(writer, node)
    slices = [np.take(index, place, axis=dim).reshape(node.shape) for place in range(shape[dim])]
    parts = [picked(writer, node, flat, places, writer.fresh(f"{node.name}:slice")) for places in slices]
    return writer.add("Max", parts, node.name)


RULES: Mapping[str, Rule] = {
    "linear": linear, "conv": convolution("Conv"), "conv_transpose": convolution("ConvTranspose"), "matmul": same("MatMul"),
    **{name: same(operator) for name, operator in {
        "add": "Add", "sub": "Sub", "mul": "Mul", "neg": "Neg", "maximum": "Max", "relu": "Relu", "abs": "Abs",
        "prelu": "PRelu", "sign": "Sign", "floor": "Floor", "round": "Round", "sigmoid": "Sigmoid", "tanh": "Tanh",
        "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "reciprocal": "Reciprocal", "sin": "Sin", "cos": "Cos", "tan": "Tan",
        "asin": "Asin", "acos": "Acos",
        "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "erf": "Erf",
        "softsign": "Softsign", "gelu": "Gelu", "mish": "Mish", "hard_swish": "HardSwish"}.items()},
    "softmax": along("Softmax"), "log_softmax": along("LogSoftmax"), "concat": along("Concat"),
    "sum": reduced("ReduceSum"), "mean": reduced("ReduceMean"), "logsumexp": reduced("ReduceLogSumExp"),
    "norm": reduced("ReduceL2"),
    "reshape": shaped("Reshape"), "expand": shaped("Expand"), "permute": permute, "slice": sliced, "gather": gather, "pad": pad,
    "leaky_relu": leaky_relu, "clip": clip, "pow": power, "square": square, "rsqrt": around("Sqrt", "Reciprocal"),
    "softplus": softplus, "elu": elu, "silu": silu, "log_sigmoid": log_sigmoid, "tanh_gelu": tanh_gelu, "select": select,
    "reduce_max": largest,
}
