"""What is added to a loss, and the initial weights, that make bounds trainable."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from boundlab.bounds.backward import Env
from boundlab.errors import SpecError
from boundlab.graph import Graph
from boundlab.interval import Interval
from boundlab.train.batch import Batch

LEAST_EPS = 1e-6
"""The radius at which intervals are looked at while eps is still 0."""
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class Regulariser(Protocol):
    """A term that is added to the loss of a batch."""

    def term(self, batch: Batch) -> Tensor | None:
        """The term for a whole batch; None where it is 0."""
        ...


@dataclass(frozen=True)
class L1(Regulariser):
    """`weight` times the sum of the absolute weights of all layers, biases and scales of batch norms left out.

    Xiao et al. 2019; Zhang et al. 2020 (CROWN-IBP), models O and P.
    """

    weight: float

    def __post_init__(self) -> None:
        check_positive(self.weight)

    def term(self, batch: Batch) -> Tensor | None:
        layers = [value for value in batch.model.params.values() if value.requires_grad and value.dim() > 1]
        return self.weight * torch.stack([value.abs().sum() for value in layers]).sum() if layers else None


@dataclass(frozen=True)
class Calm(Regulariser):
    """Shi et al. 2021, Sec. 4.3: intervals shall not widen from layer to layer, and ReLUs shall be active and inactive evenly.

    Both terms count at `weight` * (1 - share of eps), so only until the ramp of eps ends; `tolerance` is the ratio from which
    nothing is charged. Widths are compared with that of what the first convolution or linear layer reads: a normalisation
    before it counts as a part of the data, as in the paper.
    """

    weight: float = 0.5
    tolerance: float = 0.5

    def __post_init__(self) -> None:
        check_positive(self.weight)
        if not 0 < self.tolerance <= 1:
            raise SpecError(f"a tolerance of ratios lies above 0 and is at most 1, got {self.tolerance}.")

    def term(self, batch: Batch) -> Tensor | None:
        if batch.share >= 1 or batch.threat.eps == 0:
            return None
        least = min(1.0, LEAST_EPS / batch.threat.eps)
        env = (batch if batch.share >= least else replace(batch, share=least)).question.env
        graph = batch.model.graph
        width = mean_radius(env[first_read(graph, env)])
        layers = [value for node in graph if node.op == "relu" and isinstance(value := env[node.args[0]], Interval)]
        if not layers:
            return None
        terms = torch.stack([self.tightness(width, value) + self.balance(value) for value in layers])
        return self.weight * (1 - batch.share) * terms.mean()

    def short(self, ratio: Tensor) -> Tensor:
        """How far a ratio stays behind the tolerance, 0 to 1; nothing for a ratio that is not a finite number."""
        return torch.where(torch.isfinite(ratio), torch.relu(self.tolerance - ratio) / self.tolerance, 0.0)

    def tightness(self, width: Tensor, value: Interval) -> Tensor:
        """Charged if intervals of a layer are wider than those that enter the first one, `width` on average."""
        return self.short(width / above_rounding(mean_radius(value)))

    def balance(self, value: Interval) -> Tensor:
        """Charged if centers of settled neurons, or their spread, are larger on one side of 0."""
        center = value.center
        active, inactive = value.lower > 0, value.upper < 0
        if not bool(active.any()) or not bool(inactive.any()):
            return center.new_zeros(())
        spread = (center - center.mean()).square()
        pairs = ((center[active].sum(), -center[inactive].sum()), (spread[active].sum(), spread[inactive].sum()))
        safe = [(above_rounding(one), above_rounding(other)) for one, other in pairs]
        return torch.stack([self.short(torch.minimum(one / other, other / one)) for one, other in safe]).sum()


def first_read(graph: Graph, env: Env) -> int:
    """The node whose intervals enter the first convolution or linear layer; the input where there is no such layer."""
    reads = (node.args[0] for node in graph if node.op in ("conv", "linear"))
    return next((index for index in reads if isinstance(env[index], Interval)), graph.inputs[0].index)


def mean_radius(value: Tensor | Interval) -> Tensor:
    """The mean half-width of a node's intervals."""
    assert isinstance(value, Interval)
    return value.radius.mean()


def above_rounding(value: Tensor) -> Tensor:
    """A divisor whose square is not lost: a quotient's gradient is finite even where its part is multiplied by 0."""
    return value.clamp(min=torch.finfo(value.dtype).eps)


def check_positive(weight: float) -> None:
    """SpecError unless the weight of a regulariser is a positive number."""
    if not 0 < weight < math.inf:
        raise SpecError(f"the weight of a regulariser is a positive number, got {weight}; leave it out for none.")


def initialise_for_ibp(module: nn.Module, seed: int = 0) -> None:
    """Draw the weights of all layers but the last from N(0, 2 pi / fan_in^2), in place, so that intervals keep their width.

    Shi et al. 2021, Sec. 4.1. The last layer is the one that the module holds last; biases stay as they are. SpecError for a
    module without layers.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, LAYERS)]
    if not layers:
        raise SpecError("this initialisation is for convolutions and linear layers, and the module has none.")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in layers[:-1]:
            deviation = math.sqrt(2 * math.pi) / layer.weight[0].numel()
            layer.weight.copy_(deviation * torch.randn(layer.weight.shape, generator=generator, dtype=layer.weight.dtype))


BERT = 0.02
"""The standard deviation of a Transformer's initial weights (Devlin et al. 2019, published code)."""


def initialise_as_bert(module: nn.Module, seed: int = 0) -> None:
    """Draw the weights of all linear layers from N(0, 0.02^2) and set their biases to 0, in place.

    Intervals then hardly widen from layer to layer of the zoo's Transformer, and torch's own initial weights quadruple them. As
    in the published code of Xu et al. 2020 (auto_LiRPA). SpecError for a module without linear layers.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise SpecError("this initialisation is for linear layers, and the module has none.")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(BERT * torch.randn(layer.weight.shape, generator=generator, dtype=layer.weight.dtype))
            if layer.bias is not None:
                layer.bias.zero_()
