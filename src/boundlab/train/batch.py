"""What a training step is about: a batch of examples, the sets around them, and the network with live parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from boundlab.errors import SpecError
from boundlab.evaluate import evaluate
from boundlab.graph import Model
from boundlab.perturbations.ball import LpBall
from boundlab.train.losses import Classification, classification


@dataclass(frozen=True)
class Threat:
    """Balls of radius `eps` of an l_p norm, in the inputs' own units, within the numbers `clip` (low, high) if there are any.

    SpecError if eps is negative or not finite, p is below 1, or `clip` is empty.
    """

    eps: float
    norm: float = math.inf
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.eps < math.inf:
            raise SpecError(f"eps must be finite and at least 0, got {self.eps}.")
        if not self.norm >= 1:
            raise SpecError(f"a ball needs a norm of order at least 1 (or inf), got {self.norm}.")
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise SpecError(f"clip is the least and the greatest number of an input, got {self.clip[0]} and {self.clip[1]}.")

    def around(self, x: Tensor, scale: float = 1.0) -> LpBall:
        """The balls around x (b, *shape) with `scale` times the radius."""
        return LpBall(x, self.eps * scale, self.norm, self.clip)


@dataclass(frozen=True)
class Batch:
    """Inputs x (b, *shape) with labels (b,), and what the loss of one step may need of them.

    `share` is the eps of this step as a share of the threat's, 0 to 1. `points` (b, *shape) are where an attack ended, if the
    method attacks. `output` (b, classes) is the network at x, if a clean pass has computed it already.
    """

    model: Model
    x: Tensor
    labels: Tensor
    threat: Threat
    share: float
    points: Tensor | None = None
    output: Tensor | None = None

    @cached_property
    def logits(self) -> Tensor:
        """The network at x, (b, classes)."""
        return evaluate(self.model, self.x) if self.output is None else self.output

    @cached_property
    def attacked(self) -> Tensor:
        """The network at the points of the attack, (b, classes); SpecError if there was none."""
        if self.points is None:
            raise SpecError("this loss reads the points of an attack, but its method's `search` gave none.")
        return evaluate(self.model, self.points)

    @cached_property
    def question(self) -> Classification:
        """Intervals of all layers on the balls of this step."""
        return classification(self.model, self.threat.around(self.x, self.share), self.labels, None)
