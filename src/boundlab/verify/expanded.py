"""What becomes of parts in one turn of branch and bound: they are bounded, and those that are not proven are split."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from boundlab.errors import MissingRule
from boundlab.verify.expansion import Expansion
from boundlab.verify.narrowing import PAYS, narrowed
from boundlab.verify.parts import Parts
from boundlab.verify.proof import Narrowed, Proof


@dataclass(frozen=True)
class Expanded:
    """Parts that were `proven`, with their proof if it is kept, those `left` for which the time was over, the `halves` of the
    others, and those that are `stuck`.

    `points` (n, *shape) by input name may be witnesses of the goals `tried` (n,). `ends` were found on the halves if that paid.
    """

    proven: Parts
    proof: Proof | None
    left: Parts
    halves: Parts
    stuck: Parts
    tried: Tensor
    points: Mapping[str, Tensor] = field(default_factory=dict)
    ends: Narrowed | None = None
    pays: bool = True


@torch.no_grad()
def expanded(expansion: Expansion, parts: Parts, first: int, keep: bool, narrow: bool, deadline: float) -> Expanded:
    """One turn for some parts: proofs if they are to be kept, ends of neurons' intervals if these are to be sought.

    The halves get numbers from `first` on. On a device their proof is brought to the CPU.
    """
    now = expansion.bounded(parts, deadline)
    shown = now.lower > expansion.goals.margin[now.goal]
    proven, now = now.select(shown), now.select(~shown)
    proof = expansion.shown(proven) if keep and len(proven.goal) else None
    none = now.select(now.goal[:0])
    bare = replace(proven, variables={}, inner={})
    if len(now.goal) == 0 or time.perf_counter() >= deadline:
        return Expanded(bare, proof, now, none, none, none.goal)
    points = points_of(expansion, now)
    halves, stuck = expansion.split(now)
    done = Expanded(bare, proof, none, halves, stuck, now.goal, points)
    if not narrow or len(halves.goal) == 0:
        return done
    found = narrowed(expansion, halves, first, deadline)
    if found.gain < PAYS:
        return replace(done, pays=False)
    return replace(done, halves=found.parts, ends=found.narrowed.cpu() if keep and len(found.narrowed.part) else None)


def points_of(expansion: Expansion, parts: Parts) -> Mapping[str, Tensor]:
    """Where the bounds of parts are lowest, by input name; nothing where a set does not say which points it has."""
    try:
        return expansion.points(parts)
    except MissingRule:
        return {}
