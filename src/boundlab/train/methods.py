"""Training methods as values: each says what is minimised on a batch, and which points an attack looks for before.

The weights of a loss are pairs, at the start of the eps ramp and at its end; between them they go with the share of eps
(Zhang et al. 2020, published code). Papers call the weight of the natural loss kappa, and that of CROWN-IBP beta.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from boundlab.errors import SpecError
from boundlab.perturbations.sets import Box
from boundlab.train.adversary import Ascent
from boundlab.train.batch import Batch
from boundlab.train.losses import Classification, classification, fused_loss, interval_margins, mixed_loss, robust_cross_entropy
from boundlab.train.schedule import between

Weights = tuple[float, float]
"""A weight at the start of the eps ramp and at its end."""


@runtime_checkable
class TrainingMethod(Protocol):
    """What is minimised: a frozen value with a pure loss, and, if it attacks, a search that comes before."""

    def search(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """Points (b, *shape) of an attack that the loss reads; None without one."""
        return None

    def loss(self, batch: Batch) -> Tensor:
        """The mean over the examples of what is minimised, differentiable in the parameters of `batch.model`.

        It must be a mean of numbers of single examples, so that parts of a batch may be added.
        """
        ...


@dataclass(frozen=True)
class Natural(TrainingMethod):
    """Cross-entropy of the network at the inputs themselves."""

    def loss(self, batch: Batch) -> Tensor:
        return cross_entropy(batch.logits, batch.labels)


@dataclass(frozen=True)
class Adversarial(TrainingMethod):
    """Cross-entropy at the points that an attack finds (Madry et al. 2018): robust in practice, proven for little."""

    attack: Ascent = field(default_factory=Ascent)

    def search(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        return attacked(batch, self.attack, 1.0, generator)

    def loss(self, batch: Batch) -> Tensor:
        return cross_entropy(batch.attacked, batch.labels)


@dataclass(frozen=True)
class RobustIBP(TrainingMethod):
    """w * natural + (1 - w) * robust cross-entropy by IBP (Gowal et al. 2018); w = `natural_weight`.

    Weight (0, 0) is called pure IBP, (1, 0.5) natural IBP.
    """

    natural_weight: Weights = (0.0, 0.0)

    def __post_init__(self) -> None:
        check_weights("natural_weight", self.natural_weight)

    def loss(self, batch: Batch) -> Tensor:
        return with_natural(batch, self.natural_weight, mixed_loss(batch.question, 0.0))


@dataclass(frozen=True)
class CrownIBP(TrainingMethod):
    """CROWN-IBP (Zhang et al. 2020): margins c * CROWN-IBP + (1 - c) * IBP, with c = `crown_weight`, and their cross-entropy.

    With `fused` the loss is a part of the network and one row bounds it, however many classes there are (loss fusion, Xu et
    al. 2020, Sec. 3.3). `natural_weight` as in `RobustIBP`.
    """

    crown_weight: Weights = (1.0, 0.0)
    natural_weight: Weights = (0.0, 0.0)
    fused: bool = False

    def __post_init__(self) -> None:
        check_weights("crown_weight", self.crown_weight)
        check_weights("natural_weight", self.natural_weight)

    def loss(self, batch: Batch) -> Tensor:
        weight = between(*self.crown_weight, batch.share)
        robust = (fused_loss if self.fused else mixed_loss)(batch.question, weight)
        return with_natural(batch, self.natural_weight, robust)


@dataclass(frozen=True)
class SABR(TrainingMethod):
    """Robust cross-entropy by IBP on a small box inside the set, around the point of an attack (Müller et al. 2023).

    The small box has `part` of the set's radius. The loss is below the one on the whole set and bounds nothing. For l_inf.
    """

    part: float = 0.4
    natural_weight: Weights = (0.0, 0.0)
    attack: Ascent = field(default_factory=Ascent)

    def __post_init__(self) -> None:
        check_weights("part", (self.part, self.part))
        check_weights("natural_weight", self.natural_weight)

    def search(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        return attacked(batch, self.attack, 1.0, generator)

    def loss(self, batch: Batch) -> Tensor:
        return with_natural(batch, self.natural_weight, mixed_loss(small_question(batch, self.part), 0.0))


@dataclass(frozen=True)
class Expressive(TrainingMethod):
    """Losses between attack and IBP, at `ibp_weight` of the way (De Palma et al. 2024, "expressive" losses).

    The attack may go `attack_scale` times as far as the set.
    """

    ibp_weight: float = 0.5
    attack_scale: float = 1.0
    attack: Ascent = field(default_factory=Ascent)

    def __post_init__(self) -> None:
        check_expressive(self.ibp_weight, self.attack_scale)

    def search(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        return attacked(batch, self.attack, self.attack_scale, generator)


@dataclass(frozen=True)
class MTLIBP(Expressive):
    """w * robust cross-entropy by IBP + (1 - w) * cross-entropy under attack, w = `ibp_weight` (De Palma et al. 2024)."""

    def loss(self, batch: Batch) -> Tensor:
        return torch.lerp(cross_entropy(batch.attacked, batch.labels), mixed_loss(batch.question, 0.0), self.ibp_weight)


@dataclass(frozen=True)
class CCIBP(Expressive):
    """Cross-entropy of the margins w * IBP + (1 - w) * under attack, w = `ibp_weight` (De Palma et al. 2024)."""

    def loss(self, batch: Batch) -> Tensor:
        question = batch.question
        proven = interval_margins(question.problem, question.env, question.labels)
        return robust_cross_entropy(torch.lerp(margins_at(batch.attacked, batch.labels), proven, self.ibp_weight))


@dataclass(frozen=True)
class ExpIBP(Expressive):
    """(robust cross-entropy by IBP)^w * (cross-entropy under attack)^(1 - w) of each example (De Palma et al. 2024)."""

    def loss(self, batch: Batch) -> Tensor:
        question = batch.question
        proven = entropies(interval_margins(question.problem, question.env, question.labels))
        found = entropies(margins_at(batch.attacked, batch.labels))
        return torch.lerp(found.log(), proven.log(), self.ibp_weight).exp().mean()


def with_natural(batch: Batch, weights: Weights, robust: Tensor) -> Tensor:
    """w * natural + (1 - w) * robust; the natural loss is left out where its weight is 0."""
    weight = between(*weights, batch.share)
    return robust if weight == 0 else torch.lerp(robust, cross_entropy(batch.logits, batch.labels), weight)


def attacked(batch: Batch, attack: Ascent, scale: float, generator: torch.Generator) -> Tensor:
    """Where an attack within `scale` times the balls of this step ends."""
    return attack.points(batch.model, batch.balls.around(batch.x, batch.share * scale), batch.labels, generator)


def small_question(batch: Batch, part: float) -> Classification:
    """Intervals of all layers on boxes of `part` of the radius, inside those of this step and about the attack's points."""
    assert batch.points is not None
    whole = batch.balls.around(batch.x, batch.share)
    if not whole.independent:
        raise SpecError(f"SABR and STAPS train on boxes inside boxes, which norm {batch.balls.norm:g} has not; use norm inf.")
    box = whole.box()
    room = part * box.radius
    center = torch.minimum(torch.maximum(batch.points, box.lower + room), box.upper - room)
    return classification(batch.model, Box(center - room, center + room), batch.labels, None)


