"""Where a recipe's data come from: a folder that the user names, or the small digits that scikit-learn ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from boundlab.data.examples import Examples, Part
from boundlab.data.lexicon import lexicon_of
from boundlab.data.read import read_examples
from boundlab.data.sentences import read_sentences
from boundlab.errors import DataError, MissingPackage
from boundlab.perturbations.words import read_synonyms
from boundlab.train.recipe import Recipe, WordsTable

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


TEST, SYNONYMS = "test.tsv", "synonyms.json"
"""Files of a folder with sentences: a sentence, a tab and its label in each line; and {"word": ["other", ...], ...}."""


def examples_of(recipe: Recipe, path: Path | None) -> tuple[Examples, Examples]:
    """Training and test examples of a recipe; errors as those of `training_and_test` and `sentences_in`."""
    if recipe.words is None:
        return training_and_test(path, recipe.data, recipe.seed)
    if path is None:
        raise DataError(f"the recipe trains on {recipe.data}; name the folder with {recipe.words.training}, {TEST} and "
                        f"{SYNONYMS} by --data.")
    return sentences_in(path, recipe.words)


def sentences_in(folder: Path, words: WordsTable) -> tuple[Examples, Examples]:
    """Training and test sentences of a folder, with the lexicon of the training sentences and their synonyms.

    DataError or SpecError, with the file's name, where something cannot be read.
    """
    files = [folder / name for name in (words.training, TEST)]
    read = [read_sentences(file) for file in files]
    lexicon = lexicon_of(read[0][0], read_synonyms(folder / SYNONYMS), words.least)
    room = words.length - words.start
    found = []
    for file, (sentences, labels) in zip(files, read, strict=True):
        kept = [place for place, one in enumerate(sentences) if words.longer == "cut" or len(one) <= room]
        if not kept:
            raise DataError(f"'{file}' has no sentence of at most {room} words.")
        numbers = lexicon.numbers([sentences[place] for place in kept], words.length, words.start)
        found.append(Examples(numbers, torch.tensor([labels[place] for place in kept]), lexicon=lexicon))
    return found[0], found[1]


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
