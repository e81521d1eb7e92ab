"""The backward interpreter: rows of a node pulled through relaxations to the sources. One loop, lower bounds only.

Upper bounds are rows with the other sign. Zhang et al. 2018 (CROWN); Xu et al. 2020 (auto_LiRPA), Sec. 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from boundlab.affine import Affine, LinearBound
from boundlab.bounds.choice import choose_and_convolve, choose_lines
from boundlab.errors import BoundError
from boundlab.graph import Graph, Node
from boundlab.interval import Interval
from boundlab.maps import Conv, Dense, Explicit, Rows, add, compose, dot
from boundlab.perturbations.joint import Member, together
from boundlab.perturbations.sets import Box, PerturbationSet

Env = Mapping[int, Tensor | Interval]
Sets = Mapping[int, PerturbationSet]
Relaxer = Callable[[Node], LinearBound]
Left = tuple[list[Rows], Tensor | None]
"""Rows of an operator's perturbed arguments, and the bias (n, s) that they leave."""
Passage = Callable[[Rows], Left]
"""Another way through a node than by lines."""
Passing = Callable[[Node], LinearBound | Passage]


@dataclass(frozen=True)
class Pulled:
    """What rows became: their coefficients at the nodes where they stopped, and the collected bias (n, s).

    Where `reference` has a value (b, *shape) of a node, the coefficients act on the distance from it.
    """

    coefficients: Mapping[int, Rows]
    bias: Tensor | None
    reference: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def offset(self) -> Tensor | None:
        """The bias if coefficients act on the nodes' values themselves, (n, s)."""
        total = self.bias
        for index, value in self.reference.items():
            total = plus(total, -self.coefficients[index].dot(value.unsqueeze(1)))
        return total


def plus(total: Tensor | None, term: Tensor | None) -> Tensor | None:
    """A sum in which None means nothing."""
    if total is None or term is None:
        return total if term is None else term
    return total + term


def apply_bias(rows: Rows, bias: Tensor | None) -> Tensor | None:
    """Rows applied to an operator's bias (b, s, *out), (n, s)."""
    return None if bias is None else rows.dot(bias)


def pull_affine(rows: Rows, affine: Affine) -> tuple[list[Rows], Tensor | None]:
    """Rows through an affine function, one result for each perturbed argument."""
    return [compose(rows, layer) for layer in affine.maps], apply_bias(rows, affine.bias)


def choose(rows: Explicit, bound: LinearBound) -> tuple[list[Rows], Tensor | None]:
    """Diagonal relaxations: the lower line where a coefficient is positive, the upper line where it is negative."""
    if carries_gradients(rows, bound):
        return choose_lines(rows, bound)
    count = len(bound.lower.maps)
    laid = rows.laid(bound.choice)
    low, turn, offsets = laid[:count], laid[count:2 * count], laid[2 * count:]
    negative, bias = rows.coefficients.clamp(max=0), None
    if offsets:
        bias = dot(negative, offsets[-1])
    if len(offsets) == 2:
        bias = plus(bias, dot(rows.coefficients, offsets[0]))
    chosen = [sum_of_products(rows.coefficients, flat, negative, steep) for flat, steep in zip(low[1:], turn[1:], strict=True)]
    first = in_place(negative, turn[0], rows.coefficients, low[0])
    return [rows.with_coefficients(part) for part in (first, *chosen)], bias


def in_place(negative: Tensor, turn: Tensor, coefficients: Tensor, low: Tensor) -> Tensor:
    """coefficients * low + negative * turn, in the memory of `negative` unless the lines differ between more rows."""
    if turn.shape[1] > negative.shape[1] or low.shape[1] > negative.shape[1] or len(low) > len(negative):
        return sum_of_products(coefficients, low, negative, turn)
    return negative.mul_(turn).addcmul_(coefficients, low)


def sum_of_products(coefficients: Tensor, low: Tensor, negative: Tensor, turn: Tensor) -> Tensor:
    """coefficients * low + negative * turn in new memory, once where the two products have one shape."""
    first = coefficients * low
    return first.addcmul_(negative, turn) if turn.shape[:2] == low.shape[:2] else torch.addcmul(first, negative, turn)


def carries_gradients(rows: Rows, bound: LinearBound) -> bool:
    """Whether rows that meet an elementwise relaxation must leave a way back for autograd."""
    if not torch.is_grad_enabled() or bound.exact or not bound.elementwise:
        return False
    return rows.spread().coefficients.requires_grad or any(table.requires_grad for table in bound.choice.values)


