"""read_examples: a data set from whatever holds it."""

from __future__ import annotations

from pathlib import Path

from boundlab.data.arrays import ARRAYS, read_array_file
from boundlab.data.cifar import FILES, read_cifar_folder
from boundlab.data.examples import Examples, Part
from boundlab.data.idx import idx_file, read_idx_folder
from boundlab.data.tables import read_pictures, read_table
from boundlab.errors import DataError

KINDS = ("an .npz file of x and y, a .npy file, a .csv table, a folder of MNIST's IDX files, of CIFAR-10's binary files, or of "
         "pictures with one .csv file of the columns file and label")


def read_examples(path: str | Path, part: Part = Part.TEST) -> Examples:
    """The examples in a file or folder: .npz (x, y), .npy, .csv, MNIST's IDX files, CIFAR-10's binary files, or pictures.

    `part` chooses between training and test set where a folder has both. Bytes are pixels, from 0 to 1 with channels first.
    DataError for whatever is not readable, empty, or does not fit together; its one sentence begins with what was asked.
    """
    place = Path(path)
    if place.is_dir():
        return read_folder(place, part)
    if not place.exists():
        raise DataError(f"the data '{place}' does not exist; give {KINDS}.")
    if not place.is_file():
        raise DataError(f"the data '{place}' is neither a file nor a folder; give {KINDS}.")
    readers = {**dict.fromkeys(ARRAYS, read_array_file), ".csv": read_table}
    if place.suffix not in readers:
        raise DataError(f"'{place}' is none of the kinds of data that can be read; give {KINDS}.")
    try:
        return readers[place.suffix](place)
    except DataError as problem:
        raise named(place, problem) from problem


def read_folder(folder: Path, part: Part) -> Examples:
    """The examples of a folder by what it holds."""
    tables = sorted(folder.glob("*.csv"))
    try:
        if any(idx_file(folder, own, kind) for own in Part for kind in ("images", "labels")):
            return read_idx_folder(folder, part)
        if any((folder / name).is_file() for own in Part for name in FILES[own]):
            return read_cifar_folder(folder, part)
        if len(tables) == 1:
            return read_pictures(tables[0])
    except DataError as problem:
        raise named(folder, problem) from problem
    raise DataError(f"'{folder}' holds {len(tables)} .csv files and none of MNIST's or CIFAR-10's files; give {KINDS}.")


def named(path: Path, problem: DataError) -> DataError:
    """The error with the path in it."""
    return problem if str(path) in str(problem) else DataError(f"'{path}': {problem}")
