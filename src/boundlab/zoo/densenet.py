"""DenseNet of auto_LiRPA: blocks that append channels to what they read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from boundlab.zoo.layers import Conv, Shape, head, image
from boundlab.zoo.record import AUTO_LIRPA, CIFAR, CROPPED, ONLY_WIDE, Record

GROWTH = 32
"""Channels that a block appends."""
BLOCKS = (2, 4, 4)
"""Blocks of the three stages."""
NOTE = "blocks (2, 4, 4), growth 32, a hidden layer of 512 instead of pooling at the end, as in the published code"


class Appended(nn.Module):
    """A body's channels in front of the channels that it read."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) to (b, c + growth, h, w)."""
        return torch.cat([self.body(x), x], dim=1)


def normed(channels: int, conv: Conv) -> list[nn.Module]:
    """Batch norm, ReLU, convolution."""
    return [nn.BatchNorm2d(channels), nn.ReLU(), conv.layer(channels)]


def densenet(shape: Shape, classes: int) -> nn.Module:
    """Three stages of bottleneck blocks; between them 1x1 convolutions halve the channels and pooling the size."""
    channels, height, width = image(shape)
    layers: list[nn.Module] = [Conv(2 * GROWTH, 3).layer(channels)]
    channels = 2 * GROWTH
    for stage, count in enumerate(BLOCKS):
        if stage > 0:
            layers += [*normed(channels, Conv(channels // 2, 1, 1, 0)), nn.AvgPool2d(2)]
            channels //= 2
        for _ in range(count):
            body = (*normed(channels, Conv(4 * GROWTH, 1, 1, 0)), *normed(4 * GROWTH, Conv(GROWTH, 3)))
            layers.append(Appended(nn.Sequential(*body)))
            channels += GROWTH
    size = channels * (height // 4) * (width // 4)
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), *head(size, (512,), classes))


def records() -> Iterator[Record]:
    """All of this family."""
    yield Record("densenet-cifar", AUTO_LIRPA, CIFAR, 10, densenet, note=NOTE)
    tiny = Record("densenet-tiny", AUTO_LIRPA, CROPPED, 200, densenet, note=NOTE)
    yield from (tiny, replace(tiny, name="densenet-imagenet64", classes=1000, note=f"{NOTE}; {ONLY_WIDE}"))
