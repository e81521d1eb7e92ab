"""Where a recipe's data come from: a folder that the user names, or the small digits that scikit-learn ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from boundlab.data.examples import Examples, Part
from boundlab.data.read import read_examples
from boundlab.errors import DataError, MissingPackage

DIGITS = "digits"
"""What recipes call the digits of scikit-learn."""


def digits() -> Examples:
    """The 1797 handwritten digits of 8 x 8 pixels that scikit-learn ships, scaled to [0, 1] (Alpaydin and Kaynak 1998, UCI)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as problem:
        raise MissingPackage("the digits need scikit-learn: pip install 'boundlab[demo]'.") from problem
    held = load_digits()
    return Examples(torch.from_numpy(held.images.astype(np.float32)).unsqueeze(1) / 16,
                    torch.from_numpy(held.target.astype(np.int64)))


def permuted(examples: Examples, seed: int) -> Examples:
    """The examples in an order that `seed` fixes."""
    return examples.take(torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed)).tolist())


TEST_SHARE = 0.2
"""The share of examples that are kept for the test where a source has no test set of its own."""


def training_and_test(path: Path | None, data: str, seed: int) -> tuple[Examples, Examples]:
    """Training and test examples of a recipe whose data are called `data`; DataError if a folder is needed and not given.

    Where the source has one set for both, a share of it, which `seed` fixes, is kept for the test.
    """
    if path is None and data != DIGITS:
        raise DataError(f"the recipe trains on {data}; name the folder or file that holds it with --data.")
    if path is None:
        return apart(digits(), seed)
    training, test = (read_examples(path, part) for part in (Part.TRAIN, Part.TEST))
    if training.x.shape == test.x.shape and torch.equal(training.x, test.x):
        return apart(training, seed)
    return training, test


def apart(examples: Examples, seed: int) -> tuple[Examples, Examples]:
    """Training and test examples, which share none."""
    mixed, end = permuted(examples, seed), round((1 - TEST_SHARE) * len(examples))
    if not 0 < end < len(examples):
        raise DataError(f"{len(examples)} examples are too few to keep some for the test.")
    return mixed.take(range(end)), mixed.take(range(end, len(examples)))
