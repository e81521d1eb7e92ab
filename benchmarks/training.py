"""Seconds an epoch of each training method: `python -m benchmarks.training`, on random images of MNIST's size.

Methods take turns at one step each, so that what else the machine does falls on all alike. Printed are processor seconds of the
best round, times the steps of an epoch of 60,000 images in batches of 256; in brackets, how many times the natural loss's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

import torch

import boundlab as bl
from boundlab import zoo
from boundlab.table import aligned
from boundlab.train.step import objective, with_statistics_of

NETWORKS = ("crown-ibp-a-mnist", "crown-ibp-b-mnist")
EXAMPLES, BATCH, ROUNDS = 60_000, 256, 6
THREAT = bl.Threat(0.1, clip=(0.0, 1.0))
METHODS: Mapping[str, bl.TrainingMethod] = {
    "natural": bl.Natural(),
    "PGD, 8 steps": bl.Adversarial(),
    "IBP": bl.RobustIBP(),
    "IBP and natural": bl.RobustIBP((0.5, 0.5)),
    "CROWN-IBP": bl.CrownIBP((1.0, 1.0)),
    "CROWN-IBP, fused": bl.CrownIBP((1.0, 1.0), fused=True),
    "SABR, 1 step": bl.SABR(attack=bl.Ascent(1, 10.0)),
    "MTL-IBP, 1 step": bl.MTLIBP(attack=bl.Ascent(1, 10.0)),
}


def step(model: bl.Model, batch: tuple[torch.Tensor, torch.Tensor], method: bl.TrainingMethod,
         optimiser: torch.optim.Optimizer) -> float:
    """Processor seconds of one step."""
    started = time.process_time()
    plan = bl.TrainingPlan()
    optimiser.zero_grad()
    asked = with_statistics_of(bl.Batch(model, *batch, THREAT, 0.5), plan.statistics)
    objective(asked, method, plan, torch.Generator().manual_seed(0)).backward()
    optimiser.step()
    return time.process_time() - started


def measured(network: str) -> dict[str, float]:
    """Seconds an epoch by method."""
    torch.manual_seed(0)
    module = zoo.build(network)
    batch = torch.rand(BATCH, *zoo.record(network).shape), torch.randint(10, (BATCH,))
    model = bl.capture(module.eval(), batch[0][:2])
    run = partial(step, model, batch, optimiser=torch.optim.Adam(module.parameters(), lr=1e-6))
    rounds = [{name: run(method) for name, method in METHODS.items()} for _ in range(ROUNDS)]
    return {name: min(one[name] for one in rounds) * EXAMPLES / BATCH for name in METHODS}


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    found = {network: measured(network) for network in NETWORKS}
    rows = [[name, *(f"{seconds[name]:.1f} ({seconds[name] / seconds['natural']:.1f})" for seconds in found.values())]
            for name in METHODS]
    print(aligned([["method", *NETWORKS], *rows], [False, *[True] * len(NETWORKS)]))


if __name__ == "__main__":
    main()
