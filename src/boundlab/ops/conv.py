"""Convolutions and average pooling."""

from __future__ import annotations

from typing import Any

import torch
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


def conv_maps(x: Interval, weight: Argument, bias: Argument | None = None, **attributes: Any) -> tuple[LinearMap, ...]:
    """The convolution itself."""
    if bias is not None:
        shared(bias, "conv")
    return (conv_map(shape_of(x), shared(weight, "conv"), **attributes),)


def conv_bias(x: Interval, weight: Argument, bias: Tensor | None = None, **attributes: Any) -> Tensor | None:
    """One number a channel, (1, 1, out, 1, ...)."""
    return None if bias is None else bias.reshape(1, 1, -1, *[1] * (len(shape_of(x)) - 1))


def conv_values(x: Tensor, weight: Tensor, bias: Tensor | None = None, **attributes: Any) -> Tensor:
    """The convolution of constants; kernels (b, out, in, *kernel) may differ between problems."""
    if len(weight) == 1:
        result = conv_map(tuple(x.shape[1:]), weight[0], **attributes).apply(x)
    else:
        pairs = zip(x.expand(len(weight), *x.shape[1:]).split(1), weight.split(1), strict=True)
        result = torch.cat([conv_values(image, kernel, **attributes) for image, kernel in pairs])
    return result if bias is None else result + bias.reshape(len(bias), -1, *[1] * (x.dim() - 2))


conv = register(affine_op("conv", conv_values, conv_maps, bias=conv_bias))
