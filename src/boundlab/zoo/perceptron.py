"""Chains of linear layers: MLP-A, MLP-B and the deeper ones of Salman et al., and the classifiers m x [n] of FROWN."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from torch import nn

from boundlab.zoo.layers import Shape, perceptron
from boundlab.zoo.record import CIFAR, MNIST, Record

SALMAN = "Salman et al. 2019, Sec. 6 and Table 2"
FROWN = "Lyu et al. 2020 (FROWN), Table 3 and App. A.9"
LAYERS = "m counts the output layer; trained with batch norm, which is folded into the linear layers before bounds are computed"
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
DRIVE = (48,)
"""Features of UCI Sensorless Drive Diagnosis, which has 11 classes."""
SIZES: Mapping[str, Mapping[str, tuple[tuple[int, int], ...]]] = {
    "drive": {"relu": ((4, 20), (8, 20), (12, 20)), "sigmoid": ((4, 20), (8, 20), (12, 20)),
              "tanh": ((4, 20), (8, 20), (12, 20))},
    "mnist": {"relu": ((5, 20), (10, 20), (15, 20), (20, 20), (3, 100), (5, 100), (7, 100), (4, 1024)),
              "sigmoid": ((5, 20), (10, 20), (20, 20), (3, 100), (5, 100), (7, 100)),
              "tanh": ((5, 20), (10, 20), (20, 20), (3, 100))},
    "cifar": {"relu": ((4, 2048), (6, 2048), (8, 2048)), "sigmoid": ((4, 2048), (6, 2048), (8, 2048))},
}
"""m and n of the networks whose bounds are published, by data and activation."""
INPUTS = {"drive": (DRIVE, 11), "mnist": (MNIST, 10), "cifar": (CIFAR, 10)}


def uniform(shape: Shape, classes: int, layers: int, width: int, activation: str = "relu") -> nn.Module:
    """`layers` linear layers in all, `width` units in each but the last."""
    return perceptron(shape, classes, (width,) * (layers - 1), ACTIVATIONS[activation])


def salman() -> Iterator[Record]:
    """MLP-A (one hidden layer of 500), MLP-B (two of 100), and m hidden layers of n."""
    yield Record("mlp-a", SALMAN, MNIST, 10, partial(uniform, layers=2, width=500))
    yield Record("mlp-b", SALMAN, MNIST, 10, partial(uniform, layers=3, width=100),
                 note="the same as MLP-2-100 of the second experiment")
    for hidden, width in ((9, 100), (9, 500)):
        yield Record(f"mlp-{hidden}-{width}", SALMAN, MNIST, 10, partial(uniform, layers=hidden + 1, width=width))


def frown() -> Iterator[Record]:
    """The classifiers m x [n] with ReLU, sigmoid or tanh."""
    for data, kinds in SIZES.items():
        shape, classes = INPUTS[data]
        for activation, sizes in kinds.items():
            for layers, width in sizes:
                make = partial(uniform, layers=layers, width=width, activation=activation)
                yield Record(f"frown-{layers}x{width}-{activation}-{data}", FROWN, shape, classes, make, note=LAYERS)


def records() -> Iterator[Record]:
    """All of this family."""
    yield from salman()
    yield from frown()
    yield Record("flat-mlp-mnist", "Xu et al. 2020 (auto_LiRPA), Sec. 4", MNIST, 10, partial(uniform, layers=3, width=64))
