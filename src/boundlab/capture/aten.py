"""Lowerings of torch operators: values that pass unchanged, arithmetic, activations and reductions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from boundlab.capture import composed
from boundlab.capture.aten_shape import cut
from boundlab.capture.lowering import Lowering
from boundlab.capture.table import Rule, argument, lowers, operands, unsupported

# -- values that pass unchanged ------------------------------------------------------------------------------------------

@lowers("_to_copy.default", "to.dtype", "to.device", "to.dtype_layout", "to.other", "type_as.default")
def cast(low: Lowering, node: fx.Node) -> Any:
    """No change from one floating type to another at least as fine as the network's; other casts of constants are done now."""
    x: Any = node.args[0]
    kind, held = node.meta["val"].dtype, x.meta["val"].dtype
    finer = kind.is_floating_point and torch.promote_types(kind, low.builder.dtype) == kind
    if kind == held or (finer and (low.varies(x) or held.is_floating_point)):
        return low.values[x]
    if low.varies(x):
        raise unsupported(node, f"casts a value that depends on an input to {kind}, which rounds it; bounds would not see that")
    return low.builder.constant(low.builder.known(low.index(x))[0].to(kind))


@lowers("clone.default", "contiguous.default", "alias.default", "detach.default", "lift_fresh_copy.default", "dropout.default",
        "detach_.default", "_conj.default")
def same(low: Lowering, node: fx.Node) -> Any:
    """No change of value; dropout is only captured as nothing when it is off."""
    if "dropout" in str(node.target) and argument(node, 2, "train", False) and argument(node, 1, "p", 0.0) > 0:
        raise unsupported(node, "is dropout in training mode; call module.eval() first")
    return low.values[node.args[0]]  # type: ignore[index]


@lowers("sym_size.int", "_assert_tensor_metadata.default", "_assert_scalar.default", "sym_constrain_range_for_size.default")
def nothing(low: Lowering, node: fx.Node) -> Any:
    """Bookkeeping of shapes, which we take from the program's own shape inference."""
    return None


FILLS = {"zeros": 0.0, "ones": 1.0, "zeros_like": 0.0, "ones_like": 1.0, "new_zeros": 0.0, "new_ones": 1.0,
         "empty": 0.0, "empty_like": 0.0, "new_empty": 0.0, "full_like": None, "new_full": None}
"""Operators that take a shape from their argument and nothing else; with None, the number is an argument of its own."""


@lowers("zeros.default", "ones.default", "full.default", "zeros_like.default", "ones_like.default", "full_like.default",
        "new_zeros.default", "new_ones.default", "new_full.default", "scalar_tensor.default", "empty.memory_format",
        "empty_like.default", "new_empty.default")
def filled(low: Lowering, node: fx.Node) -> int:
    """A tensor of one number for every example (memory that is still to be written counts as zeros); the batch axis goes."""
    kind = str(node.target).removeprefix("aten.").split(".")[0]
    place = {"full": 1, "full_like": 1, "new_full": 2, "scalar_tensor": 0}.get(kind)
    value: Any = FILLS.get(kind) if place is None else node.args[place]
    return low.builder.constant(torch.full(low.result_shape(), value, dtype=node.meta["val"].dtype))


# -- arithmetic ----------------------------------------------------------------------------------------------------------

def binary(op: str) -> Rule:
    """x op (alpha * y) with broadcasting."""

    def rule(low: Lowering, node: fx.Node) -> int:
        first, second = operands(low, node.args[0], node.args[1])
        alpha = argument(node, 2, "alpha", 1)
        if alpha != 1:
            second = low.builder.broadcast("mul", second, low.builder.constant(float(alpha)))
        if op == "add" and (first in low.builder.varying) != (second in low.builder.varying):
            first, second = (part if part in low.builder.varying else composed.additive_mask(low.builder, part)
                             for part in (first, second))
        return low.builder.broadcast(op, first, second)

    return rule


