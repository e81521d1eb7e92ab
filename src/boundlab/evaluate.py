"""Concrete evaluation of a graph: what the network is, as seen by the bounds."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from boundlab.errors import ShapeError
from boundlab.graph import PARAMETER, Model, Node, check_model
from boundlab.ops import lookup

Values = Mapping[int, Tensor]


def source_value(model: Model, node: Node, inputs: Mapping[str, Tensor]) -> Tensor:
    """Value of an input or parameter node with its batch axis; a parameter may be overridden by name in `inputs`."""
    if node.name in inputs:
        value = inputs[node.name]
        if tuple(value.shape[1:]) != node.shape:
            raise ShapeError(f"'{node.name}' takes (batch, {', '.join(map(str, node.shape))}), got {tuple(value.shape)}; "
                             "the first axis counts problems and may not be left out.")
        return value
    if node.op != PARAMETER:
        raise ShapeError(f"the network's input '{node.name}' was not given; give every input a tensor or a set, by name.")
    return model.params[node.name].unsqueeze(0)


def evaluate_all(model: Model, inputs: Mapping[str, Tensor], guided: bool = False) -> dict[int, Tensor]:
    """Every node's value (b or 1, *shape) for inputs (b, *shape) by name; `guided` says whose slopes jumps have, see `Op`."""
    values: dict[int, Tensor] = {}
    for node in model.graph:
        if node.source:
            values[node.index] = source_value(model, node, inputs)
        else:
            arguments = (values[arg] for arg in node.args)
            op = lookup(node.op)
            values[node.index] = (op.guided if guided else op.evaluate)(*arguments, **node.attrs)
    return values


def evaluate(model: Model, inputs: Mapping[str, Tensor] | Tensor, guided: bool = False) -> Tensor:
    """The network's only output (b, *shape) at inputs (b, *shape) by name; a lone tensor feeds a network with one input.

    A parameter may be given another value by its name. ShapeError if an input is missing or of another shape, or the network
    has several outputs. `guided` says whose slopes jumps have, see `Op`.
    """
    check_model(model)
    named = {model.graph.inputs[0].name: inputs} if isinstance(inputs, Tensor) else inputs
    return evaluate_all(model, named, guided)[model.graph.output.index]
