"""push: columns through a layer's map, forward. The same `Rows` types hold them: n columns with owner, one row each.

A column says how one noise symbol moves a node's value. Compared with `compose`, which pulls rows back, the table is
short: windows stay windows through convolutions, diagonals and reshapes, everything else is dense.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from boundlab.maps.base import LinearMap, Shape, flat
from boundlab.maps.conv import Conv, conv_in_space
from boundlab.maps.dense import Diagonal, Identity, Matrix
from boundlab.maps.rows import Dense
from boundlab.maps.select import Select
from boundlab.maps.shape import Reshape
from boundlab.maps.windows import Corners, Windows


@dataclass(frozen=True)
class Reshaped:
    """Windows under another shape of their node: a flattened map, kept as windows until a matrix makes it small."""

    shape: Shape
    windows: Windows


@dataclass(frozen=True)
class Single:
    """Columns that move one coordinate each: of problem `owner`, at flat `index`, by `size`; all (n,). Symbols are born so."""

    shape: Shape
    owner: Tensor
    index: Tensor
    size: Tensor

    def spread(self) -> Dense | Windows:
        """The same columns as rows hold them."""
        columns = Select(self.shape, self.owner, self.index, self.size[:, None])
        return columns.window() if len(self.shape) == 3 else Dense(self.shape, self.owner, columns.dense())


Columns = Dense | Windows | Reshaped | Single
DENSE_AREA = 0.6
"""Windows of columns become dense beyond this multiple of the map's area (measured, as for rows)."""
CHUNK = 1024
"""Columns that pass a dense map at once."""
CACHED = 2**18
"""Numbers whose absolute values are summed at once, in the cache; problem by problem where each has as many."""
APART = 2**14
"""Numbers in the columns of each problem from which on problems are scaled one by one; with fewer the calls cost more."""


def push(columns: Columns, layer: LinearMap) -> Columns:
    """The columns of `layer`'s output from those of its input."""
    if isinstance(layer, Identity):
        return columns
    if isinstance(columns, Single):
        return push_single(columns, layer)
    if isinstance(layer, Reshape) and not isinstance(columns, Dense):
        windows = columns.windows if isinstance(columns, Reshaped) else columns
        return windows if layer.out_shape == windows.shape else Reshaped(layer.out_shape, windows)
    if isinstance(layer, Diagonal) and isinstance(columns, Reshaped):
        scale = layer.scale.expand(-1, 1, *columns.shape).reshape(-1, 1, *columns.windows.shape)
        return Reshaped(columns.shape, scaled(columns.windows, scale))
    if isinstance(layer, Diagonal) and isinstance(columns, Windows):
        return scaled(columns, layer.scale)
    if isinstance(layer, Diagonal) and isinstance(columns, Dense) and len(layer.scale) > 1:
        return scaled_dense(columns, layer)
    if isinstance(layer, Conv) and isinstance(columns, Windows) and len(layer.stride) == 2:
        return push_windows(columns, layer)
    if isinstance(layer, Matrix) and isinstance(columns, Reshaped) and len(columns.shape) == 1:
        return push_flattened(columns.windows, layer)
    return push_dense(columns, layer)


def push_single(columns: Single, layer: LinearMap) -> Columns:
    """Single coordinates through a map: other sizes, other places, or columns of a matrix."""
    if isinstance(layer, Reshape):
        return Single(layer.out_shape, columns.owner, columns.index, columns.size)
    if isinstance(layer, Diagonal):
        scale = layer.scale.expand(-1, 1, *columns.shape).flatten(1)
        own = scale[columns.owner if len(scale) > 1 else torch.zeros_like(columns.owner), columns.index]
        return Single(columns.shape, columns.owner, columns.index, columns.size * own)
    if isinstance(layer, Matrix) and len(columns.shape) == 1:
        read = layer.transposed.index_select(0, columns.index)
        return Dense(layer.out_shape, columns.owner, (read * columns.size[:, None]).unsqueeze(1))
    if isinstance(layer, Conv) and len(layer.stride) == 2 and layer.groups == 1:
        return kernels(columns, layer)
    return push(columns.spread(), layer)


