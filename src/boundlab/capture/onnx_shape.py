"""ONNX operators that move, repeat or pick entries.

Each is one function on arrays. On a known array it gives the folded result; on a graph value it is applied to the flat
positions of the entries, and what comes out tells which structured operator of ours does the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from boundlab.capture import functions, moves
from boundlab.capture.builder import sized
from boundlab.capture.onnx_arith import applied, operand
from boundlab.capture.onnx_lowering import Known, OnnxLowering, OnnxNode, Value, lowers, stripped
from boundlab.errors import CaptureError, UnsupportedOperator

Mover = Callable[[OnnxLowering, OnnxNode, np.ndarray], np.ndarray]


def rearranges(*operators: str) -> Callable[[Mover], Mover]:
    """Enter a rearrangement of entries as the rule of ONNX operators."""

    def enter(mover: Mover) -> Mover:
        def rule(low: OnnxLowering, node: OnnxNode) -> Known:
            data = low.given(node, 0)
            if isinstance(data, Value):
                return picked(low, data, np.asarray(mover(low, node, low.positions(data))))
            return np.asarray(mover(low, node, low.array(node, 0, "data")))

        lowers(*operators)(rule)
        return mover

    return enter


def picked(low: OnnxLowering, value: Value, index: np.ndarray) -> Value:
    """The entries at flat positions `index` by the most structured operator that picks them; -1 is a zero."""
    if not index.size:
        raise UnsupportedOperator("its result is empty")
    positions = torch.from_numpy(np.array(index, np.int64)).reshape(stripped(index.shape))
    return low.close(moves.picked(low.builder, value.index, positions), index.shape)


# -- shape only ----------------------------------------------------------------------------------------------------------

@rearranges("Identity", "Dropout")
def same(low: OnnxLowering, node: OnnxNode, array: np.ndarray) -> np.ndarray:
    """No change; dropout is only known switched off (its training flag missing or false)."""
    if node.op == "Dropout" and bool(low.setting(node, 2, "training_mode", False)):
        raise UnsupportedOperator("it is dropout in training mode; export the network in evaluation mode")
    return array


@rearranges("Reshape")
def reshape(low: OnnxLowering, node: OnnxNode, array: np.ndarray) -> np.ndarray:
    """A new shape, where 0 keeps an axis (unless `allowzero`) and -1 takes what is left."""
    sizes = [int(size) for size in low.setting(node, 1, "shape")]
    if not node.attributes.get("allowzero", 0):
        sizes = [array.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return array.reshape(sizes)


@rearranges("Flatten")
def flatten(low: OnnxLowering, node: OnnxNode, array: np.ndarray) -> np.ndarray:
    """Two axes: those before `axis`, and the rest."""
    axis = node.attributes.get("axis", 1)
    axis = axis + array.ndim if axis < 0 else axis
    return array.reshape(math.prod(array.shape[:axis]), -1)


@rearranges("Squeeze")
def squeeze(low: OnnxLowering, node: OnnxNode, array: np.ndarray) -> np.ndarray:
    """Without axes of size 1."""
    axes = low.setting(node, 1, "axes")
    return np.squeeze(array) if axes is None else np.squeeze(array, tuple(axes))


@rearranges("Unsqueeze")
def unsqueeze(low: OnnxLowering, node: OnnxNode, array: np.ndarray) -> np.ndarray:
    """With new axes of size 1."""
    axes = low.setting(node, 1, "axes")
    return np.expand_dims(array, tuple(axes) if isinstance(axes, list) else axes)


@lowers("Shape", "Size")
def shape_of(low: OnnxLowering, node: OnnxNode) -> Known:
    """The shape, or the number of entries, at batch size 1."""
    data = low.given(node, 0)
    shape = () if data is None else data.shape
    if node.op == "Size":
        return np.array(math.prod(shape), np.int64)
    return np.array(shape[node.attributes.get("start", 0):node.attributes.get("end")], np.int64)


# -- picking -------------------------------------------------------------------------------------------------------------

@rearranges("Slice")
def slice_(low: OnnxLowering, node: OnnxNode, array: np.ndarray) -> np.ndarray:
    """Slices along axes, of any step."""
    starts, ends = low.setting(node, 1, "starts"), low.setting(node, 2, "ends")
    axes = low.setting(node, 3, "axes") or range(len(starts))
    steps = low.setting(node, 4, "steps") or [1] * len(starts)
    slices = [slice(None)] * array.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        slices[axis] = slice(int(start), int(end), int(step))
    return array[tuple(slices)]


@rearranges("Gather")
def gather(low: OnnxLowering, node: OnnxNode, array: np.ndarray) -> np.ndarray:
    """The slices of one axis that a tensor of indices names."""
    return np.take(array, low.array(node, 1, "indices"), axis=node.attributes.get("axis", 0))


@rearranges("GatherElements")
def gather_elements(low: OnnxLowering, node: OnnxNode, array: np.ndarray) -> np.ndarray:
    """For every entry of the indices, the entry at that place of one axis."""
    axis = node.attributes.get("axis", 0)
    indices = low.array(node, 1, "indices")
    places = list(np.indices(indices.shape))
    places[axis] = indices
    return array[tuple(places)]


@rearranges("GatherND")
def gather_nd(low: OnnxLowering, node: OnnxNode, array: np.ndarray) -> np.ndarray:
    """Entries or slices at tuples of indices, which are each batch's own on `batch_dims` leading axes."""
    indices, shared = low.array(node, 1, "indices"), node.attributes.get("batch_dims", 0)
    lead = array.shape[:shared]
    rows = [block[tuple(np.moveaxis(own, -1, 0))] for block, own in
            zip(array.reshape(-1, *array.shape[shared:]), indices.reshape(-1, *indices.shape[shared:]), strict=True)]
    return np.stack(rows).reshape(*lead, *rows[0].shape)


