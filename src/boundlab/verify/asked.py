"""spec: what should hold of a network, written in Python, as a query."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from boundlab.errors import SpecError
from boundlab.graph import Model, Node, check_model
from boundlab.perturbations.sets import Box
from boundlab.question.exact import Query
from boundlab.question.stated import Ends, Says, Tensors, query_of

Bounded = Box | tuple[object, object]
"""A box, or its lower and upper ends: numbers or arrays."""


def spec(model: Model, holds: Says, *, box: Bounded | Mapping[str, Bounded] | None = None, where: Says | None = None) -> Query:
    """The query whether something holds of a network for all inputs of a box.

    `holds` is called with the network's inputs and then its outputs, as expressions shaped like them without the batch, and
    says what is safe: `lambda x, y: (y[0] > y[1]) & (y[2] <= 0.5)`. Comparisons are joined by `&`, `|` and `~`, and entries by
    linear arithmetic, `sum`, `mean`, `abs`, `max` and `min`. The inputs lie in `box`, a `Box` or (lower, upper), by input name
    if there are several; or as `where` says, a function of the inputs: `lambda x: (x >= 0) & (x[0] <= x[1])`. All numbers count
    as the exact rationals that they are. SpecError for what is not linear, does not fit, or leaves an input without bounds.
    """
    check_model(model)
    inputs = tensors(model.graph.inputs)
    outputs = tensors(list(model.outputs.values()), tuple(model.outputs))
    named: Mapping[str, Bounded] = {}
    if isinstance(box, Mapping):
        named = box
    elif box is not None:
        if len(inputs.names) != 1:
            raise SpecError(f"the network has {len(inputs.names)} inputs; give boxes by name, as in "
                            f"{{'{inputs.names[0]}': (lower, upper)}}." if inputs.names else "the network has no input.")
        named = {inputs.names[0]: box}
    return query_of(inputs, outputs, holds, {name: ends(one) for name, one in named.items()}, where)


def tensors(nodes: list[Node] | tuple[Node, ...], names: tuple[str, ...] | None = None) -> Tensors:
    """Names and shapes of nodes."""
    return Tensors(tuple(node.name for node in nodes) if names is None else names, tuple(node.shape for node in nodes))


def ends(box: Bounded) -> Ends:
    """The ends of a box as plain arrays."""
    if isinstance(box, Box):
        return Ends(plain(box.lower), plain(box.upper))
    if not isinstance(box, tuple) or len(box) != 2:
        raise SpecError(f"a box is a Box or a pair (lower, upper), got a {type(box).__name__}; say other sets in 'where'.")
    return Ends(*map(plain, box))


def plain(end: object) -> object:
    """A tensor as an array on the CPU; anything else as it is."""
    return end.detach().cpu().double().numpy() if isinstance(end, Tensor) else end
