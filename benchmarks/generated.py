"""Networks of any depth and width, for scaling laws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.networks import SEED, Loaded

IMAGE, CLASSES, INPUTS = 16, 10, 64


@dataclass(frozen=True)
class Generated:
    """A random network: `depth` hidden layers of `width` neurons (mlp) or channels (cnn), and `rows` random output rows.

    Weights keep the size of activations from layer to layer (He et al. 2015), biases are 0; `eps` is the radius of the box.
    """

    family: str
    depth: int
    width: int
    rows: int
    eps: float

    @property
    def name(self) -> str:
        return f"{self.family} {self.depth}x{self.width}"

    def load(self) -> Loaded:
        torch.manual_seed(SEED)
        module, shape = (mlp, (INPUTS,)) if self.family == "mlp" else (cnn, (2, IMAGE, IMAGE))
        network = module(self.depth, self.width).eval()
        for layer in network:
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        x, rows = torch.rand(INPUTS, *shape), torch.randn(1, self.rows, CLASSES).expand(INPUTS, -1, -1)
        with torch.no_grad():
            return Loaded(network, x, network(x).argmax(1), rows, self.eps)


def mlp(depth: int, width: int) -> nn.Sequential:
    """Fully connected layers."""
    layers: list[nn.Module] = []
    for place in range(depth):
        layers += [nn.Linear(INPUTS if place == 0 else width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, CLASSES))


def cnn(depth: int, width: int) -> nn.Sequential:
    """Convolutions of 3x3, the first with stride 2, and a linear layer."""
    layers: list[nn.Module] = []
    for place in range(depth):
        first = place == 0
        layers += [nn.Conv2d(2 if first else width, width, 3, stride=2 if first else 1, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * (IMAGE // 2) ** 2, CLASSES))
