"""Certifications read back from the files of `save_certification`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from pydantic import TypeAdapter, ValidationError

from boundlab.bounds.problem import Rigour
from boundlab.certify.certification import FORMAT, Certification, Inputs, Settings
from boundlab.certify.export import INPUTS, JSON, POINTS
from boundlab.certify.record import Adversary, Finding, Record, Status
from boundlab.errors import DataError

Points = Mapping[tuple[int, float], tuple[np.ndarray, np.ndarray]]
"""Counterexamples and their scores, by example and radius."""


@dataclass(frozen=True)
class Row:
    """A record as files hold it: what `Record.row` gives."""

    index: int
    name: str | None
    label: int
    predicted: int
    eps: float
    status: str
    method: str | None
    effort: str | None
    rigour: str | None
    seconds: float
    margin: float | None
    nested: float | None
    adversary: int | None
    reason: str | None

    def record(self, points: Points) -> Record:
        """The record, with the numbers of its counterexample if they are known; KeyError for words that are none."""
        x, scores = points.get((self.index, self.eps), (None, None))
        adversary = None if self.adversary is None else Adversary(x, self.adversary, scores)
        rigour = None if self.rigour is None else Rigour[self.rigour.upper()]
        finding = Finding(Status[self.status.upper()], self.method or "", self.effort or "", rigour, self.seconds,
                          -math.inf if self.margin is None else self.margin, self.reason or "", adversary, self.nested)
        return Record(self.index, self.name, self.label, self.predicted, self.eps, finding)


@dataclass(frozen=True)
class Whole:
    """What of a certification's file the rest follows from."""

    format: str
    settings: Settings
    classes: int
    seconds: float
    records: tuple[Row, ...]


def read_certification(folder: str | Path) -> Certification:
    """The certification that was saved in a folder, with the inputs of its extremes; DataError if there is none, or a broken one.

    Counterexamples have their numbers where they are those of an example's smallest radius.
    """
    place = Path(folder)
    if not (place / JSON).is_file():
        raise DataError(f"'{place}' holds no {JSON}; give the folder that `boundlab certify --out` has written.")
    try:
        whole = TypeAdapter(Whole).validate_python(json.loads((place / JSON).read_text()))
        if whole.format != FORMAT:
            raise DataError(f"'{place / JSON}' has the format '{whole.format}', and this version reads '{FORMAT}'.")
        points = points_of(place / POINTS)
        records = tuple(row.record(points) for row in whole.records)
        inputs = inputs_of(place / INPUTS)
    except (ValueError, KeyError, EOFError, BadZipFile) as problem:  # ValidationError is a ValueError, and so is bad JSON
        raise DataError(f"the certification in '{place}' is damaged: {first_line(problem)}.") from problem
    found = Certification(whole.settings, whole.classes, records, whole.seconds, inputs)
    check_whole(found, place)
    return found


def first_line(problem: Exception) -> str:
    """What is wrong, in a line."""
    if isinstance(problem, ValidationError):
        first = problem.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return (str(problem).splitlines() or [type(problem).__name__])[0].rstrip(".")


def points_of(path: Path) -> Points:
    """The counterexamples of a file."""
    with np.load(path, allow_pickle=False) as held:
        keys = zip(held["index"].tolist(), held["eps"].tolist(), strict=True)
        return dict(zip(keys, zip(held["x"], held["scores"], strict=True), strict=True))


def inputs_of(path: Path) -> Inputs:
    """The inputs of the extremes."""
    with np.load(path, allow_pickle=False) as held:
        return Inputs(dict(zip(held["index"].tolist(), held["x"], strict=True)), tuple(held["shape"].tolist()))


def check_whole(found: Certification, place: Path) -> None:
    """DataError unless each example has a record at every radius, and each falsified one its counterexample."""
    indexes = {eps: [record.index for record in records] for eps, records in found.by_eps.items()}
    first = next(iter(indexes.values()), [])
    if not first or len(set(first)) != len(first) or any(own != first for own in indexes.values()) \
            or len(found.records) != len(first) * len(indexes):
        raise DataError(f"the certification in '{place}' is damaged: it has not one record for each example and radius.")
    for (index, status), record in found.at_reach.items():
        own = record.finding.adversary
        if status is Status.FALSIFIED and (own is None or own.x is None):
            raise DataError(f"the certification in '{place}' is damaged: example {index} is falsified, and {POINTS} does not "
                            "hold its counterexample.")
