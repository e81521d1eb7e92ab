"""CIFAR-10 as its binary files (Krizhevsky 2009, "Learning multiple layers of features from tiny images")."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from boundlab.data.arrays import numbers
from boundlab.data.examples import Examples, Part
from boundlab.errors import DataError

FILES = {Part.TRAIN: tuple(f"data_batch_{number}.bin" for number in range(1, 6)), Part.TEST: ("test_batch.bin",)}
IMAGE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
"""Bytes of an example: its label, then red, green and blue, each row by row."""
CLASSES = 10


def read_cifar_folder(folder: Path, part: Part = Part.TEST) -> Examples:
    """CIFAR-10's training or test images (n, 3, 32, 32), from 0 to 1, with their labels.

    DataError names the file that is missing or damaged.
    """
    records = np.concatenate([records_of(folder / name) for name in FILES[part]])
    images = records[:, 1:].reshape(-1, *IMAGE)
    return Examples(torch.from_numpy(numbers(images)), torch.from_numpy(records[:, 0].astype(np.int64)))


def records_of(path: Path) -> np.ndarray:
    """The records (n, RECORD) of one file."""
    if not path.is_file():
        raise DataError(f"'{path.parent}' does not hold all of CIFAR-10: there is no {path.name} in it.")
    raw = np.frombuffer(path.read_bytes(), np.uint8)
    if raw.size == 0 or raw.size % RECORD:
        raise DataError(f"'{path}' is damaged: it has {raw.size} bytes, which are not whole records of {RECORD}.")
    records = raw.reshape(-1, RECORD)
    largest = int(records[:, 0].max())
    if largest >= CLASSES:
        raise DataError(f"'{path}' is no file of CIFAR-10: it has the label {largest}, and there are {CLASSES}.")
    return records
