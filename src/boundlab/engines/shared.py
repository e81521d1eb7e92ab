"""Large arrays that several tasks of a stream hold, such as a network: each is hashed, sent and kept once."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from boundlab.engines.task import Arrays

LARGE = 2**16
"""Bytes from which it is worth while to look whether other tasks hold the same array."""


@dataclass(frozen=True)
class Reference:
    """Stands in a task for an array that is sent on its own."""

    token: bytes


Sent = Mapping[str, np.ndarray | Reference]
"""A task on its way to a worker."""


@dataclass(frozen=True)
class Shared:
    """The large arrays that more than one task holds as the same object, and a hash of each, both by its `id`."""

    arrays: Mapping[int, np.ndarray] = field(default_factory=dict)
    tokens: Mapping[int, bytes] = field(default_factory=dict)

    def token(self, array: np.ndarray) -> bytes | None:
        """The hash of a shared array; None for others."""
        return self.tokens[id(array)] if self.arrays.get(id(array)) is array else None

    def by_token(self) -> dict[bytes, np.ndarray]:
        """The arrays by their hashes."""
        return {self.tokens[place]: array for place, array in self.arrays.items()}

    def without(self, task: Arrays) -> Sent:
        """A task with references in place of shared arrays."""
        tokens = {name: self.token(array) for name, array in task.items()}
        return {name: array if (token := tokens[name]) is None else Reference(token) for name, array in task.items()}


def tokens_in(tasks: Collection[Sent]) -> set[bytes]:
    """What tasks refer to."""
    return {value.token for task in tasks for value in task.values() if isinstance(value, Reference)}


def whole(task: Sent, held: Mapping[bytes, np.ndarray]) -> Arrays:
    """The task with the arrays that its references stand for."""
    return {name: held[value.token] if isinstance(value, Reference) else value for name, value in task.items()}


def shared_of(tasks: Sequence[Arrays]) -> Shared:
    """What the tasks share. Arrays that are equal but not the same object are not shared."""
    seen: dict[int, weakref.ref[np.ndarray]] = {}
    twice: dict[int, np.ndarray] = {}
    for task in tasks:
        for array in task.values():
            if array.nbytes >= LARGE:
                known = seen.get(id(array))
                if known is not None and known() is array:
                    twice[id(array)] = array
                seen[id(array)] = weakref.ref(array)  # a sequence may make its arrays anew whenever it is asked
    return Shared(twice, {place: digest_of(array) for place, array in twice.items()})


def digest_of(array: np.ndarray) -> bytes:
    """The SHA-256 of an array's type, shape and bytes."""
    digest = hashlib.sha256(repr((np.lib.format.dtype_to_descr(array.dtype), array.shape)).encode())
    digest.update(array.tobytes())
    return digest.digest()
