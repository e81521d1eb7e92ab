"""Values of a search as bytes and arrays: for files, and for other processes.

Searches are frozen dataclasses of numbers, so what is written are their fields. Only such classes of boundlab are read again:
the file of a stranger runs no code.
"""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boundlab.bounds.groups import Ground, ground_of
from boundlab.errors import CheckpointError
from boundlab.verify.task import Task

TYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool", "Size")
HARMLESS = {("boundlab.verify.packing", "built"), ("boundlab.bounds.groups", "ground_of"), ("builtins", "set"),
            ("builtins", "slice"), *(("torch", name) for name in TYPES)}
"""What packed values may name beside dataclasses of boundlab."""
TASK, MODEL = "task", "model"
"""What stands for a task and its network, of which a file says only which they are."""


def built(kind: type, values: dict[str, Any]) -> Any:
    """A dataclass with these fields, which have been checked when it was first made."""
    made: Any = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


class Packer(pickle.Pickler):
    """Writes dataclasses as their fields, tensors as numbers in a list, and what has a name (by its `id`) as this."""

    def __init__(self, file: io.BytesIO, named: Mapping[int, str]) -> None:
        super().__init__(file, protocol=5)
        self.named = named
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
    """Reads what a Packer has written, given what its names stand for."""

    def __init__(self, file: io.BytesIO, named: Mapping[str, Any], tensors: list[Tensor]) -> None:
        super().__init__(file)
        self.named = named
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


def packed(value: Any, task: Task | None = None) -> tuple[bytes, list[np.ndarray]]:
    """A value as bytes and the arrays that they refer to by number; without a task's own parts, if it is given."""
    file = io.BytesIO()
    packer = Packer(file, {} if task is None else {id(task): TASK, id(task.model): MODEL})
    packer.dump(value)
    return file.getvalue(), [tensor.detach().cpu().contiguous().numpy() for tensor in packer.tensors]


def unpacked(data: bytes, arrays: list[np.ndarray], task: Task) -> Any:
    """The value of a task, with tensors where the task's network has its own."""
    named = {TASK: task, MODEL: task.model}
    return Unpacker(io.BytesIO(data), named, [torch.from_numpy(array).to(task.model.device) for array in arrays]).load()


def unpacked_on(device: torch.device, data: bytes, arrays: list[np.ndarray]) -> Any:
    """The value, packed without a task, with tensors on a device."""
    return Unpacker(io.BytesIO(data), {}, [torch.from_numpy(array).to(device) for array in arrays]).load()
