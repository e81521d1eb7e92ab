"""Linear layers and matrix products."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from boundlab.interval import Interval, times
from boundlab.maps import LinearMap, MatmulLeft, MatmulRight, Matrix, Permute, Reshape, Shape, chain
from boundlab.ops.bilinear import Product, end_planes, layer_op, product_interval, relax_product
from boundlab.ops.op import Argument, Op, at_most_one, register


def linear_values(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x times the transposed weight, plus bias; weights (b, out, in) may differ between problems."""
    if len(weight) == 1 and (bias is None or len(bias) == 1):
        return F.linear(x, weight[0], None if bias is None else bias[0])
    result = torch.einsum("b...i,boi->b...o", x, weight)
    return result if bias is None else result + bias.reshape(len(bias), *[1] * (result.dim() - 2), -1)


def linear_along_x(shape: Shape, weight: Tensor) -> LinearMap:
    """The weight itself, over the last axis of x."""
    out = weight.shape[1]
    if len(weight) == 1:
        return Matrix(shape, (*shape[:-1], out), weight.squeeze(0))  # a select's gradient would begin as zeros
    many = math.prod(shape[:-1])
    return chain(Reshape(shape, (many, shape[-1])), MatmulRight((many, shape[-1]), (many, out), weight.mT.unsqueeze(1)),
                 Reshape((many, out), (*shape[:-1], out)))


def linear_along_w(shape: Shape, x: Tensor) -> LinearMap:
    """w -> (w x')': each row of the weight meets all vectors of x."""
    vectors = x.reshape(len(x), 1, -1, x.shape[-1])
    out, many = shape[0], vectors.shape[2]
    images = MatmulRight(shape, (out, many), vectors.mT)
    if many == 1:
        return chain(images, Reshape((out, 1), (*x.shape[1:-1], out)))
    return chain(images, Permute((out, many), (many, out), (1, 0)), Reshape((many, out), (*x.shape[1:-1], out)))


LINEAR = Product(linear_values, linear_along_x, linear_along_w)
linear = register(layer_op("linear", linear_values, lambda: LINEAR, channel=-1))


def product_shape(x: Shape, y: Shape) -> Shape:
    """Shape of x @ y."""
    return (*np.broadcast_shapes(x[:-2], y[:-2]), x[-2], y[-1])


def matmul_along_x(shape: Shape, y: Tensor) -> LinearMap:
    """x -> x @ y."""
    return MatmulRight(shape, product_shape(shape, tuple(y.shape[1:])), y.unsqueeze(1))


def matmul_along_y(shape: Shape, x: Tensor) -> LinearMap:
    """y -> x @ y."""
    return MatmulLeft(shape, product_shape(tuple(x.shape[1:]), shape), x.unsqueeze(1))


MATMUL = Product(torch.matmul, matmul_along_x, matmul_along_y)


BLOCK = 2**15
"""Products of entries that are formed at once: few enough for a CPU's caches."""


def matmul_interval(x: Argument, y: Argument) -> Interval:
    """The image of a constant factor; else the smallest and largest products of entries that vary on their own, summed."""
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return product_interval(MATMUL, x, y)
    values = not x.lower.is_meta and not y.lower.is_meta  # a dry run has none, and counts what is always possible
    if values and bool(torch.stack([end.isfinite().all() for end in (x.lower, x.upper, y.lower, y.upper)]).all()):
        if bool((x.lower >= 0).all()):
            return weighted(x, y)
        if bool((y.lower >= 0).all()):
            return weighted(y.map(transposed), x.map(transposed)).map(transposed)
    return entrywise(x, y)


def transposed(matrices: Tensor) -> Tensor:
    """The last two axes in the other order."""
    return matrices.mT


def weighted(x: Interval, y: Interval) -> Interval:
    """The range of x @ y where no x is negative, as after a softmax: the sign of an end of y says which end of x it meets."""
    return Interval(x.lower @ y.lower.clamp(min=0) + x.upper @ y.lower.clamp(max=0),
                    x.upper @ y.upper.clamp(min=0) + x.lower @ y.upper.clamp(max=0))


def entrywise(x: Interval, y: Interval) -> Interval:
    """The same where anything may have any sign: product by product, a few problems at a time."""
    batch, shape = max(len(x.lower), len(y.lower)), product_shape(tuple(x.lower.shape[1:]), tuple(y.lower.shape[1:]))
    some = max(1, BLOCK // max(1, math.prod(shape) * x.lower.shape[-1]))
    ends = [end.expand(batch, *end.shape[1:]).split(some) for end in (x.lower, x.upper, y.lower, y.upper)]
    found = [times(Interval(a.unsqueeze(-1), b.unsqueeze(-1)), Interval(c.unsqueeze(-3), d.unsqueeze(-3))).map(
        lambda entries: entries.sum(-2)) for a, b, c, d in zip(*ends, strict=True)]
    return Interval(torch.cat([part.lower for part in found]), torch.cat([part.upper for part in found]))


matmul = register(Op(
    "matmul", torch.matmul, matmul_interval, lambda x, y, alpha=None: relax_product(MATMUL, x, y, end_planes), at_most_one,
    breaks=(), meaning="product of two matrices", sources=("onnx:MatMul",),
))
