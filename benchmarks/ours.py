"""boundlab's side: the methods and training steps by name. A new one is one entry here (and one in peer.py, if it has it)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import boundlab as bl
from benchmarks.cases import NATURAL, Job
from boundlab.train.losses import crown_ibp_loss, fused_crown_ibp_loss, ibp_loss, natural_loss
from boundlab.train.statistics import CenterStatistics, clean_pass

Robust = Callable[[bl.Model, bl.PerturbationSet, Tensor, bl.Method], Tensor]
OPTIMISED = bl.Optimised()
METHODS: Mapping[str, bl.Method] = {
    "IBP": bl.IBP(),
    "CROWN-IBP": bl.CROWN(intermediate=bl.IBP()),
    "CROWN": bl.CROWN(),
    "Optimised": OPTIMISED,
    "Forward": bl.Forward(),
    "Forward+Backward": bl.CROWN(intermediate=bl.Forward()),
}
RATE = 1e-5
"""Learning rate of the measured steps: small, so that the first and the last step meet the same network."""


@dataclass(frozen=True)
class Trained:
    """What a training step works on: a module and its model with live parameters, inputs, labels and the set around them."""

    module: nn.Module
    model: bl.Model
    x: Tensor
    labels: Tensor
    ball: bl.PerturbationSet

    def natural(self) -> Tensor:
        """The natural loss of the module itself, in training mode."""
        self.module.train()
        loss = natural_loss(self.module, self.x, self.labels)
        self.module.eval()
        return loss

    def alone(self, loss: Robust) -> Tensor:
        """A robust loss alone, with the statistics of interval centers: no clean pass."""
        return loss(self.model, self.ball, self.labels, CenterStatistics())

    def beside_clean(self, loss: Robust) -> Tensor:
        """The natural loss of a clean pass in training mode, and a robust loss with the statistics of that pass."""
        clean = clean_pass(self.model, self.x)
        return cross_entropy(clean.output, self.labels) + loss(clean.model, self.ball, self.labels, bl.IBP())


def a_row_a_class(model: bl.Model, ball: bl.PerturbationSet, labels: Tensor, intermediate: bl.Method) -> Tensor:
    """The loss with margins from CROWN-IBP, a row for each other class."""
    return crown_ibp_loss(model, ball, labels, 1.0, intermediate)


def fused(model: bl.Model, ball: bl.PerturbationSet, labels: Tensor, intermediate: bl.Method) -> Tensor:
    """The loss with a single row, whatever the number of classes."""
    return fused_crown_ibp_loss(model, ball, labels, 1.0, intermediate)


STEPS: Mapping[str, Callable[[Trained], Tensor]] = {
    NATURAL: Trained.natural,
    "IBP": lambda trained: trained.alone(ibp_loss),
    "IBP, clean pass": lambda trained: trained.beside_clean(ibp_loss),
    "CROWN-IBP, a row a class": lambda trained: trained.alone(a_row_a_class),
    "CROWN-IBP, a row a class, clean pass": lambda trained: trained.beside_clean(a_row_a_class),
    "CROWN-IBP, fused": lambda trained: trained.alone(fused),
    "CROWN-IBP, fused, clean pass": lambda trained: trained.beside_clean(fused),
}


def prepare(job: Job) -> Callable[[], Tensor]:
    """The call that is measured; capture is done before it."""
    loaded = job.network.load()
    module, x = loaded.module.to(job.device), loaded.x[:job.batch].to(job.device)
    labels, rows = loaded.labels[:job.batch].to(job.device), loaded.rows[:job.batch].to(job.device)
    model = bl.capture(module, loaded.x[:2].to(job.device))
    if job.training:
        return step_of(Trained(module, model, x, labels, bl.LpBall(x, loaded.eps)), STEPS[job.work])
    model, method = model.detached(), METHODS[job.work]

    def bounds() -> Tensor:
        with torch.no_grad():
            return bl.bound(model, bl.LpBall(x, loaded.eps), method=method, spec=bl.at_least(rows)).lower

    return bounds


def step_of(trained: Trained, loss: Callable[[Trained], Tensor]) -> Callable[[], Tensor]:
    """One optimiser step on a loss; its result is the loss."""
    optimizer = torch.optim.Adam(trained.module.parameters(), lr=RATE)

    def step() -> Tensor:
        optimizer.zero_grad()
        value = loss(trained)
        value.backward()
        optimizer.step()
        return value.detach()

    return step
