"""Exact forms with integers: operators that are affine between breaks, and the largest of affine functions.

Where a coordinate has several pieces, an integer column says which one it is on, and a column holds the argument if it is on
that piece, else 0 (the convex hull of the pieces; for a ReLU, Tjeng et al. 2019 after leaving out what the sums say).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import csr_array

from boundlab.errors import MissingRule
from boundlab.graph import Node
from boundlab.interval import Interval
from boundlab.ops import lookup
from boundlab.programs.forms import Form, line_rows, nothing, read_by, through, widened
from boundlab.programs.program import Array

if TYPE_CHECKING:
    from boundlab.programs.encode import Encoding


def exact_form(encoding: Encoding, node: Node, varying: list[Node], bent: Array) -> Form:
    """Coordinates `bent` of a node, exactly; MissingRule if its operator has neither breaks nor an `integers` rule."""
    op = lookup(node.op)
    if op.integers is not None:
        return largest_form(encoding, node, varying, bent)
    if op.piecewise:
        return pieces_form(encoding, node, varying, bent)
    raise MissingRule(f"{node.describe()} cannot be encoded exactly: between any two points it bends, and it has no 'integers' "
                      "rule. Use LP, which bounds it by lines.")


def pieces_form(encoding: Encoding, node: Node, varying: list[Node], bent: Array) -> Form:
    """A function of one argument that is affine between breaks, at coordinates `bent`: one piece is chosen for each."""
    inputs = encoding.inputs(varying, bent, encoding.point)
    draft, count = encoding.draft, len(bent)
    lower, upper = (end[bent] for end in encoding.ends(varying[0].index))
    total, chosen = nothing(count, draft.columns), nothing(count, draft.columns)
    value = nothing(count, draft.columns)
    for start, end, slope, offset in pieces_of(encoding, node, bent, lower, upper):
        here = np.flatnonzero(start <= end)
        on = draft.new_columns((np.zeros(len(here)), np.ones(len(here))), whole=True)
        low, high = np.minimum(start[here], 0), np.maximum(end[here], 0)
        part = draft.new_columns((low, high))
        columns, own = draft.columns, np.arange(len(here))
        at, by = draft.single(own, part, len(here)), draft.single(own, on, len(here))
        zero, endless = np.zeros(len(here)), np.full(len(here), np.inf)
        draft.new_rows(csr_array(at - by.multiply(start[here][:, None])), zero, endless)
        draft.new_rows(csr_array(at - by.multiply(end[here][:, None])), -endless, zero)
        spread_on, spread_at = draft.single(here, on, count), draft.single(here, part, count)
        total, chosen = widened(total, columns) + spread_at, widened(chosen, columns) + spread_on
        value = widened(value, columns) + spread_at.multiply(slope[:, None]) + spread_on.multiply(offset[:, None])
    columns = draft.columns
    given = inputs.at(bent)
    draft.new_rows(csr_array(widened(given.matrix, columns) - total), -given.constant, -given.constant)
    draft.new_rows(csr_array(chosen), np.ones(count), np.ones(count))
    return Form(csr_array(value), np.zeros(count))


Piece = tuple[Array, Array, Array, Array]


def pieces_of(encoding: Encoding, node: Node, bent: Array, lower: Array, upper: Array) -> list[Piece]:
    """Start, end, slope and offset (k,) of every piece on [lower, upper]; a coordinate without that piece has start > end.

    A break at which the function jumps is a piece of its own, a single point.
    """
    op = lookup(node.op)
    breaks = sorted(op.breaks_of(node.attrs) or ())

    def value(places: Array) -> Array:
        return evaluated(encoding, node, bent, places)

    edges = [lower, *(np.clip(place, lower, upper) for place in breaks), upper]
    found: list[Piece] = []
    for start, end in itertools.pairwise(edges):
        quarter = (end - start) / 4
        first, second = start + quarter, end - quarter
        inner = (start < first) & (first < second) & (second < end)
        edge = np.where(np.isin(start, breaks), end, start)  # where there are no numbers inside
        middle = np.where(inner, first, edge)
        run = np.where(inner, second - first, 1.0)
        slope = np.where(inner, (value(np.where(inner, second, middle)) - value(middle)) / run, 0.0)
        there = (start < end) | ((lower == upper) & (not found))
        found.append((np.where(there, start, 1.0), np.where(there, end, 0.0), slope, value(middle) - slope * middle))
    stretches = list(found)
    for place in breaks:
        inside, at = (lower <= place) & (place <= upper), value(np.full(len(bent), place))
        for start, end, slope, offset in stretches:
            near = np.abs(slope * place + offset - at) <= 1e-9 * (1 + np.abs(at))
            inside &= ~(near & (start <= place) & (place <= end))
        found.append((np.where(inside, place, 1.0), np.where(inside, place, 0.0), np.zeros(len(bent)), at))
    return found


def evaluated(encoding: Encoding, node: Node, bent: Array, places: Array) -> Array:
    """The function at one place for each coordinate `bent`."""
    arguments = []
    for arg in node.args:
        known = encoding.env[arg]
        if isinstance(known, Interval):
            whole = known.lower.clone().reshape(-1)
            whole[torch.from_numpy(bent)] = torch.from_numpy(places).to(whole)
            arguments.append(whole.reshape(known.lower.shape))
        else:
            arguments.append(known)
    found: Array = lookup(node.op).evaluate(*arguments, **node.attrs).reshape(-1).numpy()[bent]
    return found


def largest_form(encoding: Encoding, node: Node, varying: list[Node], bent: Array) -> Form:
    """The largest of affine functions of the arguments, at coordinates `bent`: an integer says which one it is."""
    op, draft = lookup(node.op), encoding.draft
    assert op.integers is not None
    affine = op.integers(*(encoding.env[arg] for arg in node.args), **node.attrs)
    given = [line_rows(node, one).at(bent) for one in affine]
    inputs = encoding.inputs(varying, read_by(*given), encoding.point)
    known_lower, known_upper = (end[bent] for end in encoding.ends(node.index))
    value = draft.new_columns((known_lower, known_upper))
    count, own, ones = len(bent), np.arange(len(bent)), np.ones(len(bent))
    chosen = nothing(count, draft.columns)
    for one in given:
        line = through(one, inputs, draft.columns)
        low = draft.least(line)
        on = draft.new_columns((np.zeros(count), ones), whole=True)
        gap = known_upper - low
        above = draft.single(own, value, count) - widened(line.matrix, draft.columns)
        draft.new_rows(csr_array(above), line.constant, np.full(count, np.inf))
        within = above + draft.single(own, on, count).multiply(gap[:, None])
        draft.new_rows(csr_array(within), np.full(count, -np.inf), line.constant + gap)
        chosen = widened(chosen, draft.columns) + draft.single(own, on, count)
    draft.new_rows(csr_array(chosen), ones, ones)
    return Form(draft.single(own, value, count), np.zeros(count))
