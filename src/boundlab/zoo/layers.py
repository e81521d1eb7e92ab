"""What several families are built from: convolutions that know their output size, and chains of layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

from boundlab.errors import ShapeError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Conv:
    """One convolution as tables of the papers give it: channels, square kernel, stride, zero padding."""

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 1

    def layer(self, channels: int, groups: int = 1) -> nn.Conv2d:
        """The layer for maps of `channels` channels; always with a bias."""
        return nn.Conv2d(channels, self.channels, self.kernel, self.stride, self.padding, groups=groups)

    def after(self, shape: Shape) -> Shape:
        """Shape of the map after it; ShapeError if the kernel is larger than the map."""
        space = tuple((size + 2 * self.padding - self.kernel) // self.stride + 1 for size in shape[1:])
        if min(space) < 1:
            raise ShapeError(f"a {self.kernel}x{self.kernel} convolution does not fit a map of shape {list(shape)}; give the "
                             "network a larger input.")
        return (self.channels, *space)


def image(shape: Shape) -> Shape:
    """The shape itself; ShapeError unless it is (channels, height, width)."""
    if len(shape) != 3:
        raise ShapeError(f"this network takes images (channels, height, width), got the shape {list(shape)}.")
    return shape


def activated(layer: nn.Module, activation: Callable[[], nn.Module] = nn.ReLU) -> list[nn.Module]:
    """A layer and its activation."""
    return [layer, activation()]


def head(size: int, hidden: Iterable[int], classes: int, activation: Callable[[], nn.Module] = nn.ReLU) -> list[nn.Module]:
    """Flatten, hidden linear layers with activations, and a last linear layer to the logits."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden:
        layers += activated(nn.Linear(size, width), activation)
        size = width
    return [*layers, nn.Linear(size, classes)]


def perceptron(shape: Shape, classes: int, hidden: Iterable[int],
               activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers on the flattened input."""
    return nn.Sequential(*head(math.prod(shape), hidden, classes, activation))


def convolutional(shape: Shape, classes: int, convolutions: Iterable[Conv], hidden: Iterable[int],
                  norm: bool = False) -> nn.Sequential:
    """Convolutions with ReLU (and with `norm` a batch norm before it), then linear layers with ReLU."""
    layers: list[nn.Module] = []
    shape = image(shape)
    for conv in convolutions:
        layers.append(conv.layer(shape[0]))
        layers += [nn.BatchNorm2d(conv.channels)] if norm else []
        layers.append(nn.ReLU())
        shape = conv.after(shape)
    return nn.Sequential(*layers, *head(math.prod(shape), hidden, classes))
