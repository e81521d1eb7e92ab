"""The search for a threshold of every problem of a batch at once: doubling, then bisection, each with a bracket of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from boundlab.attack.pgd import PGD
from boundlab.errors import SpecError
from boundlab.verify.verdict import Witness


@dataclass(frozen=True)
class Outcome:
    """Of problems at one radius each: whether the statement held (m,), and by problem what refuted it, if known.

    `margins` (m,) say by how much it held, or by how much it failed where they are below 0; they guide the search.
    """

    held: Tensor
    witnesses: Mapping[int, Witness] = field(default_factory=dict)
    margins: Tensor | None = None


QUICK = PGD(steps=20, restarts=2, targets=2)
"""An attack that is repeated at many radii: short, but with a random start beside the input, where gradients may vanish."""
LEAPS = (2.0, 10.0)
"""Between which factors a radius grows that never failed, by how far its margin has fallen."""
NEXT = 1.1
"""By which factor the radius of a method grows first that begins where another one ended: it seldom proves twice as much."""
COARSE = 0.05
"""The finest tolerance of an attack's radius: what it finds by chance varies by more."""
BEFORE, NEAR, STEP = 0.4, 0.6, 0.9
"""In tolerances: how far before the radius where the margin should cross 0 a trial is aimed; up to where before it a proven
radius counts as near; and how far beyond a near one the next trial is, which closes the bracket if it fails."""

Trial = Callable[[Tensor, Tensor, int], Outcome]
"""The outcome for problems `index` (m,) at radii (m,), in a turn of the search that has this number."""


@dataclass(frozen=True)
class Search:
    """How radii are searched: from `start`, larger or smaller, then between a proof and a failure until
    their distance over their mean is at most `tolerance`.

    `known` are radii that are proven already, by another method (0: none), in the shape of the result: the search for proofs
    goes on from them. `attack` searches counterexamples from the proven radii on (None: no attack), in the same way, but to no
    finer tolerance than `COARSE`. At most `rounds` radii are tried of one problem by each method and by the attack.
    """

    start: float = 0.01
    tolerance: float = 0.01
    rounds: int = 50
    attack: PGD | None = QUICK
    known: Tensor | None = None

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("tolerance", self.tolerance)):
            if not 0 < value < math.inf:
                raise SpecError(f"the {name} of a search for a radius must be a positive number, got {value!r}.")
        if self.known is not None and not bool((torch.isfinite(self.known) & (self.known >= 0)).all()):
            raise SpecError("radii that are known to be proven must be finite and not negative.")
        if self.rounds < 1:
            raise SpecError(f"a search for a radius needs at least one round, got {self.rounds!r}.")


@dataclass(frozen=True)
class Bracket:
    """Of each problem the largest radius `low` (n,) at which its statement held (0: none), and `high` (n,) at which it did not.

    `high` is inf where it never failed, and always above `low`: nothing is said about what lies between or beyond them.
    `above` and `below` are the margins at these ends, `first` those at radius 0. `witnesses` refute the statement at `high`;
    `tried` counts trials. Where nothing failed, radii grow by the factor `leap` at least.
    """

    low: Tensor
    high: Tensor
    above: Tensor
    below: Tensor
    first: Tensor
    witnesses: Mapping[int, Witness] = field(default_factory=dict)
    tried: int = 0
    leap: float = LEAPS[0]

    def met(self, index: Tensor, eps: Tensor, outcome: Outcome) -> Bracket:
        """After a trial of the problems `index` (m,) at radii `eps` between their ends."""
        margins = torch.full_like(eps, torch.nan) if outcome.margins is None else outcome.margins

        def put(end: Tensor, value: Tensor, where: Tensor) -> Tensor:
            return end.index_copy(0, index, torch.where(where, value, end[index]))

        held, failed = outcome.held, ~outcome.held
        return replace(self, low=put(self.low, eps, held), high=put(self.high, eps, failed),
                       above=put(self.above, margins, held), below=put(self.below, margins, failed),
                       witnesses={**self.witnesses, **outcome.witnesses}, tried=self.tried + len(index))

    def grown(self) -> Tensor:
        """A larger radius where nothing failed yet, (n,): half of where the margin would reach 0 if it fell on steadily."""
        reach = self.low * self.first / (self.first - self.above)
        return torch.minimum(torch.maximum((reach / 2).nan_to_num(nan=0.0), self.leap * self.low), LEAPS[1] * self.low)

    def between(self, tolerance: float) -> Tensor:
        """A radius just before or after the line through the margins at both ends crosses 0, (n,); NaN without such margins."""
        crossing = self.low + (self.high - self.low) * self.above / (self.above - self.below)
        near = self.low >= crossing * (1 - NEAR * tolerance)
        aimed = torch.where(near, self.low * (1 + STEP * tolerance), crossing * (1 - BEFORE * tolerance))
        return torch.where((aimed > self.low) & (aimed < self.high), aimed, torch.nan)

    def next(self, start: Tensor, cap: Tensor, tolerance: float | None) -> Tensor:
        """The radius to try, (n,): larger ones up to `cap` while nothing failed, then one between the ends.

        That is the middle, or with a `tolerance` where margins say that it should be.
        """
        grown = torch.minimum(torch.where(self.low > 0, self.grown(), start), cap)
        middle = self.low + (self.high - self.low) / 2
        aimed = middle if tolerance is None else self.between(tolerance)
        return torch.where(self.high.isinf(), grown, torch.where(aimed.isnan(), middle, aimed))

    def open(self, tolerance: float, whole: bool) -> Tensor:
        """Whether a problem's ends are still too far apart, (n,) booleans."""
        if whole:
            return self.high - self.low > 1
        return self.high.isinf() | (self.high - self.low > tolerance * (self.high + self.low) / 2)


def untried(margins: Tensor) -> Bracket:
    """The brackets of problems with these margins (n,) at radius 0: empty where the statement fails there already."""
    low = torch.zeros_like(margins)
    nothing = torch.full_like(margins, torch.nan)
    return Bracket(low, torch.full_like(margins, torch.inf).where(margins > 0, 0.0), margins, nothing, margins)


def narrowed(bracket: Bracket, trial: Trial, start: Tensor, cap: Tensor, search: Search, whole: bool) -> Bracket:
    """The bracket (n,) after at most `search.rounds` trials of each problem.

    Growth stops at `cap` (n,): a problem that holds there is done. `start` (n,) is tried first where `low` is 0. Every fourth
    radius is the middle of a bracket whatever margins say, so that brackets shrink for any of them.
    """
    for turn in range(search.rounds):
        eps = bracket.next(start, cap, None if whole or turn % 4 == 3 else search.tolerance)
        eps = torch.minimum(torch.maximum(eps.floor(), bracket.low + 1), cap.floor()) if whole else eps
        fresh = (eps > bracket.low) & (eps < bracket.high) & torch.isfinite(eps)
        index = (bracket.open(search.tolerance, whole) & fresh).nonzero().flatten()
        if len(index) == 0:
            break
        bracket = bracket.met(index, eps[index], trial(index, eps[index], turn))
    return bracket
