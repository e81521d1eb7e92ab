"""Solvers for integer programs: HiGHS by default, SCIP and Gurobi where they are installed.

A solver is a function of a task (`by_highs`, `by_scip`, `by_gurobi`), so that any engine may run it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from boundlab.errors import MissingPackage, MissingRule
from boundlab.programs.program import Array, Arrays, Program, program_of
from boundlab.programs.solve import TINY, Minimum, highs_of, minimiser
from boundlab.programs.tasks import costs_of, minima_of_rows


@dataclass(frozen=True)
class Limits:
    """When to stop: after so many `seconds`, or once the minimum is proven to be above `enough`."""

    seconds: float
    enough: float


TOLERANCE = 1e-6
"""To what share of itself (and of 1) a solver's bound is trusted: the largest of their default tolerances."""
LARGEST = 1e7
"""Programs with larger numbers are bounded without their integers: beside such numbers solvers' tolerances decide too much."""
Exact = Callable[[Program, Array, Limits], Minimum]


def exact_minima(task: Arrays, exact: Exact) -> Arrays:
    """Lower bounds (k,) of a task's functions, less a tolerance, and the best points (k, columns), NaN where there is none.

    The task holds `seconds` for each function and `enough` (k,). Without integers a program is a linear one, whose bounds come
    from multipliers: HiGHS says of such a program that its dual bound as an integer program is 0.
    """
    program, costs = program_of(task), costs_of(task)
    if not program.whole.any() or largest_number(program) > LARGEST:
        return minima_of_rows({**task, "whole": np.zeros_like(program.whole)})
    values, points = np.full(len(costs.constant), -np.inf), np.full(costs.matrix.shape, np.nan)
    for place, constant in enumerate(costs.constant):
        cost = costs.matrix[[place]].toarray()[0]
        size = max(float(np.abs(cost).max(initial=0.0)), TINY)  # solvers take costs below 1e-7 for zero
        limits = Limits(float(task["seconds"]), float(task["enough"][place] - constant) / size)
        found = exact(program, cost / size, limits)
        value = size * found.value
        values[place] = value - TOLERANCE * (max(1.0, size) + abs(value)) + constant if np.isfinite(value) else -np.inf
        if found.point is not None:
            points[place] = found.point
    return {"value": values, "point": points}


def largest_number(program: Program) -> float:
    """The largest size of a coefficient or of a finite side."""
    parts = (program.matrix.data, program.row_lower, program.row_upper, program.lower, program.upper)
    return max(float(np.abs(part[np.isfinite(part)]).max(initial=0.0)) for part in parts)


def by_highs(task: Arrays) -> Arrays:
    """A task solved by HiGHS (extra `lp`)."""
    return exact_minima(task, highs_minimum)


def by_scip(task: Arrays) -> Arrays:
    """A task solved by SCIP, through the package pyscipopt; it knows no `enough`."""
    return exact_minima(task, scip_minimum)


def by_gurobi(task: Arrays) -> Arrays:
    """A task solved by Gurobi, through gurobipy and a licence of yours; without one up to 2000 rows and columns."""
    return exact_minima(task, gurobi_minimum)


def without_integers(program: Program, cost: Array) -> Minimum:
    """The minimum over the linear program, where a solver says that integers have no solution; BoundError if reals have none.

    On intervals no wider than solvers' tolerances they are wrong about that.
    """
    return minimiser(replace(program, whole=np.zeros_like(program.whole))).minimum(cost)


def refuse_balls(program: Program, solver: str) -> None:
    """MissingRule for programs with cones."""
    if program.balls:
        raise MissingRule(f"{solver} is given linear constraints only, and a ball of norm 2 has none; use norm 1 or inf, or "
                         "the box around the ball.")


