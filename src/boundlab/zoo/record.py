"""What the zoo knows of a network: where it was published, its usual shapes, and how it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

Shape = tuple[int, ...]
Factory = Callable[[Shape, int], nn.Module]

MNIST, CIFAR, TINY = (1, 28, 28), (3, 32, 32), (3, 64, 64)
CROPPED = (3, 56, 56)
"""Tiny-ImageNet and ImageNet-64 images as Xu et al. 2020 feed them: crops of the 64 x 64 images."""
PLACES = {"mnist": MNIST, "cifar": CIFAR}
AUTO_LIRPA = "Xu et al. 2020 (auto_LiRPA), Table 2 and App. C.1"
ONLY_WIDE = "the paper trains only its WideResNet on ImageNet-64; this is its network for Tiny-ImageNet with 1000 classes"


@dataclass(frozen=True)
class Record:
    """One network of the papers. `make(shape, classes)` builds it; `published` is the parameter count that the paper prints.

    `note` says what the paper leaves open or misprints, and what was done.
    """

    name: str
    source: str
    shape: Shape
    classes: int
    make: Factory
    published: int | None = None
    note: str = ""


def parameter_count(module: nn.Module) -> int:
    """Numbers that training changes: weights, biases, and scale and shift of batch norms."""
    return sum(parameter.numel() for parameter in module.parameters())
