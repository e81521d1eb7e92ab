"""How much longer a linear map makes a vector: its spectral norm from above, and an estimate of it that can be trained with.

A power iteration approaches the norm from below, so nothing is certified with it. What is certified has the smallest of several
upper bounds: sqrt(|A|_1 |A|_inf); the root of the largest eigenvalue of the Gram matrix, in double precision; for convolutions
the largest singular value on a torus that holds the padded map.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from boundlab.maps.base import LinearMap, flat
from boundlab.maps.conv import Conv, OwnConv
from boundlab.maps.dense import Diagonal, Identity, MatmulLeft, MatmulRight, Matrix, Outer, Sum, Zero
from boundlab.maps.shape import Gather, GatherEach, Permute, Reduce, Reshape, Slice, Transposed, transposed
from boundlab.maps.weights import Chain, chain

MARGIN = 1e-6
"""Outward, as a share: eigenvalues of Gram matrices of n rows are off by some n^2 units of rounding at most."""
LARGEST = 512
"""Maps whose smaller side has at most so many coordinates are written out as matrices,"""
MOST_ENTRIES = 2**22
"""if they have at most so many entries."""

Rule = Callable[[Any], Tensor]


# -- rows ----------------------------------------------------------------------------------------------------------------

def row_norms(layer: LinearMap, like: Tensor) -> Tensor:
    """The l_2 norm of each row of a map, (b or 1, *out), or an upper bound of it where its entries are sums of products.

    `like` has the type of its numbers. A row of zeros counts as the smallest number, so that gradients are finite.
    """
    if isinstance(layer, Sum):
        return functools.reduce(operator.add, (row_norms(term, like) for term in layer.terms))
    entries = squared(layer)
    if entries is None:
        return spectral_bound(layer, like).reshape(-1, *[1] * len(layer.out_shape)).expand(-1, *layer.out_shape)
    total = entries.apply(like.new_ones(1, *layer.in_shape))
    return total.clamp(min=torch.finfo(total.dtype).tiny).sqrt()


def lengths(vectors: Tensor, dim: int) -> Tensor:
    """The l_2 norms along an axis. Entries are divided by the largest one, so that squares of small ones do not vanish."""
    largest = vectors.detach().abs().amax(dim, keepdim=True)
    size = torch.where(largest > 0, largest, 1.0)
    return size.squeeze(dim) * torch.linalg.vector_norm(vectors / size, dim=dim)


MOVES = (Identity, Reshape, Permute, Slice)
"""Maps whose matrices hold a single one in each row, and at most one in each column."""


def moves(layer: LinearMap) -> bool:
    """Whether a map, or its adjoint, only moves coordinates."""
    return isinstance(layer.of if isinstance(layer, Transposed) else layer, MOVES)


def squared(layer: LinearMap) -> LinearMap | None:
    """The map with every entry squared; None where entries are sums of the numbers that the map holds."""
    if isinstance(layer, Identity | Zero | Reshape | Permute | Slice | Gather | GatherEach):
        return layer
    if isinstance(layer, Matrix | Conv | OwnConv | Reduce):
        return replace(layer, weight=layer.weight.square())
    if isinstance(layer, MatmulLeft | MatmulRight):
        return replace(layer, factor=layer.factor.square())
    if isinstance(layer, Diagonal):
        return replace(layer, scale=layer.scale.square())
    if isinstance(layer, Outer):
        return replace(layer, left=layer.left.square(), right=layer.right.square())
    if isinstance(layer, Transposed):
        inner = squared(layer.of)
        return None if inner is None else transposed(inner)
    if isinstance(layer, Chain) and sum(not moves(link) for link in layer.links) <= 1:
        links = [squared(link) for link in layer.links]
        return chain(*(link for link in links if link is not None)) if None not in links else None
    return None


def disjoint(layers: list[LinearMap], like: Tensor) -> bool:
    """Whether no two of the maps reach the same coordinate: the parts of a concatenation."""
    touched = [layer.abs().apply(like.new_ones(1, *layer.in_shape)) > 0 for layer in layers]
    return not bool((torch.stack(torch.broadcast_tensors(*touched)).sum(0) > 1).any())


# -- spectral norms ------------------------------------------------------------------------------------------------------

@torch.no_grad()
def spectral_bound(layer: LinearMap, like: Tensor) -> Tensor:
    """An upper bound of the spectral norm, (b or 1,), in the type of `like`; infinite where the map is no number."""
    found = bound_of(doubled(layer), like.double())
    return torch.nan_to_num(found, nan=math.inf).mul(1 + MARGIN).to(like.dtype)


def doubled(layer: Any) -> Any:
    """The same map in double precision."""
    if isinstance(layer, Tensor):
        return layer.double() if layer.is_floating_point() else layer
    if isinstance(layer, LinearMap):
        own = vars(layer)
        return replace(layer, **{field.name: doubled(own[field.name]) for field in fields(layer)})
    return tuple(map(doubled, layer)) if isinstance(layer, tuple) else layer


def bound_of(layer: LinearMap, like: Tensor) -> Tensor:
    """The bound of a map in double precision: of its parts, or the smallest that is known for its kind."""
    if isinstance(layer, Transposed):
        return bound_of(layer.of, like)
    if isinstance(layer, MOVES):
        return like.new_ones(1)
    if isinstance(layer, Diagonal):
        return flat(layer.scale.abs(), 1).amax(1)
    if isinstance(layer, Gather):
        return torch.bincount(layer.index).amax().to(like).sqrt().reshape(1)
    if isinstance(layer, Reduce):  # its rows have no coordinate in common
        return flat(row_norms(layer, like), 1).amax(1)
    if isinstance(layer, Chain):
        return functools.reduce(operator.mul, (bound_of(link, like) for link in layer.links))
    if isinstance(layer, Sum):
        return functools.reduce(operator.add, (bound_of(term, like) for term in layer.terms))
    found = by_sums(layer, like)
    if isinstance(layer, Matrix):
        return torch.minimum(found, largest_singular_value(layer.weight).reshape(1))
    if isinstance(layer, Conv):
        found = torch.minimum(found, on_torus(layer))
    sides = math.prod(layer.in_shape), math.prod(layer.out_shape)
    if min(sides) <= LARGEST and math.prod(sides) * len(found) <= MOST_ENTRIES:
        found = torch.minimum(found, largest_singular_value(written_out(layer, like)))
    return found


def by_sums(layer: LinearMap, like: Tensor) -> Tensor:
    """sqrt(|A|_1 |A|_inf), (b or 1,): the largest sums of absolute entries of a column and of a row."""
    size = layer.abs()
    rows, columns = size.push(like.new_ones(1, 1, *layer.in_shape)), size.pull(like.new_ones(1, 1, *layer.out_shape))
    return flat(rows, 1).amax(1).sqrt() * flat(columns, 1).amax(1).sqrt()


def written_out(layer: LinearMap, like: Tensor) -> Tensor:
    """The matrix of a map or its transpose, whichever has fewer rows, (b or 1, rows, columns)."""
    inputs, outputs = math.prod(layer.in_shape), math.prod(layer.out_shape)
    if inputs <= outputs:
        return flat(layer.push(torch.eye(inputs).to(like).reshape(1, inputs, *layer.in_shape)), 2)
    return flat(layer.pull(torch.eye(outputs).to(like).reshape(1, outputs, *layer.out_shape)), 2)


def largest_singular_value(matrix: Tensor) -> Tensor:
    """The root of the largest eigenvalue of the smaller Gram matrices of (..., m, n); infinite where they are no numbers.

    Entries are divided by the largest, so that squares of small ones do not vanish.
    """
    size = matrix.abs().amax((-2, -1), keepdim=True)
    unit_size = matrix / torch.where(size > 0, size, 1.0)
    wide = unit_size if matrix.shape[-2] <= matrix.shape[-1] else unit_size.mH
    gram = wide @ wide.mH
    if not bool(torch.isfinite(gram).all()):
        return torch.full(gram.shape[:-2], math.inf, dtype=gram.real.dtype, device=gram.device)
    return size[..., 0, 0] * torch.linalg.eigvalsh(gram)[..., -1].clamp(min=0).sqrt()


def on_torus(layer: Conv) -> Tensor:
    """The spectral norm of the same convolution on a torus, (1,), as large as the padded map and so never smaller.

    No window leaves the padded map, so the layer is a part of the one on the torus. There a frequency of the outputs meets the
    stride^d frequencies of the inputs that fall together on it, in a matrix of outputs by inputs times these (Sedghi et al.
    2019, for stride 1).
    """
    stride, weight = layer.stride, layer.weight
    for axis, step in enumerate(layer.dilation, 2):  # zeros between the taps
        wide = F.pad(weight.unsqueeze(axis + 1), (0, 0) * (weight.dim() - axis - 1) + (0, step - 1))
        weight = wide.flatten(axis, axis + 1).narrow(axis, 0, step * (weight.shape[axis] - 1) + 1)
    size = [-(-(cells + 2 * pad) // jump) * jump
            for cells, pad, jump in zip(layer.in_shape[1:], layer.padding, stride, strict=True)]
    symbol = torch.fft.fftn(weight, size, tuple(range(2, weight.dim())))
    for axis, jump in enumerate(stride):
        symbol = symbol.unflatten(2 + 2 * axis, (jump, -1))
    coarse, alike = range(3, symbol.dim(), 2), range(2, symbol.dim(), 2)
    matrices = symbol.permute(*coarse, 0, 1, *alike).flatten(len(coarse) + 1)
    matrices = matrices[:matrices.shape[0] // 2 + 1]  # the others are conjugates of these
    blocks = matrices.unflatten(-2, (layer.groups, -1))
    return largest_singular_value(blocks).amax().reshape(1) / math.sqrt(math.prod(stride))


def power_estimate(layer: LinearMap, like: Tensor, steps: int) -> Tensor:
    """An estimate of the spectral norm from below, (b or 1,), by a power iteration from a fixed start: for training alone.

    Differentiable in the map with the vectors held fixed (Miyato et al. 2018).
    """
    generator = torch.Generator().manual_seed(0)
    right = torch.randn(1, 1, *layer.in_shape, generator=generator, dtype=torch.float64).to(like)
    with torch.no_grad():
        for _ in range(steps):
            left = unit(layer.push(right))
            right = unit(layer.pull(left))
        left = unit(layer.push(right))
    return flat(left * layer.push(right), 1).sum(1)


def trainable_bound(layer: LinearMap, like: Tensor, steps: int = 10) -> Tensor:
    """`spectral_bound`, (b or 1,), with the gradient of the logarithm of `power_estimate`: what is minimised is a bound."""
    estimate = power_estimate(layer, like, steps)
    share = estimate / estimate.detach().clamp(min=torch.finfo(estimate.dtype).tiny)
    return spectral_bound(layer, like) * (1 + (share - share.detach()))


def unit(vectors: Tensor) -> Tensor:
    """Vectors (b, 1, *shape) of length 1; zero stays zero."""
    length = flat(vectors, 1).norm(dim=1).clamp(min=torch.finfo(vectors.dtype).tiny)
    return vectors / length.reshape(-1, *[1] * (vectors.dim() - 1))
