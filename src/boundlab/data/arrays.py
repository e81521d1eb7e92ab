"""Examples in numpy's files, and how stored numbers become inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from boundlab.data.examples import Examples
from boundlab.errors import DataError

ARRAYS = (".npy", ".npz")
"""How the names of numpy's files end."""
COLOURS = (1, 3)
"""Sizes of an axis of channels."""


def numbers(values: np.ndarray) -> np.ndarray:
    """Stored numbers as inputs in float32: bytes are pixels, from 0 to 1, with an axis of channels before height and width.

    Bytes (n, height, width) are grey; bytes (n, height, width, channels) are turned. Numbers of other types stay as they are.
    """
    if values.dtype != np.uint8:
        with np.errstate(over="ignore"):  # infinite then, which is refused
            return np.array(values, dtype=np.float32, order="C")
    if values.ndim == 3:
        values = values[:, None]
    elif values.ndim == 4 and values.shape[1] not in COLOURS and values.shape[3] in COLOURS:
        values = values.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(values, dtype=np.float32) / np.float32(255)


def read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The inputs of a .npy file, or `x` of an .npz file with its labels `y`, as they are stored; DataError for other files."""
    try:
        with path.open("rb") as file:
            held = np.load(file, allow_pickle=False)
            if isinstance(held, np.ndarray):
                return numeric(held, path), None
            named = {name: held[name] for name in held.files}
    except (OSError, DataError):
        raise
    except Exception as problem:  # numpy and zipfile have many kinds, and MemoryError for a size that is none
        raise DataError(f"'{path}' is not a readable .npy or .npz file of numbers.") from problem
    return numeric(inputs_of(named, path), path), labels_of(named, path)


def inputs_of(named: Mapping[str, np.ndarray], path: Path) -> np.ndarray:
    """The array `x`, or the only one."""
    if "x" not in named and len(named) != 1:
        raise DataError(f"'{path}' holds {sorted(named)}; name the inputs 'x' (and their labels 'y').")
    return named["x"] if "x" in named else next(iter(named.values()))


def labels_of(named: Mapping[str, np.ndarray], path: Path) -> np.ndarray | None:
    """The array `y` in a row, as int64; None if there is none."""
    if "y" not in named:
        return None
    if named["y"].dtype.kind not in "iu":
        raise DataError(f"the labels 'y' of '{path}' are {named['y'].dtype}; whole numbers are needed.")
    return named["y"].reshape(-1).astype(np.int64)


def numeric(values: np.ndarray, path: Path) -> np.ndarray:
    """The array, if it holds numbers."""
    if values.dtype.kind not in "fiub" or values.size == 0:
        raise DataError(f"'{path}' holds {values.dtype} of shape {list(values.shape)}; numbers are needed.")
    return values


def read_array_file(path: Path) -> Examples:
    """The examples of an .npz file of x and y, or of a .npy file, which has no labels."""
    values, labels = read_arrays(path)
    if values.ndim < 2:
        raise DataError(f"'{path}' has shape {list(values.shape)}; examples are (n, ...), also if there is one.")
    return Examples(torch.from_numpy(numbers(values)), None if labels is None else torch.from_numpy(labels))
