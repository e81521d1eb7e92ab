"""Solvers: HiGHS for linear programs, one after the other from the last one's basis; Clarabel where there are cones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.sparse import csr_array

from boundlab.errors import BoundError, MissingPackage
from boundlab.perturbations.programs import highs_with
from boundlab.programs.program import Array, Program

MOST_STEPS = 2000
"""Steps of the simplex method before an interior point is tried: programs with 600 rows need up to 703, in the median 48; one
with 16,948 rows was not done after 20,000 steps and a minute, where the interior point method takes 7 seconds (measured)."""
TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Minimum:
    """A proven lower bound of a linear function over a program, and the point that the solver ended at (None: it has none).

    `multipliers` (rows,) prove the bound, positive for the lower sides of rows; None where integers do.
    """

    value: float
    point: Array | None
    multipliers: Array | None = None


class Minimiser(Protocol):
    """A program that is ready to be minimised over."""

    def minimum(self, cost: Array, enough: float | None = None) -> Minimum:
        """The minimum of cost . x; the search may stop once it is proven to be above `enough`."""
        ...


def minimiser(program: Program) -> Minimiser:
    """The solver that suits a program; MissingPackage says how to install it."""
    return Conic(program) if program.balls else Simplex(program)


class Simplex:
    """HiGHS on one program: its dual simplex, where each minimum starts from the basis of the last, or an interior point.

    The first minimum that takes too many steps is found by an interior point instead, and so are all later ones of the program.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.highs = highs_of(program)
        self.highs.setOptionValue("simplex_iteration_limit", MOST_STEPS)
        self.highs.setOptionValue("run_crossover", "off")
        self.columns = np.arange(len(program.lower), dtype=np.int32)

    def minimum(self, cost: Array, enough: float | None = None) -> Minimum:
        import highspy

        size = max(float(np.abs(cost).max(initial=0.0)), TINY)
        self.highs.changeColsCost(len(cost), self.columns, cost / size)
        self.highs.setOptionValue("objective_bound", np.inf if enough is None else enough / size)
        self.highs.run()
        if self.highs.getModelStatus() == highspy.HighsModelStatus.kIterationLimit:
            self.highs.clearSolver()
            self.highs.setOptionValue("solver", "ipm")
            self.highs.run()
        if self.highs.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
            raise BoundError("the linear program has no solution: bounds that were given, or the set and its constraints, "
                             "contradict each other.")
        solution = self.highs.getSolution()
        return found_by(self.program, cost, size * np.array(solution.row_dual), np.array(solution.col_value))


def found_by(program: Program, cost: Array, multipliers: Array, point: Array) -> Minimum:
    """What a solver's answer proves; without multipliers only the bounds of columns count."""
    usable = multipliers.shape == program.row_lower.shape and bool(np.isfinite(multipliers).all())
    proof = multipliers if usable else np.zeros(len(program.row_lower))
    whole = point.shape == program.lower.shape and bool(np.isfinite(point).all())
    return Minimum(program.proven(cost, proof), point if whole else None, proof)


def highs_of(program: Program) -> Any:
    """HiGHS with the program's rows and columns; MissingPackage without highspy."""
    matrix = program.matrix
    return highs_with((matrix.indptr, matrix.indices, matrix.data), (program.row_lower, program.row_upper),
                      (program.lower, program.upper), program.whole)


class Conic:
    """Clarabel's interior point method on a program with balls; every minimum is found anew."""

    def __init__(self, program: Program) -> None:
        try:
            import clarabel
        except ImportError as problem:
            raise MissingPackage("programs over balls of norm 2 need a package: pip install 'boundlab[lp]'.") from problem
        self.program = program
        self.sides = conic_sides(program)
        equal, rest = self.sides.equal, len(self.sides.limit) - self.sides.equal
        self.cones = [clarabel.ZeroConeT(equal), clarabel.NonnegativeConeT(rest)]
        parts, limits = [self.sides.matrix], [self.sides.limit]
        for ball in program.balls:  # the radius, and the distance from the center
            count = len(ball.place)
            cells = (-np.ones(count), (np.arange(1, count + 1), ball.place))
            parts.append(csr_array(cells, shape=(count + 1, len(program.lower))))
            limits.append(np.concatenate([[ball.radius], -ball.center]))
            self.cones.append(clarabel.SecondOrderConeT(count + 1))
        from scipy.sparse import csc_matrix, vstack

        self.matrix, self.limit = csc_matrix(vstack(parts)), np.concatenate(limits)
        self.square = csc_matrix((len(program.lower), len(program.lower)))
        self.settings = clarabel.DefaultSettings()
        self.settings.verbose = False
        self.settings.max_threads = 1

    def minimum(self, cost: Array, enough: float | None = None) -> Minimum:
        import clarabel

        size = max(float(np.abs(cost).max(initial=0.0)), TINY)
        solver = clarabel.DefaultSolver(self.square, cost / size, self.matrix, self.limit, self.cones, self.settings)
        solution = solver.solve()
        if solution.status in (clarabel.SolverStatus.PrimalInfeasible, clarabel.SolverStatus.AlmostPrimalInfeasible):
            raise BoundError("the conic program has no solution: bounds that were given, or the set and its constraints, "
                             "contradict each other.")
        return found_by(self.program, cost, size * self.sides.multipliers(np.array(solution.z)), np.array(solution.x))


@dataclass(frozen=True)
class Sides:
    """matrix x + slack = limit: the `equal` first rows with slack 0, then one row for every finite side, with slack >= 0.

    Row i is `sign[i]` times the program's row `origin[i]`; origins past the program's rows are ends of columns.
    """

    matrix: csr_array
    limit: Array
    equal: int
    origin: Array
    sign: Array
    rows: int

    def multipliers(self, dual: Array) -> Array:
        """Multipliers of the program's rows from those of its sides (and of what comes after them)."""
        if len(dual) < len(self.limit):
            return np.full(self.rows, np.nan)
        total = np.zeros(self.rows)
        own = self.origin < self.rows
        np.add.at(total, self.origin[own], -(self.sign * dual[:len(self.limit)])[own])
        return total


def conic_sides(program: Program) -> Sides:
    """A program's rows and column bounds, one side each."""
    from scipy.sparse import eye_array, vstack

    rows, columns = program.matrix.shape
    whole = csr_array(vstack([program.matrix, eye_array(columns)]))
    low, high = np.concatenate([program.row_lower, program.lower]), np.concatenate([program.row_upper, program.upper])
    equal = np.flatnonzero(low == high)
    above, below = (np.flatnonzero(np.isfinite(side) & (low != high)) for side in (low, high))
    origin = np.concatenate([equal, above, below])
    sign = np.concatenate([np.ones(len(equal)), -np.ones(len(above)), np.ones(len(below))])
    limit = np.concatenate([low[equal], -low[above], high[below]])
    return Sides(csr_array(whole[origin].multiply(sign[:, None])), limit, len(equal), origin, sign, rows)
