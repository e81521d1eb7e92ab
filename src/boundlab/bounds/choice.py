"""Rows that carry gradients through a relaxed operator, and through the convolution before it, as one autograd function.

Written out, r * where(r >= 0, low, high) keeps masks, products and chosen lines of all rows until the gradient has passed. Here
only r is kept. The rest is computed again, a few problems at a time, so that it stays in the cache and never meets new memory:
on a CPU that costs several times the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from boundlab.affine import Affine, LinearBound
from boundlab.maps import Conv, Dense, Explicit, Rows, dot

AT_ONCE = 2**20
"""Coefficients in one piece on a CPU (4 MB in single precision); other devices take all rows at once."""


class Lines(NamedTuple):
    """What rows r (n, s, *shape) meet, as tables (n or 1, s or 1, *shape or broadcastable).

    They become r * low + min(r, 0) * turn, and leave the sum of r * base + min(r, 0) * lift over coordinates.
    """

    low: Tensor
    turn: Tensor
    base: Tensor | None = None
    lift: Tensor | None = None


def pieces(rows: Tensor) -> Iterator[slice]:
    """Ranges of problems whose rows (n, s, *shape) together hold about AT_ONCE numbers."""
    count, each = len(rows), max(1, rows[:1].numel())
    size = max(1, AT_ONCE // each) if rows.device.type == "cpu" else max(1, count)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def part(table: Tensor | None, piece: slice) -> Any:
    """The entries of a table (n or 1, ...) for a range of problems."""
    return table if table is None or len(table) == 1 else table[piece]


def lines_of(rows: Explicit, bound: LinearBound) -> list[Lines]:
    """What rows meet in an elementwise relaxation, for each argument; the offsets are with the first."""
    count, shape = len(bound.lower.maps), rows.coefficients.shape[2:]
    tables = [table.expand(*table.shape[:2], *shape) for table in rows.laid(bound.choice)]
    base, lift = (None, None, *tables[2 * count:])[-2:]
    offsets = [(base, lift)] + [(None, None)] * (count - 1)
    slopes = zip(tables[:count], tables[count:2 * count], offsets, strict=True)
    return [Lines(low, turn, *offset) for low, turn, offset in slopes]


def choose_lines(rows: Explicit, bound: LinearBound) -> tuple[list[Rows], Tensor]:
    """Rows of an elementwise operator as rows of its arguments, and what they leave, (n, s)."""
    found = [Choice.apply(None, coefficients_for(rows, lines), None, None, *lines) for lines in lines_of(rows, bound)]
    return [rows.with_coefficients(part) for part, _ in found], found[0][1]


def choose_and_convolve(rows: Dense, bound: LinearBound, below: Affine) -> tuple[list[Rows], Tensor]:
    """Rows after the choice and a pull through the convolution below, and what they leave with its bias."""
    (lines,), layer = lines_of(rows, bound), below.maps[0]
    assert isinstance(layer, Conv)
    geometry = replace(layer, weight=layer.weight.detach())
    found, left = Choice.apply(geometry, coefficients_for(rows, lines), layer.weight, below.bias, *lines)
    return [Dense(layer.in_shape, rows.owner, found)], left


def coefficients_for(rows: Explicit, lines: Lines) -> Tensor:
    """Coefficients with as many problems and rows as the tables ask for."""
    tables = [table for table in lines if table is not None]
    return rows.coefficients.expand(np.broadcast_shapes(rows.coefficients.shape, *(table.shape for table in tables)))


def chosen(rows: Tensor, lines: Lines) -> tuple[Tensor, Tensor | None]:
    """Rows after the choice, and what they leave; no gradients."""
    negative = rows.clamp(max=0)
    left = None if lines.lift is None else dot(negative, lines.lift)
    if lines.base is not None:
        base = dot(rows, lines.base)
        left = base if left is None else left + base
    return negative.mul_(lines.turn).addcmul_(rows, lines.low), left


def in_order(rows: Tensor, layer: Conv | None) -> Tensor:
    """Rows (n, s, *shape) in the order in memory in which `layer` pulls them fastest."""
    if layer is None or rows.dim() != 5:
        return rows
    return rows.flatten(0, 1).contiguous(memory_format=torch.channels_last).reshape(rows.shape)


class Choice(torch.autograd.Function):
    """`chosen`, then a pull through `layer` if there is one, whose bias (1, 1, *out or broadcastable) is `after`.

    A coefficient of zero takes the line of positive ones, so that its gradient is that of one side.
    """

    @staticmethod
    def forward(ctx: Any, layer: Conv | None, rows: Tensor, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.layer = layer
        ctx.save_for_backward(rows, *tensors)
        _, after, *tables = tensors
        found, left = [], rows.new_zeros(rows.shape[:2])
        for piece in pieces(rows):
            below, offset = chosen(in_order(rows[piece], layer), Lines(*(part(table, piece) for table in tables)))
            if offset is not None:
                left[piece] += offset
            if after is not None:
                left[piece] += dot(below, after)
            found.append(below if layer is None else layer.pull(below))
        return joined(found), left

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor, given_left: Tensor) -> Any:
        rows, weight, after, *tables = ctx.saved_tensors
        layer = ctx.layer
        found = torch.empty_like(rows)
        totals = [torch.zeros_like(table) if needed else None
                  for table, needed in zip((weight, after, *tables), ctx.needs_input_grad[2:], strict=True)]
        for piece in pieces(rows):
            left = given_left[piece].reshape(*given_left[piece].shape, *[1] * (rows.dim() - 2))
            lines = Lines(*(part(table, piece) for table in tables))
            r, outer = in_order(rows[piece], layer), given[piece]
            if layer is not None:
                below = chosen(r, lines._replace(base=None, lift=None))[0]
                if totals[0] is not None:
                    totals[0] += layer.weight_gradient(outer, below)
                gather(totals[1], left, below, piece)
                outer = layer.push(outer)
                if after is not None:
                    outer += left * after
            through(r, outer, left, lines, out=found[piece])
            negative = r.clamp(max=0)
            for total, first, second in zip(totals[2:], (outer, outer, left, left), (r, negative) * 2, strict=True):
                gather(total, first, second, piece)
        return None, found, *totals


def through(rows: Tensor, outer: Tensor, left: Tensor, lines: Lines, out: Tensor) -> None:
    """Gradient of rows from that of the chosen ones (`outer`) and that of what they leave."""
    below = torch.lt(rows, 0, out=torch.empty_like(rows))
    change = outer * lines.turn if lines.lift is None else (left * lines.lift).addcmul_(outer, lines.turn)
    change.mul_(below)
    if lines.base is not None:
        change.addcmul_(left, lines.base)
    torch.addcmul(change, outer, lines.low, out=out)


def gather(total: Tensor | None, first: Tensor, second: Tensor, piece: slice) -> None:
    """Add the products of two tensors to the gradient of a table, summed over what the table broadcasts."""
    if total is None:
        return
    wide = [axis for axis in range(2, second.dim()) if first.shape[axis] == total.shape[axis] == 1 < second.shape[axis]]
    if wide:
        second = second.sum(wide, keepdim=True)
    place = part(total, piece)
    if place.shape[0] == second.shape[0] and place.shape[2:] == second.shape[2:] and place.shape[1] == 1 < second.shape[1]:
        for row in range(second.shape[1]):
            place.addcmul_(first[:, row:row + 1], second[:, row:row + 1])
    else:
        place.add_((first * second).sum_to_size(place.shape))


def joined(parts: list[Tensor]) -> Tensor:
    """Rows (n, s, *shape) of several ranges of problems as one, in the order in memory that they have."""
    if len(parts) == 1:
        return parts[0]
    shape = parts[0].shape[1:]
    return torch.cat([one.flatten(0, 1) for one in parts]).reshape(-1, *shape)
