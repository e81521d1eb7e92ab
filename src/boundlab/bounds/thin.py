"""Dead neurons leave the weights of linear layers: what is zero everywhere on the sets carries nothing.

Pays where many rows or columns pass a layer, since the thinner weight is a copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from boundlab.affine import Affine, LinearBound
from boundlab.bounds.backward import Env, Relaxer
from boundlab.graph import Node
from boundlab.interval import Interval
from boundlab.maps import LinearMap, Matrix

MOST_LIVE = 0.9
"""A layer is thinned if it can leave out a tenth of its inputs."""


def thinned(env: Env, relax: Relaxer) -> Relaxer:
    """The same relaxations, with matrices that read only inputs which some problem of the batch can move from zero."""
    made: dict[int, LinearBound] = {}

    def relax_thinly(node: Node) -> LinearBound:
        if node.index not in made:
            perturbed = [interval for arg in node.args if isinstance(interval := env[arg], Interval)]
            made[node.index] = thin_bound(relax(node), perturbed)
        return made[node.index]

    return relax_thinly


def thin_bound(bound: LinearBound, perturbed: list[Interval]) -> LinearBound:
    """An affine function without the inputs that are always zero; other relaxations as they are."""
    if not bound.exact:
        return bound
    maps = tuple(thin(layer, interval) for layer, interval in zip(bound.lower.maps, perturbed, strict=True))
    affine = Affine(maps, bound.lower.bias)
    return LinearBound(affine, affine)


def thin(layer: LinearMap, interval: Interval) -> LinearMap:
    """A matrix on vectors without its silent inputs, if these are many.

    Where gradients are wanted it stays whole: what is zero here and now (behind a layer of zeros, say) may still move.
    """
    learned = interval.lower.requires_grad or interval.upper.requires_grad
    if learned or not isinstance(layer, Matrix) or len(layer.in_shape) != 1:
        return layer
    live = moving(interval).nonzero().squeeze(1)
    return layer.reading(live) if 0 < len(live) < MOST_LIVE * layer.in_shape[0] else layer


def moving(interval: Interval) -> Tensor:
    """Which coordinates (k,) of a vector are not zero for all problems and everywhere on their sets."""
    return torch.logical_or(interval.lower != 0, interval.upper != 0).any(0)
