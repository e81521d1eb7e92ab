"""The lowering table: torch operators that are not one to one with ours, by their name in an exported program."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from boundlab.capture.lowering import Lowering, where_from
from boundlab.errors import UnsupportedOperator

Rule = Callable[[Lowering, fx.Node], Any]
LOWERINGS: dict[str, Rule] = {}


def lowers(*targets: str) -> Callable[[Rule], Rule]:
    """Enter a rule into the table under the program names `aten.<target>`."""

    def enter(rule: Rule) -> Rule:
        LOWERINGS.update({f"aten.{target}": rule for target in targets})
        return rule

    return enter


def argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """An argument by position or by name, else its default."""
    return node.args[position] if position < len(node.args) else node.kwargs.get(name, default)


def per_axis(value: Any, count: int) -> tuple[int, ...]:
    """One number for each spatial axis."""
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values * count if len(values) == 1 else values


# -- values that pass unchanged ------------------------------------------------------------------------------------------

@lowers("clone.default", "contiguous.default", "alias.default", "detach.default", "lift_fresh_copy.default", "_to_copy.default",
        "to.dtype", "to.device", "to.dtype_layout", "dropout.default", "detach_.default", "_conj.default")
def same(low: Lowering, node: fx.Node) -> Any:
    """No change of value; dropout is only captured as nothing when it is off."""
    if "dropout" in str(node.target) and argument(node, 2, "train", False) and argument(node, 1, "p", 0.0) > 0:
        raise UnsupportedOperator(f"'{node.name}'{where_from(node)} is dropout in training mode; call module.eval() first.")
    return low.values[node.args[0]]  # type: ignore[index]


@lowers("sym_size.int", "_assert_tensor_metadata.default", "_assert_scalar.default", "sym_constrain_range_for_size.default")
def nothing(low: Lowering, node: fx.Node) -> Any:
    """Bookkeeping of shapes, which we take from the program's own shape inference."""
    return None


# -- arithmetic ----------------------------------------------------------------------------------------------------------

def binary(op: str) -> Rule:
    """x op (alpha * y) with broadcasting."""

    def rule(low: Lowering, node: fx.Node) -> int:
        first, second = low.index(node.args[0]), low.index(node.args[1])
        alpha = argument(node, 2, "alpha", 1)
        if alpha != 1:
            second = low.builder.broadcast("mul", second, low.builder.constant(float(alpha)))
        return low.builder.broadcast(op, first, second)

    return rule


for target, op in (("add.Tensor", "add"), ("add.Scalar", "add"), ("sub.Tensor", "sub"), ("sub.Scalar", "sub"),
                   ("mul.Scalar", "mul")):
    lowers(target)(binary(op))


@lowers("mul.Tensor")
def multiply(low: Lowering, node: fx.Node) -> int:
    """A product; of a value with itself, a square (tighter, since it is one argument)."""
    first, second = low.index(node.args[0]), low.index(node.args[1])
    if first == second and "square" in known_operators():
        return low.builder.add("square", first)
    return low.builder.broadcast("mul", first, second)


def known_operators() -> set[str]:
    """Names of the registered operators."""
    from boundlab.ops.op import REGISTRY
    return set(REGISTRY)


@lowers("rsub.Scalar", "rsub.Tensor")
def reversed_difference(low: Lowering, node: fx.Node) -> int:
    """y - x."""
    return low.builder.broadcast("sub", low.index(node.args[1]), low.index(node.args[0]))


@lowers("div.Tensor", "div.Scalar")
def divide(low: Lowering, node: fx.Node) -> int:
    """x times the reciprocal of y."""
    inverse = low.builder.add("reciprocal", low.index(node.args[1]))
    return low.builder.broadcast("mul", low.index(node.args[0]), inverse)


# -- linear layers -------------------------------------------------------------------------------------------------------

@lowers("linear.default")
def linear(low: Lowering, node: fx.Node) -> int:
    """A linear layer over the last axis."""
    return low.builder.add("linear", *(low.index(part) for part in node.args if part is not None))


