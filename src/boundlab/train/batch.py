"""What a training step is about: a batch of examples, what may vary around them, and the network with live parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Protocol

from torch import Tensor, nn

from boundlab.bounds.problem import Method
from boundlab.capture.torch import capture
from boundlab.data.examples import Examples
from boundlab.errors import ShapeError, SpecError
from boundlab.evaluate import evaluate
from boundlab.graph import Model
from boundlab.perturbations.ball import LpBall
from boundlab.train.losses import Classification, Sets, classification

Inputs = Mapping[str, Tensor] | Tensor
"""What a network reads: one tensor (b, *shape), or one for each input."""


class ThreatModel(Protocol):
    """What may vary around examples: their inputs in balls (`Threat`), weights (`WeightThreat`), words (`WordThreat`).

    `eps` is the size of the sets where the ramp has ended; while it is 0, training is natural.
    """

    eps: float

    def sets(self, model: Model, x: Tensor, share: float = 1.0) -> Sets:
        """Sets of the sources of `model` for examples x (b, *shape), at `share` of their size."""
        ...

    def inputs(self, model: Model, x: Tensor) -> Inputs:
        """What the network reads where nothing is perturbed."""
        return x

    def captured(self, module: nn.Module, x: Tensor) -> Model:
        """The module as the network that the sets are about, with live parameters; x are two examples."""
        return capture(module, x)

    def check(self, model: Model, examples: Examples) -> None:
        """ShapeError, SpecError or DataError unless examples are such that the network takes and sets are known for."""
        wanted, given = model.graph.inputs[0].shape, examples.x.shape[1:]
        if tuple(given) != wanted:
            raise ShapeError(f"the network takes inputs of shape {list(wanted)}, and the examples have {list(given)}.")

    @property
    def layers(self) -> Method | None:
        """What bounds the layers in training, if not `IBP()`."""
        return None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What it depends on beside what its repr says: a run with other numbers is another run."""
        return ()


def check_radius(eps: float, norm: float) -> None:
    """SpecError for what is no radius of a ball, or no norm of one."""
    if not (isinstance(eps, Real) and 0 <= eps < math.inf):
        raise SpecError(f"eps must be a finite number, at least 0, got {eps!r:.60}.")
    if not (isinstance(norm, Real) and norm >= 1):
        raise SpecError(f"a ball needs a norm of order at least 1 (or inf), got {norm!r:.60}.")


@dataclass(frozen=True)
class Threat(ThreatModel):
    """Balls of radius `eps` of an l_p norm, in the inputs' own units, within the numbers `clip` (low, high) if there are any.

    SpecError if eps is negative or not finite, p is below 1, or `clip` is empty.
    """

    eps: float
    norm: float = math.inf
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_radius(self.eps, self.norm)
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise SpecError(f"clip is the least and the greatest number of an input, got {self.clip[0]} and {self.clip[1]}.")

    def around(self, x: Tensor, scale: float = 1.0) -> LpBall:
        """The balls around x (b, *shape) with `scale` times the radius."""
        return LpBall(x, self.eps * scale, self.norm, self.clip)

    def sets(self, model: Model, x: Tensor, share: float = 1.0) -> LpBall:
        return self.around(x, share)

    def check(self, model: Model, examples: Examples) -> None:
        super().check(model, examples)
        if self.clip is not None:
            examples.within(*self.clip)


@dataclass(frozen=True)
class Batch:
    """Inputs x (b, *shape) with labels (b,), and what the loss of one step may need of them.

    `share` is the eps of this step as a share of the threat's, 0 to 1. `points` (b, *shape) are where an attack ended, if the
    method attacks. `output` (b, classes) is the network at x, if a clean pass has computed it already.
    """

    model: Model
    x: Tensor
    labels: Tensor
    threat: ThreatModel
    share: float
    points: Tensor | None = None
    output: Tensor | None = None

    @cached_property
    def sets(self) -> Sets:
        """What varies, at this step's share."""
        return self.threat.sets(self.model, self.x, self.share)

    @property
    def inputs(self) -> Inputs:
        """What the network reads where nothing is perturbed."""
        return self.threat.inputs(self.model, self.x)

    @property
    def balls(self) -> Threat:
        """The balls around the inputs; SpecError if it is something else that varies."""
        if not isinstance(self.threat, Threat):
            raise SpecError(f"this method needs balls around the inputs, and {type(self.threat).__name__} has none; train by a "
                            "method that reads bounds alone, such as CrownIBP.")
        return self.threat

    @cached_property
    def logits(self) -> Tensor:
        """The network at x, (b, classes)."""
        return evaluate(self.model, self.inputs) if self.output is None else self.output

    @cached_property
    def attacked(self) -> Tensor:
        """The network at the points of the attack, (b, classes); SpecError if there was none."""
        if self.points is None:
            raise SpecError("this loss reads the points of an attack, but its method's `search` gave none.")
        return evaluate(self.model, self.points)

    @cached_property
    def question(self) -> Classification:
        """Intervals of all layers on the sets of this step."""
        return classification(self.model, self.sets, self.labels, self.threat.layers)


def placed(x: Tensor, model: Model) -> Tensor:
    """Examples where the network is, in its floating type; numbers of words stay whole."""
    return x.to(model.device, model.dtype) if x.is_floating_point() else x.to(model.device)
