"""Trials of an operator: boxes, points in them, and what the operator's rules say there, in double precision."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import Affine
from boundlab.errors import ConformanceError
from boundlab.interval import Interval
from boundlab.maps import Diagonal, Identity, LinearMap
from boundlab.ops import Free, Op
from boundlab.testing.cases import Case, Vary

WIDTHS = (0.0, 1e-6, 0.5, 5.0, 50.0)
CENTERS = (-20.0, -3.0, -0.7, 0.0, 0.4, 2.0, 20.0)
ROUNDINGS = 16
"""Roundings behind one coefficient or intercept of an elementwise line: the function, its slope, the product, the sum."""
Argument = Tensor | Interval
Setting = tuple[str, Mapping[str, Tensor] | None]


BETWEEN = 4
"""So many times the largest error that a few points in single precision show, an error between them may be.

Near -6.5, GELU by tanh has lost all its digits (its tanh is -1 exactly); in double precision it loses more there than near -4.
"""
UNDERFLOWS = 8
"""So many results on the way may be off by the smallest number there is, near zero (Higham 2002, Eq. 2.8)."""


@dataclass(frozen=True)
class Trial:
    """One call of an operator on b boxes, and n points in each: `points` (n, b, *shape) for perturbed arguments, in order.

    `values` (n, b, *out) are the function in double precision; `noise` (b, *out) is what the function itself loses by rounding
    in the type of the boxes, below which no bound can be told apart from it.
    """

    op: Op
    arguments: tuple[Argument, ...]
    attributes: Mapping[str, Any]
    points: tuple[Tensor, ...]
    values: Tensor
    noise: Tensor

    @property
    def perturbed(self) -> list[Interval]:
        """The perturbed arguments, in order."""
        return [argument for argument in self.arguments if isinstance(argument, Interval)]

    @property
    def eps(self) -> float:
        """The spacing of numbers at 1 in the type of the boxes."""
        return torch.finfo(self.perturbed[0].lower.dtype).eps

    def take(self, problem: int) -> Trial:
        """The same trial with one of its boxes alone."""
        one = slice(problem, problem + 1)
        arguments = tuple(part.map(lambda end: end[one]) if isinstance(part, Interval) else part for part in self.arguments)
        points = tuple(point[:, one] for point in self.points)
        return replace(self, arguments=arguments, points=points, values=self.values[:, one], noise=self.noise[one])


def boxes(vary: Vary, dtype: torch.dtype, generator: torch.Generator) -> Interval:
    """Boxes of every width around every centre, moved into the domain; half the coordinates have the centre at an end."""
    grid = torch.tensor(list(itertools.product(WIDTHS, CENTERS)), dtype=torch.float64)
    width, center = (column.reshape(-1, *[1] * len(vary.shape)) for column in grid.unbind(1))
    shape = (len(grid), *vary.shape)
    place = torch.rand(shape, generator=generator, dtype=torch.float64)
    kind = torch.randint(4, shape, generator=generator)
    place = torch.where(kind == 0, 0.0, torch.where(kind == 1, 1.0, torch.where(kind == 2, 0.5, place)))
    low, high = max(vary.low, -1e30), min(vary.high, 1e30)
    if math.isfinite(vary.low) and math.isfinite(vary.high):
        center = vary.low + (center - vary.low).abs() % (vary.high - vary.low)
    elif math.isfinite(vary.low):
        center = vary.low + (center - vary.low).abs()
    elif math.isfinite(vary.high):
        center = vary.high - (vary.high - center).abs()
    lower = (center - place * width).clamp(low, high).to(dtype)
    return Interval(lower, torch.maximum((center + (1 - place) * width).clamp(low, high).to(dtype), lower))


def points_in(box: Interval, generator: torch.Generator) -> Tensor:
    """Both ends, steps between them, random corners and random points, (n, b, *shape), in the boxes' own type."""
    shape, dtype = (8, *box.shape), box.lower.dtype
    steps = torch.linspace(0, 1, 9, dtype=dtype).reshape(-1, *[1] * len(box.shape)).expand(-1, *box.shape)
    corners = torch.randint(2, shape, generator=generator).to(dtype)
    inside = torch.rand(shape, generator=generator, dtype=dtype)
    point = torch.lerp(box.lower, box.upper, torch.cat([steps, corners, inside]))
    return torch.minimum(torch.maximum(point, box.lower), box.upper)


def trial_of(op: Op, case: Case, dtype: torch.dtype, generator: torch.Generator) -> Trial:
    """The operator called as `case` says, on boxes in floating type `dtype`."""
    arguments: list[Argument] = []
    for part in case.arguments:
        constant = part.to(dtype) if isinstance(part, Tensor) and part.is_floating_point() else part
        arguments.append(boxes(constant, dtype, generator) if isinstance(constant, Vary) else constant)
    points = tuple(points_in(part, generator) for part in arguments if isinstance(part, Interval))
    values = values_at(op, case.attributes, arguments, points, torch.float64)
    noise = evaluation_noise(op, case.attributes, arguments, points) * (torch.finfo(dtype).eps / torch.finfo(torch.float32).eps)
    kind = torch.finfo(dtype)
    return Trial(op, tuple(arguments), case.attributes, points, values, noise + UNDERFLOWS * kind.tiny * kind.eps)


