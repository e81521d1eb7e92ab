"""Input bisection: boxes are halved until each is proven, a witness turns up, or the time is over.

For networks with few perturbed inputs; Wang et al. 2018 (ReluVal), Sec. 4.2 choose the coordinate by its influence, here
its width times its coefficients in the linear bounds. The most promising boxes are attacked. All problems of a batch share one
flat list of open boxes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from boundlab.attack.pgd import PGD, attack
from boundlab.bounds.methods import bound
from boundlab.bounds.problem import Bounds, Method
from boundlab.errors import BoundError
from boundlab.evaluate import evaluate
from boundlab.perturbations.joint import Regions
from boundlab.perturbations.sets import Box, PerturbationSet
from boundlab.verify.boxes import Boxes, Heap, joined
from boundlab.verify.cuts import Cuts
from boundlab.verify.options import Bisection
from boundlab.verify.proof import Proof, Slopes, best_rows, plain_of, some, together
from boundlab.verify.search import Found
from boundlab.verify.task import Task, take_regions
from boundlab.verify.verdict import Witness

NUMBERS = 2**23
"""Numbers that the rows of one batch of boxes may hold at the widest node, so that batches end soon after the deadline."""
ATTACKED, SHORT = 16, PGD(steps=8, restarts=2, targets=0)
"""How many of the boxes of a turn are attacked, and how."""


def splittable(lower: Tensor, upper: Tensor) -> Tensor:
    """Coordinates that have a float strictly between their ends and are more than rounding wide, (n, d) booleans."""
    middle = (lower + upper) / 2
    tiny = 8 * torch.finfo(lower.dtype).eps * torch.maximum(lower.abs(), upper.abs())
    return (lower < middle) & (middle < upper) & (upper - lower > tiny)


def bisectable(task: Task, index: Tensor, options: Bisection) -> Tensor:
    """Those of the problems `index` that bisection is for: one perturbed input, a box with few wide coordinates."""
    inputs = [node.name for node in task.model.graph.inputs]
    if list(task.sets) != inputs or len(inputs) != 1 or not box_like(task.sets[inputs[0]]):
        return index[:0]
    box = only_box(task.sets, index)
    count = splittable(box.lower.flatten(1), box.upper.flatten(1)).sum(1)
    return index[(count > 0) & (count <= options.most_inputs)]


def box_like(region: PerturbationSet | Tensor) -> bool:
    """Whether a set is a box, such as a ball in the largest norm."""
    return isinstance(region, PerturbationSet) and region.independent


def only_box(regions: Regions, index: Tensor) -> Box:
    """The boxes of the problems `index` (m,) for a network whose only input varies in a box."""
    region, = take_regions(regions, index).values()
    assert isinstance(region, PerturbationSet)
    ends = region.box()
    box = Box(ends.lower, ends.upper)
    return box if len(box.lower) == len(index) else box.take(torch.zeros_like(index))


@dataclass(frozen=True)
class BisectionState:
    """The problems `index` (m,) of a task with their open boxes, bounded by `method`, and what is known of closed ones.

    `floor` (b, s) are the lowest bounds of all problems' rows over their proven boxes; problems that are `stuck` have a box
    that is too narrow to halve. `shown` are proven boxes with their bounds (n, s) and slopes of plain lines, if
    proofs are kept.
    """

    task: Task
    index: Tensor
    options: Bisection
    method: Method
    boxes: Heap
    floor: Tensor
    cuts: Cuts
    done: int = 0
    witnesses: Mapping[int, Witness] = field(default_factory=dict)
    stuck: frozenset[int] = frozenset()
    shown: tuple[tuple[Boxes, Tensor, Slopes], ...] = ()

    @property
    def over(self) -> bool:
        """Whether no box is left, or too many are."""
        return not 0 < self.boxes.count <= self.options.most_open

    @property
    def at_once(self) -> int:
        """How many boxes are bounded together."""
        widest = max(math.prod(node.shape) for node in self.task.model.graph)
        return max(1, min(self.options.boxes, NUMBERS // (widest * self.task.spec.rows.shape[1])))

    def without(self, problems: set[int]) -> BisectionState:
        """The search of the other problems."""
        return replace(self, boxes=self.boxes.without(problems), stuck=self.stuck | problems)

    @torch.no_grad()
    def step(self, deadline: float) -> BisectionState:
        """The lowest boxes bounded, and those that are not proven halved."""
        batch, rest = self.boxes.worst(self.at_once)
        lower, sensitivity, plain = bound_boxes(self.task, batch, self.method)
        margin = self.task.spec.worst(lower)
        proven = margin > 0
        closed = replace(self, done=self.done + len(batch.owner)).closed(batch.select(proven), lower[proven], plain)
        failed = replace(batch, parent=torch.maximum(batch.parent, margin)).select(~proven)
        witnesses = {**self.witnesses, **probe(self.task, failed, lower[~proven], sensitivity[~proven])}
        halves, hopeless = halve(failed, sensitivity[~proven], lower[~proven], self.task.spec.clause, self.cuts)
        stuck = self.stuck | set(hopeless.tolist())
        ended = stuck | set(witnesses)
        return replace(closed, boxes=rest.without(ended).joined(halves.without(ended)), stuck=stuck, witnesses=witnesses)

    def closed(self, boxes: Boxes, lower: Tensor, plain: Slopes) -> BisectionState:
        """With some proven boxes, bounds of their rows (n, s), and slopes of plain lines on them."""
        floor = self.floor.scatter_reduce(0, boxes.owner[:, None].expand_as(lower), lower, "amin")
        shown = (*self.shown, (boxes, lower, plain)) if self.task.keep else ()
        return replace(self, floor=floor, shown=shown)

    def found(self) -> Found:
        waiting = self.boxes.owners | self.stuck | set(self.witnesses)
        proven = {i: self.floor[i] for i in self.index.tolist() if i not in waiting}
        return Found(self.witnesses, proven, self.done, self.boxes.count, self.boxes.least)

    def proof(self, problem: int) -> Proof | None:
        if not self.shown:
            return None
        own = [boxes.owner == problem for boxes, _, _ in self.shown]
        boxes = joined([boxes.select(mask) for mask, (boxes, _, _) in zip(own, self.shown, strict=True)])
        lower = torch.cat([lower[mask] for mask, (_, lower, _) in zip(own, self.shown, strict=True)])
        plain = together([some(slopes, mask.cpu()) for mask, (_, _, slopes) in zip(own, self.shown, strict=True)],
                         [int(mask.sum()) for mask in own])
        spec, node = self.task.spec, self.task.model.graph.inputs[0].index
        clause = torch.arange(spec.clauses).repeat_interleave(len(lower))
        every = torch.arange(len(lower)).repeat(spec.clauses)
        paths = self.cuts.paths(boxes.number, node).cpu().take(every)
        return Proof(clause, best_rows(spec, lower).flatten(0, 1), paths, plain=some(plain, every))


def bisection(task: Task, index: Tensor, options: Bisection) -> BisectionState:
    """The search of the problems `index` (m,) of a task at its beginning."""
    ends = only_box(task.sets, index)
    lower, upper = ends.lower.flatten(1), ends.upper.flatten(1)
    boxes = Boxes(index, lower, upper, lower.new_full((len(index),), -torch.inf), torch.arange(len(index), device=index.device))
    floor = lower.new_full((task.count, task.spec.rows.shape[1]), torch.inf)
    return BisectionState(task, index, options, options.chosen(task.model), Heap(boxes), floor, Cuts(len(index)))


def bound_boxes(task: Task, boxes: Boxes, method: Method) -> tuple[Tensor, Tensor, Slopes]:
    """Lower bounds of the rows (n, s), their coefficients (n, s, d), and slopes of plain lines on the boxes that are proven, if
    proofs are kept; -inf, 1 and none where the method says nothing."""
    try:
        found = bounds_of(task, boxes, method)
    except BoundError:
        if len(boxes.owner) == 1:
            size = (1, task.spec.rows.shape[1])
            return boxes.lower.new_full(size, -torch.inf), boxes.lower.new_ones(*size, boxes.lower.shape[1]), {}
        half = torch.arange(len(boxes.owner), device=boxes.owner.device).chunk(2)
        parts = [bound_boxes(task, boxes.select(part), method) for part in half]
        counts = [int((task.spec.worst(lower) > 0).sum()) for lower, _, _ in parts]
        return (torch.cat([lower for lower, _, _ in parts]), torch.cat([rows for _, rows, _ in parts]),
                together([plain for _, _, plain in parts], counts))
    proven = (task.spec.worst(found.lower) > 0).nonzero().flatten()
    plain = plain_of(found.graph, found.env, proven) if task.keep and len(proven) else {}
    return found.lower, coefficients(found, task.model.graph.inputs[0].index, boxes), plain


def bounds_of(task: Task, boxes: Boxes, method: Method) -> Bounds:
    """Bounds of the rows on boxes."""
    node = task.model.graph.inputs[0]
    box = Box(boxes.lower.reshape(-1, *node.shape), boxes.upper.reshape(-1, *node.shape))
    return bound(task.model, {node.name: box}, method=method, spec=task.spec.take(boxes.owner), observe=task.observe)


def coefficients(found: Bounds, source: int, boxes: Boxes) -> Tensor:
    """The rows' coefficients at the input (n, s, d); ones where the method has none."""
    if found.linear is None or source not in found.linear.coefficients:
        return boxes.lower.new_ones(*found.lower.shape, boxes.lower.shape[1])
    return found.linear.coefficients[source].dense().flatten(2).expand(len(boxes.owner), -1, -1)


