"""Points of boxes that may be witnesses: random ones, centres and corners, and what a short attack finds."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from boundlab.attack.pgd import PGD, attack
from boundlab.evaluate import evaluate
from boundlab.perturbations.sets import Box
from boundlab.verify.boxes import Boxes
from boundlab.verify.search import PACE
from boundlab.verify.task import Task
from boundlab.verify.verdict import Witness

ATTACKED, SHORT = 16, PGD(steps=8, restarts=2, targets=0)
"""How many of the boxes of a turn are attacked, and how."""
SAMPLES, DRAWN = 4096, 16
"""Random points of a box at most, and how many are drawn at once."""


def sampled(task: Task, boxes: Boxes, deadline: float) -> dict[int, Witness]:
    """What random points of boxes find within the time of a turn.

    Where few inputs vary these cover a box well, and they go where no slope leads: past steps, and into what is read by place.
    """
    ends, found = min(deadline, time.perf_counter() + PACE), dict[int, Witness]()
    generator = torch.Generator(boxes.lower.device).manual_seed(0)
    for _ in range(SAMPLES // DRAWN):
        left = boxes.without(set(found))
        if len(left) == 0 or time.perf_counter() >= ends:
            break
        share = torch.rand(DRAWN, *left.lower.shape, dtype=left.lower.dtype, device=left.lower.device, generator=generator)
        points = torch.clamp(left.lower + share * (left.upper - left.lower), left.lower, left.upper)
        found |= task.witnesses(left.owner.repeat(DRAWN), points_of(task, points.flatten(0, 1)))
    return found


def probe(task: Task, boxes: Boxes, slope: Tensor) -> dict[int, Witness]:
    """Witnesses among the centres of boxes and the corners where a linear bound with slopes (n, d) is smallest."""
    if len(boxes) == 0:
        return {}
    corner = torch.where(slope > 0, boxes.lower, boxes.upper)
    points = torch.cat([(boxes.lower + boxes.upper) / 2, corner])
    return task.witnesses(boxes.owner.repeat(2), points_of(task, points))


def attacked(task: Task, boxes: Boxes) -> dict[int, Witness]:
    """What an attack finds on the boxes with the worst centres."""
    if len(boxes) == 0:
        return {}
    centres = points_of(task, (boxes.lower + boxes.upper) / 2)
    worst = task.spec.worst(task.spec.take(boxes.owner).values(evaluate(task.model, centres)))
    some = boxes.select(worst.argsort()[:ATTACKED])
    (name, lower), (_, upper) = *points_of(task, some.lower).items(), *points_of(task, some.upper).items()
    ends = attack(task.model, {name: Box(lower, upper)}, task.spec.take(some.owner), SHORT, torch.Generator().manual_seed(0))
    return task.witnesses(some.owner, ends.points)


def points_of(task: Task, points: Tensor) -> dict[str, Tensor]:
    """Points (n, d) as values of the input."""
    node = task.model.graph.inputs[0]
    return {node.name: points.reshape(-1, *node.shape)}
