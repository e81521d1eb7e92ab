"""Searches on disk: a file from which a race goes on after it was killed.

States of searches are values, so a checkpoint is these values. The task, to which every state refers and which holds the
network, is not written down: the file has a fingerprint of it instead, and is for that task only.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from boundlab.errors import CheckpointError
from boundlab.verify.packing import packed, unpacked
from boundlab.verify.task import Task
from boundlab.whole_file import write_whole

FORMAT = "boundlab checkpoint 2"
"""The member that says which network a file is about."""


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
