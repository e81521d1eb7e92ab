"""Certifications as files: JSON, CSV, Parquet, and counterexamples as arrays. A file is whole or not there."""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from boundlab.bounds.problem import Rigour
from boundlab.certify.certification import FORMAT, Certification, Settings
from boundlab.certify.record import Adversary, Finding, Record, Status
from boundlab.errors import DataError, MissingPackage, SpecError

JSON, CSV, POINTS = "certification.json", "records.csv", "counterexamples.npz"
"""What `save_certification` writes into a folder."""


def save_certification(found: Certification, folder: str | Path) -> tuple[Path, ...]:
    """Writes all files into a folder that exists, and says which; OSError if that does not succeed."""
    place = Path(folder)
    points = io.BytesIO()
    np.savez(points, allow_pickle=False, **found.counterexamples())
    contents = {CSV: csv_of(found).encode(), POINTS: points.getvalue(),
                JSON: (json.dumps(plain(found.record()), indent=1, allow_nan=False) + "\n").encode()}
    return tuple(write(place / name, content) for name, content in contents.items())


def save_records(found: Certification, path: str | Path) -> Path:
    """Writes the records as one table, .csv or .parquet by the name; MissingPackage for Parquet without pyarrow."""
    place = Path(path)
    if place.suffix == ".csv":
        return write(place, csv_of(found).encode())
    if place.suffix != ".parquet":
        raise SpecError(f"records are saved as .csv or .parquet, not as '{place.name}'.")
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as problem:
        raise MissingPackage("writing Parquet needs a package: pip install pyarrow; or save a .csv file.") from problem
    held = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist([record.row() for record in found.records]), held)
    return write(place, held.getvalue())


def read_certification(folder: str | Path) -> Certification:
    """What `save_certification` wrote into a folder; DataError if it is not there, or not whole."""
    place = Path(folder)
    try:
        held = json.loads((place / JSON).read_text())
        if held["format"] != FORMAT:
            raise ValueError(f"its format is {held['format']!r:.60}")
        with (place / POINTS).open("rb") as file, np.load(file, allow_pickle=False) as points:
            adversaries = adversaries_of({name: points[name] for name in points.files})
        given = held["settings"]
        lists = {name: tuple(given[name]) for name in ("eps", "stages")}
        clip = None if given["clip"] is None else tuple(given["clip"])
        settings = Settings(**(given | lists | {"clip": clip, "p": float(given["p"]), "timeout": float(given["timeout"])}))
        records = tuple(record_of(row, adversaries) for row in held["records"])
        return Certification(settings, held["classes"], records, held["seconds"])
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as problem:
        raise DataError(f"'{place}' holds no whole certification ({' '.join(str(problem).split()):.99}); certify again with "
                        "the same ledger, which computes only what is missing.") from problem


def adversaries_of(points: Mapping[str, np.ndarray]) -> dict[tuple[int, float], Adversary]:
    """Counterexamples by example and the radius at which they were found."""
    keys = zip(points["index"].tolist(), points["eps"].tolist(), strict=True)
    return {key: Adversary(points["x"][place], int(points["scores"][place].argmax()), points["scores"][place])
            for place, key in enumerate(keys)}


def record_of(row: Mapping[str, Any], adversaries: Mapping[tuple[int, float], Adversary]) -> Record:
    """A record from its row."""
    status = Status[row["status"].upper()]
    rigour = None if row["rigour"] is None else Rigour[row["rigour"].upper()]
    origin = row["eps"] if row["nested"] is None else row["nested"]
    adversary = adversaries[row["index"], origin] if status is Status.FALSIFIED else None
    margin = -math.inf if row["margin"] is None else row["margin"]
    finding = Finding(status, row["method"] or "", row["effort"] or "", rigour, row["seconds"], margin, row["reason"] or "",
                      adversary, row["nested"])
    return Record(row["index"], row["name"], row["label"], row["predicted"], row["eps"], finding)


def csv_of(found: Certification) -> str:
    """The records as CSV text, a line each; what does not exist is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found.records[0].row()), lineterminator="\n")
    writer.writeheader()
    writer.writerows(record.row() for record in found.records)
    return text.getvalue()


def write(path: Path, content: bytes) -> Path:
    """Writes a file, whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
        os.replace(part, path)
    except OSError as problem:  # what a full disk says does not name the file
        raise OSError(problem.errno, problem.strerror, str(path)) from problem
    return path


def plain(value: Any) -> Any:
    """Data as JSON holds it: infinite numbers as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
