"""Training losses, pure functions of a model with live parameters: `loss.backward()` reaches the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from boundlab.bounds.backward import Env, backward, concretize, plus
from boundlab.bounds.intermediate import relaxer
from boundlab.bounds.methods import IBP
from boundlab.bounds.problem import Method, Problem, own_nodes, problem_of
from boundlab.errors import BoundError, ShapeError, SpecError
from boundlab.graph import Model
from boundlab.interval import Interval
from boundlab.maps import Dense, Diagonal
from boundlab.ops import lookup
from boundlab.perturbations.joint import Regions
from boundlab.perturbations.sets import PerturbationSet
from boundlab.spec import checked_labels, margins
from boundlab.train.groups import even_groups, sum_over_groups
from boundlab.train.margins import margin_interval

Sets = PerturbationSet | Regions
Total = Callable[[Problem, Env, Tensor], Tensor]
GROUP_BUDGET = 2**23
"""Coefficients of rows at the widest node in one group of examples (32 MB in single precision).

Larger tensors come as new memory from the operating system each time, which costs more than the arithmetic on them.
"""


def natural_loss(network: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the network itself on x (b, *shape) with labels (b,)."""
    return cross_entropy(network(x), labels)


def robust_cross_entropy(lower: Tensor) -> Tensor:
    """Cross-entropy of the worst logits that lower bounds of the margins (b, classes - 1) allow, averaged over the batch.

    The label's logit is 0 and another class has at most minus its margin: an upper bound of the cross-entropy at every
    point of the set. Wong and Kolter 2018, Sec. 3.2.
    """
    logits = torch.cat([lower.new_zeros(len(lower), 1), -lower], dim=1)
    return cross_entropy(logits, torch.zeros(len(lower), dtype=torch.long, device=lower.device))


def ibp_loss(model: Model, sets: Sets, labels: Tensor, intermediate: Method | None = None) -> Tensor:
    """Robust cross-entropy with margins from interval bound propagation; labels (b,). Gowal et al. 2018."""
    return crown_ibp_loss(model, sets, labels, 0.0, intermediate)


def crown_ibp_loss(model: Model, sets: Sets, labels: Tensor, crown_weight: float, intermediate: Method | None = None,
                   problems: int | None = None) -> Tensor:
    """Robust cross-entropy with margins w * CROWN-IBP + (1 - w) * IBP, mixed before the loss; labels (b,).

    Both are lower bounds, hence so is their mean; with weight 0 the backward pass is left out, with weight 1 the IBP
    margins are. Zhang et al. 2020 (CROWN-IBP), Eq. 9. `intermediate` bounds the layers (IBP() if left out); the rows of
    `problems` examples are pulled at a time, which changes memory and not results.
    """
    return mixed_loss(classification(model, sets, labels, intermediate), crown_weight, problems)


def mixed_loss(question: Classification, crown_weight: float, problems: int | None = None) -> Tensor:
    """`crown_ibp_loss` of a question whose intervals are there already."""
    check_weight(crown_weight)

    def total(problem: Problem, env: Env, labels: Tensor) -> Tensor:
        mixed: Tensor | None = None
        if crown_weight > 0:
            mixed = crown_weight * rows_below(problem, env, margins(labels, problem.target.shape[0], problem.model.dtype).rows)
        if crown_weight < 1:
            mixed = plus(mixed, (1 - crown_weight) * interval_margins(problem, env, labels))
        assert mixed is not None
        return robust_cross_entropy(mixed) * len(labels)

    rows = 0 if crown_weight == 0 else question.problem.target.shape[0] - 1
    return question.averaged(total, problems or question.group_size(rows))


def interval_margins(problem: Problem, env: Env, labels: Tensor) -> Tensor:
    """Lower bounds by intervals of the label's logit minus each other one, (b, classes - 1)."""
    lower = margin_interval(problem, env, labels).lower
    return lower[one_hot(labels, lower.shape[1]) == 0].reshape(len(labels), lower.shape[1] - 1)


def fused_crown_ibp_loss(model: Model, sets: Sets, labels: Tensor, crown_weight: float, intermediate: Method | None = None,
                         problems: int | None = None) -> Tensor:
    """Robust cross-entropy with the loss as a part of the network: one row an example, however many classes; labels (b,).

    The cross-entropy is log S with S the sum of exp(-margin) over all classes. Each exp is at most its chord between the
    margin's IBP bounds, so one row, the sum of all margins' rows weighted by the chords' slopes, bounds S. It is mixed with
    the IBP bound of S as w * CROWN-IBP + (1 - w) * IBP, before the logarithm: weight 0 is `ibp_loss`, other weights are not
    `crown_ibp_loss`. Xu et al. 2020, Sec. 3.3 and Theorem 3. `intermediate` and `problems` as there.
    """
    return fused_loss(classification(model, sets, labels, intermediate), crown_weight, problems)


def fused_loss(question: Classification, crown_weight: float, problems: int | None = None) -> Tensor:
    """`fused_crown_ibp_loss` of a question whose intervals are there already."""
    check_weight(crown_weight)

    def total(problem: Problem, env: Env, labels: Tensor) -> Tensor:
        fused = fused_sum(problem, env, labels, crown_weight)
        return (fused.total.log() + fused.shift).sum()

    return question.averaged(total, problems or question.group_size(0 if crown_weight == 0 else 1))