def wanted(lower: Tensor, clause: Tensor) -> Tensor:
    """The rows (n, s) that may prove what is left, given lower bounds (n, s): those of clauses that no row proves."""
    best = lower.new_full((len(lower), int(clause.max()) + 1), -torch.inf)
    return best.scatter_reduce(1, clause.expand_as(lower), lower, "amax").gather(1, clause.expand_as(lower)) <= 0


def halve(boxes: Boxes, sensitivity: Tensor, lower: Tensor, clause: Tensor, cuts: Cuts) -> tuple[Boxes, Tensor]:
    """Both halves of each box, and the problems (k,) with a box that is too narrow to halve.

    What a row would gain counts as a share of what it lacks.
    """
    weight = wanted(lower, clause).to(sensitivity) / lower.abs().clamp(min=torch.finfo(lower.dtype).eps)
    influence = torch.linalg.vecdot(sensitivity.abs(), weight.unsqueeze(-1), dim=1)
    influence = influence + 1e-3 * influence.amax(1, keepdim=True) + torch.finfo(influence.dtype).tiny
    wide = splittable(boxes.lower, boxes.upper)
    score = torch.where(wide, (boxes.upper - boxes.lower) * influence, -torch.inf)
    possible = wide.any(1)
    hopeless, boxes, score = boxes.owner[~possible], boxes.select(possible), score[possible]
    if len(boxes.owner) == 0:
        return boxes, hopeless
    coordinate = score.argmax(1)
    chosen = torch.nn.functional.one_hot(coordinate, score.shape[1]).bool()
    middle = (boxes.lower + boxes.upper) / 2
    below, above = cuts.halved(boxes.number, coordinate, middle.gather(1, coordinate[:, None]).squeeze(1))
    left = Boxes(boxes.owner, boxes.lower, torch.where(chosen, middle, boxes.upper), boxes.parent, below)
    right = Boxes(boxes.owner, torch.where(chosen, middle, boxes.lower), boxes.upper, boxes.parent, above)
    return joined((left, right)), hopeless


def probe(task: Task, boxes: Boxes, lower: Tensor, sensitivity: Tensor) -> dict[int, Witness]:
    """Witnesses among the centres of boxes, the corners where their worst row's linear bound is smallest, and what an attack on
    the boxes with the worst of these points finds."""
    if len(boxes.owner) == 0:
        return {}
    node = task.model.graph.inputs[0]
    slope = sensitivity[torch.arange(len(lower)), lower.argmin(1)]
    corner = torch.where(slope > 0, boxes.lower, boxes.upper)
    points = torch.cat([(boxes.lower + boxes.upper) / 2, corner]).reshape(-1, *node.shape)
    found = task.witnesses(boxes.owner.repeat(2), {node.name: points})
    if found:
        return found
    values = task.spec.take(boxes.owner.repeat(2)).values(evaluate(task.model, {node.name: points}))
    worst = task.spec.worst(values).reshape(2, -1).amin(0).argsort()[:ATTACKED]
    some = boxes.select(worst)
    box = Box(some.lower.reshape(-1, *node.shape), some.upper.reshape(-1, *node.shape))
    ends = attack(task.model, {node.name: box}, task.spec.take(some.owner), SHORT, torch.Generator().manual_seed(0)).points
    return task.witnesses(some.owner, ends)
