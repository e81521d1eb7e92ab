"""Bounds of every node in topological order: one loop, in which a method says where and how to improve on intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import LinearBound
from boundlab.bounds.backward import Env, Relaxer, Sets, concretize
from boundlab.bounds.budget import Budget, problems_pulled, rows_at_once
from boundlab.bounds.observe import Observer, watch
from boundlab.bounds.reference import Reference, pull
from boundlab.errors import BoundError, ShapeError
from boundlab.evaluate import source_value
from boundlab.graph import INPUT, Graph, Model, Node
from boundlab.interval import Interval
from boundlab.maps import Common, Select, flat
from boundlab.ops import lookup

Policy = Callable[..., Mapping[str, Tensor] | None]
Refine = Callable[[Node, dict[int, Any]], Interval | None]
Evaluator = Callable[[Node, dict[int, Any]], Tensor | Interval]


def perturbed_pattern(node: Node, env: Env) -> tuple[bool, ...]:
    """Which arguments of a node are intervals."""
    return tuple(isinstance(env[arg], Interval) for arg in node.args)


def is_affine(node: Node, env: Env) -> bool:
    """Whether the node is affine in its perturbed arguments."""
    return lookup(node.op).affine(perturbed_pattern(node, env))


def relaxer(env: Env, policy: Policy | None = None) -> Relaxer:
    """Relaxations of nodes from the intervals in `env`, each made once; `policy` chooses their free variables."""
    made: dict[int, LinearBound] = {}

    def relax(node: Node) -> LinearBound:
        if node.index not in made:
            op, arguments = lookup(node.op), [env[arg] for arg in node.args]
            alpha = policy(op, *arguments, **node.attrs) if policy and op.alpha and not is_affine(node, env) else None
            made[node.index] = fitting(node, op.lines(*arguments, alpha=alpha, **node.attrs))
        return made[node.index]

    return relax


def fitting(node: Node, bound: LinearBound) -> LinearBound:
    """The relaxation; ShapeError if an argument that was captured as a number, and broadcasts, is perturbed."""
    if any(layer.out_shape != node.shape for layer in (*bound.lower.maps, *bound.upper.maps)):
        raise ShapeError(f"an argument of {node.describe()} is perturbed and of another shape than its result: a number "
                         "written in the network. Make it a parameter to perturb it.")
    return bound


def in_order(interval: Interval) -> bool:
    """Whether all ends are finite and none cross, from two sums that are read back together; a sum that overflows says no."""
    width = interval.map(Tensor.detach).width
    total = width.sum()
    crossed = width.clamp_(max=0).sum()
    return bool(torch.isfinite(total) & (crossed == 0))


def checked(node: Node, interval: Interval) -> Interval:
    """The interval, with its ends in order.

    Two sound bounds of a value that hardly varies may cross by rounding; both ends are kept then, in order. BoundError
    if an end is NaN or infinite, or the ends cross by more than rounding explains (contradictory known bounds).
    """
    lower, upper = interval.lower, interval.upper
    if in_order(interval):
        return interval
    finite = torch.isfinite(upper - lower)  # the width too: lines are made of quotients by it
    if not bool(finite.all()):
        raise BoundError(f"the bounds of {node.describe()} are NaN or infinite at {int((~finite).sum())} coordinates; "
                         "the set is too large for this method, or an operator is outside its domain there.",
                         tuple((~finite).reshape(len(finite), -1).any(1).tolist()))
    slack = torch.finfo(lower.dtype).eps ** 0.5 * (1 + lower.abs() + upper.abs())
    if bool((lower > upper + slack).any()):
        raise BoundError(f"the bounds of {node.describe()} contradict each other: a lower end lies above its upper end. "
                         "If you gave bounds of your own, they do not hold on this set.")
    if bool((lower <= upper).all()):
        return interval
    return Interval(torch.minimum(lower, upper), torch.maximum(lower, upper))


def source_environment(model: Model, sets: Sets, inputs: Mapping[str, Tensor]) -> dict[int, Tensor | Interval]:
    """Sources: an interval where a set is given, else the constant."""
    env: dict[int, Tensor | Interval] = {}
    for node in model.graph:
        if node.index in sets:
            env[node.index] = checked(node, sets[node.index].box())
        elif node.source:
            env[node.index] = source_value(model, node, inputs)
    return env


def propagate(model: Model, sets: Sets, inputs: Mapping[str, Tensor], env: dict[int, Any], refine: Refine,
              observe: Observer | None = None) -> Env:
    """Fill `env` (which `refine` may watch) in topological order: the operator's interval, met with what `refine` finds."""
    env.update(source_environment(model, sets, inputs))
    return fill(model.graph, env, refine, observe)


def by_operator(node: Node, env: dict[int, Any]) -> Tensor | Interval:
    """The operator's value where all arguments are constant, else its interval."""
    op, arguments = lookup(node.op), [env[arg] for arg in node.args]
    rule = op.interval if any(perturbed_pattern(node, env)) else op.evaluate
    return rule(*arguments, **node.attrs)


