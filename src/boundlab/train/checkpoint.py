"""A training run on disk: weights, optimiser, generators and history in one safetensors file, which can hold no code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from boundlab.errors import CheckpointError, MissingPackage
from boundlab.train.history import Epoch, replace_file

FORMAT = "boundlab training 1"
NAME = "checkpoint.safetensors"
MODULE, BEST, OPTIMISER, GENERATOR = "module.", "best.", "optimiser.", "generator."


@dataclass(frozen=True)
class Run:
    """A run so far: the module and what is at work on it, which change, and what is remembered.

    `best` are the weights of the best epoch so far, `score` its proven accuracy.
    """

    module: nn.Module
    optimiser: torch.optim.Optimizer
    generators: Mapping[str, torch.Generator]
    history: tuple[Epoch, ...] = ()
    best: Mapping[str, Tensor] | None = None
    score: float = -1.0

    def tensors(self) -> dict[str, Tensor]:
        """Everything of it that is numbers, by name."""
        found = {MODULE + name: value for name, value in self.module.state_dict().items()}
        found |= {BEST + name: value for name, value in (self.best or {}).items()}
        found |= {GENERATOR + name: value.get_state() for name, value in self.generators.items()}
        for place, values in self.optimiser.state_dict()["state"].items():
            found |= {f"{OPTIMISER}{place}.{name}": value for name, value in values.items() if isinstance(value, Tensor)}
        return {name: value.detach().cpu().contiguous().clone() for name, value in found.items()}

    def restored(self, tensors: Mapping[str, Tensor], history: Sequence[Epoch], score: float) -> Run:
        """The run with everything put back."""
        self.module.load_state_dict(dict(below(MODULE, tensors)))
        for name, value in below(GENERATOR, tensors):
            self.generators[name].set_state(value)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in below(OPTIMISER, tensors):
            place, _, field = name.partition(".")
            state.setdefault(int(place), {})[field] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
        return replace(self, best=dict(below(BEST, tensors)) or None, score=score, history=tuple(history))


def below(prefix: str, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Names that begin with `prefix`, without it."""
    return ((name.removeprefix(prefix), value) for name, value in tensors.items() if name.startswith(prefix))


def save(path: Path, run: Run, about: str) -> None:
    """Write a run, whole or not at all; `about` says which run it is."""
    written = {"format": FORMAT, "about": about, "score": repr(run.score),
               "history": json.dumps([asdict(epoch) for epoch in run.history])}
    replace_file(path, safetensors().save(run.tensors(), written))


def load(path: Path, run: Run, about: str) -> Run:
    """The run as a file left it; itself if there is no file. CheckpointError for a damaged file, or one of another run."""
    if not path.is_file():
        return run
    package = safetensors()
    try:
        with package.open(path) as file:
            written = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a file is no mapping)
    except (package.error, OSError) as problem:
        raise CheckpointError(f"the checkpoint '{path}' is damaged ({problem}); remove it to begin anew.") from problem
    if written.get("format") != FORMAT or written.get("about") != about:
        raise CheckpointError(f"'{path}' is of a training run with another network, other data or another plan; remove it, or "
                              "choose another folder.")
    try:
        history = [Epoch(**record) for record in json.loads(written["history"])]
        return run.restored(tensors, history, float(written["score"]))
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as problem:
        raise CheckpointError(f"the checkpoint '{path}' is damaged ({problem}); remove it to begin anew.") from problem


@dataclass(frozen=True)
class Package:
    """What is used of safetensors."""

    save: Any
    open: Any
    error: type[Exception]


def safetensors() -> Package:
    """The package; MissingPackage without it."""
    try:
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import save as to_bytes
    except ImportError as problem:
        raise MissingPackage("keeping a training run needs a package: pip install 'boundlab[safetensors]'.") from problem
    return Package(to_bytes, lambda path: safe_open(path, "pt"), SafetensorError)


def fingerprint(module: nn.Module, tensors: Sequence[Tensor], *settings: object) -> str:
    """A hash of the shapes of a network, of data, and of settings, which are values with a complete repr."""
    found = hashlib.sha256(repr(settings).encode())
    found.update(repr([(name, tuple(value.shape), value.dtype) for name, value in module.state_dict().items()]).encode())
    for value in tensors:
        found.update(repr(tuple(value.shape)).encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def weights_file(module: nn.Module) -> bytes:
    """A module's parameters and buffers by name, as a safetensors file."""
    found: bytes = safetensors().save({name: value.detach().cpu().contiguous().clone()
                                       for name, value in module.state_dict().items()})
    return found
