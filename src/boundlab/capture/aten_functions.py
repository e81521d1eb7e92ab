"""Lowerings of torch functions that work coordinate by coordinate: arithmetic, rounding, comparisons, choices, activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import fx

from boundlab.capture import composed, functions, recognise
from boundlab.capture.aten_shape import cut
from boundlab.capture.builder import Builder
from boundlab.capture.lowering import Lowering
from boundlab.capture.table import Rule, argument, lowers, operands, unsupported
from boundlab.errors import UnsupportedOperator


def kind_of(node: fx.Node) -> str:
    """The name of a program node's operator, without its overload: "add"."""
    return str(node.target).removeprefix("aten.").split(".")[0]


def refusing(low: Lowering, node: fx.Node, build: Callable[[], int]) -> int:
    """What `build` builds; its refusal is completed with the node's place."""
    try:
        return build()
    except UnsupportedOperator as problem:
        raise unsupported(node, f"cannot be bounded: {problem}") from problem


# -- arithmetic ----------------------------------------------------------------------------------------------------------

Binary = Callable[[Builder, int, int], int]


def binary(rule: Binary, *, swapped: bool = False) -> Rule:
    """x op (alpha * y) with broadcasting, or y op x."""

    def lower(low: Lowering, node: fx.Node) -> int:
        first, second = operands(low, node.args[0], node.args[1])
        second = functions.times(low.builder, second, argument(node, 2, "alpha", 1))
        return rule(low.builder, *((second, first) if swapped else (first, second)))

    return lower


def add(build: Builder, x: int, y: int) -> int:
    """A sum; a constant that masks with minus infinity is made finite."""
    if (x in build.varying) != (y in build.varying):
        x, y = (part if part in build.varying else composed.additive_mask(build, part) for part in (x, y))
    return build.broadcast("add", x, y)


for targets, pair in (
        (("add.Tensor", "add.Scalar"), add), (("sub.Tensor", "sub.Scalar"), functions.subtract),
        (("mul.Tensor", "mul.Scalar"), functions.multiply), (("div.Tensor", "div.Scalar"), functions.divide),
        (("maximum.default", "max.other", "fmax.default"), functions.maximum),
        (("minimum.default", "min.other", "fmin.default"), functions.minimum)):
    lowers(*targets)(binary(pair))
lowers("rsub.Scalar", "rsub.Tensor")(binary(functions.subtract, swapped=True))


@lowers("reciprocal.default")
def reciprocal(low: Lowering, node: fx.Node) -> int:
    """1 / x."""
    return functions.inverse(low.builder, low.index(node.args[0]))


@lowers("pow.Tensor_Scalar")
def power(low: Lowering, node: fx.Node) -> int:
    """x to a known exponent."""
    return functions.power(low.builder, low.index(node.args[0]), float(node.args[1]))  # type: ignore[arg-type]


@lowers("pow.Scalar")
def exponential(low: Lowering, node: fx.Node) -> int:
    """base ** x, as exp(x log base)."""
    base: Any = node.args[0]
    if base <= 0:
        raise unsupported(node, f"raises {base} to a power; the base must be positive")
    return low.builder.add("exp", functions.times(low.builder, low.index(node.args[1]), math.log(base)))


@lowers("pow.Tensor_Tensor")
def powers(low: Lowering, node: fx.Node) -> int:
    """x ** y: one known exponent for all entries, else exp(y log x), for positive x."""
    x, exponents = operands(low, *node.args[:2])
    if exponents not in low.builder.varying:
        known = low.builder.known(exponents).unique()
        if len(known) == 1 and not known.requires_grad:
            return functions.power(low.builder, low.builder.aligned(x, low.result_shape()), float(known))
    return functions.powers(low.builder, x, exponents)