def fill(graph: Graph, env: dict[int, Any], refine: Refine, observe: Observer | None = None,
         evaluate: Evaluator = by_operator) -> Env:
    """The loop of `propagate`, on an `env` that holds the sources; `evaluate` gives a node's value or its first interval."""
    for node in graph:
        if node.source:
            continue
        perturbed = any(perturbed_pattern(node, env))
        with watch(observe if perturbed else None, node, "interval"):
            env[node.index] = evaluate(node, env)
        if not perturbed:
            continue
        better = refine(node, env)
        if better is not None:
            env[node.index] = env[node.index].meet(better)
        env[node.index] = checked(node, env[node.index])
    return env


def consumers(graph: Graph) -> Mapping[int, list[Node]]:
    """The nodes that read each node."""
    readers: dict[int, list[Node]] = {node.index: [] for node in graph}
    for node in graph:
        for arg in set(node.args):
            readers[arg].append(node)
    return readers


def last_readers(graph: Graph) -> list[int]:
    """The last node that reads each node; the node itself if none does."""
    last = list(range(len(graph.nodes)))
    for node in graph:
        for arg in node.args:
            last[arg] = max(last[arg], node.index)
    return last


MOVES = ("reshape", "permute", "slice", "pad")
"""Operators that only move the coordinates of one argument, each to one place at most."""
SCALES = ("add", "sub", "neg", "mul")
"""Operators that scale and shift each coordinate of one argument on its own, where the other is constant."""


@dataclass(frozen=True)
class Readers:
    """Who reads each node, and which nodes are perturbed: what says where tighter bounds would be used."""

    reading: Mapping[int, list[Node]]
    perturbed: set[int]

    def linear(self, node: Node) -> bool:
        """Whether a node is affine in its perturbed arguments."""
        return lookup(node.op).affine(tuple(arg in self.perturbed for arg in node.args))

    def unsettled(self, node: Node, interval: Interval) -> Tensor | None:
        """Which neurons of `node` a nonlinear operator would use tighter bounds of, (b, *shape) booleans; None for none.

        Operators that only move coordinates are looked through: their argument asks for them, all of them at once. So a node
        that moves another one's coordinates asks for nothing itself.
        """
        return None if self.moved(node) else self.wanted(node, interval)

    def asking(self, node: Node) -> bool:
        """Whether a nonlinear operator reads the node, or what only moves its coordinates, so that it asks for tight bounds."""
        return not self.moved(node) and self.bent(node)

    def bent(self, node: Node) -> bool:
        """The same for a node that may be moved itself."""
        return any(self.bent(reader) if self.moved(reader) else not self.linear(reader) for reader in self.reading[node.index])

    def moved(self, node: Node) -> bool:
        """Whether a node holds nothing but the coordinates of a perturbed one, whose bounds are its bounds."""
        return node.op in MOVES and node.args[0] in self.perturbed

    def wanted(self, node: Node, interval: Interval) -> Tensor | None:
        """The same for whatever reads the node, on an interval of it."""
        masks = []
        for reader in self.reading[node.index]:
            if self.moved(reader):
                layer = lookup(reader.op).lines(interval, **reader.attrs).lower.maps[0]
                below = self.wanted(reader, interval.map(layer.apply))
                masks += [] if below is None else [layer.pull(below.unsqueeze(1).to(interval.lower.dtype)).squeeze(1) > 0]
            elif not self.linear(reader):
                masks.append(lookup(reader.op).unsettled(interval, reader.attrs))
        return torch.stack(masks).any(0) if masks else None


def perturbed_nodes(graph: Graph, sources: Collection[int]) -> set[int]:
    """The nodes `sources`, and all that depend on one of them."""
    found = set(sources)
    for node in graph:
        if any(arg in found for arg in node.args):
            found.add(node.index)
    return found


def read_by(graph: Graph, target: int) -> set[int]:
    """A node and all that its value depends on."""
    found = {target}
    for node in reversed(graph.nodes[:target + 1]):
        if node.index in found:
            found.update(node.args)
    return found


def fed_by_inputs(graph: Graph) -> set[int]:
    """Nodes that depend on an input, perturbed or not; the others depend on parameters alone."""
    found: set[int] = set()
    for node in graph:
        if node.op == INPUT or any(arg in found for arg in node.args):
            found.add(node.index)
    return found


def bending(graph: Graph, sources: Collection[int]) -> Callable[[Node], bool]:
    """Where rows that are merged into the last layers stop: at nodes that are not affine in what comes from the inputs.

    A layer is affine in its input, whether its weights are perturbed or not.
    """
    varying = fed_by_inputs(graph) & perturbed_nodes(graph, sources)

    def stop(node: Node) -> bool:
        return not lookup(node.op).affine(tuple(arg in varying for arg in node.args))

    return stop


