"""Certifications as files: JSON, CSV, Parquet, and counterexamples as arrays. A file is whole or not there."""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from boundlab.certify.certification import Certification, stacked
from boundlab.errors import MissingPackage, SpecError

JSON, CSV, POINTS, INPUTS = "certification.json", "records.csv", "counterexamples.npz", "extremes.npz"
"""What `save_certification` writes into a folder."""
EXTREMES = 8
"""So many of the least and of the most robust examples are kept with their inputs."""


def save_certification(found: Certification, folder: str | Path) -> tuple[Path, ...]:
    """Writes all files into a folder that exists, and says which; OSError if that does not succeed."""
    place = Path(folder)
    contents = {CSV: csv_of(found).encode(), POINTS: archive(found.counterexamples()), INPUTS: archive(extremes_of(found)),
                JSON: (json.dumps(plain(found.record()), indent=1, allow_nan=False) + "\n").encode()}
    return tuple(write(place / name, content) for name, content in contents.items())


def archive(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as an .npz file."""
    held = io.BytesIO()
    np.savez(held, allow_pickle=False, **arrays)  # type: ignore[arg-type]
    return held.getvalue()


def extremes_of(found: Certification) -> dict[str, np.ndarray]:
    """The inputs of the least and of the most robust examples, as arrays: `x` (m, *shape), `index`, and `shape` in the data."""
    kept = [index for index in sorted({*chain(*found.extremes(EXTREMES))}) if index in found.inputs.x]
    return {"x": stacked(found.inputs.x[index] for index in kept), "index": np.array(kept, np.int64),
            "shape": np.array(found.inputs.shape, np.int64)}


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
