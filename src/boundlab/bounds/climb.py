"""The ascent: projected Adam on free variables, many problems side by side that do not feel each other.

Every step gives sound bounds, and each row keeps the best that it has met. A problem that is done leaves the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from boundlab.bounds.space import Range, Variables

MEANS = (0.9, 0.999)
"""How much of Adam's means of the gradient, and of its square, stays from one step to the next (Kingma and Ba 2015)."""
CROWDED = 0.75
"""Of the problems that are held, this share at least climbs: with fewer left, those that are done are taken out."""


@dataclass(frozen=True)
class Ascent:
    """`steps` steps of size `rate`, which shrinks by the factor `decay` after each.

    A problem stops early once the mean of its rows' best bounds has grown by less than the share `tolerance` of its size in
    each of `patience` steps (None: it never does).
    """

    steps: int
    rate: float
    decay: float
    patience: int | None = None
    tolerance: float = 0.01


class Objective(Protocol):
    """Lower bounds of the rows of n problems (n, g) as a function of free variables (n, 1, *shape) of each."""

    @property
    def ranges(self) -> dict[tuple[int, str], Range]:
        """The free variables by node and name."""
        ...

    def at(self, variables: Variables) -> Tensor:
        """The bounds at some variables, (n, g)."""
        ...

    def plain(self) -> Tensor:
        """The bounds without free variables, (n, g)."""
        ...

    def take(self, index: Tensor) -> Objective:
        """The problems `index` (m,) alone."""
        ...


Done = Callable[[Tensor], Tensor]
"""Which problems need not climb on, (n,) booleans, given the best bounds of all rows so far (n, g)."""
Keys = list[tuple[int, str]]


def never(best: Tensor) -> Tensor:
    """No problem is done before the last step."""
    return best.new_zeros(len(best), dtype=torch.bool)


@dataclass(frozen=True)
class Found:
    """The best bounds of all rows (n, g), and each problem's variables with the best mean."""

    best: Tensor
    variables: Variables


@dataclass(frozen=True)
class Walk:
    """Variables on their way, with Adam's two means, ranges and the number of steps; tensors (n, 1, *shape) by place."""

    values: list[Tensor]
    means: list[Tensor]
    squares: list[Tensor]
    ranges: list[Range]

    def take(self, index: Tensor) -> Walk:
        """The walks of the problems `index` (m,) alone."""

        def some(parts: list[Tensor]) -> list[Tensor]:
            return [part[index] for part in parts]

        def end(value: Tensor) -> Tensor:
            return value if len(value) == 1 else value[index]

        ranges = [Range(end(one.start), end(one.low), end(one.high),
                        end(one.scale) if isinstance(one.scale, Tensor) else one.scale) for one in self.ranges]
        return Walk(some(self.values), some(self.means), some(self.squares), ranges)

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor, ...], rate: float, count: int) -> None:
        """One step of Adam up the gradients and back into the ranges, in place."""
        keep, slow = MEANS
        length, root = rate / (1 - keep ** count), math.sqrt(1 - slow ** count)
        for value, mean, square, free, gradient in zip(self.values, self.means, self.squares, self.ranges, gradients,
                                                       strict=True):
            mean.lerp_(gradient, 1 - keep)
            square.mul_(slow).addcmul_(gradient, gradient, value=1 - slow)
            move = mean / square.sqrt().div_(root).add_(torch.finfo(square.dtype).tiny ** 0.5)
            value.add_(move.mul_(free.scale), alpha=length)
            torch.minimum(torch.maximum(value, free.low, out=value), free.high, out=value)


def named(keys: Keys, values: list[Tensor]) -> Variables:
    """Variables by node and name from a list."""
    found: dict[int, dict[str, Tensor]] = {}
    for (index, name), value in zip(keys, values, strict=True):
        found.setdefault(index, {})[name] = value
    return found


def better(best: Tensor, found: Tensor) -> Tensor:
    """The larger bound of each row; what is no number does not count."""
    return torch.maximum(best, torch.where(torch.isfinite(found), found, -math.inf))


def started(objective: Objective, count: int, start: Variables | None) -> Walk:
    """The walk at its start: at the variables that are given, else at those of the plain lines."""
    values = []
    for (index, name), free in objective.ranges.items():
        given = free.start if start is None or index not in start else start[index][name]
        inside = torch.minimum(torch.maximum(given, free.low), free.high)
        values.append(inside.expand(count, *inside.shape[1:]).clone())
    zeros = [torch.zeros_like(value) for value in values]
    return Walk(values, zeros, [zero.clone() for zero in zeros], list(objective.ranges.values()))


@torch.no_grad()
def climb(objective: Objective, ascent: Ascent, done: Done = never, start: Variables | None = None) -> Found:
    """The best bound of each row over all steps, of the plain lines at least."""
    best = objective.plain()
    keys, count = list(objective.ranges), len(best)
    if not keys or ascent.steps == 0:
        return Found(best, {})
    walk = started(objective, count, start)
    finest = [value.clone() for value in walk.values]
    here, idle = torch.arange(count, device=best.device), torch.zeros(count, dtype=torch.long, device=best.device)
    top = torch.full_like(best[:, 0], -math.inf)
    for step in range(ascent.steps + 1):
        open_ = ~(done(best) | (idle >= (ascent.patience or math.inf)))[here]
        left = int(open_.sum())
        if left == 0:
            break
        if left < CROWDED * len(here):
            kept = open_.nonzero().squeeze(1)
            here, walk, objective, open_ = here[kept], walk.take(kept), objective.take(kept), open_[kept]
        last = step == ascent.steps
        values = [value.detach().requires_grad_(not last) for value in walk.values]
        with torch.set_grad_enabled(not last):
            lower = objective.at(named(keys, values))
            gradients = () if last else torch.autograd.grad(lower.sum(), values, materialize_grads=True)
        lower = lower.detach()
        before = best[here]
        after = torch.where(open_[:, None], better(before, lower), before)
        gain = (after - before).mean(1) > ascent.tolerance * before.mean(1).abs()
        best[here] = after
        idle[here] = torch.where(gain, 0, idle[here] + 1)
        mean = lower.mean(1)
        higher = open_ & (mean > top[here])
        top[here] = torch.where(higher, mean, top[here])
        rise = higher.nonzero().squeeze(1)
        for kept_value, value in zip(finest, walk.values, strict=True):
            kept_value[here[rise]] = value[rise]
        if not last:
            walk.step(gradients, ascent.rate * ascent.decay ** step, step + 1)
    return Found(best, named(keys, finest))
