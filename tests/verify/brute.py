"""Small random networks around every operator, least margins by brute force, and exact ones by linear programs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

import boundlab as bl
from boundlab.capture.builder import Builder
from boundlab.testing import Case, Vary

D = torch.float64
GRIDS = {1: 4001, 2: 101, 3: 25}
"""Points a side of the grid over a box, by its number of inputs."""
REACH = 3.0
"""Where an operator's domain has no end, its arguments stay within this distance of zero or of the other end."""


def random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=D)


def operator_network(name: str, case: Case, box: bl.Box, seed: int) -> bl.Model:
    """A linear layer, in some a ReLU and another, for each varying argument; then the operator; then two outputs."""
    generator, build = torch.Generator().manual_seed(seed), Builder(D)
    x = build.input("x", box.lower.shape[1:])
    if seed % 2:
        x = build.add("relu", affine(build, x, random(generator, 4, box.lower.shape[1]), random(generator, 4)))
    arguments = [inside(build, x, argument, box, generator) if isinstance(argument, Vary) else build.constant(argument[0])
                 for argument in case.arguments]
    y = build.add(name, *arguments, **case.attributes)
    size = math.prod(build.shape(y))
    y = build.add("reshape", y, shape=(size,))
    return build.model([affine(build, y, random(generator, 2, size) / size**0.5, random(generator, 2))])


def affine(build: Builder, x: int, weight: Tensor, bias: Tensor) -> int:
    return build.add("linear", x, build.constant(weight), build.constant(bias))


def inside(build: Builder, x: int, vary: Vary, box: bl.Box, generator: torch.Generator) -> int:
    """An affine function of x that stays within the operator's domain over the whole box."""
    size = math.prod(vary.shape)
    weight = random(generator, size, *build.shape(x))
    low, high = vary.low, vary.high
    low = low if math.isfinite(low) else high - 2 * REACH if math.isfinite(high) else -REACH
    high = min(high, low + 2 * REACH)
    found = bl.bound(build.model([affine(build, x, weight, torch.zeros(size, dtype=D))]), box, method=bl.IBP())
    width = (found.upper - found.lower)[0].clamp(min=1e-3)
    share = 0.2 + 0.7 * torch.rand(size, generator=generator, dtype=D)
    scale = share * (high - low) / width
    start = low + 1e-6 + (high - low) * (1 - share - 1e-6) * torch.rand(size, generator=generator, dtype=D)
    flat = affine(build, x, weight * scale[:, None], start - scale * found.lower[0])
    return build.add("reshape", flat, shape=vary.shape)


def boxed(inputs: int, seed: int) -> bl.Box:
    generator = torch.Generator().manual_seed(seed)
    center, radius = random(generator, 1, inputs), 0.2 + torch.rand(1, inputs, generator=generator, dtype=D)
    return bl.Box(center - radius, center + radius)


def specification(seed: int) -> bl.Specification:
    """One row, two clauses, or one clause of two rows."""
    rows = random(torch.Generator().manual_seed(seed), 1, 1 + (seed % 3 > 0), 2)
    clause = torch.tensor([[0], [0, 1], [0, 0]][seed % 3])
    return bl.Specification(rows, torch.zeros(rows.shape[:2], dtype=D), clause)


@dataclass(frozen=True)
class Found:
    """The least margin that brute force found, where, and how much margins vary."""

    least: float
    point: Tensor
    spread: float


def brute_force(model: bl.Model, box: bl.Box, spec: bl.Specification) -> Found:
    """A grid over the box, ends included; then random points in ever smaller boxes around the best few."""
    inputs, generator = box.lower.shape[1], torch.Generator().manual_seed(0)
    steps = torch.linspace(0, 1, GRIDS[inputs], dtype=D)
    grid = torch.stack(torch.meshgrid(*[steps] * inputs, indexing="ij"), -1).reshape(-1, inputs)
    points = torch.lerp(box.lower, box.upper, grid)
    margins = spec.worst(spec.values(bl.evaluate(model, points)))
    spread, reach = float(margins.std()), 2.0 / GRIDS[inputs]
    for _ in range(8):
        best = points[margins.argsort()[:12]]
        steps = 2 * torch.rand((40, 1, inputs), generator=generator, dtype=D) - 1
        around = box.project(best + reach * (box.upper - box.lower) * steps)
        points = torch.cat([best, around.flatten(0, 1)])
        margins = spec.worst(spec.values(bl.evaluate(model, points)))
        reach *= 0.4
    return Found(float(margins.min()), points[margins.argmin()], spread)