@lowers("remainder.Scalar", "fmod.Scalar", "floor_divide.default", "div.Tensor_mode", "div.Scalar_mode", "frac.default")
def staircases(low: Lowering, node: fx.Node) -> int:
    """Quotients that are rounded down or towards zero, and what remains."""
    kind, build, x = kind_of(node), low.builder, low.index(node.args[0])
    divisor: Any = 1.0 if kind == "frac" else node.args[1]
    mode = argument(node, 2, "rounding_mode")
    if not isinstance(divisor, (int, float)):
        if kind == "div" and mode is None:
            return functions.divide(build, *operands(low, node.args[0], divisor))
        divisor = recognise.number(build, low.index(divisor))
    if not divisor:
        raise unsupported(node, "rounds a quotient; its divisor must be a number other than 0")
    if kind in ("remainder", "fmod", "frac"):
        return functions.remainder(build, x, float(divisor), "floor" if kind == "remainder" else "trunc")
    quotient = functions.times(build, x, 1 / divisor)
    rounding = {"floor_divide": "floor", "floor": "floor", "trunc": "trunc"}.get(kind if mode is None else mode)
    return quotient if rounding is None else build.add(rounding, quotient)


@lowers("round.decimals")
def round_to(low: Lowering, node: fx.Node) -> int:
    """x rounded to some decimals."""
    unit = 10.0 ** argument(node, 1, "decimals", 0)
    scaled = low.builder.add("round", functions.times(low.builder, low.index(node.args[0]), unit))
    return functions.times(low.builder, scaled, 1 / unit)


@lowers("ceil.default")
def ceil(low: Lowering, node: fx.Node) -> int:
    """The smallest whole number from x on."""
    return functions.ceil(low.builder, low.index(node.args[0]))


# -- conditions and choices ----------------------------------------------------------------------------------------------

def known_or(low: Lowering, node: fx.Node, build: Callable[[], int]) -> int:
    """The value of a call of which no input decides anything, computed now; else what `build` builds."""
    arguments = [part for part in node.args if isinstance(part, fx.Node)]
    if any(low.varies(part) for part in arguments):
        return build()
    values = {part: low.builder.known(low.index(part))[0] for part in arguments}
    target: Any = node.target
    return low.builder.constant(target(*fx.map_arg(node.args, values.__getitem__)))


def comparison(first: int, second: int, *, or_equal: bool) -> Rule:
    """Whether argument number `first` is greater than number `second`."""

    def lower(low: Lowering, node: fx.Node) -> int:
        def build() -> int:
            pair = operands(low, *node.args[:2])
            return functions.greater(low.builder, pair[first], pair[second], or_equal=or_equal)

        return known_or(low, node, build)

    return lower


for name, places, equal in (("gt", (0, 1), False), ("ge", (0, 1), True), ("lt", (1, 0), False), ("le", (1, 0), True)):
    lowers(f"{name}.Scalar", f"{name}.Tensor")(comparison(*places, or_equal=equal))


@lowers("logical_and.default", "logical_or.default", "__and__.Tensor", "__or__.Tensor", "bitwise_and.Tensor",
        "bitwise_or.Tensor")
def junction(low: Lowering, node: fx.Node) -> int:
    """Whether both conditions hold, or one of them."""
    rule = functions.both if "and" in kind_of(node) else functions.either
    return known_or(low, node, lambda: rule(low.builder, *(numeric(low, part) for part in operands(low, *node.args[:2]))))


@lowers("logical_not.default", "bitwise_not.default")
def negation(low: Lowering, node: fx.Node) -> int:
    """Whether a condition does not hold."""
    return known_or(low, node, lambda: functions.negation(low.builder, low.index(node.args[0])))


def numeric(low: Lowering, index: int) -> int:
    """A constant condition as the numbers 1 and 0."""
    if index in low.builder.varying:
        return index
    return low.builder.constant(low.builder.known(index)[0].to(low.builder.dtype))


@lowers("heaviside.default")
def heaviside(low: Lowering, node: fx.Node) -> int:
    """0 below zero, 1 above, and one known number at zero."""
    x, at_zero = operands(low, *node.args[:2])
    known = None if at_zero in low.builder.varying else low.builder.known(at_zero).unique()
    if known is None or len(known) != 1:
        raise unsupported(node, "has several values at zero, or one that depends on an input; give one number")
    return low.builder.add("heaviside", low.builder.aligned(x, low.result_shape()), at_zero=float(known))


