"""The atoms of a case as rows of outputs, from their exact numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy.sparse import csr_array

from boundlab.certificates.rounding import TINY, UNIT, below, gamma
from boundlab.errors import CertificateError
from boundlab.question.exact import Atom, Case


@dataclass(frozen=True)
class Atoms:
    """All atoms of some cases, clause by clause: coefficients (atoms, outputs), constants (atoms,), both as nearest floats."""

    coefficients: csr_array
    constants: np.ndarray
    start: np.ndarray

    def rows(self, weights: np.ndarray, clause: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coefficients (outputs, r) of the leaves' rows, lower ends (r,) of their constants, and the coefficients' errors.

        weights (r, a) for the atoms of each leaf's clause (r,).
        """
        leaf, atom = np.nonzero(weights)
        size = self.start[clause + 1] - self.start[clause]
        if (atom >= size[leaf]).any():
            raise CertificateError("the certificate has a weight for an atom that its clause does not have.")
        chosen = csr_array((weights[leaf, atom], (leaf, self.start[clause[leaf]] + atom)),
                           shape=(len(weights), len(self.constants)))
        relative = gamma(weights.shape[1]) + 2 * UNIT
        total = weights.sum(axis=1)
        slack = relative * (chosen @ abs(self.coefficients)).toarray().T + TINY * (1 + total)
        constants = chosen @ self.constants - relative * (chosen @ np.abs(self.constants)) - TINY * (1 + total)
        return np.ascontiguousarray((chosen @ self.coefficients).toarray().T), below(constants), slack


def conjuncts_of(case: Case, outputs: int) -> list[list[Atom]]:
    """What is unsafe as an or of ands of constraints on outputs; CertificateError for a query that says more than that."""
    found = [[atom for atom in conjunct if isinstance(atom, Atom)] for conjunct in case.unsafe]
    whole = list(map(len, found)) == list(map(len, case.unsafe))
    if not whole or any(index >= outputs for conjunct in found for atom in conjunct for index, _ in atom.terms):
        raise CertificateError("the query relates outputs to inputs, or nests ors in ands; the checker knows only ors of ands "
                               "of constraints on outputs.")
    return found


def atoms_of(cases: Sequence[Case], outputs: int) -> Atoms:
    """The atoms of cases, whose clauses are numbered through."""
    clauses = [clause for case in cases for clause in conjuncts_of(case, outputs)]
    atoms = [atom for clause in clauses for atom in clause]
    start = np.cumsum([0, *map(len, clauses)])
    rows, columns, data = [], [], []
    for row, atom in enumerate(atoms):
        for column, weight in summed(atom).items():
            rows.append(row)
            columns.append(column)
            data.append(nearest([weight])[0])
    matrix = csr_array((np.array(data, dtype=np.float64), (np.array(rows, dtype=np.int64), np.array(columns, dtype=np.int64))),
                       shape=(len(atoms), outputs))
    return Atoms(matrix, nearest([atom.constant for atom in atoms]), start)


def summed(atom: Atom) -> dict[int, Fraction]:
    """An atom's coefficients by output."""
    found: dict[int, Fraction] = {}
    for index, weight in atom.terms:
        found[index] = found.get(index, Fraction(0)) + weight
    return found


def nearest(numbers: Sequence[Fraction]) -> np.ndarray:
    """The nearest float64 of exact numbers."""
    try:
        return np.array([float(number) for number in numbers], dtype=np.float64)
    except OverflowError as problem:
        raise CertificateError("the query has a number that is too large for a float64.") from problem
