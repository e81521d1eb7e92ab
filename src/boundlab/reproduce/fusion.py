"""Table 3 of Xu et al. 2020 (auto_LiRPA) run again: time and memory of a training step, with and without loss fusion."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from boundlab import zoo
from boundlab.data.examples import Examples
from boundlab.reproduce.memory import most_since, start
from boundlab.reproduce.published_training import LIRPA_3, Cost
from boundlab.train.batch import Batch, Threat
from boundlab.train.fit import captured
from boundlab.train.methods import CrownIBP, Natural, RobustIBP, TrainingMethod
from boundlab.train.plan import TrainingPlan
from boundlab.train.step import objective, with_statistics_of

METHODS: Mapping[str, TrainingMethod] = {
    "natural": Natural(), "IBP": RobustIBP(), "with fusion": CrownIBP(fused=True), "without": CrownIBP()}
THREAT = Threat(8 / 255, clip=(0.0, 1.0))
SHORT = ("cnn7-bn-cifar", "densenet-cifar", "wideresnet-cifar", "resnext-cifar")
"""What runs by default, in minutes of one core: the networks for CIFAR-10."""
ROUNDS = 3


@dataclass(frozen=True)
class StepRow:
    """One network: seconds of a step and bytes beyond what was held before, by method; None where memory did not suffice."""

    network: str
    batch: int
    seconds: Mapping[str, float | None]
    memory: Mapping[str, int | None]
    published: Cost | None


def step_rows(networks: tuple[str, ...], batch: int, device: torch.device, tell: Callable[[str], None]) -> list[StepRow]:
    """Each network's row, on random images."""
    rows = []
    for network in networks:
        rows.append(step_row(network, batch, ROUNDS, device))
        tell(f"{network}: seconds of a step {({name: value and round(value, 3) for name, value in rows[-1].seconds.items()})}")
    return rows


def step_row(network: str, batch: int, rounds: int, device: torch.device) -> StepRow:
    """Methods take turns at one step each; kept is the best time, and the most memory.

    Seconds are the processor's on a CPU, and those of the wall clock on a GPU. The step is one in the middle of the ramp, where
    the bounds of CROWN-IBP and of IBP are mixed.
    """
    record, generator = zoo.record(network), torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = zoo.build(network).to(device)
    x = torch.rand(batch, *record.shape, generator=generator)
    labels = torch.randint(record.classes, (batch,), generator=generator)
    model = captured(module, Examples(x, labels), THREAT)
    batch_of = partial(Batch, model, x.to(device), labels.to(device), THREAT, 0.5)
    seconds: dict[str, float | None] = {}
    memory: dict[str, int | None] = {}
    for name in [name for _ in range(rounds) for name in METHODS]:
        took = one_step(batch_of(), METHODS[name], device) if name not in seconds or seconds[name] is not None else None
        seconds[name] = None if took is None else min(took[0], seconds.get(name) or took[0])
        memory[name] = None if took is None else max(took[1], memory.get(name) or 0)
    return StepRow(network, batch, seconds, memory, LIRPA_3.get(network))


def one_step(batch: Batch, method: TrainingMethod, device: torch.device) -> tuple[float, int] | None:
    """Seconds and bytes of a loss and its gradient; None if memory does not suffice."""
    plan = TrainingPlan()
    for parameter in batch.model.params.values():
        parameter.grad = None
    before, began = start(str(device)), now(device)
    try:
        objective(with_statistics_of(batch, plan.statistics), method, plan, torch.Generator()).backward()
    except torch.OutOfMemoryError:
        return None
    return now(device) - began, most_since(str(device), before)


def now(device: torch.device) -> float:
    """The clock that a step is timed by, with all work on the device done."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()
