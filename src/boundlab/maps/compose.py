"""compose and add: how rows pass through a layer's map, and how rows that meet at a node are summed.

A table keyed by the pair of types, with one fallback: dense rows and the map's own `pull`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from boundlab.maps.base import LinearMap, at_owner
from boundlab.maps.common import Common
from boundlab.maps.conv import Conv
from boundlab.maps.dense import Diagonal, Identity, MatmulLeft, MatmulRight, Matrix, Outer, Sum
from boundlab.maps.local import (
    Local,
    add_local,
    local_diagonal,
    local_left,
    local_matrix,
    local_outer,
    local_permute,
    local_reduce,
    local_reshape,
    local_right,
    local_slice,
    local_transposed,
)
from boundlab.maps.pieces import Pieces, beside, dense_slice
from boundlab.maps.rows import Dense, Partial, Rows
from boundlab.maps.select import Select
from boundlab.maps.shape import Gather, Permute, Reduce, Reshape, Slice, Transposed
from boundlab.maps.weights import Chain, RankOne
from boundlab.maps.windows import Origin, Windows

DENSE_AREA = 1.5
"""Windows become dense rows once their area exceeds this multiple of the map's (measured: flat between 1 and 2)."""


def compose(rows: Rows, layer: LinearMap) -> Rows:
    """The rows of `rows` after `layer`: functionals of the layer's input instead of its output."""
    if isinstance(layer, Identity):
        return rows
    if isinstance(layer, Chain):
        return functools.reduce(compose, reversed(layer.links), rows)
    rule = COMPOSE.get((type(rows), type(layer)))
    return rule(rows, layer) if rule else pull_dense(rows, layer)


def pull_dense(rows: Rows, layer: LinearMap) -> Dense:
    """The fallback: explicit coefficients, pulled by the map itself."""
    return Dense(layer.in_shape, rows.owner, layer.at(rows.owner).pull(rows.dense()))


def select_matrix(rows: Select, layer: Matrix) -> Rows:
    """Rows of the weight itself, when the layer has no leading axes."""
    if len(layer.in_shape) != 1:
        return local_matrix(rows.local(), layer)
    picked = layer.weight.index_select(0, rows.index)
    return read_by(layer, rows.owner, rows.values[:, :, None] * picked[:, None, :])


def common_matrix(rows: Common, layer: Matrix) -> Rows:
    """The same for coordinates that all problems share."""
    return read_by(layer, None, rows.signed(layer.weight.index_select(0, rows.index).unsqueeze(0)))


def dense_matrix(rows: Dense, layer: Matrix) -> Rows:
    """Rows over the inputs that the matrix reads."""
    return read_by(layer, rows.owner, rows.coefficients @ layer.weight)


def partial_matrix(rows: Partial, layer: Matrix) -> Rows:
    """Only the matrix's rows at held coordinates count."""
    return read_by(layer, rows.owner, rows.coefficients @ layer.weight.index_select(0, rows.index))


def pieces_matrix(rows: Pieces, layer: Matrix) -> Rows:
    """Only the matrix's rows at held stretches count, each met where it lies; laid side by side they would be copied."""
    (start, first), *others = rows.held
    if len(layer.out_shape) != 1 or any(part.shape[:2] != first.shape[:2] for _, part in others):
        return dense_matrix(rows.spread(), layer)
    total = first.flatten(0, 1) @ layer.weight[start:rows.end(0)]
    for place, (start, part) in enumerate(others, 1):
        total.addmm_(part.flatten(0, 1), layer.weight[start:rows.end(place)])
    return read_by(layer, rows.owner, total.unflatten(0, first.shape[:2]))


def read_by(layer: Matrix, owner: Tensor | None, coefficients: Tensor) -> Rows:
    """Coefficients (n, s, ..., k) of the inputs that a matrix reads, as rows."""
    if layer.live is None:
        return Dense(layer.in_shape, owner, coefficients)
    return Partial(layer.in_shape, owner, coefficients, layer.live)


def select_reshape(rows: Select, layer: Reshape) -> Select:
    """A flat index survives a reshape."""
    return Select(layer.in_shape, rows.owner, rows.index, rows.values)


def select_moved(rows: Select, layer: LinearMap) -> Select:
    """Where a selected coordinate comes from: push the flat positions forward and read them off."""
    count = math.prod(layer.in_shape)
    positions = torch.arange(count, device=rows.index.device).reshape(1, 1, *layer.in_shape)
    origin = layer.push(positions).flatten()
    return Select(layer.in_shape, rows.owner, origin.index_select(0, rows.index), rows.values)


def dense_columns(rows: Dense, layer: MatmulRight) -> Rows:
    """Rows over x @ v for one vector v are products of two vectors."""
    if len(layer.in_shape) > 2 or layer.out_shape[-1] > 1 or layer.factor.shape[1] > 1:
        return pull_dense(rows, layer)
    right = at_owner(layer.factor, rows.owner).squeeze(-1)
    return RankOne(layer.in_shape, rows.owner, rows.coefficients.squeeze(-1), right)


def rank_one_reshape(rows: RankOne, layer: Reshape) -> RankOne:
    """The same coordinates under another shape."""
    return RankOne(layer.in_shape, rows.owner, rows.left, rows.right)


def spread_conv(rows: Select, layer: Conv) -> Rows:
    """Selected neurons of a map become windows before the first convolution."""
    return compose(rows.spread(), layer)


def select_diagonal(rows: Select, layer: Diagonal) -> Rows:
    """Selected coordinates times their own factors."""
    return rows.with_values(rows.values * rows.at(layer.scale.expand(-1, -1, *rows.shape)))


