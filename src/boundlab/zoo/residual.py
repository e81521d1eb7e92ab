"""Networks with shortcuts: the wide residual network of Wong et al., and WideResNet and ResNeXt of auto_LiRPA."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from boundlab.zoo.layers import Conv, Shape, activated, head, image
from boundlab.zoo.record import AUTO_LIRPA, CIFAR, CROPPED, ONLY_WIDE, Record


class Residual(nn.Module):
    """A body plus a shortcut, and `after` on their sum."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.after = body, shortcut, after

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) to (b, c', h', w')."""
        summed: Tensor = self.after(self.body(x) + self.shortcut(x))
        return summed


def skip(before: int, after: int, stride: int) -> nn.Module:
    """Nothing where the shape stays, else a 1x1 convolution."""
    return nn.Identity() if before == after and stride == 1 else Conv(after, 1, stride, 0).layer(before)


# -- Wong et al. 2018 ----------------------------------------------------------------------------------------------------


def wong_block(before: int, after: int, stride: int) -> nn.Module:
    """Two convolutions, ReLU between and after the sum; the first and the shortcut grow with the stride (4x4 and 2x2)."""
    first = Conv(after, 3 if stride == 1 else 4, stride)
    body = nn.Sequential(*activated(first.layer(before)), Conv(after, 3).layer(after))
    return Residual(body, Conv(after, stride, stride, 0).layer(before), nn.ReLU())


def wong(shape: Shape, classes: int) -> nn.Module:
    """Sixteen channels, two blocks; a block to 32 and one to 64 channels at half the size; one hidden layer of 1000."""
    channels, height, width = image(shape)
    blocks = (wong_block(16, 16, 1), wong_block(16, 16, 1), wong_block(16, 32, 2), wong_block(32, 64, 2))
    size = 64 * (height // 4) * (width // 4)
    return nn.Sequential(*activated(Conv(16, 3).layer(channels)), *blocks, *head(size, (1000,), classes))


# -- WideResNet ----------------------------------------------------------------------------------------------------------


def wide_block(before: int, after: int, stride: int, second_norm: bool) -> nn.Module:
    """Batch norm, ReLU and convolution, twice (the second batch norm only if asked); the stride is the second's."""
    middle = [nn.BatchNorm2d(after)] if second_norm else []
    body = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU(), Conv(after, 3).layer(before), *middle, nn.ReLU(),
                         Conv(after, 3, stride).layer(after))
    return Residual(body, skip(before, after, stride), nn.Identity())


def wide(shape: Shape, classes: int, widths: tuple[int, int, int], pooled: bool) -> nn.Module:
    """WRN-10: sixteen channels and three blocks.

    `pooled` (Tiny-ImageNet): two batch norms a block and one at the end, average pooling over 7 x 7, one linear layer.
    Else (CIFAR-10): one batch norm a block, no pooling, and a hidden layer of 512.
    """
    channels, height, width = image(shape)
    layers: list[nn.Module] = [Conv(16, 3).layer(channels)]
    before = 16
    for after, stride in zip(widths, (1, 2, 2), strict=True):
        layers.append(wide_block(before, after, stride, second_norm=pooled))
        before = after
    space = (math.ceil(height / 4), math.ceil(width / 4))
    if pooled:
        layers += [nn.BatchNorm2d(before), nn.ReLU(), nn.AvgPool2d(7)]
        return nn.Sequential(*layers, *head(before * (space[0] // 7) * (space[1] // 7), (), classes))
    return nn.Sequential(*layers, nn.ReLU(), *head(before * math.prod(space), (512,), classes))


# -- ResNeXt -------------------------------------------------------------------------------------------------------------


def next_block(before: int, width: int, stride: int) -> nn.Module:
    """1x1 with batch norm, 3x3 in two groups, 1x1 to twice the width; ReLU between and after the sum."""
    body = nn.Sequential(
        Conv(width, 1, 1, 0).layer(before), nn.BatchNorm2d(width), nn.ReLU(),
        *activated(Conv(width, 3, stride).layer(width, groups=2)), Conv(2 * width, 1, 1, 0).layer(width))
    return Residual(body, skip(before, 2 * width, stride), nn.ReLU())


def resnext(shape: Shape, classes: int, width: int, depth: int) -> nn.Module:
    """Sixteen channels, three stages of `depth` blocks in two groups, the width doubled from stage to stage; hidden 512."""
    channels, height, breadth = image(shape)
    layers, before = activated(Conv(16, 3).layer(channels)), 16
    for stage, stride in enumerate((1, 2, 2)):
        for place in range(depth):
            layers.append(next_block(before, width * 2**stage, stride if place == 0 else 1))
            before = width * 2 ** (stage + 1)
    size = before * math.ceil(height / 4) * math.ceil(breadth / 4)
    return nn.Sequential(*layers, *head(size, (512,), classes))


def records() -> Iterator[Record]:
    """All of this family."""
    yield Record("wrn-cifar", "Lee et al. 2020 (BCP), Table 2, after Wong et al. 2018", CIFAR, 10, wong, 4_214_850,
                 "the depth (one block a stage, two in the first) and factor 1 follow from the printed count")
    base = Record(
        "wideresnet-cifar", AUTO_LIRPA, CIFAR, 10, partial(wide, widths=(128, 256, 512), pooled=False),
        note="WRN-10-4 as in the published code, whose stages are twice as wide as the name says; its dropout is left out")
    tiny = Record(
        "wideresnet-tiny", AUTO_LIRPA, CROPPED, 200, partial(wide, widths=(160, 320, 640), pooled=True), note="WRN-10-10")
    yield from (base, tiny, replace(tiny, name="wideresnet-imagenet64", classes=1000))
    yield Record("resnext-cifar", AUTO_LIRPA, CIFAR, 10, partial(resnext, width=64, depth=1),
                 note="two groups of 32 channels at first, one block a stage, batch norm once each, as in the published code")
    small = Record("resnext-tiny", AUTO_LIRPA, CROPPED, 200, partial(resnext, width=16, depth=2),
                   note="two groups of 8 channels at first, two blocks a stage, as in the published code")
    yield from (small, replace(small, name="resnext-imagenet64", classes=1000, note=f"{small.note}; {ONLY_WIDE}"))
