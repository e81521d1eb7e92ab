"""A network as the checker sees it: inputs, affine steps and nonlinear steps over flat vectors, all in float64.

The network is a function of real numbers: its constants are those of the file, exactly. Where a coefficient had to be computed
(a folded normalisation, a mean), its step says how far the exact one may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy.sparse import csr_array

from boundlab.certificates.functions import Ends, Function
from boundlab.certificates.rounding import UNIT, gamma

DENSE = 0.2
"""The share of entries other than 0 from which on a sparse matrix is kept as an array."""
SPARSE = 0.1
"""That share below which an array is kept as a sparse matrix: rows that read few entries then stay short on their way back."""
WORTH = 0.8
"""The share of rows below which it pays to leave the others out of a sparse product."""


@dataclass(frozen=True)
class Part:
    """Coefficients (k, r) of the entries `read` (k,) of a step, in increasing order, or of all for None; others are 0."""

    read: np.ndarray | None
    values: np.ndarray

    def of(self, size: int) -> np.ndarray:
        """The coefficients (size, r) of all entries."""
        if self.read is None:
            return self.values
        found = np.zeros((size, self.values.shape[1]))
        found[self.read] = self.values
        return found

    def on(self, read: np.ndarray) -> Part:
        """The same on more of the entries, in increasing order."""
        assert self.read is not None
        found = np.zeros((len(read), self.values.shape[1]))
        found[np.searchsorted(read, self.read)] = self.values
        return Part(read, found)


def narrowed(rows: csr_array) -> tuple[np.ndarray | None, csr_array]:
    """The columns that rows read and the rows without the others, if that leaves out enough; else None and the rows."""
    used = np.flatnonzero(np.bincount(rows.indices, minlength=rows.shape[1]))
    if len(used) >= WORTH * rows.shape[1]:
        return None, rows
    place = np.zeros(rows.shape[1], dtype=rows.indices.dtype)
    place[used] = np.arange(len(used))
    return used, csr_array((rows.data, place[rows.indices], rows.indptr), shape=(rows.shape[0], len(used)))


class Linear(Protocol):
    """Coefficients (out, in) of an affine step in one argument.

    `error`: a sum of products with these coefficients along either axis, and the coefficients themselves, are wrong by
    at most `error` times the sum of absolute products. `terms` is the most coefficients of a row. `copies` (out,) says which
    entry of the argument each result is, None if the step does anything else than repeat some.
    """

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def error(self) -> float: ...

    @property
    def terms(self) -> int: ...

    @property
    def copies(self) -> np.ndarray | None: ...

    def times(self, values: np.ndarray) -> np.ndarray:
        """The matrix times values (in, f)."""

    def times_absolute(self, values: np.ndarray) -> np.ndarray:
        """The absolute values of the matrix times values (in, f)."""

    def rows(self, chosen: np.ndarray) -> Part:
        """Some rows of the matrix, as columns."""

    def pulled(self, part: Part) -> Part:
        """The transpose times coefficients of the rows."""

    def near(self) -> np.ndarray | None:
        """For each row (out,) a number that is near for those that read the same; None if all read all."""

    def reads(self, mask: np.ndarray) -> np.ndarray:
        """Which entries of the argument (in,) some of the rows `mask` (out,) read."""


@dataclass(frozen=True)
class Matrix:
    """The coefficients written out, and their absolute values."""

    forward: np.ndarray | csr_array
    absolute: np.ndarray | csr_array
    error: float
    terms: int

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.forward.shape
        return rows, columns

    @cached_property
    def copies(self) -> np.ndarray | None:
        rows = self.forward
        if isinstance(rows, np.ndarray):
            return None
        return rows.indices if (np.diff(rows.indptr) == 1).all() and (rows.data == 1).all() else None

    @cached_property
    def same(self) -> bool:
        """Whether the results are the argument."""
        return self.factors is not None and bool((self.factors == 1).all())

    @cached_property
    def factors(self) -> np.ndarray | None:
        """By what each entry of the argument is multiplied, (size,), if the results are such products; else None."""
        rows = self.forward
        if isinstance(rows, np.ndarray) or rows.shape[0] != rows.shape[1]:
            return None
        single = rows.nnz == rows.shape[0] and (np.diff(rows.indptr) == 1).all()
        return rows.data if single and np.array_equal(rows.indices, np.arange(rows.shape[1])) else None

    def times(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(self.forward @ values)

    def times_absolute(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(self.absolute @ values)

    def rows(self, chosen: np.ndarray) -> Part:
        rows = self.forward[chosen]
        if isinstance(rows, np.ndarray):
            return Part(None, rows.T)
        used, rows = narrowed(rows)
        return Part(used, rows.toarray().T)

    def near(self) -> np.ndarray | None:
        """The first entry that each row reads: for a sparse convolution the place of its window."""
        rows = self.forward
        if isinstance(rows, np.ndarray):
            return None
        begun = np.minimum(rows.indptr[:-1], max(rows.nnz - 1, 0))
        return rows.indices[begun] if rows.nnz else np.zeros(rows.shape[0], dtype=np.int64)

    def reads(self, mask: np.ndarray) -> np.ndarray:
        if isinstance(self.forward, np.ndarray):
            return np.asarray((self.forward[mask] != 0).any(axis=0))
        found = np.zeros(self.forward.shape[1], dtype=bool)
        found[self.forward[np.flatnonzero(mask)].indices] = True
        return found

    def pulled(self, part: Part) -> Part:
        """The transpose times coefficients of the rows; what no column reads takes no part."""
        if self.same:
            return part
        read, values = part.read, part.values
        if self.factors is not None:
            return Part(read, (self.factors if read is None else self.factors[read])[:, None] * values)
        if isinstance(self.forward, np.ndarray):
            return Part(None, (self.forward if read is None else self.forward[read]).T @ values)
        own = np.flatnonzero(values.any(axis=1))
        if len(own) < WORTH * len(values):
            read, values = own if read is None else read[own], values[own]
        if read is None:
            return Part(None, np.asarray(self.forward.T @ values))
        used, rows = narrowed(self.forward[read])
        return Part(used, np.asarray(rows.T @ values))


def matrix_of(coefficients: np.ndarray | csr_array, operations: int = 0) -> Matrix:
    """A Matrix; `operations` roundings went into an entry, none of which may have underflowed."""
    if not isinstance(coefficients, np.ndarray) or np.count_nonzero(coefficients) < SPARSE * coefficients.size:
        coefficients = csr_array(coefficients)
        coefficients.sum_duplicates()
        rows, columns = coefficients.shape
        terms = int(np.diff(coefficients.indptr).max(initial=0))
        longest = int(max(np.diff(coefficients.indptr).max(initial=0), np.bincount(coefficients.indices).max(initial=0)))
        if coefficients.nnz > DENSE * rows * columns:
            coefficients = coefficients.toarray()
    else:
        longest, terms = max(coefficients.shape), coefficients.shape[1]
    return Matrix(coefficients, abs(coefficients), gamma(longest) + 1.01 * operations * UNIT, terms)


@dataclass(frozen=True)
class Input:
    """An input of the network: entries start : start + size of the query's inputs."""

    name: str
    size: int
    start: int


