"""Forms: affine functions of a program's columns, and relaxations and rows as sparse matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array, hstack, vstack
from torch import Tensor

from boundlab.affine import Affine
from boundlab.bounds.backward import pull_affine
from boundlab.graph import Node
from boundlab.maps import Rows, Select, entries
from boundlab.programs.program import Array


def numbers(tensor: Tensor) -> Array:
    """A tensor as a flat array in float64."""
    return tensor.detach().cpu().double().numpy().reshape(-1)


@dataclass(frozen=True)
class Form:
    """k affine functions of a program's columns: matrix (k, columns so far) x + constant (k,)."""

    matrix: csr_array
    constant: Array

    def at(self, places: Array) -> Form:
        """Some of the functions."""
        return Form(self.matrix[places], self.constant[places])


def widened(matrix: csr_array, columns: int) -> csr_array:
    """The same matrix with columns of zeros at its end."""
    return csr_array((matrix.data, matrix.indices, matrix.indptr), shape=(matrix.shape[0], columns))


def nothing(count: int, columns: int) -> csr_array:
    """A matrix of zeros."""
    return csr_array((count, columns))


def beside(parts: list[csr_array]) -> csr_array:
    """Matrices side by side."""
    return parts[0] if len(parts) == 1 else csr_array(hstack(parts))


def selected(node: Node, places: Array) -> Select:
    """Rows of single coordinates of a node, for one problem."""
    index = torch.from_numpy(np.asarray(places, dtype=np.int64))
    return Select(node.shape, torch.zeros_like(index), index, torch.ones(1, 1, dtype=torch.float64))


def matrix_of(rows: Rows) -> csr_array:
    """Rows as a sparse matrix (n * s, coordinates)."""
    found = entries(rows)
    places = found.row.cpu().numpy(), found.coordinate.cpu().numpy()
    return csr_array((found.value.detach().cpu().double().numpy(), places), shape=(found.total, math.prod(rows.shape)))


def line_rows(node: Node, affine: Affine) -> Form:
    """One side of a relaxation, all coordinates of the node, as a form over its arguments one after the other."""
    every = selected(node, np.arange(math.prod(node.shape)))
    pulled, bias = pull_affine(every, affine)
    constant = np.zeros(len(every.index)) if bias is None else np.broadcast_to(numbers(bias), len(every.index))
    matrix = beside([matrix_of(rows) for rows in pulled])
    matrix.eliminate_zeros()
    return Form(matrix, constant)


def same(first: Form, second: Form) -> Array:
    """Where two forms are the same function, number for number."""
    difference = csr_array(first.matrix - second.matrix)
    difference.eliminate_zeros()
    return (np.diff(difference.indptr) == 0) & (first.constant == second.constant)


def read_by(*lines: Form) -> Array:
    """The columns that any of some forms reads."""
    return np.unique(np.concatenate([line.matrix.indices for line in lines]))


def through(line: Form, inputs: Form, columns: int) -> Form:
    """A form over arguments as a form over columns."""
    inner = widened(inputs.matrix, columns)
    return Form(csr_array(line.matrix @ inner), line.matrix @ inputs.constant + line.constant)


def stacked(parts: list[csr_array]) -> csr_array:
    """Matrices one above the other."""
    return parts[0] if len(parts) == 1 else csr_array(vstack(parts))


def interleaved(first: Form, second: Form, mask: Array, columns: int) -> Form:
    """A form that takes its functions in order from `first` where the mask is true and from `second` elsewhere."""
    order = np.empty(len(mask), dtype=int)
    order[mask], order[~mask] = np.arange(mask.sum()), mask.sum() + np.arange((~mask).sum())
    both = stacked([widened(first.matrix, columns), widened(second.matrix, columns)])
    return Form(both, np.concatenate([first.constant, second.constant])).at(order)
