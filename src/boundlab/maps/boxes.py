"""Images of boxes under linear maps, as autograd functions that pass over memory as seldom as can be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

AT_ONCE = 2**20
"""Weights in one piece on a CPU (4 MB in single precision); other devices take all at once."""


class CenterAndRadius(torch.autograd.Function):
    """Midpoint and half the width of the boxes between two ends."""

    @staticmethod
    def forward(ctx: Any, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return (lower + upper).mul_(0.5), (upper - lower).mul_(0.5)

    @staticmethod
    def backward(ctx: Any, center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        return (center - radius).mul_(0.5), (center + radius).mul_(0.5)


class Ends(torch.autograd.Function):
    """center - radius and center + radius."""

    @staticmethod
    def forward(ctx: Any, center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        return center - radius, center + radius

    @staticmethod
    def backward(ctx: Any, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return lower + upper, upper - lower


class MatrixImage(torch.autograd.Function):
    """center @ weight' and radius @ |weight|' of vectors (m, in), each (m, out).

    Absolute values and signs of a large weight are formed a few rows at a time: written out, they would be four more tensors of
    its size.
    """

    @staticmethod
    def forward(ctx: Any, center: Tensor, radius: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(center, radius, weight)
        spread = radius.new_empty(len(radius), len(weight))
        for piece in pieces(weight):
            spread[:, piece] = radius @ weight[piece].abs().mT
        return center @ weight.mT, spread

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, for_center: Tensor, for_radius: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        center, radius, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        found = torch.zeros_like(radius) if wanted[1] else None
        total = torch.empty_like(weight) if wanted[2] else None
        for piece in pieces(weight):
            part, given = weight[piece], for_radius[:, piece]
            if found is not None:
                found.addmm_(given, part.abs())
            if total is not None:
                torch.mm(for_center[:, piece].mT, center, out=total[piece])
                total[piece].addcmul_(given.mT @ radius, part.sign())
        return for_center @ weight if wanted[0] else None, found, total


def pieces(weight: Tensor) -> Iterator[slice]:
    """Ranges of a weight's rows (out, in) that together hold about AT_ONCE numbers."""
    size = max(1, AT_ONCE // max(1, weight.shape[1])) if weight.device.type == "cpu" else max(1, len(weight))
    return (slice(start, start + size) for start in range(0, len(weight), size))
