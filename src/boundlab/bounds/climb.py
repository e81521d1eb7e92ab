"""The ascent: projected Adam on free variables, many problems side by side that do not feel each other.

Every step gives sound bounds, and each row keeps the best that it has met. A problem that is done leaves the batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from boundlab.bounds.space import Range, Variables
from boundlab.errors import SpecError
from boundlab.maps import flat

MEANS = (0.9, 0.999)
"""How much of Adam's means of the gradient, and of its square, stays from one step to the next (Kingma and Ba 2015)."""
NOISE = 0.75
"""The power of the machine's precision that a gradient is measured against, beside the largest of its problem."""
CROWDED = 0.75
"""Of the problems that are held, this share at least climbs: with fewer left, those that are done are taken out."""


@dataclass(frozen=True)
class Ascent:
    """`steps` steps of size `rate`, which shrinks by the factor `decay` after each; `means` as MEANS.

    A problem stops early once the mean of its rows' best bounds has grown by less than the share `tolerance` of its size in
    each of `patience` steps (None: it never does).
    """

    steps: int
    rate: float
    decay: float
    patience: int | None = None
    tolerance: float = 0.01
    means: tuple[float, float] = MEANS


class Objective(Protocol):
    """Lower bounds of the rows of n problems (n, g) as a function of free variables (n, 1, *shape) of each."""

    @property
    def ranges(self) -> dict[tuple[int, str], Range]:
        """The free variables by node and name."""
        ...

    def at(self, variables: Variables) -> Tensor:
        """The bounds at some variables, (n, g); plain lines where a node has none."""
        ...

    def take(self, index: Tensor) -> Objective:
        """The problems `index` (m,) alone."""
        ...


Done = Callable[[Tensor], Tensor]
"""Which problems need not climb on, (n,) booleans, given the best bounds of all rows so far (n, g)."""
Worth = Callable[[Tensor, Tensor], Tensor]
"""What rows (m, g) of the problems at some places (m,) are worth together, (m,)."""
Keys = list[tuple[int, str]]


def mean(lower: Tensor, places: Tensor) -> Tensor:
    """All rows count alike."""
    return lower.mean(1)


def never(best: Tensor) -> Tensor:
    """No problem is done before the last step."""
    return torch.zeros(len(best), dtype=torch.bool, device=best.device)


def until(deadline: float | None, done: Done) -> Done:
    """As `done`, and all problems are once the deadline has passed (in seconds of `time.perf_counter`; None: there is none)."""
    if deadline is None:
        return done
    return lambda best: torch.ones_like(never(best)) if time.perf_counter() >= deadline else done(best)


@dataclass(frozen=True)
class Found:
    """The best bounds of all rows (n, g), and each problem's variables where its rows were worth most."""

    best: Tensor
    variables: Variables