@lowers("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def where(low: Lowering, node: fx.Node) -> int:
    """x where a condition holds, else y; an input may decide the condition by a comparison."""
    return choice(low, *operands(low, *node.args[:3]))


@lowers("masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(low: Lowering, node: fx.Node) -> int:
    """A number where a mask holds, else x."""
    x, mask, value = operands(low, *node.args[:3])
    return choice(low, mask, value, x)


@lowers("threshold_backward.default")
def relu_backward(low: Lowering, node: fx.Node) -> int:
    """A gradient where x is above a threshold, else 0."""
    gradient, x, bound = operands(low, *node.args[:3])
    return choice(low, functions.greater(low.builder, x, bound), gradient, low.builder.constant(0.0))


@lowers("sigmoid_backward.default", "tanh_backward.default")
def slope_backward(low: Lowering, node: fx.Node) -> int:
    """A gradient times the slope of sigmoid or tanh, which is known by its value."""
    gradient, output = operands(low, *node.args[:2])
    return low.builder.broadcast("mul", gradient, functions.slope_at(low.builder, output, kind_of(node).split("_")[0]))


def choice(low: Lowering, condition: int, x: int, y: int) -> int:
    """x where a condition holds, else y."""
    if condition in low.builder.varying:
        parts = (part if part in low.builder.varying else composed.additive_mask(low.builder, part) for part in (x, y))
        return functions.select(low.builder, condition, *parts)
    return composed.chosen(low.builder, low.builder.known(condition)[0].bool(), x, y)


# -- activations ---------------------------------------------------------------------------------------------------------

@lowers("clamp.default", "clamp_min.default", "clamp_max.default", "hardtanh.default", "relu6.default", "clip.default")
def clip(low: Lowering, node: fx.Node) -> int:
    """x cut off below and above by numbers."""
    ends = {
        "clamp_min": (argument(node, 1, "min"), None), "clamp_max": (None, argument(node, 1, "max")), "relu6": (0.0, 6.0),
        "hardtanh": (argument(node, 1, "min_val", -1.0), argument(node, 2, "max_val", 1.0)),
    }.get(kind_of(node), (argument(node, 1, "min"), argument(node, 2, "max")))
    return functions.clip(low.builder, low.index(node.args[0]), *ends)


@lowers("clamp.Tensor", "clamp_min.Tensor", "clamp_max.Tensor")
def clip_between(low: Lowering, node: fx.Node) -> int:
    """x cut off below and above by tensors."""
    kind = kind_of(node)
    bottom = None if kind == "clamp_max" else argument(node, 1, "min")
    top = argument(node, 1, "max") if kind == "clamp_max" else argument(node, 2, "max")
    x = low.index(node.args[0])
    if bottom is not None:
        x = functions.maximum(low.builder, x, operands(low, node.args[0], bottom)[1])
    return x if top is None else functions.minimum(low.builder, x, operands(low, node.args[0], top)[1])


@lowers("prelu.default", "_prelu_kernel.default")
def prelu(low: Lowering, node: fx.Node) -> int:
    """A slope below zero for each channel (the axis after the batch)."""
    x, weight = low.index(node.args[0]), low.index(node.args[1])
    size, axes = math.prod(low.builder.shape(weight)), len(low.builder.shape(x))
    weight = low.builder.add("reshape", weight, shape=(size, *[1] * max(axes - 1, 0)))
    return low.builder.broadcast("prelu", x, weight)


@lowers("rrelu.default", "rrelu_with_noise.default")
def randomized_relu(low: Lowering, node: fx.Node) -> int:
    """Outside training, a leaky ReLU whose slope is in the middle of the range."""
    first = 2 if "noise" in kind_of(node) else 1
    if argument(node, first + 2, "training", False):
        raise unsupported(node, "draws a random slope in training mode; call module.eval() first")
    slope = (argument(node, first, "lower", 1 / 8) + argument(node, first + 1, "upper", 1 / 3)) / 2
    return low.builder.add("leaky_relu", low.index(node.args[0]), negative_slope=slope)


@lowers("elu.default", "selu.default", "celu.default")
def exponential_unit(low: Lowering, node: fx.Node) -> int:
    """Exponential below zero, linear above."""
    build, x, alpha = low.builder, low.index(node.args[0]), argument(node, 1, "alpha", 1.0)
    numbers = {"selu": functions.SELU, "celu": (alpha, 1.0, 1 / alpha)}.get(
        kind_of(node), (alpha, argument(node, 2, "scale", 1.0), argument(node, 3, "input_scale", 1.0)))
    return refusing(low, node, lambda: functions.exponential_unit(build, x, *numbers))


@lowers("gelu.default")
def gelu(low: Lowering, node: fx.Node) -> int:
    """x times the normal distribution, or its approximation with tanh."""
    exact = argument(node, 1, "approximate", "none") == "none"
    return low.builder.add("gelu" if exact else "tanh_gelu", low.index(node.args[0]))


@lowers("hardsigmoid.default")
def hard_sigmoid(low: Lowering, node: fx.Node) -> int:
    """x / 6 + 1/2, cut off to [0, 1]."""
    return functions.hard_sigmoid(low.builder, low.index(node.args[0]))


@lowers("softplus.default")
def softplus(low: Lowering, node: fx.Node) -> int:
    """log(1 + exp(beta x)) / beta, and a line from a threshold on."""
    beta, threshold = float(argument(node, 1, "beta", 1.0)), float(argument(node, 2, "threshold", 20.0))
    return refusing(low, node, lambda: functions.softplus(low.builder, low.index(node.args[0]), beta, threshold))


@lowers("glu.default")
def gated_unit(low: Lowering, node: fx.Node) -> int:
    """The first half times the sigmoid of the second."""
    build, x = low.builder, low.index(node.args[0])
    axis = low.axis(node.args[0], argument(node, 1, "dim", -1))  # type: ignore[arg-type]
    half = build.shape(x)[axis] // 2
    first, second = cut(low, node.args[0], axis, 0, half), cut(low, node.args[0], axis, half, 2 * half)
    return build.add("mul", first, build.add("sigmoid", second))


@lowers("softmax.int", "_softmax.default", "log_softmax.int", "_log_softmax.default")
def softmax(low: Lowering, node: fx.Node) -> int:
    """Softmax or its logarithm along an axis."""
    x: Any = node.args[0]
    op = "log_softmax" if "log_softmax" in kind_of(node) else "softmax"
    return low.builder.add(op, low.index(x), dim=low.axis(x, int(node.args[1])))  # type: ignore[arg-type]


# -- made of others ------------------------------------------------------------------------------------------------------

@lowers("erfc.default", "special_ndtr.default", "logit.default")
def special(low: Lowering, node: fx.Node) -> int:
    """1 - erf(x); the normal distribution (1 + erf(x / sqrt(2))) / 2; log(x) - log(1 - x)."""
    build, x, kind = low.builder, low.index(node.args[0]), kind_of(node)
    if kind == "erfc":
        return functions.negation(build, build.add("erf", x))
    if kind == "special_ndtr":
        half = functions.times(build, build.add("erf", functions.times(build, x, math.sqrt(0.5))), 0.5)
        return functions.plus(build, half, 0.5)
    if argument(node, 1, "eps") is not None:
        x = functions.clip(build, x, argument(node, 1, "eps"), 1 - argument(node, 1, "eps"))
    return build.broadcast("sub", build.add("log", x), build.add("log", functions.negation(build, x)))


@lowers("logaddexp.default", "xlogy.Tensor")
def of_two(low: Lowering, node: fx.Node) -> int:
    """log(exp(x) + exp(y)) = y + softplus(x - y); x log y."""
    build, (x, y) = low.builder, operands(low, *node.args[:2])
    if kind_of(node) == "logaddexp":
        return build.broadcast("add", y, build.add("softplus", build.broadcast("sub", x, y)))
    return build.broadcast("mul", x, build.add("log", y))
