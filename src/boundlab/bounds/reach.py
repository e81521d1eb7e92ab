"""Which neurons the rows of a specification can reach: the others need no bounds of their own.

A row that asks for one place of an image reads a part of each layer before, the larger the earlier the layer is. Where rows
carry zeros to a neuron, tighter bounds of it change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from boundlab.affine import LinearBound
from boundlab.bounds.backward import Env
from boundlab.bounds.intermediate import perturbed_nodes, propagate, relaxer
from boundlab.bounds.problem import Problem
from boundlab.errors import BoundError
from boundlab.graph import Node
from boundlab.interval import Interval
from boundlab.ops import lookup

FEWEST = 2**13
"""Numbers that a network computes, from which on it pays to look: with fewer, bounds of all are as fast."""


@torch.no_grad()
def reached(problem: Problem) -> Mapping[int, Tensor] | None:
    """The coordinates (b or 1, *shape) of each node that the specification's rows can reach; None if that may be all of them.

    What rows pass is known from plain intervals: tighter ones settle more, so that rows reach no more.
    """
    graph, target = problem.model.graph, problem.target
    size = sum(math.prod(graph[index].shape) for index in perturbed_nodes(graph, problem.sets))
    if problem.spec is None or size < FEWEST:
        return None
    try:
        env = propagate(problem.model, problem.sets, problem.inputs, {}, lambda node, env: None)
    except BoundError:  # plain intervals say nothing
        return None
    relax, found = relaxer(env), {target.index: (problem.spec.rows != 0).any(1)}
    for node in reversed(graph.nodes[:target.index + 1]):
        if node.index in found and not node.source:
            arguments = [arg for arg in node.args if isinstance(env[arg], Interval)]
            for arg, part in zip(arguments, read(node, env, relax(node), found[node.index]), strict=True):
                found[arg] = found[arg] | part if arg in found else part
    return found


def read(node: Node, env: Env, bound: LinearBound, mask: Tensor) -> list[Tensor]:
    """What the coordinates `mask` (b or 1, *shape) of a node read of each perturbed argument, (b or 1, *in_shape) booleans.

    Of a nonlinear operator that is no function of single coordinates all: its lines may be flat (a softmax that underflows), or
    leave out arguments (a maximum), because of bounds that are to be tightened.
    """
    arguments = [interval for arg in node.args if isinstance(interval := env[arg], Interval)]
    if not bound.exact and not bound.elementwise:
        return [torch.ones_like(interval.lower[:1], dtype=torch.bool) for interval in arguments]
    rows, found = mask.unsqueeze(1).to(arguments[0].lower.dtype), []
    for place, interval in enumerate(arguments):
        if bound.exact:
            found.append((bound.lower.maps[place].abs().pull(rows) != 0).any(1))
            continue
        slopes = [(side.maps[place].pull(rows) != 0).any(1) for side in (bound.lower, bound.upper)]
        found.append(slopes[0] | slopes[1] | (mask & lookup(node.op).unsettled(interval, node.attrs)))
    return found