def box_exact(graph: Graph, sets: Sets, perturbed: set[int]) -> set[int]:
    """Nodes whose plain interval is already the best possible: affine functions of coordinates that vary independently.

    Those are the boxes themselves, what only moves their coordinates, and the first affine node after that. Where a set is
    no box, only what moves its coordinates. What then moves, scales or shifts single coordinates (a bias, say) loses nothing.
    """
    free = {index for index, region in sets.items() if region.independent}
    moved = set(sets)
    exact = set(moved)
    for node in graph:
        args = [arg for arg in node.args if arg in perturbed]
        if node.source or not args:
            continue
        if node.op in MOVES and args[0] in moved:
            moved.add(node.index)
            if args[0] in free:
                free.add(node.index)
        apart = len(args) == 1 or (len(set(args)) == len(args) and all(graph[arg].source for arg in args))
        alone = apart and all(arg in free for arg in args)
        kept = len(args) == 1 and args[0] in exact and node.op in (*MOVES, *SCALES)
        if node.index in moved or kept or (alone and lookup(node.op).affine(tuple(arg in perturbed for arg in node.args))):
            exact.add(node.index)
    return exact


@dataclass(frozen=True)
class Pulling:
    """What pulling rows back needs: the model, its sets, the bounds so far, relaxations about references.

    `budget` is of memory; `max_rows` are pulled at once, if the caller names a number. `observe` is told of it.
    """

    model: Model
    sets: Sets
    env: Env
    about: Reference
    budget: Budget
    max_rows: int | None = None
    observe: Observer | None = None

    def rows_a_chunk(self) -> int:
        """How many rows are pulled at once."""
        if self.max_rows is not None:
            return self.max_rows
        return rows_at_once(self.widest(), self.budget)

    def problems_a_part(self, batch: int, rows: int) -> int:
        """How many of the problems have their `rows` pulled at once, each reading its own relaxations."""
        return problems_pulled(batch, rows * self.widest(), self.budget)

    def together(self, node: Node, batch: int) -> bool:
        """Whether neurons of a vector that several problems all want are pulled at once for all of them.

        Where parameters vary, rows over these are kept as factors, each neuron's its own.
        """
        few = len(node.shape) == 1 and 1 < batch <= self.rows_a_chunk()
        return few and all(self.model.graph[index].op == INPUT for index in self.sets)

    def widest(self) -> int:
        """Coordinates of the widest perturbed node."""
        widths = (math.prod(node.shape) for node in self.model.graph if isinstance(self.env.get(node.index), Interval))
        return max(widths, default=1)


def tighten(pulling: Pulling, node: Node, mask: Tensor) -> Interval:
    """Backward bounds of the neurons of `node` that `mask` (b, *shape) selects; the others keep their interval.

    Rows are ragged: one (example, neuron) pair each, both signs side by side.
    """
    known = pulling.env[node.index]
    assert isinstance(known, Interval)
    if pulling.together(node, len(mask)) and bool((mask == mask[:1]).all()):
        return tighten_alike(pulling, node, mask[0])
    owner, index = flat(mask.expand(known.shape), 1).nonzero(as_tuple=True)
    if len(owner) == 0:
        return known
    signs = known.lower.new_tensor([[1.0, -1.0]])
    found = []
    for part in torch.arange(len(owner), device=owner.device).split(pulling.rows_a_chunk()):
        with watch(pulling.observe, node, "rows", 2 * len(part)):
            rows = Select(node.shape, owner[part], index[part], signs)
            pulled = pull(pulling.model.graph, pulling.env, pulling.about, node.index, rows)
            found.append(concretize(pulled, pulling.env, pulling.sets))
    low, high = torch.cat(found).unbind(1)

    def placed(whole: Tensor, values: Tensor) -> Tensor:
        return flat(whole, 1).index_put((owner, index), values).reshape(whole.shape)

    return Interval(placed(known.lower, low), placed(known.upper, -high))


def tighten_alike(pulling: Pulling, node: Node, mask: Tensor) -> Interval:
    """The same for neurons `mask` (neurons,) of a vector that all problems want: rows of one problem lie together."""
    known, (index,) = pulling.env[node.index], mask.nonzero(as_tuple=True)
    assert isinstance(known, Interval)
    if len(index) == 0:
        return known
    batch, signs, found = len(known.lower), known.lower.new_tensor([1.0, -1.0]), []
    for part in index.split(max(1, pulling.rows_a_chunk() // batch)):
        with watch(pulling.observe, node, "rows", 2 * batch * len(part)):
            pulled = pull(pulling.model.graph, pulling.env, pulling.about, node.index, Common(node.shape, None, part, signs))
            lowest = concretize(pulled, pulling.env, pulling.sets)
            found.append(lowest.expand(batch, -1).unflatten(1, (2, -1)))
    low, high = torch.cat(found, 2).unbind(1)
    return Interval(known.lower.index_copy(1, index, low), known.upper.index_copy(1, index, -high))
