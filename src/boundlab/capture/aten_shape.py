"""Lowerings of torch operators that move, cut, join or copy coordinates."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from boundlab.capture import resample
from boundlab.capture.aten_moves import traced
from boundlab.capture.lowering import Lowering, batched
from boundlab.capture.moves import joined, picked
from boundlab.capture.table import LOWERINGS, argument, lowers, operands, unsupported, without_batch

MOST_ENTRIES = 2**24
"""A matrix that is written down for a scatter has no more numbers."""


@lowers("view.default", "reshape.default", "_unsafe_view.default", "flatten.using_ints", "unflatten.int", "squeeze.default",
        "squeeze.dim", "squeeze.dims", "unsqueeze.default", "ravel.default")
def reshape(low: Lowering, node: fx.Node) -> int:
    """Every reshape is described by its result alone; one that changes nothing (a flatten of vectors) is no node."""
    low.check_reshape(node.args[0])  # type: ignore[arg-type]
    index, shape = low.index(node.args[0]), low.result_shape()
    return index if low.builder.shape(index) == shape else low.builder.add("reshape", index, shape=shape)


@lowers("expand.default")
def expand(low: Lowering, node: fx.Node) -> int:
    """Copies along axes of size 1; a constant repeated over the batch stays one constant."""
    x: Any = node.args[0]
    target = node.meta["val"].shape
    index, place = low.index(x), next((d for d, size in enumerate(target) if isinstance(size, torch.SymInt)), None)
    static = tuple(int(size) for d, size in enumerate(target) if d != place)
    if place is not None and not batched(x):
        index = without_batch(low, index, len(target) - place)
    own = low.builder.shape(index)
    aligned = low.builder.add("reshape", index, shape=(1,) * (len(static) - len(own)) + own)
    return low.builder.add("expand", aligned, shape=static) if low.builder.shape(aligned) != static else aligned


@lowers("permute.default", "transpose.int", "t.default", "movedim.int")
def permute(low: Lowering, node: fx.Node) -> int:
    """Any reordering of axes, as one list."""
    x: Any = node.args[0]
    order = list(range(low.rank(x)))
    if "permute" in str(node.target):
        order = [int(d) % len(order) for d in node.args[1]]  # type: ignore[union-attr, arg-type]
    else:
        ends: Any = node.args[1:3] if len(node.args) > 2 else (0, 1)
        first, second = (int(d) % len(order) for d in ends)
        if "movedim" in str(node.target):
            order.insert(second, order.pop(first))
        else:
            order[first], order[second] = order[second], order[first]
    if batched(x) and (batch := low.batch(x)).factor == 1:
        order = [d - 1 if d > batch.place else d for d in order if d != batch.place]
    return low.builder.add("permute", low.index(x), dims=tuple(order))


def cut(low: Lowering, x: Any, dim: int, start: int, stop: int, step: int = 1) -> int:
    """x[start:stop:step] along one of our axes."""
    index = low.index(x)
    slices = tuple(slice(start, stop, step) if d == dim else slice(0, size, 1)
                   for d, size in enumerate(low.builder.shape(index)))
    return low.builder.add("slice", index, slices=slices)


@lowers("slice.Tensor")
def slice_(low: Lowering, node: fx.Node) -> Any:
    """A slice along one axis; slicing the whole batch changes nothing."""
    x: Any = node.args[0]
    dim, start = argument(node, 1, "dim", 0), argument(node, 2, "start") or 0
    stop, step = argument(node, 3, "end"), argument(node, 4, "step", 1)
    whole = start == 0 and (stop is None or not isinstance(stop, int) or stop > 2**60)
    if whole and batched(x) and dim % low.rank(x) == low.batch(x).place:
        return low.values[x]
    axis = low.axis(x, dim)
    size = low.builder.shape(low.index(x))[axis]
    start, stop, step = slice(start, stop, step).indices(size)
    return low.values[x] if (start, stop, step) == (0, size, 1) else cut(low, x, axis, start, stop, step)


@lowers("select.int")
def select(low: Lowering, node: fx.Node) -> int:
    """One entry along an axis, which disappears."""
    x: Any = node.args[0]
    axis, place = low.axis(x, int(node.args[1])), int(node.args[2])  # type: ignore[arg-type]
    place %= low.builder.shape(low.index(x))[axis]
    return low.builder.add("reshape", cut(low, x, axis, place, place + 1), shape=low.result_shape())


@lowers("split.Tensor", "split_with_sizes.default", "chunk.default", "unbind.int", "unsafe_split.Tensor",
        "tensor_split.sections")
def split(low: Lowering, node: fx.Node) -> list[int]:
    """Consecutive blocks along an axis, as many and as long as the program's results."""
    x: Any = node.args[0]
    drop = "unbind" in str(node.target)
    dim = argument(node, 1 if drop else 2, "dim", 0)
    axis, start, parts = low.axis(x, dim), 0, []
    for result in node.meta["val"]:
        size = 1 if drop else int(result.shape[dim])
        part = cut(low, x, axis, start, start + size)
        if drop:
            shape = low.builder.shape(part)
            part = low.builder.add("reshape", part, shape=shape[:axis] + shape[axis + 1:])
        parts.append(part)
        start += size
    return parts


