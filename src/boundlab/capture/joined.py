"""Graphs joined as data: several networks beside each other, inputs under other names, and inputs that are moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from boundlab.capture.builder import Builder
from boundlab.errors import ShapeError
from boundlab.graph import INPUT, PARAMETER, Graph, Model, check_model


def include(build: Builder, model: Model, fed: Mapping[str, int], prefix: str = "") -> tuple[int, ...]:
    """The nodes of a network written into a graph, with nodes of that graph `fed` to its inputs; the places of its outputs.

    A parameter that the graph has already, as the same tensor, is not written again.
    """
    known = {id(tensor): place for place, node in enumerate(build.nodes) if (tensor := build.params.get(node.name)) is not None}
    placed: dict[int, int] = {}
    for node in model.graph:
        if node.op == INPUT:
            placed[node.index] = fed[node.name]
        elif node.op == PARAMETER:
            tensor = model.params[node.name]
            shared = known.get(id(tensor))
            placed[node.index] = build.parameter(prefix + node.name, tensor) if shared is None else shared
        else:
            placed[node.index] = build.copied(node, [placed[arg] for arg in node.args], prefix + node.name)
    return tuple(placed[index] for index in model.graph.outputs)


def joined(**networks: Model) -> Model:
    """Several networks as one: inputs of the same name are one input, and outputs follow each other.

    An output has the name of its network, or NETWORK.OUTPUT if that has several. `renamed` gives a network inputs of its own,
    or makes two that are called differently one. ShapeError if shared inputs, types or devices differ.
    """
    if not networks:
        raise ShapeError("no network is given to join.")
    kinds = {(model.dtype, model.device) for model in networks.values()}
    if len(kinds) > 1:
        raise ShapeError("networks of different types or devices cannot be joined: "
                         f"{', '.join(sorted(f'{dtype} on {device}' for dtype, device in kinds))}.")
    build = Builder(next(iter(kinds))[0])
    inputs: dict[str, int] = {}
    outputs: list[int] = []
    names: list[str] = []
    for name, model in networks.items():
        for node in model.graph.inputs:
            if node.name not in inputs:
                inputs[node.name] = build.input(node.name, node.shape)
            elif build.shape(inputs[node.name]) != node.shape:
                shapes = f"{list(build.shape(inputs[node.name]))} and {list(node.shape)}"
                raise ShapeError(f"the networks share the input '{node.name}', which has the shapes {shapes}; give one of them "
                                 "another name (renamed).")
        outputs += include(build, model, inputs, f"{name}.")
        alone = len(model.graph.outputs) == 1
        names += [name] if alone else [f"{name}.{own}" for own in model.graph.output_names]
    return build.model(outputs, names)


def renamed(model: Model, names: Mapping[str, str]) -> Model:
    """The same network with inputs under other names, {old: new}; ShapeError for unknown names and those that are taken."""
    check_model(model)
    own = {node.name for node in model.graph.inputs}
    unknown = sorted(set(names) - own)
    if unknown:
        raise ShapeError(f"the network has no input '{unknown[0]}'; it has {', '.join(map(repr, sorted(own)))}.")
    nodes = tuple(replace(node, name=names.get(node.name, node.name)) if node.op == INPUT else node for node in model.graph)
    found = [node.name for node in nodes]
    taken = sorted(name for name in names.values() if found.count(name) > 1)
    if taken:
        raise ShapeError(f"the network has a node '{taken[0]}' already; choose another name.")
    return replace(model, graph=Graph(nodes, model.graph.outputs, model.graph.names, model.graph.norms))


def moved(model: Model, by: str, at: str | None = None) -> Model:
    """The network at its input plus a further input `by` of the same shape: a function of both.

    `at` names the input (default: the only one). So f(x + d) stands beside f(x), and a box for d says how x may change.
    """
    check_model(model)
    inputs = {node.name: node for node in model.graph.inputs}
    where = next(iter(inputs)) if at is None and len(inputs) == 1 else at
    if where not in inputs:
        asked = "which input is moved is not said" if where is None else f"the network has no input '{where}'"
        raise ShapeError(f"{asked}; it has {', '.join(map(repr, inputs))}.")
    if by in inputs:
        raise ShapeError(f"the network has an input '{by}' already; choose another name for how far '{where}' moves.")
    build = Builder(model.dtype)
    fed = {name: build.input(name, node.shape) for name, node in inputs.items()}
    distance = build.input(by, inputs[where].shape)
    build.name = f"{where}+{by}"
    outputs = include(build, model, {**fed, where: build.add("add", fed[where], distance)})
    return build.model(outputs, model.graph.output_names)
