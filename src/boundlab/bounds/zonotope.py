"""Zonotopes (DeepZ): every node as a center and columns of noise symbols, pushed forward once and used by all later nodes.

One slope serves both sides of a relaxation, so a node's interval is center plus and minus the sum of absolute columns.
Bounds are looser than backward ones but cover all neurons in one pass, which makes them the filter before CROWN.
Singh et al. 2018 (DeepZ); Wong and Kolter 2018 give the same bounds as a dual.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import Affine, LinearBound
from boundlab.bounds.backward import Relaxer
from boundlab.bounds.intermediate import Readers, Refine, box_exact, fed_by_inputs, last_readers
from boundlab.bounds.problem import Problem
from boundlab.graph import Node
from boundlab.interval import Interval
from boundlab.maps import Diagonal, channels_last, diagonal, flat
from boundlab.maps.push import Columns, Single, absolute_sum, add_columns, numbers, owners, push, take, without_zeros
from boundlab.ops.op import push_interval


@dataclass(frozen=True)
class Zonotope:
    """center + columns . symbols, symbols in [-1, 1]; `groups` holds the columns by the node where their symbols were born."""

    center: Tensor
    groups: Mapping[int, Columns]

    def interval(self) -> Interval:
        """Center plus and minus the sum of absolute columns, (b, *shape)."""
        radius = torch.zeros_like(self.center)
        for columns in self.groups.values():
            radius = radius + absolute_sum(columns, len(self.center))
        return Interval(self.center - radius, self.center + radius)


def fresh(node: Node, radius: Tensor) -> dict[int, Columns]:
    """New symbols, one for each coordinate with a positive radius (b, *shape), born at `node`."""
    owner, index = flat(radius, 1).nonzero(as_tuple=True)
    if len(owner) == 0:
        return {}
    return {node.index: Single(node.shape, owner, index, flat(radius, 1)[owner, index])}


def box(node: Node, interval: Interval) -> Zonotope:
    """A node that starts anew from its interval."""
    return Zonotope(interval.center, fresh(node, interval.radius))


def affine_image(node: Node, affine: Affine, parts: list[Zonotope | Interval]) -> Zonotope:
    """An affine function of several zonotopes; symbols that reach it on two paths are summed.

    What is known by its interval alone (a weight) becomes new symbols.
    """
    center: Any = 0 if affine.bias is None else affine.bias.squeeze(1)
    radius: Any = 0
    groups: dict[int, Columns] = {}
    for layer, part in zip(affine.maps, parts, strict=True):
        if isinstance(part, Interval):
            image = push_interval(layer, part)
            center, radius = center + image.center, radius + image.radius
            continue
        center = center + layer.apply(part.center)
        for born, columns in part.groups.items():
            pushed = push(columns, layer)
            groups[born] = add_columns(groups[born], pushed) if born in groups else pushed
    batch = max(len(part.center) for part in parts)
    center = center.expand(batch, *center.shape[1:])
    return Zonotope(center, groups if isinstance(radius, int) else {**groups, **fresh(node, radius.expand_as(center))})


def one_slope(bound: LinearBound, x: Interval) -> tuple[Tensor, Tensor, Tensor]:
    """Slope, middle intercept and half the gap of two parallel lines around an elementwise relaxation, (b, 1, *shape) each.

    The slope is the upper line's (the chord, for ReLU); the lower line is moved until it holds at both ends.
    """
    low, high = bound.lower.maps[0], bound.upper.maps[0]
    assert isinstance(low, Diagonal) and isinstance(high, Diagonal)
    slope = high.scale
    turn = low.scale - slope
    below = torch.minimum(turn * x.row_lower, turn * x.row_upper)
    below = below if bound.lower.bias is None else below + bound.lower.bias
    above = torch.zeros_like(below) if bound.upper.bias is None else bound.upper.bias
    return slope, (below + above) / 2, (above - below) / 2


def step(node: Node, env: Mapping[int, Any], relax: Relaxer, forms: Mapping[int, Zonotope], lone: set[int]) -> Zonotope:
    """The zonotope of `node` from those of its perturbed arguments.

    Affine operators push columns, elementwise ones scale them and add symbols for their gap, others start anew from their
    interval, and so does what is made of parameters alone. Symbols born at the argument end where their slope is 0, if `lone`
    says that no other node reads it: paths that meet again must hold the same symbols in the same order.
    """
    perturbed = [arg for arg in node.args if isinstance(env[arg], Interval)]
    if not any(arg in forms for arg in perturbed):
        return box(node, env[node.index])
    bound = relax(node)
    if bound.exact:
        return affine_image(node, bound.lower, [forms[arg] if arg in forms else env[arg] for arg in perturbed])
    if len(perturbed) != 1 or not bound.elementwise:
        return box(node, env[node.index])
    slope, middle, gap = one_slope(bound, env[perturbed[0]])
    slope = channels_last(slope) if slope.dim() == 5 else slope  # as columns of convolutions lie in memory
    scaled = affine_image(node, Affine((diagonal(slope, node.shape),), middle), [forms[perturbed[0]]])
    ending = {perturbed[0]} & lone
    kept = {born: without_zeros(columns) if born in ending else columns for born, columns in scaled.groups.items()}
    return Zonotope(scaled.center, {**kept, **fresh(node, gap.squeeze(1).expand_as(scaled.center))})




@dataclass(frozen=True)
class Filter:
    """When the zonotope stops paying: the share of a layer that it fails to settle, and the numbers held for one problem."""

    most_unsettled: float = 0.4
    most_numbers: int = 2**27


def zonotope_filter(problem: Problem, relax: Relaxer, reading: Readers, limits: Filter) -> Refine:
    """A refinement that carries a zonotope along and offers its intervals to all nodes that nonlinear operators read.

    `reading` says which neurons would still gain.
    A problem leaves the zonotope, on its own account and for good, once a limit is passed; so the outcome for a problem
    does not depend on the batch it is in. Where nothing nonlinear was crossed yet and a layer has fewer coordinates than
    the sets, the zonotope starts anew there: fewer columns, hardly looser. Perturbed parameters, and what all problems
    share, are held as intervals, never as columns.
    """
    graph, batch, fed = problem.model.graph, problem.batch, fed_by_inputs(problem.model.graph)
    sets = {index for index in problem.sets if index in fed}
    forms: dict[int, Zonotope] = {}
    alive: list[Tensor] = []
    readers = last_readers(graph)
    lone = {index for index, nodes in reading.reading.items() if len(nodes) == 1}
    exact = box_exact(graph, problem.sets, reading.perturbed)
    # Nobody reads the zonotope behind the last node that asks; a row of the output is pulled back on its own.
    last = max((node.index for node in graph if node.index in reading.perturbed - exact and reading.asking(node)), default=-1)
    coordinates = sum(math.prod(graph[index].shape) for index in sets)

    def drop(keep: Tensor) -> None:
        alive[0] = alive[0] & keep
        for index, form in forms.items():
            forms[index] = only(form, alive[0])

    def refine(node: Node, env: dict[int, Any]) -> Interval | None:
        known = env[node.index]
        if node.index not in fed or node.index > last or len(known.lower) != batch:
            return None
        if not alive:
            alive.append(torch.ones(len(known.lower), dtype=torch.bool, device=known.lower.device))
            forms.update({index: box(graph[index], env[index]) for index in sets})
        if not bool(alive[0].any()):
            return None
        form = forms[node.index] = step(node, env, relax, forms, lone)
        for index in [index for index in forms if readers[index] <= node.index]:
            del forms[index]
        drop(numbers_held(form, len(alive[0])) <= limits.most_numbers)
        if reading.unsettled(node, known) is None or not bool(alive[0].any()):
            return None
        met = known.meet(within(form.interval(), known, alive[0]))
        still = reading.unsettled(node, met)
        if still is not None:
            drop(flat(still, 1).double().mean(1) <= limits.most_unsettled)
        if set(form.groups) <= sets and math.prod(node.shape) < coordinates and node.index in forms:
            forms[node.index] = only(box(node, met), alive[0])
        return met

    return refine


def only(form: Zonotope, alive: Tensor) -> Zonotope:
    """The zonotope without the columns of problems that left it."""
    if bool(alive.all()):
        return form
    groups = {born: take(columns, alive[owners(columns)].nonzero().squeeze(1)) for born, columns in form.groups.items()}
    return Zonotope(form.center, groups)


def within(found: Interval, known: Interval, alive: Tensor) -> Interval:
    """What the zonotope found for the problems in it, what was known for the others."""
    mask = alive.reshape(-1, *[1] * (known.lower.dim() - 1))
    return Interval(torch.where(mask, found.lower, known.lower), torch.where(mask, found.upper, known.upper))


def numbers_held(form: Zonotope, batch: int) -> Tensor:
    """How many numbers are held for each problem, (b,)."""
    total = torch.zeros(batch, device=form.center.device, dtype=torch.long)
    for columns in form.groups.values():
        width = math.prod(numbers(columns).shape[1:])
        total = total + width * torch.bincount(owners(columns), minlength=batch)
    return total
