"""Clauses of several rows on boxes: sums of their rows, with weights of at least 0, that are positive where no row is alone.

Where some row of a clause is positive at every point of a box, often none is on all of it. Of linear bounds of the rows such
weights exist whenever they show the clause at all (Farkas' lemma); they are sought row by row, each step to the best place
between the sum so far and one more row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from boundlab.spec import Specification
from boundlab.verify.parts import members_of

MOST = 4
"""Rows of a clause that are mixed, those with the highest bounds."""


@dataclass(frozen=True)
class Lines:
    """Linear lower bounds of rows on n boxes: values in the middles (n, s), coefficients (n, s, d), half widths (n, d)."""

    middle: Tensor
    slope: Tensor
    radius: Tensor


@dataclass(frozen=True)
class Mixed:
    """What is known of the clauses on n boxes: bounds (n, c) of the sums of their a rows with `weights` (n, c, a)."""

    lower: Tensor
    weights: Tensor


def mixed(spec: Specification, lower: Tensor, lines: Lines | None) -> Mixed:
    """The best bound of each clause, given bounds of its rows (n, s) and, if there are some, linear bounds of them."""
    members = members_of(spec.clause)
    again = torch.cat([torch.zeros_like(members[:, :1], dtype=torch.bool), members[:, 1:] == members[:, :1]], 1)
    own = torch.where(again, -torch.inf, lower[:, members])
    best, weights = own.amax(2), torch.nn.functional.one_hot(own.argmax(2), members.shape[1]).to(lower)
    box, clause = (best <= 0).nonzero(as_tuple=True)
    if lines is None or members.shape[1] == 1 or len(box) == 0:
        return Mixed(best, weights)
    rows, radius = members[clause], lines.radius[box]
    order = own[box, clause].argsort(1, descending=True)[:, :MOST]
    middle, slope = lines.middle[box[:, None], rows], lines.slope[box[:, None], rows]
    every = torch.arange(len(box), device=box.device)
    share = torch.nn.functional.one_hot(order[:, 0], members.shape[1]).to(lower)
    value, turn = middle[every, order[:, 0]], slope[every, order[:, 0]]
    for place in order[:, 1:].T:
        gain, change = middle[every, place] - value, slope[every, place] - turn
        step = torch.where(again[clause, place], 0.0, best_step(gain, turn, change, radius))
        value, turn = value + step * gain, turn + step[:, None] * change
        share = torch.lerp(share, torch.nn.functional.one_hot(place, members.shape[1]).to(share), step[:, None])
    found = value - torch.linalg.vecdot(turn.abs(), radius)
    better = found > best[box, clause]
    box, clause = box[better], clause[better]
    return Mixed(best.index_put((box, clause), found[better]), weights.index_put((box, clause), share[better]))


def best_step(gain: Tensor, slope: Tensor, change: Tensor, radius: Tensor) -> Tensor:
    """Where between 0 and 1 the concave function t * gain - |slope + t * change| . radius is largest, (m,).

    It bends where a coefficient (m, d) changes its sign, and its derivative falls there.
    """
    crosses = slope * change < 0
    bend = torch.where(crosses, -slope / torch.where(crosses, change, 1.0), torch.inf)
    fall = torch.where(crosses, 2 * change.abs() * radius, 0.0)
    sign = torch.where(slope == 0, change.sign(), slope.sign())
    bend, order = bend.sort(1)
    rise = gain - torch.linalg.vecdot(sign * change, radius)
    after = rise[:, None] - fall.gather(1, order).cumsum(1)
    first = torch.where(after <= 0, bend, torch.inf).amin(1).clamp(max=1)
    return torch.where(rise > 0, first, 0.0)
