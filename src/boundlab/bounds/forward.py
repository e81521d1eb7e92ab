"""Forward LiRPA: every node between two affine functions of a few coordinates, pushed on from its arguments.

The coordinates are those of the sources, or of the one node that all paths pass through while everything is still affine,
where that has fewer (the `base`). Rows over the base are pulled back to the sets, so nothing is lost by starting there.
Xu et al. 2020 (auto_LiRPA), Sec. 3.1 and App. A.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import LinearBound
from boundlab.bounds.backward import Pulled, Relaxer, backward, concretize, plus
from boundlab.bounds.forms import Form, Side, applied, entries, reach, through
from boundlab.bounds.intermediate import (
    Pulling,
    Readers,
    Refine,
    bending,
    box_exact,
    checked,
    consumers,
    last_readers,
    perturbed_nodes,
    tighten,
)
from boundlab.bounds.observe import watch
from boundlab.bounds.problem import Problem
from boundlab.errors import BoundError
from boundlab.graph import Graph, Node
from boundlab.interval import Interval
from boundlab.maps import Dense, Diagonal, Rows, add, at_owner, dot, flat
from boundlab.maps.push import Columns, Single
from boundlab.ops import lookup

FORM_BUDGET = 2**21
"""Numbers on one side of the widest form of the problems that share a pass: more do not make it faster."""
FORM_COPIES = 10
"""Tensors of that size that a pass holds at once."""
MOST_COLUMNS = 2**31
"""Numbers that the columns of one perturbed source may hold; more would not fit most memories."""
ENTRY_CELLS = 2**22
"""Numbers that are read off the columns at once."""
ROW_CELLS = 2**20
"""Numbers that rows over the base and the sources hold at once."""


@dataclass(frozen=True)
class Basis:
    """Coordinates that columns belong to: flat places of a node (b, d), and how far each moves (b, d)."""

    place: Tensor
    radius: Tensor


@dataclass(frozen=True)
class Found:
    """What a pass has found so far: the forms that are still read, and the coordinates of each base node."""

    forms: dict[int, Form] = field(default_factory=dict)
    bases: dict[int, Basis] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a pass will do, known from the graph: where forms begin, which nodes get one, and which stay to the end."""

    bases: frozenset[int]
    wanted: frozenset[int]
    kept: frozenset[int]


def affine_in(node: Node, perturbed: set[int]) -> bool:
    """Whether the node is affine in its arguments that are perturbed."""
    return lookup(node.op).affine(tuple(arg in perturbed for arg in node.args))


def base_nodes(graph: Graph, problem: Problem) -> frozenset[int]:
    """Where forms begin: the sources, or an affine function of them through which all paths pass, with fewer coordinates."""
    perturbed, last = perturbed_nodes(graph, problem.sets), last_readers(graph)
    affine, least = set(problem.sets), sum(math.prod(graph[index].shape) for index in problem.sets)
    found, read = frozenset(problem.sets), 0
    for node in graph:
        if node.index > problem.target.index:
            break
        args = [arg for arg in node.args if arg in perturbed]
        if args and all(arg in affine for arg in args) and affine_in(node, perturbed):
            affine.add(node.index)
            if read <= node.index and max(problem.sets) < node.index and math.prod(node.shape) < least:
                found, least = frozenset({node.index}), math.prod(node.shape)
        if node.index in perturbed:
            read = max(read, last[node.index])
    return found


def forms_batch(problem: Problem) -> int:
    """Number of problems whose forms may differ: all, or one if they differ in their specifications alone."""
    return max(*(len(region.box().lower) for region in problem.sets.values()), *(len(value) for value in problem.alone), 1)


