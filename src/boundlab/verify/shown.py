"""What boxes have shown, for proofs: leaves, and the slopes by which anyone can see them.

A leaf is a box that shows a clause, or a part of a box that one of its cuts has taken away, where the lines of the whole box
show the clause. All leaves of a box lie in one frame: what they need is derived once, on their hull.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from boundlab.verify.bounded import Bounded, first_shown, telling
from boundlab.verify.boxes import Boxes
from boundlab.verify.cuts import Cuts
from boundlab.verify.proof import Slopes, some


@dataclass(frozen=True)
class Leaves:
    """m leaves: on which box each lies (m,), by place in a list, its own number among all boxes, its clause (m,), and by
    which weights of the clause's rows (m, a) it is shown."""

    place: Tensor
    number: Tensor
    clause: Tensor
    weights: Tensor

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The four tensors."""
        return self.place, self.number, self.clause, self.weights

    def select(self, index: Tensor) -> Leaves:
        """Some leaves, or those where a mask is true."""
        return Leaves(*(part[index] for part in self.parts))


def together(lists: Sequence[Leaves]) -> Leaves:
    """The leaves of all lists, which are about the same boxes."""
    return Leaves(*(torch.cat(parts) for parts in zip(*(one.parts for one in lists), strict=True)))


@dataclass(frozen=True)
class Shown:
    """n boxes with their leaves, and the slopes of plain lines on the boxes (n, size), unless these are to be made again."""

    boxes: Boxes
    leaves: Leaves
    plain: Slopes | None

    def select(self, mask: Tensor) -> Shown | None:
        """Those boxes where a mask (n,) is true, with their leaves; None if it is so nowhere."""
        if not bool(mask.any()):
            return None
        leaves = self.leaves.select(mask[self.leaves.place])
        leaves = replace(leaves, place=mask.cumsum(0)[leaves.place] - 1)
        return Shown(self.boxes.select(mask), leaves, None if self.plain is None else some(self.plain, mask.cpu()))

    @property
    def bytes(self) -> int:
        """What the slopes hold."""
        sides = [side for pairs in (self.plain or {}).values() for pair in pairs for side in pair]
        return sum(side.numel() * side.element_size() for side in sides)


def shown_of(boxes: Boxes, found: Bounded, cuts: Cuts) -> tuple[Shown, Tensor]:
    """What boxes are the first to show, and the numbers (n,) of what is left of them, whose cuts are put down."""
    fresh = first_shown(boxes, found.mixed)
    place, clause = fresh.nonzero(as_tuple=True)
    lists = [Leaves(place, boxes.number[place], clause, found.mixed.weights[place, clause])]
    number, trims = boxes.number.clone(), found.trims
    for step in range(trims.side.shape[1]):
        box = trims.side[:, step].nonzero().squeeze(1)
        if len(box) == 0:
            break
        below, above = cuts.halved(number[box], trims.coordinate[box, step], trims.point[box, step])
        upper = trims.side[box, step] > 0
        off = number.index_copy(0, box, torch.where(upper, above, below))
        number[box] = torch.where(upper, below, above)
        lists.append(by_lines(found, trims.row[:, step], off))
        lists.append(by_lines(found, torch.where(trims.end == step + 1, trims.last, -1), number))
    telling_, leaves = telling(boxes, found.mixed, trims), together(lists)
    leaves = replace(leaves, place=telling_.cumsum(0)[leaves.place] - 1)
    return Shown(boxes.select(telling_), leaves, found.plain), number


def by_lines(found: Bounded, row: Tensor, number: Tensor) -> Leaves:
    """Leaves of the clauses that have a row (n, c) of at least 0, in boxes with numbers (n,): shown by this row of the clause,
    or by the sum that is best on the whole box."""
    place, clause = (row >= 0).nonzero(as_tuple=True)
    own, best = row[place, clause], found.mixed.weights[place, clause]
    alone = torch.nn.functional.one_hot(own, best.shape[1] + 1)[:, :-1].to(best)
    return Leaves(place, number[place], clause, torch.where((own < best.shape[1])[:, None], alone, best))


def all_leaves(parts: Sequence[Shown]) -> Leaves:
    """The leaves of all parts, on the boxes of all in one list."""
    first, leaves = 0, list[Leaves]()
    for part in parts:
        leaves.append(replace(part.leaves, place=part.leaves.place + first))
        first += len(part.boxes)
    return together(leaves)