def kernels(columns: Single, layer: Conv) -> Columns:
    """Single cells through a convolution: windows that hold pieces of the kernel.

    Cell (y, x) reaches the outputs o with y = o * stride - padding + k * dilation for some kernel index k; `reached` gives k
    for each output of the window, and one past the kernel where there is none.
    """
    corner = place_of(columns.index, columns.shape)
    first, size = window_after(corner, (1, 1), layer)
    if math.prod(size) > DENSE_AREA * math.prod(layer.out_shape[1:]):
        return push(columns.spread(), layer)
    width, channel = layer.weight.shape[3], columns.index // math.prod(columns.shape[1:])
    table = F.pad(layer.weight, (0, 1, 0, 1)).permute(2, 3, 1, 0).flatten(0, 2).contiguous()
    y, x = (reached(corner[:, axis], first[:, axis], size[axis], layer, axis) for axis in (0, 1))
    index = (y[:, :, None] * (width + 1) + x[:, None, :]) * columns.shape[0] + channel[:, None, None]
    found = table.index_select(0, index.flatten()).reshape(len(index), 1, *size, layer.out_shape[0])
    found = found * columns.size.reshape(-1, 1, 1, 1, 1)
    return Windows(layer.out_shape, columns.owner, found, Corners(first), clean=False)


