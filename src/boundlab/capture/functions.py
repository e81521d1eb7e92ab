"""Functions of numbers, coordinate by coordinate, written once for every front end: they take and return graph nodes."""

from __future__ import annotations

import math

import numpy as np

from boundlab.capture import recognise
from boundlab.capture.builder import Builder
from boundlab.errors import UnsupportedOperator

# -- arithmetic ----------------------------------------------------------------------------------------------------------

def times(build: Builder, x: int, factor: float) -> int:
    """factor * x."""
    return x if factor == 1 else build.broadcast("mul", x, build.constant(float(factor)))


def plus(build: Builder, x: int, number: float) -> int:
    """x + number."""
    return x if number == 0 else build.broadcast("add", x, build.constant(float(number)))


def met(build: Builder, x: int, y: int) -> int:
    """The first of two nodes in the shape that both broadcast to."""
    return build.aligned(x, np.broadcast_shapes(build.shape(x), build.shape(y)))


def multiply(build: Builder, x: int, y: int) -> int:
    """A product; of a value with itself, a square (tighter, since it is one argument); or an activation that is one."""
    if x == y:
        return build.add("square", x)
    found = recognise.gated(build, x, y)
    return build.broadcast("mul", x, y) if found is None else found


def subtract(build: Builder, x: int, y: int) -> int:
    """A difference."""
    found = recognise.difference(build, x, y)
    return build.broadcast("sub", x, y) if found is None else found


def divide(build: Builder, x: int, y: int) -> int:
    """x times the reciprocal of y; a written number is inverted now."""
    known = recognise.number(build, y)
    if known is not None and known != 0:
        return times(build, met(build, x, y), 1 / known)
    found = recognise.quotient(build, x, y)
    return build.broadcast("mul", x, inverse(build, y)) if found is None else found


def inverse(build: Builder, x: int) -> int:
    """1 / x; of a square root or a cosine, one operator (tighter)."""
    node = build.nodes[x]
    whole = {"sqrt": "rsqrt", "cos": "sec"}.get(node.op)
    return build.add("reciprocal", x) if whole is None else build.add(whole, node.args[0])


def power(build: Builder, x: int, exponent: float) -> int:
    """x ** exponent, by the operator that knows how it bends."""
    if exponent == 0:
        return plus(build, times(build, x, 0.0), 1.0)
    if exponent == 1:
        return x
    if exponent == -1:
        return inverse(build, x)
    named = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt"}
    return build.add(named[exponent], x) if exponent in named else build.add("pow", x, exponent=float(exponent))


def powers(build: Builder, x: int, exponents: int) -> int:
    """x ** y for exponents that are a node of their own: exp(y log x), for positive x."""
    return build.add("exp", build.broadcast("mul", exponents, build.add("log", x)))


def maximum(build: Builder, x: int, y: int) -> int:
    """The larger of two values; of one value and a written number, one operator of one argument (tighter)."""
    for value, bound in ((x, y), (y, x)):
        known = recognise.number(build, bound)
        if known is not None and value in build.varying:
            return clip(build, met(build, value, bound), known, None)
    return build.broadcast("maximum", x, y)


def minimum(build: Builder, x: int, y: int) -> int:
    """The smaller of two values."""
    for value, bound in ((x, y), (y, x)):
        known = recognise.number(build, bound)
        if known is not None and value in build.varying:
            return clip(build, met(build, value, bound), None, known)
    return build.add("neg", build.broadcast("maximum", build.add("neg", x), build.add("neg", y)))


def remainder(build: Builder, x: int, y: float, rounding: str) -> int:
    """x - y floor(x / y), or with `trunc` for `floor`."""
    whole = build.add(rounding, times(build, x, 1 / y))
    return build.broadcast("sub", x, times(build, whole, y))


def ceil(build: Builder, x: int) -> int:
    """- floor(-x)."""
    return build.add("neg", build.add("floor", build.add("neg", x)))


