"""Input bisection: boxes are halved until each is proven, a witness turns up, or the time is over.

For networks with few perturbed inputs; Wang et al. 2018 (ReluVal), Sec. 4.2 choose the coordinate by its influence, here
its width times its coefficients in the linear bounds. A clause that is proven on a box is left alone in its halves, and what
these bounds exclude is cut off before. The most promising boxes are attacked. All problems of a batch share one flat list of
open boxes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from boundlab.perturbations.joint import Regions
from boundlab.perturbations.sets import Box, PerturbationSet
from boundlab.verify.bounded import Bounded, Bounding, bound_boxes, bounds_of, first_shown, merged, telling
from boundlab.verify.boxes import Boxes, Heap, joined
from boundlab.verify.cuts import Cuts
from boundlab.verify.options import Bisection
from boundlab.verify.probing import attacked, probe, sampled
from boundlab.verify.proof import Proof, Slopes, plain_of, some, together
from boundlab.verify.search import Found, paced
from boundlab.verify.shown import Shown, all_leaves, shown_of
from boundlab.verify.task import Task, take_regions
from boundlab.verify.team import ALONE, Team
from boundlab.verify.verdict import Witness

NUMBERS = 2**23
"""Numbers that the rows of one batch of boxes may hold at the widest node, so that batches end soon after the deadline."""
FIRST = 512
"""Boxes of the first turn."""
HELD = 2**28
"""Bytes of slopes up to which a search keeps those of boxes that show clauses; those of later ones are made again."""
SMALL = 0.7
"""A box of which so little is left is bounded again before it is halved."""
QUIET = 2.0
"""So many times as long as an attack took pass before the next one: on large networks it takes longer than bounds do."""


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
    """The problems `index` (m,) of a task with their open boxes, and what is known of closed ones.

    `floor` (b, s) are the lowest bounds of all problems' rows over the boxes that show their clauses; problems that are
    `stuck` have a box that is too narrow to halve; `count` is how many boxes the next turn takes, and `quiet` are the seconds
    until boxes are attacked again. `shown` are boxes that show clauses, if proofs are kept.
    """

    task: Task
    index: Tensor
    options: Bisection
    bounding: Bounding
    boxes: Heap
    floor: Tensor
    cuts: Cuts
    count: int
    done: int = 0
    witnesses: Mapping[int, Witness] = field(default_factory=dict)
    stuck: frozenset[int] = frozenset()
    shown: tuple[Shown, ...] = ()
    quiet: float = 0.0

    @property
    def over(self) -> bool:
        """Whether no box is left, or too many are."""
        return not 0 < self.boxes.count <= self.options.most_open

    @property
    def at_once(self) -> int:
        """How many boxes may be bounded together."""
        return at_once(self.task, self.options)

    def without(self, problems: set[int]) -> BisectionState:
        """The search of the other problems."""
        return replace(self, boxes=self.boxes.without(problems), stuck=self.stuck | problems)

    @torch.no_grad()
    def step(self, deadline: float, team: Team = ALONE) -> BisectionState:
        """The lowest boxes bounded by all of a team, and what is not proven of them halved, if it is much of a box."""
        started, (batch, rest) = time.perf_counter(), self.boxes.worst(self.count)
        if self.done == 0 and (known := sampled(self.task, batch, deadline)):
            return replace(self.without(set(known)), witnesses={**self.witnesses, **known})
        found, most = self.bounded(batch, deadline, team)
        margin = torch.where(batch.shown, torch.inf, found.mixed.lower).amin(1)
        closed, left = replace(self, done=self.done + len(batch)).closed(batch, found)
        proven, size = left.shown.all(1), share_left(batch, left)
        failed = replace(left, parent=torch.maximum(batch.parent, margin)).select(~proven)
        found, size = found.select(~proven), size[~proven]
        slope = found.slope[torch.arange(len(failed)), found.lower.argmin(1)]
        witnesses, quiet = {**self.witnesses, **probe(self.task, failed, slope)}, self.quiet - (time.perf_counter() - started)
        if quiet <= 0:
            before = time.perf_counter()
            witnesses |= attacked(self.task, failed.without(set(witnesses)))
            quiet = QUIET * (time.perf_counter() - before)
        small, influence = size <= SMALL, found.influence(self.task.spec.clause, failed.shown)
        halves, hopeless = halve(failed.select(~small), influence[~small], self.cuts)
        fresh, stuck = joined((halves, failed.select(small))), self.stuck | set(hopeless.tolist())
        ended = stuck | set(witnesses)
        count = paced(self.count, time.perf_counter() - started, most)
        return replace(closed, boxes=rest.without(ended).joined(fresh.without(ended)), stuck=stuck, witnesses=witnesses,
                       count=count, quiet=quiet)

    def bounded(self, boxes: Boxes, deadline: float, team: Team) -> tuple[Bounded, int]:
        """What a team finds out about boxes, and how many may be bounded in one turn."""
        shares, keep = team.shares(len(boxes)), self.task.keep and sum(one.bytes for one in self.shown) < HELD
        device, observe = boxes.owner.device, self.task.observe
        each = [boxes.select(share.to(device)) for share in shares]
        found = team.run(bound_boxes, self.bounding, [(own, keep, observe) for own in each], deadline, device)
        whole = merged(each, found, torch.arange(len(boxes), device=device)) if len(found) > 1 else found[0]
        return whole, len(shares) * self.at_once

    def closed(self, boxes: Boxes, found: Bounded) -> tuple[BisectionState, Boxes]:
        """With what boxes are the first to show, and what is left of them."""
        fresh, trims = first_shown(boxes, found.mixed), found.trims
        rows = torch.minimum(torch.where(fresh[:, self.task.spec.clause], found.lower, torch.inf), trims.floor)
        floor = self.floor.scatter_reduce(0, boxes.owner[:, None].expand_as(rows), rows, "amin")
        left = replace(boxes, lower=trims.lower, upper=trims.upper, shown=boxes.shown | fresh | (trims.end > 0))
        if not self.task.keep or not bool(telling(boxes, found.mixed, trims).any()):
            return replace(self, floor=floor), left
        shown, number = shown_of(boxes, found, self.cuts)
        return replace(self, floor=floor, shown=(*self.shown, shown)), replace(left, number=number)

    def found(self) -> Found:
        waiting = self.boxes.owners | self.stuck | set(self.witnesses)
        proven = {i: self.floor[i] for i in self.index.tolist() if i not in waiting}
        return Found(self.witnesses, proven, self.done, self.boxes.count, self.boxes.least)

    def proof(self, problem: int) -> Proof | None:
        own = [part for shown in self.shown if (part := shown.select(shown.boxes.owner == problem)) is not None]
        if not own:
            return None
        leaves = all_leaves(own)
        plain = together([self.slopes(part) for part in own], [len(part.boxes) for part in own])
        order = leaves.clause.argsort(stable=True)
        clause, weights, place = (part[order].cpu() for part in (leaves.clause, leaves.weights.double(), leaves.place))
        paths = self.cuts.paths(leaves.number, self.task.model.graph.inputs[0].index).cpu()
        return Proof(clause, weights, paths.take(order.cpu()), plain=some(plain, place), frame=place)

    def slopes(self, shown: Shown) -> Slopes:
        """The slopes of plain lines on boxes, which are bounded once more where the search has not kept them."""
        if shown.plain is not None:
            return shown.plain
        parts, counts = list[Slopes](), list[int]()
        for chosen in torch.arange(len(shown.boxes), device=shown.boxes.owner.device).split(self.at_once):
            found = bounds_of(self.bounding, shown.boxes.select(chosen), self.task.observe)
            parts.append(plain_of(found.graph, found.env, torch.arange(len(chosen), device=chosen.device)))
            counts.append(len(chosen))
        return together(parts, counts)


def share_left(boxes: Boxes, left: Boxes) -> Tensor:
    """How much is left of each box (n,), as a share of its volume."""
    before, after = boxes.upper - boxes.lower, left.upper - left.lower
    return torch.where(before > 0, after / before, 1.0).prod(1)


def at_once(task: Task, options: Bisection) -> int:
    """How many boxes may be bounded together."""
    widest = max(math.prod(node.shape) for node in task.model.graph)
    return max(1, min(options.boxes, NUMBERS // (widest * task.spec.rows.shape[1])))


def bisection(task: Task, index: Tensor, options: Bisection) -> BisectionState:
    """The search of the problems `index` (m,) of a task at its beginning."""
    ends = only_box(task.sets, index)
    lower, upper = ends.lower.flatten(1), ends.upper.flatten(1)
    none = torch.zeros(len(index), task.spec.clauses, dtype=torch.bool, device=index.device)
    number, nothing = torch.arange(len(index), device=index.device), lower.new_full((len(index),), -torch.inf)
    boxes = Boxes(index, lower, upper, nothing, number, none)
    floor = lower.new_full((task.count, task.spec.rows.shape[1]), torch.inf)
    bounding = Bounding(task.model, task.spec, options.chosen(task.model))
    return BisectionState(task, index, options, bounding, Heap(boxes), floor, Cuts(len(index)),
                          min(FIRST, at_once(task, options)))


def halve(boxes: Boxes, influence: Tensor, cuts: Cuts) -> tuple[Boxes, Tensor]:
    """Both halves of each box, by the influence of coordinates (n, d), and the problems (k,) with a box that is too narrow to
    halve."""
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
    left = Boxes(boxes.owner, boxes.lower, torch.where(chosen, middle, boxes.upper), boxes.parent, below, boxes.shown)
    right = Boxes(boxes.owner, torch.where(chosen, middle, boxes.lower), boxes.upper, boxes.parent, above, boxes.shown)
    return joined((left, right)), hopeless
