"""Sums, differences and products; a product of two perturbed values is bounded by McCormick's planes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from boundlab.affine import Affine, LinearBound, exact
from boundlab.interval import Interval, times
from boundlab.maps import LinearMap, diagonal, identity
from boundlab.ops.op import Argument, Free, Op, affine_interval, affine_op, at_most_one, intervals_of, register
from boundlab.ops.shape import shape_of


def out_shape(*arguments: Argument) -> tuple[int, ...]:
    """Shape of the result: that of any perturbed argument (constants may broadcast)."""
    return shape_of(intervals_of(arguments)[0])


def negation(x: Interval) -> LinearMap:
    """x -> -x."""
    return diagonal(-torch.ones_like(x.lower[:1, None]), shape_of(x))


def sum_maps(x: Argument, y: Argument) -> tuple[LinearMap, ...]:
    """The identity for each perturbed term."""
    return tuple(identity(shape_of(part)) for part in intervals_of((x, y)))


def difference_maps(x: Argument, y: Argument) -> tuple[LinearMap, ...]:
    """The identity for x, its negative for y."""
    first = (identity(shape_of(x)),) if isinstance(x, Interval) else ()
    return first + ((negation(y),) if isinstance(y, Interval) else ())


add = register(affine_op(
    "add", lambda x, y: x + y, sum_maps, sources=("aten.add.Tensor", "onnx:Add"),
    meaning="x + y", bias=lambda x, y: next((part.unsqueeze(1) for part in (x, y) if isinstance(part, Tensor)), None),
))

sub = register(affine_op(
    "sub", lambda x, y: x - y, difference_maps, sources=("aten.sub.Tensor", "onnx:Sub"),
    meaning="x - y",
    bias=lambda x, y: x.unsqueeze(1) if isinstance(x, Tensor) else -y.unsqueeze(1) if isinstance(y, Tensor) else None,
))

neg = register(affine_op("neg", torch.neg, lambda x: (negation(x),), meaning="-x", sources=("aten.neg.default", "onnx:Neg")))


def product_interval(x: Argument, y: Argument) -> Interval:
    """All four corner products (two, when a factor is constant)."""
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return affine_interval(relax_mul(x, y), intervals_of((x, y)))
    return times(x, y)


def mix(share: Tensor | None, first: Tensor, second: Tensor) -> Tensor:
    """share * first + (1 - share) * second; no share means all of the first."""
    return first if share is None else second + share * (first - second)


def relax_mul(x: Argument, y: Argument, alpha: Mapping[str, Tensor] | None = None) -> LinearBound:
    """A scaled identity where one factor is constant; else McCormick's planes, two a side, mixed by free shares.

    Below: x_l y + y_l x - x_l y_l and the one through the upper ends; above: x_l y + y_u x - x_l y_u and its mirror.
    McCormick 1976; Shi et al. 2020, Sec. 3.2. Share 1 is the plane through x_l.
    """
    if isinstance(x, Tensor):
        return exact(diagonal(x.unsqueeze(1), shape_of(y)))
    if isinstance(y, Tensor):
        return exact(diagonal(y.unsqueeze(1), shape_of(x)))
    shares = alpha or {}

    def plane(share: Tensor | None, y_first: Tensor, y_second: Tensor) -> Affine:
        along_x, along_y = mix(share, y_first, y_second), mix(share, x.row_lower, x.row_upper)
        bias = -mix(share, x.row_lower * y_first, x.row_upper * y_second)
        return Affine((diagonal(along_x, shape_of(x)), diagonal(along_y, shape_of(y))), bias)

    return LinearBound(plane(shares.get("lower"), y.row_lower, y.row_upper),
                       plane(shares.get("upper"), y.row_upper, y.row_lower))


def all_ones(x: Interval, y: Interval) -> Tensor:
    """Share 1 everywhere: the first plane alone."""
    return torch.ones_like(x.row_lower)


mul = register(Op(
    "mul", lambda x, y: x * y, product_interval, relax_mul, at_most_one, breaks=(),
    alpha={"lower": Free(0.0, 1.0, all_ones), "upper": Free(0.0, 1.0, all_ones)},
    meaning="x y", sources=("aten.mul.Tensor", "onnx:Mul"),
))
