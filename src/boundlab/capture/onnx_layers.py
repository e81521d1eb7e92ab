"""ONNX layers: products with weights and convolutions."""

from __future__ import annotations

import math

import numpy as np

from boundlab.capture import resample
from boundlab.capture.onnx_lowering import OnnxLowering, OnnxNode, Shape, Value, lowers
from boundlab.capture.onnx_shape import padded
from boundlab.errors import CaptureError, UnsupportedOperator

# -- products ------------------------------------------------------------------------------------------------------------


@lowers("Gemm")
def gemm(low: OnnxLowering, node: OnnxNode) -> Value:
    """alpha A' B' + beta C, where ' transposes on demand; a constant B is a linear layer's weight."""
    settings = node.attributes
    a = turned(low, low.value(node, 0)) if settings.get("transA", 0) else low.value(node, 0)
    b, flip = low.value(node, 1), bool(settings.get("transB", 0))
    product_shape(a.shape, b.shape[::-1] if flip else b.shape)
    alpha, beta = settings.get("alpha", 1.0), settings.get("beta", 1.0)
    c = low.value(node, 2) if low.given(node, 2) is not None and beta != 0 else None
    if low.varies(b):
        product = scaled(low, matmul_values(low, a, turned(low, b) if flip else b), alpha)
        return product if c is None else low.elementwise("add", product, scaled(low, c, beta))
    weight = low.whole(b) if flip else low.whole(turned(low, b))
    out = low.builder.shape(weight)[0]
    inside = c is not None and not low.varies(c) and low.builder.shape(c.index) == (out,) and alpha == beta == 1
    bias = [c.index] if c is not None and inside else []
    product = low.close(low.builder.add("linear", a.index, weight, *bias), (a.shape[0], out))
    product = scaled(low, product, alpha)
    return product if c is None or inside else low.elementwise("add", product, scaled(low, c, beta))


def turned(low: OnnxLowering, x: Value) -> Value:
    """A matrix with its two axes exchanged."""
    return low.close(low.builder.add("permute", low.whole(x), dims=(1, 0)), x.shape[::-1])


def scaled(low: OnnxLowering, x: Value, factor: float) -> Value:
    """factor * x."""
    return x if factor == 1 else low.elementwise("mul", x, low.literal(factor))


@lowers("MatMul")
def matmul(low: OnnxLowering, node: OnnxNode) -> Value:
    """A product of matrices; with a constant matrix on the right, a linear layer."""
    a, b = low.value(node, 0), low.value(node, 1)
    shape = product_shape(a.shape, b.shape)
    if not low.varies(b) and len(b.shape) >= 2 and math.prod(b.shape[:-2]) == 1 and len(a.shape) >= 2:
        weight = low.builder.add("permute", low.reshaped(b.index, b.shape[-2:]), dims=(1, 0))
        return low.close(low.builder.add("linear", a.index, weight), shape)
    a = a if len(a.shape) > 1 else low.close(a.index, (1, *a.shape))
    b = b if len(b.shape) > 1 else low.close(b.index, (*b.shape, 1))
    return low.close(matmul_values(low, a, b).index, shape)


def product_shape(a: Shape, b: Shape) -> Shape:
    """Shape of numpy's a @ b, vectors included."""
    if not a or not b or a[-1] != b[max(len(b) - 2, 0)]:
        raise CaptureError(f"shapes {list(a)} and {list(b)} cannot be multiplied")
    lead = np.broadcast_shapes(a[:-2], b[:-2])
    return (*lead, *(a[-2:-1] if len(a) > 1 else ()), *(b[-1:] if len(b) > 1 else ()))


def matmul_values(low: OnnxLowering, a: Value, b: Value) -> Value:
    """a @ b for values of at least two axes, with the leading ones made equal."""
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    wanted = [(*lead, *value.shape[-2:]) for value in (a, b)]
    outer = 1 if len(lead) > 0 and lead[0] == 1 else 0
    parts = []
    for value, shape in zip((a, b), wanted, strict=True):
        own = (1,) * (len(shape) - len(value.shape)) + value.shape
        index = low.reshaped(low.whole(value), own[outer:])
        parts.append(low.builder.aligned(index, shape[outer:]))
    product = low.builder.add("matmul", *parts)
    return low.close(product, (*lead, a.shape[-2], b.shape[-1]))


# -- convolutions --------------------------------------------------------------------------------------------------------

