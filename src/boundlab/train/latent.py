"""Bounds through the first layers and an attack through the last ones: losses between certified and adversarial training.

The first layers give a box of inner values by IBP. In that box an attack looks for the least margin of each class that the last
layers allow; so the loss is below the one by IBP, and bounds nothing. Mao et al. 2023 ("Connecting certified and adversarial
training").
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from boundlab.bounds.intermediate import fed_by_inputs
from boundlab.errors import SpecError
from boundlab.evaluate import evaluate
from boundlab.graph import Graph, Model, Node
from boundlab.interval import Interval
from boundlab.perturbations.sets import Box
from boundlab.train.adversary import Ascent
from boundlab.train.batch import Batch
from boundlab.train.checks import check_count, check_kind, check_numbers
from boundlab.train.losses import Classification, classification, interval_margins
from boundlab.train.methods import TrainingMethod, Weights, attacked, check_weights, entropies, small_question, with_natural


@dataclass(frozen=True)
class TAPS(TrainingMethod):
    """Cross-entropy by IBP, times the one of margins that an attack finds in a box of inner values (Mao et al. 2023, TAPS).

    The attack goes through the last `layers` convolutions and linear layers; IBP bounds what the first of them reads. Each
    class has an attack of its own, `inner`, from the middle of the box. Their factor's gradient counts `attack_weight` times;
    it reaches the ends of the box from points within `reach` of its width of them. Until the ramp of eps ends, IBP alone is
    minimised, as in the published code; unlike there, factors are multiplied for each example. SpecError where the network
    cannot be divided so.
    """

    layers: int = 2
    attack_weight: float = 5.0
    reach: float = 0.5
    natural_weight: Weights = (0.0, 0.0)
    inner: Ascent = field(default_factory=Ascent)

    def __post_init__(self) -> None:
        check_count("layers", self.layers)
        check_numbers(attack_weight=self.attack_weight, reach=self.reach)
        check_kind("inner", self.inner, Ascent, "Ascent(steps=8)")
        check_weights("natural_weight", self.natural_weight)
        if not 0 < self.attack_weight < math.inf or not 0 < self.reach <= 1:
            raise SpecError("the attack's weight is a positive number and its reach lies above 0 and is at most 1, got "
                            f"{self.attack_weight} and {self.reach}.")

    def question(self, batch: Batch) -> Classification:
        """The intervals that the attack begins with."""
        return classification(batch.model, batch.balls.around(batch.x, batch.share), batch.labels, None)

    def loss(self, batch: Batch) -> Tensor:
        question = self.question(batch)
        robust = entropies(interval_margins(question.problem, question.env, question.labels))
        if batch.share >= 1:
            found = entropies(inner_margins(question, self.layers, self.inner, self.reach))
            robust = torch.lerp(found.detach(), found, self.attack_weight) * robust
        return with_natural(batch, self.natural_weight, robust.mean())


@dataclass(frozen=True)
class STAPS(TAPS):
    """The same, but IBP begins with the small boxes of `SABR`, of `part` of the radius (Mao et al. 2023, STAPS). For l_inf."""

    part: float = 0.4
    attack: Ascent = field(default_factory=Ascent)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights("part", (self.part, self.part))
        check_kind("attack", self.attack, Ascent, "Ascent(steps=8)")

    def search(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        return attacked(batch, self.attack, 1.0, generator)

    def question(self, batch: Batch) -> Classification:
        return small_question(batch, self.part)


def inner_margins(question: Classification, layers: int, attack: Ascent, reach: float) -> Tensor:
    """The least margins that an attack through the last `layers` layers finds, (b, classes - 1).

    Values are those at the points that were found; gradients reach the last layers, and the box by `connected`.
    """
    problem, labels = question.problem, question.labels
    node = read_by_last(problem.model.graph, layers)
    box, rest = question.env[node.index], behind(problem.model, node)
    assert isinstance(box, Interval)
    others = one_hot(labels, problem.target.shape[0]).eq(0).nonzero()  # example and class
    owner, own = others[:, 0], labels[others[:, 0]]

    def margins(network: Model, point: Tensor) -> Tensor:
        logits = evaluate(network, point)
        return (logits.gather(1, own[:, None]) - logits.gather(1, others[:, 1:])).squeeze(1)

    wide, fixed = box.map(lambda end: end[owner]), rest.detached()
    region = problem.sets[node.index].take(owner) if node.source else Box(wide.lower.detach(), wide.upper.detach())
    found = attack.climbed(lambda point: -margins(fixed, point).sum(), region, region.box().center)
    return margins(rest, connected(found, wide, reach)).reshape(len(labels), -1)


def connected(points: Tensor, box: Interval, reach: float) -> Tensor:
    """The points themselves, with gradients that an end of the box has the share of that falls from 1 at it to 0 at `reach`.

    Distances are shares of the width (Mao et al. 2023, "gradient connector"). Where the box is a point both ends have half.
    """
    low, high = box.lower.detach(), box.upper.detach()
    room = reach * (high - low)
    apart = room > 0
    span = torch.where(apart, room, 1.0)

    def share(distance: Tensor) -> Tensor:
        return torch.where(apart, (1 - distance / span).clamp(0, 1), 0.5)

    return points + share(points - low) * (box.lower - low) + share(high - points) * (box.upper - high)


def read_by_last(graph: Graph, layers: int) -> Node:
    """What the first of the last so many convolutions and linear layers reads; SpecError if there are fewer."""
    varying = fed_by_inputs(graph)
    reads = [node.args[0] for node in graph if node.op in ("conv", "linear") and node.args[0] in varying]
    if layers > len(reads):
        raise SpecError(f"the attack shall go through {layers} layers, and the network has {len(reads)}; ask for fewer.")
    return graph[reads[-layers]]


def behind(model: Model, node: Node) -> Model:
    """The network behind a node; SpecError if a path leads around it."""
    rest = model if node.source else model.after(node.name)
    if len(rest.graph.inputs) != 1:
        raise SpecError(f"the network cannot be divided at {node.describe()}, since a path leads around it; let the attack go "
                        "through more layers, or fewer.")
    return rest
