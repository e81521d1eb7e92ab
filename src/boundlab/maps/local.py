"""Local: rows that vanish except at one index of some axes, as a row of one token does until attention mixes the tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from boundlab.maps.base import LinearMap, at_owner
from boundlab.maps.dense import Diagonal, MatmulLeft, MatmulRight, Matrix, Outer
from boundlab.maps.rows import Dense, Explicit, Rows
from boundlab.maps.shape import Permute, Reduce, Reshape, Slice, Transposed


@dataclass(frozen=True, eq=False)
class Place:
    """One index a row, (n,): index // divisor % modulus, with `index` where the rows began. Equal if known to be equal."""

    index: Tensor
    divisor: int
    modulus: int

    def same(self, other: Place) -> bool:
        """Whether both say the same, known without looking at data."""
        return self.index is other.index and (self.divisor, self.modulus) == (other.divisor, other.modulus)

    @cached_property
    def value(self) -> Tensor:
        """The indices, (n,)."""
        return self.index // self.divisor % self.modulus


Fixed = dict[int, Place]


@dataclass(frozen=True)
class Local(Explicit):
    """Coefficients (n, s, *shape with size 1 along the fixed axes); `fixed` says where along these (without batch) they lie."""

    fixed: Fixed

    def dense(self) -> Tensor:
        return self.freed(self.fixed).coefficients

    def with_coefficients(self, coefficients: Tensor) -> Local:
        return Local(self.shape, self.owner, coefficients, self.fixed)

    def aligned(self, value: Tensor) -> Tensor:
        return gathered(value, self.owner, self.fixed)

    @property
    def holds_rows(self) -> bool:
        return False

    def freed(self, axes: Sequence[int] | Fixed) -> Local:
        """The same rows with zeros written out along some of the fixed axes."""
        coefficients = self.coefficients
        for axis in axes:
            if axis in self.fixed:
                size = self.shape[axis]
                hot = torch.nn.functional.one_hot(self.fixed[axis].value, size).to(coefficients.dtype)
                coefficients = coefficients * hot.reshape(-1, *[1] * (axis + 1), size, *[1] * (len(self.shape) - axis - 1))
        kept = {axis: place for axis, place in self.fixed.items() if axis not in axes}
        return Local(self.shape, self.owner, coefficients, kept)


def gathered(value: Tensor, owner: Tensor | None, fixed: Fixed) -> Tensor:
    """A per-example tensor (b, s, *shape or broadcastable) at each row's example and places, (n or 1, s, *...)."""
    picked = {axis: place for axis, place in fixed.items() if value.shape[axis + 2] > 1}
    if not picked:
        return at_owner(value, owner)
    front = [0, *(axis + 2 for axis in picked)]
    rest = [axis for axis in range(value.dim()) if axis not in front]
    moved = value.permute(*front, *rest)
    index = torch.zeros_like(next(iter(picked.values())).value)
    if value.shape[0] > 1:
        index = owner if owner is not None else torch.arange(len(index), device=index.device)
    for axis, place in picked.items():
        index = index * value.shape[axis + 2] + place.value
    found = moved.reshape(math.prod(moved.shape[:len(front)]), *moved.shape[len(front):]).index_select(0, index)
    return found.reshape(len(index), *(1 if axis in front else value.shape[axis] for axis in range(1, value.dim())))


def add_local(first: Local, second: Local) -> Local:
    """The sum; axes that are not fixed at the same places in both are written out."""
    common = [axis for axis in first.fixed if axis in second.fixed and first.fixed[axis].same(second.fixed[axis])]
    one, other = (part.freed([axis for axis in part.fixed if axis not in common]) for part in (first, second))
    return one.with_coefficients(one.coefficients + other.coefficients)


def pulled(rows: Local, layer: LinearMap, fixed: Fixed, coefficients: Tensor) -> Local:
    """Rows of the layer's input."""
    return Local(layer.in_shape, rows.owner, coefficients, fixed)


def without(fixed: Fixed, *axes: int) -> Fixed:
    """The fixed axes but some."""
    return {axis: place for axis, place in fixed.items() if axis not in axes}


def local_diagonal(rows: Local, layer: Diagonal) -> Rows:
    """Factors gathered at the places."""
    if layer.scale.shape[1] != 1:
        return Dense(rows.shape, rows.owner, layer.at(rows.owner).pull(rows.dense()))
    axes = [1] * (len(rows.shape) + 2 - layer.scale.dim())
    scale = layer.scale.reshape(*layer.scale.shape[:2], *axes, *layer.scale.shape[2:])
    return rows.with_coefficients(rows.coefficients * rows.aligned(scale))


def local_matrix(rows: Local, layer: Matrix) -> Rows:
    """The matrix acts on the last axis; a row fixed there takes one row of the weight."""
    last = len(layer.in_shape) - 1
    if last not in rows.fixed:
        return pulled(rows, layer, rows.fixed, layer.written_out(rows.coefficients @ layer.weight))
    picked = layer.weight.index_select(0, rows.fixed[last].value)
    picked = picked.reshape(-1, *[1] * (last + 1), picked.shape[1])
    return pulled(rows, layer, without(rows.fixed, last), layer.written_out(rows.coefficients * picked))


def local_permute(rows: Local, layer: Permute) -> Rows:
    """Axes move, and with them the places."""
    inverse = sorted(range(len(layer.dims)), key=layer.dims.__getitem__)
    fixed = {layer.dims[axis]: place for axis, place in rows.fixed.items()}
    return pulled(rows, layer, fixed, rows.coefficients.permute(0, 1, *(d + 2 for d in inverse)))


