"""Convolutions as coefficients of an affine step: where windows lie, a sparse matrix of them, and one that keeps the kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from boundlab.certificates.network import Linear, Part, matrix_of
from boundlab.certificates.rounding import gamma

MOST_ENTRIES = 2**15
"""Coefficients up to which a convolution is written out as a sparse matrix."""


@dataclass(frozen=True)
class Windows:
    """Where windows lie along each axis: sizes of input and output, and how windows are placed."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

    def sources(self) -> np.ndarray:
        """Flat input place for each output place and kernel place, (outputs, kernel); -1 in the padding."""
        place: np.ndarray = np.zeros((1, 1), dtype=np.int64)
        inside: np.ndarray = np.ones((1, 1), dtype=bool)
        for axis, size in enumerate(self.inputs):
            starts = np.arange(self.outputs[axis]) * self.strides[axis] - self.pads[axis]
            here = starts[:, None] + np.arange(self.kernel[axis]) * self.dilations[axis]
            good = (here >= 0) & (here < size)
            place = place[:, None, :, None] * size + np.where(good, here, 0)[None, :, None, :]
            inside = inside[:, None, :, None] & good[None, :, None, :]
            rows, columns = place.shape[0] * place.shape[1], place.shape[2] * place.shape[3]
            place, inside = place.reshape(rows, columns), inside.reshape(rows, columns)
        return np.where(inside, place, -1)


def convolution(sources: np.ndarray, weight: np.ndarray, groups: int, places: int) -> csr_array:
    """The matrix (out channels * positions, in channels * places) of a weight (out, in / groups, kernel...)."""
    out, inner = weight.shape[:2]
    flat = weight.reshape(out, inner, -1)
    positions, taps = np.nonzero(sources >= 0)
    found = sources[positions, taps]
    group = np.arange(out) // (out // groups)
    channels = group[:, None] * inner + np.arange(inner)
    data = flat[:, :, taps]
    rows = np.broadcast_to((np.arange(out) * len(sources))[:, None, None] + positions, data.shape)
    columns = channels[:, :, None] * places + found
    matrix = csr_array((data.reshape(-1), (rows.reshape(-1), columns.reshape(-1))),
                       shape=(out * len(sources), inner * groups * places))
    matrix.eliminate_zeros()
    return matrix


def convolved(windows: Windows, weight: np.ndarray, groups: int) -> Linear:
    """The coefficients of a convolution by a weight (out, in / groups, *kernel)."""
    if kept(windows, weight, groups):
        return Convolution(windows, weight)
    return matrix_of(convolution(windows.sources(), weight, groups, math.prod(windows.inputs)))


def transposed(windows: Windows, weight: np.ndarray, groups: int) -> Linear:
    """The coefficients of the transpose of a convolution."""
    if kept(windows, weight, groups):
        return Transposed(Convolution(windows, weight))
    return matrix_of(csr_array(convolution(windows.sources(), weight, groups, math.prod(windows.inputs)).T))


def kept(windows: Windows, weight: np.ndarray, groups: int) -> bool:
    """Whether a convolution is one of images, and too large to be written out."""
    return len(windows.kernel) == 2 and groups == 1 and weight.size * math.prod(windows.outputs) > MOST_ENTRIES


