"""What is computed for one program at a time, as pure functions of arrays, so that any engine may run it anywhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from boundlab.engines.engine import Engine, results
from boundlab.engines.task import Function
from boundlab.errors import TaskError
from boundlab.programs.forms import Form, widened
from boundlab.programs.program import Array, Arrays, Program, program_of
from boundlab.programs.solve import Minimiser, minimiser


def with_costs(program: Program, costs: Form, **more: Array) -> Arrays:
    """A task: a program, functions of its columns, and what else the task reads."""
    matrix = widened(csr_array(costs.matrix), len(program.lower))
    named = {"cost data": matrix.data, "cost indices": matrix.indices, "cost indptr": matrix.indptr,
             "constant": costs.constant}
    return {**program.arrays(), **named, **more}


def costs_of(task: Arrays) -> Form:
    """The functions of a task."""
    shape = len(task["constant"]), len(task["lower"])
    matrix = csr_array((task["cost data"], task["cost indices"], task["cost indptr"]), shape=shape)
    return Form(matrix, task["constant"])


def solved(engine: Engine, function: Function, tasks: Sequence[Arrays]) -> list[dict[str, Array]]:
    """The results of tasks in order; what a task says of its program (no solution, no package) is raised as it was there."""
    try:
        return results(engine, function, tasks)
    except TaskError as problem:
        if problem.kind is None:
            raise
        raise problem.kind(problem.reason) from problem


def minima_of_rows(task: Arrays) -> Arrays:
    """Proven lower bounds (k,) of the functions, and the points (k, columns) where the solver ended, NaN where it has none.

    A function that is proven to be above `enough` (k,) is not minimised to the end.
    """
    return minima_by(minimiser(program_of(task)), task)


def minima_by(solver: Minimiser, task: Arrays) -> Arrays:
    """`minima_of_rows` with a solver that is given."""
    costs, enough = costs_of(task), task["enough"]
    values, points = np.full(len(costs.constant), -np.inf), np.full(costs.matrix.shape, np.nan)
    for place, constant in enumerate(costs.constant):
        stop = None if np.isinf(enough[place]) else float(enough[place] - constant)
        found = solver.minimum(costs.matrix[[place]].toarray()[0], stop)
        values[place] = found.value + constant
        if found.point is not None:
            points[place] = found.point
    return {"value": values, "point": points}


def ends_of_neurons(task: Arrays) -> Arrays:
    """Proven ends (k,) of the functions, met with those that are `known lower` and `known upper`.

    A function need not be bounded on one side if the other side already lies beyond `settled above` or `settled below`; the
    nearer one is tried first.
    """
    return ends_by(minimiser(program_of(task)), task)


def ends_by(solver: Minimiser, task: Arrays) -> Arrays:
    """`ends_of_neurons` with a solver that is given."""
    costs = costs_of(task)
    lower, upper = task["known lower"].copy(), task["known upper"].copy()
    above, below = task["settled above"], task["settled below"]
    for place, constant in enumerate(costs.constant):
        cost = costs.matrix[[place]].toarray()[0]
        sides = (1.0, -1.0) if above[place] - lower[place] <= upper[place] - below[place] else (-1.0, 1.0)
        for sign in sides:
            if lower[place] >= above[place] or upper[place] <= below[place]:
                continue
            value = solver.minimum(sign * cost).value
            if sign > 0:
                lower[place] = max(lower[place], value + constant)
            else:
                upper[place] = min(upper[place], constant - value)
    return {"lower": lower, "upper": upper}
