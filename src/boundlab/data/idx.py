"""MNIST and whatever else comes as IDX files (LeCun, Cortes and Burges 1998, "The MNIST database")."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch

from boundlab.data.arrays import numbers
from boundlab.data.examples import Examples, Part
from boundlab.errors import DataError

MOST_AXES = 8
"""Axes of an array in a file; numpy takes 32 or 64, and the format would allow 255."""
STEMS = {Part.TRAIN: "train", Part.TEST: "t10k"}


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file of bytes, packed with gzip or not; DataError if it is none, or not whole."""
    held = path.read_bytes()
    try:
        raw = gzip.decompress(held) if path.suffix == ".gz" else held
        shape = tuple(np.frombuffer(raw, ">u4", raw[3], 4).tolist())
        found = np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape))
        if raw[:3] != b"\0\0\x08":
            raise ValueError("not an IDX file of bytes")
    except (OSError, ValueError, IndexError, EOFError, zlib.error) as problem:
        raise DataError(f"'{path}' is not a readable IDX file of bytes.") from problem
    if found.size != math.prod(shape) or len(shape) > MOST_AXES:
        raise DataError(f"'{path}' is damaged: its header says {list(shape)}, and {found.size} bytes follow.")
    return found.reshape(shape)


def idx_file(folder: Path, part: Part, kind: str) -> Path | None:
    """The file of a part's "images" or "labels" in a folder, under any of its usual names; None if it is not there."""
    axes = {"images": 3, "labels": 1}[kind]
    names = [f"{STEMS[part]}-{kind}{dot}idx{axes}-ubyte{packed}" for packed in (".gz", "") for dot in "-."]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_idx_folder(folder: Path, part: Part = Part.TEST) -> Examples:
    """MNIST's training or test images (n, 1, height, width), from 0 to 1, with their labels.

    DataError names the file that is missing or damaged.
    """
    arrays = []
    for kind, axes in (("images", 3), ("labels", 1)):
        path = idx_file(folder, part, kind)
        if path is None:
            raise DataError(f"'{folder}' does not hold MNIST's {part.value} set: there is no "
                            f"{STEMS[part]}-{kind}-idx{axes}-ubyte.gz in it.")
        found = read_idx(path)
        if found.ndim != axes:
            raise DataError(f"'{path}' holds {found.ndim} axes; {kind} have {axes}.")
        arrays.append(found)
    return Examples(torch.from_numpy(numbers(arrays[0])), torch.from_numpy(arrays[1].astype(np.int64)))