def evaluation_noise(op: Op, attributes: Mapping[str, Any], arguments: Sequence[Argument], points: Sequence[Tensor]) -> Tensor:
    """How far the function in single precision is from that in double precision at most, `BETWEEN` times, (b, *out).

    Where it overflows in single precision, that tells nothing, and counts as 0.
    """
    single = [point.float() for point in points]
    apart = (values_at(op, attributes, arguments, single, torch.float32).double()
             - values_at(op, attributes, arguments, single, torch.float64)).abs()
    return BETWEEN * torch.where(torch.isfinite(apart), apart, 0.0).amax(0)


def values_at(op: Op, attributes: Mapping[str, Any], arguments: Sequence[Argument], points: Sequence[Tensor],
              dtype: torch.dtype) -> Tensor:
    """The operator at the points, computed in `dtype`, (n, b, *out)."""
    waiting = iter(points)
    concrete = [next(waiting).flatten(0, 1) if isinstance(part, Interval) else part for part in arguments]
    typed = [part.to(dtype) if part.is_floating_point() else part for part in concrete]
    try:
        result = op.evaluate(*typed, **attributes)
    except TypeError as problem:
        raise ConformanceError(
            f"operator '{op.name}' cannot be called with {len(typed)} tensors and attributes {dict(attributes)}: {problem}. "
            "Give example calls: check_operator(name, [Case((Vary(shape), ...), attributes), ...]).") from problem
    return result.reshape(*points[0].shape[:2], *result.shape[1:])


def doubled(part: Any) -> Any:
    """A map with all its tensors in double precision: the line that the numbers mean, without rounding of its own."""
    if isinstance(part, Tensor):
        return part.double() if part.is_floating_point() else part
    if isinstance(part, tuple):
        return tuple(doubled(item) for item in part)
    if not isinstance(part, LinearMap):
        return part
    return replace(part, **{name: doubled(value) for name, value in vars(part).items()})


def line_at(affine: Affine, points: Sequence[Tensor]) -> Tensor:
    """One side of a relaxation at points (n, b, *in), in double precision, (n, b, s, *out)."""
    layers = [doubled(layer) for layer in affine.maps]
    bias = 0.0 if affine.bias is None else affine.bias.double()
    columns = zip(*(point.double().unsqueeze(2) for point in points), strict=True)
    return torch.stack([sum((layer.push(x) for layer, x in zip(layers, xs, strict=True)), bias) for xs in columns])  # type: ignore[misc]


def line_size(affine: Affine, perturbed: Sequence[Interval]) -> Tensor:
    """What a line's terms amount to at most on the boxes: sum of |coefficient| |x|, and |intercept|, (b, s, *out)."""
    total = 0.0 if affine.bias is None else affine.bias.double().abs()
    for layer, x in zip(affine.maps, perturbed, strict=True):
        largest = torch.maximum(x.lower.abs(), x.upper.abs()).double()
        total = total + doubled(layer.abs()).push(largest.unsqueeze(1))
    assert isinstance(total, Tensor)
    return total


def longest_sum(affine: Affine) -> int:
    """How many terms one coordinate of the result may add up."""
    single = (Diagonal, Identity)
    return sum(1 if isinstance(layer, single) else math.prod(layer.in_shape) for layer in affine.maps)


def settings(trial: Trial, generator: torch.Generator) -> Iterator[Setting]:
    """Free variables left out, at their start, at the corners of their box, and at random inside (shared and per row)."""
    yield "no free variables", None
    free = trial.op.alpha
    if not free or trial.op.affine(tuple(isinstance(part, Interval) for part in trial.arguments)):
        return
    ends = {name: (choice(trial, variable.low), choice(trial, variable.high)) for name, variable in free.items()}
    yield "free variables at their start", start_of(trial, free)
    for sides in itertools.islice(itertools.product((0, 1), repeat=len(free)), 16):
        corner = ", ".join(f"{name} at its {('low', 'high')[side]} end" for name, side in zip(free, sides, strict=True))
        yield corner, {name: ends[name][side] for name, side in zip(free, sides, strict=True)}
    for rows in (1, 3):
        inside = {}
        for name, (low, high) in ends.items():
            share = torch.rand((low.shape[0], rows, *low.shape[2:]), generator=generator, dtype=low.dtype)
            inside[name] = torch.minimum(low + share * (high - low), high)
        yield f"free variables at random, {rows} to a problem", inside


def start_of(trial: Trial, free: Mapping[str, Free]) -> Mapping[str, Tensor]:
    """Every free variable at its start."""
    return {name: choice(trial, variable.start) for name, variable in free.items()}


def choice(trial: Trial, value: Any) -> Tensor:
    """A limit or start of a free variable as a tensor (b, 1, *shape)."""
    if callable(value):
        return value(*trial.arguments, **trial.attributes)
    like = trial.perturbed[0].lower
    return torch.full((trial.values.shape[1], 1, *trial.values.shape[2:]), value, dtype=like.dtype)
