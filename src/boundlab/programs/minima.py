"""Minima of a specification's rows over the programs of all problems, and bounds made of them."""

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
from boundlab.bounds.problem import Bounds, Method, Problem, finite_rows, joined
from boundlab.engines.engine import Engine
from boundlab.engines.task import Function
from boundlab.errors import BoundError, MissingPackage, SpecError
from boundlab.evaluate import evaluate
from boundlab.interval import Interval
from boundlab.maps import Dense
from boundlab.spec import both_sides

if TYPE_CHECKING:
    from boundlab.programs.inner import Case


SLACK = 1e-6
"""What bounds and values may differ by, as a share, before they contradict each other."""


@dataclass(frozen=True)
class Minima:
    """The minimum of every row of a specification: proven to be at least `lower` (b, s), and at most `upper`.

    `upper` is the row's value at `points`, inputs in the sets (b, s, *shape) by name, at which the network was evaluated.
    """

    lower: Tensor
    upper: Tensor
    points: Mapping[str, Tensor] = field(repr=False)


@dataclass(frozen=True)
class Search:
    """How rows are minimised: the function of a task, arrays that it reads beside the program, the value above which a row's
    search may stop, and the engine that runs the tasks."""

    function: Function
    more: Mapping[str, np.ndarray]
    enough: float | None
    engine: Engine


def extra() -> Any:
    """The part of this package that needs the extra `lp`; MissingPackage without it."""
    try:
        from boundlab.programs import solvers
    except ImportError as problem:
        raise MissingPackage("linear and integer programs need packages: pip install 'boundlab[lp]'.") from problem
    return solvers


def row_task(case: Case, rows: np.ndarray, search: Search) -> Mapping[str, np.ndarray]:
    """A task: minimise some rows of a case's specification over its program."""
    spec, target = case.problem.spec, case.problem.target
    assert spec is not None
    form = case.encoding.rows_form(target.index, Dense(target.shape, None, spec.rows[:, rows]))
    shifted = replace(form, constant=form.constant + spec.offset[0, rows].numpy())
    enough = np.full(len(rows), math.inf if search.enough is None else search.enough)
    program, more = case.encoding.draft.program(), {**search.more, "enough": enough}
    task: Mapping[str, np.ndarray] = extra().tasks.with_costs(program, shifted, **more)
    return task


def reached(case: Case, rows: np.ndarray, columns: np.ndarray | None) -> tuple[Tensor, dict[str, Tensor]]:
    """The rows' values (s,) at inputs (s, *shape), and these: the middle of the set, or for `rows` a program's points."""
    problem, points = case.problem, {}
    assert problem.spec is not None
    ended = {} if columns is None else extra().inner.sources_at(case, columns)
    for index, region in problem.sets.items():
        node, middle = problem.model.graph[index], region.box().center
        place = middle.repeat(problem.spec.rows.shape[1], *[1] * len(node.shape))
        if index in ended:
            known = torch.isfinite(ended[index].flatten(1)).all(1)
            place[torch.from_numpy(rows)[known]] = ended[index][known]
        points[node.name] = region.project(place[:, None])[:, 0]
    return problem.spec.values(evaluate(problem.model, {**problem.inputs, **points})).diagonal(), points


Prepare = Callable[[Problem, Env, Tensor], "list[Case]"]
"""A problem in float64, the intervals of its inner nodes, and which problems of the batch (b,) are still open, to cases."""


def bounds_over(problem: Problem, base: Method, prepare: Prepare, search: Search) -> Bounds:
    """Bounds of the specification's rows, or of the output's two sides: those of `base`, and what programs add to them."""
    graph, target = problem.model.graph, problem.target
    wide = extra().inner.in_double(problem)
    if problem.spec is not None:
        found, cases = minima_over(wide, base, prepare, search)
        return Bounds(finite_rows(found.lower.to(problem.spec.rows), problem), None, graph, together(cases, problem))
    wide = replace(wide, spec=both_sides(target.shape, torch.zeros((), dtype=torch.float64)))
    found, cases = minima_over(wide, base, prepare, search)
    env = together(cases, problem)
    interval, (low, negated) = env[target.index], found.lower.chunk(2, dim=1)
    assert isinstance(interval, Interval)
    sides = Interval(low.reshape(len(low), *target.shape), -negated.reshape(len(low), *target.shape))
    tight = checked(target, interval.meet(sides.map(lambda end: end.to(interval.lower))))
    return Bounds(tight.lower, tight.upper, graph, {**env, target.index: tight})


def minima_over(wide: Problem, base: Method, prepare: Prepare, search: Search) -> tuple[Minima, list[Case]]:
    """The minima of all rows; of those that `base` proves to be above `enough`, its own bound, and the value in the middle."""
    if wide.spec is None:
        raise SpecError("minima are those of a specification's rows; problem_of(model, sets, spec) takes one, such as "
                        "at_least(rows) or margins(labels, classes).")
    first = base.run(wide)
    lower = first.lower.expand(wide.batch, -1).clone()
    still = torch.ones_like(lower, dtype=torch.bool) if search.enough is None else ~(lower > search.enough)
    cases = prepare(wide, first.env, still.any(1))
    rows = [mask.nonzero().flatten().numpy() for mask in still]
    tasks = [row_task(case, own, search) for case, own in zip(cases, rows, strict=True) if len(own)]
    found, ends = iter(extra().tasks.solved(search.engine, search.function, tasks)), []
    for place, (case, own) in enumerate(zip(cases, rows, strict=True)):
        result = next(found) if len(own) else None
        if result is not None:
            lower[place, own] = torch.maximum(lower[place, own], torch.from_numpy(result["value"].copy()))
        ends.append(reached(case, own, None if result is None else result["point"]))
    points = {name: torch.stack([where[name] for _, where in ends]) for name in ends[0][1]}
    upper = torch.stack([value for value, _ in ends])
    refuse_contradictions(lower, upper)
    return Minima(torch.minimum(lower, upper), upper, points), cases


def refuse_contradictions(lower: Tensor, upper: Tensor) -> None:
    """BoundError if a bound lies above a value that the network attains, by more than rounding."""
    wrong = (lower > upper + SLACK * (1 + upper.abs())).nonzero().tolist()
    if wrong:
        problem, row = wrong[0]
        raise BoundError(f"the bound {float(lower[problem, row]):g} of row {row} of problem {problem} lies above the value "
                         f"{float(upper[problem, row]):g} that the network attains there: known bounds that do not hold, a "
                         "solver that errs, or a defect of boundlab.")


def together(cases: list[Case], problem: Problem) -> Env:
    """The cases' intervals as those of the whole batch, in the problem's own type."""
    like = problem.sets[min(problem.sets)].box().lower

    def cast(value: Tensor) -> Tensor:
        return value.to(like) if value.is_floating_point() else value.to(like.device)

    parts: list[Env] = [{index: value.map(cast) if isinstance(value, Interval) else cast(value)
                         for index, value in case.env.items()}
                        for case in cases]
    return joined(parts, problem) if len(parts) > 1 else parts[0]
