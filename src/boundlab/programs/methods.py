"""LP and MILP: bounds by linear programs over lines around every operator, and exact ones with integers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from boundlab.bounds.backward import Env
from boundlab.bounds.intermediate import checked
from boundlab.bounds.methods import CROWN, method_value
from boundlab.bounds.optimise import both_sides
from boundlab.bounds.problem import Bounds, Method, Problem, finite_rows, joined
from boundlab.errors import MissingPackage, SpecError
from boundlab.evaluate import evaluate
from boundlab.interval import Interval
from boundlab.maps import Dense

if TYPE_CHECKING:
    from boundlab.programs.inner import Case
    from boundlab.programs.integer import IntegerSolver


@dataclass(frozen=True)
class Minima:
    """The minimum of every row of a specification: proven to be at least `lower` (b, s), and at most `upper`.

    `upper` is the row's value at `points`, inputs in the sets (b, s, *shape) by name, at which the network was evaluated.
    """

    lower: Tensor
    upper: Tensor
    points: Mapping[str, Tensor]
    env: Env = field(repr=False)


@dataclass(frozen=True)
class LP:
    """Linear programs over several lines around every operator, for inner neurons and for the specification's rows.

    `LP()` is LP-ALL: bounds of inner neurons by `base`, each made as tight as a program of its own can; `LP(base, inner=False)`
    is LP-LAST, on bounds by `base` as they are (Salman et al. 2019, Sec. 5). With lines=1 an operator has one line a side, as
    in CROWN; with 3 a ReLU has its hull, and an S-shaped curve three tangents (Lyu et al. 2020, App. A.4). A row is not
    minimised to the end once it is proven to be above `enough`, and problems of which `base` proves that are left alone. Bounds
    come from multipliers, in float64, whatever the solver did, and are never below those of `base`. Needs the extra `lp`.
    """

    base: Method = field(default_factory=CROWN)
    inner: bool = True
    lines: int = 3
    enough: float | None = None

    def __post_init__(self) -> None:
        method_value(self.base)
        if self.lines < 1:
            raise SpecError(f"lines counts the lines on each side of an operator, at least 1, got {self.lines!r}.")

    def environment(self, problem: Problem) -> Env:
        wide = extra().inner.in_double(problem)
        return together(self.cases(wide, self.base.environment(wide)), problem)

    def cases(self, wide: Problem, known: Env, open_ones: Tensor | None = None) -> list[Case]:
        """Every problem of `wide` (in float64) alone, with intervals and program; those of `open_ones` (b,) are tightened."""
        inner = extra().inner
        cases: list[Case] = inner.cases_of(wide, known, self.lines)
        chosen = [case for place, case in enumerate(cases) if open_ones is None or bool(open_ones[place])]
        if self.inner and chosen:
            inner.tightened(chosen, in_order)
        return cases

    def minima(self, problem: Problem) -> Minima:
        """The minima of a specification's rows, from both sides."""
        wide = extra().inner.in_double(problem)
        cases = self.cases(wide, self.base.environment(wide))
        return minima_of(problem, cases, extra().tasks.minima_of_rows, self.enough)

    def run(self, problem: Problem) -> Bounds:
        if problem.spec is None:
            return bounds_by(self.minima, problem)
        wide = extra().inner.in_double(problem)
        first = self.base.run(wide)
        lower = first.lower.expand(wide.batch, -1).clone()
        still = torch.ones(len(lower), dtype=torch.bool) if self.enough is None else (lower <= self.enough).any(1)
        cases, places = self.cases(wide, first.env, still), still.nonzero().flatten()
        if len(places):
            chosen = [cases[place] for place in places.tolist()]
            found = minima_of(wide.take(places), chosen, extra().tasks.minima_of_rows, self.enough)
            lower[places] = torch.maximum(lower[places], found.lower)
        spec = problem.spec
        return Bounds(finite_rows(lower.to(spec.rows), problem), None, problem.model.graph, together(cases, problem))


@dataclass(frozen=True)
class MILP:
    """Exact minima by integer programs: a ReLU (and whatever is affine between breaks, or a maximum) is on one of its pieces.

    Bounds of inner neurons by `base` say which neurons need an integer. A row is given `seconds`; what is proven by then is the
    bound, `minima` also has the best point found. A row's search ends once it is proven to be above `enough`. As exact as the
    solver is: HiGHS by default, Scip() or Gurobi() where installed. Tjeng et al. 2019. Needs the extra `lp`.
    """

    base: Method = field(default_factory=CROWN)
    seconds: float = 60.0
    enough: float | None = None
    solver: IntegerSolver | None = None

    def __post_init__(self) -> None:
        method_value(self.base)
        if not self.seconds > 0:
            raise SpecError(f"seconds are what one row may take, a positive number, got {self.seconds!r}.")

    def environment(self, problem: Problem) -> Env:
        return self.base.environment(problem)

    def minima(self, problem: Problem) -> Minima:
        """The minima of a specification's rows, from both sides."""
        wide = extra().inner.in_double(problem)
        cases = extra().inner.cases_of(wide, self.environment(wide), 1, exact=True)
        solver = extra().integer.Highs() if self.solver is None else self.solver
        return minima_of(problem, cases, solver.solve, self.enough, {"seconds": np.array(self.seconds)})

    def run(self, problem: Problem) -> Bounds:
        return bounds_by(self.minima, problem)


