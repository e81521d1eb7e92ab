"""Boxes cut down to where a clause can still fail: what the linear bounds of its rows show is cut off.

At a counterexample to a clause the linear bounds of all its rows are at most 0, so beyond the places where one of them turns
positive there is none. Zhou et al. 2025 (Clip-and-Verify), "relaxed clipping". Here it is done one cut at a time, always the
one that takes the largest share of its box, so that what is cut off are boxes, too: leaves of a proof, each shown by one row
of each open clause, or by the sum of rows that bounds the whole box best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from boundlab.spec import Specification
from boundlab.verify.boxes import Boxes
from boundlab.verify.mixing import Lines, Mixed
from boundlab.verify.parts import members_of

MOST = 6
"""Cuts of one box."""
LEAST = 0.05
"""The share of its box that a cut takes at least: each is one more leaf of a proof."""
ROUNDING = 2 / 3
"""The power of the machine's precision, beside a row's size, by which a line is above 0 on what is cut off."""


@dataclass(frozen=True)
class Trims:
    """What is left of n boxes, and up to k cuts that led there, in order.

    The ends (n, d); of each cut its coordinate, the `side` that was cut off (1: the upper one; 0: no cut) and its place, all
    (n, k), and by which row each clause is shown on what was cut off, (n, k, c): its number in the clause, as many as these
    have for the best sum, -1 where the clause was not open. `end` (n, c) is after how many cuts a clause was shown on what was
    left (0: it was not), `last` (n, c) by which row. `floor` (n, s) are bounds of rows where their clauses were shown so.
    """

    lower: Tensor
    upper: Tensor
    coordinate: Tensor
    side: Tensor
    point: Tensor
    row: Tensor
    end: Tensor
    last: Tensor
    floor: Tensor

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The nine tensors."""
        return (self.lower, self.upper, self.coordinate, self.side, self.point, self.row, self.end, self.last, self.floor)

    def select(self, index: Tensor) -> Trims:
        """Those of some boxes."""
        return Trims(*(part[index] for part in self.parts))

    @property
    def cut(self) -> Tensor:
        """The boxes (n,) that lost anything."""
        return (self.side != 0).any(1)


def joined(lists: Sequence[Trims]) -> Trims:
    """All lists as one."""
    return Trims(*(torch.cat(parts) for parts in zip(*(one.parts for one in lists), strict=True)))


def untrimmed(boxes: Boxes, spec: Specification) -> Trims:
    """Boxes as they are."""
    (n, clauses), rows = boxes.shown.shape, spec.rows.shape[1]
    whole = boxes.owner.new_zeros(n, MOST)
    return Trims(boxes.lower, boxes.upper, whole, whole, boxes.lower.new_zeros(n, MOST),
                 boxes.owner.new_full((n, MOST, clauses), -1), boxes.owner.new_zeros(n, clauses),
                 boxes.owner.new_full((n, clauses), -1), boxes.lower.new_full((n, rows), torch.inf))


@dataclass(frozen=True)
class Planes:
    """Linear bounds of the rows of q clauses, each open on one box, and of the best sums of these rows.

    `box` and `clause` (q,), the lowest values on what is left of the box (q, a + 1), the `room` that rounding needs beside
    them, and coefficients (q, a + 1, d).
    """

    box: Tensor
    clause: Tensor
    low: Tensor
    room: Tensor
    slope: Tensor

    def select(self, index: Tensor) -> Planes:
        """Some of them."""
        return Planes(self.box[index], self.clause[index], self.low[index], self.room[index], self.slope[index])

    def along(self, coordinate: Tensor) -> Tensor:
        """The coefficients (q, a + 1) of one coordinate for each box (n,)."""
        return self.slope.gather(2, coordinate[self.box][:, None, None].expand(-1, self.slope.shape[1], 1)).squeeze(2)


def planes_of(spec: Specification, boxes: Boxes, lines: Lines, clauses: Mixed) -> Planes:
    """Those of the clauses that are neither shown on a larger box nor on the box itself."""
    members = members_of(spec.clause)
    box, clause = (~boxes.shown & ~(clauses.lower > 0)).nonzero(as_tuple=True)
    rows, weights = members[clause], clauses.weights[box, clause]
    middle, slope = lines.middle[box[:, None], rows], lines.slope[box[:, None], rows]
    if members.shape[1] > 1:
        middle = torch.cat([middle, torch.linalg.vecdot(weights, middle).unsqueeze(1)], 1)
        slope = torch.cat([slope, weights.unsqueeze(1) @ slope], 1)
    far = torch.maximum(boxes.lower.abs(), boxes.upper.abs())[box]
    size, steep = middle.abs() + torch.linalg.vecdot(slope.abs(), far[:, None]), slope.abs()
    low = middle - torch.linalg.vecdot(steep, lines.radius[box][:, None])
    known = low.isfinite() & size.isfinite()
    room = torch.where(known, torch.finfo(low.dtype).eps ** ROUNDING * size, torch.inf)
    return Planes(box, clause, torch.where(known, low, -torch.inf), room, torch.where(known.unsqueeze(2), slope, 0.0))