class FusedSum(NamedTuple):
    """An upper bound of the sum of exp(-margin) over all classes: total * exp(shift), both (b,)."""

    total: Tensor
    shift: Tensor


def fused_sum(problem: Problem, env: Env, labels: Tensor, crown_weight: float) -> FusedSum:
    """The sum over classes by one backward row, mixed with the one by intervals alone; at least rounding's size."""
    margin = margin_interval(problem, env, labels)
    shift = (-margin.lower.detach()).amax(1)
    behind = Interval(-margin.upper - shift[:, None], -margin.lower - shift[:, None])
    plain = behind.upper.exp().sum(1)
    if crown_weight == 0:
        return FusedSum(plain, shift)
    slope, offset = chords(behind)
    row = slope.sum(1, keepdim=True) * one_hot(labels, slope.shape[1]) - slope
    least = rows_below(problem, env, row.unsqueeze(1)).squeeze(1)
    total = (offset - slope * shift[:, None]).sum(1) - least
    if crown_weight < 1:
        total = crown_weight * total + (1 - crown_weight) * plain
    return FusedSum(total.clamp(min=torch.finfo(total.dtype).eps), shift)


def chords(x: Interval) -> tuple[Tensor, Tensor]:
    """Slope and intercept of the line above exp on each interval, (b, classes)."""
    relax = lookup("exp").relax
    assert relax is not None
    above = relax(x).upper
    (layer,), offset = above.maps, above.bias
    assert isinstance(layer, Diagonal) and offset is not None
    return layer.scale.squeeze(1), offset.squeeze(1)


def check_weight(weight: float) -> None:
    """SpecError unless the weight lies between 0 and 1."""
    if not 0 <= weight <= 1:
        raise SpecError(f"the weight of the CROWN-IBP margins must lie between 0 and 1, got {weight}.")


def rows_below(problem: Problem, env: Env, rows: Tensor) -> Tensor:
    """Backward lower bounds of rows (b, s, classes) of the logits, with relaxations from the intervals in `env`: (b, s)."""
    target = problem.target
    pulled = backward(problem.model.graph, env, relaxer(env), target.index, Dense(target.shape, None, rows))
    return concretize(pulled, env, problem.sets)


def classification(model: Model, sets: Sets, labels: Tensor, intermediate: Method | None) -> Classification:
    """The question that a loss asks: ShapeError or SpecError unless there are logits and a label for each problem."""
    shape = model.graph.output.shape
    if len(shape) != 1:
        raise ShapeError(f"a classification loss needs logits of shape (batch, classes), the network gives (batch, "
                         f"{', '.join(map(str, shape))}).")
    labels, problem = checked_labels(labels, shape[0]), problem_of(model, sets)
    if len(labels) != problem.batch:
        raise ShapeError(f"there are {len(labels)} labels for {problem.batch} problems.")
    return Classification(problem, labels, (intermediate or IBP()).environment(problem))


@dataclass(frozen=True)
class Classification:
    """Labels (b,), and intervals of all layers on the sets of as many problems."""

    problem: Problem
    labels: Tensor
    env: Env

    def group_size(self, rows: int) -> int:
        """How many examples share a pass with `rows` rows each: all, but on a CPU as many as GROUP_BUDGET allows."""
        if rows == 0 or self.labels.device.type != "cpu":
            return len(self.labels)
        widest = max(math.prod(value.shape[1:]) for value in self.env.values() if isinstance(value, Interval))
        return max(1, GROUP_BUDGET // (rows * widest))

    def averaged(self, total: Total, size: int) -> Tensor:
        """The mean over examples, from `total` of groups of `size` examples; BoundError if it is NaN or infinite."""
        count = len(self.labels)
        boxes = all(region.independent for region in self.problem.sets.values())
        groups = even_groups(count, size if boxes else count)
        if len(groups) == 1:
            return finite(total(self.problem, self.env, self.labels) / count)
        problem = replace(self.problem, sets={})  # the boxes are in `env`
        own = own_nodes(self.problem)
        places = [(index, end) for index, value in self.env.items()
                  for end in ((0, 1) if isinstance(value, Interval) else (2,))]
        tensors = [end_of(self.env[index], end) for index, end in places]

        def part(group: slice, tensors: Sequence[Tensor]) -> Tensor:
            ends = dict(zip(places, tensors, strict=True))
            env = {index: ends[index, 2] if end == 2 else Interval(ends[index, 0], ends[index, 1])
                   for index, end in places if end != 1}
            return total(problem, env, self.labels[group]) / count

        return finite(sum_over_groups(part, tensors, [index in own for index, _ in places], groups))


def finite(loss: Tensor) -> Tensor:
    """The loss itself; BoundError if it is NaN or infinite."""
    if not bool(torch.isfinite(loss)):
        raise BoundError("the robust loss is NaN or infinite; the set is too large for this network.")
    return loss


def end_of(value: Tensor | Interval, end: int) -> Tensor:
    """The lower (0) or upper (1) end of an interval, or a constant (2)."""
    if isinstance(value, Tensor):
        return value
    return value.upper if end else value.lower
