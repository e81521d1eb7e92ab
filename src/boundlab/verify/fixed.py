"""Coordinates of inputs that do not vary: what is read of them alone is constant, and nothing needs to be bounded behind it."""

from __future__ import annotations

import functools
from dataclasses import replace

from torch import Tensor

from boundlab.bounds.intermediate import perturbed_nodes
from boundlab.graph import INPUT, Graph, Model
from boundlab.interval import Interval
from boundlab.ops import lookup
from boundlab.perturbations.joint import Key, Regions
from boundlab.perturbations.sets import PerturbationSet


def fixed(model: Model, regions: Regions) -> tuple[Model, Regions]:
    """The network with pieces of its inputs that are points in all problems as further inputs, and regions with their values.

    A table of which few entries vary, for instance, whose rows go through layers of their own. Nodes keep their numbers and
    names, and proofs about one network are proofs about the other. Where nothing is left that varies, all stays as it is.
    """
    if not any(node.op == "slice" for node in model.graph):  # whole inputs hardly ever stay the same
        return model, regions
    values = pieces(model.graph, regions)
    cut = [replace(node, op=INPUT, args=(), attrs={}) if node.index in values else node for node in model.graph]
    graph = replace(model.graph, nodes=tuple(cut))
    varying = {graph.source_named(name).index for name, region in regions.items()
               if isinstance(name, str) and not isinstance(region, Tensor)}
    if not values or graph.output.index not in perturbed_nodes(graph, varying):
        return model, regions
    known = dict[Key, PerturbationSet | Tensor](regions.items())
    return replace(model, graph=graph), known | {graph[index].name: value for index, value in values.items()}


def pieces(graph: Graph, regions: Regions) -> dict[int, Tensor]:
    """The values (b, *shape) of nodes that only move coordinates of an input to themselves, and those points in all problems.

    Of what is moved on from such a node only the first one.
    """
    moved: dict[int, Interval] = {}
    found: dict[int, Tensor] = {}
    for node in graph:
        region = regions.get(node.name) if node.op == INPUT else None
        if region is not None and not isinstance(region, Tensor):
            moved[node.index] = region.box()
        elif node.args and node.args[0] in moved and lookup(node.op).moves:
            own = moved[node.args[0]].map(functools.partial(lookup(node.op).evaluate, **node.attrs))
            if bool((own.lower == own.upper).all()):
                found[node.index] = own.lower
            else:
                moved[node.index] = own
    return found
