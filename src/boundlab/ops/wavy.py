"""Sine and cosine: not monotone, bounded by their turning points, and S-shaped around each inflection."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import LinearBound, lines
from boundlab.interval import Interval
from boundlab.ops.curves import Curve, Function, Lines, negated, pick, s_lines, start_shares
from boundlab.ops.op import Free, Op, elementwise_op, register


def traceable(x: Interval) -> Tensor:
    """Where an interval's place within a period is known: not so far out that rounding moves it noticeably."""
    far = torch.finfo(x.lower.dtype).eps ** -0.5
    return (x.lower > -far) & (x.upper < far)


def wave_interval(f: Function, phase: float) -> Callable[[Interval], Interval]:
    """Range of f(x) = sin(x + phase): its ends, and 1 and -1 where a crest or a trough lies inside."""

    def holds(x: Interval, place: float) -> Tensor:
        turn = 2 * math.pi
        crossed = torch.floor((x.upper - place) / turn) > torch.floor((x.lower - place) / turn)
        return crossed | (x.upper - x.lower >= turn) | ~traceable(x)

    def interval(x: Interval) -> Interval:
        first, last = f(x.lower), f(x.upper)
        low, high = torch.minimum(first, last), torch.maximum(first, last)
        return Interval(torch.where(holds(x, -math.pi / 2 - phase), -1.0, low),
                        torch.where(holds(x, math.pi / 2 - phase), 1.0, high))

    return interval


def around_inflection(x: Interval, phase: float) -> tuple[Interval, Tensor, Tensor]:
    """The interval seen from an inflection, that inflection (b, *shape), and where no other one lies inside.

    The inflection is the one inside, else the last one before the interval, which is then within half a period.
    """
    first, last = torch.floor((x.lower + phase) / math.pi), torch.floor((x.upper + phase) / math.pi)
    place = last.detach() * math.pi - phase
    return Interval(x.lower - place, x.upper - place), place, (last - first <= 1) & traceable(x)


def local_curve(f: Function, df: Function, middle: Tensor) -> tuple[Curve, Tensor]:
    """f as an S-shaped curve around the inflection `middle` (b, 1, *shape), and the sign that makes it one."""
    side = torch.sign(df(middle))
    return Curve(lambda t: side * f(t + middle), lambda t: side * df(t + middle), lambda t: -side * f(t + middle)), side


def wave_lines(f: Function, df: Function, phase: float, x: Interval, alpha: Mapping[str, Tensor] | None) -> Lines:
    """Lines around f: of an S-shaped curve near an inflection (upside down near every other), else the range."""
    near, place, single = around_inflection(x, phase)
    middle = place.unsqueeze(1)
    curve, side = local_curve(f, df, middle)
    pair = s_lines(curve, near, alpha)
    pair = upright(pair, negated(pair), side > 0)
    (a, b), (c, d) = pair
    whole, flat = wave_interval(f, phase)(x), torch.zeros_like(x.row_lower)
    sure = single.unsqueeze(1)
    return (pick(sure, (a, b - a * middle), (flat, whole.row_lower)), pick(sure, (c, d - c * middle), (flat, whole.row_upper)))


def upright(first: Lines, second: Lines, condition: Tensor) -> Lines:
    """The first pair of lines where `condition`, else the second."""
    return pick(condition, first[0], second[0]), pick(condition, first[1], second[1])


def wave(name: str, f: Function, df: Function, phase: float, **fields: Any) -> Op:
    """f(x) = sin(x + phase) with derivative df; free are the fractions `lower` and `upper` of an S-shaped curve's tangents.

    Zhang et al. 2018 (CROWN), Sec. 3.2, applied piece by piece.
    """

    def start(x: Interval, side: str) -> Tensor:
        near, place, _ = around_inflection(x, phase)
        return start_shares(local_curve(f, df, place.unsqueeze(1))[0], near)[side]

    def relax(x: Interval, alpha: Mapping[str, Tensor] | None = None) -> LinearBound:
        return lines(*wave_lines(f, df, phase, x, alpha))

    free = {side: Free(0.0, 1.0, lambda x, side=side: start(x, side)) for side in ("lower", "upper")}
    return elementwise_op(name, f, wave_interval(f, phase), relax, alpha=free, breaks=(), **fields)


def minus_sin(x: Tensor) -> Tensor:
    """The derivative of cos."""
    return -torch.sin(x)


sin = register(wave("sin", torch.sin, torch.cos, 0.0, derivative=wave_interval(torch.cos, math.pi / 2),
                    sources=("aten.sin.default", "onnx:Sin")))
cos = register(wave("cos", torch.cos, minus_sin, math.pi / 2, derivative=wave_interval(minus_sin, math.pi),
                    sources=("aten.cos.default", "onnx:Cos")))