@dataclass(frozen=True)
class Cut:
    """One more cut of each of n boxes: `coordinate`, `side` (0: none) and place (n,), how wide the rest is there (n,), and by
    which of a + 1 lines each clause that is open is shown on what is cut off, (q,)."""

    coordinate: Tensor
    side: Tensor
    point: Tensor
    kept: Tensor
    row: Tensor


def best_cut(planes: Planes, lower: Tensor, upper: Tensor) -> Cut:
    """The cut of each box with ends (n, d) that takes the largest share of it, where any takes enough."""
    lack, number = (planes.room - planes.low).unsqueeze(2), lower.shape[1]
    reach = lack / planes.slope.abs()
    below, above = (torch.where(planes.slope * side > 0, reach, torch.inf).min(1) for side in (-1, 1))
    kept, row = torch.cat([below.values, above.values], 1), torch.cat([below.indices, above.indices], 1)
    owner = planes.box[:, None].expand_as(kept)
    widest = kept.new_zeros(len(lower), 2 * number).scatter_reduce(0, owner, kept, "amax")
    left = torch.where(widest > 0, widest / (upper - lower).repeat(1, 2), torch.inf)
    share, place = left.min(1)
    side, coordinate = torch.where(place < number, -1, 1), place % number
    first, last, wide = (end.gather(1, column[:, None]).squeeze(1) for end, column in (
        (lower, coordinate), (upper, coordinate), (widest, place)))
    point = torch.where(side > 0, first + wide, last - wide)
    real = (share <= 1 - LEAST) & (first < point) & (point < last)
    own = row.gather(1, place[planes.box][:, None]).squeeze(1)
    return Cut(coordinate, torch.where(real, side, 0), point, torch.where(side > 0, point - first, last - point), own)


def trimmed(spec: Specification, boxes: Boxes, lines: Lines | None, clauses: Mixed) -> Trims:
    """What is left of boxes, given linear bounds of the rows on them, and what is known of the clauses there."""
    found = untrimmed(boxes, spec)
    if lines is None:
        return found
    planes, members = planes_of(spec, boxes, lines, clauses), members_of(spec.clause)
    found = Trims(*(part.clone() for part in found.parts))
    for place in range(MOST):
        if len(planes.box) == 0:
            break
        cut = best_cut(planes, found.lower, found.upper)
        real = cut.side[planes.box] != 0
        planes, row = planes.select(real), cut.row[real]
        slope, side, box = planes.along(cut.coordinate), cut.side[planes.box][:, None], planes.box
        found.row[box, place, planes.clause] = row
        off = planes.low + (side * slope).clamp(min=0) * cut.kept[box][:, None]
        lowered(found.floor, planes, members, off)
        removed = end_moved(found, cut, place)
        planes = replace(planes, low=planes.low + (-side * slope).clamp(min=0) * removed[box][:, None])
        above, best = (planes.low - planes.room).max(1)
        done = above > 0
        found.end[box[done], planes.clause[done]] = place + 1
        found.last[box[done], planes.clause[done]] = best[done]
        lowered(found.floor, planes.select(done), members, planes.low[done])
        planes = planes.select(~done)
    return found


def end_moved(found: Trims, cut: Cut, place: int) -> Tensor:
    """By how much boxes become narrower (n,), whose ends move to the places of their cuts."""
    real, column = cut.side != 0, cut.coordinate[:, None]
    before = (found.upper - found.lower).gather(1, column)
    for end, side in ((found.lower, -1), (found.upper, 1)):
        end.scatter_(1, column, torch.where(cut.side == side, cut.point, end.gather(1, column).squeeze(1))[:, None])
    found.coordinate[:, place] = torch.where(real, cut.coordinate, 0)
    found.side[:, place], found.point[:, place] = cut.side, torch.where(real, cut.point, 0.0)
    return (before - (found.upper - found.lower).gather(1, column)).squeeze(1)


def lowered(floor: Tensor, planes: Planes, members: Tensor, values: Tensor) -> None:
    """Bounds of rows (n, s) that are no more than `values` (q, a + 1) of lines, but for those of sums."""
    rows = members[planes.clause]
    own = floor[planes.box[:, None], rows]
    floor[planes.box[:, None], rows] = torch.minimum(own, values[:, :members.shape[1]])
