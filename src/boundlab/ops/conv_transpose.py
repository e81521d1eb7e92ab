"""Transposed convolution: the adjoint of a convolution, as an operator of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from boundlab.maps import Conv, LinearMap, MatmulRight, OwnConv, Permute, Reshape, Shape, chain, transposed
from boundlab.ops.bilinear import Product, layer_op
from boundlab.ops.conv import cells_of, windows_of
from boundlab.ops.op import register


def conv_transpose_map(shape: Shape, weight: Tensor, **attributes: Any) -> LinearMap:
    """The adjoint of the convolution from the result's shape to `shape` (channels, *space).

    `weight` is (b, in, out / groups, *kernel); attributes are stride, padding, dilation, output_padding and groups.
    """
    groups = attributes["groups"]
    stride, padding, dilation, more = (tuple(attributes[name]) for name in ("stride", "padding", "dilation", "output_padding"))
    axes = zip(shape[1:], weight.shape[3:], stride, padding, dilation, more, strict=True)
    space = tuple((size - 1) * jump - 2 * pad + step * (width - 1) + 1 + extra for size, width, jump, pad, step, extra in axes)
    whole, how = (weight.shape[2] * groups, *space), (stride, padding, dilation)
    if len(weight) > 1:
        return transposed(OwnConv(whole, shape, weight, *how, groups))
    return transposed(Conv(whole, shape, weight[0], *how, groups))


def conv_transpose_values(x: Tensor, weight: Tensor, bias: Tensor | None = None, **attributes: Any) -> Tensor:
    """The transposed convolution of constants; kernels (b, in, out / groups, *kernel) may differ between problems."""
    result = conv_transpose_map(tuple(x.shape[1:]), weight, **attributes).apply(x)
    return result if bias is None else result + bias.reshape(len(bias), -1, *[1] * (x.dim() - 2))


def conv_transpose_along_w(shape: Shape, x: Tensor, **attributes: Any) -> LinearMap:
    """A transposed convolution is a convolution by the mirrored kernel of x with gaps between its cells."""
    groups, kernel, axes = attributes["groups"], shape[2:], len(shape) - 2
    stride, padding, dilation, more = (tuple(attributes[name]) for name in ("stride", "padding", "dilation", "output_padding"))
    spaced = x.new_zeros(*x.shape[:2], *((size - 1) * jump + 1 for size, jump in zip(x.shape[2:], stride, strict=True)))
    spaced[(slice(None), slice(None), *(slice(None, None, jump) for jump in stride))] = x
    margins = [step * (size - 1) - pad for step, size, pad in zip(dilation, kernel, padding, strict=True)]
    pairs = [(margin, margin + extra) for margin, extra in zip(margins, more, strict=True)]
    padded = F.pad(spaced, [margin for pair in reversed(pairs) for margin in pair])
    seen = windows_of(padded, kernel, (1,) * axes, dilation).flip(tuple(range(-axes, 0)))
    cells = cells_of(seen, groups)
    inner, outer, area = shape[0] // groups, shape[1], cells.shape[-2] * groups // shape[0]
    images = MatmulRight((groups, outer, inner * area), (groups, outer, cells.shape[-1]), cells)
    return chain(Reshape(shape, (groups, inner, outer, area)),
                 Permute((groups, inner, outer, area), (groups, outer, inner, area), (0, 2, 1, 3)),
                 Reshape((groups, outer, inner, area), images.in_shape), images,
                 Reshape(images.out_shape, (outer * groups, *seen.shape[2:2 + axes])))


def conv_transpose_product(**attributes: Any) -> Product:
    """A transposed convolution without its bias."""
    return Product(partial(conv_transpose_values, **attributes), partial(conv_transpose_map, **attributes),
                   partial(conv_transpose_along_w, **attributes))


conv_transpose = register(layer_op("conv_transpose", conv_transpose_values, conv_transpose_product, channel=0))
