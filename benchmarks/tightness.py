"""How tight and how dear: the mean margin that each method proves, against the CPU seconds that it takes.

Three small networks for scikit-learn's digits, trained here, so that nothing else is needed: a perceptron and a convolutional
network of the zoo trained as usual, and the same convolutional one trained with bounds. All methods take turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

import boundlab as bl
from benchmarks import ours
from boundlab import zoo
from boundlab.cli.answer import Table
from boundlab.train.sources import digits, permuted

CLASSES, PIXELS, SEED = 10, (0.0, 1.0), 0
METHODS: Mapping[str, bl.Method] = {
    **ours.METHODS, "FROWN": bl.Optimised(inner=True), "Dual": bl.Dual(), "LP-LAST": bl.LP(inner=False), "LP-ALL": bl.LP()}
"""Those that are measured beside a peer, and the dearer ones."""


@dataclass(frozen=True)
class Setting:
    """A network for digits: what it is called, how it is built and trained, and the radius of the l_inf balls."""

    name: str
    convolutional: bool
    method: bl.TrainingMethod
    eps: float

    def build(self) -> nn.Module:
        """The network with new weights."""
        torch.manual_seed(SEED)
        if self.convolutional:
            return zoo.build("cnn-small-mnist", (1, 8, 8))
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, CLASSES))


SETTINGS = (Setting("perceptron 64-50-50-10, trained as usual", False, bl.Natural(), 0.08),
            Setting("CNN-small, trained as usual", True, bl.Natural(), 0.06),
            Setting("CNN-small, trained with CROWN-IBP", True, bl.CrownIBP(crown_weight=(1.0, 0.0)), 0.1))


@dataclass(frozen=True)
class Extent:
    """How long networks are trained, of how many images margins are bounded, and how often all methods take their turn."""

    epochs: int = 30
    images: int = 10
    turns: int = 3
    patience: float = 0.3


@dataclass(frozen=True)
class Question:
    """Margins of a network on balls around images that it labels rightly."""

    model: bl.Model
    ball: bl.LpBall
    spec: bl.Specification

    @property
    def images(self) -> int:
        """How many."""
        return len(self.ball.center)


@dataclass(frozen=True)
class Point:
    """A method on a network: the mean margin that it proves, the share of images proven, median CPU seconds an image."""

    network: str
    eps: float
    method: str
    margin: float
    proven: float
    seconds: float


def question(setting: Setting, extent: Extent) -> Question:
    """The network, trained, and the first images that it labels rightly and has not seen."""
    data = permuted(digits(), SEED)
    plan = bl.TrainingPlan(extent.epochs, 64, bl.Rate(5e-3, (0.85 * extent.epochs,), 0.2),
                           bl.Ramp(1, min(0.7 * extent.epochs + 1, extent.epochs)), clip=PIXELS, seed=SEED, validation=None)
    model = bl.fit(setting.build(), data.take(range(1400)), setting.method, eps=setting.eps, plan=plan).model
    rest = data.take(range(1400, len(data)))
    assert rest.labels is not None
    right = (bl.evaluate(model, rest.x).argmax(1) == rest.labels).nonzero()[:extent.images, 0]
    spec = bl.margins(rest.labels[right], CLASSES)
    return Question(model, bl.LpBall(rest.x[right], setting.eps, clip=PIXELS), spec)


def lower_bounds(asked: Question, method: bl.Method) -> torch.Tensor:
    """Lower bounds (b, s) of the margins."""
    return bl.bound(asked.model, asked.ball, method=method, spec=asked.spec).lower


def turn(asked: Question, method: bl.Method, patience: float) -> float:
    """CPU seconds of a call: the mean of as many as `patience` seconds allow, at least one."""
    started, calls = time.process_time(), 0
    while not calls or time.process_time() - started < patience:
        lower_bounds(asked, method)
        calls += 1
    return (time.process_time() - started) / calls


def attacked(asked: Question) -> float:
    """The mean of the smallest values that an attack finds for each margin: no method can prove more."""
    rows, found = asked.spec.rows, []
    generator = torch.Generator().manual_seed(SEED)
    for place in range(rows.shape[1]):
        row = bl.at_least(rows[:, place:place + 1])
        found.append(bl.attack(asked.model, asked.ball, row, bl.PGD(steps=40, restarts=4), generator).margins)
    return torch.cat(found, 1).mean().item()


def measure(setting: Setting, extent: Extent, methods: Mapping[str, bl.Method] = METHODS) -> tuple[list[Point], float]:
    """All methods on one network, taking turns after a first call that does not count; and what an attack reaches."""
    asked = question(setting, extent)
    bounds = {name: lower_bounds(asked, method) for name, method in methods.items()}
    spent: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(extent.turns):
        for name, method in methods.items():
            spent[name].append(turn(asked, method, extent.patience))
    points = [Point(setting.name, setting.eps, name, lower.mean().item(), (lower > 0).all(1).float().mean().item(),
                    statistics.median(spent[name]) / asked.images) for name, lower in bounds.items()]
    return points, attacked(asked)


def measure_networks(settings: Sequence[Setting], extent: Extent) -> Iterator[dict[str, Any]]:
    """One entry a network, as JSON holds it."""
    for setting in settings:
        points, reached = measure(setting, extent)
        yield {"network": setting.name, "eps": setting.eps, "images": extent.images, "attacked": reached,
               "points": [asdict(point) for point in points]}


def tightness_table(entries: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each network and method; an attack's margin bounds them all."""
    columns = ("network", "eps", "method", "mean margin, proven", "images proven", "CPU s an image")
    rows = []
    for entry in entries:
        rows += [(entry["network"], f"{entry['eps']:g}", point["method"], f"{point['margin']:.3f}", f"{point['proven']:.0%}",
                  f"{point['seconds']:.2g}") for point in entry["points"]]
        rows.append((entry["network"], f"{entry['eps']:g}", "an attack finds", f"{entry['attacked']:.3f}", "", ""))
    return Table(columns, rows, "Margins proven, and time", frozenset(columns[3:]))
