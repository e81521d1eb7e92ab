"""The questions of `verify` in exact numbers: the sets of a batch and its specification as queries, one a problem."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from boundlab.errors import MissingRule
from boundlab.graph import Model
from boundlab.perturbations.ball import LpBall
from boundlab.perturbations.joint import Regions
from boundlab.perturbations.sets import Box, as_batch, as_like
from boundlab.question.exact import Atom, Ball, Case, Ends, Query
from boundlab.spec import Specification

Pair = tuple[np.ndarray, np.ndarray]
"""Numbers as the nearest float64 and the sign of what that leaves out, both (b, d)."""


def queries_of(model: Model, sets: Regions, spec: Specification, problems: Tensor) -> list[Query]:
    """What is asked of each of the problems (m,), exactly as the floats say.

    A radius or a limit that was given in another type is covered with its rounding to the set's. MissingRule for sets that are
    neither boxes nor balls, and for a specification with numbers that are not finite.
    """
    if not bool(torch.isfinite(spec.rows).all() and torch.isfinite(spec.offset).all()):
        raise MissingRule("the specification has a number that is not finite.")
    if not isinstance(sets, Mapping) or {node.name for node in model.graph.inputs} != set(sets):
        raise MissingRule("only inputs that vary on their own have an exact form, not weights or joint sets.")
    ends = [ends_of_region(sets[node.name], problems) for node in model.graph.inputs]
    balls = balls_of([sets[node.name] for node in model.graph.inputs], problems)
    lower, upper = (tuple(np.concatenate([pair[side][part] for pair in ends], axis=1) for part in range(2))
                    for side in range(2))
    unsafe = [unsafe_of(spec.take(problem)) for problem in problems[:, None]]
    cases = [Case(Ends(lower[0][place], lower[1][place]), Ends(upper[0][place], upper[1][place]), conjuncts,
                  ball=ball) for place, (conjuncts, ball) in enumerate(zip(unsafe, balls, strict=True))]
    outputs = math.prod(model.graph.output.shape)
    return [Query(lower[0].shape[1], outputs, (case,)) for case in cases]


def ends_of_region(region: object, problems: Tensor) -> tuple[Pair, Pair]:
    """The exact ends (m, d) of a constant, of a box, or of the box around a ball."""
    if isinstance(region, Tensor):
        number = as_rows(region, region, problems)
        return exact(number), exact(number)
    if isinstance(region, Box):
        return exact(as_rows(region.lower, region.lower, problems)), exact(as_rows(region.upper, region.upper, problems))
    if isinstance(region, LpBall):
        return ends_of_ball(region, problems)
    raise MissingRule(f"{type(region).__name__} has no exact form as a box or a ball.")


def balls_of(regions: Sequence[object], problems: Tensor) -> list[Ball | None]:
    """The balls of a norm other than the largest, one a problem, where the network has but one input."""
    region = regions[0]
    if len(regions) > 1 or not isinstance(region, LpBall) or math.isinf(region.p):
        return [None] * len(problems)
    centers, radii = as_rows(region.center, region.center, problems), radii_of(region, problems)[:, 0]
    return [Ball(tuple(map(Fraction, center.tolist())), Fraction(float(radius)), float(region.p))
            for center, radius in zip(centers, radii, strict=True)]


def radii_of(ball: LpBall, problems: Tensor) -> np.ndarray:
    """Radii (m, d), at least those that were asked for."""
    given = as_batch(ball.eps, ball.center.double())
    return np.maximum(as_rows(ball.radius, ball.center, problems), as_rows(given, ball.center, problems))


def ends_of_ball(ball: LpBall, problems: Tensor) -> tuple[Pair, Pair]:
    """center - eps and center + eps without rounding, cut to the limits."""
    center = as_rows(ball.center, ball.center, problems)
    radius = radii_of(ball, problems)
    lower, upper = difference(center, radius), difference(center, -radius)
    if ball.clip is None:
        return lower, upper
    given = [as_like(limit, ball.center.double()) for limit in ball.clip]
    (low, wider), (high, higher) = ((as_rows(limit, ball.center, problems) for limit in pair)
                                    for pair in zip(ball.limits, given, strict=True))
    low, high = np.minimum(low, wider), np.maximum(high, higher)
    # A center beyond a limit leaves both ends at that limit.
    return tuple(below(above(end, low), high) for end in (lower, upper))  # type: ignore[return-value]


def as_rows(value: Tensor, like: Tensor, problems: Tensor) -> np.ndarray:
    """A tensor that broadcasts to `like` (b, *shape) as float64 rows (m, d) of some problems."""
    whole = torch.broadcast_to(value, like.shape if value.dim() < like.dim() or len(value) == 1 else value.shape)
    whole = torch.broadcast_to(whole, (len(whole), *like.shape[1:]))
    index = torch.zeros_like(problems) if len(whole) == 1 else problems
    return whole[index.to(whole.device)].reshape(len(problems), -1).detach().cpu().double().numpy()


def exact(number: np.ndarray) -> Pair:
    """Floats as they are."""
    return number, np.zeros(number.shape, dtype=np.int8)


def difference(a: np.ndarray, b: np.ndarray) -> Pair:
    """a - b with the sign of its rounding error, which is found without one (Knuth, TAOCP 2, Sec. 4.2.2, theorem B)."""
    total = a - b
    part = total - a
    error = (a - (total - part)) + (-b - part)
    return total, np.sign(error).astype(np.int8)


def above(end: Pair, limit: np.ndarray) -> Pair:
    """The larger of an end and a limit."""
    smaller = (end[0] < limit) | ((end[0] == limit) & (end[1] < 0))
    return np.where(smaller, limit, end[0]), np.where(smaller, 0, end[1]).astype(np.int8)


def below(end: Pair, limit: np.ndarray) -> Pair:
    """The smaller of an end and a limit."""
    number, excess = above((-end[0], -end[1]), -limit)
    return -number, -excess


def unsafe_of(spec: Specification) -> tuple[tuple[Atom, ...], ...]:
    """What must not be, for a specification of one problem: a clause of which no row is positive."""
    rows, offsets = spec.rows[0].flatten(1).cpu().double(), spec.offset[0].cpu().double().tolist()
    atoms = []
    for row, offset in zip(rows, offsets, strict=True):
        places = row.nonzero().flatten().tolist()
        atoms.append(Atom(tuple((place, Fraction(float(row[place]))) for place in places), Fraction(offset)))
    clauses = spec.clause.tolist()
    return tuple(tuple(atom for atom, own in zip(atoms, clauses, strict=True) if own == clause)
                 for clause in range(spec.clauses))
