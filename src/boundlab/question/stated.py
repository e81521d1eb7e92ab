"""Specifications in Python as queries: functions of symbolic inputs and outputs are called once, and say what holds."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from boundlab.errors import SpecError
from boundlab.question.exact import Formula, Query
from boundlab.question.expressions import Condition, Expression, condition, constants, variables
from boundlab.question.formula import NEVER, cases_of, joint, negated
from boundlab.question.normal_form import NO_POINT

Says = Callable[..., Condition]
"""A function of a network's inputs (and outputs) that gives a condition."""


@dataclass(frozen=True)
class Tensors:
    """Names and shapes (without the batch) of a network's inputs, or of its outputs, in order."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """How many numbers they hold together."""
        return sum(map(math.prod, self.shapes))

    def expressions(self, first: int) -> list[Expression]:
        """Their entries, numbered flat from `first`."""
        starts = np.cumsum([0, *map(math.prod, self.shapes)]) + first
        return [variables(shape, int(start)) for shape, start in zip(self.shapes, starts, strict=False)]


@dataclass(frozen=True)
class Ends:
    """Lower and upper ends of one input: numbers or arrays that broadcast to (b, *shape)."""

    lower: object
    upper: object


def query_of(inputs: Tensors, outputs: Tensors, holds: Says, boxes: Mapping[str, Ends], where: Says | None = None) -> Query:
    """The query whether `holds` (of inputs and outputs) is true for all inputs in `boxes` that satisfy `where`.

    SpecError for a condition that is not linear or does not fit the shapes, and for inputs without bounds.
    """
    x, y = inputs.expressions(outputs.size), outputs.expressions(0)
    given = dict(zip(inputs.names, x, strict=True))
    unknown = sorted(set(boxes) - set(given))
    if unknown:
        raise SpecError(f"a box is given for '{unknown[0]}'; the network has the inputs {listed(inputs.names)}.")
    parts = [inside(given[name], ends, name) for name, ends in boxes.items()]
    if where is not None:
        parts.append(said(where, "where", x, inputs.names))
    if not parts:
        raise SpecError("the inputs have no bounds: give a box, or say them in 'where', as in (x >= 0) & (x <= 1).")
    safe = said(holds, "holds", [*x, *y], (*inputs.names, *outputs.names))
    sizes = inputs.size, outputs.size
    # Where nothing in the region can be unsafe, the region itself is asked about, so that the query has a case to prove.
    cases = cases_of(joint((*parts, negated(safe)), True), *sizes) or cases_of(joint((*parts, NEVER), True), *sizes)
    if not cases:
        raise SpecError(NO_POINT)
    return Query(*sizes, cases)


def listed(names: Sequence[str]) -> str:
    """Names for a message."""
    return ", ".join(f"'{name}'" for name in names)


def said(says: Says, name: str, arguments: Sequence[Expression], called: Sequence[str]) -> Formula:
    """What a user's function says of its arguments."""
    try:
        inspect.signature(says).bind(*arguments)
    except TypeError as problem:
        raise SpecError(f"'{name}' is called with {len(arguments)} arguments, {listed(called)}, and does not take them: "
                        f"{problem}.") from problem
    return condition(says(*arguments)).joined(True)


def inside(values: Expression, ends: Ends, name: str) -> Formula:
    """That values lie in a box, or in one of a batch of boxes."""
    pair = [constants(end) for end in (ends.lower, ends.upper)]
    shapes = {end.shape for end in pair}
    try:
        shape = np.broadcast_shapes(values.shape, *shapes)
    except ValueError:
        shape = ()
    if shape not in (values.shape, (*shape[:1], *values.shape)):
        found = " and ".join(str(list(end.shape)) for end in pair)
        raise SpecError(f"the box of '{name}' has ends of shapes {found}, which do not fit the input's shape "
                        f"{list(values.shape)}.")
    lower, upper = (np.broadcast_to(end, shape).reshape(-1, *values.shape) for end in pair)
    boxes = [((values >= expression_of(low)) & (values <= expression_of(high))).joined(True)
             for low, high in zip(lower, upper, strict=True)]
    return joint(boxes, False)


def expression_of(numbers: np.ndarray) -> Expression:
    """An array of constants as an expression."""
    return Expression(numbers[None])
