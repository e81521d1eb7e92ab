"""Windows: rows over an image that vanish outside a small part of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from boundlab.maps.base import flat
from boundlab.maps.rows import Explicit, Table, dot


@dataclass(frozen=True)
class Origin:
    """Where windows begin: corner = scale * position + offset, with `position` where the rows became windows.

    The position is that of flat coordinate `index` (n,) in a map whose height and width are `space`. Scale and offset are
    two plain numbers an axis, so the relative place of two windows that began alike is known without looking at data.
    """

    index: Tensor
    space: tuple[int, int]
    scale: tuple[int, int]
    offset: tuple[int, int]

    def corner(self) -> Tensor:
        """Row and column of each window's first entry, (n, 2); may lie outside the map."""
        place = self.index % (self.space[0] * self.space[1])
        position = torch.stack([place // self.space[1], place % self.space[1]], dim=1)
        return position * position.new_tensor(self.scale) + position.new_tensor(self.offset)

    def parallel(self, other: Origin) -> bool:
        """Whether both began at the same coordinates of maps of one size and move alike, so that their offsets tell all.

        Rows that became windows at different nodes (one path through a slice, say) hold different index tensors.
        """
        return self.index is other.index and self.space == other.space and self.scale == other.scale


@dataclass(frozen=True)
class Corners:
    """Where windows begin when they follow no common pattern: row and column of each first entry (n, 2)."""

    position: Tensor

    def corner(self) -> Tensor:
        """Row and column of each window's first entry, (n, 2); may lie outside the map."""
        return self.position


@dataclass(frozen=True)
class Windows(Explicit):
    """Rows over a (channels, height, width) node that vanish outside a window: coefficients (n, s, kh, kw, channels).

    Entries that lie outside the map count as zero; `clean` says that they are zero in fact. Replaces the patches of Xu et
    al. 2020, App. B, with one corner a row instead of stride and padding bookkeeping. Channels come last because that is
    the order in which convolutions and gathers run fastest.
    """

    origin: Origin | Corners
    clean: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the windows."""
        return self.coefficients.shape[2], self.coefficients.shape[3]

    @property
    def holds_rows(self) -> bool:
        return False

    def with_coefficients(self, coefficients: Tensor, clean: bool = True) -> Windows:
        return Windows(self.shape, self.owner, coefficients, self.origin, clean)

    def absolute(self) -> Windows:
        return self.with_coefficients(self.coefficients.abs(), self.clean)

    def lines(self) -> tuple[Tensor, Tensor]:
        """Row (n, kh) and column (n, kw) of each entry in the map with a border of one cell; the border itself if outside."""
        corner, (height, width) = self.origin.corner(), self.shape[1:]
        y = corner[:, :1] + torch.arange(1, self.size[0] + 1, device=corner.device)
        x = corner[:, 1:] + torch.arange(1, self.size[1] + 1, device=corner.device)
        return y.clamp(0, height + 1), x.clamp(0, width + 1)

    def places(self) -> Tensor:
        """Flat spatial index of each entry in the map with a border of one cell, (n, kh, kw)."""
        y, x = self.lines()
        return (y * (self.shape[2] + 2))[:, :, None] + x[:, None, :]

    def inside(self) -> Tensor:
        """Which entries lie in the map, (n, kh, kw)."""
        (y, x), (height, width) = self.lines(), self.shape[1:]
        return ((y > 0) & (y <= height))[:, :, None] & ((x > 0) & (x <= width))[:, None, :]

    def laid(self, table: Table) -> tuple[Tensor, ...]:
        """The table's tensors (with one row) gathered at the windows, zero outside the map: (n, 1, kh, kw, channels) each."""
        places = self.places()
        count, cells = len(places), (self.shape[1] + 2) * (self.shape[2] + 2)
        examples = torch.arange(count, device=places.device) if self.owner is None else self.owner
        found = []
        for whole in table.bordered:
            index = places if len(whole) == cells else places + (examples * cells)[:, None, None]
            found.append(whole.index_select(0, index.flatten()).reshape(count, 1, *self.size, self.shape[0]))
        return tuple(found)

    def aligned(self, value: Tensor) -> Tensor:
        """One per-example tensor (b, 1, *shape or broadcastable) gathered at the windows."""
        return self.laid(Table(self.shape, (value,)))[0]

    def dot(self, value: Tensor) -> Tensor:
        if value.shape[-2:] == (1, 1) and value.shape[0] == 1:
            return self.masked().coefficients.sum((2, 3)) @ value.flatten().expand(self.shape[0])
        return dot(self.coefficients, self.aligned(value))

    def masked(self) -> Windows:
        if self.clean:
            return self
        return self.with_coefficients(self.coefficients * self.inside()[:, None, :, :, None])

    def dense(self) -> Tensor:
        places = self.places()
        channels, height, width = self.shape
        count, rows = self.coefficients.shape[:2]
        cells = (height + 2) * (width + 2)
        start = torch.arange(count * rows, device=places.device).reshape(count, rows, 1) * cells
        index = (start + flat(places, 1)[:, None, :]).flatten()
        full = self.coefficients.new_zeros(count * rows * cells, channels)
        full.index_copy_(0, index, self.coefficients.reshape(-1, channels))
        return full.reshape(count, rows, height + 2, width + 2, channels)[:, :, 1:-1, 1:-1].permute(0, 1, 4, 2, 3)
