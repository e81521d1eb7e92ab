"""LP and MILP: bounds by linear programs over lines around every operator, and exact ones with integers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from boundlab.bounds.backward import Env
from boundlab.bounds.methods import CROWN, method_value
from boundlab.bounds.problem import Bounds, Method, Problem
from boundlab.engines.engine import Engine, Serial, engine_value
from boundlab.engines.task import Function
from boundlab.errors import SpecError
from boundlab.programs.minima import Minima, Search, bounds_over, extra, minima_over, together

if TYPE_CHECKING:
    from boundlab.programs.inner import Case


@dataclass(frozen=True)
class LP:
    """Linear programs over several lines around every operator, for inner neurons and for the specification's rows.

    `LP()` is LP-ALL: bounds of inner neurons by `base`, each made as tight as a program of its own can; `LP(base, inner=False)`
    is LP-LAST, on bounds by `base` as they are (Salman et al. 2019, Sec. 5). With lines=1 an operator has one line a side, as
    in CROWN; with 3 a ReLU has its hull, and an S-shaped curve three tangents (Lyu et al. 2020, App. A.4). A row is not
    minimised to the end once it is proven to be above `enough`, and problems of which `base` proves that are left alone. Bounds
    come from multipliers, in float64, whatever the solver did, and are never below those of `base`. Programs are tasks of
    `engine`. Needs the extra `lp`.
    """

    base: Method = field(default_factory=CROWN)
    inner: bool = True
    lines: int = 3
    enough: float | None = None
    engine: Engine = field(default_factory=Serial)

    def __post_init__(self) -> None:
        method_value(self.base)
        engine_value(self.engine)
        if self.lines < 1:
            raise SpecError(f"lines counts the lines on each side of an operator, at least 1, got {self.lines!r}.")

    @property
    def search(self) -> Search:
        """How rows are minimised."""
        return Search(extra().tasks.minima_of_rows, {}, self.enough, self.engine)

    def environment(self, problem: Problem) -> Env:
        wide = extra().inner.in_double(problem)
        return together(self.cases(wide, self.base.environment(wide)), problem)

    def cases(self, wide: Problem, known: Env, still: Tensor | None = None) -> list[Case]:
        """Every problem of `wide` (in float64) alone, with intervals and program; those of `still` (b,) are tightened."""
        inner = extra().inner
        cases: list[Case] = inner.cases_of(wide, known, self.lines)
        chosen = [case for place, case in enumerate(cases) if still is None or bool(still[place])]
        if self.inner and chosen:
            inner.tightened(chosen, self.engine)
        return cases

    def minima(self, problem: Problem) -> Minima:
        """The minima of a specification's rows, from both sides, in float64."""
        return minima_over(extra().inner.in_double(problem), self.base, self.cases, self.search)[0]

    def run(self, problem: Problem) -> Bounds:
        return bounds_over(problem, self.base, self.cases, self.search)


@dataclass(frozen=True)
class MILP:
    """Exact minima by integer programs: a ReLU (and whatever is affine between breaks, or a maximum) is on one of its pieces.

    Bounds of inner neurons by `base` say which neurons need an integer. A row is given `seconds`; what is proven by then is the
    bound, `minima` also has the best point found. A row's search ends once it is proven to be above `enough`, and problems of
    which `base` proves that are left alone. As exact as the solver is: HiGHS by default, by_scip or by_gurobi of
    `programs/integer.py` where installed.
    Tjeng et al. 2019. Needs the extra `lp`.
    """

    base: Method = field(default_factory=CROWN)
    seconds: float = 60.0
    enough: float | None = None
    solver: Function | None = None
    engine: Engine = field(default_factory=Serial)

    def __post_init__(self) -> None:
        method_value(self.base)
        engine_value(self.engine)
        if not self.seconds > 0:
            raise SpecError(f"seconds are what one row may take, a positive number, got {self.seconds!r}.")

    @property
    def search(self) -> Search:
        """How rows are minimised."""
        solver = extra().integer.by_highs if self.solver is None else self.solver
        return Search(solver, {"seconds": np.array(self.seconds)}, self.enough, self.engine)

    def environment(self, problem: Problem) -> Env:
        return self.base.environment(problem)

    def cases(self, wide: Problem, known: Env, still: Tensor | None = None) -> list[Case]:
        """Every problem of `wide` (in float64) alone, with its intervals and its program."""
        found: list[Case] = extra().inner.cases_of(wide, known, 1, exact=True)
        return found

    def minima(self, problem: Problem) -> Minima:
        """The minima of a specification's rows, from both sides, in float64."""
        return minima_over(extra().inner.in_double(problem), self.base, self.cases, self.search)[0]

    def run(self, problem: Problem) -> Bounds:
        return bounds_over(problem, self.base, self.cases, self.search)