class Range(Protocol):
    """What is known of the values of an affine step because of what its arguments are, which interval arithmetic cannot see."""

    def within(self, ends: Ends) -> Ends:
        """Ends (size, f) from those of the first argument, outward of all rounding; no numbers where nothing is known."""


@dataclass(frozen=True)
class Affine:
    """sum of matrices[k] @ (value of step arguments[k]) + bias (size,); the bias is exact to within `slack` (size,).

    `scale` (size,) is the sum of the absolute values of all terms of the bias, where it is made of several. `range` says what
    is known besides, of real numbers.
    """

    name: str
    size: int
    arguments: tuple[int, ...]
    matrices: tuple[Linear, ...]
    bias: np.ndarray
    slack: np.ndarray
    scale: np.ndarray
    range: Range | None = None

    @cached_property
    def copied(self) -> np.ndarray | None:
        """Which entries of its only argument its own are, (size,); None if it does anything else than repeat some."""
        if len(self.arguments) != 1 or self.bias.any() or self.slack.any():
            return None
        return self.matrices[0].copies


@dataclass(frozen=True)
class Nonlinear:
    """A function, entry by entry, of the values of the steps `arguments`, which all have its size.

    `asks` are earlier steps whose intervals are derived for its lines, all entries of them, instead of those of its arguments.
    """

    name: str
    size: int
    arguments: tuple[int, ...]
    function: Function
    asks: tuple[int, ...] | None = None

    @property
    def sources(self) -> tuple[int, ...]:
        """The steps whose intervals are derived for its lines."""
        return self.arguments if self.asks is None else self.asks


Step = Input | Affine | Nonlinear


def repeated(network: Network, place: int) -> tuple[int, np.ndarray | None]:
    """The first step whose entries a step repeats, and which of them its own are; the step itself and None if it computes."""
    step, index = network.steps[place], None
    while isinstance(step, Affine) and (chosen := step.copied) is not None and network.single is None:
        index = chosen if index is None else chosen[index]
        place = step.arguments[0]
        step = network.steps[place]
    return place, index


class Errors(Protocol):
    """By how much computed entries of steps may differ from functions of their arguments as computed."""

    def affine(self, place: int, total: np.ndarray, arguments: Sequence[np.ndarray]) -> np.ndarray:
        """The error of an affine step whose absolute terms sum up to `total` (size, 1), from the sizes of its arguments."""

    def nonlinear(self, step: Nonlinear, ends: Sequence[Ends], values: Ends) -> np.ndarray:
        """The error (size, 1) of a nonlinear step on all frames, whose exact values lie between ends (size, f)."""


def arguments_of(step: Step) -> tuple[int, ...]:
    """The steps that a step reads."""
    return () if isinstance(step, Input) else step.arguments


@dataclass(frozen=True)
class Network:
    """Steps in an order in which each reads earlier ones only, the step that is the output, and the type of the inputs.

    Where the file ends in a softmax, `output` is its argument and `groups` (size,) says which entries it compares: their order
    is that of the file's outputs, and nothing else is known of these. `uncovered` says why nothing is known of it as it runs in
    float32, if so; `single` what its steps may be wrong by, where a proof is about the network as it runs.
    """

    steps: tuple[Step, ...]
    output: int
    dtype: type[np.float32] | type[np.float64]
    groups: np.ndarray | None = None
    uncovered: str = ""
    single: Errors | None = None

    @property
    def inputs(self) -> Sequence[Input]:
        """The inputs, in the query's order."""
        return [step for step in self.steps if isinstance(step, Input)]