def local_reshape(rows: Local, layer: Reshape) -> Rows:
    """Axes before and behind those that change keep their places."""
    before, after = layer.in_shape, layer.out_shape
    lead = 0
    while lead < min(len(before), len(after)) and before[lead] == after[lead]:
        lead += 1
    trail = 0
    while trail < min(len(before), len(after)) - lead and before[-1 - trail] == after[-1 - trail]:
        trail += 1
    rows = rows.freed([axis for axis in rows.fixed if lead <= axis < len(after) - trail])
    shift = len(before) - len(after)
    fixed = {axis if axis < lead else axis + shift: place for axis, place in rows.fixed.items()}
    sizes = [1 if axis in fixed else size for axis, size in enumerate(before)]
    return pulled(rows, layer, fixed, rows.coefficients.reshape(*rows.coefficients.shape[:2], *sizes))


def local_reduce(rows: Local, layer: Reduce) -> Rows:
    """A row of a sum over axes is spread along them."""
    kept = [axis for axis in range(len(layer.in_shape)) if axis not in layer.dims]
    same_rank = len(layer.out_shape) == len(layer.in_shape)
    fixed = {axis if same_rank else kept[axis]: place for axis, place in rows.fixed.items()}
    fixed = without(fixed, *layer.dims)
    sizes = [1 if axis in fixed or axis in layer.dims else size for axis, size in enumerate(layer.in_shape)]
    spread = rows.coefficients.reshape(*rows.coefficients.shape[:2], *sizes) * factor(rows, layer.weight, fixed)
    sizes = [1 if axis in fixed else size for axis, size in enumerate(layer.in_shape)]
    return pulled(rows, layer, fixed, spread.expand(*spread.shape[:2], *sizes))


def factor(rows: Local, weight: Tensor, fixed: Fixed) -> Tensor:
    """A weight that broadcasts to (b, s, *shape), gathered where it varies along fixed axes."""
    return weight if weight.dim() < 3 else gathered(weight, rows.owner, fixed)


def local_transposed(rows: Local, layer: Transposed) -> Rows:
    """The adjoint of a sum (an expansion): what was spread is summed."""
    inner = layer.of
    if not isinstance(inner, Reduce):
        return Dense(layer.in_shape, rows.owner, layer.at(rows.owner).pull(rows.dense()))
    total = (rows.coefficients * factor(rows, inner.weight, rows.fixed)).sum([axis + 2 for axis in inner.dims], keepdim=True)
    fixed = without(rows.fixed, *inner.dims)
    if len(inner.out_shape) != len(inner.in_shape):
        kept = [axis for axis in range(len(inner.in_shape)) if axis not in inner.dims]
        fixed = {kept.index(axis): place for axis, place in fixed.items()}
    sizes = [1 if axis in fixed else size for axis, size in enumerate(layer.in_shape)]
    return pulled(rows, layer, fixed, total.reshape(*total.shape[:2], *sizes))


def local_slice(rows: Local, layer: Slice) -> Rows:
    """A slice of axes that are not fixed."""
    narrowed = [axis for axis in rows.fixed if layer.in_shape[axis] != layer.out_shape[axis]]
    rows = rows.freed(narrowed)
    before, after = ([1 if axis in rows.fixed else size for axis, size in enumerate(shape)]
                     for shape in (layer.in_shape, layer.out_shape))
    slices = tuple(slice(None) if axis in rows.fixed else part for axis, part in enumerate(layer.slices))
    return pulled(rows, layer, rows.fixed, Slice(tuple(before), tuple(after), slices).pull(rows.coefficients))


def local_outer(rows: Local, layer: Outer) -> Rows:
    """A map of rank one along an axis: summed there, then spread again."""
    fixed = without(rows.fixed, layer.dim)
    total = (rows.coefficients * gathered(layer.left, rows.owner, rows.fixed)).sum(layer.dim + 2, keepdim=True)
    return pulled(rows, layer, fixed, total * gathered(layer.right, rows.owner, fixed))


def local_right(rows: Local, layer: MatmulRight) -> Rows:
    """Rows r of y = x @ F are r @ F^T; `factor` (b, s, *lead, k, n) is gathered at fixed leading axes and at a fixed column."""
    last = len(layer.out_shape) - 1
    picked = {last - 1 if axis == last else axis: place for axis, place in rows.fixed.items() if axis != last - 1}
    flipped = gathered(layer.factor.mT, rows.owner, picked)
    return pulled(rows, layer, without(rows.fixed, last), times(rows.coefficients, flipped))


def local_left(rows: Local, layer: MatmulLeft) -> Rows:
    """Rows r of y = F @ x are F^T @ r; `factor` (b, s, *lead, m, k) is gathered at fixed leading axes and at a fixed row."""
    last = len(layer.out_shape) - 1
    picked = gathered(layer.factor, rows.owner, without(rows.fixed, last))
    turned = times(rows.coefficients.mT, picked).mT if last - 1 not in rows.fixed else picked.mT * rows.coefficients
    return pulled(rows, layer, without(rows.fixed, last - 1), turned)


def times(rows: Tensor, factor: Tensor) -> Tensor:
    """rows (n, s, *lead, m, k) @ factor (n or 1, 1, *lead, k, p); a factor for all rows makes one large product a lead."""
    if len(factor) > 1 or len(rows) == 1:
        return rows @ factor
    shape = np.broadcast_shapes(rows.shape[2:-2], factor.shape[2:-2])
    rows = rows.expand(*rows.shape[:2], *shape, *rows.shape[-2:]).flatten(2, -3) if shape else rows.unsqueeze(2)
    own = factor[0, 0].expand(*shape, *factor.shape[-2:]).flatten(0, -3) if shape else factor[0]
    found = torch.einsum("nslmk,lkp->nslmp", rows, own)
    return found.reshape(*found.shape[:2], *shape, *found.shape[-2:])
