"""ONNX pools and resizing: windows and places of an image, known at load time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from boundlab.capture import functions, resample
from boundlab.capture.builder import sized
from boundlab.capture.onnx_layers import image, pads, per_axis
from boundlab.capture.onnx_lowering import Known, OnnxLowering, OnnxNode, Shape, Value, lowers
from boundlab.capture.onnx_shape import picked
from boundlab.capture.resample import Pool
from boundlab.errors import CaptureError, UnsupportedOperator

FARTHEST = 1e6
"""Places of a GridSample, in halves of the image, beyond which whole numbers overflow in some runtimes."""

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
        sized(count * width)
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


def pools_of(node: OnnxNode, space: Shape) -> list[Pool]:
    """The windows of a pool along each axis."""
    kernel = tuple(node.attributes["kernel_shape"])
    strides, dilations = per_axis(node, "strides", len(kernel)), per_axis(node, "dilations", len(kernel))
    counted = bool(node.attributes.get("count_include_pad", 0))
    around = pads(node, space, kernel)
    sized(math.prod(size + sum(ends) for size, ends in zip(space, around, strict=True)) * math.prod(kernel))
    axes = zip(space, kernel, strides, around, dilations, strict=True)
    return [Pool(size, width, stride, *ends, step, counted) for size, width, stride, ends, step in axes]


@lowers("AveragePool")
def average_pool(low: OnnxLowering, node: OnnxNode) -> Value:
    """Means over windows."""
    x = low.value(node)
    found = resample.average_pool(low.builder, image(low, x), pools_of(node, x.shape[2:]),
                                  bool(node.attributes.get("ceil_mode", 0)))
    return low.closed(found, 1)


@lowers("LpPool", "GlobalLpPool")
def power_pool(low: OnnxLowering, node: OnnxNode) -> Value:
    """The p-norm over windows, or over all cells of each channel."""
    x, build, p = low.value(node), low.builder, int(node.attributes.get("p", 2))
    index = image(low, x)
    sizes = functions.power(build, build.add("abs", index), float(p))
    if node.op == "GlobalLpPool":
        total = build.add("sum", sizes, dims=tuple(range(1, len(x.shape) - 1)), keepdim=True)
    else:
        total = resample.average_pool(build, sizes, pools_of(node, x.shape[2:]), bool(node.attributes.get("ceil_mode", 0)), 1)
    return low.closed(functions.power(build, total, 1 / p), 1)


@lowers("Col2Im")
def fold(low: OnnxLowering, node: OnnxNode) -> Value:
    """Windows summed into an image."""
    x, (size, kernel) = low.value(node), ([int(n) for n in low.array(node, place, "shape")] for place in (1, 2))
    axes = len(kernel)
    pairs = pads(node, tuple(size), tuple(kernel))
    wide = [whole + before + after for whole, (before, after) in zip(size, pairs, strict=True)]
    dilations, strides = per_axis(node, "dilations", axes), per_axis(node, "strides", axes)
    found = resample.fold(low.builder, x.index, wide, kernel, dilations, strides)
    cut = tuple(slice(before, before + whole, 1) for whole, (before, _) in zip(size, pairs, strict=True))
    whole = slice(0, low.builder.shape(found)[0], 1)
    return low.closed(low.builder.add("slice", found, slices=(whole, *cut)) if any(map(any, pairs)) else found, 1)


@lowers("GridSample")
def grid_sample(low: OnnxLowering, node: OnnxNode) -> Value:
    """Interpolation at constant places: one matrix over all cells of a channel, made by torch's own operator."""
    x, grid = low.value(node), torch.from_numpy(low.array(node, 1, "places")).double()
    if float(grid.abs().max()) > FARTHEST:
        raise UnsupportedOperator(f"it samples at a place beyond {FARTHEST:g}, where runtimes differ in what they do")
    modes = {"bilinear": "bilinear", "linear": "bilinear", "nearest": "nearest", "bicubic": "bicubic", "cubic": "bicubic"}
    space = x.shape[2:]
    sized(math.prod(space) ** 2)
    units = torch.eye(math.prod(space), dtype=torch.float64).reshape(-1, 1, *space)
    found = torch.nn.functional.grid_sample(
        units, grid.expand(len(units), *grid.shape[1:]), modes[node.attributes.get("mode", "linear")],
        node.attributes.get("padding_mode", "zeros"), bool(node.attributes.get("align_corners", 0)))
    return low.closed(resample.flattened(low.builder, image(low, x), 1, found.flatten(1).mT, found.shape[2:]), 1)


# -- resizing ------------------------------------------------------------------------------------------------------------

@lowers("Upsample", "Resize")
def resize(low: OnnxLowering, node: OnnxNode) -> Known:
    """Nearest neighbours are picked; linear interpolation is a matrix along each axis that changes."""
    x = low.value(node)
    scales, sizes = resize_target(low, node, x.shape)
    mode = node.attributes.get("mode", "nearest")
    new = node.op == "Resize" and low.opset > 10
    where = node.attributes.get("coordinate_transformation_mode", "half_pixel" if new else "asymmetric")
    if where == "tf_crop_and_resize" or node.attributes.get("antialias", 0):
        raise UnsupportedOperator(f"it resizes with coordinates '{where}' or antialias, which is not supported")
    places = [coordinates(where, size, wanted, scale) for size, wanted, scale in zip(x.shape, sizes, scales, strict=True)]
    if mode == "nearest":
        rounding = node.attributes.get("nearest_mode", "round_prefer_floor" if new else "floor")
        cells = [nearest(place, rounding).clip(0, size - 1) for place, size in zip(places, x.shape, strict=True)]
        return picked(low, x, low.positions(x)[np.ix_(*cells)])
    for axis, place in enumerate(places):
        size = x.shape[axis]
        if not np.array_equal(place, np.arange(size)):
            matrix = linear_matrix(place, size) if mode == "linear" else cubic_matrix(
                place, size, node.attributes.get("cubic_coeff_a", -0.75), bool(node.attributes.get("exclude_outside", 0)))
            index, left_out = low.open(x, [axis])
            x = low.closed(resample.along(low.builder, index, axis - left_out, torch.from_numpy(matrix)), left_out)
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
    cells = np.arange(sized(wanted))
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


def linear_matrix(place: np.ndarray, size: int) -> np.ndarray:
    """Linear interpolation of an axis at real positions (wanted,), as a matrix (wanted, size)."""
    matrix, place = np.zeros((len(place), size)), place.clip(0, size - 1)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, size - 1)
    np.add.at(matrix, (np.arange(len(place)), below), 1 - (place - below))
    np.add.at(matrix, (np.arange(len(place)), above), place - below)
    return matrix


def cubic_matrix(place: np.ndarray, size: int, a: float, inside: bool) -> np.ndarray:
    """Cubic convolution at real positions (Keys 1981, eq. 15, with a for -1/2); `inside` leaves out cells beyond the axis."""
    matrix = np.zeros((len(place), size))
    first = np.floor(place).astype(np.int64)
    for step in (-1, 0, 1, 2):
        cell = first + step
        away = np.abs(place - cell)
        weight = np.where(away <= 1, (a + 2) * away**3 - (a + 3) * away**2 + 1,
                          a * away**3 - 5 * a * away**2 + 8 * a * away - 4 * a)
        weight = np.where((cell < 0) | (cell >= size), 0.0, weight) if inside else weight
        np.add.at(matrix, (np.arange(len(place)), cell.clip(0, size - 1)), weight)
    return matrix / matrix.sum(1, keepdims=True) if inside else matrix
