"""Input bisection: boxes are halved until each is proven, a witness turns up, or the time is over.

For networks with few perturbed inputs; Wang et al. 2018 (ReluVal), Sec. 4.2 choose the coordinate by its influence, here
its width times its coefficients in the linear bounds. All problems of a batch share one flat list of open boxes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from boundlab.bounds.methods import CROWN, IBP, bound
from boundlab.bounds.problem import Bounds, Method
from boundlab.errors import BoundError
from boundlab.graph import INPUT, Model
from boundlab.perturbations.joint import Regions
from boundlab.perturbations.sets import Box
from boundlab.verify.cuts import Cuts
from boundlab.verify.proof import Proof
from boundlab.verify.task import Task, take_regions
from boundlab.verify.verdict import Witness

SMALL = 4096
"""Numbers that a network computes from its inputs, up to which full CROWN decides sooner than CROWN-IBP, box for box dearer."""
NUMBERS = 2**23
"""Numbers that the rows of one batch of boxes may hold at the widest node, so that batches end soon after the deadline."""


@dataclass(frozen=True)
class Bisection:
    """When and how to halve inputs: `boxes` at a time bounded by `method`, for at most `most_inputs` perturbed coordinates.

    Without a method it is CROWN for networks that hold at most SMALL numbers, and CROWN-IBP for others. The search gives
    up when more than `most_open` boxes wait. With `keep` it keeps proofs.
    """

    method: Method | None = None
    boxes: int = 512
    most_inputs: int = 32
    most_open: int = 1_000_000
    keep: bool = False

    def chosen(self, model: Model) -> Method:
        """The method for a network."""
        varying: set[int] = set()
        for node in model.graph:
            if node.op == INPUT or any(arg in varying for arg in node.args):
                varying.add(node.index)
        small = sum(math.prod(model.graph[index].shape) for index in varying) <= SMALL
        return self.method or (CROWN(problems=self.boxes, max_rows=2048) if small else CROWN(IBP()))


@dataclass(frozen=True)
class Boxes:
    """n open boxes: the problem of each (n,), ends (n, d), the bound that its parent had (n,), its number among all (n,)."""

    owner: Tensor
    lower: Tensor
    upper: Tensor
    parent: Tensor
    number: Tensor

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The five tensors."""
        return self.owner, self.lower, self.upper, self.parent, self.number

    def select(self, index: Tensor) -> Boxes:
        """The boxes at these places, or where a mask is true."""
        return Boxes(*(part[index] for part in self.parts))

    def join(self, other: Boxes) -> Boxes:
        """Both lists."""
        return Boxes(*(torch.cat(pair) for pair in zip(self.parts, other.parts, strict=True)))


@dataclass(frozen=True)
class Bisected:
    """What bisection found: witnesses by problem, proven problems with bounds of their rows (s,), boxes bounded and left.

    `proofs` are those of proven problems, if they were to be kept.
    """

    witnesses: Mapping[int, Witness]
    proven: Mapping[int, Tensor]
    boxes: int
    left: int
    proofs: Mapping[int, Proof] = field(default_factory=dict)


def splittable(lower: Tensor, upper: Tensor) -> Tensor:
    """Coordinates that have a float strictly between their ends and are more than rounding wide, (n, d) booleans."""
    middle = (lower + upper) / 2
    tiny = 8 * torch.finfo(lower.dtype).eps * torch.maximum(lower.abs(), upper.abs())
    return (lower < middle) & (middle < upper) & (upper - lower > tiny)


def bisectable(task: Task, index: Tensor, options: Bisection) -> Tensor:
    """Those of the problems `index` that bisection is for: one perturbed input, a box with few wide coordinates."""
    inputs = [node.name for node in task.model.graph.inputs]
    if list(task.sets) != inputs or len(inputs) != 1 or not isinstance(task.sets[inputs[0]], Box):
        return index[:0]
    box = only_box(task.sets, index)
    count = splittable(box.lower.flatten(1), box.upper.flatten(1)).sum(1)
    return index[(count > 0) & (count <= options.most_inputs)]


def only_box(regions: Regions, index: Tensor) -> Box:
    """The boxes of the problems `index` (m,) for a network whose only input varies in a box."""
    region, = take_regions(regions, index).values()
    assert isinstance(region, Box)
    return region if len(region.lower) == len(index) else region.take(torch.zeros_like(index))


