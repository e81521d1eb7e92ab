"""Schedules as plain functions of progress: 0 where a ramp begins, 1 where it ends, and any number before and after."""

from __future__ import annotations


def progress(step: int, start: int, end: int) -> float:
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