@dataclass(frozen=True)
class Convolution:
    """A convolution of images by a weight (out, in, height, width) that is written out nowhere.

    Rows that read a part of the image stay on the smallest box around it, whose sums are those of a product of small matrices
    for each place of the kernel. Zeros add no rounding, so these sums are those of the coefficients in some order.
    """

    windows: Windows
    weight: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Entries of the results and of the argument."""
        return self.weight.shape[0] * math.prod(self.windows.outputs), self.weight.shape[1] * math.prod(self.windows.inputs)

    @property
    def terms(self) -> int:
        """The most coefficients of a row."""
        return self.weight[0].size

    @property
    def error(self) -> float:
        """What a sum of products along either axis is wrong by, relative to the sum of absolute products."""
        return gamma(max(self.weight[0].size, self.weight[:, 0].size))

    @cached_property
    def taps(self) -> list[tuple[tuple[int, int], np.ndarray]]:
        """Where each place of the kernel lies in a window, and its matrix (out, in), whose entries lie side by side."""
        down, across = self.windows.dilations
        return [((y * down, x * across), np.ascontiguousarray(self.weight[:, :, y, x]))
                for y in range(self.weight.shape[2]) for x in range(self.weight.shape[3])]

    @cached_property
    def sizes(self) -> Convolution:
        """The same by the weight's absolute values."""
        return Convolution(self.windows, np.abs(self.weight))

    @property
    def copies(self) -> np.ndarray | None:
        """It computes sums."""
        return None

    def times(self, values: np.ndarray) -> np.ndarray:
        """The matrix times values (in, f)."""
        (height, width), (up, left), frames = self.windows.inputs, self.windows.pads, values.shape[1]
        (down, across), (sy, sx) = self.windows.outputs, self.windows.strides
        low, right = (max(reach - size - pad, 0) for reach, size, pad in
                      zip(self.spans(down, across), (height, width), (up, left), strict=True))
        images = np.pad(values.reshape(-1, height, width, frames), ((0, 0), (up, low), (left, right), (0, 0)))
        found = np.zeros((len(self.weight), down * across * frames))
        for (y, x), tap in self.taps:
            read = images[:, y:y + (down - 1) * sy + 1:sy, x:x + (across - 1) * sx + 1:sx]
            found += tap @ read.reshape(len(images), -1)
        return found.reshape(-1, frames)

    def times_absolute(self, values: np.ndarray) -> np.ndarray:
        """The absolute values of the matrix times values (in, f)."""
        return self.sizes.times(values)

    def spans(self, down: int, across: int) -> tuple[int, int]:
        """How many places of the argument so many windows in a row cover, from one above the other and side by side."""
        high, wide = ((size - 1) * step + (kernel - 1) * apart + 1 for size, step, kernel, apart in zip(
            (down, across), self.windows.strides, self.windows.kernel, self.windows.dilations, strict=True))
        return high, wide

    def near(self) -> np.ndarray:
        """For each result a number that is near for those that read the same."""
        return np.tile(interleaved(self.windows.outputs), len(self.weight))

    def rows(self, chosen: np.ndarray) -> Part:
        """Some rows of the matrix, as columns."""
        return self.pulled(singles(chosen))

    def pulled(self, part: Part) -> Part:
        """The transpose times coefficients of the rows, on the box of the image that they read."""
        block, (top, left) = block_of(part, len(self.weight), self.windows.outputs)
        channels, down, across, count = block.shape
        (sy, sx), span = self.windows.strides, self.spans(down, across)
        found, flat = np.zeros((self.weight.shape[1], *span, count)), block.reshape(channels, -1)
        for (y, x), tap in self.taps:
            found[:, y:y + (down - 1) * sy + 1:sy, x:x + (across - 1) * sx + 1:sx] += (tap.T @ flat).reshape(
                -1, down, across, count)
        first = top * sy - self.windows.pads[0], left * sx - self.windows.pads[1]
        # Rows that read nothing but what is padded read an empty box.
        low = [min(max(f, 0), size) for f, size in zip(first, self.windows.inputs, strict=True)]
        high = [max(min(f + s, size), l) for f, s, size, l in zip(first, span, self.windows.inputs, low, strict=True)]
        inside = found[:, low[0] - first[0]:high[0] - first[0], low[1] - first[1]:high[1] - first[1]]
        read = box_of(self.weight.shape[1], self.windows.inputs, low, high)
        return Part(read, np.ascontiguousarray(inside).reshape(-1, count))

    def reads(self, mask: np.ndarray) -> np.ndarray:
        """Which entries of the argument (in,) some of the results `mask` (out,) read."""
        sources = self.windows.sources()[mask.reshape(len(self.weight), -1).any(axis=0)]
        found = np.zeros((self.weight.shape[1], math.prod(self.windows.inputs)), dtype=bool)
        found[:, sources[sources >= 0]] = True
        return found.reshape(-1)


