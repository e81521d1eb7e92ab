"""ONNX pools and resizing: windows and places of an image, known at load time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from boundlab.capture.onnx_layers import image, pad_image, pads, per_axis
from boundlab.capture.onnx_lowering import Known, OnnxLowering, OnnxNode, Shape, Value, lowers
from boundlab.errors import CaptureError, UnsupportedOperator

# -- pools ---------------------------------------------------------------------------------------------------------------

def windows(node: OnnxNode, space: Shape) -> list[np.ndarray]:
    """For each spatial axis, the cells of every window, (out, kernel), -1 or beyond `size` where a window leaves the image."""
    kernel = tuple(node.attributes["kernel_shape"])
    strides, dilations = per_axis(node, "strides", len(kernel)), per_axis(node, "dilations", len(kernel))
    found = []
    axes = zip(space, kernel, strides, dilations, pads(node, space, kernel), strict=True)
    for size, width, stride, step, (before, after) in axes:
        reach = size + before + after - step * (width - 1) - 1
        count = (-(-reach // stride) if node.attributes.get("ceil_mode", 0) else reach // stride) + 1
        starts = np.arange(count) * stride - before
        starts = starts[starts < size]  # ceil_mode leaves out windows that begin in the far padding
        found.append(starts[:, None] + np.arange(width) * step)
    return found


@lowers("MaxPool")
def max_pool(low: OnnxLowering, node: OnnxNode) -> Value:
    """The maximum over gathered windows; a cell outside the image is replaced by one inside of the same window."""
    if len(node.outputs) > 1:
        raise UnsupportedOperator("its indices are used, which depend on the network input")
    x = low.value(node)
    image(low, x)
    space = x.shape[2:]
    inside = []
    for places, size in zip(windows(node, space), space, strict=True):
        valid = (places >= 0) & (places < size)
        if not valid.any(1).all():
            raise CaptureError("one of its windows lies outside the image")
        first = np.take_along_axis(places, valid.argmax(1)[:, None], 1)
        inside.append(np.where(valid, places, first))
    index = low.positions(x)[0][(slice(None), *open_mesh(inside))]
    count = len(space)
    out = index.shape[:1 + count]
    gathered = low.moved(x, index.reshape(1, *out, -1))
    return low.closed(low.builder.add("reduce_max", low.open(gathered, [])[0], dim=count + 1), 1)


def open_mesh(axes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Index arrays (out, kernel) for each axis, shaped to broadcast to (*outs, *kernels)."""
    count, mesh = len(axes), []
    for place, cells in enumerate(axes):
        shape = [1] * (2 * count)
        shape[place], shape[count + place] = cells.shape
        mesh.append(cells.reshape(shape))
    return mesh


@lowers("AveragePool")
def average_pool(low: OnnxLowering, node: OnnxNode) -> Value:
    """A convolution of each channel on its own that sums windows, divided by the number of counted cells."""
    x = low.value(node)
    channels, space, kernel = x.shape[1], x.shape[2:], tuple(node.attributes["kernel_shape"])
    strides, dilations = per_axis(node, "strides", len(kernel)), per_axis(node, "dilations", len(kernel))
    places, pairs = windows(node, space), pads(node, space, kernel)
    counts, ends = [], []
    for cells, size, (before, after) in zip(places, space, pairs, strict=True):
        low_end, high_end = (-before, size + after) if node.attributes.get("count_include_pad", 0) else (0, size)
        counts.append(((cells >= low_end) & (cells < high_end)).sum(1))
        ends.append((before, max(int(cells.max()) + 1 - size, 0)))
    shares = 1 / np.array([math.prod(cell) for cell in itertools.product(*counts)]).reshape([len(count) for count in counts])
    even = bool((shares == shares.flat[0]).all())
    wide, padding = pad_image(low, x, ends)
    weight = low.literal(np.full((channels, 1, *kernel), shares.flat[0] if even else 1.0))
    settings: dict[str, Any] = {"stride": strides, "padding": padding, "dilation": dilations, "groups": channels}
    total = low.closed(low.builder.add("conv", image(low, wide), low.whole(weight), **settings), 1)
    return total if even else low.elementwise("mul", total, low.literal(shares))


# -- resizing ------------------------------------------------------------------------------------------------------------

