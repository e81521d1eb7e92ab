"""Nonlinear operators of ONNX, and products, quotients and powers, which are linear or not by what is constant."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from boundlab.certificates.activations import ERF, GELU, HARD_SWISH, TANH_GELU, exponential_unit
from boundlab.certificates.builder import Builder, Operator, Value, Varying, exact
from boundlab.certificates.curves import (
    ACOS,
    ACOSH,
    ASIN,
    ASINH,
    ATAN,
    ATANH,
    COS,
    COSH,
    CUBE,
    EXP,
    LOG,
    RECIPROCAL,
    SIGMOID,
    SIN,
    SINH,
    SOFTPLUS,
    SOFTSIGN,
    SQRT,
    SQUARE,
    TAN,
    TANH,
)
from boundlab.certificates.functions import Function
from boundlab.certificates.joint import Largest, Product, Smallest
from boundlab.certificates.linear import Rule, quotient
from boundlab.certificates.piecewise import Floor, PiecewiseLinear, Sign, absolute, clipped, relu


def simple(function: Function) -> Rule:
    """An operator that is one function."""
    def rule(builder: Builder, operator: Operator) -> Value:
        value = operator.varying(0)
        return builder.nonlinear(operator.name, [value], function, value.shape)
    return rule


def leaky(builder: Builder, operator: Operator) -> Value:
    """LeakyRelu."""
    return simple(relu(float(operator.attributes.get("alpha", np.float32(0.01)))))(builder, operator)


def elu(builder: Builder, operator: Operator) -> Value:
    """Elu and Celu: alpha (e^x - 1), or alpha (e^(x / alpha) - 1), below 0."""
    alpha = float(operator.attributes.get("alpha", 1.0))
    if not 0 < alpha < np.inf:
        operator.refuse(f"with the alpha {alpha}")
    return simple(exponential_unit(alpha, 1 / alpha if operator.proto.op_type == "Celu" else 1.0))(builder, operator)


def selu(builder: Builder, operator: Operator) -> Value:
    """gamma x above 0, gamma alpha (e^x - 1) below."""
    alpha, gamma = (float(operator.attributes.get(name, np.float32(start)))
                    for name, start in (("alpha", 1.67326319217681884765625), ("gamma", 1.05070102214813232421875)))
    if not (0 < alpha < np.inf and 0 < gamma < np.inf):
        operator.refuse(f"with the alpha {alpha} and the gamma {gamma}")
    return simple(exponential_unit(gamma * alpha, steep=gamma))(builder, operator)


def gelu(builder: Builder, operator: Operator) -> Value:
    """x times the normal distribution of x, or its approximation with tanh."""
    kind = operator.attributes.get("approximate", "none")
    if kind not in ("none", "tanh"):
        operator.refuse(f"with the approximation '{kind}'")
    return simple(TANH_GELU if kind == "tanh" else GELU)(builder, operator)


def parametric(builder: Builder, operator: Operator) -> Value:
    """PRelu with constant slopes."""
    value, slope = operator.varying(0), exact(operator.needed(1))
    if np.broadcast_shapes(slope.shape, value.shape) != tuple(value.shape):
        operator.refuse("with slopes that are more than the entries")
    return simple(relu(np.broadcast_to(slope, value.shape)))(builder, operator)


def clip(builder: Builder, operator: Operator) -> Value:
    """Clip to constants, which older files keep as attributes."""
    ends = [operator.constant(place) for place in (1, 2)]
    for place, name in enumerate(("min", "max")):
        if ends[place] is None and name in operator.attributes:
            ends[place] = np.array(operator.attributes[name])
    low, high = (None if end is None or float(end) == none else exact(end).reshape(1, 1)
                 for end, none in zip(ends, (-np.inf, np.inf), strict=True))
    if low is None and high is None:
        return operator.varying(0)
    if low is not None and high is not None and low > high:
        operator.refuse("with its ends in the wrong order")
    return simple(clipped(low, high))(builder, operator)


def hard_sigmoid(builder: Builder, operator: Operator) -> Value:
    """max(0, min(1, alpha x + beta)): an affine step of its own, then a clip."""
    alpha, beta = (float(operator.attributes.get(name, np.float32(start))) for name, start in (("alpha", 0.2), ("beta", 0.5)))
    inner = builder.scaled(f"{operator.name}:inner", operator.varying(0), np.array(alpha), beta)
    return builder.nonlinear(operator.name, [inner], clipped(np.zeros((1, 1)), np.ones((1, 1))), inner.shape)


def extremum(largest: bool) -> Rule:
    """Max or Min of several tensors; constants among them are one bound of a clip."""
    def rule(builder: Builder, operator: Operator) -> Value:
        values = [value for value in operator.inputs if value is not None]
        shape = np.broadcast_shapes(*(value.shape for value in values))
        varying = [builder.broadcast(operator.name, value, shape) for value in values if isinstance(value, Varying)]
        fixed = [np.broadcast_to(exact(value), shape) for value in values if not isinstance(value, Varying)]
        found = varying[0]
        if len(varying) > 1:
            name = operator.name if not fixed else f"{operator.name}:varying"
            found = builder.nonlinear(name, varying, (Largest if largest else Smallest)(len(varying)), shape)
        if fixed:
            end = (np.maximum if largest else np.minimum).reduce(fixed).reshape(-1, 1)
            found = builder.nonlinear(operator.name, [found], clipped(end, None) if largest else clipped(None, end), shape)
        return found
    return rule


def multiplied(builder: Builder, operator: Operator) -> Value:
    """Mul: a scaling, a square, or a product of two tensors that vary."""
    first, second = operator.inputs
    assert first is not None and second is not None
    if not isinstance(first, Varying):
        return builder.scaled(operator.name, operator.varying(1), exact(first), 0.0)
    if not isinstance(second, Varying):
        return builder.scaled(operator.name, first, exact(second), 0.0)
    return times(builder, operator.name, first, second)


def times(builder: Builder, name: str, first: Varying, second: Varying) -> Varying:
    """The product of two tensors that vary."""
    if first == second:
        return builder.nonlinear(name, [first], SQUARE, first.shape)
    shape = np.broadcast_shapes(first.shape, second.shape)
    return builder.nonlinear(name, [builder.broadcast(name, value, shape) for value in (first, second)], Product(), shape)


def divided(builder: Builder, operator: Operator) -> Value:
    """Div: a scaling, or a product with a reciprocal, which is a step of its own named `NAME:reciprocal`."""
    first, second = operator.inputs
    assert first is not None and second is not None
    if not isinstance(second, Varying):
        return quotient(builder, operator, operator.varying(0), second)
    inverse = builder.nonlinear(f"{operator.name}:reciprocal", [second], RECIPROCAL, second.shape)
    if isinstance(first, Varying):
        return times(builder, operator.name, first, inverse)
    return builder.scaled(operator.name, inverse, exact(first), 0.0)


def power(builder: Builder, operator: Operator) -> Value:
    """Pow with the exponent 1, 2 or 3."""
    value, exponent = operator.varying(0), np.unique(exact(operator.needed(1)))
    known: dict[float, Callable[[], Value]] = {
        1.0: lambda: value, 2.0: lambda: simple(SQUARE)(builder, operator), 3.0: lambda: simple(CUBE)(builder, operator)}
    if len(exponent) != 1 or float(exponent[0]) not in known:
        operator.refuse(f"with the exponents {exponent.tolist()[:4]}")
    if np.broadcast_shapes(operator.needed(1).shape, value.shape) != tuple(value.shape):
        operator.refuse("with more exponents than entries")
    return known[float(exponent[0])]()


FLEXIBLE: dict[str, PiecewiseLinear] = {"Relu": relu(), "Abs": absolute()}
FUNCTIONS: dict[str, Rule] = {
    **{name: simple(function) for name, function in FLEXIBLE.items()},
    "Sign": simple(Sign()), "Floor": simple(Floor()), "Sigmoid": simple(SIGMOID), "Tanh": simple(TANH), "Exp": simple(EXP),
    "Log": simple(LOG), "Sqrt": simple(SQRT), "Reciprocal": simple(RECIPROCAL), "Softplus": simple(SOFTPLUS),
    "Sin": simple(SIN), "Cos": simple(COS), "LeakyRelu": leaky, "PRelu": parametric, "Clip": clip, "HardSigmoid": hard_sigmoid,
    "Elu": elu, "Celu": elu, "Selu": selu, "Gelu": gelu, "HardSwish": simple(HARD_SWISH), "Erf": simple(ERF),
    "Softsign": simple(SOFTSIGN), "Tan": simple(TAN), "Asin": simple(ASIN), "Acos": simple(ACOS), "Atan": simple(ATAN),
    "Sinh": simple(SINH), "Cosh": simple(COSH), "Asinh": simple(ASINH), "Acosh": simple(ACOSH), "Atanh": simple(ATANH),
    "Max": extremum(True), "Min": extremum(False), "Mul": multiplied, "Div": divided, "Pow": power,
}