@dataclass(frozen=True)
class Walk:
    """Variables on their way, with Adam's two means and ranges; a tensor (n, 1, *shape) for each."""

    keys: Keys
    values: list[Tensor]
    means: list[Tensor]
    squares: list[Tensor]
    ranges: list[Range]

    def take(self, index: Tensor) -> Walk:
        """The walks of the problems `index` (m,) alone."""
        values, means, squares = ([part[index] for part in parts] for parts in (self.values, self.means, self.squares))
        return Walk(self.keys, values, means, squares, [one.take(index) for one in self.ranges])

    def measured(self, objective: Objective, worth: Worth, places: Tensor, last: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The bounds here, (n, g), and the gradients of their worth unless nobody steps on."""
        values = [value.detach().requires_grad_(not last) for value in self.values]
        with torch.set_grad_enabled(not last):
            lower = objective.at(named(self.keys, values))
            gradients = () if last else torch.autograd.grad(worth(lower, places).sum(), values, materialize_grads=True)
        return lower.detach(), gradients

    def step(self, gradients: tuple[Tensor, ...], ascent: Ascent, count: int) -> None:
        """Step number `count` of Adam, from 1 on, up the gradients and back into the ranges, in place.

        What is as small beside a problem's largest gradient as rounding is does not count as a direction.
        """
        keep, slow = ascent.means
        length, root = ascent.rate * ascent.decay ** (count - 1) / (1 - keep ** count), math.sqrt(1 - slow ** count)
        for value, mean, square, free, gradient in zip(self.values, self.means, self.squares, self.ranges, gradients,
                                                       strict=True):
            mean.lerp_(gradient, 1 - keep)
            square.mul_(slow).addcmul_(gradient, gradient, value=1 - slow)
            size, kind = square.sqrt().div_(root), torch.finfo(square.dtype)
            largest = flat(size, 1).amax(1).reshape(-1, *[1] * (size.dim() - 1))
            move = mean / size.add_(largest, alpha=kind.eps ** NOISE).add_(kind.tiny)
            value.add_(move.mul_(free.scale), alpha=length)
            torch.minimum(torch.maximum(value, free.low, out=value), free.high, out=value)


def named(keys: Keys, values: list[Tensor]) -> Variables:
    """Variables by node and name from a list."""
    found: dict[int, dict[str, Tensor]] = {}
    for (index, name), value in zip(keys, values, strict=True):
        found.setdefault(index, {})[name] = value
    return found


def started(objective: Objective, count: int, start: Variables | None) -> Walk:
    """The walk of `count` problems at its start: at given variables, else (and where these are NaN) at the plain lines'.

    SpecError if given ones have another shape.
    """
    values = []
    for (index, name), free in objective.ranges.items():
        inside = free.inside(free.start)
        begin = inside.expand(count, *inside.shape[1:]).clone()
        if start is not None and name in start.get(index, {}):
            given = start[index][name].to(begin)
            if given.shape != begin.shape:
                raise SpecError(f"start holds variables '{name}' of shape {list(given.shape[1:])} for node {index}, which has "
                                f"{list(begin.shape[1:])}; give it those of bounds of this network, space and group.")
            begin = torch.where(given.isnan(), begin, free.inside(given))
        values.append(begin)
    means, squares = ([torch.zeros_like(value) for value in values] for _ in range(2))
    return Walk(list(objective.ranges), values, means, squares, list(objective.ranges.values()))


def beginning(objective: Objective, count: int, start: Variables | None) -> Variables:
    """The variables at which an ascent of `count` problems begins."""
    walk = started(objective, count, start)
    return named(walk.keys, walk.values)


@dataclass(frozen=True)
class Record:
    """What all problems have reached, written in place: best bounds (n, g), the best worth (n,) with its variables, and for how
    many steps a problem has not gained."""

    best: Tensor
    top: Tensor
    idle: Tensor
    finest: list[Tensor]

    def note(self, places: Tensor, lower: Tensor, worth: Tensor, values: list[Tensor], tolerance: float) -> None:
        """Bounds (m, g) that the problems `places` (m,) have met, and their worth (m,); what is no number does not count."""
        before = self.best[places]
        after = torch.maximum(before, torch.where(torch.isfinite(lower), lower, -math.inf))
        gained = (after - before).mean(1) > tolerance * before.mean(1).abs()
        self.best[places] = after
        self.idle[places] = torch.where(gained, 0, self.idle[places] + 1)
        higher = (worth > self.top[places]).nonzero().squeeze(1)
        self.top[places[higher]] = worth[higher]
        for kept, value in zip(self.finest, values, strict=True):
            kept[places[higher]] = value[higher]


@torch.no_grad()
def climb(objective: Objective, ascent: Ascent, done: Done = never, start: Variables | None = None, worth: Worth = mean
          ) -> Found:
    """The best bound of each row over all steps, and of the plain lines; a start that is given counts without steps, too.

    What climbs is what a problem's rows are worth, (n,) of (n, g).
    """
    plain = objective.at({})
    count = len(plain)
    walk, here = started(objective, count, start), torch.arange(count, device=plain.device)
    if not walk.keys or (ascent.steps == 0 and start is None):
        return Found(plain, {})
    record = Record(plain.clone(), torch.full_like(plain[:, 0], -math.inf), torch.zeros_like(here),
                    [value.clone() for value in walk.values])
    for step in range(ascent.steps + 1):
        climbing = ~done(record.best)[here]
        if ascent.patience is not None:
            climbing &= record.idle[here] < ascent.patience
        left = climbing.nonzero().squeeze(1)
        if len(left) == 0:
            break
        if len(left) < CROWDED * len(here):
            here, walk, objective, left = here[left], walk.take(left), objective.take(left), torch.arange(len(left)).to(left)
        last = step == ascent.steps
        lower, gradients = walk.measured(objective, worth, here, last)
        record.note(here[left], lower[left], worth(lower, here)[left], [value[left] for value in walk.values], ascent.tolerance)
        if not last:
            walk.step(gradients, ascent, step + 1)
    return Found(record.best, named(walk.keys, record.finest))
