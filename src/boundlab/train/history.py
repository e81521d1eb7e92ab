"""What is remembered of a run: a record for each epoch, and the table of them as a CSV file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Epoch:
    """One epoch: its number from 0, mean loss, radius and learning rate at its end, and shares of the validation examples.

    Shares are None where nothing was measured. `seconds` are those of training alone.
    """

    epoch: int
    loss: float
    eps: float
    rate: float
    seconds: float
    clean: float | None = None
    attacked: float | None = None
    verified: float | None = None


def write_history(path: Path, history: Sequence[Epoch]) -> None:
    """The table, whole or not at all; numbers that were not measured are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([one.name for one in fields(Epoch)])
    writer.writerows(["" if value is None else value for value in asdict(epoch).values()] for epoch in history)
    replace_file(path, text.getvalue().encode())


def replace_file(path: Path, data: bytes) -> None:
    """A file's new content, whole or not at all, even if the process or the machine dies; OSError names the file."""
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as problem:  # a disk that is full says so without a name
        new.unlink(missing_ok=True)
        raise OSError(problem.errno, problem.strerror, str(path)) from problem
