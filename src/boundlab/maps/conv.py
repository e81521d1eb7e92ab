"""Convolutions of one, two or three axes, as maps that keep the kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

from boundlab.maps.base import LinearMap, Shape, at_owner, channels_last
from boundlab.maps.boxes import CenterAndRadius

MANY = 32
"""From this many images on, convolutions run on memory in which channels are innermost (measured: 1.6 to 3 times faster)."""
FORWARD = (F.conv1d, F.conv2d, F.conv3d)
WEIGHT_GRADIENT = (conv1d_weight, conv2d_weight, conv3d_weight)
BACKWARD = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
FEW_CHANNELS = 4
"""Strided convolutions with at most so many input channels are pulled through by phase."""


@dataclass(frozen=True)
class Conv(LinearMap):
    """Convolution of maps (channels, *space) with `weight` (out, in / groups, *kernel); stride and so on one for each axis."""

    weight: Tensor
    stride: Shape
    padding: Shape
    dilation: Shape
    groups: int

    def push(self, columns: Tensor) -> Tensor:
        convolve = FORWARD[len(self.stride) - 1]
        images = many_last(columns.flatten(0, 1))
        result = convolve(images, self.weight, None, self.stride, self.padding, self.dilation, self.groups)
        for axis, size in enumerate(self.out_shape[1:], 2):  # a transposed one may leave over more cells than a stride
            result = result.narrow(axis, 0, size)
        return result.reshape(*columns.shape[:2], *self.out_shape)

    def image(self, lower: Tensor, upper: Tensor, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        given = [tensor for tensor in (lower, upper, offset, self.weight) if tensor is not None]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
            return super().image(lower, upper, offset)
        center, radius = CenterAndRadius.apply(lower, upper)
        center, radius = self.apply(center), self.abs().apply(radius)  # new memory, in which the ends may be written
        if offset is not None:
            center = center.add_(offset) if len(offset) in (1, len(center)) else center + offset
        return center - radius, center.add_(radius)

    def pull(self, rows: Tensor) -> Tensor:
        images = self.pull_images(rows.flatten(0, 1), self.padding, self.output_padding())
        return images.reshape(*rows.shape[:2], *self.in_shape)

    def pull_images(self, images: Tensor, padding: Shape, output_padding: Shape) -> Tensor:
        """The transposed convolution of images (m, out channels, *space), with the padding that the caller wants."""
        strided = len(self.stride) == 2 and max(self.stride) > 1
        if strided and self.groups == 1 and set(self.dilation) == {1} and self.weight.shape[1] <= FEW_CHANNELS:
            return self.pull_by_phase(images, padding, output_padding)
        convolve = BACKWARD[len(self.stride) - 1]
        return convolve(many_last(images), self.weight, None, self.stride, padding, output_padding, self.groups, self.dilation)

    def pull_by_phase(self, images: Tensor, padding: Shape, output_padding: Shape) -> Tensor:
        """The same without a stride: one convolution gives all cells between two strides as channels, which then are laid out.

        Transposed convolutions to few channels leave the processor idle; this one has stride^2 times as many
        (Shi et al. 2016, sub-pixel convolution).
        """
        axes = zip(images.shape[2:], self.weight.shape[2:], self.stride, padding, output_padding, strict=True)
        (height, up, rows), (width, left, columns) = (phases(*axis, device=images.device) for axis in axes)
        weight = F.pad(self.weight, (0, 1, 0, 1))[:, :, rows][..., columns]
        weight = weight.permute(2, 4, 1, 0, 3, 5).flatten(0, 2)
        down, across = -(-height // len(rows)), -(-width // len(columns))
        margins = (left, across - 1 + columns.shape[1] - left - images.shape[3],
                   up, down - 1 + rows.shape[1] - up - images.shape[2])
        cells = F.conv2d(F.pad(images, margins), weight).unflatten(1, (len(rows), len(columns), -1))
        laid = cells.permute(0, 4, 1, 5, 2, 3).flatten(3, 4).flatten(1, 2)  # channels stay innermost
        return laid[:, :height, :width].permute(0, 3, 1, 2)

    def weight_gradient(self, columns: Tensor, rows: Tensor) -> Tensor:
        """The gradient in the weight of <push(columns), rows>, for columns and rows (b, d, *shape)."""
        derive = WEIGHT_GRADIENT[len(self.stride) - 1]
        images, outputs = channels_last(columns.flatten(0, 1)), channels_last(rows.flatten(0, 1))
        shape = tuple(self.weight.shape)
        return derive(images, shape, outputs, self.stride, self.padding, self.dilation, self.groups)

    def output_padding(self) -> Shape:
        """What conv_transpose must append so that a pull ends at `in_shape` (input cells that the stride leaves over)."""
        covered = conv_in_space(self.out_shape[1:], tuple(self.weight.shape[2:]), self.stride, self.padding, self.dilation)
        return tuple(size - least for size, least in zip(self.in_shape[1:], covered, strict=True))

    def abs(self) -> LinearMap:
        return Conv(self.in_shape, self.out_shape, self.weight.abs(), self.stride, self.padding, self.dilation, self.groups)


def many_last(images: Tensor) -> Tensor:
    """Images (m, channels, *space) in the order in memory that suits their number."""
    return images if images.dim() != 4 or len(images) < MANY else channels_last(images)


@dataclass(frozen=True)
class OwnConv(LinearMap):
    """A convolution with kernels of its own for every problem: `weight` (b, out, in / groups, *kernel).

    The problems stand side by side as groups of channels of one convolution.
    """

    weight: Tensor
    stride: Shape
    padding: Shape
    dilation: Shape
    groups: int

    def beside(self) -> Conv:
        """One convolution of all problems' channels."""
        def wide(shape: Shape) -> Shape:
            return (len(self.weight) * shape[0], *shape[1:])
        return Conv(wide(self.in_shape), wide(self.out_shape), self.weight.flatten(0, 1), self.stride, self.padding,
                    self.dilation, len(self.weight) * self.groups)

    def push(self, columns: Tensor) -> Tensor:
        return self.across(columns, self.beside().push, self.out_shape)

    def pull(self, rows: Tensor) -> Tensor:
        return self.across(rows, self.beside().pull, self.in_shape)

    def across(self, parts: Tensor, function: Callable[[Tensor], Tensor], shape: Shape) -> Tensor:
        """A function of (1, d, b * channels, *space) applied to `parts` (b, d, channels, *space)."""
        wide = parts.expand(len(self.weight), *parts.shape[1:]).transpose(0, 1).flatten(1, 2)
        result = function(wide.unsqueeze(0)).squeeze(0)
        return result.reshape(len(wide), len(self.weight), *shape).transpose(0, 1)

    def abs(self) -> LinearMap:
        return replace(self, weight=self.weight.abs())

    def at(self, owner: Tensor | None) -> LinearMap:
        return replace(self, weight=at_owner(self.weight, owner))


