"""Operators that move, pick or sum coordinates. Attributes count axes without the batch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from boundlab.interval import Interval
from boundlab.maps import Gather, LinearMap, Permute, Reduce, Reshape, Shape, Slice, flat, identity, transposed
from boundlab.ops.op import Argument, affine_op, register


def shape_of(argument: Argument) -> Shape:
    """Shape without batch."""
    return tuple(argument.shape[1:])


def slice_shape(shape: Shape, slices: tuple[slice, ...]) -> Shape:
    """Shape of x[slices] for x of `shape`."""
    return tuple(len(range(*part.indices(size))) for part, size in zip(slices, shape, strict=True))


def expand_map(in_shape: Shape, out_shape: Shape) -> LinearMap:
    """Copies along axes of size 1: the transpose of a sum over them."""
    if in_shape == out_shape:
        return identity(in_shape)
    dims = tuple(d for d, (a, b) in enumerate(zip(in_shape, out_shape, strict=True)) if a != b)
    return transposed(Reduce(out_shape, in_shape, torch.ones(()), dims))


def place(shape: Shape, dim: int, start: int, length: int) -> tuple[slice, ...]:
    """The block [start, start + length) along `dim` of a tensor of `shape`, as slices."""
    return tuple(slice(start, start + length, 1) if d == dim else slice(0, size, 1) for d, size in enumerate(shape))


def reduce_map(x: Argument, dims: Shape, keepdim: bool, weight: float) -> Reduce:
    """weight * sum over `dims`."""
    shape = shape_of(x)
    out = tuple(1 if d in dims else size for d, size in enumerate(shape) if keepdim or d not in dims)
    like = x.lower if isinstance(x, Interval) else x
    return Reduce(shape, out, like.new_tensor(weight), dims)


def concat_maps(*arguments: Argument, dim: int) -> tuple[LinearMap, ...]:
    """Each perturbed part into its place."""
    sizes = [shape_of(part)[dim] for part in arguments]
    whole = tuple(sum(sizes) if d == dim else size for d, size in enumerate(shape_of(arguments[0])))
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(
        transposed(Slice(whole, shape_of(part), place(whole, dim, start, size)))
        for part, start, size in zip(arguments, starts, sizes, strict=True) if isinstance(part, Interval)
    )


def concat_values(*values: Tensor, dim: int) -> Tensor:
    """Concatenation along `dim`, with shared (batch 1) parts repeated."""
    batch = max(value.shape[0] for value in values)
    return torch.cat([value.expand(batch, *value.shape[1:]) for value in values], dim + 1)


def concat_bias(*arguments: Argument, dim: int) -> Tensor | None:
    """What constant parts contribute."""
    if not any(isinstance(part, Tensor) for part in arguments):
        return None
    parts = [torch.zeros_like(part.lower[:1]) if isinstance(part, Interval) else part for part in arguments]
    return concat_values(*parts, dim=dim).unsqueeze(1)


reshape = register(replace(affine_op(
    "reshape", lambda x, *, shape: x.reshape(x.shape[0], *shape),
    lambda x, *, shape: (Reshape(shape_of(x), tuple(shape)),), meaning="the same entries in another shape",
), moves=True))

permute = register(replace(affine_op(
    "permute", lambda x, *, dims: x.permute(0, *(d + 1 for d in dims)),
    lambda x, *, dims: (Permute(shape_of(x), tuple(shape_of(x)[d] for d in dims), tuple(dims)),),
    meaning="axes in another order",
), moves=True))

slice_ = register(replace(affine_op(
    "slice", lambda x, *, slices: x[(slice(None), *slices)],
    lambda x, *, slices: (Slice(shape_of(x), slice_shape(shape_of(x), slices), tuple(slices)),),
    meaning="a slice along every axis",
), moves=True))

gather = register(replace(affine_op(
    "gather", lambda x, *, index, shape: flat(x, 1)[:, index.to(x.device)].reshape(x.shape[0], *shape),
    lambda x, *, index, shape: (Gather(shape_of(x), tuple(shape), index.to(x.lower.device)),),
    meaning="entries at known places",
), moves=True))

expand = register(replace(affine_op(
    "expand", lambda x, *, shape: x.expand(x.shape[0], *shape),
    lambda x, *, shape: (expand_map(shape_of(x), tuple(shape)),), meaning="axes of size 1 repeated",
), moves=True))

pad = register(affine_op(
    "pad", lambda x, *, before, shape, value=0.0: pad_values(x, before, shape, value),
    lambda x, *, before, shape, value=0.0: (transposed(Slice(tuple(shape), shape_of(x), pad_slices(shape_of(x), before))),),
    bias=lambda x, *, before, shape, value=0.0:
        pad_values(torch.zeros_like(x.lower[:1]), before, shape, value).unsqueeze(1) if value else None,
    meaning="entries in a larger block of one value",
))

concat = register(affine_op("concat", concat_values, concat_maps, bias=concat_bias, meaning="values side by side"))

sum_ = register(affine_op(
    "sum", lambda x, *, dims, keepdim=False: x.sum([d + 1 for d in dims], keepdim=keepdim),
    lambda x, *, dims, keepdim=False: (reduce_map(x, tuple(dims), keepdim, 1.0),), meaning="sum over axes",
))

mean = register(affine_op(
    "mean", lambda x, *, dims, keepdim=False: x.mean([d + 1 for d in dims], keepdim=keepdim),
    lambda x, *, dims, keepdim=False: (reduce_map(x, tuple(dims), keepdim, 1 / math.prod([shape_of(x)[d] for d in dims])),),
    meaning="mean over axes",
))


def pad_slices(shape: Shape, before: Shape) -> tuple[slice, ...]:
    """Where the unpadded block lies inside the padded one."""
    return tuple(slice(start, start + size, 1) for start, size in zip(before, shape, strict=True))


def pad_values(x: Tensor, before: Shape, shape: Shape, value: float) -> Tensor:
    """x placed in a block of `shape` that is otherwise `value`."""
    whole: Any = x.new_full((x.shape[0], *shape), value)
    whole[(slice(None), *pad_slices(tuple(x.shape[1:]), before))] = x
    return whole