def convolution_below(graph: Graph, env: Env, relax: Passing, node: Node) -> Node | None:
    """The only perturbed argument of a node, if that is a convolution which nothing else reads."""
    perturbed = [graph[arg] for arg in node.args if isinstance(env[arg], Interval)]
    if len(perturbed) != 1 or perturbed[0].source:
        return None
    bound = relax(perturbed[0])
    if not isinstance(bound, LinearBound):
        return None
    convolves = bound.exact and len(bound.lower.maps) == 1 and isinstance(bound.lower.maps[0], Conv)
    shared = sum(perturbed[0].index in other.args for other in graph) > 1
    return perturbed[0] if convolves and not shared else None


def pull_back(rows: Rows, bound: LinearBound) -> Left:
    """Rows of an operator's output as rows of its perturbed arguments, and the bias that this leaves."""
    if bound.exact:
        return pull_affine(rows, bound.lower)
    if bound.elementwise:
        spread = rows.spread()
        return choose(spread if fits(spread, bound) else Dense(rows.shape, rows.owner, rows.dense()), bound)
    positive, negative = rows.split()
    pulled = [compose(rows, low) if low is high else add(compose(positive, low), compose(negative, high))
              for low, high in zip(bound.lower.maps, bound.upper.maps, strict=True)]
    return pulled, plus(apply_bias(positive, bound.lower.bias), apply_bias(negative, bound.upper.bias))


def through(step: LinearBound | Passage, rows: Rows) -> Left:
    """Rows through a node, by its lines or by another way."""
    return pull_back(rows, step) if isinstance(step, LinearBound) else step(rows)


def fits(rows: Explicit, bound: LinearBound) -> bool:
    """Whether the lines can be laid beside the rows: rows that are held in part want lines that a problem's rows share."""
    return rows.holds_rows or all(value.shape[1] == 1 for value in bound.choice.values)


def backward(graph: Graph, env: Env, relax: Passing, target: int, rows: Rows,
             stop: Callable[[Node], bool] | None = None) -> Pulled:
    """Pull `rows` of node `target` back through relaxations until every path ends at a source, or at a node that `stop`s.

    Constants never receive rows: a relaxation has one map for each perturbed argument.
    """
    waiting: dict[int, Rows] = {target: rows}
    reached: dict[int, Rows] = {}
    bias: Tensor | None = None
    for index in range(target, -1, -1):
        if index not in waiting:
            continue
        node, arrived = graph[index], waiting.pop(index)
        if node.source or (stop is not None and stop(node)):
            reached[index] = arrived
            continue
        node, (pulled, offset) = passed(graph, env, relax, (node, arrived), stop)
        bias = plus(bias, offset)
        perturbed = [arg for arg in node.args if isinstance(env[arg], Interval)]
        for arg, part in zip(perturbed, pulled, strict=True):
            waiting[arg] = add(waiting[arg], part) if arg in waiting else part
    return Pulled(reached, bias)


def passed(graph: Graph, env: Env, relax: Passing, arrival: tuple[Node, Rows],
           stop: Callable[[Node], bool] | None) -> tuple[Node, Left]:
    """What rows that arrive at a node become there, and in a convolution below where both go in one step.

    The node is the one whose arguments the rows then belong to.
    """
    node, arrived = arrival
    step = relax(node)
    if not isinstance(step, LinearBound):
        return node, step(arrived)
    below = convolution_below(graph, env, relax, node) if carries_gradients(arrived, step) else None
    convolution = None if below is None or (stop is not None and stop(below)) else relax(below)
    if below is None or not isinstance(arrived, Dense) or not isinstance(convolution, LinearBound):
        return node, pull_back(arrived, step)
    return below, choose_and_convolve(arrived, step, convolution.lower)


def regions_of(pulled: Pulled, env: Env, sets: Sets) -> Iterator[tuple[PerturbationSet, Rows, bool]]:
    """The sets at which rows have arrived, the rows, and whether these act on the distance from the center of the box.

    A set that several sources share comes once.
    """
    shared: dict[tuple[int, ...], list[tuple[Member, Rows]]] = {}
    for index, rows in pulled.coefficients.items():
        region, interval = sets.get(index), env[index]
        assert isinstance(interval, Interval)
        if isinstance(region, Member):
            shared.setdefault(region.sources, []).append((region, rows))
        else:
            region = Box(interval.lower, interval.upper) if region is None else region
            yield region, rows, index in pulled.reference
    for sources, parts in shared.items():
        whole = parts[0][0].whole
        yield whole, together(parts), bool(pulled.reference.keys() & set(sources))


def concretize(pulled: Pulled, env: Env, sets: Sets) -> Tensor:
    """The smallest value of the pulled rows over the sets, (n, s); a node without a set counts with its interval."""
    total = pulled.bias
    for region, rows, centred in regions_of(pulled, env, sets):
        total = plus(total, region.fall(rows) if centred else region.concretize(rows))
    if total is None:
        raise BoundError("nothing is perturbed on the way to the rows that were asked for; evaluate the network instead.")
    return total