@rearranges("Trilu")
def triangle(low: OnnxLowering, node: OnnxNode, array: np.ndarray) -> np.ndarray:
    """The upper or lower triangle of the last two axes, zeros elsewhere."""
    offset = 0 if low.given(node, 1) is None else int(low.array(node, 1, "diagonal").reshape(-1)[0])
    kept = np.triu(np.ones(array.shape[-2:], bool), offset) if node.attributes.get("upper", 1) else \
        np.tril(np.ones(array.shape[-2:], bool), offset)
    return np.where(kept, array, moves.ZERO if isinstance(low.given(node, 0), Value) else 0).astype(array.dtype)


@rearranges("Compress")
def compress(low: OnnxLowering, node: OnnxNode, array: np.ndarray) -> np.ndarray:
    """The slices of one axis (of the flattened tensor, if none is named) where a known condition holds."""
    return np.compress(low.array(node, 1, "condition"), array, node.attributes.get("axis"))


@rearranges("ReverseSequence")
def reverse_sequence(low: OnnxLowering, node: OnnxNode, array: np.ndarray) -> np.ndarray:
    """The first entries of each sequence in reverse order."""
    lengths, time = low.array(node, 1, "lengths"), node.attributes.get("time_axis", 0)
    ahead = np.moveaxis(array, (time, node.attributes.get("batch_axis", 1)), (0, 1)).copy()
    for place, length in enumerate(lengths):
        ahead[:length, place] = ahead[:length, place][::-1]
    return np.moveaxis(ahead, (0, 1), (time, node.attributes.get("batch_axis", 1)))


