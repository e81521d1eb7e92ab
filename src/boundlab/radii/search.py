"""The search for a threshold of every problem of a batch at once: doubling, then bisection, each with a bracket of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from boundlab.attack.pgd import PGD
from boundlab.errors import SpecError
from boundlab.verify.verdict import Witness


@dataclass(frozen=True)
class Outcome:
    """Of problems at one radius each: whether the statement held, (m,) booleans, and by problem what refuted it, if known."""

    held: Tensor
    witnesses: Mapping[int, Witness] = field(default_factory=dict)


QUICK = PGD(steps=20, restarts=1)
"""An attack that is repeated at many radii: one start, and short."""

Trial = Callable[[Tensor, Tensor], Outcome]
"""The outcome for problems `index` (m,) at radii (m,)."""


@dataclass(frozen=True)
class Search:
    """How radii are searched: from `start`, doubled or halved, then bisected until (high - low) / mean <= `tolerance`.

    `attack` searches counterexamples from the proven radii on (None: no attack), in the same way. At most `rounds` radii are
    tried of one problem by each method and by the attack.
    """

    start: float = 0.01
    tolerance: float = 0.01
    rounds: int = 50
    attack: PGD | None = QUICK

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("tolerance", self.tolerance)):
            if not 0 < value < math.inf:
                raise SpecError(f"the {name} of a search for a radius must be a positive number, got {value!r}.")
        if self.rounds < 1:
            raise SpecError(f"a search for a radius needs at least one round, got {self.rounds!r}.")


@dataclass(frozen=True)
class Bracket:
    """Of each problem the largest radius `low` (n,) at which its statement held (0: none), and `high` (n,) at which it did not.

    `high` is inf where it never failed, and always above `low`: nothing is said about what lies between or beyond them.
    `witnesses` refute it at `high`; `tried` counts trials.
    """

    low: Tensor
    high: Tensor
    witnesses: Mapping[int, Witness] = field(default_factory=dict)
    tried: int = 0

    def met(self, index: Tensor, eps: Tensor, outcome: Outcome) -> Bracket:
        """After a trial of the problems `index` (m,) at radii `eps` between their ends."""
        low = self.low.index_copy(0, index, torch.where(outcome.held, eps, self.low[index]))
        high = self.high.index_copy(0, index, torch.where(outcome.held, self.high[index], eps))
        return Bracket(low, high, {**self.witnesses, **outcome.witnesses}, self.tried + len(index))

    def next(self, start: Tensor, cap: Tensor, whole: bool) -> Tensor:
        """The radius to try, (n,): twice the last one while nothing failed, but not above `cap`; then the middle."""
        grown = torch.minimum(torch.where(self.low > 0, 2 * self.low, start), cap)
        chosen = torch.where(self.high.isinf(), grown, self.low + (self.high - self.low) / 2)
        return chosen.floor().clamp(min=1) if whole else chosen

    def open(self, tolerance: float, whole: bool) -> Tensor:
        """Whether a problem's ends are still too far apart, (n,) booleans."""
        if whole:
            return self.high - self.low > 1
        return self.high.isinf() | (self.high - self.low > tolerance * (self.high + self.low) / 2)


def narrowed(bracket: Bracket, trial: Trial, start: Tensor, cap: Tensor, search: Search, whole: bool) -> Bracket:
    """The bracket (n,) after at most `search.rounds` trials of each problem.

    Doubling stops at `cap` (n,): a problem that holds there is done. `start` (n,) is tried first where `low` is 0.
    """
    for _ in range(search.rounds):
        eps = bracket.next(start, cap, whole)
        fresh = (eps > bracket.low) & (eps < bracket.high) & torch.isfinite(eps)
        index = (bracket.open(search.tolerance, whole) & fresh).nonzero().flatten()
        if len(index) == 0:
            break
        bracket = bracket.met(index, eps[index], trial(index, eps[index]))
    return bracket