def highs_minimum(program: Program, cost: Array, limits: Limits) -> Minimum:
    """One minimum by HiGHS; its bound is the one that its search tree proves."""
    import highspy

    refuse_balls(program, "HiGHS")
    highs = highs_of(program)
    highs.changeColsCost(len(cost), np.arange(len(cost), dtype=np.int32), cost)
    for option, value in (("time_limit", limits.seconds), ("mip_rel_gap", 0.0), ("mip_abs_gap", 1e-9)):
        highs.setOptionValue(option, value)

    def watch(event: Any) -> None:
        if event.data_out.mip_dual_bound > limits.enough:
            event.interrupt()

    if np.isfinite(limits.enough):
        highs.cbMipInterrupt += watch
    highs.run()
    status, kinds = highs.getModelStatus(), highspy.HighsModelStatus
    if status == kinds.kInfeasible:
        return without_integers(program, cost)
    bound, point = highs.getInfo().mip_dual_bound, np.array(highs.getSolution().col_value)
    if status not in (kinds.kOptimal, kinds.kTimeLimit, kinds.kInterrupt):
        return Minimum(-np.inf, None)  # a search that failed has a dual bound of 0
    found = highs.getInfo().primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    return Minimum(float(bound) if np.isfinite(bound) else -np.inf, point if found and len(point) else None)


def scip_minimum(program: Program, cost: Array, limits: Limits) -> Minimum:
    """One minimum by SCIP."""
    try:
        from pyscipopt import Model, quicksum
    except ImportError as problem:
        raise MissingPackage("this solver needs a package: pip install pyscipopt; or use MILP(solver=by_highs).") from problem
    refuse_balls(program, "SCIP")
    model = Model()
    model.hideOutput()
    model.setParam("limits/time", limits.seconds)
    kinds = ("C", "B")
    columns = [model.addVar(lb=finite(low), ub=finite(high), vtype=kinds[int(whole)]) for low, high, whole in
               zip(program.lower, program.upper, program.whole, strict=True)]
    matrix = program.matrix
    for row, (low, high) in enumerate(zip(program.row_lower, program.row_upper, strict=True)):
        cells = range(matrix.indptr[row], matrix.indptr[row + 1])
        total = quicksum(float(matrix.data[cell]) * columns[matrix.indices[cell]] for cell in cells)
        if low == high:
            model.addCons(total == float(low))
            continue
        if np.isfinite(low):
            model.addCons(total >= float(low))
        if np.isfinite(high):
            model.addCons(total <= float(high))
    model.setObjective(quicksum(float(cost[place]) * columns[place] for place in np.flatnonzero(cost)), "minimize")
    model.optimize()
    status = model.getStatus()
    if status == "infeasible":
        return without_integers(program, cost)
    if status not in ("optimal", "timelimit"):
        return Minimum(-np.inf, None)
    bound = model.getDualbound()
    point = np.array([model.getVal(column) for column in columns]) if model.getNSols() else None
    return Minimum(float(bound) if abs(bound) < 1e20 else -np.inf, point)


def finite(end: float) -> float | None:
    """An end of a column, None where there is none."""
    return float(end) if np.isfinite(end) else None


def gurobi_minimum(program: Program, cost: Array, limits: Limits) -> Minimum:
    """One minimum by Gurobi; MissingPackage with Gurobi's own words if it refuses the licence or the size."""
    try:
        import gurobipy
    except ImportError as problem:
        raise MissingPackage("this solver needs a package: pip install gurobipy; or use MILP(solver=by_highs).") from problem
    refuse_balls(program, "Gurobi")
    try:
        with gurobipy.Env(params={"OutputFlag": 0}) as surroundings, gurobipy.Model(env=surroundings) as model:
            model.Params.TimeLimit, model.Params.Threads, model.Params.MIPGap = limits.seconds, 1, 0.0
            if np.isfinite(limits.enough):
                model.Params.BestBdStop = limits.enough
            kinds = np.where(program.whole, gurobipy.GRB.BINARY, gurobipy.GRB.CONTINUOUS)
            x = model.addMVar(len(cost), lb=program.lower, ub=program.upper, vtype=kinds, obj=cost)
            low, high = np.isfinite(program.row_lower), np.isfinite(program.row_upper)
            model.addConstr(program.matrix[low] @ x >= program.row_lower[low])
            model.addConstr(program.matrix[high] @ x <= program.row_upper[high])
            model.optimize()
            if model.Status == gurobipy.GRB.INFEASIBLE:
                return without_integers(program, cost)
            if model.Status not in (gurobipy.GRB.OPTIMAL, gurobipy.GRB.TIME_LIMIT, gurobipy.GRB.USER_OBJ_LIMIT):
                return Minimum(-np.inf, None)
            return Minimum(float(model.ObjBound), np.array(x.X) if model.SolCount else None)
    except gurobipy.GurobiError as problem:
        raise MissingPackage(f"Gurobi refuses: {problem}. Use MILP(solver=by_highs), or install a licence.") from problem
