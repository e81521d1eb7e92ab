"""Programs: minima of linear functions over rows and bounds, as plain arrays, and what multipliers prove about them.

Whatever numbers a solver gives for the multipliers of the rows, the value that is computed here from them is a lower bound of
the minimum. So tolerances of solvers, early stops and defects make bounds looser, never wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

Array = np.ndarray
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Ball:
    """Columns `place` (k,) lie within `radius` of `center` (k,) in the Euclidean norm."""

    place: Array
    center: Array
    radius: float


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
            own = reduced[ball.place]
            round_end = float(own @ ball.center) - ball.radius * float(np.linalg.norm(own))
            value += max(round_end, float(ends[ball.place].sum()))
            ends[ball.place] = 0.0
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