def forms_at_once(problem: Problem) -> int:
    """How many problems share a pass: as many as hold FORM_BUDGET numbers on one side of the widest form, were it explicit."""
    graph, bases = problem.model.graph, base_nodes(problem.model.graph, problem)
    beyond = [index for index in perturbed_nodes(graph, problem.sets) if index >= min(bases)]
    widest = max(math.prod(graph[index].shape) for index in beyond)
    columns = max(1, widest * sum(math.prod(graph[index].shape) for index in bases))
    return max(1, problem.budget.share(FORM_BUDGET * FORM_COPIES) // (columns * FORM_COPIES))


def stops(problem: Problem, perturbed: set[int]) -> frozenset[int]:
    """The inner nodes where rows of the output end that are merged into the last layers."""
    graph, stop = problem.model.graph, bending(problem.model.graph, problem.sets)
    waiting, found = [problem.target], set()
    while waiting:
        node = waiting.pop()
        if node.source:
            continue
        if stop(node):
            found.add(node.index)
        else:
            waiting += [graph[arg] for arg in node.args if arg in perturbed]
    return frozenset(found)


def plan(problem: Problem) -> Plan:
    """The plan of a pass. Forms are wanted where nonlinear operators or a specification read a node, and on the way there."""
    graph, target = problem.model.graph, problem.target.index
    perturbed, bases = perturbed_nodes(graph, problem.sets), base_nodes(graph, problem)
    kept = frozenset() if problem.spec is None else stops(problem, perturbed)
    wanted = set(kept) | ({target} if problem.spec is None else set())
    for node in graph:
        if node.index in perturbed and not node.source and not affine_in(node, perturbed):
            wanted |= {arg for arg in node.args if arg in perturbed}
    for node in reversed(graph.nodes):
        if node.index in wanted and node.index not in bases:
            wanted |= {arg for arg in node.args if arg in perturbed}
    return Plan(bases, frozenset(wanted), kept)


def forward_refinement(problem: Problem, pulling: Pulling, relax: Relaxer, found: Found) -> Refine:
    """A refinement that carries forms along in `found` and offers their intervals where they are of use.

    Where the coordinates of the base vary on their own, a form's interval is read off its columns. Elsewhere that is a
    first guess from the box around the base, and the neurons that it leaves unsettled are read off as rows and pulled back.
    """
    graph, env, sets = problem.model.graph, pulling.env, problem.sets
    course, last = plan(problem), last_readers(graph)
    readers = Readers(consumers(graph), perturbed_nodes(graph, sets))
    exact = box_exact(graph, sets, readers.perturbed)
    own, batch = all(index in sets and sets[index].independent for index in course.bases), forms_batch(problem)

    def form_of(arg: int, reader: Node) -> Form:
        if arg not in found.forms:
            alone = len(readers.reading[arg]) == 1 and arg not in course.kept
            found.bases[arg], found.forms[arg] = beginning(graph[arg], env[arg], batch, relax(reader) if alone else None)
        return found.forms[arg]

    def carry(node: Node) -> Form:
        form = through(relax(node), [form_of(arg, node) for arg in node.args if isinstance(env[arg], Interval)])
        found.forms[node.index] = form
        for index in [index for index in found.forms if last[index] <= node.index and index not in course.kept]:
            del found.forms[index]
        return form

    def refine(node: Node, env: dict[int, Any]) -> Interval | None:
        known = env[node.index]
        everything = torch.ones_like(known.lower, dtype=torch.bool)
        if node.index in course.bases:
            return None if node.index in exact else tighten(pulling, node, everything)
        if node.index not in course.wanted or node.index < min(course.bases):
            return None
        form, asked = carry(node), node.index == problem.target.index and problem.spec is None
        if node.index in exact or not (asked or readers.unsettled(node, known) is not None):
            return None
        met = known.meet(reach(form, {basis: found.bases[basis].radius for basis in form.middle.columns}))
        if own:
            return met
        open_still = None if asked or form.gap is None else readers.unsettled(node, met)
        return read_off(pulling, found, node, form, checked(node, met), everything if open_still is None else open_still)

    return refine


def beginning(node: Node, interval: Tensor | Interval, batch: int, bound: LinearBound | None) -> tuple[Basis, Form]:
    """The coordinates of a base node themselves: all, or those that its only reader, with the relaxation `bound`, uses.

    Problems that use fewer than others get columns of zeros. BoundError if there are far too many coordinates.
    """
    assert isinstance(interval, Interval)
    interval, size = interval.map(lambda end: end.expand(batch, *node.shape)), math.prod(node.shape)
    place = torch.arange(size, device=interval.lower.device).expand(batch, size)
    used = None if bound is None else slopes_in_use(bound, interval)
    if used is not None:
        count = int(used.sum(1).max())
        place = used.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
        used = used.gather(1, place)
    if place.shape[1] * size > MOST_COLUMNS:
        raise BoundError(f"forward bounds keep a column for each of {place.shape[1]} perturbed coordinates, too many here; use "
                         "CROWN(intermediate=IBP()) or IBP().")
    radius = flat(interval.radius, 1).gather(1, place)
    columns = unit_columns(node.shape, place, used, radius)
    return Basis(place, radius), Form(Side(interval.center, {node.index: columns}))


def slopes_in_use(bound: LinearBound, interval: Interval) -> Tensor | None:
    """Which coordinates (b, n) the lines of an elementwise relaxation read; None for all, and where slopes are learned."""
    if bound.exact or not bound.elementwise or len(bound.lower.maps) != 1:
        return None
    slopes = [layer.scale for layer in (*bound.lower.maps, *bound.upper.maps) if isinstance(layer, Diagonal)]
    if any(slope.requires_grad for slope in slopes):
        return None
    return flat(((slopes[0] != 0) | (slopes[1] != 0)).squeeze(1).expand(interval.shape), 1)


def unit_columns(shape: tuple[int, ...], place: Tensor, used: Tensor | None, like: Tensor) -> Columns:
    """One column e_i for each place (b, d), zero where not `used`."""
    batch, count = place.shape
    if used is None and len(shape) not in (1, 3):  # one copy serves all problems
        eye = torch.eye(count, dtype=like.dtype, device=like.device)
        return Dense(shape, None, eye.reshape(1, count, *shape))
    owner = torch.arange(batch, device=place.device).repeat_interleave(count)
    size = torch.ones_like(place) if used is None else used
    return Single(shape, owner, place.flatten(), size.flatten().to(like.dtype))


# -- rows over the base ----------------------------------------------------------------------------------------------------

def read_off(pulling: Pulling, found: Found, node: Node, form: Form, known: Interval, mask: Tensor) -> Interval:
    """The bounds that a node's form proves for the neurons in `mask` (b, *shape): two rows each, pulled back to the sets."""
    owner, index = flat(mask.expand(known.shape), 1).nonzero(as_tuple=True)
    if len(owner) == 0:
        return known
    count = max(1, *(basis.place.shape[1] for basis in found.bases.values()))
    parts = torch.arange(len(owner), device=owner.device).split(max(1, ENTRY_CELLS // count))
    lows = []
    for part in parts:
        with watch(pulling.observe, node, "rows", 2 * len(part)):
            lows.append(rows_below(pulling, found, form, owner[part], index[part]))
    low, high = torch.cat(lows).unbind(1)

    def placed(whole: Tensor, values: Tensor) -> Tensor:
        return flat(whole, 1).index_put((owner, index), values).reshape(whole.shape)

    return Interval(placed(known.lower, low), placed(known.upper, -high))


def rows_below(pulling: Pulling, found: Found, form: Form, owner: Tensor, index: Tensor) -> Tensor:
    """Lower bounds of single neurons and of their negatives, (n, 2)."""
    sign = form.middle.value.new_tensor([1.0, -1.0])
    batch = len(form.middle.value)

    def both(middle: Tensor, gap: Tensor | None) -> Tensor:
        signed = sign.reshape(-1, *[1] * (middle.dim() - 1)) * middle.unsqueeze(1)
        return signed if gap is None else signed - gap.unsqueeze(1)

    def single(value: Tensor) -> Tensor:
        return flat(value, 1)[owner, index]

    gap = form.gap
    rows = {}
    for basis, columns in form.middle.columns.items():
        slack = None if gap is None or basis not in gap.columns else entries(gap.columns[basis], batch, owner, index)
        rows[basis] = both(entries(columns, batch, owner, index), slack)
    bias = both(single(form.middle.value), None if gap is None else single(gap.value))
    graph = pulling.model.graph
    widest = sum(math.prod(graph[source].shape) for source in {*found.bases, *pulling.sets})
    parts = torch.arange(len(owner), device=owner.device).split(max(1, ROW_CELLS // (2 * widest)))
    pulled = (over_sources(pulling, found, {basis: part[places] for basis, part in rows.items()}, owner[places], bias[places])
              for places in parts)
    return torch.cat([concretize(part, pulling.env, pulling.sets) for part in pulled])


def over_sources(pulling: Pulling, found: Found, rows: Mapping[int, Tensor], owner: Tensor | None,
                 bias: Tensor | None) -> Pulled:
    """Rows (n, s, d) over the coordinates of each base node as rows over the sources."""
    graph, total = pulling.model.graph, bias
    reached, references = dict[int, Rows](), dict[int, Tensor]()
    for basis, coefficients in rows.items():
        interval, shape, places = pulling.env[basis], graph[basis].shape, found.bases[basis].place
        assert isinstance(interval, Interval)
        whole = Dense(shape, owner, spread_out(coefficients, at_owner(places, owner), shape))
        pulled = backward(graph, pulling.env, pulling.about.relax, basis, whole)
        apart = flat(pulling.about.value(basis) - interval.center, 1).expand(len(places), -1).gather(1, places)
        total = plus(plus(total, dot(coefficients, at_owner(apart.unsqueeze(1), owner))), pulled.bias)
        reached.update(pulled.coefficients)
        references.update({source: pulling.about.value(source) for source in pulled.coefficients})
    return Pulled(reached, total, references)


def spread_out(rows: Tensor, place: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Rows (n, s, d) over the coordinates `place` (n or 1, d) as rows over the node (n, s, *shape); images channels last."""
    if len(shape) == 3:
        channel, y, x = torch.unravel_index(place, shape)
        return spread_out(rows, (y * shape[2] + x) * shape[0] + channel, (math.prod(shape),)).unflatten(
            2, (*shape[1:], shape[0])).permute(0, 1, 4, 2, 3)
    whole = rows.new_zeros(*rows.shape[:2], math.prod(shape)).scatter_add_(2, place.unsqueeze(1).expand(rows.shape), rows)
    return whole.reshape(*whole.shape[:2], *shape)


def rows_of_forms(pulling: Pulling, found: Found, pulled: Pulled) -> Pulled:
    """Rows over inner nodes as rows over the sources: positive coefficients take the lower side, negative the upper."""
    bias, rows = pulled.bias, dict[int, Tensor]()
    straight = {index: part for index, part in pulled.coefficients.items() if pulling.model.graph[index].source}
    for index, part in pulled.coefficients.items():
        if index in straight:
            continue
        form = found.forms[index]
        coefficients, batch = part.dense(), len(form.middle.value)
        for side, weight in ((form.middle, coefficients), (form.gap, -coefficients.abs())):
            if side is None:
                continue
            bias = plus(bias, torch.linalg.vecdot(flat(weight, 2), flat(side.value, 1).unsqueeze(1)))
            for basis, columns in side.columns.items():
                more = applied(weight, columns, batch)
                rows[basis] = rows[basis] + more if basis in rows else more
    around = over_sources(pulling, found, rows, None, bias)
    if not straight:
        return around
    both = {index: add(around.coefficients[index], part) if index in around.coefficients else part
            for index, part in straight.items()}
    return Pulled({**around.coefficients, **both}, around.offset)
