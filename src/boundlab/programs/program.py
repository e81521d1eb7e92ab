"""Programs: minima of linear functions over rows and bounds, as plain arrays, and what multipliers prove about them.

Whatever numbers a solver gives for the multipliers of the rows, the value that is computed here from them is a lower bound of
the minimum. So tolerances of solvers, early stops and defects make bounds looser, never wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from boundlab.engines.task import Arrays

Array = np.ndarray


@dataclass(frozen=True)
class Ball:
    """Columns `place` (k,) lie within `radius` of `center` (k,) in the Euclidean norm."""

    place: Array
    center: Array
    radius: float

    def minimum(self, cost: Array, lower: Array, upper: Array) -> float:
        """A lower bound of cost . x over the ball within a box, tight but for rounding.

        For every step t > 0 the minimum over the box of cost . x + (|x - center|^2 - radius^2) / 2t is one; it is attained at
        center - t cost, cut off at the box, and greatest where that lies on the sphere, which bisection finds (Lee et al. 2020,
        BCP, Sec. 3).
        """
        def reached(step: float) -> tuple[Array, float]:
            point = np.clip(self.center - step * cost, lower, upper)
            return point, float(np.linalg.norm(point - self.center))

        best = float(np.minimum(cost * lower, cost * upper).sum())
        length = float(np.linalg.norm(cost))
        if length == 0 or self.radius == 0:
            return max(best, float(cost @ self.center) - self.radius * length)
        low, high = 0.0, self.radius / length
        while reached(high)[1] < self.radius and high * length < 1e12 * (1 + self.radius):
            low, high = high, 4 * high
        for _ in range(60):
            step = (low + high) / 2
            low, high = (step, high) if reached(step)[1] < self.radius else (low, step)
        for step in (low, high):
            if step > 0:
                point, far = reached(step)
                best = max(best, float(cost @ point) + (far**2 - self.radius**2) / (2 * step))
        return best


@dataclass(frozen=True)
class Program:
    """All x with row_lower <= matrix x <= row_upper and lower <= x <= upper; columns where `whole` is true are integers.

    `floor` and `ceiling` are finite bounds of every column that hold in the network itself. They are not told to the solver
    where the rows alone should decide; proofs use them for what rounding leaves over. All in float64.
    """

    matrix: csr_array
    row_lower: Array
    row_upper: Array
    lower: Array
    upper: Array
    floor: Array
    ceiling: Array
    whole: Array
    balls: tuple[Ball, ...] = ()

    def proven(self, cost: Array, multipliers: Array) -> float:
        """A lower bound of cost . x over the program, by weak duality; -inf if a multiplier is no number.

        `multipliers` (rows,) are positive for a row's lower side and negative for its upper side.
        """
        usable = np.where(multipliers > 0, np.isfinite(self.row_lower), np.isfinite(self.row_upper))
        y = np.where(usable, multipliers, 0.0)
        side = np.where(y > 0, self.row_lower, self.row_upper)
        reduced = cost - self.matrix.T @ y
        value = float((y[y != 0] * side[y != 0]).sum())
        ends = np.minimum(reduced * self.floor, reduced * self.ceiling)
        for ball in self.balls:
            place = ball.place
            value += ball.minimum(reduced[place], self.floor[place], self.ceiling[place])
            ends[place] = 0.0
        value += float(ends.sum())
        return value if np.isfinite(value) else -np.inf

    def arrays(self) -> Arrays:
        """The program as arrays by name, to be sent elsewhere."""
        found = {name: value for name, value in vars(self).items() if name not in ("matrix", "balls")}
        found |= {"data": self.matrix.data, "indices": self.matrix.indices, "indptr": self.matrix.indptr}
        for number, ball in enumerate(self.balls):
            found |= {f"place {number}": ball.place, f"center {number}": ball.center, f"radius {number}": np.array(ball.radius)}
        return found


def program_of(arrays: Arrays) -> Program:
    """The program that `Program.arrays` wrote."""
    shape = len(arrays["row_lower"]), len(arrays["lower"])
    matrix = csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
    count = sum(name.startswith("radius ") for name in arrays)
    balls = tuple(Ball(arrays[f"place {k}"], arrays[f"center {k}"], float(arrays[f"radius {k}"])) for k in range(count))
    return Program(matrix, arrays["row_lower"], arrays["row_upper"], arrays["lower"], arrays["upper"], arrays["floor"],
                   arrays["ceiling"], arrays["whole"], balls)