for target, op in (("add.Tensor", "add"), ("add.Scalar", "add"), ("sub.Tensor", "sub"), ("sub.Scalar", "sub"),
                   ("mul.Scalar", "mul"), ("maximum.default", "maximum"), ("max.other", "maximum")):
    lowers(target)(binary(op))


@lowers("mul.Tensor")
def multiply(low: Lowering, node: fx.Node) -> int:
    """A product, or a square."""
    return composed.multiply(low.builder, *operands(low, node.args[0], node.args[1]))


@lowers("rsub.Scalar", "rsub.Tensor")
def reversed_difference(low: Lowering, node: fx.Node) -> int:
    """y - x."""
    return low.builder.broadcast("sub", *operands(low, node.args[1], node.args[0]))


@lowers("div.Tensor", "div.Scalar")
def divide(low: Lowering, node: fx.Node) -> int:
    """x times the reciprocal of y; a number is inverted here."""
    divisor: Any = node.args[1]
    if isinstance(divisor, (int, float)):
        return low.builder.broadcast("mul", low.index(node.args[0]), low.builder.constant(1 / divisor))
    first, second = operands(low, node.args[0], divisor)
    return low.builder.broadcast("mul", first, composed.inverse(low.builder, second))


@lowers("reciprocal.default")
def reciprocal(low: Lowering, node: fx.Node) -> int:
    """1 / x."""
    return composed.inverse(low.builder, low.index(node.args[0]))


@lowers("pow.Tensor_Scalar")
def power(low: Lowering, node: fx.Node) -> int:
    """x to a known exponent."""
    return composed.power(low.builder, low.index(node.args[0]), float(node.args[1]))  # type: ignore[arg-type]


@lowers("pow.Scalar")
def exponential(low: Lowering, node: fx.Node) -> int:
    """base ** x, as exp(x log base)."""
    base: Any = node.args[0]
    if base <= 0:
        raise unsupported(node, f"raises {base} to a power; the base must be positive")
    return low.builder.add("exp", low.builder.broadcast("mul", low.index(node.args[1]), low.builder.constant(math.log(base))))


@lowers("minimum.default", "min.other")
def minimum(low: Lowering, node: fx.Node) -> int:
    """The smaller of two values."""
    return composed.minimum(low.builder, *operands(low, node.args[0], node.args[1]))


