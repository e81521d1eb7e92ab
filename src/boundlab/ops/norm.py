"""The Euclidean norm along one axis (`dim`, counted without the batch). Norms 1 and infinity are made of |x| at capture."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from boundlab.affine import Affine, LinearBound
from boundlab.interval import Interval
from boundlab.maps import Reduce
from boundlab.ops.normalise import on_diagonal, reduced
from boundlab.ops.op import Free, elementwise_op, register
from boundlab.ops.shape import shape_of

LEAST = 0.05
"""The number t of the upper plane keeps this share of the largest norm: at 0 there is no plane."""


def norm_values(x: Tensor, *, dim: int, keepdim: bool = False) -> Tensor:
    """sqrt(sum x_i^2) along an axis, with a gradient of zero at zero."""
    largest = x.detach().abs().amax(dim + 1, keepdim=True)
    unit = torch.where(largest > 0, largest, 1.0)
    total = (x / unit).square().sum(dim + 1, keepdim=True)
    found = unit * torch.where(total > 0, torch.where(total > 0, total, 1.0).sqrt(), 0.0)
    return found if keepdim else found.squeeze(dim + 1)


def norm_interval(x: Interval, *, dim: int, keepdim: bool = False) -> Interval:
    """The norms of the points of the box that are nearest to zero and farthest from it."""
    near, far = torch.maximum(x.lower, -x.upper).clamp(min=0), torch.maximum(-x.lower, x.upper)
    return Interval(norm_values(near, dim=dim, keepdim=keepdim), norm_values(far, dim=dim, keepdim=keepdim))


def relax_norm(x: Interval, alpha: Mapping[str, Tensor] | None = None, *, dim: int, keepdim: bool = False) -> LinearBound:
    """Below, the tangent plane at a point of the box's diagonal: w x <= |x| for every w of norm 1 at most.

    Above, sqrt(S) <= (S + t^2) / (2 t) for every t > 0, with S the sum of the chords of the squares; t^2 is S at a point of
    the diagonal, the middle by default.
    """
    shape, axis = shape_of(x), dim + 2
    out = reduced(shape, dim, keepdim)

    def length(value: Tensor) -> Tensor:
        return norm_values(value.flatten(0, 1), dim=dim, keepdim=True).unflatten(0, value.shape[:2])

    place = on_diagonal(x, alpha, "lower", dim)
    level = length(place)
    weights = torch.where(level > 0, place / torch.where(level > 0, level, 1.0), 0.0)
    along, offset = x.row_lower + x.row_upper, -(x.row_lower * x.row_upper).sum(axis, keepdim=True)
    total = (along * on_diagonal(x, alpha, "upper", dim)).sum(axis, keepdim=True) + offset
    root = torch.where(total > 0, torch.where(total > 0, total, 1.0).sqrt(), 0.0)
    root = torch.maximum(root, LEAST * length(torch.maximum(-x.row_lower, x.row_upper)))
    twice = torch.where(root > 0, 2 * root, 1.0)
    bias = (offset / twice + root / 2).reshape(*total.shape[:2], *out)
    below = Affine((Reduce(shape, out, weights, (dim,)),))
    return LinearBound(below, Affine((Reduce(shape, out, along / twice, (dim,)),), bias))


norm = register(elementwise_op(
    "norm", norm_values, norm_interval, relax_norm, lipschitz=1.0,
    alpha={"lower": Free(0.0, 1.0, 0.5), "upper": Free(0.0, 1.0, 0.5)},
    meaning="Euclidean norm along an axis",
))
