"""Searches on disk: a file from which a race goes on after it was killed.

States of searches are values, so a checkpoint is these values. The task, to which every state refers and which holds the
network, is not written down: the file has a fingerprint of it instead, and is for that task only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boundlab.bounds.groups import Ground, ground_of
from boundlab.errors import CheckpointError
from boundlab.verify.task import Task
from boundlab.whole_file import write_whole

FORMAT = "boundlab checkpoint 1"
"""The member that says which network a file is about."""
TYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool", "Size")
HARMLESS = {("boundlab.verify.checkpoint", "built"), ("boundlab.bounds.groups", "ground_of"), ("builtins", "set"),
            ("builtins", "slice"), *(("torch", name) for name in TYPES)}
"""What a checkpoint may name beside dataclasses of boundlab, so that the file of a stranger runs no code."""


def built(kind: type, values: dict[str, Any]) -> Any:
    """A dataclass with these fields, which have been checked when it was first made."""
    made: Any = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


class Packer(pickle.Pickler):
    """Writes dataclasses as their fields and tensors as numbers in a list; task and network by name."""

    def __init__(self, file: io.BytesIO, task: Task) -> None:
        super().__init__(file, protocol=5)
        self.named = {id(task): "task", id(task.model): "model"}
        self.tensors: list[Tensor] = []
        self.places: dict[int, int] = {}

    def persistent_id(self, value: Any) -> str | int | None:
        if isinstance(value, Tensor):
            if id(value) not in self.places:
                self.places[id(value)] = len(self.tensors)
                self.tensors.append(value)
            return self.places[id(value)]
        return self.named.get(id(value))

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Ground):  # it has functions, which are made again
            return ground_of, (value.problem, value.env, value.space)
        if not dataclasses.is_dataclass(value) or isinstance(value, type):
            return NotImplemented
        # What a cached property has computed is no part of the value.
        return built, (type(value), {one.name: vars(value)[one.name] for one in dataclasses.fields(value)})


class Unpacker(pickle.Unpickler):
    """Reads what a Packer has written, for one task."""

    def __init__(self, file: io.BytesIO, task: Task, tensors: list[Tensor]) -> None:
        super().__init__(file)
        self.named = {"task": task, "model": task.model}
        self.tensors = tensors

    def persistent_load(self, name: str | int) -> Any:
        return self.tensors[name] if isinstance(name, int) else self.named[name]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in HARMLESS:
            return super().find_class(module, name)
        found = super().find_class(module, name) if module.startswith("boundlab.") and name[:1].isupper() else None
        if isinstance(found, type) and dataclasses.is_dataclass(found):
            return found
        raise CheckpointError(f"the checkpoint names {module}.{name}, which no search of boundlab writes.")


def packed(value: Any, task: Task) -> tuple[bytes, list[np.ndarray]]:
    """A value as bytes and the arrays that they refer to by number."""
    file = io.BytesIO()
    packer = Packer(file, task)
    packer.dump(value)
    return file.getvalue(), [tensor.detach().cpu().contiguous().numpy() for tensor in packer.tensors]


def unpacked(data: bytes, arrays: list[np.ndarray], task: Task) -> Any:
    """The value, with tensors where the task's network has its own."""
    return Unpacker(io.BytesIO(data), task, [torch.from_numpy(array).to(task.model.device) for array in arrays]).load()


def fingerprint(value: Any, task: Task) -> str:
    """A hash of a value."""
    data, arrays = packed(value, task)
    found = hashlib.sha256(data)
    for array in arrays:
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """A file with searches of one network: what is held of each question, by its fingerprint.

    CheckpointError for a file that is damaged or about another network.
    """

    path: Path
    task: Task
    about: Any = None

    @cached_property
    def network(self) -> str:
        """A hash of the network."""
        return fingerprint((self.task.model.graph, dict(self.task.model.params)), self.task)

    @cached_property
    def question(self) -> str:
        """A hash of what is asked, and of how the answer is sought."""
        task = self.task
        return fingerprint((task.sets, task.reachable, task.spec, task.asked, task.keep, self.about), task)

    def load(self) -> Any | None:
        """What the file holds of the question; None where there is no file, or nothing in it."""
        members = self.members()
        if f"{self.question}.pickle" not in members:
            return None
        try:
            with np.load(io.BytesIO(members[f"{self.question}.npz"]), allow_pickle=False) as arrays:
                held = [arrays[f"arr_{place}"] for place in range(len(arrays.files))]
            return unpacked(members[f"{self.question}.pickle"], held, self.task)
        except (KeyError, ValueError, EOFError, AttributeError, TypeError, ImportError, IndexError, pickle.UnpicklingError,
                zipfile.BadZipFile) as problem:
            raise self.damaged(problem) from problem

    def save(self, value: Any) -> None:
        """Put a value into the file, whole or not at all."""
        data, arrays = packed(value, self.task)
        file = io.BytesIO()
        np.savez(file, *arrays)
        members = self.members() | {FORMAT: self.network.encode(), f"{self.question}.pickle": data,
                                    f"{self.question}.npz": file.getvalue()}
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        write_whole(self.path, whole.getvalue())

    def members(self) -> dict[str, bytes]:
        """The file's members; none where there is no file."""
        if not self.path.exists():
            return {}
        try:
            with zipfile.ZipFile(self.path) as archive:
                found = {name: archive.read(name) for name in archive.namelist()}
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError) as problem:
            raise self.damaged(problem) from problem
        if found.get(FORMAT) != self.network.encode():
            raise CheckpointError(f"'{self.path}' is no checkpoint about this network, by this version of boundlab; remove it "
                                  "to begin anew.")
        return found

    def damaged(self, problem: Exception) -> CheckpointError:
        """That the file cannot be read."""
        return CheckpointError(f"the checkpoint '{self.path}' is damaged ({problem}); remove it to begin anew.")
