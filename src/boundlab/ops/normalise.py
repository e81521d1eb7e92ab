"""Softmax and log-sum-exp along one axis (`dim`, counted without the batch)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import Affine, LinearBound, above_ends, chord
from boundlab.interval import Interval
from boundlab.maps import Diagonal, Outer, Reduce, Shape, Sum
from boundlab.ops.curves import between
from boundlab.ops.op import Free, elementwise_op, register
from boundlab.ops.shape import shape_of

Alpha = Mapping[str, Tensor] | None
LEAST_SHARE = 0.05
"""Tangent points keep this share of the way from the lower ends, so that the sum of chords there stays away from zero."""


def touching(x: Interval, alpha: Alpha, name: str) -> Tensor:
    """Where the tangent of one side touches, (b, s, *shape): the middle, or at free fractions of the way."""
    return between(x, half(x) if alpha is None else alpha[name])


def half(x: Interval, **_: Any) -> Tensor:
    """The middle of the box, as fractions of the way."""
    return torch.full_like(x.row_lower, 0.5)


def reduced(shape: Shape, dim: int, keepdim: bool) -> Shape:
    """A shape after one axis has become 1 or gone."""
    return tuple(1 if d == dim else size for d, size in enumerate(shape) if keepdim or d != dim)


def on_diagonal(x: Interval, alpha: Alpha, name: str, dim: int) -> Tensor:
    """A point of the diagonal of the box along an axis, (b, s, *shape): its middle, or at a free fraction for each output."""
    kept = reduced(shape_of(x), dim, True)
    share = torch.full_like(x.row_lower.narrow(dim + 2, 0, 1), 0.5) if alpha is None else \
        alpha[name].reshape(*alpha[name].shape[:2], *kept)
    return between(x, share)


# -- the range of softmax ------------------------------------------------------------------------------------------------

def log_of_others(x: Tensor, dim: int) -> Tensor:
    """For every j the logarithm of sum_{k != j} exp(x_k): sums from both ends, since a difference would cancel."""
    top = x.amax(dim, keepdim=True).detach()
    terms = (x - top).exp()
    zero = torch.zeros_like(terms.narrow(dim, 0, 1))
    before = torch.cat([zero, terms.narrow(dim, 0, x.shape[dim] - 1)], dim).cumsum(dim)
    after = torch.cat([terms.narrow(dim, 1, x.shape[dim] - 1), zero], dim).flip(dim).cumsum(dim).flip(dim)
    return top + (before + after).clamp(min=torch.finfo(x.dtype).tiny).log()


def log_softmax_ends(x: Interval, dim: int) -> Interval:
    """Range of log softmax, exact: its own coordinate at one end, all others at the opposite one; 0 if there are no others."""
    axis = dim + 1
    if x.shape[axis] == 1:
        return x.map(torch.zeros_like)

    def end(own: Tensor, others: Tensor) -> Tensor:
        excess = log_of_others(others, axis) - own
        return -torch.logaddexp(excess, torch.zeros_like(excess))

    return Interval(end(x.lower, x.upper), end(x.upper, x.lower))


def softmax_interval(x: Interval, *, dim: int) -> Interval:
    """exp(l_j) / (exp(l_j) + sum_{k != j} exp(u_k)) and its mirror image, which are attained."""
    return log_softmax_ends(x, dim).map(torch.exp)


# -- chords of exp -------------------------------------------------------------------------------------------------------

def chord_tangent(x: Interval, touch: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """An upper bound of log sum exp: value at `touch` (kept axis) and slopes of the tangent of log sum of exp's chords.

    The sum of chords S is affine and above the sum of exponentials; its logarithm is concave, so the tangent is above.
    """
    top = x.row_upper.amax(dim + 2, keepdim=True).detach()
    shifted = Interval(x.lower - top.squeeze(1), x.upper - top.squeeze(1))
    slope = chord(torch.exp, shifted, shifted.center.unsqueeze(1).exp())
    total = (slope * (touch - top) + above_ends(torch.exp, slope, shifted)).sum(dim + 2, keepdim=True)
    return total.log() + top, slope / total


# -- softmax -------------------------------------------------------------------------------------------------------------

def lower_plane(x: Interval, touch: Tensor, dim: int) -> Affine:
    """Tangent at `touch` of exp(x_j) / S(x), S the sum of exp's chords, which is convex and below softmax.

    Wei et al. 2023 (Convex bounds on the softmax function), Sec. 3: L_LSE.
    """
    level, right = chord_tangent(x, touch, dim)
    value = (touch - level).exp()
    return plane(x, value, value, right, touch, dim)


def upper_plane(x: Interval, touch: Tensor, dim: int) -> Affine:
    """Chord of exp over the range of log softmax, composed with the tangent of log softmax at `touch`, which is above it.

    Wei et al. 2023, Sec. 3: U_LSE.
    """
    ends = log_softmax_ends(x, dim)
    slope = chord(torch.exp, ends, ends.center.unsqueeze(1).exp())
    value = above_ends(torch.exp, slope, ends) + slope * torch.log_softmax(touch, dim + 2)
    return plane(x, value, slope, torch.softmax(touch, dim + 2), touch, dim)


def plane(x: Interval, value: Tensor, slope: Tensor, weights: Tensor, touch: Tensor, dim: int) -> Affine:
    """value_j + slope_j * ((x_j - t_j) - sum_k weights_k (x_k - t_k)): a diagonal and a matrix of rank one."""
    shape = shape_of(x)
    mixing = Sum(shape, shape, (Diagonal(shape, shape, slope), Outer(shape, shape, -slope, weights, dim)))
    return Affine((mixing,), value - slope * (touch - (weights * touch).sum(dim + 2, keepdim=True)))


def relax_softmax(x: Interval, alpha: Alpha = None, *, dim: int) -> LinearBound:
    """Tangent planes at the middle of the box, or at free points of it, one for each side and all outputs."""
    return LinearBound(lower_plane(x, touching(x, alpha, "lower"), dim), upper_plane(x, touching(x, alpha, "upper"), dim))


softmax = register(elementwise_op(
    "softmax", lambda x, *, dim: torch.softmax(x, dim + 1), softmax_interval, relax_softmax, lipschitz=1.0,
    alpha={"lower": Free(LEAST_SHARE, 1.0, half), "upper": Free(0.0, 1.0, half)}, ranks=True,
    meaning="softmax along an axis",
))


# -- log sum exp ---------------------------------------------------------------------------------------------------------

def relax_logsumexp(x: Interval, alpha: Alpha = None, *, dim: int, keepdim: bool = False) -> LinearBound:
    """Tangent below (the function is convex); above, the tangent of the logarithm of the sum of exp's chords.

    Both touch at points of the box's diagonal, which are free.
    """
    shape, axis = shape_of(x), dim + 2
    out = reduced(shape, dim, keepdim)

    def side(touch: Tensor, level: Tensor, weights: Tensor) -> Affine:
        offset = level - (weights * touch).sum(axis, keepdim=True)
        return Affine((Reduce(shape, out, weights, (dim,)),), offset.reshape(*offset.shape[:2], *out))

    low, high = on_diagonal(x, alpha, "lower", dim), on_diagonal(x, alpha, "upper", dim)
    return LinearBound(side(low, torch.logsumexp(low, axis, keepdim=True), torch.softmax(low, axis)),
                       side(high, *chord_tangent(x, high, dim)))


logsumexp = register(elementwise_op(
    "logsumexp", lambda x, *, dim, keepdim=False: torch.logsumexp(x, dim + 1, keepdim=keepdim),
    lambda x, *, dim, keepdim=False: x.map(lambda end: torch.logsumexp(end, dim + 1, keepdim=keepdim)), relax_logsumexp,
    lipschitz=1.0,
    alpha={"lower": Free(0.0, 1.0, 0.5), "upper": Free(LEAST_SHARE, 1.0, 0.5)},
    meaning="log of the sum of exponentials along an axis",
))


# -- log softmax ---------------------------------------------------------------------------------------------------------

def relax_log_softmax(x: Interval, alpha: Alpha = None, *, dim: int) -> LinearBound:
    """x_j minus the planes around log sum exp; Wei et al. 2023, Sec. 3, before the exponential."""
    low, high = touching(x, alpha, "lower"), touching(x, alpha, "upper")
    level, weights = chord_tangent(x, low, dim)
    one = torch.ones_like(x.row_lower)
    return LinearBound(plane(x, low - level, one, weights, low, dim),
                       plane(x, torch.log_softmax(high, dim + 2), one, torch.softmax(high, dim + 2), high, dim))


log_softmax = register(elementwise_op(
    "log_softmax", lambda x, *, dim: torch.log_softmax(x, dim + 1), lambda x, *, dim: log_softmax_ends(x, dim),
    relax_log_softmax, alpha={"lower": Free(LEAST_SHARE, 1.0, half), "upper": Free(0.0, 1.0, half)},
    ranks=True, meaning="log of softmax along an axis",
))
