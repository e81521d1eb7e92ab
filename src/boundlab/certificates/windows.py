"""Operators over windows of an image or signal: convolution and its transpose, average and largest value."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from boundlab.certificates.builder import Builder, Operator, Value, Varying, exact
from boundlab.certificates.convolution import Windows, convolved, transposed
from boundlab.certificates.joint import Largest
from boundlab.certificates.linear import Rule
from boundlab.certificates.network import matrix_of


def windows_of(operator: Operator, inputs: Sequence[int], kernel: Sequence[int]) -> Windows:
    """The windows that a node's attributes describe over an input."""
    take, axes = operator.attributes, len(inputs)
    strides, dilations = (tuple(take.get(name, [1] * axes)) for name in ("strides", "dilations"))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = list(take.get("pads", [0] * 2 * axes))
    mode = take.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        lacks = [max((math.ceil(size / s) - 1) * s + span - size, 0)
                 for size, s, span in zip(inputs, strides, spans, strict=True)]
        front = [lack // 2 if mode == "SAME_UPPER" else lack - lack // 2 for lack in lacks]
        pads = front + [lack - first for lack, first in zip(lacks, front, strict=True)]
    rounds_up = bool(take.get("ceil_mode", 0))
    outputs = []
    for axis, (size, s, span) in enumerate(zip(inputs, strides, spans, strict=True)):
        room = size + pads[axis] + pads[axes + axis] - span
        count = (-(-room // s) if rounds_up else room // s) + 1
        # A window that would begin in the padding after the end is left out.
        outputs.append(count - 1 if rounds_up and (count - 1) * s >= size + pads[axis] else count)
    if min(pads) < 0 or min(outputs) < 1:
        operator.refuse("with negative padding, or without any window")
    return Windows(tuple(inputs), tuple(outputs), tuple(kernel), strides, tuple(pads[:axes]), dilations)


def channel_bias(operator: Operator, channels: int, positions: int) -> np.ndarray:
    """The third input, repeated over positions; zeros without one."""
    bias = operator.constant(2)
    return np.zeros(channels * positions) if bias is None else np.repeat(exact(bias), positions)


def conv(builder: Builder, operator: Operator) -> Value:
    """Convolution by a constant weight, of one example."""
    value, weight = single(operator), exact(operator.needed(1))
    windows = windows_of(operator, value.shape[2:], weight.shape[2:])
    shape = (1, weight.shape[0], *windows.outputs)
    bias = channel_bias(operator, weight.shape[0], math.prod(windows.outputs))
    matrix = convolved(windows, weight, operator.attributes.get("group", 1))
    return builder.affine(operator.name, [(value, matrix)], bias, shape)


def conv_transpose(builder: Builder, operator: Operator) -> Value:
    """Transposed convolution: the transpose of the convolution from its output to its input."""
    value, weight, take = single(operator), exact(operator.needed(1)), operator.attributes
    axes, kernel = len(value.shape) - 2, weight.shape[2:]
    if take.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or "output_shape" in take:
        operator.refuse("with output_shape or auto_pad")
    strides, dilations, extra = (tuple(take.get(name, [start] * axes))
                                 for name, start in (("strides", 1), ("dilations", 1), ("output_padding", 0)))
    pads = take.get("pads", [0] * 2 * axes)
    outputs = tuple((size - 1) * s + (k - 1) * d + 1 + e - pads[axis] - pads[axes + axis] for axis, (size, s, k, d, e)
                    in enumerate(zip(value.shape[2:], strides, kernel, dilations, extra, strict=True)))
    groups = take.get("group", 1)
    windows = Windows(outputs, value.shape[2:], kernel, strides, tuple(pads[:axes]), dilations)
    matrix = transposed(windows, weight, groups)
    shape = (1, weight.shape[1] * groups, *outputs)
    bias = channel_bias(operator, shape[1], math.prod(outputs))
    return builder.affine(operator.name, [(value, matrix)], bias, shape)


def single(operator: Operator) -> Varying:
    """The image that windows lie over, of one example."""
    value = operator.varying(0)
    if len(value.shape) < 3 or value.shape[0] != 1:
        operator.refuse(f"of a tensor of shape {value.shape}")
    return value


def averaged(builder: Builder, operator: Operator) -> Value:
    """Means over windows; padding counts only if the node says so."""
    value, channels = single(operator), operator.varying(0).shape[1]
    windows = windows_of(operator, value.shape[2:], operator.attributes["kernel_shape"])
    sources, padded = windows.sources(), bool(operator.attributes.get("count_include_pad", 0))
    if padded and operator.attributes.get("ceil_mode", 0):
        operator.refuse("with ceil_mode and count_include_pad")
    counts = np.full(len(sources), sources.shape[1]) if padded else np.maximum((sources >= 0).sum(axis=1), 1)
    return means(builder, operator, sources, 1 / counts, (1, channels, *windows.outputs))


def averaged_whole(builder: Builder, operator: Operator) -> Value:
    """The mean of each channel."""
    value = single(operator)
    places = math.prod(value.shape[2:])
    shape = (*value.shape[:2], *(1,) * (len(value.shape) - 2))
    return means(builder, operator, np.arange(places)[None], np.array([1 / places]), shape)


def means(builder: Builder, operator: Operator, sources: np.ndarray, factor: np.ndarray, shape: tuple[int, ...]) -> Value:
    """Sums over windows times a factor (positions,), in each channel."""
    value = operator.varying(0)
    places, channels = math.prod(value.shape[2:]), value.shape[1]
    positions, taps = np.nonzero(sources >= 0)
    offsets = np.arange(channels)[:, None]
    rows, columns = offsets * len(sources) + positions, offsets * places + sources[positions, taps]
    data = np.broadcast_to(factor[positions], rows.shape)
    matrix = csr_array((data.reshape(-1).copy(), (rows.reshape(-1), columns.reshape(-1))),
                       shape=(channels * len(sources), channels * places))
    return builder.affine(operator.name, [(value, matrix_of(matrix, 1))], 0.0, shape)


def largest(builder: Builder, operator: Operator) -> Value:
    """The largest value of each window: one argument for each place of the kernel; in the padding another place is repeated."""
    value = single(operator)
    if len(operator.proto.output) > 1 or operator.attributes.get("storage_order", 0):
        operator.refuse("with indices")
    windows = windows_of(operator, value.shape[2:], operator.attributes["kernel_shape"])
    sources, places, channels = windows.sources(), math.prod(value.shape[2:]), value.shape[1]
    some = sources.max(axis=1, keepdims=True)
    if (some < 0).any():
        operator.refuse("with a window that lies in the padding")
    filled = np.where(sources < 0, some, sources)
    shape, arguments = (1, channels, *windows.outputs), []
    for tap in range(filled.shape[1]):
        columns = (np.arange(channels)[:, None] * places + filled[:, tap]).reshape(-1)
        matrix = csr_array((np.ones(len(columns)), columns, np.arange(len(columns) + 1)), shape=(len(columns), value.size))
        arguments.append(builder.affine(f"{operator.name}:{tap}", [(value, matrix_of(matrix))], 0.0, shape))
    if len(arguments) == 1:
        return arguments[0]
    return builder.nonlinear(operator.name, arguments, Largest(len(arguments)), shape)


WINDOWED: dict[str, Rule] = {
    "Conv": conv, "ConvTranspose": conv_transpose, "AveragePool": averaged, "GlobalAveragePool": averaged_whole,
    "MaxPool": largest,
}
