"""The loss on a plane through a network's weights: what pictures of flat and sharp minima show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from boundlab.data.examples import Examples
from boundlab.errors import SpecError
from boundlab.graph import Model
from boundlab.perturbations.joint import Key
from boundlab.train.batch import placed
from boundlab.train.measure import check_examples
from boundlab.train.weights import WeightThreat, climbed, mean_loss, weights_of

CLIMB = 20
"""Steps of the search for the worst weights."""


@dataclass(frozen=True)
class Landscape:
    """Mean cross-entropy on a square grid: `loss` (k, k), rows towards the worst weights found, columns in a random direction.

    `steps` (k,) are distances from the weights, which stand in the middle: 1 is the place of the worst weights, and along the
    random direction the radius of the balls.
    """

    steps: Tensor
    loss: Tensor


def landscape(model: Model, examples: Examples, threat: WeightThreat, reach: float = 2.0, points: int = 15,
              seed: int = 0) -> Landscape:
    """The loss on a plane through the weights, up to `reach` steps to each side, at `points` a side.

    Xu et al. 2020 (auto_LiRPA), Figure 3b have the gradient in place of the way to the worst weights; but near a minimum the
    gradient is small, and what it points at is not where the loss is sharp. SpecError for an even number of points, which would
    leave out the middle.
    """
    if points < 3 or points % 2 == 0 or not reach > 0:
        raise SpecError(f"a landscape has an odd number of points from 3 on and a positive reach, got {points} and {reach}.")
    check_examples(model, examples, weights_of(threat))
    model = model.detached()
    data = placed(examples.x, model), examples.labelled()[1].to(model.device)
    balls = threat.balls(model)
    centers = {key: ball.center for key, ball in balls.items()}
    _, worst = climbed(model, data, threat, CLIMB)
    generator = torch.Generator().manual_seed(seed)
    drawn = {key: torch.randn(value.shape, generator=generator).to(value) for key, value in centers.items()}
    ways = [{key: worst[key] - center for key, center in centers.items()},
            {key: ball.ascent(drawn[key]) for key, ball in balls.items()}]
    steps = torch.linspace(-reach, reach, points, dtype=torch.float64)
    loss = [[float(mean_loss(model, data, moved(centers, ways, (float(up), float(aside))))) for aside in steps] for up in steps]
    return Landscape(steps, torch.tensor(loss, dtype=torch.float64))


def moved(centers: Mapping[Key, Tensor], ways: list[dict[Key, Tensor]], lengths: tuple[float, float]) -> dict[Key, Tensor]:
    """Weights so many steps along both directions."""
    return {key: center + lengths[0] * ways[0][key] + lengths[1] * ways[1][key] for key, center in centers.items()}
