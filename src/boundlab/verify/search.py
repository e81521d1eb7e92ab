"""What a search is: a state that goes on step by step, and what is known at each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from boundlab.verify.proof import Proof
from boundlab.verify.team import ALONE, Team
from boundlab.verify.verdict import Witness

PACE = 1.0
"""Seconds that one turn of a search should take: so many parts share it, and no more."""


@dataclass(frozen=True)
class Found:
    """What a search has found so far: witnesses by problem, proven problems with bounds of their rows (s,), and why not more.

    `parts` are those that it has bounded, `left` those that wait, of which the lowest bound is `bound` (infinite without any).
    """

    witnesses: Mapping[int, Witness]
    proven: Mapping[int, Tensor]
    parts: int
    left: int
    bound: float
    notes: tuple[str, ...] = ()


def least(bounds: Tensor) -> float:
    """The smallest of some bounds, infinite without any."""
    return float(bounds.min()) if len(bounds) else math.inf


def paced(count: int, seconds: float, most: int) -> int:
    """How many parts the next turn takes, if `count` took so many seconds."""
    if seconds > 2 * PACE:
        return max(1, count // 2)
    return min(2 * count, most) if seconds < PACE else count


class State(Protocol):
    """A search of some problems, as far as it has come."""

    @property
    def over(self) -> bool:
        """Whether nothing is left to do, or too much."""
        ...

    def without(self, problems: set[int]) -> State:
        """The search of the other problems: these have been decided elsewhere."""
        ...

    def step(self, deadline: float, team: Team = ALONE) -> State:
        """One turn further, which should end soon; at the latest at the deadline, in seconds of `time.perf_counter`."""
        ...

    def found(self) -> Found:
        """What is known by now."""
        ...

    def proof(self, problem: int) -> Proof | None:
        """How to see that a proven problem holds; None if that was not kept."""
        ...
