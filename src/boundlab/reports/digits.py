"""The demonstration: one small network on real handwritten digits, trained twice, attacked and certified.

The digits are the 8 x 8 ones that scikit-learn ships (1797 images; Alpaydin and Kaynak 1998, UCI), scaled to [0, 1].
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from boundlab.attack.pgd import PGD, attack
from boundlab.bounds.methods import CROWN, IBP, bound
from boundlab.bounds.problem import Method, Rigour
from boundlab.capture.torch import capture
from boundlab.errors import MissingPackage
from boundlab.evaluate import evaluate
from boundlab.graph import Model
from boundlab.perturbations.ball import LpBall
from boundlab.spec import margins
from boundlab.train.fit import Pace, fit
from boundlab.train.losses import crown_ibp_loss, natural_loss
from boundlab.train.schedule import between, progress, smooth_ramp

METHODS: Mapping[str, Method] = {"IBP": IBP(), "CROWN-IBP": CROWN(intermediate=IBP()), "CROWN": CROWN()}
ORDINARY, CERTIFIED = "ordinary", "certified"
CLASSES = 10


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

    def pace(self, epochs: int) -> Pace:
        """The pace of a training run of so many epochs."""
        return Pace(epochs, self.batch, self.rate, seed=self.seed)


@dataclass(frozen=True)
class Split:
    """Images x (n, 1, 8, 8) in [0, 1] with labels (n,)."""

    x: Tensor
    labels: Tensor


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
    """The finished demonstration."""

    settings: Settings
    points: tuple[Point, ...]
    validation: Mapping[str, Mapping[str, float]]
    seconds: Mapping[str, float]
    environment: Mapping[str, str]
    sizes: Mapping[str, int]
    rigour: str

    def record(self) -> dict[str, Any]:
        """The study as JSON holds it."""
        return asdict(self)


def load_splits(seed: int) -> dict[str, Split]:
    """Training (60 %), validation and test images (20 % each), by a permutation that `seed` fixes."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as problem:
        raise MissingPackage("the demonstration needs scikit-learn and matplotlib: pip install 'boundlab[demo]'.") from problem
    digits = load_digits()
    x = torch.from_numpy(digits.images.astype(np.float32)).unsqueeze(1) / 16
    labels = torch.from_numpy(digits.target.astype(np.int64))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    ends = [0, round(0.6 * len(x)), round(0.8 * len(x)), len(x)]
    names = ("train", "validation", "test")
    parts = {name: order[start:end] for name, start, end in zip(names, ends, ends[1:], strict=False)}
    return {name: Split(x[part], labels[part]) for name, part in parts.items()}


def build_network(seed: int) -> nn.Module:
    """A convolution to 32 channels of 4 x 4 and a hidden layer of 100; the same initial weights for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 32, 4, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
                             nn.Linear(512, 100), nn.ReLU(), nn.Linear(100, CLASSES))


def pixels_within(x: Tensor, eps: float) -> LpBall:
    """Every pixel may move by eps but stays in [0, 1]."""
    return LpBall(x, eps, clip=(0.0, 1.0))


def train_ordinary(network: nn.Module, split: Split, settings: Settings) -> list[float]:
    """Cross-entropy on clean images."""
    def loss(x: Tensor, labels: Tensor, done: float) -> Tensor:
        return natural_loss(network, x, labels)

    return fit(network, loss, split.x, split.labels, settings.pace(settings.ordinary_epochs))


def train_certified(network: nn.Module, split: Split, settings: Settings) -> list[float]:
    """CROWN-IBP (Zhang et al. 2020): eps grows and the weight of CROWN-IBP margins falls along one smooth ramp."""
    model = capture(network, split.x[:2])

    def loss(x: Tensor, labels: Tensor, done: float) -> Tensor:
        ramp = smooth_ramp(progress(round(1000 * done), 50, 700))
        return crown_ibp_loss(model, pixels_within(x, settings.train_eps * ramp), labels, between(1.0, 0.0, ramp))

    return fit(network, loss, split.x, split.labels, settings.pace(settings.certified_epochs))


def certified_accuracy(model: Model, split: Split, eps: float, method: Method) -> float:
    """The share of images whose every margin is proven positive on the whole ball (the image itself included)."""
    lower = bound(model, pixels_within(split.x, eps), method=method, spec=margins(split.labels, CLASSES)).lower
    return float((lower > 0).all(1).double().mean())


def clean_accuracy(model: Model, split: Split) -> float:
    """The share of images that the network labels correctly."""
    return float((evaluate(model, split.x).argmax(1) == split.labels).double().mean())


def attacked_accuracy(model: Model, split: Split, eps: float, settings: Settings) -> float:
    """The share of images for which projected gradient descent finds no counterexample."""
    generator = torch.Generator().manual_seed(settings.seed)
    method = PGD(settings.attack_steps, settings.attack_restarts, targets=settings.attack_targets)
    found = attack(model, pixels_within(split.x, eps), margins(split.labels, CLASSES), method, generator)
    return float((~found.violated).double().mean())


def measure(name: str, model: Model, split: Split, eps: float, settings: Settings) -> Point:
    """One network's accuracies at one radius."""
    proven = {title: certified_accuracy(model, split, eps, method) for title, method in METHODS.items()}
    return Point(name, eps, clean_accuracy(model, split), attacked_accuracy(model, split, eps, settings), proven)


def trained(splits: Mapping[str, Split], settings: Settings, tell: Callable[[str], None]) -> Iterator[tuple[str, Model, float]]:
    """Both networks, from the same initial weights, with the seconds that their training took."""
    plans = ((ORDINARY, "ordinarily", train_ordinary, settings.ordinary_epochs),
             (CERTIFIED, "with the CROWN-IBP loss", train_certified, settings.certified_epochs))
    for name, way, train, epochs in plans:
        tell(f"training the network {way}, {epochs} epochs")
        network, started = build_network(settings.seed), time.perf_counter()
        train(network, splits["train"], settings)
        yield name, capture(network.eval(), splits["train"].x[:2]).detached(), time.perf_counter() - started


def run_study(settings: Settings, tell: Callable[[str], None]) -> Study:
    """Train, attack and certify; `tell` hears what is being done."""
    splits, points = load_splits(settings.seed), []
    validation: dict[str, Mapping[str, float]] = {}
    seconds: dict[str, float] = {}
    for name, model, spent in trained(splits, settings, tell):
        seconds[f"training, {name}"] = spent
        validation[name] = {
            "clean": clean_accuracy(model, splits["validation"]),
            f"certified by CROWN-IBP at {settings.train_eps:g}": certified_accuracy(
                model, splits["validation"], settings.train_eps, METHODS["CROWN-IBP"]),
        }
        started = time.perf_counter()
        for eps in settings.grid:
            tell(f"attacking and certifying the {name} network at eps {eps:g}")
            points.append(measure(name, model, splits["test"], eps, settings))
        seconds[f"attacks and bounds, {name}"] = time.perf_counter() - started
    return Study(settings, tuple(points), validation, seconds, surroundings(),
                 {name: len(split.labels) for name, split in splits.items()}, Rigour.FLOAT.name.lower())


def surroundings() -> dict[str, str]:
    """Versions and machine, for the record."""
    packages = ("boundlab", "torch", "numpy", "scikit-learn", "matplotlib")
    found = {name: version(name) for name in packages}
    return found | {"python": platform.python_version(), "machine": platform.machine(), "threads": str(torch.get_num_threads())}
