"""A part of a problem's set as a linear program: what constraints on neurons leave of the best of some rows.

Where the constraints put every neuron on one of its pieces the program is exact, so it decides what bounds cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from torch import Tensor

from boundlab.bounds.backward import Env
from boundlab.bounds.parts import Splits
from boundlab.bounds.problem import Problem
from boundlab.interval import Interval
from boundlab.maps import Dense
from boundlab.programs.draft import Draft
from boundlab.programs.forms import Form, widened
from boundlab.programs.inner import Case, cases_of, in_double, sources_at, wide
from boundlab.programs.program import Array
from boundlab.programs.solve import minimiser

PRICE = 1e3
"""What violating a constraint by its whole range costs, in ranges of the rows."""
NARROW = 1e-6
"""Ranges of constraints count as such a share of the widest at least."""
LINES = 3


@dataclass(frozen=True)
class Leaf:
    """The largest of some rows is at least `lower` on a part; where the solver ended, inputs (1, *shape) by name.

    That is so of the rows with `weights` (s,), which are at least 0, less `multipliers` (k,) times the part's constraints.
    """

    lower: float
    point: Mapping[str, Tensor] | None
    weights: Array
    multipliers: Array


def leaf_of(problem: Problem, env: Env, splits: Splits) -> Leaf:
    """The least value of the largest row of a specification on a part of one problem, in float64.

    `env` are intervals that hold on the part, and `splits` (1, k) its constraints. A constraint may be violated at a price, so
    that the program has a solution even where the part has no point: its value is large then.
    """
    problem, splits = in_double(problem), splits.cpu()
    doubled = {index: value.map(wide) if isinstance(value, Interval) else wide(value) for index, value in env.items()}
    case, = cases_of(problem, doubled, LINES)
    spec, target, draft = problem.spec, problem.target, case.encoding.draft
    assert spec is not None
    form = case.encoding.rows_form(target.index, Dense(target.shape, None, spec.rows))
    form = Form(form.matrix, form.constant + spec.offset[0].numpy())
    places = [(splits.at(node).side[0] != 0).nonzero().squeeze(1).numpy() for node in splits.nodes]
    forms = [constraint(case, splits, node) for node in splits.nodes]
    low, high = draft.least(form), -draft.least(negative(form))
    worst = draft.new_columns((low.max(keepdims=True), high.max(keepdims=True)))
    column, first = draft.single(np.arange(len(low)), worst.repeat(len(low)), len(low)), draft.height
    draft.new_rows(csr_array(column - widened(form.matrix, draft.columns)), form.constant, np.full(len(low), np.inf))
    prices = [violable(draft, form) for form in forms]
    cost = np.zeros(draft.columns)
    cost[worst] = 1.0
    for columns, range_, _ in prices:
        cost[columns] = PRICE * float((high - low).max()) / np.maximum(range_, NARROW * range_.max(initial=0.0))
    found = minimiser(draft.program()).minimum(cost, 0.0)
    assert found.multipliers is not None
    proof, multipliers = np.maximum(found.multipliers, 0), np.zeros(splits.node.shape[1])
    weights = proof[first:first + len(low)]
    weights[low.argmax()] += max(1 - weights.sum(), 0)  # what lets the column end at the largest of the rows' least values
    for place, (_, _, rows) in zip(places, prices, strict=True):
        multipliers[place] = np.where(rows >= 0, proof[rows], 0)
    if found.point is None:
        return Leaf(found.value, None, weights, multipliers)
    ended = sources_at(case, found.point[None])
    return Leaf(found.value, {problem.model.graph[index].name: ended.get(index, region.box().center)
                              for index, region in problem.sets.items()}, weights, multipliers)


def constraint(case: Case, splits: Splits, node: int) -> Form:
    """The constraints on one node, each a function that is nowhere negative on the part."""
    here = splits.at(node)
    chosen = (here.side[0] != 0).nonzero().squeeze(1)
    side, point = here.side[0, chosen].double().numpy(), here.point[0, chosen].double().numpy()
    form = case.encoding.coordinates(case.problem.model.graph[node], here.neuron[0, chosen].numpy())
    return Form(csr_array(form.matrix.multiply(side[:, None])), side * (form.constant - point))


def negative(form: Form) -> Form:
    """The functions with the other sign."""
    return Form(-form.matrix, -form.constant)


def violable(draft: Draft, form: Form) -> tuple[Array, Array, Array]:
    """Rows form + violation >= 0: the columns of violations, how large each can be, and the row of each function (-1: none)."""
    most = -draft.least(form)
    kept = np.flatnonzero(most > 0)  # the others hold everywhere
    rows = np.full(len(most), -1)
    rows[kept] = draft.height + np.arange(len(kept))
    form, most = form.at(kept), most[kept]
    columns = draft.new_columns((np.zeros(len(most)), most))
    single = draft.single(np.arange(len(most)), columns, len(most))
    draft.new_rows(csr_array(single + widened(form.matrix, draft.columns)), -form.constant, np.full(len(most), np.inf))
    return columns, most, rows
