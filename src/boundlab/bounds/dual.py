"""The Lagrangian dual of the layer-wise relaxation: CROWN with multipliers in the place of lines, raised to its optimum."""

from __future__ import annotations

from dataclasses import dataclass, field

from boundlab.bounds.backward import Env
from boundlab.bounds.methods import CROWN
from boundlab.bounds.optimise import Optimised
from boundlab.bounds.problem import Bounds, Method, Problem
from boundlab.bounds.space import Lagrangian

SMALLEST = 0.002
"""The last step's size as a share of the first one's."""


@dataclass(frozen=True)
class Dual:
    """The dual of the relaxation by hulls (LP-LAST for ReLU) on inner bounds by `base`, each row raised on its own.

    Rows go back as in CROWN, but the row before a nonlinear function of one argument is free, and what is lost there is
    computed (`Lagrangian`). Any number of `steps` of Adam gives a sound bound, never below CROWN; with many it reaches the
    optimum of the relaxation, which no lines on the same inner bounds exceed. The size of steps falls from `rate` to its
    `SMALLEST` share. Rows of a specification above `enough` rise no further. `memory` ("4GB", or bytes) may be held at once, by
    `base` too.

    Salman et al. 2019, Eq. 11; Dvijotham et al. 2018.
    """

    base: Method = field(default_factory=CROWN)
    steps: int = 300
    rate: float = 0.5
    memory: str | int | None = None
    enough: float | None = None

    def __post_init__(self) -> None:
        self.ascent()

    def ascent(self) -> Optimised:
        """The same as optimised bounds in the space of multipliers."""
        decay = SMALLEST ** (1 / max(1, self.steps))
        return Optimised(self.base, self.steps, self.rate, self.memory, space=Lagrangian(), decay=decay,
                         enough=self.enough)

    def environment(self, problem: Problem) -> Env:
        return self.ascent().environment(problem)

    def run(self, problem: Problem) -> Bounds:
        return self.ascent().run(problem)
