"""Functions that a network spells out with others, seen in the graph so far: one operator is tighter than its parts.

Each function looks at the arguments of a node that is about to be built, and returns the node of the whole function, or None.
Only numbers that are written in the network count as known, since parameters may change later; and the function found is the
one that is written, to rounding.
"""

from __future__ import annotations

import math

import torch

from boundlab.capture.builder import Builder
from boundlab.graph import PARAMETER, Node

WRITTEN = "constant."
"""How the names of nodes begin that hold numbers written in the network (`Builder.constant`)."""


def number(build: Builder, index: int) -> float | None:
    """The value of a node that is one written number (or the same one everywhere), else None."""
    node = build.nodes[index]
    while node.op in ("reshape", "expand"):
        node = build.nodes[node.args[0]]
    if node.op != PARAMETER or not node.name.startswith(WRITTEN):
        return None
    value = build.params[node.name]
    if value.requires_grad or value.numel() == 0 or not bool((value == value.flatten()[0]).all()):
        return None
    return float(value.flatten()[0])


def close(build: Builder, found: float | None, wanted: float) -> bool:
    """Whether a number is the wanted one, to rounding."""
    return found is not None and abs(found - wanted) <= 8 * torch.finfo(build.dtype).eps * abs(wanted)


def unscaled(build: Builder, index: int) -> tuple[int, float]:
    """A node as a number times another node: products with written numbers are taken apart."""
    factor = 1.0
    while build.nodes[index].op == "mul":
        first, second = build.nodes[index].args
        known = number(build, second)
        if known is None:
            first, second, known = second, first, number(build, first)
        if known is None or build.shape(first) != build.shape(index):
            break
        index, factor = first, factor * known
    return index, factor


def more(build: Builder, index: int, amount: float) -> int | None:
    """The other term, if a node is a sum with this written number."""
    node = build.nodes[index]
    if node.op == "add":
        for term, other in (node.args, node.args[::-1]):
            if close(build, number(build, other), amount):
                return term
    return None


def scaled(build: Builder, op: str, x: int, factor: float, inner: float = 1.0) -> int:
    """factor * op(inner * x)."""
    x = x if inner == 1 else build.broadcast("mul", x, build.constant(inner))
    found = build.add(op, x)
    return found if factor == 1 else build.broadcast("mul", found, build.constant(factor))


# -- products: x sigmoid(x), x Phi(x), x tanh(softplus(x)) ----------------------------------------------------------------

def gated(build: Builder, first: int, second: int) -> int | None:
    """A product that is SiLU, GELU or Mish."""
    for x, gate in ((first, second), (second, first)):
        (x, outer), (gate, factor) = unscaled(build, x), unscaled(build, gate)
        if x not in build.varying or gate not in build.varying:
            continue
        found = gate_of(build, x, build.nodes[gate])
        if found is not None:
            op, amount, inner = found
            return scaled(build, op, x, outer * factor * amount, inner)
    return None


def gate_of(build: Builder, x: int, gate: Node) -> tuple[str, float, float] | None:
    """The operator, a factor and an inner factor for which x * gate = factor * operator(inner x)."""
    if gate.op == "sigmoid":
        source, inner = unscaled(build, gate.args[0])
        return ("silu", 1 / inner, inner) if source == x and inner != 0 else None
    if gate.op == "tanh":
        soft = build.nodes[gate.args[0]]
        return ("mish", 1.0, 1.0) if soft.op == "softplus" and soft.args[0] == x else None
    inside = more(build, gate.index, 1.0)
    return None if inside is None else gelu_gate(build, x, build.nodes[inside])


def gelu_gate(build: Builder, x: int, node: Node) -> tuple[str, float, float] | None:
    """GELU's gate less one: erf(x / sqrt(2)), or tanh(sqrt(2 / pi) (x + 0.044715 x^3)), each perhaps of a multiple of x."""
    if node.op == "erf":
        source, inner = unscaled(build, node.args[0])
        inner *= math.sqrt(2)
        inner = 1.0 if close(build, inner, 1.0) else inner
        return ("gelu", 2 / inner, inner) if source == x and inner > 0 else None
    if node.op != "tanh":
        return None
    source, inner = unscaled(build, node.args[0])
    total = build.nodes[source]
    if total.op != "add" or not close(build, inner, math.sqrt(2 / math.pi)):
        return None
    for linear, cubic in (total.args, total.args[::-1]):
        power, factor = unscaled(build, cubic)
        cube = build.nodes[power]
        cubed = cube.op == "pow" and cube.attrs["exponent"] == 3 and cube.args[0] == x
        if linear == x and cubed and close(build, factor, 0.044715):
            return "tanh_gelu", 2.0, 1.0
    return None


# -- others --------------------------------------------------------------------------------------------------------------

def quotient(build: Builder, x: int, y: int) -> int | None:
    """x / (1 + |x|)."""
    inside = more(build, y, 1.0)
    if inside is not None and build.nodes[inside].op == "abs" and build.nodes[inside].args[0] == x:
        return build.add("softsign", x)
    return None


def difference(build: Builder, x: int, y: int) -> int | None:
    """x - tanh(x)."""
    return build.add("tanhshrink", x) if build.nodes[y].op == "tanh" and build.nodes[y].args[0] == x else None


def choice(build: Builder, condition: int, x: int, y: int) -> int | None:
    """x above zero and a multiple of it, or 0, below; or a function that shrinks its argument towards 0."""
    if number(build, y) == 0 and x == condition:
        return build.add("relu", x)
    source, factor = unscaled(build, y)
    if x == source == condition:
        return build.add("leaky_relu", x, negative_slope=factor)
    return shrinking(build, build.nodes[condition], x, y)


def shrinking(build: Builder, condition: Node, x: int, y: int) -> int | None:
    """0 where lambd - |z| >= 0, else z; or z - lambd sign(z) where |z| - lambd > 0, else 0 z."""
    if condition.op != "sub":
        return None
    size, bound = condition.args if number(build, condition.args[1]) is not None else condition.args[::-1]
    lambd = number(build, bound)
    if lambd is None or lambd < 0 or build.nodes[size].op != "abs":
        return None
    z = build.nodes[size].args[0]
    if size == condition.args[1] and number(build, x) == 0 and y == z:
        return build.add("hard_shrink", z, lambd=lambd)
    moved, factor = build.nodes[x], unscaled(build, y)[1]
    if size == condition.args[0] and (factor == 0 or number(build, y) == 0) and moved.op == "sub" and moved.args[0] == z:
        sign, amount = unscaled(build, moved.args[1])
        if build.nodes[sign].op == "sign" and build.nodes[sign].args[0] == z and amount == lambd:
            return build.add("soft_shrink", z, lambd=lambd)
    return None