# -- conditions: 1 for true, 0 for false ---------------------------------------------------------------------------------

def greater(build: Builder, x: int, y: int, *, or_equal: bool = False) -> int:
    """Whether x > y, or x >= y."""
    gap = x if recognise.number(build, y) == 0 else build.broadcast("sub", x, y)
    return build.add("heaviside", gap, at_zero=float(or_equal))


def negation(build: Builder, condition: int) -> int:
    """Whether a condition does not hold."""
    return plus(build, build.add("neg", condition), 1.0)


def both(build: Builder, x: int, y: int) -> int:
    """Whether two conditions hold."""
    return minimum(build, x, y)


def either(build: Builder, x: int, y: int) -> int:
    """Whether one of two conditions holds."""
    return build.broadcast("maximum", x, y)


def select(build: Builder, condition: int, x: int, y: int) -> int:
    """x where a condition holds, else y; of a comparison, the operator that sees what is compared."""
    node = build.nodes[condition]
    if node.op == "heaviside" and node.attrs["at_zero"] in (0, 1):
        source, at_zero = node.args[0], node.attrs["at_zero"] == 1
        found = recognise.choice(build, source, x, y)
        return build.broadcast("select", source, x, y, at_zero=at_zero) if found is None else found
    return build.broadcast("select", plus(build, condition, -0.5), x, y)


# -- activations ---------------------------------------------------------------------------------------------------------

def ordered(bottom: float | None, top: float | None) -> tuple[float | None, float | None]:
    """The ends of a clip; where they cross, torch and ONNX let the upper one win."""
    if bottom is None or top is None:
        return None if bottom is None else float(bottom), None if top is None else float(top)
    return float(min(bottom, top)), float(top)


def clip(build: Builder, x: int, bottom: float | None, top: float | None) -> int:
    """x cut off below and above by numbers, either of which may be missing."""
    bottom, top = ordered(bottom, top)
    if bottom is None and top is None:
        return x
    return build.add("relu", x) if bottom == 0 and top is None else build.add("clip", x, min=bottom, max=top)


def hard_sigmoid(build: Builder, x: int, slope: float = 1 / 6, shift: float = 0.5) -> int:
    """slope * x + shift, cut off to [0, 1]."""
    return build.add("clip", plus(build, times(build, x, slope), shift), min=0.0, max=1.0)


def softplus(build: Builder, x: int, beta: float = 1.0, threshold: float = math.inf) -> int:
    """log(1 + exp(beta x)) / beta, and x itself from beta x > threshold on."""
    if beta <= 0:
        raise UnsupportedOperator(f"its beta is {beta}, which must be positive")
    return times(build, build.add("softplus", times(build, x, beta), threshold=float(threshold)), 1 / beta)


def exponential_unit(build: Builder, x: int, alpha: float, scale: float = 1.0, rate: float = 1.0) -> int:
    """scale * (x above zero, alpha * (exp(rate * x) - 1) below): ELU, SELU, CELU."""
    if alpha < 0 or rate < 0:
        raise UnsupportedOperator(f"its numbers are alpha {alpha} and rate {rate}, which must not be negative")
    return times(build, build.add("elu", x, scale=float(alpha), rate=float(rate)), scale)


SELU = (1.6732632423543772848170429916717, 1.0507009873554804934193349852946)
"""Alpha and scale of SELU. Klambauer et al. 2017."""


# -- slopes, as in a network's Jacobian ----------------------------------------------------------------------------------

def slope_at(build: Builder, output: int, op: str) -> int:
    """The slope of sigmoid or tanh from its value y: an operator of the argument if that is known, else y - y^2 or 1 - y^2."""
    node = build.nodes[output]
    if node.op == op:
        return build.add({"sigmoid": "sigmoid_grad", "tanh": "tanh_grad"}[op], node.args[0])
    square = build.add("square", output)
    return build.broadcast("sub", output, square) if op == "sigmoid" else negation(build, square)
