"""The training loop: any loss, a schedule, one learning-rate drop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Pace:
    """How long and how fast: the learning rate falls to a fifth after `drop` of the run, batches follow `seed`."""

    epochs: int
    batch: int
    rate: float
    drop: float = 0.85
    seed: int = 0


def fit(module: nn.Module, loss: Loss, x: Tensor, labels: Tensor, pace: Pace) -> list[float]:
    """Train a module in place with Adam; `loss(x, labels, progress)` sees batches and how far the run is, 0 to 1.

    The result is the mean loss of each epoch. Batches come from a generator of their own, so equal seeds give equal runs.
    """
    optimizer = torch.optim.Adam(module.parameters(), lr=pace.rate)
    generator = torch.Generator().manual_seed(pace.seed)
    losses = []
    for epoch in range(pace.epochs):
        if epoch >= pace.drop * pace.epochs:
            optimizer.param_groups[0]["lr"] = pace.rate / 5
        parts = torch.randperm(len(x), generator=generator).split(pace.batch)
        total = 0.0
        for place, part in enumerate(parts):
            optimizer.zero_grad()
            value = loss(x[part], labels[part], (epoch + place / len(parts)) / pace.epochs)
            value.backward()
            optimizer.step()
            total += float(value.detach()) * len(part)
        losses.append(total / len(x))
    return losses
