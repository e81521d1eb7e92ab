"""Transposed convolution: the adjoint of a convolution, as an operator of its own."""

from __future__ import annotations

from torch import Tensor

from boundlab.interval import Interval
from boundlab.maps import Conv, LinearMap, Shape, transposed
from boundlab.ops.conv import conv_bias
from boundlab.ops.linear import shared
from boundlab.ops.op import Argument, affine_op, register
from boundlab.ops.shape import shape_of


def conv_transpose_map(shape: Shape, weight: Tensor, stride: Shape, padding: Shape, dilation: Shape, output_padding: Shape,
                       groups: int) -> LinearMap:
    """The adjoint of the convolution from the result's shape to `shape` (channels, *space).

    `weight` is (in, out / groups, *kernel).
    """
    axes = zip(shape[1:], weight.shape[2:], stride, padding, dilation, output_padding, strict=True)
    space = tuple((size - 1) * jump - 2 * pad + step * (width - 1) + 1 + more for size, width, jump, pad, step, more in axes)
    whole = (weight.shape[1] * groups, *space)
    return transposed(Conv(whole, shape, weight, tuple(stride), tuple(padding), tuple(dilation), groups))


def conv_transpose_maps(x: Interval, weight: Argument, bias: Tensor | None = None, *, stride: Shape, padding: Shape,
                        dilation: Shape, output_padding: Shape, groups: int) -> tuple[LinearMap, ...]:
    """The transposed convolution itself."""
    kernel = shared(weight, "conv_transpose")
    return (conv_transpose_map(shape_of(x), kernel, stride, padding, dilation, output_padding, groups),)


def conv_transpose_values(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: Shape, padding: Shape,
                          dilation: Shape, output_padding: Shape, groups: int) -> Tensor:
    """The transposed convolution of values (b, in, *space)."""
    layer = conv_transpose_map(tuple(x.shape[1:]), weight[0], stride, padding, dilation, output_padding, groups)
    result = layer.apply(x)
    return result if bias is None else result + bias.reshape(1, -1, *[1] * (x.dim() - 2))


conv_transpose = register(affine_op("conv_transpose", conv_transpose_values, conv_transpose_maps, bias=conv_bias))
