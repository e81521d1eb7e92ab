"""Labelled sentences in a text file: one a line, then a tab and the label."""

from __future__ import annotations

from pathlib import Path

from boundlab.errors import DataError

HEADING = ("sentence", "label")
LABELS = 10


def read_sentences(path: Path) -> tuple[list[tuple[str, ...]], list[int]]:
    """Sentences, as lower-case words between blanks, and their labels; a first line 'sentence label' is passed over.

    DataError names the file, and the line that is not a sentence with a label.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"'{path}' cannot be read as text ({type(problem).__name__}); it should hold a sentence, a tab and a "
                        "label in each line.") from problem
    sentences, labels = [], []
    for place, line in enumerate(lines):
        text, _, label = line.rstrip().rpartition("\t")
        if place == 0 and (text, label) == HEADING:
            continue
        if not text.split() or not (label.isascii() and label.isdigit()) or len(label) > LABELS:
            raise DataError(f"line {place + 1} of '{path}' is no sentence with a label: {line[:60]!r}; a tab goes "
                            "between the two.")
        sentences.append(tuple(text.lower().split()))
        labels.append(int(label))
    if not sentences:
        raise DataError(f"'{path}' holds no sentence.")
    return sentences, labels