@lowers("addmm.default")
def addmm(low: Lowering, node: fx.Node) -> int:
    """bias + x @ weight."""
    product = low.builder.add("matmul_rows", low.index(node.args[1]), low.index(node.args[2]))
    return low.builder.broadcast("add", product, low.index(node.args[0]))


@lowers("conv1d.default", "conv2d.default", "conv3d.default", "conv1d.padding", "conv2d.padding", "convolution.default")
def conv(low: Lowering, node: fx.Node) -> int:
    """A convolution; string paddings are turned into numbers."""
    parts = [low.index(part) for part in node.args[:3] if part is not None]
    kernel = low.builder.shape(parts[1])[2:]
    axes = len(kernel)
    stride, dilation = per_axis(argument(node, 3, "stride", 1), axes), per_axis(argument(node, 5, "dilation", 1), axes)
    padding = argument(node, 4, "padding", 0)
    if isinstance(padding, str):
        padding = [0] * axes if padding == "valid" else [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
    return low.builder.add("conv", *parts, stride=stride, padding=per_axis(padding, axes), dilation=dilation,
                           groups=argument(node, 6, "groups", 1))


@lowers("batch_norm.default")
def batch_norm(low: Lowering, node: fx.Node) -> int:
    """Frozen statistics: x * scale + shift, with scale and shift computed from the parameters in the graph."""
    x, weight, bias, mean, variance, training, _, eps = node.args[:8]
    if training:
        raise UnsupportedOperator(f"'{node.name}'{where_from(node)} is batch norm in training mode; call module.eval() first.")
    build, rank = low.builder, low.rank(x) - 1  # type: ignore[arg-type]
    wide = build.broadcast("add", low.index(variance), build.constant(float(eps)))  # type: ignore[arg-type]
    scale = build.add("reciprocal", build.add("sqrt", wide))
    if weight is not None:
        scale = build.add("mul", low.index(weight), scale)
    shift = build.add("neg", build.add("mul", low.index(mean), scale))
    if bias is not None:
        shift = build.add("add", low.index(bias), shift)
    return affine_channels(low, low.index(x), scale, shift, rank)


def affine_channels(low: Lowering, x: int, scale: int, shift: int, rank: int) -> int:
    """x * scale + shift for each channel; folded into the convolution or linear layer before it if nothing else reads that."""
    build = low.builder
    shape = (build.shape(scale)[0], *[1] * (rank - 1))
    scaled = build.broadcast("mul", x, build.add("reshape", scale, shape=shape))
    return build.broadcast("add", scaled, build.add("reshape", shift, shape=shape))


# -- shapes --------------------------------------------------------------------------------------------------------------

@lowers("view.default", "reshape.default", "_unsafe_view.default", "flatten.using_ints", "unflatten.int", "squeeze.default",
        "squeeze.dim", "squeeze.dims", "unsqueeze.default", "ravel.default")
def reshape(low: Lowering, node: fx.Node) -> int:
    """Every reshape is described by its result alone."""
    return low.builder.add("reshape", low.index(node.args[0]), shape=low.result_shape())


@lowers("expand.default")
def expand(low: Lowering, node: fx.Node) -> int:
    """Copies along axes of size 1; a constant repeated over the batch stays one constant."""
    x = low.index(node.args[0])
    target = node.meta["val"].shape
    static = tuple(int(size) for size in (target[1:] if isinstance(target[0], torch.SymInt) else target))
    own = low.builder.shape(x)
    if not low.varies(node.args[0]) and isinstance(target[0], torch.SymInt) and len(own) == len(target):
        own = own[1:]
    aligned = low.builder.add("reshape", x, shape=(1,) * (len(static) - len(own)) + own)
    return low.builder.add("expand", aligned, shape=static) if own != static else aligned


@lowers("permute.default", "transpose.int", "t.default", "movedim.int")
def permute(low: Lowering, node: fx.Node) -> int:
    """Any reordering of axes, as one list."""
    x: Any = node.args[0]
    order = list(range(low.rank(x)))
    if "permute" in str(node.target):
        order = [int(d) % len(order) for d in node.args[1]]  # type: ignore[union-attr, arg-type]
    else:
        first, second = (int(d) % len(order) for d in node.args[1:3]) if len(node.args) > 2 else (0, 1)  # type: ignore[arg-type, call-overload]
        order[first], order[second] = order[second], order[first]
    if low.varies(x):
        if order[0] != 0:
            low.axis(x, 0)
        order = [d - 1 for d in order[1:]]
    return low.builder.add("permute", low.index(x), dims=tuple(order))


def cut(low: Lowering, x: Any, dim: int, start: int, stop: int, step: int = 1) -> int:
    """x[start:stop:step] along one of our axes."""
    index = low.index(x)
    slices = tuple(slice(start, stop, step) if d == dim else slice(0, size, 1)
                   for d, size in enumerate(low.builder.shape(index)))
    return low.builder.add("slice", index, slices=slices)


@lowers("slice.Tensor")
def slice_(low: Lowering, node: fx.Node) -> Any:
    """A slice along one axis; slicing the whole batch changes nothing."""
    x: Any = node.args[0]
    dim, start = argument(node, 1, "dim", 0), argument(node, 2, "start") or 0
    stop, step = argument(node, 3, "end"), argument(node, 4, "step", 1)
    if low.varies(x) and dim % low.rank(x) == 0 and start == 0 and (stop is None or not isinstance(stop, int) or stop > 2**60):
        return low.values[x]
    axis = low.axis(x, dim)
    size = low.builder.shape(low.index(x))[axis]
    start, stop, step = slice(start, stop, step).indices(size)
    return low.values[x] if (start, stop, step) == (0, size, 1) else cut(low, x, axis, start, stop, step)


@lowers("select.int")
def select(low: Lowering, node: fx.Node) -> int:
    """One entry along an axis, which disappears."""
    x: Any = node.args[0]
    axis, place = low.axis(x, int(node.args[1])), int(node.args[2])  # type: ignore[arg-type]
    place %= low.builder.shape(low.index(x))[axis]
    return low.builder.add("reshape", cut(low, x, axis, place, place + 1), shape=low.result_shape())


@lowers("split.Tensor", "split_with_sizes.default", "chunk.default", "unbind.int", "unsafe_split.Tensor", "tensor_split.sections")
def split(low: Lowering, node: fx.Node) -> list[int]:
    """Consecutive blocks along an axis, as many and as long as the program's results."""
    x: Any = node.args[0]
    drop = "unbind" in str(node.target)
    dim = argument(node, 1 if drop else 2, "dim", 0)
    axis, start, parts = low.axis(x, dim), 0, []
    for result in node.meta["val"]:
        size = 1 if drop else int(result.shape[dim])
        part = cut(low, x, axis, start, start + size)
        if drop:
            shape = low.builder.shape(part)
            part = low.builder.add("reshape", part, shape=shape[:axis] + shape[axis + 1:])
        parts.append(part)
        start += size
    return parts


def getitem(low: Lowering, node: fx.Node) -> Any:
    """One result of an operator that has several."""
    return low.values[node.args[0]][node.args[1]]  # type: ignore[index]


LOWERINGS["<built-in function getitem>"] = getitem


@lowers("cat.default", "stack.default")
def concat(low: Lowering, node: fx.Node) -> int:
    """Parts side by side along an axis, a new one for stack."""
    parts: Any = node.args[0]
    varying = next((part for part in parts if low.varies(part)), parts[0])
    dim, rank = argument(node, 1, "dim", 0), low.rank(varying)
    stacked = "stack" in str(node.target)
    dim %= rank + 1 if stacked else rank
    axis = dim - 1 if low.varies(varying) else dim
    if axis < 0:
        low.axis(varying, 0)
    indices = [low.index(part) for part in parts]
    if low.varies(varying):
        indices = [index if index in low.builder.varying else drop_batch(low, index, rank) for index in indices]
    if stacked:
        shapes = [low.builder.shape(index) for index in indices]
        indices = [low.builder.add("reshape", index, shape=(*shape[:axis], 1, *shape[axis:]))
                   for index, shape in zip(indices, shapes, strict=True)]
    return low.builder.add("concat", *indices, dim=axis)


def drop_batch(low: Lowering, index: int, rank: int) -> int:
    """A constant part (1, ...) of a batched concatenation, without its leading axis."""
    shape = low.builder.shape(index)
    return low.builder.add("reshape", index, shape=shape[1:]) if len(shape) == rank and shape[0] == 1 else index


@lowers("constant_pad_nd.default", "pad.default")
def pad(low: Lowering, node: fx.Node) -> int:
    """Padding by a constant; pairs are given from the last axis on."""
    x, sizes = low.index(node.args[0]), [int(size) for size in node.args[1]]  # type: ignore[union-attr, arg-type]
    if "pad.default" in str(node.target) and argument(node, 2, "mode", "constant") != "constant":
        raise UnsupportedOperator(f"'{node.name}'{where_from(node)} pads with mode {node.args[2]!r}; only 'constant' is supported.")
    value = argument(node, 2 if "constant" in str(node.target) else 3, "value", 0.0) or 0.0
    shape = low.builder.shape(x)
    pairs = [(0, 0)] * (len(shape) - len(sizes) // 2) + list(zip(sizes[-2::-2], sizes[::-2], strict=True))
    whole = tuple(size + before + after for size, (before, after) in zip(shape, pairs, strict=True))
    return low.builder.add("pad", x, before=tuple(pair[0] for pair in pairs), shape=whole, value=float(value))


@lowers("mean.dim", "sum.dim_IntList", "mean.default", "sum.default")
def reduce(low: Lowering, node: fx.Node) -> int:
    """Mean or sum over axes."""
    x: Any = node.args[0]
    dims = low.axes(x, argument(node, 1, "dim"))
    return low.builder.add("mean" if "mean" in str(node.target) else "sum", low.index(x), dims=dims,
                           keepdim=bool(argument(node, 2, "keepdim", False)))


@lowers("adaptive_avg_pool2d.default", "adaptive_avg_pool1d.default")
def adaptive_avg_pool(low: Lowering, node: fx.Node) -> int:
    """Average pooling to one cell, or to a divisor of the map."""
    x = low.index(node.args[0])
    shape, target = low.builder.shape(x), low.result_shape()
    if all(size == 1 for size in target[1:]):
        return low.builder.add("mean", x, dims=tuple(range(1, len(shape))), keepdim=True)
    if any(size % wanted for size, wanted in zip(shape[1:], target[1:], strict=True)):
        raise UnsupportedOperator(f"'{node.name}'{where_from(node)} pools {shape[1:]} to {target[1:]}, which does not divide it.")
    kernel = tuple(size // wanted for size, wanted in zip(shape[1:], target[1:], strict=True))
    return pool(low, x, kernel, kernel, (0,) * len(kernel))


@lowers("avg_pool2d.default", "avg_pool1d.default")
def avg_pool(low: Lowering, node: fx.Node) -> int:
    """Average pooling as a convolution of each channel on its own."""
    x = low.index(node.args[0])
    axes = len(low.builder.shape(x)) - 1
    kernel = per_axis(node.args[1], axes)
    stride, padding = per_axis(argument(node, 2, "stride") or kernel, axes), per_axis(argument(node, 3, "padding", 0), axes)
    if argument(node, 4, "ceil_mode", False) or (any(padding) and not argument(node, 5, "count_include_pad", True)):
        raise UnsupportedOperator(f"'{node.name}'{where_from(node)}: average pooling with ceil_mode or uncounted padding.")
    return pool(low, x, kernel, stride, padding)


def pool(low: Lowering, x: int, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]) -> int:
    """The convolution that averages each window of each channel."""
    channels = low.builder.shape(x)[0]
    weight = torch.full((channels, 1, *kernel), 1 / math.prod(kernel), dtype=low.builder.dtype)
    return low.builder.add("conv", x, low.builder.constant(weight), stride=stride, padding=padding,
                           dilation=(1,) * len(kernel), groups=channels)
