"""CSV tables: of numbers, an example a line, or of the pictures in a folder with their labels."""

from __future__ import annotations

import csv
import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boundlab.data.arrays import numbers
from boundlab.data.examples import Examples
from boundlab.errors import DataError, MissingPackage

MOST_PIXELS = 2**24
"""Pixels of a picture: a damaged file may say any number, and would be read for as long."""
FILE, LABEL = "file", "label"
"""Columns with a meaning of their own."""


def read_table(path: Path) -> Examples:
    """Examples (n, d) of a CSV file whose first line names its columns: `label`, if there is one, and d columns of numbers."""
    rows = lines_of(path)
    columns = [name for name in rows[0] if name != LABEL]
    if not columns:
        raise DataError(f"'{path}' has no column of numbers beside '{LABEL}'.")
    try:
        values = np.array([[float(row[name]) for name in columns] for row in rows], np.float64)
    except ValueError as problem:
        raise DataError(f"'{path}' is no table of numbers: {problem}.") from problem
    labels = labels_in(path, rows) if LABEL in rows[0] else None
    return Examples(torch.from_numpy(numbers(values)), labels)


def lines_of(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file by the names of its first line, at least one; DataError if one has more or fewer fields."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            names = reader.fieldnames or []
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as problem:
        raise DataError(f"'{path}' is not readable as CSV text.") from problem
    if not rows:
        raise DataError(f"'{path}' has no line below its header, so it holds no example.")
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice or all(map(is_number, names)):
        what = f"has the column '{twice[0]}' twice" if twice else "begins with numbers"
        raise DataError(f"'{path}' {what}; its first line names the columns, each by a name of its own.")
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise DataError(f"line {number} of '{path}' has not as many fields as its header.")
    return rows


def is_number(text: str) -> bool:
    """Whether a text reads as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def labels_in(path: Path, rows: list[dict[str, str]]) -> torch.Tensor:
    """The labels (n,) of a table."""
    texts = [row[LABEL].strip() for row in rows]
    wrong = [place for place, text in enumerate(texts) if not (text.isascii() and text.isdigit() and len(text) < 10)]
    if wrong:
        raise DataError(f"the label '{texts[wrong[0]]}' in line {wrong[0] + 2} of '{path}' is no whole number from 0 on.")
    return torch.tensor([int(text) for text in texts])


def read_pictures(table: Path) -> Examples:
    """Pictures (n, channels, height, width), from 0 to 1, that a CSV file names in its column `file`, beside their `label`.

    Names are relative to the table's folder; all pictures are grey or all are of colours, and of one size. DataError names the
    one that is not; MissingPackage without pillow.
    """
    rows = lines_of(table)
    if FILE not in rows[0] or LABEL not in rows[0]:
        raise DataError(f"'{table}' has the columns {', '.join(rows[0])}; a folder of pictures needs '{FILE}' and '{LABEL}'.")
    image = load_pillow()
    names = tuple(row[FILE].strip() for row in rows)
    outside = [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise DataError(f"'{table}' names the file '{outside[0]}', which is not beneath its own folder; move the table.")
    pictures = [pixels(image, table.parent / name) for name in names]
    for name, picture in zip(names, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            raise DataError(f"the picture '{name}' is {list(picture.shape)} in height, width and channels, the first one "
                            f"{list(pictures[0].shape)}; they must be alike.")
    return Examples(torch.from_numpy(numbers(np.stack(pictures).transpose(0, 3, 1, 2))), labels_in(table, rows), names)


def load_pillow() -> Any:
    """The module that opens pictures."""
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as problem:
        raise MissingPackage("reading pictures needs a package: pip install 'boundlab[pictures]'.") from problem


def pixels(image: Any, path: Path) -> np.ndarray:
    """The bytes (height, width, channels) of a picture of 8 bits that is grey or of three colours."""
    if path.exists() and not path.is_file():  # a pipe or a device may never end
        raise DataError(f"'{path}' is not a file, so it is not a readable picture.")
    try:
        with warnings.catch_warnings(action="ignore"), image.open(path) as picture:  # pillow warns of large pictures
            mode, (width, height) = picture.mode, picture.size
            if width * height > MOST_PIXELS:
                raise DataError(f"'{path}' says that it has {width} times {height} pixels, more than {MOST_PIXELS:,} in all: "
                                "it is damaged, or no picture for a network.")
            found = np.asarray(picture.convert("RGB") if mode == "P" else picture)
    except (FileNotFoundError, PermissionError, DataError):
        raise
    except Exception as problem:  # pillow's readers raise many kinds for a damaged file
        raise DataError(f"'{path}' is not a readable picture.") from problem
    if mode not in ("L", "RGB", "P"):
        raise DataError(f"'{path}' is a picture of the kind {mode}; save it as grey or RGB with 8 bits.")
    return found[..., None] if found.ndim == 2 else found
