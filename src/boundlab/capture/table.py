"""The lowering table of torch operators by their name in an exported program, and what its rules are written with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from boundlab.capture.lowering import Lowering, batched, where_from
from boundlab.errors import CaptureError, UnsupportedOperator

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
    places = {low.rank(value) - low.batch(value).place for value in values if plain(low, value)}
    if len(places) > 1:
        raise CaptureError(f"'{low.node}'{where_from(low.node)} combines values whose batch axes do not meet.")
    return [without_batch(low, low.index(value), max(places)) if places and not is_batched(value) else low.index(value)
            for value in values]


def is_batched(value: Any) -> bool:
    """Whether a program value has a batch axis."""
    return isinstance(value, fx.Node) and batched(value)


def plain(low: Lowering, value: Any) -> bool:
    """Whether a program value has a batch axis of its own, with nothing merged into it."""
    return is_batched(value) and low.batch(value).factor == 1


def without_batch(low: Lowering, index: int, place: int) -> int:
    """A constant without its axis number `place` from the end, if that has size 1: where a batched value has its batch."""
    shape = low.builder.shape(index)
    if len(shape) < place or shape[len(shape) - place] != 1:
        return index
    return low.builder.add("reshape", index, shape=shape[:len(shape) - place] + shape[len(shape) - place + 1:])
