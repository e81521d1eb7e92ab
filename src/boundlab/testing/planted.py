"""Planted problems: small networks with a counterexample that was hidden on purpose, to catch whoever proves too much.

The idea is that of the soundness benchmark of the verification competition, VNN-COMP (Zhou et al. 2024, "Testing Neural Network
Verifiers: A Soundness Benchmark with Hidden Counterexamples"), whose networks are trained to have counterexamples that attacks
miss. Here nothing is trained: a random network holds wherever it is sampled, and a needle, zero but in a tiny box, breaks it.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from boundlab.errors import ConformanceError
from boundlab.perturbations.sets import Box
from boundlab.spec import Specification, at_least, margins
from boundlab.testing.exact import exact_numbers, exact_output
from boundlab.testing.hideouts import CLASSES, LARGE, Architecture, Hideout, lossy, plain, with_needle

SAMPLES, STARTS, STEPS = 1024, 16, 60
GAP, DEPTH = 0.1, 2.0**-10
"""The least margin elsewhere, and how far below zero that of a planted point is, in standard deviations of sampled margins."""
STRIDE = 37
"""`planted_problems` walks through all combinations in steps of this, which has no divisor in common with their number."""


class Place(enum.Enum):
    """Where a counterexample is hidden."""

    LEAST = "where the least margin that a search found is barely negative, without a needle"
    DEEP = "inside the box, in a needle of an eighth in every direction"
    THIN = "inside the box, in a needle of a thousandth in every direction"
    RIDGE = "along a thin slab across the box"
    CORNER = "in a needle at a corner of the box"
    FACE = "in a needle on a face of the box, inside it in the other coordinates"
    LOST = "in real arithmetic, while the network as it runs rounds every violation away"
    ROUNDED = "in the network as it runs, by rounding alone"


SHARPNESS = {Place.DEEP: 2.0**3, Place.THIN: 2.0**10, Place.RIDGE: 2.0**7, Place.CORNER: 2.0**5, Place.FACE: 2.0**5}
"""Inverse widths of needles: powers of two, with which the needle is exactly 1 at its point in any arithmetic."""


@dataclass(frozen=True)
class Planted:
    """A problem whose specification fails at `point` (1, *shape), a point of `box`: nobody may prove it.

    `margin` is the worst clause there in real arithmetic, as an exact rational number (for sigmoid and tanh from values to 60
    digits), and `run` what the module itself gives in its own type. A margin that is not above 0 is a violation.
    """

    place: Place
    architecture: Architecture
    seed: int
    module: nn.Module
    box: Box
    spec: Specification
    point: Tensor
    margin: Fraction
    run: Fraction

    @property
    def real(self) -> bool:
        """Whether the point is a counterexample in real arithmetic."""
        return self.margin <= 0

    @property
    def runs(self) -> bool:
        """Whether the point is a counterexample of the network as it runs in its own type."""
        return self.run <= 0

    def __str__(self) -> str:
        kind = str(self.point.dtype).removeprefix("torch.")
        return f"{self.place.name.lower()} in {self.architecture.name.lower()}, {kind}, seed {self.seed}"


def planted(place: Place, architecture: Architecture, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Planted:
    """A random network with a counterexample hidden at `place`; equal arguments give equal problems.

    All networks of one architecture and kind of place (least, needle, rounding) have the same layers and shapes.
    ConformanceError if the planted point is no counterexample after all, in exact arithmetic, which would be our mistake.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        if place in (Place.LOST, Place.ROUNDED):
            hideout, point, box, spec = by_rounding(place, architecture, dtype)
        else:
            hideout, point, box, spec = by_margin(place, architecture, dtype)
        margin = margin_at(hideout.module, spec, point)
        run = worst(spec, hideout.module(point)[0].tolist())
    found = Planted(place, architecture, seed, hideout.module, box, spec, point, margin, run)
    expected = {Place.LOST: (True, False), Place.ROUNDED: (False, True)}.get(place, (True, True))
    if not bool(box.box().contains(point).all()) or (found.real, found.runs) != expected:
        raise ConformanceError(f"nothing was planted: {found} has the margins {float(margin):.3g} in exact arithmetic and "
                               f"{float(run):.3g} as it runs.")
    return found


def planted_problems(count: int, seed: int = 0) -> Iterator[Planted]:
    """`count` problems that go evenly through all places, architectures and types, with seeds from `seed` on."""
    kinds = list(itertools.product(Place, Architecture, (torch.float32, torch.float64)))
    for number in range(seed, seed + count):
        place, architecture, dtype = kinds[number * STRIDE % len(kinds)]
        yield planted(place, architecture, seed=number, dtype=dtype)


def worst(spec: Specification, output: Sequence[Fraction | float]) -> Fraction:
    """The smallest, over clauses, of each clause's best row, exactly, for one output without a batch."""
    values = [Fraction(value) for value in output]
    best: dict[int, Fraction] = {}
    for row, offset, clause in zip(spec.rows[0].tolist(), spec.offset[0].tolist(), spec.clause.tolist(), strict=True):
        margin = sum((Fraction(weight) * value for weight, value in zip(row, values, strict=True)), Fraction(offset))
        best[clause] = max(margin, best.get(clause, margin))
    return min(best.values())


