"""Rows about reference values: a row acts on how far a node's value is from a constant, and nearly all biases vanish.

Any constant is sound. At sources it is the middle of the set's box, where boxes need radii alone. Affine nodes carry it on, so
that they have no bias; at other nodes it is the lower relaxation's value, so that only the upper one has an intercept.
What is lost on the way down, rows . reference, is added once, at the node where the rows begin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from boundlab.affine import Affine, LinearBound
from boundlab.bounds.backward import Env, Pulled, Relaxer, backward, plus
from boundlab.graph import Graph, Node
from boundlab.interval import Interval
from boundlab.maps import Rows


@dataclass(frozen=True)
class Reference:
    """Relaxations about reference values (without the constants that these absorb), and the values, (b, *shape) by node."""

    relax: Relaxer
    value: Callable[[int], Tensor]


def reference(graph: Graph, env: Env, relax: Relaxer) -> Reference:
    """Reference values of the nodes below whatever is asked for, each made once and only then."""
    values: dict[int, Tensor] = {}
    made: dict[int, LinearBound] = {}

    def prepare(index: int) -> None:
        for below in missing(graph, env, index, values):
            node, interval = graph[below], env[below]
            assert isinstance(interval, Interval)
            if node.source:
                values[below] = interval.center
            else:
                arguments = [arg for arg in node.args if isinstance(env[arg], Interval)]
                made[below], values[below] = centred(relax(node), [values[arg] for arg in arguments])

    def relax_about(node: Node) -> LinearBound:
        if node.index not in made:
            prepare(node.index)
        return made[node.index]

    def value(index: int) -> Tensor:
        if index not in values:
            prepare(index)
        return values[index]

    return Reference(relax_about, value)


def missing(graph: Graph, env: Env, index: int, values: dict[int, Tensor]) -> list[int]:
    """The perturbed nodes at or below `index` that have no value yet, in topological order."""
    found, stack = set[int](), [index]
    while stack:
        place = stack.pop()
        if place not in values and place not in found and isinstance(env[place], Interval):
            found.add(place)
            stack.extend(graph[place].args)
    return sorted(found)


def centred(bound: LinearBound, arguments: list[Tensor]) -> tuple[LinearBound, Tensor]:
    """The relaxation between distances from reference values, and the reference value of its result."""
    low = value_of(bound.lower, arguments)
    result = low[:, 0]
    below = Affine(bound.lower.maps, None if low.shape[1] == 1 else low - low[:, :1])
    if bound.exact:
        return LinearBound(below, below), result
    return LinearBound(below, Affine(bound.upper.maps, value_of(bound.upper, arguments) - low[:, :1])), result


def around(bound: LinearBound, arguments: list[Tensor], result: Tensor) -> LinearBound:
    """The relaxation between distances from given reference values, of its arguments and of its result (b, *out)."""
    if bound.exact:
        affine = Affine(bound.lower.maps)
        return LinearBound(affine, affine)
    below, above = (Affine(side.maps, value_of(side, arguments) - result.unsqueeze(1)) for side in (bound.lower, bound.upper))
    return LinearBound(below, above)


def value_of(affine: Affine, arguments: list[Tensor]) -> Tensor:
    """An affine function at one point, (b, s, *out)."""
    total = affine.bias
    for layer, argument in zip(affine.maps, arguments, strict=True):
        total = plus(total, layer.push(argument.unsqueeze(1)))
    assert total is not None
    return total


def pull(graph: Graph, env: Env, about: Reference, target: int, rows: Rows) -> Pulled:
    """Rows of node `target` pulled back to the sources about reference values."""
    pulled = backward(graph, env, about.relax, target, rows)
    references = {index: about.value(index) for index in pulled.coefficients}
    return Pulled(pulled.coefficients, plus(pulled.bias, rows.dot(about.value(target).unsqueeze(1))), references)
