"""The demonstration: one small network on real handwritten digits, trained twice, attacked and certified.

The digits are the 8 x 8 ones that scikit-learn ships (1797 images; Alpaydin and Kaynak 1998, UCI), scaled to [0, 1].
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from boundlab.attack.pgd import PGD
from boundlab.bounds.methods import CROWN, IBP
from boundlab.bounds.problem import Method, Rigour
from boundlab.data.examples import Examples
from boundlab.graph import Model
from boundlab.train.batch import Threat
from boundlab.train.fit import fit
from boundlab.train.measure import Measured, measure
from boundlab.train.methods import CrownIBP, Natural, TrainingMethod
from boundlab.train.plan import TrainingPlan
from boundlab.train.schedule import Ramp, Rate, Smooth
from boundlab.train.sources import digits, permuted

METHODS: Mapping[str, Method] = {"IBP": IBP(), "CROWN-IBP": CROWN(intermediate=IBP()), "CROWN": CROWN()}
ORDINARY, CERTIFIED = "ordinary", "certified"
CLASSES = 10
PIXELS = (0.0, 1.0)
"""Every pixel stays between these two."""


@dataclass(frozen=True)
class Settings:
    """Everything that the demonstration's numbers depend on; chosen on the validation images."""

    seed: int = 0
    train_eps: float = 0.1
    grid: tuple[float, ...] = (0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15)
    ordinary_epochs: int = 30
    certified_epochs: int = 50
    batch: int = 128
    rate: float = 4e-3
    attack_steps: int = 20
    attack_restarts: int = 2
    attack_targets: int = 2

    def plan(self, epochs: int) -> TrainingPlan:
        """How a network is trained for so many epochs: eps grows along one smooth ramp, and the rate falls once."""
        rate, ramp = Rate(self.rate, (0.85 * epochs,), 0.2), Ramp(0.05 * epochs, 0.7 * epochs, Smooth())
        return TrainingPlan(epochs, self.batch, rate, ramp, clip=PIXELS, seed=self.seed, validation=None)


@dataclass(frozen=True)
class Point:
    """Accuracies of one network at one radius: on clean images, under attack, and certified by each method."""

    network: str
    eps: float
    clean: float
    attacked: float
    certified: Mapping[str, float]


@dataclass(frozen=True)
class Study:
    """The finished demonstration; `models` are the trained networks by name, which a record leaves out."""

    settings: Settings
    points: tuple[Point, ...]
    validation: Mapping[str, Mapping[str, float]]
    seconds: Mapping[str, float]
    environment: Mapping[str, str]
    sizes: Mapping[str, int]
    rigour: str
    models: Mapping[str, Model] = field(default_factory=dict, repr=False)

    def record(self) -> dict[str, Any]:
        """The study as JSON holds it."""
        return {name: value for name, value in asdict(replace(self, models={})).items() if name != "models"}


def load_splits(seed: int) -> dict[str, Examples]:
    """Training (60 %), validation and test images (20 % each), by a permutation that `seed` fixes."""
    whole = permuted(digits(), seed)
    ends = [0, round(0.6 * len(whole)), round(0.8 * len(whole)), len(whole)]
    names = ("train", "validation", "test")
    return {name: whole.take(range(start, end)) for name, start, end in zip(names, ends, ends[1:], strict=False)}


def build_network(seed: int) -> nn.Module:
    """A convolution to 32 channels of 4 x 4 and a hidden layer of 100; the same initial weights for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 32, 4, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
                             nn.Linear(512, 100), nn.ReLU(), nn.Linear(100, CLASSES))


def measured(model: Model, split: Examples, eps: float, settings: Settings) -> Measured:
    """Which images are labelled correctly, under attack too, and proven by which method."""
    search = PGD(settings.attack_steps, settings.attack_restarts, targets=settings.attack_targets)
    return measure(model, split, Threat(eps, clip=PIXELS), METHODS, search, settings.seed)


def point(name: str, found: Measured, eps: float) -> Point:
    """One network's accuracies at one radius."""
    return Point(name, eps, found.clean, found.attacked, found.verified)


def trained(splits: Mapping[str, Examples], settings: Settings, tell: Callable[[str], None]
            ) -> Iterator[tuple[str, Model, float]]:
    """Both networks, from the same initial weights, with the seconds that their training took."""
    plans: tuple[tuple[str, str, TrainingMethod, int], ...] = (
        (ORDINARY, "ordinarily", Natural(), settings.ordinary_epochs),
        (CERTIFIED, "with the CROWN-IBP loss", CrownIBP(), settings.certified_epochs))
    for name, way, method, epochs in plans:
        tell(f"training the network {way}, {epochs} epochs")
        network, started = build_network(settings.seed), time.perf_counter()
        found = fit(network, splits["train"], method, eps=settings.train_eps, plan=settings.plan(epochs))
        yield name, found.model, time.perf_counter() - started


def run_study(settings: Settings, tell: Callable[[str], None]) -> Study:
    """Train, attack and certify; `tell` hears what is being done."""
    splits, points = load_splits(settings.seed), []
    validation: dict[str, Mapping[str, float]] = {}
    seconds: dict[str, float] = {}
    models: dict[str, Model] = {}
    for name, model, spent in trained(splits, settings, tell):
        models[name], seconds[f"training, {name}"] = model, spent
        known = measured(model, splits["validation"], settings.train_eps, settings)
        validation[name] = {"clean": known.clean,
                            f"certified by CROWN-IBP at {settings.train_eps:g}": known.verified["CROWN-IBP"]}
        started = time.perf_counter()
        for eps in settings.grid:
            tell(f"attacking and certifying the {name} network at eps {eps:g}")
            points.append(point(name, measured(model, splits["test"], eps, settings), eps))
        seconds[f"attacks and bounds, {name}"] = time.perf_counter() - started
    return Study(settings, tuple(points), validation, seconds, surroundings(),
                 {name: len(split) for name, split in splits.items()}, Rigour.FLOAT.name.lower(), models)


def surroundings() -> dict[str, str]:
    """Versions and machine, for the record."""
    packages = ("boundlab", "torch", "numpy", "scikit-learn", "matplotlib")
    found = {name: version(name) for name in packages}
    return found | {"python": platform.python_version(), "machine": platform.machine(), "threads": str(torch.get_num_threads())}