@dataclass(frozen=True)
class Transposed:
    """The transpose of a convolution that keeps its kernel: each place of its argument is one of that convolution's windows.

    Rows that read a part of the results are, on the smallest box of windows that reach it, sums of products with the kernel,
    as those of the convolution itself.
    """

    base: Convolution

    @property
    def shape(self) -> tuple[int, int]:
        """Entries of the results and of the argument."""
        return self.base.shape[1], self.base.shape[0]

    @property
    def terms(self) -> int:
        """The most coefficients of a row."""
        return self.base.weight[:, 0].size

    @property
    def error(self) -> float:
        """That of the convolution, which counts the sums along both axes."""
        return self.base.error

    @property
    def copies(self) -> np.ndarray | None:
        """It computes sums."""
        return None

    def times(self, values: np.ndarray) -> np.ndarray:
        """The matrix times values (in, f)."""
        return self.base.pulled(Part(None, values)).of(self.shape[0])

    def times_absolute(self, values: np.ndarray) -> np.ndarray:
        """The absolute values of the matrix times values (in, f)."""
        return self.base.sizes.pulled(Part(None, values)).of(self.shape[0])

    def near(self) -> np.ndarray:
        """For each result the first window that reaches it."""
        sources, places = self.base.windows.sources(), math.prod(self.base.windows.inputs)
        first = np.full(places, len(sources))
        window, tap = np.nonzero(sources >= 0)
        np.minimum.at(first, sources[window, tap], window)
        codes = np.append(interleaved(self.base.windows.outputs), 0)
        return np.tile(codes[first], self.base.weight.shape[1])

    def rows(self, chosen: np.ndarray) -> Part:
        """Some rows of the matrix, as columns."""
        return self.pulled(singles(chosen))

    def pulled(self, part: Part) -> Part:
        """The transpose, which is the convolution, times coefficients of the rows, at the windows that read any of them."""
        windows, weight = self.base.windows, self.base.weight
        block, corner = block_of(part, weight.shape[1], windows.inputs)
        lines = list(zip(corner, block.shape[1:3], windows.strides, windows.pads, windows.outputs, strict=True))
        taps = [(tuple(meeting(*line, offset) for line, offset in zip(lines, offsets, strict=True)), tap)
                for offsets, tap in self.base.taps]
        met = [(spans, tap) for spans, tap in taps if all(start < stop for start, stop, _ in spans)]
        low = [min((spans[axis][0] for spans, _ in met), default=0) for axis in range(2)]
        high = [max((spans[axis][1] for spans, _ in met), default=0) for axis in range(2)]
        found = np.zeros((len(weight), high[0] - low[0], high[1] - low[1], block.shape[3]))
        for ((top, bottom, y), (left, right, x)), tap in met:
            (sy, sx), down, across = windows.strides, bottom - top, right - left
            read = block[:, y:y + (down - 1) * sy + 1:sy, x:x + (across - 1) * sx + 1:sx]
            inside = found[:, top - low[0]:bottom - low[0], left - low[1]:right - low[1]]
            inside += (tap @ read.reshape(len(block), -1)).reshape(inside.shape)
        return Part(box_of(len(weight), windows.outputs, low, high), found.reshape(-1, block.shape[3]))

    def reads(self, mask: np.ndarray) -> np.ndarray:
        """Which entries of the argument (in,) some of the results `mask` (out,) read."""
        sources, places = self.base.windows.sources(), np.asarray(mask.reshape(self.base.weight.shape[1], -1).any(axis=0))
        return np.tile(((sources >= 0) & places[sources]).any(axis=1), len(self.base.weight))


def meeting(first: int, length: int, stride: int, pad: int, count: int, offset: int) -> tuple[int, int, int]:
    """Which of `count` windows (the first, and the next after the last) have their place `offset` in a block along an axis, and
    where in the block that of the first one is."""
    start = max(-((offset - first - pad) // stride), 0)
    stop = min((first + length - 1 + pad - offset) // stride + 1, count)
    return start, stop, start * stride - pad + offset - first


def interleaved(size: tuple[int, ...]) -> np.ndarray:
    """For each place of an image a number that is near for those that lie in a small square: the bits of both coordinates in
    turn (Morton 1966, "A computer oriented geodetic data base", Z-order)."""
    y, x = np.divmod(np.arange(math.prod(size)), size[1])
    bits = np.arange(max(size).bit_length())
    return np.asarray(((y[:, None] >> bits & 1) << 2 * bits + 1 | (x[:, None] >> bits & 1) << 2 * bits).sum(axis=1))


def singles(chosen: np.ndarray) -> Part:
    """Coefficients that are 1 at one entry each."""
    read, place = np.unique(chosen, return_inverse=True)
    values = np.zeros((len(read), len(chosen)))
    values[place.reshape(-1), np.arange(len(chosen))] = 1.0
    return Part(read, values)


def box_of(channels: int, size: tuple[int, ...], low: list[int], high: list[int]) -> np.ndarray | None:
    """The entries of images of a size in a box of its places, in order; None for all."""
    height, width = size
    if (high[0] - low[0], high[1] - low[1]) == (height, width):
        return None
    places = np.arange(low[0], high[0])[:, None] * width + np.arange(low[1], high[1])
    return (np.arange(channels)[:, None] * (height * width) + places.reshape(-1)).reshape(-1)


def block_of(part: Part, channels: int, size: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, int]]:
    """Coefficients of images of a size as smaller ones (channels, down, across, r) with all that are not 0; their corner."""
    (height, width), count = size, part.values.shape[1]
    read = np.arange(channels * height * width) if part.read is None else part.read
    nonzero = part.values.any(axis=1)
    y, x = np.divmod(read % (height * width), width)
    if not nonzero.any():
        return np.zeros((channels, 1, 1, count)), (0, 0)
    (top, bottom), (left, right) = ((int(line[nonzero].min()), int(line[nonzero].max()) + 1) for line in (y, x))
    down, across = bottom - top, right - left
    inside = (top <= y) & (y < bottom) & (left <= x) & (x < right)
    if len(read) == channels * down * across and inside.all():  # in order, so it is the whole box
        return part.values.reshape(channels, down, across, count), (top, left)
    found = np.zeros((channels, down, across, count))
    found[(read // (height * width))[inside], y[inside] - top, x[inside] - left] = part.values[inside]
    return found, (top, left)
