"""Training against weights that vary, and how flat the loss is around them: what is found there, and what is proven."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from boundlab.data.examples import Examples
from boundlab.errors import SpecError
from boundlab.evaluate import evaluate
from boundlab.graph import Model
from boundlab.perturbations.ball import LpBall
from boundlab.perturbations.joint import Key, apart, names_of
from boundlab.perturbations.weights import weight_ball
from boundlab.spec import labelled_right
from boundlab.train.batch import ThreatModel, check_radius, placed
from boundlab.train.losses import fused_crown_ibp_loss
from boundlab.train.measure import AT_ONCE, check_examples, parts, share


@dataclass(frozen=True)
class WeightThreat(ThreatModel):
    """Parameters in l_p balls of radius `eps` around what they are: each of `names` in its own, or all in one if `joint`.

    `names` are names or patterns, as for `weight_ball`; with `relative` the radius is eps times the norm. Inputs stay as they
    are. Xu et al. 2020 (auto_LiRPA), Sec. 4; a ball for each weight matrix is what their published code has. SpecError for
    radii and norms that are none.
    """

    eps: float
    names: tuple[str, ...] = ("*.weight",)
    norm: float = 2.0
    relative: bool = False
    joint: bool = False

    def __post_init__(self) -> None:
        check_radius(self.eps, self.norm)
        if not self.names:
            raise SpecError("name at least one parameter, or a pattern such as '*.weight'.")

    def balls(self, model: Model, share: float = 1.0) -> dict[Key, LpBall]:
        """The balls around the parameters that the model has now."""
        return weight_ball(model, self.names, eps=self.eps * share, norm=self.norm, relative=self.relative, joint=self.joint)

    def sets(self, model: Model, x: Tensor, share: float = 1.0) -> Mapping[Key, LpBall | Tensor]:
        return {model.graph.inputs[0].name: x, **self.balls(model, share)}


@dataclass(frozen=True)
class Flatness:
    """Mean cross-entropy of examples at the weights, the largest one found in the balls, and what it is proven to stay below.

    `certified` is the mean of a bound for each example on its own, so that each may have its own worst weights. `accuracy` is
    the share of examples that are labelled correctly at the weights.
    """

    accuracy: float
    loss: float
    reached: float
    certified: float


def flatness(model: Model, examples: Examples, threat: WeightThreat, steps: int = 20) -> Flatness:
    """How flat the loss is around the weights: `loss` <= `reached` <= `certified`, up to rounding.

    `reached` is by `steps` steps of gradient ascent, of all examples together, one tenth of the radius each; `certified` by
    CROWN-IBP with loss fusion (Xu et al. 2020, Sec. 4 and Theorem 3). Errors as those of `measure`.
    """
    check_examples(model, examples, weights_of(threat))
    model = model.detached()
    x, labels = placed(examples.x, model), examples.labelled()[1].to(model.device)
    right, certified = [], 0.0
    for some, own in parts(x, labels, AT_ONCE):
        right.append(labelled_right(evaluate(model, some), own))
        with torch.no_grad():
            certified += float(fused_crown_ibp_loss(model, threat.sets(model, some), own, 1.0)) * len(own) / len(labels)
    natural = float(mean_loss(model, (x, labels), {}))
    return Flatness(share(torch.cat(right)), natural, max(natural, climbed(model, (x, labels), threat, steps)[0]), certified)


def weights_of(threat: object) -> WeightThreat:
    """The same threat; SpecError for one that varies anything but weights."""
    if isinstance(threat, WeightThreat):
        return threat
    raise SpecError(f"what is flat around the weights is asked with bl.WeightThreat(eps), got {type(threat).__name__}.")


def climbed(model: Model, data: tuple[Tensor, Tensor], threat: WeightThreat, steps: int) -> tuple[float, dict[Key, Tensor]]:
    """The largest mean loss on the way up its gradient, inside the balls, and the weights that have it."""
    balls = threat.balls(model)
    place = {key: ball.center for key, ball in balls.items()}
    best, worst = -math.inf, place
    for step in range(steps + 1):
        value, slopes = loss_and_slopes(model, data, place)
        if value > best:
            best, worst = value, place
        if step < steps:
            place = {key: ball.climb(place[key], slopes[key], 0.1) for key, ball in balls.items()}
    return best, worst


def loss_and_slopes(model: Model, data: tuple[Tensor, Tensor], place: Mapping[Key, Tensor]) -> tuple[float, dict[Key, Tensor]]:
    """The mean loss with parameters at `place`, tensors (1, *shape) or of a joint set (1, d), and its gradient there."""
    leaves = {key: value.detach().requires_grad_() for key, value in place.items()}
    with torch.enable_grad():
        total = mean_loss(model, data, leaves)
    found = torch.autograd.grad(total, list(leaves.values()))
    return float(total.detach()), dict(zip(leaves, found, strict=True))


def mean_loss(model: Model, data: tuple[Tensor, Tensor], place: Mapping[Key, Tensor]) -> Tensor:
    """The mean cross-entropy of inputs and labels with parameters at `place`, a number."""
    given = dict(named_values(model, place))
    losses = [cross_entropy(evaluate(model, {model.graph.inputs[0].name: x, **given}), labels, reduction="sum")
              for x, labels in parts(*data, AT_ONCE)]
    return torch.stack(losses).sum() / len(data[1])


def named_values(model: Model, place: Mapping[Key, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Tensors by the names of single parameters, of which a joint set holds several."""
    for key, value in place.items():
        names = names_of(key)
        yield from [(key, value)] if isinstance(key, str) else zip(
            names, apart(value, [model.params[name].shape for name in names]), strict=True)
