"""Schedules: plain functions of progress (0 where a ramp begins, 1 where it ends), and values made of them.

A weight of a loss is a pair: its value at the start of the eps ramp and at its end, with the share of eps between them, as in
the code of CROWN-IBP. Conventions of papers for when a ramp starts and ends are functions that give a `Ramp`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from boundlab.errors import SpecError


def progress(step: float, start: float, end: float) -> float:
    """How far `step` is between `start` and `end`; a ramp without length is a jump at `end`."""
    if end <= start:
        return 1.0 if step >= end else 0.0
    return (step - start) / (end - start)


def linear_ramp(progress: float) -> float:
    """0 before the ramp, its progress inside, 1 after."""
    return min(max(progress, 0.0), 1.0)


def smooth_ramp(progress: float, middle: float = 0.25, power: int = 4) -> float:
    """From 0 to 1: a power curve up to `middle`, then the straight line that continues it with the same slope.

    The "smoothed" eps schedule of IBP training (Gowal et al. 2018, code; Xu et al. 2020, App. C). Middle 0 is linear.
    """
    t = linear_ramp(progress)
    if middle <= 0:
        return t
    scale = 1 / ((1 - middle) * power * middle ** (power - 1) + middle**power)
    if t < middle:
        return float(scale * t**power)
    reached = scale * middle**power
    return 1.0 if t == 1 else float(reached + (1 - reached) * (t - middle) / (1 - middle))


def between(start: float, end: float, ramp: float) -> float:
    """The value at `ramp` (0 to 1) of the way from `start` to `end`: a radius, a weight of the loss."""
    return start + (end - start) * ramp


class Shape(Protocol):
    """How a ramp rises: its share (0 to 1) at a progress of 0 to 1."""

    def share(self, progress: float) -> float:
        """The share at a progress between 0 and 1."""
        ...


@dataclass(frozen=True)
class Linear:
    """A straight line."""

    def share(self, progress: float) -> float:
        """The progress itself."""
        return linear_ramp(progress)


@dataclass(frozen=True)
class Smooth:
    """`smooth_ramp`: a power curve up to `middle`, then a straight line."""

    middle: float = 0.25
    power: int = 4

    def __post_init__(self) -> None:
        if not (0 <= self.middle < 1 and self.power >= 1):
            raise SpecError(f"a smooth ramp has its middle from 0 to below 1 and a power of at least 1, got {self.middle} and "
                            f"{self.power}.")

    def share(self, progress: float) -> float:
        """Rises slowly at first, without a kink at the middle."""
        return smooth_ramp(progress, self.middle, self.power)


@dataclass(frozen=True)
class Exponential:
    """Equal factors in equal times, from the share `first`."""

    first: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.first <= 1:
            raise SpecError(f"an exponential ramp begins at a share above 0 and at most 1, got {self.first}.")

    def share(self, progress: float) -> float:
        """From `first` to 1."""
        return float(self.first ** (1 - linear_ramp(progress)))


@dataclass(frozen=True)
class Ramp:
    """A share that is 0 before the time `start`, rises in its shape, and is 1 from `end` on; times are in epochs from 0.

    The time of a step is its epoch plus the share of the epoch's batches before it. SpecError if `end` is before `start`.
    """

    start: float = 0.0
    end: float = 0.0
    shape: Shape = field(default_factory=Linear)

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise SpecError(f"a ramp starts at 0 or later and does not end before its start, got {self.start} to {self.end}.")

    def at(self, time: float) -> float:
        """The share at a time in epochs."""
        if time < self.start:
            return 0.0
        return 1.0 if time >= self.end else self.shape.share(progress(time, self.start, self.end))


def crown_ibp_ramp(start: int, length: int, shape: Shape | None = None) -> Ramp:
    """The ramp that a configuration of CROWN-IBP names: `length` counts both ends, epochs are counted from 0.

    Zhang et al. 2020, published code: length 61 is the paper's "60 epochs".
    """
    return Ramp(start, start + length - 1, shape or Linear())


def auto_lirpa_ramp(start: int, length: int, middle: float = 0.25) -> Ramp:
    """The smooth ramp over the epochs `start` to `start + length - 1`, counted from 1, both included.

    Xu et al. 2020, published code; Shi et al. 2021 use the same.
    """
    return Ramp(start - 1, start + length - 1, Smooth(middle))


def bcp_ramp(warm_up: int, length: int) -> Ramp:
    """The linear ramp over `length` epochs after `warm_up`, of which the first has share 0 and the last ends at 1.

    Lee et al. 2020 (BCP), published code, without its overshoot inside epochs.
    """
    return Ramp(warm_up, warm_up + length - 1)


def ramp_in_steps(warm_up: int, length: int, steps_an_epoch: int, shape: Shape | None = None) -> Ramp:
    """A ramp that is given in batches: `warm_up` of them without perturbation, then `length`. Gowal et al. 2018."""
    return Ramp(warm_up / steps_an_epoch, (warm_up + length) / steps_an_epoch, shape or Linear())


@dataclass(frozen=True)
class Rate:
    """A learning rate: `first`, times `factor` from each of the epochs `drops` on (counted from 0)."""

    first: float = 5e-4
    drops: tuple[float, ...] = ()
    factor: float = 0.1

    def __post_init__(self) -> None:
        if not (0 < self.first < math.inf and 0 < self.factor < math.inf):
            raise SpecError(f"a learning rate and its factor are positive, got {self.first} and {self.factor}.")

    def at(self, time: float) -> float:
        """The rate at a time in epochs."""
        return self.first * self.factor ** sum(time >= drop for drop in self.drops)


def drops_every(epochs: int, after: int, until: int) -> tuple[float, ...]:
    """Drops every few epochs once a ramp is over: CROWN-IBP halves its rate so (Zhang et al. 2020, App. C)."""
    return tuple(range(after + epochs, until, epochs))
