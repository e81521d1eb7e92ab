"""Normalisation of inputs as the first layer of a network, so that sets and radii are in the inputs' own units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from boundlab.errors import SpecError


class Normalise(nn.Module):
    """(x - mean) / deviation for each channel of x (b, channels, *space)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(deviation) or not all(0 < value < float("inf") for value in deviation):
            raise SpecError(f"normalisation takes a mean and a positive deviation for each channel, got {list(mean)} and "
                            f"{list(deviation)}.")
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("scale", 1 / torch.tensor(deviation).reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The normalised inputs."""
        return (x - self.mean) * self.scale


def behind_normalisation(net: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """The network behind the normalisation that a recipe has put in front of it, if its weights hold one; not yet filled."""
    own, names = net.state_dict(), ("0.mean", "0.scale")
    if any(name not in weights or name in own for name in names):
        return net
    channels = weights["0.mean"].numel()
    return nn.Sequential(Normalise([0.0] * channels, [1.0] * channels), net)
