"""Balls in l_2 around the value at one input, and what operators make of them: `bounds/lipschitz.py` carries them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from boundlab.affine import Affine
from boundlab.bounds.backward import Env
from boundlab.graph import Node
from boundlab.interval import Interval, around, point
from boundlab.maps import LinearMap, disjoint, flat, lengths, moves, row_norms
from boundlab.ops import lookup

Norm = Callable[[LinearMap, Tensor], Tensor]
"""A spectral norm, (b or 1,), of a map with numbers of a tensor's type: `spectral_bound`, `trainable_bound`."""


@dataclass(frozen=True)
class Around:
    """A value at one input, (b or 1, *shape), and how far in l_2 the values at all others are from it at most, (b or 1,)."""

    center: Tensor
    radius: Tensor

    def reach(self, rows: Tensor) -> Tensor:
        """How far linear functions with coefficients of these l_2 norms, (b or 1, *out), move on the ball."""
        return rows * self.radius.reshape(-1, *[1] * (rows.dim() - 1))

    def box(self) -> Interval:
        """The box around the ball."""
        return around(*torch.broadcast_tensors(self.center, self.reach(torch.ones_like(self.center[:1]))))


def radius_after(affine: Affine, before: Sequence[Around], norm: Norm) -> Tensor:
    """The radius of the ball after an affine operator, (b or 1,).

    Of a residual sum the radii add; parts of a concatenation stand at right angles.
    """
    like = before[0].center
    parts = [norm(layer, like) * ball.radius for layer, ball in zip(affine.maps, before, strict=True)]
    whole = torch.stack(torch.broadcast_tensors(*parts))
    apart = len(parts) > 1 and disjoint(list(affine.maps), like)
    return lengths(whole, 0) if apart else whole.sum(0)


def box_after(affine: Affine, before: Sequence[Around], center: Tensor) -> Interval | None:
    """The box around the image of balls under an affine operator, with its value at their centers.

    None where it only moves coordinates: an interval of these is no worse.
    """
    if all(moves(layer) for layer in affine.maps):
        return None
    reaches = [ball.reach(row_norms(layer, center)) for layer, ball in zip(affine.maps, before, strict=True)]
    return around(*torch.broadcast_tensors(center, torch.stack(torch.broadcast_tensors(*reaches)).sum(0)))


def through_slopes(node: Node, env: Env, before: Sequence[Around]) -> Tensor | None:
    """The radius after a nonlinear operator with a known Lipschitz constant, (b or 1,); None for others.

    A function of each coordinate lengthens a step by its steepest slope on the interval at most, which holds both ends of it.
    """
    op = lookup(node.op)
    if op.lipschitz is not None:
        whole = torch.stack(torch.broadcast_tensors(*(ball.radius for ball in before)))
        return op.lipschitz * lengths(whole, 0)
    interval, *constants = (env[arg] for arg in node.args)
    if op.derivative is None or not isinstance(interval, Interval) or any(isinstance(one, Interval) for one in constants):
        return None
    with torch.set_grad_enabled(torch.is_grad_enabled() and not op.piecewise):  # slopes of pieces are constants
        slope = op.derivative(interval.hull(point(before[0].center)), *constants, **node.attrs)
        steepest = flat(torch.maximum(-slope.lower, slope.upper), 1).amax(1)
    return before[0].radius * steepest
