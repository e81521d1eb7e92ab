"""How a network is trained: everything that the result depends on beside network, data, method and radius."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from boundlab.attack.pgd import PGD
from boundlab.bounds.methods import IBP
from boundlab.bounds.problem import Method
from boundlab.data.examples import Examples
from boundlab.errors import SpecError
from boundlab.train.augmentation import Augmentation
from boundlab.train.averaging import Averaging
from boundlab.train.checks import check_count, check_decay, check_kind, check_memory
from boundlab.train.history import Epoch
from boundlab.train.processes import Processes
from boundlab.train.regularisers import Regulariser
from boundlab.train.schedule import Ramp, Rate


class Optimiser(Protocol):
    """A rule that moves parameters, as a value."""

    def over(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The rule at work on parameters, at a rate that is set before each step."""
        ...


@dataclass(frozen=True)
class Adam(Optimiser):
    """Adam (Kingma and Ba 2015), with `decay` of weights as a term of the gradient."""

    betas: tuple[float, float] = (0.9, 0.999)
    decay: float = 0.0

    def __post_init__(self) -> None:
        check_decay(self.decay)
        for beta in self.betas:
            check_memory(beta)

    def over(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, betas=self.betas, weight_decay=self.decay)


@dataclass(frozen=True)
class SGD(Optimiser):
    """Gradient descent with momentum, and `decay` of weights."""

    momentum: float = 0.9
    decay: float = 0.0

    def __post_init__(self) -> None:
        check_decay(self.decay)
        check_memory(self.momentum)

    def over(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1.0, momentum=self.momentum, weight_decay=self.decay)


class Statistics(enum.Enum):
    """By which mean and variance batch norms normalise in training; the running ones are what a finished network has."""

    CLEAN = "those of the batch at its clean inputs, which move the running ones"
    POPULATION = "those of the clean batch; after each epoch the running ones are measured again, on all training examples"
    FROZEN = "the running ones, which stay as they are"


@dataclass(frozen=True)
class HeldOut:
    """Validation on a share of the training examples that is not trained on."""

    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise SpecError(f"the share of validation examples is at least 0 and below 1, got {self.share}.")


@dataclass(frozen=True)
class OnTestSet:
    """Validation on the test set, as published results have it: what is then chosen by it has seen the test set."""

    examples: Examples


@dataclass(frozen=True)
class Validation:
    """What is measured after every so many epochs: clean accuracy, under attack, and proven by `bound`, at the full eps.

    With `best` the result has the weights of the epoch with the largest proven accuracy, of those after the ramp of eps; else
    those of the last epoch.
    """

    source: HeldOut | OnTestSet = field(default_factory=HeldOut)
    every: int = 1
    bound: Method = field(default_factory=IBP)
    attack: PGD = field(default_factory=lambda: PGD(steps=10, restarts=1, targets=0))
    best: bool = False

    def __post_init__(self) -> None:
        check_count("every", self.every)


@dataclass(frozen=True)
class Keep:
    """Where a run is kept: `folder` gets checkpoint.safetensors after every so many epochs, and history.csv.

    With `resume` a run goes on from the checkpoint that it finds there, if it finds one; without, a folder that has one is
    refused. `about` is what else the weights depend on, such as how they were drawn: another text is another run.
    """

    folder: Path
    every: int = 1
    resume: bool = False
    about: str = ""

    def __post_init__(self) -> None:
        check_count("every", self.every)


@dataclass(frozen=True)
class TrainingPlan:
    """How long, how fast, and along which schedules; times are in epochs.

    `ramp` is the share of eps. Gradients are cut to the norm `gradient_norm`. `micro` examples are bounded at a time: memory
    falls, and the step stays that of the whole batch. `clip` are the numbers that inputs stay between. With `averaging` the
    result has a mean of weights; `processes` share the work. Equal plans and `seed` give equal runs on a CPU. `tell` hears of
    every epoch. SpecError for what cannot be.
    """

    epochs: int = 20
    batch: int = 128
    rate: Rate = field(default_factory=Rate)
    ramp: Ramp = field(default_factory=Ramp)
    optimiser: Optimiser = field(default_factory=Adam)
    regularisers: tuple[Regulariser, ...] = ()
    gradient_norm: float | None = None
    statistics: Statistics = Statistics.CLEAN
    augmentation: Augmentation | None = None
    clip: tuple[float, float] | None = None
    micro: int | None = None
    seed: int = 0
    validation: Validation | None = field(default_factory=Validation)
    averaging: Averaging | None = None
    keep: Keep | None = field(default=None, repr=False, compare=False)
    processes: Processes = field(default=Processes(), repr=False, compare=False)
    tell: Callable[[Epoch], None] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        counts = {"epochs": self.epochs, "batch": self.batch, "micro": 1 if self.micro is None else self.micro}
        for name, count in counts.items():
            check_count(name, count)
        if self.averaging is not None:
            check_kind("averaging", self.averaging, Averaging, "Averaging(start=15)")
        check_kind("processes", self.processes, Processes, "Processes.running()")
        if self.gradient_norm is not None and not self.gradient_norm > 0:
            raise SpecError(f"gradient_norm must be positive, got {self.gradient_norm}; None cuts no gradient.")
        if self.averaging is not None and self.averaging.start >= self.epochs:
            raise SpecError(f"weights are averaged from epoch {self.averaging.start:g} on, after the last of {self.epochs}.")
        if self.ramp.end > self.epochs:
            raise SpecError(f"the ramp of eps ends at epoch {self.ramp.end:g}, after the last of {self.epochs}, so the network "
                            "would never be trained at the full eps; train longer, or end the ramp sooner.")