@lowers("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def where(low: Lowering, node: fx.Node) -> int:
    """x where a condition holds that no input decides, else y."""
    condition, x, y = operands(low, *node.args[:3])
    return composed.chosen(low.builder, condition_value(low, node, node.args[0], condition), x, y)


@lowers("masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(low: Lowering, node: fx.Node) -> int:
    """A number where a mask holds that no input decides, else x."""
    x, mask, value = operands(low, *node.args[:3])
    return composed.chosen(low.builder, condition_value(low, node, node.args[1], mask), value, x)


def condition_value(low: Lowering, node: fx.Node, condition: Any, index: int) -> Tensor:
    """The value of a condition; UnsupportedOperator if an input decides it."""
    if index in low.builder.varying:
        raise unsupported(node, f"chooses by '{condition}', which depends on an input; write it with relu, maximum or clamp")
    return low.builder.known(index)[0].bool()


# -- activations ---------------------------------------------------------------------------------------------------------

@lowers("clamp.default", "clamp_min.default", "clamp_max.default", "hardtanh.default", "relu6.default", "clip.default")
def clip(low: Lowering, node: fx.Node) -> int:
    """x cut off below and above by numbers."""
    kind = str(node.target).removeprefix("aten.").split(".")[0]
    x = low.index(node.args[0])
    bottom, top = {
        "clamp_min": (argument(node, 1, "min"), None), "clamp_max": (None, argument(node, 1, "max")), "relu6": (0.0, 6.0),
        "hardtanh": (argument(node, 1, "min_val", -1.0), argument(node, 2, "max_val", 1.0)),
    }.get(kind, (argument(node, 1, "min"), argument(node, 2, "max")))
    if bottom is None and top is None:
        return x
    if bottom == 0 and top is None:
        return low.builder.add("relu", x)
    bottom, top = composed.ordered(bottom, top)
    return low.builder.add("clip", x, min=bottom, max=top)


@lowers("clamp.Tensor", "clamp_min.Tensor", "clamp_max.Tensor")
def clip_between(low: Lowering, node: fx.Node) -> int:
    """x cut off below and above by tensors."""
    kind = str(node.target)
    bottom = None if "clamp_max" in kind else argument(node, 1, "min")
    top = argument(node, 1, "max") if "clamp_max" in kind else argument(node, 2, "max")
    x = low.index(node.args[0])
    if bottom is not None:
        x = low.builder.broadcast("maximum", x, operands(low, node.args[0], bottom)[1])
    return x if top is None else composed.minimum(low.builder, x, operands(low, node.args[0], top)[1])


@lowers("prelu.default", "_prelu_kernel.default")
def prelu(low: Lowering, node: fx.Node) -> int:
    """A slope below zero for each channel (the axis after the batch)."""
    x, weight = low.index(node.args[0]), low.index(node.args[1])
    size, axes = math.prod(low.builder.shape(weight)), len(low.builder.shape(x))
    weight = low.builder.add("reshape", weight, shape=(size, *[1] * max(axes - 1, 0)))
    return low.builder.broadcast("prelu", x, weight)


@lowers("softmax.int", "_softmax.default", "log_softmax.int", "_log_softmax.default")
def softmax(low: Lowering, node: fx.Node) -> int:
    """Softmax or its logarithm along an axis."""
    x: Any = node.args[0]
    kind = "log_softmax" if "log_softmax" in str(node.target) else "softmax"
    return low.builder.add(kind, low.index(x), dim=low.axis(x, int(node.args[1])))  # type: ignore[arg-type]


@lowers("silu.default", "hardsigmoid.default", "hardswish.default", "glu.default", "log_sigmoid.default", "gelu.default",
        "elu.default", "selu.default")
def activation(low: Lowering, node: fx.Node) -> int:
    """Activations that are made of others."""
    kind, build, x = str(node.target).removeprefix("aten.").split(".")[0], low.builder, low.index(node.args[0])
    if kind == "glu":
        axis = low.axis(node.args[0], argument(node, 1, "dim", -1))  # type: ignore[arg-type]
        half = build.shape(x)[axis] // 2
        first, second = cut(low, node.args[0], axis, 0, half), cut(low, node.args[0], axis, half, 2 * half)
        return build.add("mul", first, build.add("sigmoid", second))
    if kind in ("elu", "selu"):
        alpha, scale, inner = (1.6732632423543772, 1.0507009873554805, 1.0) if kind == "selu" else (
            argument(node, place, name, 1.0) for place, name in ((1, "alpha"), (2, "scale"), (3, "input_scale")))
        return composed.exponential_unit(build, x, alpha, scale, inner)
    if kind == "gelu" and argument(node, 1, "approximate", "none") != "none":
        raise unsupported(node, "is gelu with the tanh approximation; use approximate='none'")
    return {"silu": composed.silu, "hardsigmoid": composed.hard_sigmoid, "hardswish": composed.hard_swish,
            "log_sigmoid": composed.log_sigmoid, "gelu": composed.gelu}[kind](build, x)


@lowers("softplus.default")
def softplus(low: Lowering, node: fx.Node) -> int:
    """log(1 + exp(beta x)) / beta; torch's linear piece beyond a threshold of 20 or more differs by rounding only."""
    build, x, beta = low.builder, low.index(node.args[0]), float(argument(node, 1, "beta", 1.0))
    if argument(node, 2, "threshold", 20.0) < 20:
        raise unsupported(node, "is softplus with a threshold below 20, where it jumps to a line; leave the threshold out")
    if beta == 1:
        return build.add("softplus", x)
    found = build.add("softplus", build.broadcast("mul", x, build.constant(beta)))
    return build.broadcast("mul", found, build.constant(1 / beta))


# -- reductions ----------------------------------------------------------------------------------------------------------

@lowers("mean.dim", "sum.dim_IntList", "mean.default", "sum.default", "sum.dim")
def reduce(low: Lowering, node: fx.Node) -> int:
    """Mean or sum over axes."""
    x: Any = node.args[0]
    dims = low.axes(x, argument(node, 1, "dim"))
    return low.builder.add("mean" if "mean" in str(node.target) else "sum", low.index(x), dims=dims,
                           keepdim=bool(argument(node, 2, "keepdim", False)))


@lowers("amax.default", "amin.default", "max.dim", "min.dim")
def extremum(low: Lowering, node: fx.Node) -> Any:
    """The largest or smallest entry over axes; where torch gives its place too, that is unknown."""
    x, kind = node.args[0], str(node.target)
    dims: Any = argument(node, 1, "dim", [])
    dims = low.axes(x, [dims] if isinstance(dims, int) else dims)  # type: ignore[arg-type]
    rule = composed.largest if "max" in kind else composed.smallest
    found = rule(low.builder, low.index(x), dims, bool(argument(node, 2, "keepdim", False)))
    return [found, None] if kind.endswith(".dim") else found


@lowers("logsumexp.default")
def logsumexp(low: Lowering, node: fx.Node) -> int:
    """log sum exp over one axis."""
    x: Any = node.args[0]
    dims = low.axes(x, argument(node, 1, "dim"))
    if len(dims) != 1:
        raise unsupported(node, f"takes log-sum-exp over {len(dims)} axes; only one at a time is supported")
    return low.builder.add("logsumexp", low.index(x), dim=dims[0], keepdim=bool(argument(node, 2, "keepdim", False)))


@lowers("linalg_vector_norm.default", "norm.ScalarOpt_dim")
def norm(low: Lowering, node: fx.Node) -> int:
    """The 1, 2 or maximum norm over axes."""
    x: Any = node.args[0]
    build, order, index = low.builder, argument(node, 1, "ord", 2), low.index(x)
    dims, keepdim = low.axes(x, argument(node, 2, "dim")), bool(argument(node, 3, "keepdim", False))
    if order == 2:
        return build.add("sqrt", build.add("sum", build.add("square", index), dims=dims, keepdim=keepdim))
    size = build.add("abs", index)
    if order == 1:
        return build.add("sum", size, dims=dims, keepdim=keepdim)
    if order == math.inf:
        return composed.largest(build, size, dims, keepdim)
    raise unsupported(node, f"is a norm of order {order}; 1, 2 and infinity are supported")


@lowers("var.correction", "var.dim", "std.correction", "std.dim")
def variance(low: Lowering, node: fx.Node) -> int:
    """The mean square distance from the mean over axes, with torch's correction of the count, or its root."""
    x: Any = node.args[0]
    build, dims, keepdim = low.builder, low.axes(x, argument(node, 1, "dim")), bool(node.kwargs.get("keepdim", False))
    if str(node.target).endswith(".dim"):
        correction, keepdim = int(argument(node, 2, "unbiased", True)), bool(argument(node, 3, "keepdim", False))
    else:
        given = node.kwargs.get("correction")
        correction = 1 if given is None else given  # type: ignore[assignment]
    index = low.index(x)
    centred = build.broadcast("sub", index, build.add("mean", index, dims=dims, keepdim=True))
    total = build.add("sum", build.add("square", centred), dims=dims, keepdim=keepdim)
    count = math.prod(build.shape(index)[d] for d in dims)
    found = build.broadcast("mul", total, build.constant(1 / (count - correction)))
    return build.add("sqrt", found) if "std" in str(node.target) else found