@torch.no_grad()
def bisect(task: Task, index: Tensor, options: Bisection, deadline: float, first: bool) -> Bisected:
    """Halve the boxes of the problems `index` (m,) until the deadline; with `first`, the first witness ends the search."""
    ends = only_box(task.sets, index)
    open_boxes = Boxes(index, ends.lower.flatten(1), ends.upper.flatten(1), ends.lower.new_full((len(index),), -torch.inf),
                       torch.arange(len(index), device=index.device))
    cuts, shown = Cuts(len(index)), list[tuple[Tensor, Tensor, Tensor]]()
    method, stuck = options.chosen(task.model), set[int]()
    witnesses: dict[int, Witness] = {}
    rows = task.spec.rows.shape[1]
    leaves = ends.lower.new_full((task.count, rows), torch.inf)
    widest = max(math.prod(node.shape) for node in task.model.graph)
    count, done = max(1, min(options.boxes, NUMBERS // (widest * rows))), 0
    while len(open_boxes.owner) and len(open_boxes.owner) <= options.most_open and time.perf_counter() < deadline:
        batch, rest = worst(open_boxes, count)
        lower, sensitivity = bound_boxes(task, batch, method)
        done += len(batch.owner)
        margin = task.spec.worst(lower)
        proven = margin > 0
        leaves = leaves.scatter_reduce(0, batch.owner[proven, None].expand(-1, rows), lower[proven], "amin")
        if options.keep:
            shown.append((batch.owner[proven], batch.number[proven], lower[proven]))
        failed = Boxes(batch.owner, batch.lower, batch.upper, margin, batch.number).select(~proven)
        witnesses |= probe(task, failed, lower[~proven], sensitivity[~proven])
        if first and witnesses:
            break
        halves, hopeless = halve(failed, sensitivity[~proven], lower[~proven], cuts)
        stuck |= set(hopeless.tolist())
        open_boxes = without(rest.join(halves), stuck | set(witnesses))
    waiting = set(open_boxes.owner.tolist()) | stuck | set(witnesses)
    settled = {} if first and witnesses else {i: leaves[i] for i in index.tolist() if i not in waiting}
    proofs = {i: proof_of(task, cuts, shown, i) for i in settled if options.keep}
    return Bisected(witnesses, settled, done, len(open_boxes.owner), proofs)


def proof_of(task: Task, cuts: Cuts, shown: Sequence[tuple[Tensor, Tensor, Tensor]], problem: int) -> Proof:
    """The proof of a problem from proven boxes of all problems: their owners, numbers (n,) and bounds of rows (n, s)."""
    numbers = torch.cat([number[owner == problem] for owner, number, _ in shown])
    lower = torch.cat([lower[owner == problem] for owner, _, lower in shown])
    spec, node = task.spec, task.model.graph.inputs[0].index
    rows = [(spec.clause == clause).nonzero().squeeze(1) for clause in range(spec.clauses)]
    best = torch.stack([own[lower[:, own].argmax(1)] for own in rows])
    clause = torch.arange(spec.clauses).repeat_interleave(len(numbers))
    paths = cuts.paths(numbers, node).cpu().take(torch.arange(len(numbers)).repeat(len(rows)))
    return Proof(clause, best.flatten().cpu(), paths)


def worst(boxes: Boxes, count: int) -> tuple[Boxes, Boxes]:
    """The `count` boxes whose parents had the lowest bounds, and the others."""
    order = boxes.parent.argsort(stable=True)
    return boxes.select(order[:count]), boxes.select(order[count:])


def without(boxes: Boxes, problems: set[int]) -> Boxes:
    """The boxes of other problems than these."""
    if not problems:
        return boxes
    return boxes.select(~torch.isin(boxes.owner, torch.tensor(sorted(problems), device=boxes.owner.device)))


def bound_boxes(task: Task, boxes: Boxes, method: Method) -> tuple[Tensor, Tensor]:
    """Lower bounds of the rows (n, s), and their coefficients (n, s, d); -inf and 1 where the method says nothing."""
    node = task.model.graph.inputs[0]
    box = Box(boxes.lower.reshape(-1, *node.shape), boxes.upper.reshape(-1, *node.shape))
    spec = task.spec.take(boxes.owner)
    try:
        found = bound(task.model, {node.name: box}, method=method, spec=spec)
    except BoundError:
        if len(boxes.owner) == 1:
            size = (1, spec.rows.shape[1])
            return boxes.lower.new_full(size, -torch.inf), boxes.lower.new_ones(*size, boxes.lower.shape[1])
        half = torch.arange(len(boxes.owner), device=boxes.owner.device).chunk(2)
        parts = [bound_boxes(task, boxes.select(part), method) for part in half]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    return found.lower, coefficients(found, node.index, boxes)


def coefficients(found: Bounds, source: int, boxes: Boxes) -> Tensor:
    """The rows' coefficients at the input (n, s, d); ones where the method has none."""
    if found.linear is None or source not in found.linear.coefficients:
        return boxes.lower.new_ones(*found.lower.shape, boxes.lower.shape[1])
    return found.linear.coefficients[source].dense().flatten(2).expand(len(boxes.owner), -1, -1)


def halve(boxes: Boxes, sensitivity: Tensor, lower: Tensor, cuts: Cuts) -> tuple[Boxes, Tensor]:
    """Both halves of each box, and the problems (k,) with a box that is too narrow to halve."""
    unproven = (lower <= 0).to(sensitivity)
    influence = torch.linalg.vecdot(sensitivity.abs(), unproven.unsqueeze(-1), dim=1)
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
    return left.join(right), hopeless


def probe(task: Task, boxes: Boxes, lower: Tensor, sensitivity: Tensor) -> dict[int, Witness]:
    """Witnesses among the centres of boxes and the corners where their worst row's linear bound is smallest."""
    if len(boxes.owner) == 0:
        return {}
    node = task.model.graph.inputs[0]
    slope = sensitivity[torch.arange(len(lower)), lower.argmin(1)]
    corner = torch.where(slope > 0, boxes.lower, boxes.upper)
    points = torch.cat([(boxes.lower + boxes.upper) / 2, corner]).reshape(-1, *node.shape)
    return task.witnesses(boxes.owner.repeat(2), {node.name: points})
