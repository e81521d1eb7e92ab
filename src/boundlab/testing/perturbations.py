"""check_perturbation: whether a perturbation set's minima are below all its points, whatever the kind of rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from boundlab.errors import ConformanceError, MissingRule
from boundlab.maps import Dense, Rows, at_owner, flat
from boundlab.perturbations.sets import PerturbationSet, box_minimum
from boundlab.testing.maps import sample_rows

FEW = 7
"""Samples and gradients that are compared one problem at a time."""


def check_perturbation(region: PerturbationSet, *, points: int = 200, known: Tensor | None = None, seed: int = 0) -> None:
    """Raise ConformanceError unless the set's points lie in its box, its minima are below them, and all rows agree.

    The points are `known` ones (n, b, *shape), or what `sample` gives; one of the two is needed. Minima must hold for all
    of them, be the same for dense, selected and windowed rows, and the same for a problem alone as in a batch, with finite
    gradients; `l2_ball` must hold them all. Where the set has `project`, that leaves its points where they are and puts others
    into the box.
    """
    box, generator = region.box(), torch.Generator().manual_seed(seed)
    title, eps = type(region).__name__, torch.finfo(box.lower.dtype).eps
    inside = points_of(title, region, points, known, generator)
    slack = 8 * eps * (box.lower.abs() + box.upper.abs())
    out = ~((inside >= box.lower - slack) & (inside <= box.upper + slack))
    if bool(out.any()):
        raise ConformanceError(f"{title}: {int(out.sum())} coordinates of its points lie outside its own box.")
    check_ball(title, region, inside)
    for rows in sample_rows(tuple(box.shape[1:]), box.shape[0], box.lower.dtype, generator):
        check_minimum(title, region, rows, inside)
    check_alone(title, region, generator)
    check_gradients(title, region, generator)
    check_project(title, region, inside, generator)


def points_of(title: str, region: PerturbationSet, count: int, known: Tensor | None, generator: torch.Generator) -> Tensor:
    """Points of the set, (count, b, *shape)."""
    shape = region.box().shape
    if known is not None:
        if known.shape[1:] != shape:
            raise ConformanceError(f"{title}: known points have shape {list(known.shape)}, not (n, batch, ...) around "
                                   f"{list(shape)}.")
        return known
    try:
        inside = region.sample(count, generator)
    except MissingRule as problem:
        raise ConformanceError(f"{title}: no point of the set is known to hold its minima against. Give check_perturbation "
                               "`known` points (n, b, *shape), or the set a method `sample` or `project`.") from problem
    if inside.shape != (count, *shape):
        raise ConformanceError(f"{title}: sample({count}) has shape {list(inside.shape)}, not {[count, *shape]}.")
    return inside


def check_ball(title: str, region: PerturbationSet, inside: Tensor) -> None:
    """No point is farther from the center of `l2_ball` than its radius."""
    (center, radius), box = region.l2_ball(), region.box()
    far = torch.linalg.vector_norm(flat(inside - center, 2), dim=2)
    size = torch.linalg.vector_norm(flat(torch.maximum(box.lower.abs(), box.upper.abs()), 1), dim=1)
    excess = far - radius - 32 * torch.finfo(far.dtype).eps * size
    if not bool((excess <= 0).all()):
        raise ConformanceError(f"{title}: a point lies {float(excess.nan_to_num(nan=torch.inf).max()):.3g} outside of l2_ball.")


def allowance(region: PerturbationSet, rows: Rows) -> Tensor:
    """What rounding may do to sum |coefficient| |x| over the box, (n, s)."""
    box, dense = region.box(), rows.dense().abs()
    largest = at_owner(torch.maximum(box.lower.abs(), box.upper.abs()), rows.owner)
    size = flat(dense * largest.unsqueeze(1), 2).sum(2)
    return (32 + math.prod(rows.shape)) * torch.finfo(dense.dtype).eps * size


def check_minimum(title: str, region: PerturbationSet, rows: Rows, inside: Tensor) -> None:
    """The minimum of each row is below its value at every point, and the same for the dense form of the rows."""
    low, slack = region.concretize(rows), allowance(region, rows)
    kind = f"{type(rows).__name__} rows {'with' if rows.owner is not None else 'without'} owner"
    dense = rows.dense()
    if low.shape != slack.shape:
        raise ConformanceError(f"{title}: concretize of {kind} has shape {list(low.shape)}, not (problems, rows) = "
                               f"{list(slack.shape)}.")
    for point in inside:
        value = flat(dense * at_owner(point, rows.owner).unsqueeze(1), 2).sum(2)
        if not bool((low <= value + slack).all()):
            excess = (low - value - slack).nan_to_num(nan=torch.inf)
            raise ConformanceError(f"{title}: concretize of {kind} is not a minimum; a point of the set has a row value "
                                   f"{float(excess.max()):.3g} below it, beyond rounding.")
    same = region.concretize(Dense(rows.shape, rows.owner, dense))
    differ(f"{title}: concretize of {kind} and of the same rows as Dense", low, same,
           2 * slack + tolerance(region) * same.abs())
    if region.independent:
        whole = box_minimum(region.box(), rows)
        differ(f"{title}: it says that its coordinates are independent, but its minima and those of its box", low, whole,
               2 * slack + tolerance(region) * whole.abs())


def differ(title: str, found: Tensor, expected: Tensor, slack: Tensor | float) -> None:
    """ConformanceError where two tensors differ by more than `slack`."""
    if found.shape != expected.shape or not bool(((found - expected).abs() <= slack).all()):
        amount = float((found - expected).abs().max()) if found.shape == expected.shape else math.nan
        raise ConformanceError(f"{title} differ by {amount:.3g}.")


def tolerance(region: PerturbationSet) -> float:
    """How exactly an iterative minimum may be expected to repeat."""
    return torch.finfo(region.box().lower.dtype).eps ** 0.75


def check_alone(title: str, region: PerturbationSet, generator: torch.Generator) -> None:
    """A problem's box and minima are the same alone as in its batch, and so are several problems in another order."""
    box = region.box()
    rows = torch.randn((box.shape[0], 3, *box.shape[1:]), dtype=box.lower.dtype, generator=generator)
    shape = tuple(box.shape[1:])
    whole = region.concretize(Dense(shape, None, rows))
    problems = torch.arange(box.shape[0])
    for index in (*problems.split(1), torch.cat([problems.flip(0), problems[:1]])):
        some, own = region.take(index), Dense(shape, None, rows[index])
        slack = allowance(some, own) + tolerance(region) * whole[index].abs()
        differ(f"{title}: the minima of problems {index.tolist()} in their batch and alone", some.concretize(own), whole[index],
               slack)
        apart = tolerance(region) * (1 + box.lower[index].abs() + box.upper[index].abs())
        for end, expected in ((some.box().lower, box.lower), (some.box().upper, box.upper)):
            differ(f"{title}: the boxes of problems {index.tolist()} in their batch and alone", end, expected[index], apart)


