"""A training run on disk: weights, optimiser, generators and history in one safetensors file, which can hold no code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_bytes
from torch import Tensor, nn

from boundlab.errors import CheckpointError
from boundlab.graph import Model
from boundlab.train.averaging import Average
from boundlab.train.history import Epoch
from boundlab.whole_file import write_whole

FORMAT = "boundlab training 1"
NAME = "checkpoint.safetensors"
MODULE, BEST, AVERAGE, OPTIMISER, GENERATOR = "module.", "best.", "average.", "optimiser.", "generator."


@dataclass(frozen=True)
class Run:
    """A run so far: the module and what is at work on it, which change, and what is remembered.

    `average` is the mean of its weights, if the plan averages them. `best` are the weights that it would end with, where these
    are not the module's: of the best epoch so far, with its proven accuracy as `score`, or averaged ones.
    """

    module: nn.Module
    optimiser: torch.optim.Optimizer
    generators: Mapping[str, torch.Generator]
    average: Average | None = None
    history: tuple[Epoch, ...] = ()
    best: Mapping[str, Tensor] | None = None
    score: float = -1.0

    def tensors(self) -> dict[str, Tensor]:
        """Everything of it that is numbers, by name."""
        found = {MODULE + name: value for name, value in self.module.state_dict().items()}
        found |= {BEST + name: value for name, value in (self.best or {}).items()}
        found |= {AVERAGE + name: value for name, value in (self.average.tensors() if self.average else {}).items()}
        found |= {GENERATOR + name: value.get_state() for name, value in self.generators.items()}
        for place, values in self.optimiser.state_dict()["state"].items():
            found |= {f"{OPTIMISER}{place}.{name}": value for name, value in values.items() if isinstance(value, Tensor)}
        return {name: value.detach().cpu().contiguous().clone() for name, value in found.items()}

    def restored(self, tensors: Mapping[str, Tensor], history: Sequence[Epoch], score: float) -> Run:
        """The run with everything put back."""
        self.module.load_state_dict(dict(below(MODULE, tensors)))
        if self.average is not None:
            self.average.restore(dict(below(AVERAGE, tensors)))
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
    """Write a run, whole or not at all; `about` says which run it is. CheckpointError if another run writes there, too."""
    history = [asdict(epoch) for epoch in run.history]
    if path.is_file():
        known = json.loads(opened(path)[0].get("history", "null"))
        if not isinstance(known, list) or known != history[:len(known)]:
            raise CheckpointError(f"'{path}' was written by another run while this one went on; give each a folder of its own.")
    write_whole(path, as_bytes(run.tensors(), {"format": FORMAT, "about": about, "score": repr(run.score),
                                                "history": json.dumps(history)}))


def refuse(path: Path) -> None:
    """CheckpointError if a file is there already: whoever begins anew must not lose a run by it."""
    if path.exists():
        raise CheckpointError(f"'{path}' is there already, and a new run would replace it; go on with that run (--resume, or "
                              "Keep(folder, resume=True)), or choose another folder.")


def opened(path: Path, tensors: bool = False) -> tuple[Mapping[str, str], Mapping[str, Tensor]]:
    """What is written beside the tensors of a file, and these too if they are wanted; CheckpointError if it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            names = file.keys() if tensors else ()
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as problem:
        raise damaged(path, problem) from problem


def weights_of(written: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights in a safetensors file: of a run's checkpoint those that the run would end with, else all that it holds.

    `written` is what stands beside the tensors.
    """
    if written.get("format") != FORMAT:
        return dict(tensors)
    return dict(below(BEST, tensors)) or dict(below(MODULE, tensors))


def damaged(path: Path, problem: Exception) -> CheckpointError:
    """That a file cannot be used."""
    return CheckpointError(f"the checkpoint '{path}' is damaged ({problem}); remove it to begin anew.")


def load(path: Path, run: Run, about: str) -> Run:
    """The run as a file left it; itself if there is no file. CheckpointError for a damaged file, or one of another run."""
    if not path.is_file():
        return run
    written, tensors = opened(path, tensors=True)
    if written.get("format") != FORMAT or written.get("about") != about:
        raise CheckpointError(f"'{path}' is of a training run with another network, other data or another plan; remove it, or "
                              "choose another folder.")
    try:
        history = [Epoch(**record) for record in json.loads(written["history"])]
        return run.restored(tensors, history, float(written["score"]))
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as problem:
        raise damaged(path, problem) from problem


def fingerprint(model: Model, tensors: Sequence[Tensor], *settings: object) -> str:
    """A hash of a network's graph and of what training leaves as it is in it, of data, and of settings.

    Settings are values with a complete repr. Weights do not count: they are what a checkpoint holds.
    """
    graph = model.graph
    moving = {graph[index].name for norm in graph.norms for index in (norm.mean, norm.variance)}
    moving |= {name for name, value in model.params.items() if value.requires_grad}
    found = hashlib.sha256(repr(settings).encode())
    found.update(repr([(node.op, node.args, node.attrs, node.shape) for node in graph]).encode())
    found.update(repr([(name, tuple(value.shape), value.dtype) for name, value in model.params.items()]).encode())
    for value in (*(value for name, value in model.params.items() if name not in moving), *tensors):
        found.update(repr(tuple(value.shape)).encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def weights_file(module: nn.Module) -> bytes:
    """A module's parameters and buffers by name, as a safetensors file."""
    found: bytes = as_bytes({name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()})
    return found
