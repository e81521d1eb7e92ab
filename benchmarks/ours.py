"""boundlab's side: the methods and training steps by name. A new one is one entry here (and one in peer.py, if it has it)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import boundlab as bl
from benchmarks.cases import NATURAL, Job
from boundlab.train.losses import crown_ibp_loss, ibp_loss, natural_loss

METHODS: Mapping[str, bl.Method] = {
    "IBP": bl.IBP(),
    "CROWN-IBP": bl.CROWN(intermediate=bl.IBP()),
    "CROWN": bl.CROWN(),
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

    def clean(self) -> Tensor:
        """The natural loss in training mode, which also moves the batch statistics that the bounds use."""
        self.module.train()
        loss = natural_loss(self.module, self.x, self.labels)
        self.module.eval()
        return loss

    def ibp(self) -> Tensor:
        """The loss with margins from intervals."""
        return ibp_loss(self.model, self.ball, self.labels)

    def crown_ibp(self) -> Tensor:
        """The loss with margins from CROWN-IBP, a row for each other class."""
        return crown_ibp_loss(self.model, self.ball, self.labels, crown_weight=1.0)


STEPS: Mapping[str, Callable[[Trained], Tensor]] = {
    NATURAL: Trained.clean,
    "IBP": Trained.ibp,
    "IBP, clean pass": lambda trained: trained.clean() + trained.ibp(),
    "CROWN-IBP, a row a class": Trained.crown_ibp,
    "CROWN-IBP, a row a class, clean pass": lambda trained: trained.clean() + trained.crown_ibp(),
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