def margins_at(logits: Tensor, labels: Tensor) -> Tensor:
    """The label's logit minus each other one, (b, classes - 1)."""
    others = logits[one_hot(labels, logits.shape[1]) == 0].reshape(len(logits), -1)
    return logits.gather(1, labels[:, None]) - others


def entropies(margins: Tensor) -> Tensor:
    """The cross-entropy of each example from its margins (b, classes - 1); above 0 by rounding at least."""
    behind = torch.cat([margins.new_zeros(len(margins), 1), -margins], dim=1)
    return behind.logsumexp(1).clamp(min=torch.finfo(margins.dtype).tiny)


def check_weights(name: str, weights: Weights) -> None:
    """SpecError unless both weights lie between 0 and 1."""
    pair = isinstance(weights, (tuple, list)) and len(weights) == 2
    if not pair or not all(isinstance(weight, (int, float)) and 0 <= weight <= 1 for weight in weights):
        raise SpecError(f"{name} is a pair of numbers between 0 and 1, at the start of the eps ramp and at its end; got "
                        f"{weights}.")


def check_expressive(weight: float, scale: float) -> None:
    """SpecError unless the weight lies between 0 and 1 and the attack's scale is positive."""
    check_weights("ibp_weight", (weight, weight))
    if not scale > 0:
        raise SpecError(f"attack_scale must be positive, got {scale}.")
