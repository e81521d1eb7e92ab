"""Entries: the coefficients of rows that are not zero, as one list of (row, coordinate, value)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from boundlab.maps.rows import Rows
from boundlab.maps.select import Select
from boundlab.maps.windows import Windows


class Entries(NamedTuple):
    """Values (k,), each with its row and its flat coordinate; row j of problem i is number i * s + j of `total`."""

    total: int
    row: Tensor
    coordinate: Tensor
    value: Tensor


def entries(rows: Rows) -> Entries:
    """All coefficients of n x s rows but zeros; without writing rows out where they hold single coordinates or windows."""
    if isinstance(rows, Select):
        values = rows.values.expand(len(rows.index), -1)
        return without_zeros(rows.index[:, None].expand(values.shape), values)
    if isinstance(rows, Windows):
        channels, height, width = rows.shape
        y, x = rows.lines()
        place = (y - 1).clamp(0, height - 1)[:, :, None] * width + (x - 1).clamp(0, width - 1)[:, None, :]
        coordinate = torch.arange(channels, device=place.device) * (height * width) + place[..., None]
        values = torch.where(rows.inside()[:, None, ..., None], rows.coefficients, 0.0)
        return without_zeros(coordinate[:, None].expand(values.shape).flatten(2), values.flatten(2))
    values = rows.dense().flatten(2) if rows.shape else rows.dense().unsqueeze(2)
    return without_zeros(torch.arange(math.prod(rows.shape), device=values.device).expand(values.shape), values)


def without_zeros(coordinate: Tensor, values: Tensor) -> Entries:
    """Entries of values (n, s, ...) at flat coordinates of the same shape."""
    count = values.shape[0] * values.shape[1]
    flat, places = values.reshape(count, -1), coordinate.reshape(count, -1)
    row, column = flat.nonzero(as_tuple=True)
    return Entries(count, row, places[row, column], flat[row, column])
