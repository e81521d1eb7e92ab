"""From words to vectors: sentences and lists of synonyms as a Substitution, for networks that begin with word vectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from boundlab.errors import SpecError
from boundlab.perturbations.substitution import Substitution

Sentences = Sequence[Sequence[str]]
Candidates = Mapping[str, Sequence[str]] | Callable[[Sequence[str], int], Sequence[str]]
"""What may replace a word: lists by word, or a function of a sentence and a position in it (a language model, say)."""
MOST_NAMED = 5
"""Words that an error names at most."""


def read_synonyms(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Lists of words by word, from a JSON file {"word": ["other", ...], ...}. SpecError if there is no such file, or
    it holds anything else.
    """
    try:
        held = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as problem:
        raise SpecError(f"the synonyms in '{path}' cannot be read: {problem.strerror}.") from problem
    except ValueError as problem:
        raise SpecError(f"the synonyms in '{path}' are not readable as JSON: {problem}.") from problem
    if not isinstance(held, dict):
        raise SpecError(f"the synonyms in '{path}' must be an object of words with their lists, got a {type(held).__name__}.")
    for word, others in held.items():
        if not isinstance(others, list) or not all(isinstance(other, str) for other in others):
            raise SpecError(f"the synonyms in '{path}' must be lists of words; that of '{word}' is {others!r:.60}.")
    return {word: tuple(others) for word, others in held.items()}


def known_words(synonyms: Mapping[str, Sequence[str]], vocabulary: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """The same lists without words that a vocabulary lacks."""
    kept = {word: tuple(other for other in others if other in vocabulary) for word, others in synonyms.items()}
    return {word: others for word, others in kept.items() if others}


@dataclass(frozen=True)
class WordVectors:
    """Words as vectors: `vocabulary` numbers the rows of `vectors` (words, width).

    `unknown` is the word that stands for all others, `padding` the word that fills up short sentences; both belong to the
    vocabulary, None means that there is no such word. SpecError if a number has no row.
    """

    vocabulary: Mapping[str, int]
    vectors: Tensor
    unknown: str | None = None
    padding: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.vectors, Tensor) or self.vectors.dim() != 2 or not self.vectors.is_floating_point():
            raise SpecError("word vectors must be a floating tensor (words, width).")
        wrong = [word for word, number in self.vocabulary.items() if not 0 <= number < len(self.vectors)]
        if wrong:
            raise SpecError(f"there are {len(self.vectors)} word vectors; the vocabulary has other numbers for {named(wrong)}.")
        for role, word in (("unknown", self.unknown), ("padding", self.padding)):
            if word is not None and word not in self.vocabulary:
                raise SpecError(f"the word '{word}' for {role} words is not in the vocabulary.")

    def embed(self, sentences: Sentences, length: int | None = None) -> Tensor:
        """Vectors of sentences, filled up to `length` words or the longest, (b, positions, width)."""
        check_sentences(sentences)
        longest = max(map(len, sentences))
        wanted = longest if length is None else length
        if longest > wanted:
            raise SpecError(f"a sentence has {longest} words, more than length {wanted}; cut it, or raise the length.")
        if self.padding is None and min(map(len, sentences)) < wanted:
            raise SpecError(f"sentences have {min(map(len, sentences))} to {longest} words for {wanted} positions; give "
                            "WordVectors the word for `padding`.")
        filled = [[*sentence, *[self.padding or ""] * (wanted - len(sentence))] for sentence in sentences]
        return self.vectors[self.numbers(filled)]

    def numbers(self, sentences: Sentences) -> Tensor:
        """Rows of the vectors, (b, positions); SpecError for words outside the vocabulary if no `unknown` stands for them."""
        missing = {word for sentence in sentences for word in sentence if word not in self.vocabulary}
        if missing and self.unknown is None:
            raise SpecError(f"the vocabulary of {len(self.vocabulary)} words lacks {named(sorted(missing))}; give WordVectors "
                            "a word for `unknown` ones.")
        other = -1 if self.unknown is None else self.vocabulary[self.unknown]
        found = [[self.vocabulary.get(word, other) for word in sentence] for sentence in sentences]
        return torch.tensor(found, dtype=torch.long, device=self.vectors.device)

    def substitution(self, sentences: Sentences, candidates: Candidates, budget: Tensor | int,
                     length: int | None = None) -> Substitution:
        """Sentences in which at most `budget` words are replaced by candidates.

        Candidates are synonyms by word, or come from a function of a sentence and a position. SpecError if one of them is
        not in the vocabulary.
        """
        center = self.embed(sentences, length)
        lists = [[choices(sentence, place, candidates) for place in range(len(sentence))] for sentence in sentences]
        strange = [(other, sentence[place]) for sentence, found in zip(sentences, lists, strict=True)
                   for place, others in enumerate(found) for other in others if other not in self.vocabulary]
        if strange:
            more = f" (and {len(strange) - 1} more)" if strange[1:] else ""
            raise SpecError(f"'{strange[0][0]}', a candidate for '{strange[0][1]}', is not in the vocabulary{more}; "
                            "known_words(synonyms, vocabulary) leaves such words out.")
        most = max(1, *(len(others) for found in lists for others in found))
        rows = torch.zeros(*center.shape[:2], most, dtype=torch.long)
        allowed = torch.zeros(rows.shape, dtype=torch.bool)
        for i, found in enumerate(lists):
            for place, others in enumerate(found):
                rows[i, place, :len(others)] = torch.tensor([self.vocabulary[other] for other in others], dtype=torch.long)
                allowed[i, place, :len(others)] = True
        device = self.vectors.device
        return Substitution(center, self.vectors[rows.to(device)], budget, allowed.to(device))


def choices(sentence: Sequence[str], place: int, candidates: Candidates) -> tuple[str, ...]:
    """What may replace one word: each other word once."""
    word = sentence[place]
    found = candidates.get(word, ()) if isinstance(candidates, Mapping) else candidates(sentence, place)
    if isinstance(found, str):
        raise SpecError(f"the candidates for '{word}' must be a list of words, got the text {found!r:.60}.")
    return tuple(other for other in dict.fromkeys(found) if other != word)


def check_sentences(sentences: Sentences) -> None:
    """SpecError unless these are lists of words, none of them empty."""
    if isinstance(sentences, str) or any(isinstance(sentence, str) for sentence in sentences):
        raise SpecError("sentences must be lists of words, got text; split it into words first, such as text.split().")
    if not sentences or not all(len(sentence) for sentence in sentences):
        raise SpecError("there must be at least one sentence, and each must have at least one word.")


def named(words: Sequence[str]) -> str:
    """The first few words for an error, and how many more there are."""
    listed = ", ".join(f"'{word}'" for word in words[:MOST_NAMED])
    return listed + (f" and {len(words) - MOST_NAMED} more" if len(words) > MOST_NAMED else "")