def as_local(rows: Select, layer: LinearMap) -> Rows:
    """Selected coordinates through a map that keeps some axes apart."""
    return compose(rows.local(), layer)


def term_by_term(rows: Select | Local, layer: Sum) -> Rows:
    """The sum of what each term of a map makes of the rows."""
    parts = [compose(rows, term) for term in layer.terms]
    return functools.reduce(add, parts)


def windows_diagonal(rows: Windows, layer: Diagonal) -> Rows:
    """Factors gathered at the windows; factors that differ between rows need dense rows."""
    if layer.scale.dim() > 1 and layer.scale.shape[1] != 1:
        return pull_dense(rows, layer)
    return rows.with_coefficients(rows.coefficients * rows.aligned(layer.scale.expand(-1, 1, *rows.shape)))


def windows_conv(rows: Windows, layer: Conv) -> Rows:
    """One transposed convolution of the small images; the corner moves to scale * stride, - padding."""
    small = len(layer.stride) == 2 and window_after(rows, layer) <= DENSE_AREA * math.prod(layer.in_shape[1:])
    if not small or not isinstance(rows.origin, Origin):
        return pull_dense(rows, layer)
    images = rows.masked().coefficients.flatten(0, 1).permute(0, 3, 1, 2)
    images = layer.pull_images(images, (0, 0), (0, 0)).permute(0, 2, 3, 1)
    coefficients = images.reshape(*rows.coefficients.shape[:2], *images.shape[1:])
    (sy, sx), (oy, ox) = rows.origin.scale, rows.origin.offset
    (ky, kx), (py, px) = layer.stride, layer.padding
    origin = Origin(rows.origin.index, rows.origin.space, (sy * ky, sx * kx), (oy * ky - py, ox * kx - px))
    return Windows(layer.in_shape, rows.owner, coefficients, origin, clean=False)


def window_after(rows: Windows, layer: Conv) -> int:
    """Area of the windows that a pull through `layer` would give."""
    axes = zip(rows.size, layer.stride, layer.dilation, layer.weight.shape[2:], strict=True)
    return math.prod((size - 1) * stride + dilation * (kernel - 1) + 1 for size, stride, dilation, kernel in axes)


Rule = Callable[[Any, Any], Rows]
COMPOSE: dict[tuple[type, type], Rule] = {
    (Select, Matrix): select_matrix,
    (Common, Matrix): common_matrix,
    (Dense, Matrix): dense_matrix,
    (Dense, Slice): dense_slice,
    (Partial, Matrix): partial_matrix,
    (Pieces, Matrix): pieces_matrix,
    (Select, Reshape): select_reshape,
    (Select, Permute): select_moved,
    (Select, Slice): select_moved,
    (Select, Gather): select_moved,
    (Dense, MatmulRight): dense_columns,
    (RankOne, Reshape): rank_one_reshape,
    (Select, Conv): spread_conv,
    (Select, Diagonal): select_diagonal,
    (Select, Sum): term_by_term,
    **{(Select, kind): as_local for kind in (MatmulLeft, MatmulRight, Outer, Reduce)},
    (Local, Diagonal): local_diagonal,
    (Local, MatmulLeft): local_left,
    (Local, MatmulRight): local_right,
    (Local, Matrix): local_matrix,
    (Local, Outer): local_outer,
    (Local, Permute): local_permute,
    (Local, Reduce): local_reduce,
    (Local, Reshape): local_reshape,
    (Local, Slice): local_slice,
    (Local, Sum): term_by_term,
    (Local, Transposed): local_transposed,
    (Windows, Diagonal): windows_diagonal,
    (Windows, Conv): windows_conv,
}


def add(first: Rows, second: Rows) -> Rows:
    """The sum of two sets of rows over one node, from the paths that meet there."""
    if isinstance(first, Select) and isinstance(second, Select) and first.index is second.index:
        return first.with_values(first.values + second.values)
    if isinstance(first, Local) or isinstance(second, Local):
        near, far = (part.local() if isinstance(part, Select) else part for part in (first, second))
        if isinstance(near, Local) and isinstance(far, Local):
            return add_local(near, far)
    first, second = (part.spread() if isinstance(part, Select | Common | RankOne) else part for part in (first, second))
    if isinstance(first, Windows) and isinstance(second, Windows):
        one, other = first.origin, second.origin
        if isinstance(one, Origin) and isinstance(other, Origin) and one.parallel(other):
            return add_windows(first, second, one, other)
    if isinstance(first, Pieces) and isinstance(second, Pieces):
        joined = beside(first, second)
        if joined is not None:
            return joined
    if isinstance(first, Partial) and isinstance(second, Partial) and first.index is second.index:
        return first.with_coefficients(first.coefficients + second.coefficients)
    return Dense(first.shape, first.owner, first.dense() + second.dense())


def add_windows(first: Windows, second: Windows, one: Origin, other: Origin) -> Windows:
    """Both windows padded to their union, whose corner is known because their origins are parallel."""
    low = (min(one.offset[0], other.offset[0]), min(one.offset[1], other.offset[1]))
    ends = [(max(a + n, b + m)) for a, n, b, m in zip(one.offset, first.size, other.offset, second.size, strict=True)]

    def padded(rows: Windows, offset: tuple[int, int]) -> Tensor:
        (y, x), (h, w) = offset, rows.size
        margins = (0, 0, x - low[1], ends[1] - x - w, y - low[0], ends[0] - y - h)
        return F.pad(rows.coefficients, margins) if any(margins) else rows.coefficients

    total = padded(first, one.offset) + padded(second, other.offset)
    origin = Origin(one.index, one.space, one.scale, low)
    return Windows(first.shape, first.owner, total, origin, first.clean and second.clean)
