"""Words as numbers, with what may stand in for each: what examples made of sentences are about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from boundlab.errors import DataError

PADDING, UNKNOWN, START = "[pad]", "[unk]", "[cls]"
SPECIAL = (PADDING, UNKNOWN, START)
"""The words 0, 1 and 2: what fills up short sentences, what stands for rare words, and what a sentence begins with."""
Words = Sequence[str]


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Words by number, and numbers of the words that may replace each, (words, c) int64, filled up with 0.

    DataError if a candidate is no word, or special words are missing.
    """

    words: tuple[str, ...]
    candidates: Tensor

    def __post_init__(self) -> None:
        if self.words[:len(SPECIAL)] != SPECIAL:
            raise DataError(f"a lexicon begins with {', '.join(SPECIAL)}, got {', '.join(self.words[:len(SPECIAL)])}.")
        given = self.candidates
        if given.dtype != torch.int64 or given.dim() != 2 or len(given) != len(self.words):
            raise DataError(f"candidates are int64 of shape ({len(self.words)}, c), got {given.dtype} of shape "
                            f"{list(given.shape)}.")
        if bool(((given < 0) | (given >= len(self.words))).any()):
            raise DataError(f"a candidate is no number of a word, 0 to {len(self.words) - 1}.")

    @cached_property
    def number(self) -> Mapping[str, int]:
        """Numbers by word."""
        return {word: place for place, word in enumerate(self.words)}

    def numbers(self, sentences: Sequence[Words], length: int, start: bool = False) -> Tensor:
        """Sentences as numbers (n, length), cut or filled up; rare words are `UNKNOWN`. With `start`, `START` comes first."""
        unknown, first = self.number[UNKNOWN], [self.number[START]] if start else []
        found = torch.zeros(len(sentences), length, dtype=torch.int64)
        for row, sentence in zip(found, sentences, strict=True):
            known = (first + [self.number.get(word, unknown) for word in sentence])[:length]
            row[:len(known)] = torch.tensor(known, dtype=torch.int64)
        return found


def lexicon_of(sentences: Sequence[Words], synonyms: Mapping[str, Sequence[str]], least: int = 2) -> Lexicon:
    """The words that `sentences` have at least `least` times, by the alphabet, and those of their synonyms among them.

    Xu et al. 2020 (auto_LiRPA), published code.
    """
    counts = Counter(word for sentence in sentences for word in sentence)
    words = (*SPECIAL, *sorted(word for word, count in counts.items() if count >= least and word not in SPECIAL))
    number = {word: place for place, word in enumerate(words)}
    lists = [[number[other] for other in dict.fromkeys(synonyms.get(word, ())) if other in number and other != word]
             for word in words]
    candidates = torch.zeros(len(words), max(1, *map(len, lists)), dtype=torch.int64)
    for row, found in zip(candidates, lists, strict=True):
        row[:len(found)] = torch.tensor(found, dtype=torch.int64)
    return Lexicon(words, candidates)
