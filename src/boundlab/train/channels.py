"""Mean, variance, scale and shift of channels as autograd functions that keep nothing but their input.

Values are (b, channels, *space). What is only needed for a sum is formed a few examples at a time, in memory that stays in the
cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

AT_ONCE = 2**18
"""Numbers in one piece."""


def axes_of(value: Tensor) -> list[int]:
    """All axes but that of the channels."""
    return [axis for axis in range(value.dim()) if axis != 1]


def wide(channels: Tensor, value: Tensor) -> Tensor:
    """One number a channel (channels,) beside a value."""
    return channels.reshape(1, -1, *[1] * (value.dim() - 2))


def sum_of_products(first: Tensor, second: Tensor) -> Tensor:
    """The sum of the products of every channel's numbers, (channels,)."""
    examples = max(1, AT_ONCE // max(1, first[:1].numel()))
    parts = zip(first.split(examples), second.split(examples), strict=True)
    return torch.stack([(one * other).sum(axes_of(first)) for one, other in parts]).sum(0)


def sum_of_squares(value: Tensor, middle: Tensor) -> Tensor:
    """The sum of every channel's squared distances from its number in `middle` (channels,)."""
    examples = max(1, AT_ONCE // max(1, value[:1].numel()))
    parts = [(part - wide(middle, value)).square_().sum(axes_of(value)) for part in value.split(examples)]
    return torch.stack(parts).sum(0)


class Moments(torch.autograd.Function):
    """Mean and variance of every channel over the batch and its cells, (channels,) each."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> tuple[Tensor, Tensor]:
        mean = value.mean(axes_of(value))
        variance = sum_of_squares(value, mean) * (len(mean) / value.numel())
        ctx.save_for_backward(value, mean)
        return mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, for_mean: Tensor, for_variance: Tensor) -> Tensor:
        value, mean = ctx.saved_tensors
        share = len(mean) / value.numel()
        slope = 2 * share * for_variance
        return torch.addcmul(wide(share * for_mean - slope * mean, value), value, wide(slope, value))


class ScaleAndShift(torch.autograd.Function):
    """value * scale + shift, with one number a channel each, (channels,)."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(value, scale)
        return torch.addcmul(wide(shift, value), value, wide(scale, value))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, scale = ctx.saved_tensors
        return given * wide(scale, value), sum_of_products(given, value), given.sum(axes_of(value))
