"""What a network is worth on given examples: right, right under attack, and proven right, each example on its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from boundlab.attack.pgd import PGD, attack
from boundlab.bounds.methods import bound
from boundlab.bounds.problem import Method
from boundlab.data.examples import Examples, examples_in
from boundlab.errors import BoundError, ShapeError
from boundlab.evaluate import evaluate
from boundlab.graph import Model, check_model
from boundlab.spec import labelled_right, margins
from boundlab.train.batch import ThreatModel, placed

AT_ONCE = 500
"""Examples that are measured together."""


@dataclass(frozen=True)
class Measured:
    """For each example (n,) booleans: labelled correctly, not broken by the attack, and by method proven on its whole set.

    What is proven is also correct and unbroken: an example that an attack breaks counts as not proven, whatever a bound says.
    """

    correct: Tensor
    survived: Tensor
    proven: Mapping[str, Tensor]

    @property
    def clean(self) -> float:
        """The share of examples that are labelled correctly."""
        return share(self.correct)

    @property
    def attacked(self) -> float:
        """The share of examples that are labelled correctly, under attack too."""
        return share(self.survived)

    @property
    def by_any(self) -> float:
        """The share of examples that some method proves."""
        return share(torch.stack([torch.zeros_like(self.correct), *self.proven.values()]).any(0))

    @property
    def verified(self) -> Mapping[str, float]:
        """The share of examples that each method proves."""
        return {name: share(held) for name, held in self.proven.items()}


def share(held: Tensor) -> float:
    """The share of true entries."""
    return float(held.double().mean())


def measure(model: Model, examples: Examples, threat: ThreatModel, methods: Mapping[str, Method], search: PGD,
            seed: int = 0) -> Measured:
    """Clean, attacked and proven examples; NaN, ties and bounds that cannot be computed are not proven.

    An example with logits that are not numbers is not labelled correctly either. ShapeError, SpecError or DataError where
    network, examples and threat do not fit together.
    """
    check_examples(model, examples, threat)
    model, found = model.detached(), []
    inputs, classes = examples.labelled()[0], model.graph.output.shape[0]
    for x, labels in parts(placed(inputs, model), examples.labelled()[1].to(model.device), AT_ONCE):
        logits = evaluate(model, threat.inputs(model, x))
        correct = labelled_right(logits, labels)
        generator = torch.Generator().manual_seed(seed)
        broken = attack(model, threat.sets(model, x), margins(labels, classes, model.dtype), search, generator).violated
        survived = correct & ~broken
        found.append((correct, survived, *(proven(model, x, labels, threat, method) & survived for method in methods.values())))
    whole = [torch.cat(pieces).cpu() for pieces in zip(*found, strict=True)]
    return Measured(whole[0], whole[1], dict(zip(methods, whole[2:], strict=True)))


def check_examples(model: Model, examples: Examples, threat: ThreatModel) -> None:
    """Errors unless the network gives logits, and examples are what it and the threat take, with classes as labels."""
    check_model(model)
    examples_in(examples)
    shape = model.graph.output.shape
    if len(shape) != 1 or shape[0] < 2:
        raise ShapeError(f"labels need logits of shape (batch, classes), of 2 classes at least; the network gives (batch, "
                         f"{', '.join(map(str, shape))}).")
    threat.check(model, examples)
    examples.of_classes(shape[0])


def parts(x: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Both a few examples at a time."""
    yield from zip(x.split(size), labels.split(size), strict=True)


def proven(model: Model, x: Tensor, labels: Tensor, threat: ThreatModel, method: Method) -> Tensor:
    """Whether every margin is above 0 on the whole set, (b,); an example that cannot be bounded spoils no other."""
    spec = margins(labels, model.graph.output.shape[0], model.dtype)
    try:
        with torch.no_grad():
            return (bound(model, threat.sets(model, x), method=method, spec=spec).lower > 0).all(1)
    except BoundError:
        if len(x) == 1:
            return torch.zeros(1, dtype=torch.bool, device=x.device)
    halves = parts(x, labels, -(-len(x) // 2))
    return torch.cat([proven(model, half, some, threat, method) for half, some in halves])