def reached(corner: Tensor, first: Tensor, size: int, layer: Conv, axis: int) -> Tensor:
    """Along one axis, which kernel index carries the cell at `corner` (n,) to each output from `first` (n,) on, (n, size)."""
    stride, padding, step = layer.stride[axis], layer.padding[axis], layer.dilation[axis]
    kernel = layer.weight.shape[2 + axis]
    output = first[:, None] + torch.arange(size, device=first.device)
    distance = corner[:, None] - output * stride + padding
    valid = (distance >= 0) & (distance <= step * (kernel - 1)) & (distance % step == 0)
    return torch.where(valid, distance // step, kernel)


def place_of(index: Tensor, shape: Shape) -> Tensor:
    """Row and column (n, 2) of flat coordinates of an image."""
    place = index % (shape[1] * shape[2])
    return torch.stack([place // shape[2], place % shape[2]], dim=1)


def window_after(corner: Tensor, size: tuple[int, int], layer: Conv) -> tuple[Tensor, tuple[int, ...]]:
    """Corners (n, 2) and size of the windows of outputs that windows of inputs reach.

    Output cell o reads input cells o * stride - padding + k * dilation, so a window with corner c reaches the cells from
    ceil((c + padding - reach) / stride) on, with reach = dilation * (kernel - 1).
    """
    reach = reach_of(layer)
    stride, padding = corner.new_tensor(layer.stride), corner.new_tensor(layer.padding)
    first = -((corner.new_tensor(reach) - corner - padding) // stride)
    return first, tuple((length - 1 + r) // s + 1 for length, r, s in zip(size, reach, layer.stride, strict=True))


def reach_of(layer: Conv) -> Shape:
    """How far apart the first and the last cell lie that one output reads, for each axis."""
    return tuple(step * (kernel - 1) for step, kernel in zip(layer.dilation, layer.weight.shape[2:], strict=True))


def scaled(columns: Windows, scale: Tensor) -> Windows:
    """Windows times a per-example tensor (b, 1, *shape)."""
    return columns.with_coefficients(columns.coefficients * columns.aligned(scale))


def stretches(owner: Tensor, batch: int) -> list[slice] | None:
    """The columns of each problem, if they lie together and in order, as symbols are born."""
    if not bool((owner[1:] >= owner[:-1]).all()):
        return None
    ends = [0, *torch.bincount(owner, minlength=batch).cumsum(0).tolist()]
    return [slice(start, end) for start, end in pairwise(ends)]


def scaled_dense(columns: Dense, layer: Diagonal) -> Dense:
    """Explicit columns times a per-example tensor (b, 1, *shape), problem by problem where it would be as large beside them."""
    scale, values, owner = layer.scale, columns.coefficients, owners(columns)
    learned = torch.is_grad_enabled() and (scale.requires_grad or values.requires_grad)
    few = values.numel() < len(scale) * APART
    runs = None if few or learned or scale.shape[1] > 1 else stretches(owner, len(scale))
    if runs is None:
        return push_dense(columns, layer)
    result = torch.empty_like(values)
    for run, factor in zip(runs, scale, strict=True):
        torch.mul(values[run], factor, out=result[run])
    return Dense(columns.shape, owner, result)


def numbers(columns: Columns) -> Tensor:
    """What is held for each column, (n, ...)."""
    if isinstance(columns, Single):
        return columns.size
    return columns.windows.coefficients if isinstance(columns, Reshaped) else columns.coefficients


def owners(columns: Columns) -> Tensor:
    """The problem that each column belongs to, (n,)."""
    owner = columns.windows.owner if isinstance(columns, Reshaped) else columns.owner
    assert owner is not None
    return owner


def dense(columns: Columns) -> Tensor:
    """All coefficients, (n, 1, *shape)."""
    if isinstance(columns, Single):
        return columns.spread().dense()
    full = columns.windows.dense() if isinstance(columns, Reshaped) else columns.dense()
    return full.reshape(*full.shape[:2], *columns.shape)


def push_dense(columns: Columns, layer: LinearMap) -> Dense:
    """Explicit columns through the map itself; flattened windows a chunk at a time, since they grow most."""
    parts = [columns]
    if isinstance(columns, Reshaped):
        places = torch.arange(len(owners(columns)), device=owners(columns).device)
        parts = [take(columns, part) for part in places.split(CHUNK)]
    images = [layer.at(owners(part)).push(dense(part)) for part in parts]
    return Dense(layer.out_shape, owners(columns), torch.cat(images) if len(images) > 1 else images[0])


def push_flattened(columns: Windows, layer: Matrix) -> Dense:
    """Windows of a flattened map through a matrix, cell by cell: all windows over a cell share that cell's block of weights.

    Costs what the windows hold, not what the map holds.
    """
    channels, height, width = columns.shape
    places, within = columns.places(), columns.inside().flatten().nonzero().squeeze(1)
    order = within[places.flatten()[within].argsort(stable=True)]
    cells, sizes = places.flatten()[order].unique_consecutive(return_counts=True)
    numbers = columns.coefficients.reshape(-1, channels)
    blocks = layer.transposed.reshape(channels, height, width, -1)
    result = numbers.new_zeros(len(places), layer.weight.shape[0])
    column = order // math.prod(columns.size)
    parts = zip(cells.tolist(), order.split(sizes.tolist()), column.split(sizes.tolist()), strict=True)
    for cell, entries, owners in parts:
        y, x = divmod(cell, width + 2)
        result.index_add_(0, owners, numbers.index_select(0, entries) @ blocks[:, y - 1, x - 1])
    return Dense(layer.out_shape, columns.owner, result.unsqueeze(1))


def without_zeros(columns: Columns) -> Columns:
    """The columns that move anything at all."""
    moving = flat(numbers(columns), 1).any(1)
    return take(columns, moving.nonzero().squeeze(1))


def take(columns: Columns, index: Tensor) -> Columns:
    """Some of the columns."""
    if isinstance(columns, Reshaped):
        windows = take(columns.windows, index)
        assert isinstance(windows, Windows)
        return Reshaped(columns.shape, windows)
    if isinstance(columns, Single):
        owner, place, size = (part.index_select(0, index) for part in (columns.owner, columns.index, columns.size))
        return Single(columns.shape, owner, place, size)
    owner, coefficients = owners(columns).index_select(0, index), columns.coefficients.index_select(0, index)
    if isinstance(columns, Dense):
        return Dense(columns.shape, owner, coefficients)
    return Windows(columns.shape, owner, coefficients, Corners(columns.origin.corner().index_select(0, index)), columns.clean)


def push_windows(columns: Windows, layer: Conv) -> Columns:
    """A convolution of small images. With a stride, windows whose corners differ in parity cover different cells."""
    corner, reach = columns.origin.corner(), reach_of(layer)
    first, size = window_after(corner, columns.size, layer)
    if math.prod(size) > DENSE_AREA * math.prod(layer.out_shape[1:]):
        return push_dense(columns, layer)
    images = columns.masked().coefficients.flatten(0, 1)
    if layer.stride == (1, 1):
        whole = F.conv2d(images.permute(0, 3, 1, 2), layer.weight, None, 1, reach, layer.dilation, layer.groups)
        return Windows(layer.out_shape, columns.owner, whole.permute(0, 2, 3, 1).unsqueeze(1), Corners(first), clean=False)
    lead = corner - (first * corner.new_tensor(layer.stride) - corner.new_tensor(layer.padding))
    result = images.new_zeros(len(images), *size, layer.out_shape[0])
    for y in range(reach[0] - layer.stride[0] + 1, reach[0] + 1):
        for x in range(reach[1] - layer.stride[1] + 1, reach[1] + 1):
            same = ((lead[:, 0] == y) & (lead[:, 1] == x)).nonzero().squeeze(1)
            if len(same):
                result[same] = convolve(images[same], layer, (y, x), size)
    return Windows(layer.out_shape, columns.owner, result.unsqueeze(1), Corners(first), clean=False)


def convolve(images: Tensor, layer: Conv, lead: tuple[int, int], size: tuple[int, ...]) -> Tensor:
    """Images (m, kh, kw, channels) with `lead` empty cells before them (cut off, if negative), convolved to `size` cells."""
    need = conv_in_space(size, tuple(layer.weight.shape[2:]), layer.stride, (0, 0), layer.dilation)
    (top, left), (bottom, right) = lead, (lead[0] + images.shape[1], lead[1] + images.shape[2])
    images = images[:, max(-top, 0):max(need[0] - top, 0), max(-left, 0):max(need[1] - left, 0)]
    top, left, bottom, right = max(top, 0), max(left, 0), min(bottom, need[0]), min(right, need[1])
    if bottom <= top or right <= left:
        return images.new_zeros(len(images), *size, layer.out_shape[0])
    margins = (left, need[1] - right, top, need[0] - bottom)
    padded = F.pad(images.permute(0, 3, 1, 2), margins)
    return F.conv2d(padded, layer.weight, None, layer.stride, 0, layer.dilation, layer.groups).permute(0, 2, 3, 1)


def add_columns(first: Columns, second: Columns) -> Columns:
    """The sum, symbol by symbol, of columns that reach a node on two paths."""
    if isinstance(first, Single) and isinstance(second, Single) and torch.equal(first.index, second.index):
        return Single(first.shape, first.owner, first.index, first.size + second.size)
    first, second = (part.spread() if isinstance(part, Single) else part for part in (first, second))
    if isinstance(first, Windows) and isinstance(second, Windows):
        corners = torch.stack([first.origin.corner(), second.origin.corner()])
        sizes = corners.new_tensor([first.size, second.size])[:, None]
        low = corners.amin(0)
        extent = ((corners + sizes).amax(0) - low).amax(0).tolist() if len(low) else [1, 1]
        if math.prod(extent) <= DENSE_AREA * math.prod(first.shape[1:]):
            canvas = sum(placed(part, low, extent) for part in (first, second))
            assert isinstance(canvas, Tensor)
            return Windows(first.shape, first.owner, canvas, Corners(low), first.clean and second.clean)
    if isinstance(first, Dense):
        first, second = second, first
    if isinstance(first, Dense):
        return Dense(first.shape, first.owner, first.coefficients + dense(second))
    return Dense(first.shape, owners(first), dense(first).add_(dense(second)))  # the first was written out just now


def placed(columns: Windows, corner: Tensor, size: list[int]) -> Tensor:
    """The windows' coefficients on larger windows that begin at `corner`, (n, 1, *size, channels)."""
    shift = columns.origin.corner() - corner
    rows = shift[:, :1] + torch.arange(columns.size[0], device=shift.device)
    cells = rows[:, :, None] * size[1] + (shift[:, 1:] + torch.arange(columns.size[1], device=shift.device))[:, None, :]
    number, channels = len(shift), columns.shape[0]
    canvas = columns.coefficients.new_zeros(number, size[0] * size[1], channels)
    index = flat(cells, 1)[:, :, None].expand(-1, -1, channels)
    return canvas.scatter(1, index, columns.coefficients.flatten(1, 3)).reshape(number, 1, *size, channels)


def sum_of_absolute(values: Tensor) -> Tensor:
    """Sum of the absolute values of all columns (n, 1, *shape), (1, *shape): products with ones, in the order in memory."""
    order = (0, 1, 3, 4, 2) if values.dim() == 5 else tuple(range(values.dim()))
    stored = values.permute(order)
    total = values.new_zeros(1, math.prod(stored.shape[2:]))
    for part in flat(stored, 1).split(max(1, CACHED // max(1, total.numel()))):
        total = total + values.new_ones(1, len(part)) @ part.abs()
    total = total.reshape(1, *stored.shape[2:])
    return total.permute(0, 3, 1, 2) if values.dim() == 5 else total


def absolute_sum(columns: Columns, batch: int) -> Tensor:
    """Sum over each problem's columns of absolute coefficients, (batch, *shape): how far the symbols move the value."""
    if isinstance(columns, Reshaped):
        return absolute_sum(columns.windows, batch).reshape(batch, *columns.shape)
    owner = owners(columns)
    if isinstance(columns, Single):
        total = columns.size.new_zeros(batch, math.prod(columns.shape))
        return total.index_put((owner, columns.index), columns.size.abs(), accumulate=True).reshape(batch, *columns.shape)
    if isinstance(columns, Dense) and batch == 1:
        return sum_of_absolute(columns.coefficients)
    if isinstance(columns, Dense):
        runs = stretches(owner, batch) if columns.coefficients.numel() > batch * CACHED else None
        if runs is not None:
            return torch.cat([sum_of_absolute(columns.coefficients[run]) for run in runs])
        total = columns.coefficients.new_zeros(batch, *columns.shape)
        return total.index_add(0, owner, columns.coefficients.squeeze(1).abs())
    channels, height, width = columns.shape
    places = columns.places()
    cells = (height + 2) * (width + 2)
    flat = (places + (owner * cells)[:, None, None]).flatten()
    total = columns.coefficients.new_zeros(batch * cells, channels)
    total = total.index_add(0, flat, columns.coefficients.abs().reshape(-1, channels))
    return total.reshape(batch, height + 2, width + 2, channels)[:, 1:-1, 1:-1].permute(0, 3, 1, 2)
