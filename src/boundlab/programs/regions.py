"""What a perturbation set is in a program: the columns that a source varies in, and the source's form over them."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from functools import singledispatch
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from torch import Tensor

from boundlab.errors import MissingRule
from boundlab.perturbations.ball import LpBall
from boundlab.perturbations.joint import Member
from boundlab.perturbations.polytope import Polytope
from boundlab.perturbations.sets import Box, PerturbationSet
from boundlab.programs.draft import Draft
from boundlab.programs.forms import Form, numbers
from boundlab.programs.program import Array, Ball


def doubled(region: PerturbationSet) -> PerturbationSet:
    """The same set in float64 on the CPU; MissingRule for a set that does not hold its numbers as a dataclass."""
    def wide(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(wide, value))
        return value.detach().cpu().double() if isinstance(value, Tensor) and value.is_floating_point() else value

    if not is_dataclass(region) or isinstance(region, Member):
        raise missing(region)
    return replace(region, **{field.name: wide(vars(region)[field.name]) for field in fields(region) if field.init})


def missing(region: PerturbationSet) -> MissingRule:
    """The error for a set without a rule."""
    what = "a set that several sources share" if isinstance(region, Member) else type(region).__name__
    return MissingRule(f"linear programs have no rows for {what}; they take Box, LpBall with p = 1, 2 or inf, and Polytope. "
                       "Bound it by CROWN or Dual, or give the box around it.")


@singledispatch
def source(region: PerturbationSet, draft: Draft) -> Form:
    """Columns and rows for one problem's set, and the source (flat) as a form over them; MissingRule for sets without a rule.

    Register a rule for a set of your own with `source.register`.
    """
    raise missing(region)


def plain(draft: Draft, lower: Array, upper: Array) -> Form:
    """A source that is its own columns, each between two numbers."""
    places = draft.new_columns((lower, upper))
    return Form(draft.single(np.arange(len(places)), places, len(places)), np.zeros(len(places)))


@source.register
def of_box(region: Box, draft: Draft) -> Form:
    """The box's ends."""
    return plain(draft, numbers(region.lower), numbers(region.upper))


@source.register
def of_ball(region: LpBall, draft: Draft) -> Form:
    """The box around the ball; for p = 2 a cone, for p = 1 how far each coordinate goes up and down, and their sum's limit."""
    box, center, eps = region.box(), numbers(region.center), float(region.radius.flatten()[0])
    lower, upper = numbers(box.lower), numbers(box.upper)
    if math.isinf(region.p):
        return plain(draft, lower, upper)
    if region.p == 2:
        form = plain(draft, lower, upper)
        draft.balls.append(Ball(form.matrix.indices, center, eps))
        return form
    if region.p != 1:
        raise MissingRule(f"linear programs have rows for balls of norm 1, 2 and inf, not {region.p:g}; bound this one by "
                          "CROWN or Dual.")
    up = draft.new_columns((np.maximum(lower - center, 0), np.maximum(upper - center, 0)))
    down = draft.new_columns((np.maximum(center - upper, 0), np.maximum(center - lower, 0)))
    both = np.concatenate([up, down])
    draft.new_rows(draft.single(np.zeros_like(both), both, 1), np.array([-np.inf]), np.array([eps]))
    every = np.arange(len(center))
    return Form(draft.single(every, up, len(center)) - draft.single(every, down, len(center)), center)


@source.register
def of_polytope(region: Polytope, draft: Draft) -> Form:
    """The box around the polytope, and its own rows."""
    box, half = region.box(), region.region
    form = plain(draft, numbers(box.lower), numbers(box.upper))
    limit = numbers(half.limit[0])
    matrix = csr_array(half.matrix[0].detach().cpu().numpy()) @ form.matrix
    draft.new_rows(csr_array(matrix), np.full(len(limit), -np.inf), limit)
    return form
