"""ONNX operators on arrays that are known at load time: the shape arithmetic that exporters write into files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from boundlab.capture.builder import sized
from boundlab.capture.onnx_file import type_name
from boundlab.capture.onnx_lowering import OnnxNode

Fold = Callable[..., Any]


def divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x / y; integers are cut towards zero, as in C."""
    return np.trunc(np.true_divide(x, y)).astype(x.dtype) if np.issubdtype(x.dtype, np.integer) else x / y


def cast(node: OnnxNode, x: np.ndarray) -> np.ndarray:
    """x in the element type `to`."""
    return x.astype(type_name(node.attributes["to"]))


def constant_of_shape(node: OnnxNode, shape: np.ndarray) -> np.ndarray:
    """A tensor filled with one value (float32 zero by default)."""
    sized(math.prod(shape.tolist()))
    value = node.attributes.get("value", np.zeros(1, np.float32))
    return np.full(tuple(shape), value.reshape(-1)[0], value.dtype)


def one_hot(node: OnnxNode, indices: np.ndarray, depth: np.ndarray, values: np.ndarray) -> np.ndarray:
    """values[1] at each index along a new axis of length `depth`, values[0] elsewhere."""
    count = int(depth.reshape(-1)[0])
    sized(count * indices.size)
    hot = np.arange(count) == np.where(indices < 0, indices + count, indices)[..., None]
    axis = node.attributes.get("axis", -1)
    return np.moveaxis(np.where(hot, values[1], values[0]), -1, axis)


def reduction(function: Callable[..., Any]) -> Fold:
    """A reduction over the axes of an attribute or of a second input."""

    def fold(node: OnnxNode, x: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
        given = node.attributes.get("axes") or (None if axes is None else axes.tolist())
        if not given and node.attributes.get("noop_with_empty_axes", 0):
            return x
        keep = bool(node.attributes.get("keepdims", 1))
        return np.asarray(function(x, axis=tuple(given) if given else None, keepdims=keep)).astype(x.dtype)

    return fold


def spaced(node: OnnxNode, start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Numbers from `start` to before `limit`."""
    sized((limit.item() - start.item()) / delta.item())
    return np.arange(start.item(), limit.item(), delta.item()).astype(start.dtype)


def clip(node: OnnxNode, x: np.ndarray, low: np.ndarray | None = None, high: np.ndarray | None = None) -> np.ndarray:
    """x between two ends, either of which may be missing."""
    low, high = node.attributes.get("min", low), node.attributes.get("max", high)
    x = x if low is None else np.maximum(x, low)
    return (x if high is None else np.minimum(x, high)).astype(x.dtype)


def plain(function: Callable[..., Any]) -> Fold:
    """An operator that has no attributes."""
    return lambda node, *arrays: function(*arrays)


def chain(function: Callable[..., Any]) -> Fold:
    """An operator of any number of inputs."""
    return lambda node, *arrays: reduce(function, arrays)


PLAIN: dict[str, Callable[..., Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Neg": np.negative, "Abs": np.abs, "Sign": np.sign,
    "Floor": np.floor, "Ceil": np.ceil, "Round": np.round, "Sqrt": np.sqrt, "Exp": np.exp, "Log": np.log,
    "Reciprocal": np.reciprocal, "Sin": np.sin, "Cos": np.cos, "MatMul": np.matmul,
    "Not": np.logical_not, "And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor, "Equal": np.equal,
    "Less": np.less, "LessOrEqual": np.less_equal, "Greater": np.greater, "GreaterOrEqual": np.greater_equal,
}
CHAINS: dict[str, Callable[..., Any]] = {"Min": np.minimum, "Max": np.maximum, "Sum": np.add}
REDUCTIONS: dict[str, Callable[..., Any]] = {"Sum": np.sum, "Mean": np.mean, "Prod": np.prod, "Min": np.min, "Max": np.max}
FOLDS: dict[str, Fold] = {
    "Cast": cast, "ConstantOfShape": constant_of_shape, "OneHot": one_hot, "Range": spaced, "Clip": clip,
    "Div": plain(divide), "Pow": plain(lambda x, y: np.power(x, y).astype(x.dtype)),
    "Mod": lambda node, x, y: np.fmod(x, y) if node.attributes.get("fmod", 0) else np.mod(x, y),
    "NonZero": plain(lambda x: np.array(np.nonzero(x), np.int64)),
    "CastLike": plain(lambda x, like: x.astype(like.dtype)),
    **{name: chain(function) for name, function in CHAINS.items()},
    **{name: plain(function) for name, function in PLAIN.items()},
    **{f"Reduce{name}": reduction(function) for name, function in REDUCTIONS.items()},
}


def fold(node: OnnxNode, arrays: Sequence[np.ndarray | None]) -> np.ndarray:
    """The result of a node whose inputs are all known (None where one is left out)."""
    with np.errstate(all="ignore"):
        return np.asarray(FOLDS[node.op](node, *arrays))
