"""Attacks inside training: projected gradient ascent on the cross-entropy, from random points, every example on its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from boundlab.errors import SpecError
from boundlab.evaluate import evaluate
from boundlab.graph import Model
from boundlab.perturbations.sets import PerturbationSet


@dataclass(frozen=True)
class Ascent:
    """`steps` steps of `step` radii up the gradient of the cross-entropy, from a random point; the last point counts.

    Madry et al. 2018. One step of 10 radii goes straight to a corner of a box, as De Palma et al. 2024 do.
    """

    steps: int = 8
    step: float = 0.25

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.step > 0:
            raise SpecError(f"an attack takes at least one step of more than 0 radii, got {self.steps} of {self.step}.")

    def points(self, model: Model, region: PerturbationSet, labels: Tensor, generator: torch.Generator) -> Tensor:
        """A point (b, *shape) of each set in `region`; random numbers come from `generator`, which lives on the CPU."""
        model, box = model.detached(), region.box()
        noise = torch.rand(box.shape, generator=generator, dtype=box.lower.dtype).to(box.lower.device)
        start = region.project(torch.lerp(box.lower, box.upper, noise))
        return self.climbed(lambda point: cross_entropy(evaluate(model, point), labels, reduction="sum"), region, start)

    def climbed(self, objective: Callable[[Tensor], Tensor], region: PerturbationSet, start: Tensor) -> Tensor:
        """Where the steps end that begin at `start` (b, *shape) and go up the gradient of `objective`, a sum over the batch."""
        point = start
        for _ in range(self.steps):
            leaf = point.detach().requires_grad_()
            with torch.enable_grad():
                height = objective(leaf)
            (slope,) = torch.autograd.grad(height, leaf)
            point = region.climb(point, slope, self.step).detach()
        return point
