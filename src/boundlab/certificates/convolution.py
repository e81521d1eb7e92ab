"""Convolutions as coefficients of an affine step: where windows lie, a sparse matrix of them, and one that keeps the kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from boundlab.certificates.network import Linear, Part, matrix_of
from boundlab.certificates.rounding import gamma

MOST_ENTRIES = 2**19
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
    if len(windows.kernel) == 2 and groups == 1 and weight.size * math.prod(windows.outputs) > MOST_ENTRIES:
        return Convolution(windows, weight)
    return matrix_of(convolution(windows.sources(), weight, groups, math.prod(windows.inputs)))


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
    def sizes(self) -> np.ndarray:
        """The weight's absolute values."""
        return np.abs(self.weight)

    @property
    def copies(self) -> np.ndarray | None:
        """It computes sums."""
        return None

    def times(self, values: np.ndarray) -> np.ndarray:
        """The matrix times values (in, f)."""
        return self.convolved(self.weight, values)

    def times_absolute(self, values: np.ndarray) -> np.ndarray:
        """The absolute values of the matrix times values (in, f)."""
        return self.convolved(self.sizes, values)

    def convolved(self, weight: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Images (in, f) convolved with a weight, (out, f)."""
        (height, width), (up, left), frames = self.windows.inputs, self.windows.pads, values.shape[1]
        (down, across), (sy, sx) = self.windows.outputs, self.windows.strides
        low, right = (max(reach - size - pad, 0) for reach, size, pad in
                      zip(self.spans(down, across), (height, width), (up, left), strict=True))
        images = np.pad(values.reshape(-1, height, width, frames), ((0, 0), (up, low), (left, right), (0, 0)))
        found = np.zeros((len(weight), down * across * frames))
        for (y, x), tap in self.taps(weight):
            read = images[:, y:y + (down - 1) * sy + 1:sy, x:x + (across - 1) * sx + 1:sx]
            found += tap @ read.reshape(len(images), -1)
        return found.reshape(-1, frames)

    def taps(self, weight: np.ndarray) -> list[tuple[tuple[int, int], np.ndarray]]:
        """Where each place of the kernel lies in a window, and its matrix (out, in)."""
        down, across = self.windows.dilations
        return [((y * down, x * across), weight[:, :, y, x]) for y in range(weight.shape[2]) for x in range(weight.shape[3])]

    def spans(self, down: int, across: int) -> tuple[int, int]:
        """How many places of the argument so many windows in a row cover, from one above the other and side by side."""
        high, wide = ((size - 1) * step + (kernel - 1) * apart + 1 for size, step, kernel, apart in zip(
            (down, across), self.windows.strides, self.windows.kernel, self.windows.dilations, strict=True))
        return high, wide

    def near(self) -> np.ndarray:
        """For each result a number that is near for those that read the same."""
        return np.tile(np.arange(math.prod(self.windows.outputs)), len(self.weight))

    def rows(self, chosen: np.ndarray) -> Part:
        """Some rows of the matrix, as columns."""
        read, place = np.unique(chosen, return_inverse=True)
        single = np.zeros((len(read), len(chosen)))
        single[place.reshape(-1), np.arange(len(chosen))] = 1.0
        return self.pulled(Part(read, single))

    def pulled(self, part: Part) -> Part:
        """The transpose times coefficients of the rows, on the box of the image that they read."""
        block, (top, left) = self.block(part)
        channels, down, across, count = block.shape
        (sy, sx), span = self.windows.strides, self.spans(down, across)
        found, flat = np.zeros((self.weight.shape[1], *span, count)), block.reshape(channels, -1)
        for (y, x), tap in self.taps(self.weight):
            found[:, y:y + (down - 1) * sy + 1:sy, x:x + (across - 1) * sx + 1:sx] += (tap.T @ flat).reshape(
                -1, down, across, count)
        first = top * sy - self.windows.pads[0], left * sx - self.windows.pads[1]
        # Rows that read nothing but what is padded read an empty box.
        low = [min(max(f, 0), size) for f, size in zip(first, self.windows.inputs, strict=True)]
        high = [max(min(f + s, size), l) for f, s, size, l in zip(first, span, self.windows.inputs, low, strict=True)]
        inside = found[:, low[0] - first[0]:high[0] - first[0], low[1] - first[1]:high[1] - first[1]]
        return Part(self.box(low, high), np.ascontiguousarray(inside).reshape(-1, count))

    def box(self, low: list[int], high: list[int]) -> np.ndarray | None:
        """The entries of the argument in a box of its places, in order; None for all."""
        height, width = self.windows.inputs
        if (high[0] - low[0], high[1] - low[1]) == (height, width):
            return None
        places = np.arange(low[0], high[0])[:, None] * width + np.arange(low[1], high[1])
        return (np.arange(self.weight.shape[1])[:, None] * (height * width) + places.reshape(-1)).reshape(-1)

    def block(self, part: Part) -> tuple[np.ndarray, tuple[int, int]]:
        """Coefficients of the results as images (out, height, width, r) that hold all which are not 0, and their corner."""
        (height, width), channels, count = self.windows.outputs, len(self.weight), part.values.shape[1]
        read = np.arange(self.shape[0]) if part.read is None else part.read
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

    def reads(self, mask: np.ndarray) -> np.ndarray:
        """Which entries of the argument (in,) some of the results `mask` (out,) read."""
        sources = self.windows.sources()[mask.reshape(len(self.weight), -1).any(axis=0)]
        found = np.zeros((self.weight.shape[1], math.prod(self.windows.inputs)), dtype=bool)
        found[:, sources[sources >= 0]] = True
        return found.reshape(-1)
