"""A network on one problem's set as a program: columns for what bends, rows for the lines around it.

Affine nodes have no columns: rows are pulled through them by the same engine as in backward bounds, down to sources and to
nodes that bend. A coordinate that bends has a column for its value, rows that keep it between several lines, and a column for
its argument, so that the sum which this is is written once. Coordinates on which the operator is affine (a ReLU that is always
on) have neither. Salman et al. 2019, Sec. 3 and 5.1; Lyu et al. 2020 (FROWN), App. A.4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from boundlab.affine import LinearBound
from boundlab.bounds.backward import Env, Relaxer, backward
from boundlab.bounds.intermediate import fitting, is_affine, relaxer
from boundlab.graph import Graph, Node
from boundlab.interval import Interval
from boundlab.maps import Rows
from boundlab.ops import lookup
from boundlab.ops.op import Op, number_of
from boundlab.perturbations.sets import PerturbationSet
from boundlab.programs.draft import Draft
from boundlab.programs.forms import (
    Form,
    interleaved,
    line_rows,
    matrix_of,
    nothing,
    numbers,
    read_by,
    same,
    selected,
    stacked,
    through,
    widened,
)
from boundlab.programs.pieces import exact_form
from boundlab.programs.program import Array
from boundlab.programs.regions import source

ROWS_AT_ONCE = 2**25
"""Coefficients of rows that are pulled together while they are not yet sparse."""


def several_lines(op: Op, arguments: list[Any], attributes: Mapping[str, Any], count: int) -> list[LinearBound]:
    """Relaxations of a call at `count` values of its free variables: the plain one, then both ends, then evenly between.

    Of a ReLU two of these are its hull; of an S-shaped curve each is a tangent, or a line from an end.
    """
    found = [op.lines(*arguments, **attributes)]
    if not op.alpha or count == 1:
        return found
    like = found[0].lower.maps[0]
    ends = {name: tuple(number_of(end, arguments, attributes, like.out_shape) for end in (free.low, free.high))
            for name, free in op.alpha.items()}
    for share in np.linspace(0, 1, count if count > 2 else 2):
        alpha = {name: low + float(share) * (high - low) for name, (low, high) in ends.items()}
        found.append(op.lines(*arguments, alpha=alpha, **attributes))
    return found


@dataclass
class Encoding:
    """The program of one problem, written node by node as forms are asked for; `env` (float64) may grow meanwhile.

    `lines` is how many relaxations bound an operator. With `exact` operators that are affine between breaks, or the largest of
    affine functions, are encoded with integers instead.
    """

    graph: Graph
    env: Env
    sets: Mapping[int, PerturbationSet]
    lines: int = 3
    exact: bool = False
    draft: Draft = field(default_factory=Draft)
    forms: dict[int, Form] = field(default_factory=dict)
    points: dict[int, Form] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.relax: Relaxer = relaxer(self.env)

    def ends(self, index: int) -> tuple[Array, Array]:
        """The interval of a node, flat."""
        interval = self.env[index]
        assert isinstance(interval, Interval)
        return numbers(interval.lower), numbers(interval.upper)

    def stops(self, node: Node) -> bool:
        """Whether a node has a form of its own: a source, or a node that bends."""
        return node.source or not is_affine(node, self.env)

    def rows_form(self, target: int, rows: Rows) -> Form:
        """Rows (n, 1 row each, or 1, s) of a node as a form over the columns."""
        pulled = backward(self.graph, self.env, self.relax, target, rows, stop=self.stops)
        parts = {index: matrix_of(part) for index, part in pulled.coefficients.items()}
        known = {index: self.form(index) for index in sorted(parts)}
        count = next(iter(parts.values())).shape[0]
        constant = np.zeros(count) if pulled.bias is None else np.broadcast_to(numbers(pulled.bias), count)
        matrix = nothing(count, self.draft.columns)
        for index, part in parts.items():
            form = known[index]
            matrix = matrix + part @ widened(form.matrix, self.draft.columns)
            constant = constant + part @ form.constant
        return Form(csr_array(matrix), constant)

    def coordinates(self, node: Node, places: Array) -> Form:
        """Some coordinates of a node as a form."""
        if node.index in self.forms:
            return self.forms[node.index].at(places)
        if not len(places):
            return Form(nothing(0, self.draft.columns), np.zeros(0))
        size, found = max(1, ROWS_AT_ONCE // max(1, self.widest(node.index))), []
        for part in np.array_split(places, max(1, -(-len(places) // size))):
            found.append(self.rows_form(node.index, selected(node, part)))
        columns = self.draft.columns
        matrices = [widened(form.matrix, columns) for form in found]
        return Form(stacked(matrices), np.concatenate([form.constant for form in found]))

    def widest(self, index: int) -> int:
        """Coordinates of the widest perturbed node up to one."""
        return max(math.prod(node.shape) for node in self.graph.nodes[:index + 1]
                   if isinstance(self.env.get(node.index), Interval))

    def form(self, index: int) -> Form:
        """A source or a node that bends as a form of its coordinates; written when it is asked for first."""
        if index not in self.forms:
            node = self.graph[index]
            self.forms[index] = self.source_form(node) if node.source else self.bent_form(node)
        return self.forms[index]

    def source_form(self, node: Node) -> Form:
        """The columns of a perturbed source."""
        return source(self.sets[node.index], self.draft)

    def point(self, node: Node, needed: Array) -> Form:
        """A node's coordinates as single columns, for what reads many of them more than once; zero where not `needed`."""
        if self.stops(node):
            return self.form(node.index)
        size = math.prod(node.shape)
        known = self.points.get(node.index, Form(nothing(size, self.draft.columns), np.zeros(size)))
        fresh = needed[np.diff(known.matrix.indptr)[needed] == 0]
        if len(fresh):
            form = self.coordinates(node, fresh)
            lower, upper = self.ends(node.index)
            columns = self.draft.new_columns((lower[fresh], upper[fresh]))
            count, every = self.draft.columns, np.arange(len(fresh))
            equal = widened(form.matrix, count) - self.draft.single(every, columns, len(fresh))
            self.draft.new_rows(csr_array(equal), -form.constant, -form.constant)
            known = Form(csr_array(widened(known.matrix, count) + self.draft.single(fresh, columns, size)), known.constant)
        self.points[node.index] = known
        return known

    def whole(self, node: Node, needed: Array) -> Form:
        """A node's coordinates as they are; zero where not `needed`."""
        if self.stops(node):
            return self.form(node.index)
        size, form = math.prod(node.shape), self.coordinates(node, needed)
        spread = csr_array((np.ones(len(needed)), (needed, np.arange(len(needed)))), shape=(size, len(needed)))
        return Form(csr_array(spread @ form.matrix), spread @ form.constant)

    def bent_form(self, node: Node) -> Form:
        """The value of a node that bends: affine where it does not bend, else a column between lines (or exact pieces)."""
        op, arguments = lookup(node.op), [self.env[arg] for arg in node.args]
        bounds = [fitting(node, bound) for bound in several_lines(op, arguments, node.attrs, self.lines)]
        below = [line_rows(node, bound.lower) for bound in bounds]
        above = [line_rows(node, bound.upper) for bound in bounds]
        settled = same(below[0], above[0])
        varying = [self.graph[arg] for arg in node.args if isinstance(self.env[arg], Interval)]
        line, bent = below[0].at(np.flatnonzero(settled)), np.flatnonzero(~settled)
        direct = self.inputs(varying, read_by(line), self.whole)
        straight = through(line, direct, self.draft.columns)
        if self.exact and len(bent):
            other = exact_form(self, node, varying, bent)
        else:
            sides = [part.at(bent) for part in below], [part.at(bent) for part in above]
            inputs = self.inputs(varying, read_by(*sides[0], *sides[1]), self.point)
            other = self.between(node, sides, inputs, bent)
        return interleaved(straight, other, settled, self.draft.columns)

    def inputs(self, nodes: list[Node], places: Array, write: Callable[[Node, Array], Form]) -> Form:
        """The arguments one after the other, written by `write` where `places` (flat, over all of them) are needed."""
        found, start = [], 0
        for node in nodes:
            size = math.prod(node.shape)
            own = places[(places >= start) & (places < start + size)] - start
            found.append(write(node, own))
            start += size
        columns = self.draft.columns
        return Form(stacked([widened(form.matrix, columns) for form in found]), np.concatenate([f.constant for f in found]))

    def between(self, node: Node, sides: tuple[list[Form], list[Form]], inputs: Form, bent: Array) -> Form:
        """Columns for coordinates `bent` of a node, between lines in its arguments; a line without slope is a column's end."""
        lower, upper = self.ends(node.index)
        ends = [np.full(len(bent), -np.inf), np.full(len(bent), np.inf)]
        for side, choose in ((0, np.maximum), (1, np.minimum)):
            for line in sides[side]:
                flat = np.diff(line.matrix.indptr) == 0
                ends[side] = np.where(flat, choose(ends[side], line.constant), ends[side])
        columns = self.draft.new_columns((ends[0], ends[1]), (lower[bent], upper[bent]))
        for side, lines in enumerate(sides):
            for place, line in enumerate(lines):
                fresh = np.diff(line.matrix.indptr) > 0
                for earlier in lines[:place]:
                    fresh &= ~same(line, earlier)
                self.lines_rows(line.at(np.flatnonzero(fresh)), inputs, columns[fresh], side)
        return Form(self.draft.single(np.arange(len(bent)), columns, len(bent)), np.zeros(len(bent)))

    def lines_rows(self, line: Form, inputs: Form, columns: Array, side: int) -> None:
        """Rows that keep `columns` above (side 0) or below (side 1) lines in the arguments."""
        if not len(columns):
            return
        value = through(line, inputs, self.draft.columns)
        own = self.draft.single(np.arange(len(columns)), columns, len(columns))
        endless = np.full(len(columns), np.inf)
        ends = (value.constant, endless) if side == 0 else (-endless, value.constant)
        self.draft.new_rows(csr_array(own - value.matrix), *ends)
