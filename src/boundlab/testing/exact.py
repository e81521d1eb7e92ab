"""What a module computes in exact rational arithmetic, read off its layers and not off a captured graph.

Affine layers, ReLU, leaky ReLU, max pooling and products are exact. Sigmoid and tanh are rounded to DIGITS decimal digits,
which is far beyond any float.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn

from boundlab.errors import UnsupportedOperator

DIGITS = 60
"""Decimal digits of sigmoid and tanh."""
Exact = np.ndarray
"""An array of Fractions, without a batch."""


def exact_numbers(values: Tensor) -> Exact:
    """Floats as the rational numbers that they are, of the same shape."""
    flat = [Fraction(value) for value in values.detach().double().flatten().tolist()]
    return np.array([*flat, None], dtype=object)[:-1].reshape(tuple(values.shape))


def exact_linear(layer: nn.Linear, x: Exact) -> Exact:
    """W x + b for one vector."""
    y = exact_numbers(layer.weight) @ x
    return y if layer.bias is None else y + exact_numbers(layer.bias)


def windows(x: Exact, kernel: tuple[int, int], stride: tuple[int, int]) -> Exact:
    """The windows of an image (channels, height, width): (rows, columns, channels, *kernel)."""
    rows, columns = ((size - k) // s + 1 for size, k, s in zip(x.shape[1:], kernel, stride, strict=True))
    cut = [[x[:, i * stride[0]:i * stride[0] + kernel[0], j * stride[1]:j * stride[1] + kernel[1]] for j in range(columns)]
           for i in range(rows)]
    return np.array(cut, dtype=object)


def pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    """A size of both axes."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def exact_conv(layer: nn.Conv2d, x: Exact) -> Exact:
    """A convolution of one image, without dilation and groups."""
    if isinstance(layer.padding, str) or layer.groups != 1 or pair(layer.dilation) != (1, 1):
        raise UnsupportedOperator(f"{layer} has dilation, groups or padding by name, which exact arithmetic does not know.")
    around = [(0, 0), *((size, size) for size in pair(layer.padding))]
    cut = windows(np.pad(x, around, constant_values=0), pair(layer.kernel_size), pair(layer.stride))
    y = np.tensordot(exact_numbers(layer.weight), cut, ((1, 2, 3), (2, 3, 4)))
    return y if layer.bias is None else y + exact_numbers(layer.bias)[:, None, None]


def exact_max_pool(layer: nn.MaxPool2d, x: Exact) -> Exact:
    """The largest number of each window, without padding and dilation."""
    if pair(layer.padding) != (0, 0) or pair(layer.dilation) != (1, 1) or layer.ceil_mode:
        raise UnsupportedOperator(f"{layer} pads or dilates, which exact arithmetic does not know.")
    return np.moveaxis(windows(x, pair(layer.kernel_size), pair(layer.stride)).max((3, 4)), 2, 0)


def each(function: Callable[[Fraction], Fraction], x: Exact) -> Exact:
    """A function of every number."""
    return np.array([*map(function, x.reshape(-1)), None], dtype=object)[:-1].reshape(x.shape)


def logistic(number: Fraction) -> Fraction:
    """1 / (1 + exp(-x)) to DIGITS digits."""
    with localcontext() as context:
        context.prec = DIGITS
        return Fraction(1 / (1 + (-Decimal(number.numerator) / Decimal(number.denominator)).exp()))


def exact_output(module: nn.Module, x: Exact) -> Exact:
    """The module at one point: rational inputs and outputs, both without a batch.

    UnsupportedOperator for a layer that is not listed here; modules of one's own derive from `Combined`.
    """
    match module:
        case Combined():
            return module.combine_exact(*(exact_output(part, x) for part in module.parts()))
        case nn.Sequential():
            for layer in module:
                x = exact_output(layer, x)
            return x
        case nn.Linear():
            return exact_linear(module, x)
        case nn.Conv2d():
            return exact_conv(module, x)
        case nn.MaxPool2d():
            return exact_max_pool(module, x)
        case nn.ReLU():
            return each(lambda number: max(number, Fraction(0)), x)
        case nn.LeakyReLU():
            slope = Fraction(module.negative_slope)
            return each(lambda number: number if number > 0 else slope * number, x)
        case nn.Sigmoid():
            return each(logistic, x)
        case nn.Tanh():
            return each(lambda number: 2 * logistic(2 * number) - 1, x)
        case nn.Flatten():
            return x.reshape(math.prod(x.shape))
        case nn.Identity():
            return x
    raise UnsupportedOperator(f"exact arithmetic does not know the layer {type(module).__name__}; use layers that "
                              "boundlab.testing.exact lists.")


class Combined(nn.Module, ABC):
    """A module that combines the results of parts which all read its input."""

    @abstractmethod
    def parts(self) -> tuple[nn.Module, ...]:
        """The parts, in order."""

    @abstractmethod
    def combine(self, *values: Tensor) -> Tensor:
        """Their results (batch, ...) in one."""

    @abstractmethod
    def combine_exact(self, *values: Exact) -> Exact:
        """The same of exact results without a batch."""

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(*(part(x) for part in self.parts()))


class Sum(Combined):
    """f(x) + g(x)."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def parts(self) -> tuple[nn.Module, ...]:
        return self.first, self.second

    def combine(self, *values: Tensor) -> Tensor:
        return values[0] + values[1]

    def combine_exact(self, *values: Exact) -> Exact:
        return values[0] + values[1]


class Product(Sum):
    """f(x) * g(x)."""

    def combine(self, *values: Tensor) -> Tensor:
        return values[0] * values[1]

    def combine_exact(self, *values: Exact) -> Exact:
        return values[0] * values[1]


class Concat(Sum):
    """Vectors f(x) and g(x), end to end."""

    def combine(self, *values: Tensor) -> Tensor:
        return torch.cat(values, 1)

    def combine_exact(self, *values: Exact) -> Exact:
        return np.concatenate(values)