# -- exact minima of networks of piecewise linear functions ---------------------------------------------------------------

@dataclass(frozen=True)
class Bent:
    """A continuous piecewise linear operator: breaks, and slope and intercept of each piece."""

    op: str
    attributes: dict[str, float]
    breaks: tuple[float, ...]
    pieces: tuple[tuple[float, float], ...]


BENT = (
    Bent("relu", {}, (0.0,), ((0.0, 0.0), (1.0, 0.0))),
    Bent("leaky_relu", {"negative_slope": 0.2}, (0.0,), ((0.2, 0.0), (1.0, 0.0))),
    Bent("abs", {}, (0.0,), ((-1.0, 0.0), (1.0, 0.0))),
    Bent("leaky_relu", {"negative_slope": -0.5}, (0.0,), ((-0.5, 0.0), (1.0, 0.0))),
    Bent("clip", {"min": -0.5, "max": 0.75}, (-0.5, 0.75), ((0.0, -0.5), (1.0, 0.0), (0.0, 0.75))),
    Bent("soft_shrink", {"lambd": 0.5}, (-0.5, 0.5), ((1.0, 0.5), (0.0, 0.0), (1.0, -0.5))),
)
Layers = Sequence[tuple[Tensor, Tensor]]


def bent_network(bent: Bent, layers: Layers) -> bl.Model:
    """Linear layers with the function in between."""
    build = Builder(D)
    x = build.input("x", (layers[0][0].shape[1],))
    for place, (weight, bias) in enumerate(layers):
        x = affine(build, x if place == 0 else build.add(bent.op, x, **bent.attributes), weight, bias)
    return build.model([x])


def random_layers(sizes: Sequence[int], seed: int) -> Layers:
    generator = torch.Generator().manual_seed(seed)
    return [(random(generator, out, inputs) / inputs**0.5, 0.5 * random(generator, out))
            for inputs, out in itertools.pairwise(sizes)]


def exact_minimum(bent: Bent, layers: Layers, rows: np.ndarray, box: bl.Box) -> float:
    """The least value over the box of the largest row of the output, by one linear program a reachable pattern."""
    lower, upper = box.lower[0].numpy(), box.upper[0].numpy()
    weights = [(weight.numpy(), bias.numpy()) for weight, bias in layers]
    least = math.inf

    def descend(layer: int, matrix: np.ndarray, offset: np.ndarray, sides: np.ndarray, limits: np.ndarray) -> None:
        nonlocal least
        weight, bias = weights[layer]
        matrix, offset = weight @ matrix, weight @ offset + bias
        if layer == len(weights) - 1:
            least = min(least, smallest(rows @ matrix, rows @ offset, sides, limits, lower, upper))
            return
        reach = np.abs(matrix) @ (upper - lower) / 2
        middle = matrix @ (upper + lower) / 2 + offset
        ends = (-math.inf, *bent.breaks, math.inf)
        possible = [[piece for piece in range(len(bent.pieces)) if ends[piece] <= middle[unit] + reach[unit] and
                     middle[unit] - reach[unit] <= ends[piece + 1]] for unit in range(len(offset))]
        for pattern in itertools.product(*possible):
            slope, intercept = (np.array([bent.pieces[piece][part] for piece in pattern]) for part in (0, 1))
            below, above = (np.array([ends[piece + side] for piece in pattern]) for side in (0, 1))
            own = np.concatenate([matrix[np.isfinite(above)], -matrix[np.isfinite(below)]])
            most = np.concatenate([(above - offset)[np.isfinite(above)], (offset - below)[np.isfinite(below)]])
            descend(layer + 1, slope[:, None] * matrix, slope * offset + intercept, np.concatenate([sides, own]),
                    np.concatenate([limits, most]))

    inputs = len(lower)
    descend(0, np.eye(inputs), np.zeros(inputs), np.zeros((0, inputs)), np.zeros(0))
    return least


def smallest(rows: np.ndarray, offsets: np.ndarray, sides: np.ndarray, limits: np.ndarray, lower: np.ndarray,
             upper: np.ndarray) -> float:
    """The least of max_k rows_k . x + offsets_k where sides . x <= limits, over a box; infinite where there is no such x."""
    inputs = len(lower)
    above = np.concatenate([np.concatenate([rows, -np.ones((len(rows), 1))], 1), np.pad(sides, ((0, 0), (0, 1)))])
    result = linprog(np.eye(inputs + 1)[-1], above, np.concatenate([-offsets, limits]),
                     bounds=[*zip(lower, upper, strict=True), (None, None)])
    return result.fun if result.success else math.inf
