"""The lowering table of torch operators by their name in an exported program, and what its rules are written with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from boundlab.capture.lowering import Lowering, where_from
from boundlab.errors import UnsupportedOperator

Rule = Callable[[Lowering, fx.Node], Any]
LOWERINGS: dict[str, Rule] = {}


def lowers(*targets: str) -> Callable[[Rule], Rule]:
    """Enter a rule into the table under the program names `aten.<target>`."""

    def enter(rule: Rule) -> Rule:
        LOWERINGS.update({f"aten.{target}": rule for target in targets})
        return rule

    return enter


def argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """An argument by position or by name, else its default."""
    return node.args[position] if position < len(node.args) else node.kwargs.get(name, default)


def unsupported(node: fx.Node, reason: str) -> UnsupportedOperator:
    """The error for a program node that is known but used in a way that has no lowering."""
    return UnsupportedOperator(f"'{node.name}'{where_from(node)} {reason}.")


def per_axis(value: Any, count: int) -> tuple[int, ...]:
    """One number for each spatial axis."""
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values * count if len(values) == 1 else values


def operands(low: Lowering, *values: Any) -> list[int]:
    """Graph nodes of values that broadcast against each other; a constant's axis of size 1 beside the batch is dropped."""
    ranks = [low.rank(value) for value in values if low.varies(value)]
    return [index if not ranks or index in low.builder.varying else without_batch(low, index, max(ranks))
            for index in map(low.index, values)]


def without_batch(low: Lowering, index: int, rank: int) -> int:
    """A constant (1, ...) with as many axes as a batched value of `rank`, without its leading axis."""
    shape = low.builder.shape(index)
    return low.builder.add("reshape", index, shape=shape[1:]) if len(shape) == rank and shape[0] == 1 else index
