"""ONNX normalisations, over a batch that is frozen, over axes, groups, neighbours and norms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from boundlab.capture import composed, functions, resample
from boundlab.capture.onnx_layers import image, per_channel
from boundlab.capture.onnx_lowering import OnnxLowering, OnnxNode, Value, lowers
from boundlab.errors import UnsupportedOperator

TINY = 1e-9
"""What MeanVarianceNormalization adds to a standard deviation."""


@lowers("BatchNormalization")
def batch_norm(low: OnnxLowering, node: OnnxNode) -> Value:
    """Frozen statistics: x * scale + shift, with both computed from the parameters in the graph."""
    if node.attributes.get("training_mode", 0):
        raise UnsupportedOperator("it is batch norm in training mode; export the network in evaluation mode")
    x, scale, shift, mean, variance = low.everything(node)
    inverse = low.elementwise("rsqrt", low.elementwise("add", variance, low.literal(node.attributes.get("epsilon", 1e-5))))
    scale = low.elementwise("mul", scale, inverse)
    shift = low.elementwise("sub", shift, low.elementwise("mul", mean, scale))
    axes = max(len(x.shape) - 2, 0)
    return low.elementwise("add", low.elementwise("mul", x, per_channel(low, scale, axes)), per_channel(low, shift, axes))


def normalised(low: OnnxLowering, x: Value, axes: Sequence[int], epsilon: float) -> Value:
    """(x - mean) / sqrt(variance + epsilon) over ONNX axes."""
    left_out = low.open(x, axes)[1]
    dims = tuple(axis - left_out for axis in axes)

    def mean(value: Value) -> Value:
        source, _ = low.open(value, axes)
        return low.closed(low.builder.add("mean", source, dims=dims, keepdim=True), left_out)

    centred = low.elementwise("sub", x, mean(x))
    variance = mean(low.elementwise("square", centred))
    return low.elementwise("mul", centred, low.elementwise("rsqrt", low.elementwise("add", variance, low.literal(epsilon))))


@lowers("LayerNormalization")
def layer_norm(low: OnnxLowering, node: OnnxNode) -> Value:
    """Normalised over all axes from `axis` on, then scaled and shifted."""
    x = low.value(node)
    first = low.axis(x, node.attributes.get("axis", -1))
    found = normalised(low, x, range(first, len(x.shape)), node.attributes.get("epsilon", 1e-5))
    found = low.elementwise("mul", found, low.value(node, 1))
    return found if low.given(node, 2) is None else low.elementwise("add", found, low.value(node, 2))


@lowers("InstanceNormalization")
def instance_norm(low: OnnxLowering, node: OnnxNode) -> Value:
    """Each channel normalised over its cells, then scaled and shifted."""
    x, scale, shift = low.everything(node)
    axes = len(x.shape) - 2
    found = normalised(low, x, range(2, len(x.shape)), node.attributes.get("epsilon", 1e-5))
    return low.elementwise("add", low.elementwise("mul", found, per_channel(low, scale, axes)), per_channel(low, shift, axes))


@lowers("RMSNormalization")
def rms_norm(low: OnnxLowering, node: OnnxNode) -> Value:
    """Divided by the root mean square over all axes from `axis` on, then scaled."""
    x = low.value(node)
    first = low.axis(x, node.attributes.get("axis", -1))
    index, left_out = low.open(x, range(first, len(x.shape)))
    dims = range(first - left_out, len(x.shape) - left_out)
    found = composed.normalised(low.builder, index, dims, float(node.attributes.get("epsilon", 1e-5)), centred=False)
    return low.elementwise("mul", low.closed(found, left_out), low.value(node, 1))


@lowers("GroupNormalization")
def group_norm(low: OnnxLowering, node: OnnxNode) -> Value:
    """Each group of channels normalised over its cells, then scaled and shifted for each channel (before opset 21, group)."""
    x, scale, shift = low.everything(node)
    groups, channels = int(node.attributes["num_groups"]), x.shape[1]
    blocks = low.close(x.index, (1, groups, math.prod(x.shape[1:]) // groups))
    found = low.close(normalised(low, blocks, [2], node.attributes.get("epsilon", 1e-5)).index, x.shape)
    parts = [part if part.shape[0] == channels else
             low.close(composed.repeated(low.builder, part.index, 0, channels), (channels,)) for part in (scale, shift)]
    axes = len(x.shape) - 2
    return low.elementwise("add", low.elementwise("mul", found, per_channel(low, parts[0], axes)),
                           per_channel(low, parts[1], axes))


@lowers("MeanVarianceNormalization")
def standardised(low: OnnxLowering, node: OnnxNode) -> Value:
    """(x - mean) / standard deviation over axes, with the tiny number that ONNX adds to the latter."""
    x = low.value(node)
    axes = [axis for axis in node.attributes.get("axes", [0, 2, 3]) if x.shape[axis] > 1 or axis > 0]
    index, left_out = low.open(x, axes)
    dims = tuple(axis - left_out for axis in axes if axis >= left_out)
    build = low.builder
    centred = build.broadcast("sub", index, build.add("mean", index, dims=dims, keepdim=True))
    variance = build.add("mean", build.add("square", centred), dims=dims, keepdim=True)
    spread = functions.plus(build, build.add("sqrt", functions.plus(build, variance, TINY)), TINY)
    return low.closed(build.broadcast("mul", centred, functions.inverse(build, spread)), left_out)


@lowers("LpNormalization")
def normed(low: OnnxLowering, node: OnnxNode) -> Value:
    """x divided by its 1- or 2-norm along an axis."""
    x, p = low.value(node), int(node.attributes.get("p", 2))
    axis = low.axis(x, node.attributes.get("axis", -1))
    index, left_out = low.open(x, [axis])
    build, dims = low.builder, (axis - left_out,)
    if p == 1:
        size = build.add("reciprocal", build.add("sum", build.add("abs", index), dims=dims, keepdim=True))
    else:
        size = build.add("rsqrt", build.add("sum", build.add("square", index), dims=dims, keepdim=True))
    return low.closed(build.broadcast("mul", index, size), left_out)


@lowers("LRN")
def local_norm(low: OnnxLowering, node: OnnxNode) -> Value:
    """x / (bias + alpha / size * sum of squares over neighbouring channels) ** beta."""
    x, size, settings = low.value(node), int(node.attributes["size"]), node.attributes
    index, build = image(low, x), low.builder
    channels = x.shape[1]
    place = np.arange(channels)
    gap = place[None] - place[:, None]
    near = (gap >= -((size - 1) // 2)) & (gap <= size - 1 - (size - 1) // 2)
    total = resample.along(build, build.add("square", index), 0, torch.from_numpy(near.astype(float)))
    wide = functions.plus(build, functions.times(build, total, settings.get("alpha", 1e-4) / size), settings.get("bias", 1.0))
    return low.closed(build.add("mul", index, functions.power(build, wide, -float(settings.get("beta", 0.75)))), 1)
