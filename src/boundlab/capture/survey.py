"""What a module needs and boundlab lacks: all of it at once, where `capture` refuses at the first place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from boundlab.capture.export import export
from boundlab.capture.lowering import Lowering
from boundlab.capture.missing import Missing
from boundlab.capture.table import LOWERINGS
from boundlab.capture.torch import call, call_of, lower, model_of, type_of
from boundlab.errors import CaptureError, UnsupportedOperator
from boundlab.graph import Model
from boundlab.ops import Op


def survey(module: nn.Module, *example: Any, **named: Any) -> tuple[Model, tuple[Missing, ...]]:
    """A module as a graph in which nodes of unknown operators stand for what cannot be captured, and all of those.

    For looking at, not for bounds: nothing is compared with the module. CaptureError if torch cannot export the module.
    """
    given = call_of(module, example, named)
    missing: list[Missing] = []
    behind: set[fx.Node] = set()

    def attempt(low: Lowering, node: fx.Node, one_to_one: dict[str, Op]) -> Any:
        try:
            return call(low, node, one_to_one)
        except (UnsupportedOperator, CaptureError) as problem:
            follows = bool(behind.intersection(node.all_input_nodes))
            if follows or isinstance(problem, CaptureError):
                behind.add(node)
            place = stand_in(low, node)
            if not follows:  # else it may be no more than a consequence
                blind = str(node.target) not in LOWERINGS and str(node.target) not in one_to_one
                name, *others = [low.builder.nodes[index].name for index in indices(place)] or [node.name]
                missing.append(Missing(name, str(node.target), low.builder.origin, str(problem), blind, tuple(others)))
            return place

    program = export(module, given)
    return model_of(lower(program, type_of(module, given), attempt), program), tuple(missing)


def indices(held: Any) -> list[int]:
    """The nodes of a call's result, or of its results."""
    return [index for index in (held if isinstance(held, list) else [held]) if isinstance(index, int)]


def stand_in(low: Lowering, node: fx.Node) -> Any:
    """Nodes of an unknown operator, one for each tensor that a call gives, with the shapes that torch says they have."""
    args = [index for arg in node.all_input_nodes for index in indices(low.values.get(arg))]

    def opaque(value: Any) -> int | None:
        if not isinstance(value, Tensor):
            return None
        sizes = [int(size) for size in value.shape if not isinstance(size, torch.SymInt)]
        return low.builder.opaque(str(node.target), args, sizes)

    found = node.meta["val"]
    return [opaque(part) for part in found] if isinstance(found, (list, tuple)) else opaque(found)