def scattered(hideout: Hideout, dtype: torch.dtype) -> tuple[Box, Tensor]:
    """Random weights, a random box, and samples of it (n, *shape), a third of them on faces and a third at corners."""
    hideout.module.to(dtype)
    for name, tensor in hideout.drawn.named_parameters():
        fan = tensor[0].numel() if name.endswith("weight") else 4
        tensor.copy_(torch.randn_like(tensor) / fan**0.5)
    center, radius = torch.randn(1, *hideout.shape, dtype=dtype), 0.5 + torch.rand(1, *hideout.shape, dtype=dtype)
    box = Box(center - radius, center + radius)
    return box, box.sample(SAMPLES, torch.Generator().manual_seed(int(torch.randint(2**31, ())))).flatten(0, 1)


def by_margin(place: Place, architecture: Architecture, dtype: torch.dtype) -> tuple[Hideout, Tensor, Box, Specification]:
    """The first output is above all others wherever a search came, and by a little below one of them at the point."""
    hideout = plain(architecture) if place is Place.LEAST else with_needle(architecture)
    box, samples = scattered(hideout, dtype)
    spec, needle, last = margins([0], CLASSES, dtype), hideout.needle, hideout.last
    if needle is not None:
        last.weight[:, -1] = 0.0
    found = spec.worst(spec.values(hideout.module(samples)))
    spread = float(found.std())
    lowest = descended(hideout.module, spec, box, samples[found.argsort()[:STARTS]])
    if needle is None:
        last.bias[0] -= float(margin_at(hideout.module, spec, lowest)) + DEPTH * spread
        return hideout, lowest, box, spec
    point = hidden(place, box)
    directions = torch.eye(point.numel(), dtype=dtype)
    if place is Place.RIDGE:
        directions = nn.functional.normalize(torch.randn_like(directions[:1]), dim=1)
    needle.aim(point.flatten(), directions * SHARPNESS[place])
    last.bias[0] -= float(margin_at(hideout.module, spec, lowest)) - GAP * spread
    height = exact_output(needle, exact_numbers(point[0]))[0]
    last.weight[0, -1] = -(float(margin_at(hideout.module, spec, point)) + DEPTH * spread) / float(height)
    return hideout, point, box, spec


def margin_at(module: nn.Module, spec: Specification, point: Tensor) -> Fraction:
    """The worst clause at a point (1, *shape), in exact arithmetic."""
    return worst(spec, exact_output(module, exact_numbers(point[0])).tolist())


def hidden(place: Place, box: Box) -> Tensor:
    """A random point at a place of a box, (1, *shape)."""
    share = 0.1 + 0.8 * torch.rand_like(box.lower)
    ends = torch.randint(2, box.lower.shape).to(share)
    chosen = torch.arange(share.numel()).reshape(share.shape) == torch.randint(share.numel(), ())
    if place in (Place.CORNER, Place.FACE):
        share = torch.where(chosen | (place is Place.CORNER), ends, share)
    return box.project(torch.where(share == 1, box.upper, torch.lerp(box.lower, box.upper, share)))


def descended(module: nn.Module, spec: Specification, box: Box, points: Tensor) -> Tensor:
    """The point (1, *shape) with the least worst clause on ways of projected sign descent from `points` (n, *shape)."""
    best, lowest = points, spec.worst(spec.values(module(points)))
    for step in range(STEPS):
        with torch.enable_grad():
            moving = points.detach().requires_grad_()
            gradient, = torch.autograd.grad(spec.worst(spec.values(module(moving))).sum(), moving)
        points = box.project(points - gradient.sign() * box.box().radius * (0.3 * 0.9**step))
        found = spec.worst(spec.values(module(points)))
        better = found < lowest
        best = torch.where(better.reshape(-1, *[1] * (points.dim() - 1)), points, best)
        lowest = torch.minimum(found, lowest)
    return best[lowest.argmin()][None]


def by_rounding(place: Place, architecture: Architecture, dtype: torch.dtype) -> tuple[Hideout, Tensor, Box, Specification]:
    """s + offset is to be positive, where s is about 0.3 wide, and 0 as the network runs."""
    hideout = lossy(architecture, LARGE[dtype])
    box, samples = scattered(hideout, dtype)
    values = hideout.drawn(samples)[:, 0]
    least, offset = (0.4, -0.2) if place is Place.ROUNDED else (-0.6, 0.4)
    scale = 0.3 / float(values.max() - values.min())
    hideout.last.weight.mul_(scale)
    hideout.last.bias.sub_(float(values.min())).mul_(scale).add_(least)
    spec = at_least(torch.tensor([[[1.0, -1.0]]], dtype=dtype), torch.tensor([[offset]], dtype=dtype))
    return hideout, samples[values.argmin()][None], box, spec
