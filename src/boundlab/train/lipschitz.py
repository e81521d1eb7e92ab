"""Training for balls in l_2, as values: by BCP's bounds, by Lipschitz margins, by a further logit, and by the dual polytope.

What is minimised by the first three is a bound at every step: spectral norms are bounded from above, and only their gradient
comes from a power iteration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from boundlab.bounds.lipschitz import BCP, LMT
from boundlab.bounds.methods import CROWN
from boundlab.bounds.problem import Method, problem_of
from boundlab.bounds.slopes import parallel
from boundlab.errors import SpecError
from boundlab.maps import trainable_bound
from boundlab.spec import margins
from boundlab.train.batch import Batch
from boundlab.train.checks import check_numbers
from boundlab.train.losses import robust_cross_entropy
from boundlab.train.methods import TrainingMethod, Weights, check_weights, with_natural
from boundlab.train.projections import projected_margins


@dataclass(frozen=True)
class ByLipschitz(TrainingMethod):
    """w * natural + (1 - w) * cross-entropy of the worst logits by `bound`; w = `natural_weight`."""

    natural_weight: Weights = (1.0, 0.0)
    bound: ClassVar[Method]

    def __post_init__(self) -> None:
        check_weights("natural_weight", self.natural_weight)

    def loss(self, batch: Batch) -> Tensor:
        return with_natural(batch, self.natural_weight, robust_cross_entropy(lower_margins(batch, self.bound)))


@dataclass(frozen=True)
class RobustBCP(ByLipschitz):
    """w * natural + (1 - w) * cross-entropy of the worst logits by BCP (Lee et al. 2020, Eq. 13); w = `natural_weight`."""

    bound: ClassVar[Method] = BCP(trainable_bound)


@dataclass(frozen=True)
class RobustLMT(ByLipschitz):
    """The same with Lipschitz margins, as Lee et al. 2020 train LMT (Tsuzuku et al. 2018, with a schedule)."""

    bound: ClassVar[Method] = LMT(trainable_bound)


@dataclass(frozen=True)
class GloRo(TrainingMethod):
    """Cross-entropy with one more logit, the most that a class beside the chosen one may reach (Leino et al. 2021, GloRo).

    By the Lipschitz margins of the class that the network chooses, it is that class's logit minus the smallest of them.
    """

    def loss(self, batch: Batch) -> Tensor:
        chosen = batch.logits.detach().argmax(1)
        least = lower_margins(batch, LMT(trainable_bound), chosen).amin(1)
        rival = batch.logits.gather(1, chosen[:, None]) - least[:, None]
        return cross_entropy(torch.cat([batch.logits, rival], dim=1), batch.labels)


@dataclass(frozen=True)
class ByMargin(TrainingMethod):
    """Cross-entropy with the label's logit lowered by what a ball may cost at most, for networks that are 1-Lipschitz as built.

    In l_2 a margin of such a network falls by at most sqrt(2) times the radius. `scale` times that is taken off, and logits are
    divided by `temperature`, by which the loss is multiplied (Prach and Lampert 2022, AOL; Tsuzuku et al. 2018). With a scale
    of at least 1 it is a bound, if the network is 1-Lipschitz, such as one of `zoo.AOLConv2d`, `zoo.AOLLinear` and
    `zoo.MaxMin`; that is not looked at here, and certified by `LMT()` or another method with the layers' norms.
    """

    temperature: float = 0.25
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(temperature=self.temperature, scale=self.scale)
        if not (0 < self.temperature < math.inf and 0 <= self.scale < math.inf):
            raise SpecError("the temperature is a positive number and the scale is at least 0, got "
                            f"{self.temperature} and {self.scale}.")

    def loss(self, batch: Batch) -> Tensor:
        radius = batch.balls.around(batch.x, batch.share).l2_ball()[1].reshape(-1, 1)
        cost = math.sqrt(2) * self.scale * radius * one_hot(batch.labels, batch.logits.shape[1])
        return cross_entropy((batch.logits - cost) / self.temperature, batch.labels) * self.temperature


@dataclass(frozen=True)
class CAP(TrainingMethod):
    """Cross-entropy of the margins on the convex outer polytope (Wong and Kolter 2018): lines of one slope, layer by layer.

    Without `projections` layers are bounded exactly, and met with intervals. With them (Wong et al. 2018) so many random
    vectors estimate the norms that bound inner layers: cheaper, and the loss is then no bound. For l_inf and l_2, and ReLU.
    """

    projections: int | None = None
    natural_weight: Weights = (0.0, 0.0)

    def __post_init__(self) -> None:
        check_weights("natural_weight", self.natural_weight)
        if self.projections is not None and self.projections < 1:
            raise SpecError(f"projections is the number of random vectors, at least 1, or None; got {self.projections}.")

    def loss(self, batch: Batch) -> Tensor:
        if self.projections is None:
            lower = lower_margins(batch, CROWN(alpha=parallel, filter=None))
        else:
            lower = projected_margins(batch.model, batch.balls.around(batch.x, batch.share), batch.labels, self.projections)
        return with_natural(batch, self.natural_weight, robust_cross_entropy(lower))


def lower_margins(batch: Batch, method: Method, labels: Tensor | None = None) -> Tensor:
    """Lower bounds of the margins of the labels, or of other classes (b,), on the balls of this step, (b, classes - 1)."""
    spec = margins(batch.labels if labels is None else labels, batch.model.graph.output.shape[0], batch.model.dtype)
    return method.run(problem_of(batch.model, batch.sets, spec)).lower