def image(low: OnnxLowering, x: Value) -> int:
    """The node of an image (channels, *space); its ONNX batch axis must be 1."""
    if len(x.shape) < 3 or x.shape[0] != 1:
        raise UnsupportedOperator(f"its input has the shape {list(x.shape)}; one image (1, channels, *space) is expected")
    return x.index


def per_axis(node: OnnxNode, name: str, axes: int) -> Shape:
    """A list attribute with one number for each spatial axis, 1 by default."""
    return tuple(node.attributes.get(name) or (1,) * axes)


def pads(node: OnnxNode, space: Shape, kernel: Shape) -> list[tuple[int, int]]:
    """(before, after) for each spatial axis, from `pads` or `auto_pad`."""
    axes = len(kernel)
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode == "VALID":
        return [(0, 0)] * axes
    if mode in ("", "NOTSET"):
        flat = node.attributes.get("pads") or [0] * (2 * axes)
        return list(zip(flat[:axes], flat[axes:], strict=True))
    pairs = []
    strides, dilations = per_axis(node, "strides", axes), per_axis(node, "dilations", axes)
    for size, width, stride, step in zip(space, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + step * (width - 1) + 1 - size, 0)
        half = total // 2
        pairs.append((half, total - half) if mode == "SAME_UPPER" else (total - half, half))
    return pairs


@lowers("Conv")
def conv(low: OnnxLowering, node: OnnxNode) -> Value:
    """A convolution with strides, dilations, groups and any padding."""
    x, weight = low.value(node), low.whole(low.value(node, 1))
    kernel = low.builder.shape(weight)[2:]
    index, padding = resample.symmetric(low.builder, image(low, x), pads(node, x.shape[2:], kernel))
    parts = [index, weight, *([low.value(node, 2).index] if low.given(node, 2) is not None else [])]
    found = low.builder.add("conv", *parts, stride=per_axis(node, "strides", len(kernel)), padding=padding,
                            dilation=per_axis(node, "dilations", len(kernel)), groups=node.attributes.get("group", 1))
    return low.closed(found, 1)


@lowers("ConvTranspose")
def conv_transpose(low: OnnxLowering, node: OnnxNode) -> Value:
    """A transposed convolution, made without padding and then cut (or grown) to the size that the file asks for."""
    x, weight = low.value(node), low.whole(low.value(node, 1))
    kernel = low.builder.shape(weight)[2:]
    axes = len(kernel)
    strides, dilations = per_axis(node, "strides", axes), per_axis(node, "dilations", axes)
    extra = tuple(node.attributes.get("output_padding") or (0,) * axes)
    full = [(size - 1) * stride + step * (width - 1) + 1
            for size, stride, step, width in zip(x.shape[2:], strides, dilations, kernel, strict=True)]
    pairs = transposed_pads(node, x.shape[2:], strides, extra, full)
    found = low.builder.add("conv_transpose", image(low, x), weight, stride=strides, padding=(0,) * axes, dilation=dilations,
                            output_padding=(0,) * axes, groups=node.attributes.get("group", 1))
    cut = [(-before, more - after) for (before, after), more in zip(pairs, extra, strict=True)]
    result = padded(low, low.closed(found, 1), [(0, 0), (0, 0), *cut], "constant", 0.0)
    assert isinstance(result, Value)
    return result if low.given(node, 2) is None else low.elementwise("add", result, per_channel(low, low.value(node, 2), axes))


def transposed_pads(node: OnnxNode, space: Shape, strides: Shape, extra: Shape, full: list[int]) -> list[tuple[int, int]]:
    """What a transposed convolution cuts off at both ends of each axis, from `output_shape`, `auto_pad` or `pads`."""
    wanted = node.attributes.get("output_shape")
    mode = node.attributes.get("auto_pad", "NOTSET")
    if not wanted and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * stride for size, stride in zip(space, strides, strict=True)]
    if not wanted:
        return pads(node, space, (1,) * len(space))
    pairs = []
    for size, more, out in zip(full, extra, wanted[-len(full):], strict=True):
        total = size + more - out
        if total < 0:
            raise UnsupportedOperator(f"its output_shape {list(wanted)} is larger than what the kernel reaches")
        half = total // 2
        pairs.append((half, total - half) if mode == "SAME_UPPER" else (total - half, half))
    return pairs


def per_channel(low: OnnxLowering, x: Value, axes: int) -> Value:
    """One number a channel, as the value (channels, 1, ...) that broadcasts over images."""
    return low.close(x.index, (*x.shape, *[1] * axes))