def getitem(low: Lowering, node: fx.Node) -> Any:
    """One result of an operator that has several."""
    return low.values[node.args[0]][node.args[1]]  # type: ignore[index]


LOWERINGS["<built-in function getitem>"] = getitem


@lowers("cat.default", "stack.default")
def concat(low: Lowering, node: fx.Node) -> int:
    """Parts side by side along an axis, a new one for stack."""
    parts: Any = node.args[0]
    varying = next((part for part in parts if batched(part)), parts[0])
    dim, rank, stacked = argument(node, 1, "dim", 0), low.rank(varying), "stack" in str(node.target)
    indices = operands(low, *parts)
    if not stacked:
        return low.builder.add("concat", *indices, dim=low.axis(varying, dim))
    dim %= rank + 1
    batch = low.batch(varying) if batched(varying) else None
    axis = dim - 1 if batch is not None and batch.factor == 1 and dim > batch.place else dim
    shapes = [low.builder.shape(index) for index in indices]
    wide = [low.builder.add("reshape", index, shape=(*shape[:axis], 1, *shape[axis:]))
            for index, shape in zip(indices, shapes, strict=True)]
    return low.builder.add("concat", *wide, dim=axis)


@lowers("constant_pad_nd.default", "pad.default")
def pad(low: Lowering, node: fx.Node) -> int:
    """Padding by a constant, or by what is there; pairs are given from the last axis on, and negative ones cut."""
    if "pad.default" in str(node.target) and argument(node, 2, "mode", "constant") != "constant":
        return joined(low.builder, *traced(low, node))
    x, sizes = low.index(node.args[0]), [int(size) for size in node.args[1]]  # type: ignore[union-attr, arg-type]
    value = argument(node, 2 if "constant" in str(node.target) else 3, "value", 0.0) or 0.0
    source: Any = node.args[0]
    shape, rank = low.builder.shape(x), low.rank(source)
    pairs = [(0, 0)] * (rank - len(sizes) // 2) + list(zip(sizes[-2::-2], sizes[::-2], strict=True))
    if batched(source) and len(shape) < rank and pairs.pop(low.batch(source).place) != (0, 0):
        raise unsupported(node, "pads the batch axis; examples of a batch must not be mixed")
    if any(side < 0 for pair in pairs for side in pair):
        kept = tuple(slice(max(-before, 0), size + min(after, 0), 1)
                     for size, (before, after) in zip(shape, pairs, strict=True))
        x, pairs = low.builder.add("slice", x, slices=kept), [(max(before, 0), max(after, 0)) for before, after in pairs]
        shape = low.builder.shape(x)
    whole = tuple(size + before + after for size, (before, after) in zip(shape, pairs, strict=True))
    return low.builder.add("pad", x, before=tuple(pair[0] for pair in pairs), shape=whole, value=float(value))


@lowers("embedding.default")
def embedding(low: Lowering, node: fx.Node) -> int:
    """Rows of a table: by known numbers an ordinary gather, by an input's numbers a lookup that is affine in the table."""
    table, place = (low.index(part) for part in node.args[:2])
    if place in low.builder.varying:
        return low.builder.add("pick", table, place, dim=0)
    rows, width = low.builder.known(place)[0], low.builder.shape(table)[1]
    index = rows[..., None] * width + torch.arange(width)
    return low.builder.add("gather", table, index=index.flatten(), shape=tuple(index.shape))


@lowers("index_select.default")
def index_select(low: Lowering, node: fx.Node) -> int:
    """Slices of an axis by a list of places."""
    x: Any = node.args[0]
    if low.varies(node.args[2]):
        return low.builder.add("pick", low.index(x), low.index(node.args[2]), dim=low.axis(x, int(node.args[1])))  # type: ignore[arg-type]
    return joined(low.builder, *traced(low, node))


def adding(low: Lowering, node: fx.Node) -> tuple[int, int, int, Tensor]:
    """What `node` adds to and what it adds, along which axis, and at which known places."""
    x: Any = node.args[0]
    axis, places = low.axis(x, int(node.args[1])), low.index(node.args[2])  # type: ignore[arg-type]
    if places in low.builder.varying:
        raise unsupported(node, "adds at places that depend on an input; only constant places can be bounded")
    first, added = operands(low, x, node.args[3])
    return first, added, axis, low.builder.known(places)[0].long()


@lowers("index_add.default")
def index_add(low: Lowering, node: fx.Node) -> int:
    """x plus slices added at known places of one axis: a matrix of ones along it."""
    build, (first, added, axis, places) = low.builder, adding(low, node)
    matrix = torch.nn.functional.one_hot(places, build.shape(first)[axis]).mT * float(argument(node, 4, "alpha", 1))
    return build.broadcast("add", first, resample.along(build, added, axis, matrix))


@lowers("scatter_add.default")
def scatter_add(low: Lowering, node: fx.Node) -> int:
    """x plus the entries of another tensor, each at its own constant place along one axis: a matrix of ones on all entries."""
    build, (first, added, axis, index) = low.builder, adding(low, node)
    shape = build.shape(first)
    if index.numel() * math.prod(shape) > MOST_ENTRIES:
        raise unsupported(node, f"adds {index.numel()} entries to {math.prod(shape)}, a matrix too large to write down; use "
                          "index_add, which adds whole slices")
    at = list(torch.meshgrid(*(torch.arange(size) for size in index.shape), indexing="ij"))
    at[axis] = index
    cells = torch.arange(math.prod(shape)).reshape(shape)[tuple(at)].flatten()
    matrix = build.constant(torch.nn.functional.one_hot(cells, math.prod(shape)).mT.to(build.dtype))
    taken = build.add("slice", added, slices=tuple(slice(0, size, 1) for size in index.shape))
    total = build.add("linear", build.add("reshape", taken, shape=(index.numel(),)), matrix)
    return build.broadcast("add", first, build.add("reshape", total, shape=shape))


@lowers("nll_loss_nd.default")
def negative_log_likelihood(low: Lowering, node: fx.Node) -> int:
    """Minus the entry of each example's own class; losses are wanted one for each example, so reduction must be "none"."""
    x, target = node.args[:2]
    build, index, label = low.builder, low.index(x), low.index(target)
    if argument(node, 2, "weight") is not None or argument(node, 3, "reduction", 1) != 0 or len(build.shape(index)) != 1:
        raise unsupported(node, "is a loss with weights, over several axes, or reduced over the batch, where examples mix; use "
                          "reduction='none' on (batch, classes)")
    chosen = build.add("pick", index, label, dim=0) if label in build.varying else picked(build, index, build.known(label)[0])
    return build.add("neg", chosen)
