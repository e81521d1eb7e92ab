"""Transposed convolution: the adjoint of a convolution, as an operator of its own."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from boundlab.interval import Interval
from boundlab.maps import Conv, LinearMap, Shape, transposed
from boundlab.ops.conv import conv_bias
from boundlab.ops.linear import shared
from boundlab.ops.op import Argument, affine_op, register
from boundlab.ops.shape import shape_of


def conv_transpose_map(shape: Shape, weight: Tensor, **attributes: Any) -> LinearMap:
    """The adjoint of the convolution from the result's shape to `shape` (channels, *space).

    `weight` is (in, out / groups, *kernel); attributes are stride, padding, dilation, output_padding and groups.
    """
    groups = attributes["groups"]
    stride, padding, dilation, more = (tuple(attributes[name]) for name in ("stride", "padding", "dilation", "output_padding"))
    axes = zip(shape[1:], weight.shape[2:], stride, padding, dilation, more, strict=True)
    space = tuple((size - 1) * jump - 2 * pad + step * (width - 1) + 1 + extra for size, width, jump, pad, step, extra in axes)
    return transposed(Conv((weight.shape[1] * groups, *space), shape, weight, stride, padding, dilation, groups))


def conv_transpose_maps(x: Interval, weight: Argument, bias: Tensor | None = None, **attributes: Any) -> tuple[LinearMap, ...]:
    """The transposed convolution itself."""
    return (conv_transpose_map(shape_of(x), shared(weight, "conv_transpose"), **attributes),)


def conv_transpose_values(x: Tensor, weight: Tensor, bias: Tensor | None = None, **attributes: Any) -> Tensor:
    """The transposed convolution of values (b, in, *space)."""
    result = conv_transpose_map(tuple(x.shape[1:]), weight[0], **attributes).apply(x)
    return result if bias is None else result + bias.reshape(1, -1, *[1] * (x.dim() - 2))


conv_transpose = register(affine_op("conv_transpose", conv_transpose_values, conv_transpose_maps, bias=conv_bias))