def extra() -> Any:
    """The part of this package that needs the extra `lp`; MissingPackage without it."""
    try:
        from boundlab.programs import solvers
    except ImportError as problem:
        raise MissingPackage("linear and integer programs need packages: pip install 'boundlab[lp]'.") from problem
    return solvers


def in_order(function: Callable[..., Any], tasks: Any) -> list[Any]:
    """One task after the other, here."""
    return [function(task) for task in tasks]


def together(cases: list[Case], problem: Problem) -> Env:
    """The cases' intervals as those of the whole batch, in the problem's own type."""
    like = problem.sets[min(problem.sets)].box().lower

    def cast(value: Tensor) -> Tensor:
        return value.to(like) if value.is_floating_point() else value.to(like.device)

    parts: list[Env] = [{index: value.map(cast) if isinstance(value, Interval) else cast(value)
                         for index, value in case.env.items()}
                        for case in cases]
    return joined(parts, problem) if len(parts) > 1 else parts[0]


def minima_of(problem: Problem, cases: list[Case], function: Callable[..., Any], enough: float | None,
              more: Mapping[str, np.ndarray] | None = None) -> Minima:
    """The rows of each case's specification over its program, by `function` of one task a case, with `more` arrays."""
    assert problem.spec is not None
    tasks, limit = [], math.inf if enough is None else enough
    for case in cases:
        spec = case.problem.spec
        assert spec is not None
        rows = Dense(problem.target.shape, None, spec.rows)
        form = case.encoding.rows_form(problem.target.index, rows)
        shifted = replace(form, constant=form.constant + spec.offset.numpy().reshape(-1))
        given = {**(more or {}), "enough": np.full(len(shifted.constant), limit)}
        tasks.append(extra().tasks.with_costs(case.encoding.draft.program(), shifted, **given))
    found = in_order(function, tasks)
    like = problem.spec.rows
    lower = torch.stack([torch.from_numpy(result["value"]) for result in found]).to(like)
    parts = [reached(case, result["point"]) for case, result in zip(cases, found, strict=True)]
    upper = torch.stack([value for value, _ in parts]).to(like)
    points = {name: torch.stack([where[name] for _, where in parts]) for name in parts[0][1]}
    return Minima(lower, upper, points, together(cases, problem))


def reached(case: Case, columns: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
    """The rows' values (s,) at the inputs that a program's points (s, columns) stand for, and these inputs (s, *shape)."""
    problem, points = case.problem, {}
    for index, region in problem.sets.items():
        node = problem.model.graph[index]
        form, middle = case.encoding.forms.get(index), region.box().center
        place = middle.expand(len(columns), 1, *node.shape)
        if form is not None:  # no row depends on a source without a form
            flat = columns[:, :form.matrix.shape[1]] @ form.matrix.T + form.constant
            found = torch.from_numpy(flat).reshape(place.shape)
            known = torch.isfinite(found).flatten(1).all(1).reshape(-1, *[1] * (place.dim() - 1))
            place = torch.where(known, found, place)
        points[node.name] = region.project(place)[:, 0]
    assert problem.spec is not None
    return problem.spec.values(evaluate(problem.model, {**problem.inputs, **points})).diagonal(), points


def bounds_by(minima: Callable[[Problem], Minima], problem: Problem) -> Bounds:
    """Bounds of the specification's rows, or of the output's two sides, from minima."""
    graph, target = problem.model.graph, problem.target
    if problem.spec is not None:
        found = minima(problem)
        return Bounds(finite_rows(found.lower, problem), None, graph, found.env)
    found = minima(replace(problem, spec=both_sides(problem)))
    low, negated = found.lower.chunk(2, dim=1)
    interval = found.env[target.index]
    assert isinstance(interval, Interval)
    sides = Interval(low.reshape(len(low), *target.shape), -negated.reshape(len(low), *target.shape))
    tight = checked(target, interval.meet(sides))
    return Bounds(tight.lower, tight.upper, graph, {**found.env, target.index: tight})
