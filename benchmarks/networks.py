"""The networks that are measured: those of a folder that the user names, or small ones of our own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor, nn

SEED = 0


@dataclass(frozen=True)
class Loaded:
    """A module in eval mode, inputs x (64, *shape), labels (64,), margin rows (64, s, classes), and the radius of the box."""

    module: nn.Module
    x: Tensor
    labels: Tensor
    rows: Tensor
    eps: float


class Network(Protocol):
    """Where a network comes from; a value that a process can be told."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    def load(self) -> Loaded:
        """The network itself: equal calls give equal weights and inputs."""
        ...


def networks_file(folder: Path) -> Path:
    """Where a data folder holds its networks."""
    return folder / "bench" / "networks.py"


def module_at(path: Path) -> ModuleType:
    """A Python file as a module, whatever its folder."""
    spec = importlib.util.spec_from_file_location("bench_networks", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class FromFolder:
    """One of the networks of `bench/networks.py` in a data folder; that file's `load(name)` gives a module and a fixture."""

    folder: Path
    name: str

    def load(self) -> Loaded:
        module, fixture = module_at(networks_file(self.folder)).load(self.name)
        return Loaded(module, fixture["x"], fixture["labels"], fixture["C"], fixture["eps"])


def small_mlp() -> nn.Module:
    """Three layers of 16."""
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def small_cnn() -> nn.Module:
    """Two convolutions with batch norm, and a linear layer."""
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(),
                         nn.Flatten(), nn.Linear(16, 4))


SMALL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "small_mlp": (small_mlp, (6,)), "small_cnn": (small_cnn, (1, 6, 6))}


@dataclass(frozen=True)
class Small:
    """One of our own small networks, for a run that takes seconds."""

    name: str

    def load(self) -> Loaded:
        make, shape = SMALL[self.name]
        torch.manual_seed(SEED)
        return with_margins(make().eval(), torch.rand(64, *shape), eps=0.02)


def with_margins(module: nn.Module, x: Tensor, eps: float) -> Loaded:
    """A classifier with its own decisions as labels, and the rows label minus every other class."""
    with torch.no_grad():
        logits = module(x)
    labels, classes = logits.argmax(1), logits.shape[1]
    eye = torch.eye(classes)
    rows = (eye[labels].unsqueeze(1) - eye)[~eye.bool()[labels]].reshape(len(x), classes - 1, classes)
    return Loaded(module, x, labels, rows, eps)


def networks_of(folder: Path | None) -> dict[str, Network]:
    """The networks of a data folder by name, or our own small ones."""
    if folder is None:
        return {name: Small(name) for name in SMALL}
    return {name: FromFolder(folder, name) for name in module_at(networks_file(folder)).MODELS}
