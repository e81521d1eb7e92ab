"""python -m benchmarks.classes: what a training step costs with few and with many classes."""

from __future__ import annotations

import datetime
import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

import boundlab as bl
from benchmarks import machine, memory
from benchmarks.cases import NATURAL
from benchmarks.ours import STEPS, Trained, step_of
from boundlab.cli.answer import Table

Key = tuple[int, str]
"""A number of classes, and a step."""
FEW, MANY = 10, 200
EPS = 1 / 2550
"""A radius as at the beginning of training: a large one saturates the loss of an untrained network."""
Batch = Annotated[int, typer.Option(help="Examples in a batch.")]
Width = Annotated[int, typer.Option(help="Channels of the first layer.")]
Rounds = Annotated[int, typer.Option(help="Measured steps of each kind; all take turns.")]


def network(width: int, classes: int) -> nn.Module:
    """Five 3x3 convolutions with batch norm on 32 x 32 images, the third of stride 2, and a hidden layer of 512."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = [3, width, width, 2 * width, 2 * width, 2 * width]
    for place, (before, after) in enumerate(itertools.pairwise(channels)):
        layers += [nn.Conv2d(before, after, 3, 2 if place == 2 else 1, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * width, 512), nn.ReLU(), nn.Linear(512, classes))


def steps_of(classes: int, batch: int, width: int) -> dict[Key, Callable[[], Tensor]]:
    """A training step of every kind that is bearable with so many classes."""
    module = network(width, classes)
    x, labels = torch.rand(batch, 3, 32, 32), torch.arange(batch) % classes
    module(torch.rand(batch, 3, 32, 32))
    trained = Trained(module, bl.capture(module.eval(), x), x, labels, bl.LpBall(x, EPS))
    return {(classes, name): step_of(trained, loss) for name, loss in STEPS.items() if classes == FEW or "a row" not in name}


def main(batch: Batch = 64, width: Width = 32, rounds: Rounds = 5) -> None:
    """Time (CPU seconds, medians) and peak memory of training steps, with 10 and with 200 classes; the first does not count."""
    torch.set_num_threads(1)
    steps = {**steps_of(FEW, batch, width), **steps_of(MANY, batch, width)}
    most: dict[Key, int] = {}
    for key, step in steps.items():
        before = memory.start("cpu")
        step()
        most[key] = memory.most_since("cpu", before)
    taken: dict[Key, list[float]] = {key: [] for key in steps}
    for _ in range(rounds):
        for key, step in steps.items():
            begun = time.process_time()
            step()
            taken[key].append(time.process_time() - begun)
    typer.echo(table({key: statistics.median(values) for key, values in taken.items()}, most).plain())
    typer.echo(f"{datetime.date.today()}, commit {machine.commit()}: {machine.processor()}, 1 thread, "
               f"torch {torch.__version__}, batch {batch}, {rounds} rounds.")


def table(seconds: Mapping[Key, float], most: Mapping[Key, int]) -> Table:
    """Both numbers of classes side by side."""
    def side(classes: int, name: str) -> list[str]:
        key = classes, name
        if key not in seconds:
            return ["-"] * 3
        return [f"{seconds[key]:.3f}", f"{seconds[key] / seconds[classes, NATURAL]:.2f}", f"{most[key] / 2**20:.0f}"]

    columns = tuple(f"{unit}, {classes} classes" for classes in (FEW, MANY) for unit in ("s", "x natural", "MB"))
    rows = [[name, *side(FEW, name), *side(MANY, name)] for name in STEPS]
    return Table(("step", *columns), rows, "Training steps and classes", frozenset(columns))


if __name__ == "__main__":
    typer.run(main)
