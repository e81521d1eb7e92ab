"""Bounds of every node in topological order: one loop, in which a method says where and how to improve on intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import LinearBound
from boundlab.bounds.backward import Env, Relaxer, Sets, concretize
from boundlab.bounds.reference import Reference, pull
from boundlab.errors import BoundError
from boundlab.evaluate import source_value
from boundlab.graph import Graph, Model, Node
from boundlab.interval import Interval
from boundlab.maps import Select, flat
from boundlab.ops import lookup

Policy = Callable[..., Mapping[str, Tensor] | None]
Refine = Callable[[Node, dict[int, Any]], Interval | None]
ROW_BUDGET = 2**25
"""Coefficients of one chunk of rows at its widest node, if the caller names no number of rows."""
MOST_ROWS = 256
"""Rows a chunk at most; measured on two CPU cores, 128 to 512 are alike."""


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
            made[node.index] = op.lines(*arguments, alpha=alpha, **node.attrs)
        return made[node.index]

    return relax


def checked(node: Node, interval: Interval) -> Interval:
    """The interval with its ends in order.

    Two sound bounds of a value that hardly varies may cross by rounding; both ends are kept then, in order. BoundError
    if an end is NaN or infinite, or the ends cross by more than rounding explains (contradictory known bounds).
    """
    lower, upper = interval.lower, interval.upper
    finite = torch.isfinite(upper - lower)  # the width too: lines are made of quotients by it
    if not bool(finite.all()):
        raise BoundError(f"the bounds of {node.describe()} are NaN or infinite at {int((~finite).sum())} coordinates; "
                         "the set is too large for this method, or an operator is outside its domain there.")
    slack = torch.finfo(lower.dtype).eps ** 0.5 * (1 + lower.abs() + upper.abs())
    if bool((lower > upper + slack).any()):
        raise BoundError(f"the bounds of {node.describe()} contradict each other: a lower end lies above its upper end. "
                         "If you gave bounds of your own, they do not hold on this set.")
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


def propagate(model: Model, sets: Sets, inputs: Mapping[str, Tensor], env: dict[int, Any], refine: Refine) -> Env:
    """Fill `env` (which `refine` may watch) in topological order: the operator's interval, met with what `refine` finds."""
    env.update(source_environment(model, sets, inputs))
    for node in model.graph:
        if node.source:
            continue
        op, arguments = lookup(node.op), [env[arg] for arg in node.args]
        if not any(perturbed_pattern(node, env)):
            env[node.index] = op.evaluate(*arguments, **node.attrs)
            continue
        env[node.index] = op.interval(*arguments, **node.attrs)
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


def unsettled(node: Node, readers: list[Node], env: Env, known: set[int]) -> Tensor | None:
    """Which neurons of `node` some nonlinear reader would use tighter bounds of, (b, *shape) booleans; None for none.

    A reader is nonlinear if it is not affine in its arguments that are perturbed; `known` are the perturbed nodes.
    """
    interval = env[node.index]
    assert isinstance(interval, Interval)
    masks = [
        lookup(reader.op).unsettled(interval, reader.attrs) for reader in readers
        if not lookup(reader.op).affine(tuple(arg in known for arg in reader.args))
    ]
    return torch.stack(masks).any(0) if masks else None


def perturbed_nodes(graph: Graph, sets: Sets) -> set[int]:
    """Nodes that depend on a source with a set."""
    found = set(sets)
    for node in graph:
        if any(arg in found for arg in node.args):
            found.add(node.index)
    return found


def box_exact(graph: Graph, sets: Sets, perturbed: set[int]) -> set[int]:
    """Nodes whose plain interval is already the best possible: affine functions of coordinates that vary independently.

    Those are the boxes themselves, what only moves their coordinates, and the first affine node after that.
    """
    moves = ("reshape", "permute", "slice", "expand", "pad")
    free = {index for index, region in sets.items() if region.independent}
    exact = set(free)
    for node in graph:
        args = [arg for arg in node.args if arg in perturbed]
        if node.source or len(args) != 1 or args[0] not in free:
            continue
        if lookup(node.op).affine(tuple(arg in perturbed for arg in node.args)):
            exact.add(node.index)
            if node.op in moves and node.op != "expand":
                free.add(node.index)
    return exact


@dataclass(frozen=True)
class Pulling:
    """What pulling rows back needs: the model, its sets, the bounds so far, relaxations about references, rows a chunk."""

    model: Model
    sets: Sets
    env: Env
    about: Reference
    max_rows: int | None = None

    def rows_a_chunk(self) -> int:
        """How many rows are pulled at once."""
        if self.max_rows is not None:
            return self.max_rows
        widest = max(math.prod(node.shape) for node in self.model.graph if isinstance(self.env.get(node.index), Interval))
        return max(16, min(MOST_ROWS, ROW_BUDGET // (2 * widest)))


def tighten(pulling: Pulling, node: Node, mask: Tensor) -> Interval:
    """Backward bounds of the neurons of `node` that `mask` (b, *shape) selects; the others keep their interval.

    Rows are ragged: one (example, neuron) pair each, both signs side by side.
    """
    known = pulling.env[node.index]
    assert isinstance(known, Interval)
    owner, index = flat(mask.expand(known.shape), 1).nonzero(as_tuple=True)
    if len(owner) == 0:
        return known
    signs = known.lower.new_tensor([1.0, -1.0])
    found = []
    for part in torch.arange(len(owner), device=owner.device).split(pulling.rows_a_chunk()):
        rows = Select(node.shape, owner[part], index[part], signs)
        pulled = pull(pulling.model.graph, pulling.env, pulling.about, node.index, rows)
        found.append(concretize(pulled, pulling.env, pulling.sets))
    low, high = torch.cat(found).unbind(1)

    def placed(whole: Tensor, values: Tensor) -> Tensor:
        return flat(whole, 1).index_put((owner, index), values).reshape(whole.shape)

    return Interval(placed(known.lower, low), placed(known.upper, -high))
