"""Families of sets by their radius: balls of a norm, altered pixels, or any function of a user's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from boundlab.errors import SpecError
from boundlab.maps import flat
from boundlab.perturbations.altered import L0Ball
from boundlab.perturbations.ball import LpBall
from boundlab.perturbations.sets import PerturbationSet, as_like

Ends = tuple[Tensor | float, Tensor | float]


@dataclass(frozen=True)
class Family:
    """A perturbation set for every radius: `sets(x, eps)` are the sets of radii `eps` (n,) > 0 around `x` (n, *shape).

    Sets of larger radii hold those of smaller ones. With `whole` radii are whole numbers, such as counts of pixels.
    `largest(x)` are the radii (n,) beyond which sets grow no more (None: they always do).
    """

    sets: Callable[[Tensor, Tensor], PerturbationSet]
    whole: bool = False
    largest: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.sets, type) or not callable(self.sets):
            raise SpecError(f"a family of sets is made of a function of x and eps that gives a perturbation set, got "
                            f"{self.sets!r:.60}.")


def balls(p: float = math.inf, clip: Ends | None = None, *, pixels: bool = False) -> Family:
    """The balls of norm `p`, within the box `clip` (low, high) if there is one; for p = 0 radii count altered coordinates.

    p is any real >= 1, inf or 0; p = 0 needs `clip`, which says what an altered coordinate may become, and with `pixels` it
    counts all channels of a pixel as one (see `L0Ball`). The numbers of `clip` are shared by all inputs, which must lie inside.
    SpecError for another p, or without the clip box that p = 0 needs.
    """
    if isinstance(p, str) or not (p >= 1 or p == 0):
        raise SpecError(f"balls need a norm of order p >= 1, inf or 0, got p = {p}.")
    if p == 0:
        return altered(clip, pixels)
    if pixels:
        raise SpecError(f"pixels are counted with p = 0, not with p = {p}.")
    if clip is None:
        return Family(lambda x, eps: LpBall(x, eps, p))

    def farthest(x: Tensor) -> Tensor:
        low, high = (as_like(end, x) for end in clip)
        if not bool(((x >= low) & (x <= high)).all()):
            raise SpecError("a radius within a clip box needs inputs inside the box, but some coordinates of x lie outside.")
        reach = torch.linalg.vector_norm(flat(torch.maximum(x - low, high - x), 1), p, dim=1)
        return reach * (1 + 8 * torch.finfo(x.dtype).eps)

    return Family(lambda x, eps: LpBall(x, eps, p, clip), largest=farthest)


def altered(clip: Ends | None, pixels: bool) -> Family:
    """Some coordinates or pixels altered to anything within `clip`; SpecError without it."""
    if clip is None:
        raise SpecError("p = 0 alters some coordinates to anything within `clip`; say which numbers, such as clip=(0, 1).")

    def sets(x: Tensor, eps: Tensor) -> L0Ball:
        return L0Ball(x, eps.long(), *clip, pixels)

    def cells(x: Tensor) -> Tensor:
        return x.new_full((len(x),), math.prod(x.shape[2 if pixels else 1:]))

    return Family(sets, whole=True, largest=cells)
