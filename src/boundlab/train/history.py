"""What is remembered of a run: a record for each epoch, and the table of them as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from boundlab.whole_file import write_whole


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
    write_whole(path, text.getvalue().encode())
