"""A program while it is written: its columns and rows, in the order in which nodes add them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array

from boundlab.programs.forms import Form, nothing, stacked, widened
from boundlab.programs.program import Array, Ball, Program


@dataclass
class Draft:
    """Columns with their bounds and rows with theirs, in the order in which they were added."""

    lower: list[Array] = field(default_factory=list)
    upper: list[Array] = field(default_factory=list)
    floor: list[Array] = field(default_factory=list)
    ceiling: list[Array] = field(default_factory=list)
    whole: list[Array] = field(default_factory=list)
    rows: list[csr_array] = field(default_factory=list)
    row_lower: list[Array] = field(default_factory=list)
    row_upper: list[Array] = field(default_factory=list)
    balls: list[Ball] = field(default_factory=list)

    @property
    def columns(self) -> int:
        """How many columns there are."""
        return sum(map(len, self.lower))

    def new_columns(self, ends: tuple[Array, Array], known: tuple[Array, Array] | None = None, whole: bool = False) -> Array:
        """Places (k,) of new columns between `ends`, of which also `known` (finite; the ends, if left out) holds."""
        first, count = self.columns, len(ends[0])
        floor, ceiling = ends if known is None else known
        self.lower.append(ends[0])
        self.upper.append(ends[1])
        self.floor.append(floor)
        self.ceiling.append(ceiling)
        self.whole.append(np.full(count, whole))
        return np.arange(first, first + count)

    def new_rows(self, matrix: csr_array, lower: Array, upper: Array) -> None:
        """Rows with lower <= matrix x <= upper."""
        self.rows.append(matrix)
        self.row_lower.append(lower)
        self.row_upper.append(upper)

    @property
    def height(self) -> int:
        """How many rows there are."""
        return sum(map(len, self.row_lower))

    def single(self, places: Array, columns: Array, count: int) -> csr_array:
        """A matrix with `count` rows that has a one in row places[i] at columns[i]."""
        ones = np.ones(len(places))
        return csr_array((ones, (places, columns)), shape=(count, self.columns))

    def least(self, form: Form) -> Array:
        """What every function of a form is at least, by the finite bounds of columns."""
        count = form.matrix.shape[1]
        floor, ceiling = joined(self.floor)[:count], joined(self.ceiling)[:count]
        found: Array = form.matrix.maximum(0) @ floor + form.matrix.minimum(0) @ ceiling + form.constant
        return found

    def program(self) -> Program:
        """The program as it stands."""
        columns = self.columns
        rows = [widened(part, columns) for part in self.rows]
        matrix = stacked(rows) if rows else nothing(0, columns)
        return Program(matrix, joined(self.row_lower), joined(self.row_upper), joined(self.lower), joined(self.upper),
                       joined(self.floor), joined(self.ceiling), joined(self.whole).astype(bool), tuple(self.balls))


def joined(parts: list[Array]) -> Array:
    """Arrays one after the other; an empty one if there are none."""
    return np.concatenate(parts) if parts else np.zeros(0)
