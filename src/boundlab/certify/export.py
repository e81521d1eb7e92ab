"""Certifications as files: JSON, CSV, Parquet, and counterexamples as arrays. A file is whole or not there."""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from boundlab.bounds.problem import Rigour
from boundlab.certify.certification import FORMAT, Certification, Inputs, Settings, stacked
from boundlab.certify.explained import explained_of
from boundlab.certify.record import Adversary, Finding, Record, Status, adversary_of
from boundlab.errors import DataError, MissingPackage, SpecError
from boundlab.whole_file import write_whole

JSON, CSV, POINTS, INPUTS = "certification.json", "records.csv", "counterexamples.npz", "extremes.npz"
FILES = (JSON, CSV, POINTS, INPUTS)
"""What `save_certification` writes into a folder."""
EXTREMES = 8
"""So many of the least and of the most robust examples are kept with their inputs."""


def save_certification(found: Certification, folder: str | Path) -> tuple[Path, ...]:
    """Writes all files into a folder that exists, and says which; OSError if that does not succeed."""
    place = Path(folder)
    arrays = {POINTS: archive(found.counterexamples()), INPUTS: archive(extremes_of(found))}
    data = plain(found.record()) | {"arrays": {name: sha256(content).hexdigest() for name, content in arrays.items()}}
    contents = {CSV: csv_of(found).encode(), **arrays,
                JSON: (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()}
    return tuple(write_whole(place / name, content) for name, content in contents.items())


def archive(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as an .npz file."""
    held = io.BytesIO()
    np.savez(held, allow_pickle=False, **arrays)
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
        return write_whole(place, csv_of(found).encode())
    if place.suffix != ".parquet":
        raise SpecError(f"records are saved as .csv or .parquet, not as '{place.name}'.")
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as problem:
        raise MissingPackage("writing Parquet needs a package: pip install pyarrow; or save a .csv file.") from problem
    held = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist([written(record) for record in found.records]), held)
    return write_whole(place, held.getvalue())


def read_certification(folder: str | Path) -> Certification:
    """What `save_certification` wrote into a folder; DataError if it is not there, or not whole."""
    place = Path(folder)
    try:
        held = json.loads((place / JSON).read_text(encoding="utf-8"))
        if held["format"] != FORMAT:
            raise ValueError(f"its format is {held['format']!r:.60}")
        points, kept = (arrays_in(place / name, held["arrays"][name]) for name in (POINTS, INPUTS))
        adversaries = adversaries_of(points)
        given = held["settings"]
        lists = {name: tuple(given[name]) for name in ("eps", "stages")}
        clip = None if given["clip"] is None else tuple(map(float, given["clip"]))
        settings = Settings(**(given | lists | {"clip": clip, "p": float(given["p"]), "timeout": float(given["timeout"])}))
        records = tuple(record_of(row, adversaries) for row in held["records"])
        check_complete(records, settings.eps)
        inputs = Inputs(dict(zip(kept["index"].tolist(), kept["x"], strict=True)), tuple(kept["shape"].tolist()))
        return Certification(settings, held["classes"], records, held["seconds"], inputs, explained_of(held["explained"]))
    except (FileNotFoundError, NotADirectoryError) as problem:
        lacking = Path(str(problem.filename)).name
        raise DataError(f"'{place}' holds no certification, or not all of it ({lacking} is not there); name the "
                        "folder that `boundlab certify --out` has written.") from problem
    except OSError:
        raise
    except Exception as problem:  # json, numpy and zipfile have many kinds for damaged files
        raise DataError(f"'{place}' holds no whole certification ({' '.join(str(problem).split()):.99}); certify again with "
                        "the same ledger, which computes only what is missing.") from problem


def arrays_in(path: Path, digest: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; ValueError if it is not the one of this SHA-256."""
    content = path.read_bytes()
    if sha256(content).hexdigest() != digest:
        raise ValueError(f"{path.name} is damaged, or of another run that was ended while it wrote")
    with np.load(io.BytesIO(content), allow_pickle=False) as held:
        return {name: held[name] for name in held.files}


def check_complete(records: Sequence[Record], eps: Sequence[float]) -> None:
    """ValueError unless every example has one record at every radius, by radius and then by example."""
    count = len({record.index for record in records})
    keys = [(record.eps, record.index) for record in records]
    if not count or keys != sorted(set(keys)) or [*eps] != sorted({one for one, _ in keys}) or len(keys) != count * len(eps):
        raise ValueError("records are missing, or out of order")


def adversaries_of(points: Mapping[str, np.ndarray]) -> dict[tuple[int, float], Adversary]:
    """Counterexamples by example and the radius at which they were found."""
    keys = zip(points["index"].tolist(), points["eps"].tolist(), strict=True)
    return {key: adversary_of(points["x"][place], points["scores"][place], int(points["label"][place]))
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
    for record in found.records:
        writer.writerow(written(record))
    return text.getvalue()


def written(record: Record) -> dict[str, str | int | float | None]:
    """The row of a record as tables hold it: csv quotes no carriage returns, and UTF-8 has no halves of surrogate pairs."""
    return {name: value.replace("\r", " ").encode(errors="replace").decode() if isinstance(value, str) else value
            for name, value in record.row().items()}


def plain(value: Any) -> Any:
    """Data as JSON holds it: infinite numbers as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
