"""check_perturbation: whether a perturbation set's minima are below all its points, whatever the kind of rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from boundlab.errors import ConformanceError
from boundlab.maps import Dense, Rows, at_owner
from boundlab.perturbations.sets import PerturbationSet
from boundlab.testing.maps import sample_rows


def check_perturbation(region: PerturbationSet, *, points: int = 200, seed: int = 0) -> None:
    """Raise ConformanceError unless the set's samples lie in its box, its minima are below them, and all rows agree.

    Minima must hold for every point that `sample` gives, be the same for dense, selected and windowed rows, and be the
    same for a problem alone as in a batch; `project` leaves points of the set where they are and puts others into the box.
    """
    box, generator = region.box(), torch.Generator().manual_seed(seed)
    title, dtype, eps = type(region).__name__, box.lower.dtype, torch.finfo(box.lower.dtype).eps
    inside = region.sample(points, generator)
    if inside.shape != (points, *box.shape):
        raise ConformanceError(f"{title}: sample({points}) has shape {list(inside.shape)}, not {[points, *box.shape]}.")
    slack = 8 * eps * (box.lower.abs() + box.upper.abs())
    out = (inside < box.lower - slack) | (inside > box.upper + slack)
    if bool(out.any()):
        raise ConformanceError(f"{title}: {int(out.sum())} coordinates of its samples lie outside its own box.")
    for rows in sample_rows(tuple(box.shape[1:]), box.shape[0], dtype, generator):
        check_minimum(title, region, rows, inside)
    check_alone(title, region, generator)
    check_project(title, region, inside, generator)


def allowance(region: PerturbationSet, rows: Rows) -> Tensor:
    """What rounding may do to sum |coefficient| |x| over the box, (n, s)."""
    box, dense = region.box(), rows.dense().abs()
    largest = at_owner(torch.maximum(box.lower.abs(), box.upper.abs()), rows.owner)
    size = (dense * largest.unsqueeze(1)).flatten(2).sum(2)
    return (32 + math.prod(rows.shape)) * torch.finfo(dense.dtype).eps * size


def check_minimum(title: str, region: PerturbationSet, rows: Rows, inside: Tensor) -> None:
    """The minimum of each row is below its value at every sample, and the same for the dense form of the rows."""
    low, slack = region.concretize(rows), allowance(region, rows)
    kind = f"{type(rows).__name__} rows {'with' if rows.owner is not None else 'without'} owner"
    dense = rows.dense()
    if low.shape != slack.shape:
        raise ConformanceError(f"{title}: concretize of {kind} has shape {list(low.shape)}, not (problems, rows) = "
                               f"{list(slack.shape)}.")
    for point in inside:
        value = (dense * at_owner(point, rows.owner).unsqueeze(1)).flatten(2).sum(2)
        if not bool((low <= value + slack).all()):
            excess = (low - value - slack).nan_to_num(nan=torch.inf)
            raise ConformanceError(f"{title}: concretize of {kind} is not a minimum; a point of the set has a row value "
                                   f"{float(excess.max()):.3g} below it, beyond rounding.")
    same = region.concretize(Dense(rows.shape, rows.owner, dense))
    if not bool(((low - same).abs() <= 2 * slack + tolerance(region) * same.abs()).all()):
        raise ConformanceError(f"{title}: concretize of {kind} and of the same rows as Dense differ by "
                               f"{float((low - same).abs().max()):.3g}.")


def tolerance(region: PerturbationSet) -> float:
    """How exactly an iterative minimum may be expected to repeat."""
    return torch.finfo(region.box().lower.dtype).eps ** 0.75


def check_alone(title: str, region: PerturbationSet, generator: torch.Generator) -> None:
    """A problem's minima are the same alone as in its batch."""
    box = region.box()
    rows = torch.randn((box.shape[0], 3, *box.shape[1:]), dtype=box.lower.dtype, generator=generator)
    shape = tuple(box.shape[1:])
    whole = region.concretize(Dense(shape, None, rows))
    for problem in range(box.shape[0]):
        alone = Dense(shape, None, rows[problem:problem + 1])
        one = region.take(torch.tensor([problem]))
        slack = allowance(one, alone) + tolerance(region) * whole[problem].abs()
        if not bool(((one.concretize(alone) - whole[problem]).abs() <= slack).all()):
            raise ConformanceError(f"{title}: the minima of problem {problem} change when it is alone.")


def check_project(title: str, region: PerturbationSet, inside: Tensor, generator: torch.Generator) -> None:
    """Projection keeps points of the set, and its results have no row value below the minimum."""
    box = region.box()
    scale = 1 + box.lower.abs() + box.upper.abs()
    near = tolerance(region) * scale
    if not bool(((region.project(inside) - inside).abs() <= near).all()):
        moved = float((region.project(inside) - inside).abs().max())
        raise ConformanceError(f"{title}: project moves points of the set, by up to {moved:.3g}.")
    wild = box.center + 3 * scale * torch.randn((len(inside), *box.shape), dtype=box.lower.dtype, generator=generator)
    landed = region.project(wild)
    if not bool(((landed >= box.lower - near) & (landed <= box.upper + near)).all()):
        raise ConformanceError(f"{title}: project leaves points outside the set's box.")
    for rows in sample_rows(tuple(box.shape[1:]), box.shape[0], box.lower.dtype, generator)[:2]:
        check_minimum(f"{title} (projected points)", region, rows, landed)