def check_gradients(title: str, region: PerturbationSet, generator: torch.Generator) -> None:
    """Gradients of minima in the rows are finite, at rows of zeros, too."""
    box = region.box()
    rows = torch.randn((box.shape[0], FEW, *box.shape[1:]), dtype=box.lower.dtype, generator=generator)
    rows[:, 0] = 0
    rows[:, 1] = rows[:, 1].sign()
    rows.requires_grad_()
    value = region.concretize(Dense(tuple(box.shape[1:]), None, rows))
    if not value.requires_grad:
        raise ConformanceError(f"{title}: the minima have no gradient in the rows; use torch functions only.")
    slopes, = torch.autograd.grad(value.sum(), rows)
    if not bool(torch.isfinite(slopes).all()):
        raise ConformanceError(f"{title}: gradients of its minima are NaN or infinite at "
                               f"{int((~torch.isfinite(slopes)).sum())} coordinates of the rows.")


def check_project(title: str, region: PerturbationSet, inside: Tensor, generator: torch.Generator) -> None:
    """Projection keeps points of the set, and its results have no row value below the minimum; a set may do without."""
    box = region.box()
    scale = 1 + box.lower.abs() + box.upper.abs()
    near = tolerance(region) * scale
    try:
        kept = region.project(inside)
    except MissingRule:
        return
    if not bool(((kept - inside).abs() <= near).all()):
        raise ConformanceError(f"{title}: project moves points of the set, by up to {float((kept - inside).abs().max()):.3g}.")
    wild = box.center + 3 * scale * torch.randn((len(inside), *box.shape), dtype=box.lower.dtype, generator=generator)
    landed = region.project(wild)
    if not bool(((landed >= box.lower - near) & (landed <= box.upper + near)).all()):
        raise ConformanceError(f"{title}: project leaves points outside the set's box.")
    for rows in sample_rows(tuple(box.shape[1:]), box.shape[0], box.lower.dtype, generator)[:2]:
        check_minimum(f"{title} (projected points)", region, rows, landed)
    check_moves(title, region, wild[:FEW], landed[:FEW])


def check_moves(title: str, region: PerturbationSet, wild: Tensor, landed: Tensor) -> None:
    """What attacks ask: points and samples of a problem are the same alone as in its batch, and ascent climbs."""
    box = region.box()
    near = tolerance(region) * (1 + box.lower.abs() + box.upper.abs())
    whole = region.sample(FEW, torch.Generator().manual_seed(1))
    for problem in range(min(2, box.shape[0])):
        alone, own = region.take(torch.tensor([problem])), slice(problem, problem + 1)
        differ(f"{title}: projections of problem {problem} in its batch and alone", alone.project(wild[:, own]), landed[:, own],
               near[own])
        differ(f"{title}: samples of problem {problem} in its batch and alone",
               alone.sample(FEW, torch.Generator().manual_seed(1)), whole[:, own], near[own])
    move, axes = region.ascent(wild), len(box.shape) - 1
    gain, size = (flat(value, value.dim() - axes).sum(-1) for value in (wild * move, (wild * move).abs()))
    if move.shape != wild.shape or not bool((gain >= -1e-5 * size).all()):
        raise ConformanceError(f"{title}: ascent does not climb: gradient . ascent is negative or NaN somewhere.")
