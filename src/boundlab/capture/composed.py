"""Layers that are made of several operators, written once for every front end: they take and return graph nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from boundlab.capture import moves
from boundlab.capture.builder import Builder
from boundlab.errors import CaptureError
from boundlab.graph import BatchNorm

MASKED = -1e9
"""What stands for minus infinity in additive masks: softmax is exactly 0 there, and bounds stay finite."""


# -- along axes ---------------------------------------------------------------------------------------------------------

def along(build: Builder, op: str, x: int, dims: Sequence[int], keepdim: bool) -> int:
    """An operator that works along one axis, over several: one axis after it has been made of all of them."""
    shape = build.shape(x)
    dims = sorted(dims)
    rest = [d for d in range(len(shape)) if d not in dims]
    if len(dims) > 1:
        x = build.add("permute", x, dims=(*rest, *dims))
        x = build.add("reshape", x, shape=(*(shape[d] for d in rest), math.prod(shape[d] for d in dims)))
    x = build.add(op, x, dim=len(rest) if len(dims) > 1 else dims[0], keepdim=True)
    kept = [1 if d in dims else size for d, size in enumerate(shape)]
    return build.add("reshape", x, shape=tuple(size for d, size in enumerate(kept) if keepdim or d not in dims))


def largest(build: Builder, x: int, dims: Sequence[int], keepdim: bool) -> int:
    """The largest entry over several axes."""
    return along(build, "reduce_max", x, dims, keepdim)


def smallest(build: Builder, x: int, dims: Sequence[int], keepdim: bool) -> int:
    """The smallest entry over several axes."""
    return build.add("neg", largest(build, build.add("neg", x), dims, keepdim))


def products(build: Builder, x: int, axis: int) -> list[int]:
    """The products of the first entries along an axis, for one, two and up to all of them; each keeps the axis with size 1."""
    shape, parts = build.shape(x), list[int]()
    for place in range(shape[axis]):
        slices = tuple(slice(place, place + 1, 1) if d == axis else slice(0, size, 1) for d, size in enumerate(shape))
        part = build.add("slice", x, slices=slices)
        parts.append(build.add("mul", parts[-1], part) if parts else part)
    return parts


# -- normalisation -------------------------------------------------------------------------------------------------------

def normalised(build: Builder, x: int, dims: Sequence[int], eps: float, *, centred: bool = True) -> int:
    """(x - mean) / sqrt(variance + eps) over axes; not centred, x over the root of its mean square."""
    if centred:
        return centred_and_scaled(build, x, dims, eps)[0]
    return build.broadcast("mul", x, inverse_root(build, x, dims, eps))


def centred_and_scaled(build: Builder, x: int, dims: Sequence[int], eps: float) -> tuple[int, int, int]:
    """(x - mean) / sqrt(variance + eps) over axes, with the mean and one over the root."""
    mean = build.add("mean", x, dims=tuple(dims), keepdim=True)
    x = build.broadcast("sub", x, mean)
    factor = inverse_root(build, x, dims, eps)
    return build.broadcast("mul", x, factor), mean, factor


def inverse_root(build: Builder, x: int, dims: Sequence[int], eps: float) -> int:
    """One over the root of the mean square plus eps, over axes."""
    square = build.add("mean", build.add("square", x), dims=tuple(dims), keepdim=True)
    return build.add("rsqrt", build.broadcast("add", square, build.constant(float(eps))))


def scaled(build: Builder, x: int, weight: int | None, bias: int | None) -> int:
    """x * weight + bias, either of which may be missing."""
    x = x if weight is None else build.broadcast("mul", x, weight)
    return x if bias is None else build.broadcast("add", x, bias)


def frozen_batch_norm(build: Builder, mean: int, variance: int, weight: int | None, bias: int | None,
                      eps: float) -> tuple[int, int]:
    """Scale and shift (channels,) of batch norm with frozen statistics, as nodes on its parameters."""
    scale = build.add("rsqrt", build.broadcast("add", variance, build.constant(float(eps))))
    scale = scale if weight is None else build.add("mul", weight, scale)
    shift = build.add("neg", build.add("mul", mean, scale))
    return scale, shift if bias is None else build.add("add", bias, shift)


def batch_norm(build: Builder, x: int, statistics: tuple[int, int], affine: tuple[int | None, int | None], eps: float, *,
               fold: bool) -> int:
    """Batch norm of x with frozen `statistics` (mean, variance) and `affine` (weight, bias); the graph makes a note of it."""
    scale, shift = frozen_batch_norm(build, *statistics, *affine, eps)
    found = affine_channels(build, x, scale, shift, fold=fold)
    apart = build.nodes[found].op not in ("conv", "linear")
    build.norms.append(BatchNorm(build.nodes[x], None if apart else found, *statistics, scale, shift))
    return found


def affine_channels(build: Builder, x: int, scale: int, shift: int, *, fold: bool) -> int:
    """x * scale + shift for each channel (the first axis of x).

    With `fold` (nothing else reads x) it becomes part of the convolution or linear layer that made x.
    """
    node = build.nodes[x]
    layer = node.op == "conv" or (node.op == "linear" and len(node.shape) == 1)
    if fold and layer and not any(arg in build.varying for arg in node.args[1:]):
        return folded(build, x, scale, shift)
    shape = (build.shape(scale)[0], *[1] * (len(build.shape(x)) - 1))
    return scaled(build, x, build.add("reshape", scale, shape=shape), build.add("reshape", shift, shape=shape))


def folded(build: Builder, x: int, scale: int, shift: int) -> int:
    """The layer that made x with weight * scale and bias * scale + shift, computed in the graph: gradients reach all."""
    node = build.nodes[x]
    source, weight, *bias = node.args
    shape = (build.shape(scale)[0], *[1] * (len(build.shape(weight)) - 1))
    weight = build.broadcast("mul", weight, build.add("reshape", scale, shape=shape))
    if bias:
        shift = build.add("add", build.add("mul", bias[0], scale), shift)
    return build.add(node.op, source, weight, shift, **node.attrs)


# -- max pooling ---------------------------------------------------------------------------------------------------------

def window_cells(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> Tensor:
    """The cells of every window along one axis, (windows, kernel); -1 for those outside the map."""
    reach = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (-(-reach // stride) if ceil else reach // stride) + 1
    if ceil and (count - 1) * stride >= size + padding:
        count -= 1
    cells = torch.arange(count)[:, None] * stride - padding + torch.arange(kernel) * dilation
    return torch.where((cells >= 0) & (cells < size), cells, -1)


def max_pool(build: Builder, x: int, cells: Sequence[Tensor]) -> int:
    """The maximum over windows of a map (channels, *space); `cells` (windows, kernel) for each axis of the space, -1 outside.

    Cells outside the map become copies of a cell inside the same window, and do not take part.
    """
    channels, *space = build.shape(x)
    if any(bool((axis < 0).all(1).any()) for axis in cells):
        raise CaptureError(f"'{build.name}' pools a map {[channels, *space]} with a window that lies outside of it.")
    inside = [torch.where(axis < 0, axis.amax(1, keepdim=True), axis) for axis in cells]
    windows = [len(axis) for axis in cells]
    index, absent = torch.zeros((), dtype=torch.long), torch.zeros((), dtype=torch.bool)
    for place, (size, axis, found) in enumerate(zip(space, cells, inside, strict=True)):
        laid = [1] * (2 * len(space))
        laid[place], laid[len(space) + place] = axis.shape
        index, absent = index * size + found.reshape(laid), absent | (axis < 0).reshape(laid)
    flat = index.reshape(*windows, -1) + math.prod(space) * torch.arange(channels).reshape(-1, *[1] * (len(space) + 1))
    out = tuple(flat.shape)
    gathered = build.add("gather", x, index=flat.flatten(), shape=out)
    missing = {"absent": absent.reshape(1, *windows, -1).expand(out).contiguous()} if bool(absent.any()) else {}
    return build.add("reduce_max", gathered, dim=len(out) - 1, **missing)


# -- attention -----------------------------------------------------------------------------------------------------------

def additive_mask(build: Builder, mask: int) -> int:
    """A constant mask as numbers to add: true keeps, false and minus infinity leave out."""
    value = build.known(mask)[0]
    if value.dtype == torch.bool:
        return build.constant(torch.where(value, 0.0, MASKED).to(build.dtype))
    return build.constant(value.clamp(min=MASKED)) if bool((value < MASKED).any()) else mask


def chosen(build: Builder, condition: Tensor, x: int, y: int) -> int:
    """x where a known `condition` holds, else y."""
    first = build.constant(condition.to(build.dtype))
    second = build.constant((~condition).to(build.dtype))
    parts = [part if part in build.varying else additive_mask(build, part) for part in (x, y)]
    return build.broadcast("add", build.broadcast("mul", parts[0], first), build.broadcast("mul", parts[1], second))


def attention(build: Builder, query: int, key: int, value: int, scale: float, mask: int | None) -> int:
    """softmax(scale * Q K' + mask) V over the last two axes."""
    rank = len(build.shape(key))
    swapped = build.add("permute", key, dims=(*range(rank - 2), rank - 1, rank - 2))
    scores = product(build, build.broadcast("mul", query, build.constant(float(scale))), swapped)
    if mask is not None:
        scores = build.broadcast("add", scores, additive_mask(build, mask))
    return product(build, build.add("softmax", scores, dim=len(build.shape(scores)) - 1), value)


def diagonal(build: Builder, x: int, first: int, second: int) -> int:
    """The entries whose places on two axes are equal; the second axis goes."""
    shape = build.shape(x)
    positions = torch.arange(math.prod(shape)).reshape(shape).diagonal(0, first, second).movedim(-1, first)
    return moves.picked(build, x, positions)


def repeated(build: Builder, x: int, axis: int, wanted: int) -> int:
    """Each entry of an axis several times in a row, until there are `wanted`: heads that several queries share."""
    shape = build.shape(x)
    positions = torch.arange(math.prod(shape)).reshape(shape).repeat_interleave(wanted // shape[axis], axis)
    return moves.picked(build, x, positions)


# -- products of matrices ------------------------------------------------------------------------------------------------

def product(build: Builder, x: int, y: int) -> int:
    """x @ y for values of at least two axes; with a constant matrix on the right, a linear layer."""
    first, second = build.shape(x), build.shape(y)
    if y not in build.varying and math.prod(second[:-2]) == 1 and len(second) >= 2:
        matrix = build.add("permute", build.add("reshape", y, shape=second[-2:]), dims=(1, 0))
        return build.add("linear", x, matrix)
    lead = np.broadcast_shapes(first[:-2], second[:-2])
    return build.add("matmul", build.aligned(x, (*lead, *first[-2:])), build.aligned(y, (*lead, *second[-2:])))
