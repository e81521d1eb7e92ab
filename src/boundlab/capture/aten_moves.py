"""Lowerings of torch operators that move, repeat, pick, drop or overwrite entries: each is run on the entries' positions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from boundlab.capture.lowering import Lowering, batched, where_from
from boundlab.capture.moves import joined
from boundlab.capture.table import Rule, lowers, unsupported
from boundlab.errors import CaptureError

EXAMPLES = 2
"""How many examples the operator is run on; what it does to the second one must be what it does to the first."""


SPREAD = 2**40
"""How far apart the numbers of one entry in two examples are."""


@dataclass
class Numbering:
    """The nodes whose entries have been numbered so far: from 1 on, node after node; an example's own ones SPREAD apart."""

    low: Lowering
    parts: list[int] = field(default_factory=list)
    own: list[Tensor] = field(default_factory=list)

    def positions(self, index: int, varies: bool) -> Tensor:
        """The numbers of a node's entries, (examples, *shape); `varies` says whether they are each example's own."""
        shape, start = self.low.builder.shape(index), sum(map(len, self.own))
        first = start + 1 + torch.arange(math.prod(shape), dtype=torch.float64).reshape(shape)
        self.parts.append(index)
        self.own.append(torch.full((first.numel(),), varies))
        return torch.stack([first + SPREAD * example * varies for example in range(EXAMPLES)])

    def separate(self, found: list[Tensor]) -> bool:
        """Whether what the operator made of the numbers is for each example the same, of its own entries."""
        own = torch.cat([torch.zeros(1, dtype=torch.bool), *self.own])
        number = found[0].long()
        if bool((number >= len(own)).any()):
            return False
        return all(torch.equal(result.long(), number + SPREAD * example * own[number]) for example, result in enumerate(found))


def moves(value: int | None = None) -> Rule:
    """The rule of an operator that only moves entries; `value` is the place of an argument that is a number to be written."""

    def rule(low: Lowering, node: fx.Node) -> int:
        return joined(low.builder, *traced(low, node, value))

    return rule


def traced(low: Lowering, node: fx.Node, value: int | None = None) -> tuple[list[int], Tensor]:
    """The nodes that an operator's entries come from, and the position of each entry of its result among them."""
    numbering = Numbering(low)
    args, named = concrete(low, node, numbering)
    if value is not None:
        number = numbering.positions(low.builder.constant(float(args[value])), False)[0].item()
        args = (*args[:value], number, *args[value + 1:])
    function: Any = node.target
    result = function(*args, **named)
    found = [split_batch(low, node, result, example) for example in range(EXAMPLES)]
    if not numbering.separate(found):
        raise CaptureError(f"'{node}'{where_from(node)} moves entries between examples of a batch, which must not be mixed.")
    return numbering.parts, found[0].long() - 1


def concrete(low: Lowering, node: fx.Node, numbering: Numbering) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """The arguments of a call for EXAMPLES examples: positions for values, numbers for indices and sizes."""

    def one(part: fx.Node) -> Any:
        held = part.meta.get("val")
        if not isinstance(held, Tensor):
            return size_at(held, EXAMPLES)
        index = low.index(part)
        if held.is_floating_point():
            return with_batch(low, part, numbering.positions(index, low.varies(part)))
        if low.varies(part):
            raise unsupported(node, f"picks entries by '{part}', which depends on an input; places must be constant here")
        known = low.builder.known(index)[0].to(held.dtype)
        return with_batch(low, part, torch.stack([known] * EXAMPLES))

    return fx.map_arg(node.args, one), fx.map_arg(node.kwargs, one)


def concrete_size(part: Any) -> Any:
    """An argument that holds sizes, for EXAMPLES examples."""
    return fx.map_arg(part, lambda size: size_at(size.meta.get("val"), EXAMPLES))


def size_at(size: Any, batch: int) -> Any:
    """A size of the program at a given batch."""
    if isinstance(size, torch.SymInt):
        formula: Any = size.node.expr
        return int(formula.subs(dict.fromkeys(formula.free_symbols, batch)))
    return size


def with_batch(low: Lowering, part: fx.Node, values: Tensor) -> Tensor:
    """Values (examples, *our shape) in the shape of the program value, its batch in its place."""
    if not batched(part):
        return values[0]
    batch, values = low.batch(part), values.expand(len(values), *low.shape_of(part))
    if batch.factor == 1:
        return values.movedim(0, batch.place)
    middle = values.unflatten(1 + batch.place, (batch.outer, batch.factor // batch.outer))
    return middle.movedim(0, batch.place + 1).flatten(batch.place, batch.place + 2)


def split_batch(low: Lowering, node: fx.Node, result: Tensor, example: int) -> Tensor:
    """One example of a result in our shape: the inverse of `with_batch`."""
    if not batched(node):
        return result
    batch = low.batch(node)
    if batch.factor == 1:
        return result.select(batch.place, example)
    parts = result.unflatten(batch.place, (batch.outer, EXAMPLES, batch.factor // batch.outer))
    return parts.select(batch.place + 1, example).flatten(batch.place, batch.place + 1)


for target in (
    "flip", "fliplr", "flipud", "roll", "rot90", "repeat", "tile", "repeat_interleave.self_int",
    "repeat_interleave.self_Tensor", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "im2col", "unfold", "diagonal",
    "diag", "diag_embed", "tril", "triu", "index.Tensor", "_unsafe_index.Tensor", "gather", "take",
    "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d",
    "replication_pad3d", "upsample_nearest1d", "upsample_nearest1d.vec", "upsample_nearest2d", "upsample_nearest2d.vec",
    "upsample_nearest3d", "upsample_nearest3d.vec", "_upsample_nearest_exact1d", "_upsample_nearest_exact1d.vec",
    "_upsample_nearest_exact2d", "_upsample_nearest_exact2d.vec", "_upsample_nearest_exact3d",
    "_upsample_nearest_exact3d.vec", "select_scatter", "slice_scatter", "diagonal_scatter", "scatter.src", "copy",
    "slice_backward", "select_backward", "diagonal_backward",
):
    lowers(target if "." in target else f"{target}.default")(moves())
for target, place in (("scatter.value", 3), ("index_fill.int_Scalar", 3)):
    lowers(target)(moves(place))


@lowers("index_put.default", "_unsafe_index_put.default")
def index_put(low: Lowering, node: fx.Node) -> int:
    """Entries overwritten at constant places."""
    if len(node.args) > 3 and node.args[3]:
        raise unsupported(node, "adds values at places that may repeat; write it as a product with a constant matrix")
    return joined(low.builder, *traced(low, node))


@lowers("fill.Tensor", "fill.Scalar")
def fill(low: Lowering, node: fx.Node) -> int:
    """One number everywhere."""
    build, shape = low.builder, low.result_shape()
    number = build.add("reshape", low.index(node.args[1]), shape=(1,) * len(shape))
    return build.add("expand", number, shape=shape) if build.shape(number) != shape else number
