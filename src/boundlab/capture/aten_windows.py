"""Lowerings of torch operators on windows and places of a map: pools, interpolation, fold; and of sums along an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from boundlab.capture import composed, resample
from boundlab.capture.aten_moves import concrete_size
from boundlab.capture.lowering import Lowering
from boundlab.capture.resample import Pool
from boundlab.capture.table import argument, lowers, per_axis, unsupported

LARGEST_MATRIX = 2**26
"""Numbers that the matrix of a linear operator without structure may hold."""


def space_of(low: Lowering, node: fx.Node) -> tuple[int, tuple[int, ...]]:
    """The map that a window operator reads, and the sizes of its axes behind the channels."""
    x = low.index(node.args[0])
    return x, low.builder.shape(x)[1:]


# -- pools ---------------------------------------------------------------------------------------------------------------

@lowers("max_pool1d.default", "max_pool2d.default", "max_pool3d.default", "max_pool2d_with_indices.default",
        "max_pool1d_with_indices.default", "max_pool3d_with_indices.default")
def max_pool(low: Lowering, node: fx.Node) -> Any:
    """The maximum over windows; where torch gives its place too, that is unknown."""
    x, space = space_of(low, node)
    kernel = per_axis(node.args[1], len(space))
    stride = per_axis(argument(node, 2, "stride") or kernel, len(space))
    padding, dilation = (per_axis(argument(node, place, name, default), len(space))
                         for place, name, default in ((3, "padding", 0), (4, "dilation", 1)))
    ceil = bool(argument(node, 5, "ceil_mode", False))
    cells = [composed.window_cells(*axis, ceil) for axis in zip(space, kernel, stride, padding, dilation, strict=True)]
    found = composed.max_pool(low.builder, x, cells)
    return [found, None] if "indices" in str(node.target) else found


@lowers("adaptive_max_pool1d.default", "adaptive_max_pool2d.default", "adaptive_max_pool3d.default")
def adaptive_max_pool(low: Lowering, node: fx.Node) -> Any:
    """The maximum over windows that cover the map evenly; the places of the maxima are unknown."""
    x, space = space_of(low, node)
    target = node.meta["val"][0].shape[-len(space):]
    cells = [resample.adaptive_cells(size, int(wanted)) for size, wanted in zip(space, target, strict=True)]
    return [composed.max_pool(low.builder, x, cells), None]


@lowers("avg_pool1d.default", "avg_pool2d.default", "avg_pool3d.default")
def average_pool(low: Lowering, node: fx.Node) -> int:
    """Means over windows, with any padding, rounding of the size and divisor."""
    x, space = space_of(low, node)
    kernel = per_axis(node.args[1], len(space))
    stride, padding = (per_axis(argument(node, place, name) or default, len(space))
                       for place, name, default in ((2, "stride", kernel), (3, "padding", 0)))
    counted = bool(argument(node, 5, "count_include_pad", True))
    pools = [Pool(size, width, step, pad, pad, 1, counted)
             for size, width, step, pad in zip(space, kernel, stride, padding, strict=True)]
    return resample.average_pool(low.builder, x, pools, bool(argument(node, 4, "ceil_mode", False)),
                                 argument(node, 6, "divisor_override"))


@lowers("adaptive_avg_pool1d.default", "adaptive_avg_pool2d.default", "adaptive_avg_pool3d.default",
        "_adaptive_avg_pool2d.default", "_adaptive_avg_pool3d.default")
def adaptive_average_pool(low: Lowering, node: fx.Node) -> int:
    """Means over windows that cover the map evenly: all of it, windows of one size, or a matrix along each axis."""
    x, space = space_of(low, node)
    target, build = low.result_shape()[1:], low.builder
    if all(size == 1 for size in target):
        return build.add("mean", x, dims=tuple(range(1, len(space) + 1)), keepdim=True)
    if all(size % wanted == 0 for size, wanted in zip(space, target, strict=True)):
        pools = [Pool(size, size // wanted, size // wanted, 0, 0, 1, True) for size, wanted in zip(space, target, strict=True)]
        return resample.average_pool(build, x, pools, False)
    for axis, (size, wanted) in enumerate(zip(space, target, strict=True), 1):
        x = x if size == wanted else resample.along(build, x, axis, resample.adaptive_matrix(size, wanted))
    return x


# -- interpolation -------------------------------------------------------------------------------------------------------

@lowers("upsample_linear1d.default", "upsample_linear1d.vec", "upsample_bilinear2d.default", "upsample_bilinear2d.vec",
        "upsample_trilinear3d.default", "upsample_trilinear3d.vec", "upsample_bicubic2d.default", "upsample_bicubic2d.vec",
        "_upsample_bilinear2d_aa.default", "_upsample_bilinear2d_aa.vec", "_upsample_bicubic2d_aa.default",
        "_upsample_bicubic2d_aa.vec")
def interpolate(low: Lowering, node: fx.Node) -> int:
    """A matrix along each axis, found by running the operator on the unit vectors of that axis, constant along the others."""
    x, space = space_of(low, node)
    settings = [concrete_size(part) for part in node.args[1:]]
    named = {name: concrete_size(part) for name, part in node.kwargs.items()}
    function: Any = node.target
    for axis, size in enumerate(space):
        unit = torch.eye(size, dtype=torch.float64).reshape(size, 1, *(size if d == axis else 1 for d in range(len(space))))
        result = function(unit.expand(size, 1, *space).contiguous(), *settings, **named).movedim(axis + 2, 1)
        matrix = result.flatten(2)[:, :, 0].mT
        if not torch.equal(matrix, torch.eye(size, dtype=torch.float64)):
            x = resample.along(low.builder, x, axis + 1, matrix)
    return x


@lowers("grid_sampler.default", "grid_sampler_2d.default", "grid_sampler_3d.default")
def grid_sampler(low: Lowering, node: fx.Node) -> int:
    """Interpolation at constant places: one matrix over all cells of a channel."""
    x, space = space_of(low, node)
    if low.varies(node.args[1]):
        raise unsupported(node, "samples at places that depend on an input; only constant places can be bounded")
    grid = low.builder.known(low.index(node.args[1]))[0]
    function, settings = node.target, node.args[2:]
    units = unit_maps(node, space, math.prod(low.result_shape()[1:]))
    result = function(units, grid.double().expand(len(units), *grid.shape[-len(space) - 1:]), *settings)  # type: ignore[operator]
    return resample.flattened(low.builder, x, 1, result.flatten(1).mT, low.result_shape()[1:])


def unit_maps(node: fx.Node, space: Sequence[int], results: int) -> Tensor:
    """One map of one channel for each cell, 1 there and 0 elsewhere, (cells, 1, *space)."""
    cells = math.prod(space)
    if cells * results > LARGEST_MATRIX:
        raise unsupported(node, f"is a matrix of {cells} times {results} numbers, which is too large to write out")
    return torch.eye(cells, dtype=torch.float64).reshape(cells, 1, *space)


@lowers("col2im.default")
def fold(low: Lowering, node: fx.Node) -> int:
    """Windows summed into a map, of which the padding is cut off."""
    build, x = low.builder, low.index(node.args[0])
    size, kernel, dilation, padding, stride = (tuple(concrete_size(part)) for part in node.args[1:6])
    wide = [whole + 2 * pad for whole, pad in zip(size, padding, strict=True)]
    found = resample.fold(build, x, wide, kernel, dilation, stride)
    if not any(padding):
        return found
    cut = tuple(slice(pad, pad + whole, 1) for whole, pad in zip(size, padding, strict=True))
    return build.add("slice", found, slices=(slice(0, build.shape(found)[0], 1), *cut))


# -- along an axis -------------------------------------------------------------------------------------------------------

@lowers("cumsum.default")
def cumsum(low: Lowering, node: fx.Node) -> int:
    """Sums of all entries up to each."""
    x: Any = node.args[0]
    return resample.cumulated(low.builder, low.index(x), low.axis(x, int(node.args[1])))  # type: ignore[arg-type]


@lowers("prod.dim_int", "prod.default", "cumprod.default")
def product(low: Lowering, node: fx.Node) -> int:
    """Products along an axis, one factor after the other."""
    x: Any = node.args[0]
    build, index, kind = low.builder, low.index(x), str(node.target)
    if kind.startswith("aten.prod.default"):
        low.axes(x, None)
        axis, index = 0, build.add("reshape", index, shape=(math.prod(build.shape(index)),))
    else:
        axis = low.axis(x, int(node.args[1]))  # type: ignore[arg-type]
    parts = composed.products(build, index, axis)
    if "cumprod" in kind:
        return build.add("concat", *parts, dim=axis)
    return parts[-1] if argument(node, 2, "keepdim", False) else build.add("reshape", parts[-1], shape=low.result_shape())
