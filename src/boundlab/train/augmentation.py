"""Random changes of training images: mirrored, and shifted by cutting a padded image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad as padded

from boundlab.errors import ShapeError, SpecError


@dataclass(frozen=True)
class Augmentation:
    """Each image is mirrored or not, and shifted by up to `shift` pixels; what comes in is 0, or with `edge` the edge again."""

    mirror: bool = True
    shift: int = 4
    edge: bool = False

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise SpecError(f"images are shifted by up to so many pixels, at least 0, got {self.shift}.")

    def applied(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Changed images (b, channels, height, width); ShapeError for others.

        Random numbers come from a generator on the CPU.
        """
        if x.dim() != 4:
            raise ShapeError(f"augmentation is for images (batch, channels, height, width), got {list(x.shape)}.")
        flips = torch.rand(len(x), generator=generator) < (0.5 if self.mirror else 0.0)
        moves = torch.randint(2 * self.shift + 1, (2, len(x)), generator=generator).to(x.device)
        x = torch.where(flips.to(x.device)[:, None, None, None], x.flip(3), x)
        wide = padded(x, (self.shift,) * 4, mode="replicate" if self.edge else "constant")
        rows, columns = (moves[axis, :, None] + torch.arange(x.shape[2 + axis], device=x.device) for axis in (0, 1))
        examples = torch.arange(len(x), device=x.device)[:, None, None]
        return wide.permute(0, 2, 3, 1)[examples, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
