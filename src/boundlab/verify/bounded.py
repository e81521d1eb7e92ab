"""Bounds of boxes of inputs: of rows and clauses, and how much coordinates matter to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from boundlab.bounds.methods import bound
from boundlab.bounds.observe import Observer
from boundlab.bounds.problem import Bounds, Method
from boundlab.errors import BoundError
from boundlab.graph import Model
from boundlab.perturbations.sets import Box
from boundlab.spec import Specification
from boundlab.verify import trimming
from boundlab.verify.boxes import Boxes
from boundlab.verify.fixed import fixed
from boundlab.verify.mixing import Lines, Mixed, mixed
from boundlab.verify.proof import Slopes, plain_of, together
from boundlab.verify.trimming import Trims, trimmed, untrimmed


@dataclass(frozen=True)
class Bounding:
    """How boxes are bounded: rows of a network with one input, by a method."""

    model: Model
    spec: Specification
    method: Method


@dataclass(frozen=True)
class Bounded:
    """What is known of n boxes: lower bounds of rows (n, s), their coefficients (n, s, d), bounds of the clauses, what is left
    of the boxes, and slopes of plain lines on those that are the first to show a clause, or lost anything, if they are kept."""

    lower: Tensor
    slope: Tensor
    mixed: Mixed
    trims: Trims
    plain: Slopes | None

    def select(self, index: Tensor) -> Bounded:
        """Bounds of some boxes, without slopes."""
        clauses = Mixed(self.mixed.lower[index], self.mixed.weights[index])
        return Bounded(self.lower[index], self.slope[index], clauses, self.trims.select(index), None)

    def influence(self, clause: Tensor, shown: Tensor) -> Tensor:
        """By how much each coordinate (n, d) moves the rows of clauses that are not `shown` (n, c), given the clause of each.

        What a row would gain counts as a share of what it lacks.
        """
        lack = self.lower.abs().clamp(min=torch.finfo(self.lower.dtype).eps)
        weight = torch.where(shown[:, clause], 0.0, 1 / lack)
        return torch.linalg.vecdot(self.slope.abs(), weight.unsqueeze(-1), dim=1)


def first_shown(boxes: Boxes, clauses: Mixed) -> Tensor:
    """The clauses (n, c) that boxes show and no larger one does."""
    return ~boxes.shown & (clauses.lower > 0)


def telling(boxes: Boxes, clauses: Mixed, trims: Trims) -> Tensor:
    """The boxes (n,) that show something as the first, on all of the box or a part of it."""
    return first_shown(boxes, clauses).any(1) | trims.cut


@torch.no_grad()
def bound_boxes(how: Bounding, boxes: Boxes, keep: bool, observe: Observer | None) -> Bounded:
    """Lower bounds of rows and clauses; -inf and coefficients of 1 where the method says nothing. `keep`: slopes, too."""
    try:
        found = bounds_of(how, boxes, observe)
    except BoundError as problem:
        return without_failed(how, boxes, keep, observe, problem.failed)
    lines = lines_of(found, how, boxes)
    slope = boxes.lower.new_ones(*found.lower.shape, boxes.lower.shape[1]) if lines is None else lines.slope
    clauses = mixed(how.spec, found.lower, lines)
    trims = trimmed(how.spec, boxes, lines, clauses)
    new = telling(boxes, clauses, trims).nonzero().flatten()
    plain = plain_of(found.graph, found.env, new) if keep and len(new) else {}
    return Bounded(found.lower, slope, clauses, trims, plain if keep else None)


def without_failed(how: Bounding, boxes: Boxes, keep: bool, observe: Observer | None,
                   failed: tuple[bool, ...] | None) -> Bounded:
    """The same of boxes of which the method has `failed` for some, of these without bounds; halves where nobody knows which."""
    if len(boxes) == 1 or (failed is not None and all(failed)):
        return unbounded(how, boxes, keep)
    places = torch.arange(len(boxes), device=boxes.owner.device)
    if failed is None or len(failed) != len(boxes):
        parts = [boxes.select(half) for half in places.chunk(2)]
        return merged(parts, [bound_boxes(how, part, keep, observe) for part in parts], places)
    mask = torch.tensor(failed, device=boxes.owner.device)
    good, bad = boxes.select(~mask), boxes.select(mask)
    order = torch.cat([places[~mask], places[mask]]).argsort()
    return merged((good, bad), (bound_boxes(how, good, keep, observe), unbounded(how, bad, keep)), order)


def unbounded(how: Bounding, boxes: Boxes, keep: bool) -> Bounded:
    """What is known of boxes for which the method has failed."""
    lower = boxes.lower.new_full((len(boxes), how.spec.rows.shape[1]), -torch.inf)
    slope = boxes.lower.new_ones(*lower.shape, boxes.lower.shape[1])
    return Bounded(lower, slope, mixed(how.spec, lower, None), untrimmed(boxes, how.spec), {} if keep else None)


def merged(boxes: Sequence[Boxes], parts: Sequence[Bounded], order: Tensor) -> Bounded:
    """What is known of two lists of boxes as of one, in this order (n,), which keeps that of those that show clauses."""
    clauses = Mixed(torch.cat([part.mixed.lower for part in parts]), torch.cat([part.mixed.weights for part in parts]))
    counts = [int(telling(own, part.mixed, part.trims).sum()) for own, part in zip(boxes, parts, strict=True)]
    kept = [part.plain for part in parts if part.plain is not None]
    whole = Bounded(torch.cat([part.lower for part in parts]), torch.cat([part.slope for part in parts]), clauses,
                    trimming.joined([part.trims for part in parts]), None)
    return replace(whole.select(order), plain=together(kept, counts) if kept else None)


def bounds_of(how: Bounding, boxes: Boxes, observe: Observer | None) -> Bounds:
    """Bounds of the rows on boxes."""
    node = how.model.graph.inputs[0]
    box = Box(boxes.lower.reshape(-1, *node.shape), boxes.upper.reshape(-1, *node.shape))
    model, sets = fixed(how.model, {node.name: box})
    return bound(model, sets, method=how.method, spec=how.spec.take(boxes.owner), observe=observe)


def lines_of(found: Bounds, how: Bounding, boxes: Boxes) -> Lines | None:
    """The rows as linear functions of the input; None where the method has none."""
    linear, source = found.linear, how.model.graph.inputs[0].index
    if linear is None or set(linear.coefficients) != {source}:
        return None
    slope = linear.coefficients[source].dense().flatten(2).expand(len(boxes), -1, -1)
    middle, radius = (boxes.lower + boxes.upper) / 2, (boxes.upper - boxes.lower) / 2
    away = middle - linear.reference[source].flatten(1) if source in linear.reference else middle
    value = torch.linalg.vecdot(slope, away[:, None]) + how.spec.take(boxes.owner).offset
    return Lines(value if linear.bias is None else value + linear.bias, slope, radius)
