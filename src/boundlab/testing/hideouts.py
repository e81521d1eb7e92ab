"""The networks in which `planted` hides counterexamples: random layers of several architectures, needles, and lossy sums."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from boundlab.testing.exact import Concat, Product, Sum

CLASSES = 3
LARGE = {torch.float32: 2.0**26, torch.float64: 2.0**55}
"""A number beside which anything below 1 is lost in the type."""


class Architecture(enum.Enum):
    """What a network is made of."""

    DENSE = "linear layers and ReLU"
    LEAKY = "linear layers and leaky ReLU"
    CONV = "convolutions and ReLU"
    POOLED = "a convolution, ReLU and max pooling"
    RESIDUAL = "linear layers with a skip connection"
    SIGMOID = "linear layers and sigmoid"
    TANH = "linear layers and tanh"
    PRODUCT = "a product of two layers"


def dense(size: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(nn.Linear(size, 8), activation(), nn.Linear(8, 6), activation())


def body(architecture: Architecture) -> tuple[tuple[int, ...], nn.Sequential, int]:
    """Input shape, the layers before the last one, and the length of the vector that they give."""
    match architecture:
        case Architecture.DENSE:
            return (4,), dense(4, nn.ReLU), 6
        case Architecture.LEAKY:
            return (3,), dense(3, lambda: nn.LeakyReLU(0.125)), 6
        case Architecture.CONV:
            layers = nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 2, stride=2), nn.ReLU(), nn.Flatten()
            return (1, 4, 4), nn.Sequential(*layers), 8
        case Architecture.POOLED:
            return (1, 5, 5), nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()), 12
        case Architecture.RESIDUAL:
            block = Sum(nn.Identity(), nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)))
            return (2,), nn.Sequential(nn.Linear(2, 6), nn.ReLU(), block), 6
        case Architecture.SIGMOID:
            return (3,), dense(3, nn.Sigmoid), 6
        case Architecture.TANH:
            return (2,), dense(2, nn.Tanh), 6
        case Architecture.PRODUCT:
            return (3,), nn.Sequential(nn.Linear(3, 6), nn.ReLU(), Product(nn.Linear(6, 4), nn.Linear(6, 4))), 4


class Needle(nn.Sequential):
    """max(0, 1 - sum of the distances along some directions), made of ReLUs: (b, *shape) to (b, 1)."""

    def __init__(self, size: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(size, 2 * size), nn.ReLU(), nn.Linear(2 * size, 1), nn.ReLU())

    @torch.no_grad()
    def aim(self, point: Tensor, directions: Tensor) -> None:
        """Let it be 1 at `point` (d,), and fall by the distance along each row of `directions` (m, d), m at most d."""
        sides, top = self[1], self[3]
        assert isinstance(sides, nn.Linear) and isinstance(top, nn.Linear)
        place, unused = directions @ point, 2 * (len(point) - len(directions))
        sides.weight.copy_(nn.functional.pad(torch.cat([directions, -directions]), (0, 0, 0, unused)))
        sides.bias.copy_(nn.functional.pad(torch.cat([-place, place]), (0, unused)))
        top.weight.fill_(-1.0)
        top.bias.fill_(1.0)


@dataclass(frozen=True)
class Hideout:
    """A network (b, *shape) to (b, classes), the layers of it that get random weights, the last of those, and the needle.

    The needle, if there is one, is the last number that the last layer reads.
    """

    module: nn.Sequential
    drawn: nn.Sequential
    last: nn.Linear
    shape: tuple[int, ...]
    needle: Needle | None = None


def plain(architecture: Architecture) -> Hideout:
    """A network of CLASSES outputs."""
    shape, layers, width = body(architecture)
    last = nn.Linear(width, CLASSES)
    module = nn.Sequential(*layers, last)
    return Hideout(module, module, last, shape)


def with_needle(architecture: Architecture) -> Hideout:
    """The same whose last layer also reads a needle."""
    shape, layers, width = body(architecture)
    needle, last = Needle(math.prod(shape)), nn.Linear(width + 1, CLASSES)
    module = nn.Sequential(Concat(layers, needle), last)
    return Hideout(module, module, last, shape, needle)


def lossy(architecture: Architecture, large: float) -> Hideout:
    """A network s with the outputs relu(s + large) - large and 0."""
    shape, layers, width = body(architecture)
    last, up, down = nn.Linear(width, 1), nn.Linear(1, 1), nn.Linear(1, 2)
    with torch.no_grad():
        for layer, weights, bias in ((up, [[1.0]], [large]), (down, [[1.0], [0.0]], [-large, 0.0])):
            layer.weight.copy_(torch.tensor(weights))
            layer.bias.copy_(torch.tensor(bias))
    drawn = nn.Sequential(*layers, last)
    return Hideout(nn.Sequential(*drawn, up, nn.ReLU(), down), drawn, last, shape)
