"""Means of the weights along the way of training: wider minima than where the last step ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from boundlab.errors import SpecError
from boundlab.train.checks import check_count, check_numbers

COUNT = "count"
"""The name, beside those of weights, of how many went into the mean."""


@dataclass(frozen=True)
class Averaging:
    """The mean of the weights after every so many steps, from the epoch `start` on (counted from 0): SWA.

    With `decay` it is an exponential one, in which the mean so far counts `decay` and new weights the rest: EMA. What is
    validated, kept and returned has the averaged weights once there are any, and the running statistics of its batch norms are
    measured anew in one pass; training itself goes on with its own. Izmailov et al. 2018 ("Averaging weights leads to wider
    optima"), Sec. 3; Polyak and Juditsky 1992. SpecError for values that make no mean.
    """

    start: float
    every: int = 1
    decay: float | None = None

    def __post_init__(self) -> None:
        check_count("every", self.every)
        check_numbers(start=self.start, decay=0.0 if self.decay is None else self.decay)
        if not self.start >= 0 or (self.decay is not None and not 0 <= self.decay < 1):
            raise SpecError("weights are averaged from an epoch of at least 0 on, with a decay of at least 0 and below 1 "
                            f"(None: the plain mean), got {self.start} and {self.decay}.")

    def due(self, time: float, step: int) -> bool:
        """Whether the weights after the step of this number count, which began at a time in epochs."""
        return time >= self.start and (step + 1) % self.every == 0


@dataclass(frozen=True)
class Average:
    """The mean so far, of the parameters by name, and how many weights went into it; both change in place."""

    weights: Mapping[str, Tensor]
    count: Tensor

    @staticmethod
    def of(module: nn.Module) -> Average:
        """A mean of nothing yet."""
        return Average({name: value.detach().clone() for name, value in module.named_parameters()},
                       torch.zeros((), dtype=torch.long))

    @property
    def begun(self) -> bool:
        """Whether there are any weights in it."""
        return int(self.count) > 0

    @torch.no_grad()
    def add(self, module: nn.Module, how: Averaging) -> None:
        """Take in the weights that the module has now."""
        self.count.add_(1)
        share = 1 / int(self.count) if how.decay is None or int(self.count) == 1 else 1 - how.decay
        for name, value in module.named_parameters():
            self.weights[name].lerp_(value, share)

    def tensors(self) -> dict[str, Tensor]:
        """Everything of it by name."""
        return {**self.weights, COUNT: self.count}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put everything back; KeyError if something is missing."""
        for name, value in self.tensors().items():
            value.copy_(tensors[name])


@contextmanager
def in_place(module: nn.Module, average: Average | None) -> Iterator[bool]:
    """The module with the averaged weights for a while, if there are any, which is what is given.

    The tensors stay the same, so that models of the module see it; buffers are put back, too.
    """
    if average is None or not average.begun:
        yield False
        return
    own = {name: value.detach().clone() for name, value in module.state_dict().items()}
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(average.weights[name])
    try:
        yield True
    finally:
        module.load_state_dict(own)
