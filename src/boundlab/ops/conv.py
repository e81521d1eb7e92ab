"""Convolutions and average pooling."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from boundlab.maps import Conv, LinearMap, MatmulRight, OwnConv, Reshape, Shape, chain, conv_out_space
from boundlab.ops.bilinear import Product, layer_op
from boundlab.ops.op import register


def conv_map(shape: Shape, weight: Tensor, stride: Shape, padding: Shape, dilation: Shape, groups: int) -> LinearMap:
    """The map of a convolution over inputs of `shape` (channels, *space); weights (b, out, in / groups, *kernel)."""
    out = (weight.shape[1], *conv_out_space(shape[1:], tuple(weight.shape[3:]), stride, padding, dilation))
    how = (tuple(stride), tuple(padding), tuple(dilation), groups)
    return Conv(shape, out, weight.squeeze(0), *how) if len(weight) == 1 else OwnConv(shape, out, weight, *how)


def conv_values(x: Tensor, weight: Tensor, bias: Tensor | None = None, **attributes: Any) -> Tensor:
    """The convolution of constants; kernels (b, out, in / groups, *kernel) may differ between problems."""
    result = conv_map(tuple(x.shape[1:]), weight, **attributes).apply(x)
    return result if bias is None else result + bias.reshape(len(bias), -1, *[1] * (x.dim() - 2))


def windows_of(x: Tensor, kernel: Shape, stride: Shape, dilation: Shape) -> Tensor:
    """What a kernel sees at each of its places in x (b, channels, *space), (b, channels, *places, *kernel)."""
    for axis, (size, jump, step) in enumerate(zip(kernel, stride, dilation, strict=True)):
        x = x.unfold(axis + 2, step * (size - 1) + 1, jump)[..., ::step]
    return x


def cells_of(seen: Tensor, groups: int) -> Tensor:
    """The same as matrices that blocks of weights meet, (b, 1, groups, in / groups * kernel, places)."""
    axes = (seen.dim() - 2) // 2
    places, kernel = range(2, 2 + axes), range(2 + axes, 2 + 2 * axes)
    seen = seen.permute(0, 1, *kernel, *places).flatten(2 + axes)
    return seen.reshape(len(seen), 1, groups, -1, seen.shape[-1])


def conv_along_w(shape: Shape, x: Tensor, stride: Shape, padding: Shape, dilation: Shape, groups: int) -> LinearMap:
    """Each kernel (of `shape` (out, in / groups, *kernel)) meets what it sees of x at every place."""
    padded = F.pad(x, [margin for size in reversed(padding) for margin in (size, size)])
    seen = windows_of(padded, shape[2:], stride, dilation)
    cells = cells_of(seen, groups)
    out = (shape[0], *seen.shape[2:len(shape)])
    blocks = (groups, shape[0] // groups) if groups > 1 else shape[:1]
    cells = cells if groups > 1 else cells.squeeze(2)
    images = MatmulRight((*blocks, cells.shape[-2]), (*blocks, cells.shape[-1]), cells)
    return chain(Reshape(shape, images.in_shape), images, Reshape(images.out_shape, out))


def conv_product(**attributes: Any) -> Product:
    """A convolution without its bias."""
    return Product(partial(conv_values, **attributes), partial(conv_map, **attributes), partial(conv_along_w, **attributes))


conv = register(layer_op("conv", conv_values, conv_product, channel=0))