@lowers("Upsample", "Resize")
def resize(low: OnnxLowering, node: OnnxNode) -> Known:
    """Nearest neighbours are picked; linear interpolation is a matrix along each axis that changes."""
    x = low.value(node)
    scales, sizes = resize_target(low, node, x.shape)
    mode = node.attributes.get("mode", "nearest")
    new = node.op == "Resize" and low.opset > 10
    where = node.attributes.get("coordinate_transformation_mode", "half_pixel" if new else "asymmetric")
    if mode not in ("nearest", "linear") or where == "tf_crop_and_resize" or node.attributes.get("antialias", 0):
        raise UnsupportedOperator(f"it resizes with mode '{mode}', coordinates '{where}' or antialias; supported are nearest "
                                  "and linear without antialias")
    places = [coordinates(where, size, wanted, scale) for size, wanted, scale in zip(x.shape, sizes, scales, strict=True)]
    if mode == "nearest":
        rounding = node.attributes.get("nearest_mode", "round_prefer_floor" if new else "floor")
        cells = [nearest(place, rounding).clip(0, size - 1) for place, size in zip(places, x.shape, strict=True)]
        return low.moved(x, low.positions(x)[np.ix_(*cells)])
    for axis, (place, wanted) in enumerate(zip(places, sizes, strict=True)):
        if not np.array_equal(place, np.arange(x.shape[axis])):
            x = interpolated(low, x, axis, place.clip(0, x.shape[axis] - 1), wanted)
    return x


def resize_target(low: OnnxLowering, node: OnnxNode, shape: Shape) -> tuple[list[float], list[int]]:
    """Scale and size of every axis, from the attribute of Upsample or the inputs of Resize."""
    new = node.op == "Resize" and low.opset > 10
    scales = low.setting(node, 2 if new else 1, "scales") or []
    sizes = (low.setting(node, 3, "sizes") or []) if new else []
    if node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch" or not (scales or sizes):
        raise UnsupportedOperator("it gives neither scales nor sizes, or keeps the aspect ratio")
    axes = [axis % len(shape) for axis in node.attributes.get("axes") or range(len(shape))]
    all_scales, all_sizes = [1.0] * len(shape), list(shape)
    for place, axis in enumerate(axes):
        all_scales[axis] = float(scales[place]) if scales else sizes[place] / shape[axis]
        all_sizes[axis] = math.floor(shape[axis] * all_scales[axis]) if scales else int(sizes[place])
    return all_scales, all_sizes


def coordinates(where: str, size: int, wanted: int, scale: float) -> np.ndarray:
    """Where the cells of the result lie in the source, (wanted,) real numbers."""
    cells = np.arange(wanted)
    if size == wanted and scale == 1:
        return cells
    if where == "align_corners":
        return cells * ((size - 1) / (wanted - 1)) if wanted > 1 else np.zeros(1)
    if where == "asymmetric":
        return cells / scale
    if where == "pytorch_half_pixel" and wanted == 1:
        return np.zeros(1)
    if where == "half_pixel_symmetric":
        return size / 2 * (1 - wanted / (size * scale)) + (cells + 0.5) / scale - 0.5
    return (cells + 0.5) / scale - 0.5


def nearest(place: np.ndarray, rounding: str) -> np.ndarray:
    """Real positions rounded by one of ONNX's four rules."""
    rules = {"floor": np.floor(place), "ceil": np.ceil(place), "round_prefer_floor": np.ceil(place - 0.5),
             "round_prefer_ceil": np.floor(place + 0.5)}
    return rules[rounding].astype(np.int64)


def interpolated(low: OnnxLowering, x: Value, axis: int, place: np.ndarray, wanted: int) -> Value:
    """Linear interpolation of one axis at real positions, as a linear layer over that axis."""
    matrix = np.zeros((wanted, x.shape[axis]))
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, x.shape[axis] - 1)
    np.add.at(matrix, (np.arange(wanted), below), 1 - (place - below))
    np.add.at(matrix, (np.arange(wanted), above), place - below)
    index, left_out = low.open(x, [axis])
    rank = len(low.builder.shape(index))
    order = [d for d in range(rank) if d != axis - left_out] + [axis - left_out]
    turned = index if order == list(range(rank)) else low.builder.add("permute", index, dims=tuple(order))
    found = low.builder.add("linear", turned, low.whole(low.literal(matrix)))
    back = tuple(order.index(d) for d in range(rank))
    return low.closed(found if back == tuple(range(rank)) else low.builder.add("permute", found, dims=back), left_out)