@rearranges("DepthToSpace")
def depth_to_space(low: OnnxLowering, node: OnnxNode, array: np.ndarray) -> np.ndarray:
    """Blocks of channels become blocks of pixels (pixel shuffle is mode CRD)."""
    size = node.attributes["blocksize"]
    batch, channels, height, width = array.shape
    if node.attributes.get("mode", "DCR") == "DCR":
        blocks = array.reshape(batch, size, size, channels // size**2, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        blocks = array.reshape(batch, channels // size**2, size, size, height, width).transpose(0, 1, 4, 2, 5, 3)
    return blocks.reshape(batch, channels // size**2, height * size, width * size)


@rearranges("SpaceToDepth")
def space_to_depth(low: OnnxLowering, node: OnnxNode, array: np.ndarray) -> np.ndarray:
    """Blocks of pixels become blocks of channels."""
    size = node.attributes["blocksize"]
    batch, channels, height, width = array.shape
    blocks = array.reshape(batch, channels, height // size, size, width // size, size).transpose(0, 3, 5, 1, 2, 4)
    return blocks.reshape(batch, channels * size**2, height // size, width // size)


@rearranges("Tile")
def tile(low: OnnxLowering, node: OnnxNode, array: np.ndarray) -> np.ndarray:
    """The whole tensor repeated along its axes."""
    repeats = low.array(node, 1, "repeats")
    sized(array.size * math.prod(repeats.tolist()))
    return np.tile(array, repeats)


@lowers("Split")
def split(low: OnnxLowering, node: OnnxNode) -> list[Known]:
    """Parts along an axis, of given sizes or as equal as they come."""
    data = low.given(node, 0)
    array = low.positions(data) if isinstance(data, Value) else low.array(node, 0, "data")
    axis = node.attributes.get("axis", 0)
    sizes = low.setting(node, 1, "split")
    if sizes is None:
        count, length = len(node.outputs), array.shape[axis]
        most = -(-length // count)
        sizes = [min(most, length - most * place) for place in range(count)]
    if sum(sizes) != array.shape[axis] or len(sizes) != len(node.outputs):
        raise CaptureError(f"it splits {array.shape[axis]} entries into {len(node.outputs)} parts of {sizes}")
    parts = np.split(array, np.cumsum(sizes)[:-1], axis)
    return [picked(low, data, part) if isinstance(data, Value) else part for part in parts]


# -- structured rules ----------------------------------------------------------------------------------------------------

@lowers("Transpose")
def transpose(low: OnnxLowering, node: OnnxNode) -> Known:
    """Axes in another order; a move of axes of size 1 alone is a reshape."""
    data = low.given(node, 0)
    order = node.attributes.get("perm") or list(reversed(range(len(data.shape) if data is not None else 0)))
    if not isinstance(data, Value):
        return low.array(node, 0, "data").transpose(order)
    shape = tuple(data.shape[axis] for axis in order)
    long = [axis for axis in order if data.shape[axis] > 1]
    if long == sorted(long):
        return low.close(data.index, shape)
    index, left_out = (low.whole(data), 0) if order[0] != 0 else low.open(data, [])
    return low.close(low.builder.add("permute", index, dims=tuple(axis - left_out for axis in order[left_out:])), shape)


@lowers("Expand")
def expand(low: OnnxLowering, node: OnnxNode) -> Known:
    """Copies along axes of size 1, by the usual broadcasting."""
    target = tuple(int(size) for size in low.array(node, 1, "shape"))
    data = low.given(node, 0)
    if not isinstance(data, Value):
        array = low.array(node, 0, "data")
        return np.broadcast_to(array, np.broadcast_shapes(array.shape, target))
    shape = np.broadcast_shapes(data.shape, target)
    wide = (1,) * (len(shape) - len(data.shape)) + data.shape
    index, inner = low.close(data.index, wide).index, stripped(shape)
    index = low.reshaped(index, (1,) * (len(inner) - len(low.builder.shape(index))) + low.builder.shape(index))
    return low.close(index if low.builder.shape(index) == inner else low.builder.add("expand", index, shape=inner), shape)


@lowers("Concat")
def concat(low: OnnxLowering, node: OnnxNode) -> Known:
    """Parts side by side along an axis; known parts become constants."""
    parts = [low.given(node, position) for position in range(len(node.inputs))]
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts, node.attributes["axis"])  # type: ignore[arg-type]
    values = [value for value in low.everything(node) if 0 not in value.shape]
    axis = low.axis(values[0], node.attributes["axis"])
    opened = [low.open(value, [axis]) for value in values]
    left_out = opened[0][1]
    return low.closed(low.builder.add("concat", *(index for index, _ in opened), dim=axis - left_out), left_out)


@lowers("Pad")
def pad(low: OnnxLowering, node: OnnxNode) -> Known:
    """Constant padding, or by repetition of what is there; negative pads cut."""
    data = low.given(node, 0)
    if data is None:
        raise CaptureError("it lacks its data")
    rank = len(data.shape)
    pads = [int(size) for size in (node.attributes.get("paddings") or low.setting(node, 1, "pads"))]
    axes = [axis % rank for axis in low.setting(node, 3, "axes") or range(rank)]
    pairs = [(0, 0)] * rank
    for place, axis in enumerate(axes):
        pairs[axis] = (pads[place], pads[place + len(axes)])
    return padded(low, data, pairs, node.attributes.get("mode", "constant"), float(low.setting(node, 2, "value", 0.0) or 0.0))


def padded(low: OnnxLowering, data: Known, pairs: Sequence[tuple[int, int]], mode: str, value: float) -> Known:
    """`data` with (before, after) entries more along every ONNX axis."""
    array = low.positions(data) if isinstance(data, Value) else data
    cut = tuple(slice(max(-before, 0), size + min(after, 0))
                for (before, after), size in zip(pairs, array.shape, strict=True))
    array, grow = array[cut], [(max(before, 0), max(after, 0)) for before, after in pairs]
    modes: dict[str, Any] = {"constant": {"constant_values": value}, "reflect": {}, "edge": {}, "wrap": {}}
    if mode not in modes:
        raise UnsupportedOperator(f"it pads with mode '{mode}'; supported are {', '.join(modes)}")
    if not isinstance(data, Value):
        return np.pad(array, grow, mode, **modes[mode])  # type: ignore[call-overload]
    if mode != "constant":
        return picked(low, data, np.pad(array, grow, mode))  # type: ignore[call-overload]
    if not np.isfinite(value):
        raise UnsupportedOperator(f"it pads with {value}")
    kept = picked(low, data, array)
    return grown(low, kept, grow, value) if any(map(any, grow)) else kept


def grown(low: OnnxLowering, data: Value, pairs: Sequence[tuple[int, int]], value: float) -> Value:
    """A value in a larger block that is otherwise `value`."""
    index, left_out = low.open(data, [axis for axis, pair in enumerate(pairs) if any(pair)])
    pairs, shape = pairs[left_out:], low.builder.shape(index)
    whole = tuple(size + sum(pair) for size, pair in zip(shape, pairs, strict=True))
    before = tuple(pair[0] for pair in pairs)
    return low.closed(low.builder.add("pad", index, before=before, shape=whole, value=value), left_out)


@lowers("Where")
def where(low: OnnxLowering, node: OnnxNode) -> Known:
    """A choice: entries picked from the two sides, where the input does not decide it."""
    if low.varies(low.given(node, 0)):
        return applied(low, functions.select, *(operand(low, node, place) for place in range(3)))
    condition = low.array(node, 0, "condition")
    x, y = low.given(node, 1), low.given(node, 2)
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
        return np.asarray(np.where(condition, x, y))
    values = low.everything(OnnxNode(node.op, node.name, node.inputs[1:], node.outputs, {}))
    first, second = low.positions(values[0]), low.positions(values[1]) + math.prod(values[0].shape)
    return picked(low, side_by_side(low, values), np.where(condition, first, second))


@lowers("ScatterND", "ScatterElements")
def scatter(low: OnnxLowering, node: OnnxNode) -> Known:
    """Entries of the data replaced by updates at known places."""
    if node.attributes.get("reduction", "none") != "none":
        raise UnsupportedOperator(f"its reduction is '{node.attributes['reduction']}'; only 'none' is supported")
    indices, data, updates = low.array(node, 1, "indices"), low.given(node, 0), low.given(node, 2)
    if isinstance(data, np.ndarray) and isinstance(updates, np.ndarray):
        return scattered(node, data.copy(), indices, updates)
    values = [low.value(node, 0), low.value(node, 2)]
    new = low.positions(values[1]) + math.prod(values[0].shape)
    return picked(low, side_by_side(low, values), scattered(node, low.positions(values[0]), indices, new))


def scattered(node: OnnxNode, data: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    """`data` with `updates` written into it."""
    if node.op == "ScatterND":
        data[tuple(np.moveaxis(indices, -1, 0))] = updates
        return data
    places = list(np.indices(indices.shape))
    places[node.attributes.get("axis", 0)] = indices
    data[tuple(places)] = updates
    return data


def side_by_side(low: OnnxLowering, values: Sequence[Value]) -> Value:
    """The entries of several values in one axis."""
    return low.closed(moves.side_by_side(low.builder, [value.index for value in values]), 0)
