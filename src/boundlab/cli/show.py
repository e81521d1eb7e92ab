"""boundlab show: the graph of a network and how each node is bounded."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

import boundlab as bl
from boundlab.bounds.intermediate import perturbed_nodes
from boundlab.cli.answer import Answer, Table
from boundlab.cli.loading import InputShape, Net, Weights, load_network
from boundlab.cli.verb import Session
from boundlab.graph import PARAMETER
from boundlab.ops import lookup

Parameters = Annotated[bool, typer.Option("--parameters", help="List parameters and constants too.")]


def how_bounded(node: bl.Node, perturbed: set[int]) -> str:
    """Exact, relaxed or constant, while the inputs vary and the parameters do not."""
    if node.source:
        return node.op
    if node.index not in perturbed:
        return "constant"
    return "exact" if lookup(node.op).affine(tuple(arg in perturbed for arg in node.args)) else "relaxed"


def described(node: bl.Node, graph: bl.Graph, perturbed: set[int]) -> dict[str, Any]:
    """One node as JSON holds it."""
    return {"node": node.name, "operator": node.op, "shape": list(node.shape), "bounded": how_bounded(node, perturbed),
            "reads": [graph[arg].name for arg in node.args], "output": node.index in graph.outputs}


def show(session: Session, net: Net, weights: Weights = None, input_shape: InputShape = None,
         parameters: Parameters = False) -> Answer:
    """Show a network: every node with its operator, its shape without the batch, how it is bounded, and what it reads."""
    model = load_network(net, weights, input_shape, session.device)
    graph = model.graph
    perturbed = perturbed_nodes(graph, [node.index for node in graph.inputs])
    nodes = [described(node, graph, perturbed) for node in graph]
    numbers = {name: math.prod(value.shape) for name, value in model.params.items()}
    rows = [(node.name, node.op, "x".join(map(str, node.shape)) or "-", how_bounded(node, perturbed),
             ", ".join(graph[arg].name for arg in node.args) or "-") for node in graph if parameters or node.op != PARAMETER]
    relaxed = sum(node["bounded"] == "relaxed" for node in nodes)
    sentence = (f"{len(nodes)} nodes, {relaxed} of them relaxed; {len(numbers)} parameters and constants of "
                f"{sum(numbers.values())} numbers, {str(model.dtype).removeprefix('torch.')}.")
    return Answer({"network": net, "nodes": nodes, "parameters": numbers, "dtype": str(model.dtype).removeprefix("torch.")},
                  (Table(("node", "operator", "shape", "bounded", "reads"), rows),), (sentence,))
