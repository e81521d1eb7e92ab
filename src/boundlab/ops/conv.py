"""Convolutions and average pooling."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from boundlab.interval import Interval
from boundlab.maps import Conv, LinearMap, Shape, conv_out_space
from boundlab.ops.linear import shared
from boundlab.ops.op import Argument, affine_op, register
from boundlab.ops.shape import shape_of


def conv_map(shape: Shape, weight: Tensor, stride: Shape, padding: Shape, dilation: Shape, groups: int) -> Conv:
    """The map of a convolution over inputs of `shape` (channels, *space)."""
    out = (weight.shape[0], *conv_out_space(shape[1:], tuple(weight.shape[2:]), stride, padding, dilation))
    return Conv(shape, out, weight, tuple(stride), tuple(padding), tuple(dilation), groups)


def conv_maps(x: Interval, weight: Argument, bias: Tensor | None = None, **attributes: Any) -> tuple[LinearMap, ...]:
    """The convolution itself."""
    return (conv_map(shape_of(x), shared(weight, "conv"), **attributes),)


def conv_bias(x: Interval, weight: Argument, bias: Tensor | None = None, **attributes: Any) -> Tensor | None:
    """One number a channel, (1, 1, out, 1, ...)."""
    return None if bias is None else bias.reshape(1, 1, -1, *[1] * (len(shape_of(x)) - 1))


def conv_values(x: Tensor, weight: Tensor, bias: Tensor | None = None, **attributes: Any) -> Tensor:
    """The convolution of constants."""
    result = conv_map(tuple(x.shape[1:]), weight[0], **attributes).apply(x)
    return result if bias is None else result + bias.reshape(1, -1, *[1] * (x.dim() - 2))


conv = register(affine_op("conv", conv_values, conv_maps, bias=conv_bias))