def phases(size: int, kernel: int, stride: int, padding: int, more: int, device: torch.device) -> tuple[int, int, Tensor]:
    """Along one axis of a transposed convolution of `size` cells: the cells it gives, the lead of its first tap, and the taps.

    Output stride * q + r gets input q + j through kernel index r + padding - stride * j: `taps` (stride, number of j) holds
    these, with one past the kernel where there is none; j begins at minus the lead.
    """
    length = (size - 1) * stride + kernel - 2 * padding + more
    first, last = -((kernel - 1 - padding) // stride), (stride - 1 + padding) // stride
    j = torch.arange(first, last + 1, device=device)
    index = torch.arange(stride, device=device)[:, None] + padding - stride * j
    return length, -first, torch.where((index >= 0) & (index < kernel), index, kernel)


def conv_out_space(space: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape:
    """Spatial shape after a convolution; the usual formula for every axis."""
    axes = zip(space, kernel, stride, padding, dilation, strict=True)
    return tuple((size + 2 * pad - step * (width - 1) - 1) // jump + 1 for size, width, jump, pad, step in axes)


def conv_in_space(space: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape:
    """The smallest spatial shape that a convolution turns into `space`."""
    axes = zip(space, kernel, stride, padding, dilation, strict=True)
    return tuple((size - 1) * jump + step * (width - 1) + 1 - 2 * pad for size, width, jump, pad, step in axes)
