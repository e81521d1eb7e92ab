"""Linear layers along axes, written once for every front end: interpolation, sums, and averages over windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from boundlab.capture.builder import Builder


def along(build: Builder, x: int, axis: int, matrix: Tensor) -> int:
    """A constant matrix (out, in) applied to one axis of a node."""
    rank = len(build.shape(x))
    weight = build.constant(matrix.to(build.dtype))
    if axis == rank - 1:
        return build.add("linear", x, weight)
    order = (*(d for d in range(rank) if d != axis), axis)
    found = build.add("linear", build.add("permute", x, dims=order), weight)
    return build.add("permute", found, dims=tuple(order.index(d) for d in range(rank)))


def cumulated(build: Builder, x: int, axis: int, *, exclusive: bool = False, reverse: bool = False) -> int:
    """Sums of all entries up to each, along one axis."""
    size = build.shape(x)[axis]
    matrix = torch.ones(size, size).tril(-1 if exclusive else 0)
    return along(build, x, axis, matrix.flip(0, 1) if reverse else matrix)


def flattened(build: Builder, x: int, first: int, matrix: Tensor, space: Sequence[int]) -> int:
    """A constant matrix applied to all axes from `first` on as one, which become axes of `space`."""
    shape = build.shape(x)
    flat = build.add("reshape", x, shape=(*shape[:first], math.prod(shape[first:])))
    return build.add("reshape", along(build, flat, first, matrix), shape=(*shape[:first], *space))


def adaptive_matrix(size: int, wanted: int) -> Tensor:
    """The means of `wanted` windows that cover an axis of `size` as evenly as torch covers it."""
    cells = adaptive_cells(size, wanted)
    matrix = torch.zeros(wanted, size, dtype=torch.float64)
    for row, window in enumerate(cells):
        inside = window[window >= 0]
        matrix[row, inside] = 1 / len(inside)
    return matrix


def adaptive_cells(size: int, wanted: int) -> Tensor:
    """The cells of adaptive windows along one axis, (wanted, widest), -1 where a window is narrower than the widest."""
    starts = [index * size // wanted for index in range(wanted)]
    stops = [-(-(index + 1) * size // wanted) for index in range(wanted)]
    widest = max(stop - start for start, stop in zip(starts, stops, strict=True))
    cells = torch.arange(widest)[None] + torch.tensor(starts)[:, None]
    return torch.where(cells < torch.tensor(stops)[:, None], cells, -1)


@dataclass(frozen=True)
class Pool:
    """Windows along one axis: cells beyond `size` count for nothing, or as zeros within the padding if `counted`."""

    size: int
    kernel: int
    stride: int
    before: int
    after: int
    dilation: int
    counted: bool

    def starts(self, ceil: bool) -> list[int]:
        """Where the windows begin; `ceil` keeps a last one that reaches beyond the padding, if it begins before that."""
        reach = self.size + self.before + self.after - self.dilation * (self.kernel - 1) - 1
        count = (-(-reach // self.stride) if ceil else reach // self.stride) + 1
        starts = [index * self.stride - self.before for index in range(count)]
        return [start for start in starts if start < self.size]

    def count(self, start: int) -> int:
        """How many cells of the window at `start` are counted."""
        low, high = (-self.before, self.size + self.after) if self.counted else (0, self.size)
        return sum(low <= start + step * self.dilation < high for step in range(self.kernel))


def average_pool(build: Builder, x: int, pools: Sequence[Pool], ceil: bool, divisor: int | None = None) -> int:
    """Means over windows of a map (channels, *space), as a convolution of each channel on its own.

    `divisor` replaces the number of counted cells. Where that number differs between windows, sums are scaled afterwards.
    """
    channels, starts = build.shape(x)[0], [pool.starts(ceil) for pool in pools]
    counts = [[pool.count(start) for start in axis] for pool, axis in zip(pools, starts, strict=True)]
    whole = torch.tensor([math.prod(cell) for cell in itertools.product(*counts)], dtype=torch.float64)
    shares = 1 / (whole if divisor is None else torch.full_like(whole, divisor)).reshape([len(count) for count in counts])
    even = bool((shares == shares.flatten()[0]).all())
    ends = [max(axis[-1] + pool.dilation * (pool.kernel - 1) + 1 - pool.size, 0)
            for pool, axis in zip(pools, starts, strict=True)]
    x, padding = symmetric(build, x, [(pool.before, end) for pool, end in zip(pools, ends, strict=True)])
    weight = torch.full((channels, 1, *(pool.kernel for pool in pools)), float(shares.flatten()[0]) if even else 1.0)
    settings: dict[str, Any] = {"stride": tuple(pool.stride for pool in pools), "padding": padding, "groups": channels,
                                "dilation": tuple(pool.dilation for pool in pools)}
    total = build.add("conv", x, build.constant(weight.to(build.dtype)), **settings)
    return total if even else build.broadcast("mul", total, build.constant(shares.to(build.dtype)))


def symmetric(build: Builder, x: int, pairs: Sequence[tuple[int, int]]) -> tuple[int, tuple[int, ...]]:
    """A map and the symmetric padding that a convolution shall add; what is asymmetric is padded here."""
    if all(before == after for before, after in pairs):
        return x, tuple(before for before, _ in pairs)
    shape = build.shape(x)
    whole = (shape[0], *(size + before + after for size, (before, after) in zip(shape[1:], pairs, strict=True)))
    return build.add("pad", x, before=(0, *(before for before, _ in pairs)), shape=whole), (0,) * len(pairs)


def fold(build: Builder, x: int, size: Sequence[int], kernel: Sequence[int], dilation: Sequence[int],
         stride: Sequence[int]) -> int:
    """Windows (channels * cells, places) summed into a map (channels, *size): a transposed convolution.

    Its kernels put each entry into its cell, one channel for each cell of the window.
    """
    axes, cells = list(zip(size, kernel, dilation, stride, strict=True)), math.prod(kernel)
    places = tuple((wide - step * (width - 1) - 1) // jump + 1 for wide, width, step, jump in axes)
    more = tuple(wide - ((count - 1) * jump + step * (width - 1) + 1)
                 for count, (wide, width, step, jump) in zip(places, axes, strict=True))
    channels = build.shape(x)[0] // cells
    weight = torch.eye(cells, dtype=build.dtype).reshape(cells, 1, *kernel).repeat(channels, *[1] * (len(axes) + 1))
    settings: dict[str, Any] = {"stride": tuple(stride), "padding": (0,) * len(axes), "dilation": tuple(dilation),
                                "output_padding": more, "groups": channels}
    return build.add("conv_transpose", build.add("reshape", x, shape=(channels * cells, *places)), build.constant(weight),
                     **settings)
