"""Sums of products over named axes (Einstein's notation), as sums, permutations and products of matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from boundlab.capture import composed
from boundlab.capture.builder import Builder
from boundlab.errors import CaptureError


@dataclass(frozen=True)
class Named:
    """A node and one letter for each of its axes."""

    index: int
    letters: str


def einsum(build: Builder, equation: str, operands: Sequence[int]) -> int:
    """What `equation`, such as "bij,bjk->bik", says of the operands' entries; an ellipsis stands for axes that broadcast."""
    parts, wanted = named(build, equation.replace(" ", ""), operands)
    parts = [without_repeats(build, part) for part in parts]
    total = parts[0]
    for place, part in enumerate(parts[1:], 1):
        kept = set(wanted).union(*(set(later.letters) for later in parts[place + 1:]))
        total = pair(build, total, part, kept)
    total = summed(build, total, set(wanted))
    return build.add("permute", total.index, dims=tuple(total.letters.index(letter) for letter in wanted))


def named(build: Builder, equation: str, operands: Sequence[int]) -> tuple[list[Named], str]:
    """The operands with their letters, and the letters of the result; axes under an ellipsis get letters of their own."""
    left, arrow, right = equation.partition("->")
    terms, free = left.split(","), "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    if len(terms) != len(operands):
        raise CaptureError(f"the equation '{equation}' speaks of {len(terms)} operands, {len(operands)} are given")
    hidden = [len(build.shape(index)) - len(term.replace("...", "")) for term, index in zip(terms, operands, strict=True)]
    most = max([count for term, count in zip(terms, hidden, strict=True) if "..." in term], default=0)
    own = [letter for letter in free if letter not in equation][:most]
    spelt = [term.replace("...", "".join(own[most - count:])) for term, count in zip(terms, hidden, strict=True)]
    if not arrow:
        once = sorted(letter for letter in set("".join(spelt)) - set(own) if "".join(spelt).count(letter) == 1)
        right = "..." + "".join(once)
    parts = [Named(index, letters) for index, letters in zip(operands, spelt, strict=True)]
    if any(len(build.shape(part.index)) != len(part.letters) for part in parts):
        raise CaptureError(f"the equation '{equation}' does not fit shapes {[build.shape(index) for index in operands]}")
    return parts, right.replace("...", "".join(own))


def without_repeats(build: Builder, part: Named) -> Named:
    """The diagonal, where a letter stands twice in one operand."""
    letters, index = part.letters, part.index
    for letter in sorted(set(letters)):
        while letters.count(letter) > 1:
            first, second = letters.index(letter), letters.index(letter, letters.index(letter) + 1)
            index = composed.diagonal(build, index, first, second)
            letters = letters[:second] + letters[second + 1:]
    return Named(index, letters)


def summed(build: Builder, part: Named, kept: set[str]) -> Named:
    """The sum over all letters that nobody needs any more."""
    dims = tuple(place for place, letter in enumerate(part.letters) if letter not in kept)
    if not dims:
        return part
    return Named(build.add("sum", part.index, dims=dims), "".join(letter for letter in part.letters if letter in kept))


def pair(build: Builder, first: Named, second: Named, kept: set[str]) -> Named:
    """The product of two operands, summed over what only they have: a product of matrices over shared leading axes."""
    first = summed(build, first, kept | set(second.letters))
    second = summed(build, second, kept | set(first.letters))
    shared = [letter for letter in first.letters if letter in second.letters]
    lead = [letter for letter in shared if letter in kept]
    inner = [letter for letter in shared if letter not in kept]
    rows = [letter for letter in first.letters if letter not in shared]
    columns = [letter for letter in second.letters if letter not in shared]
    sizes = dict(zip(first.letters, build.shape(first.index), strict=True))
    for letter, size in zip(second.letters, build.shape(second.index), strict=True):
        sizes[letter] = max(size, sizes.get(letter, 1))

    def matrix(part: Named, order: Sequence[str], ends: tuple[Sequence[str], Sequence[str]]) -> int:
        index = build.add("permute", part.index, dims=tuple(part.letters.index(letter) for letter in order))
        index = stretched(build, index, [sizes[letter] for letter in order])
        folded = [math.prod(sizes[letter] for letter in group) for group in ends]
        return build.add("reshape", index, shape=(*(sizes[letter] for letter in lead), *folded))

    left = matrix(first, [*lead, *rows, *inner], (rows, inner))
    right = matrix(second, [*lead, *inner, *columns], (inner, columns))
    found, letters = composed.product(build, left, right), [*lead, *rows, *columns]
    return Named(build.add("reshape", found, shape=tuple(sizes[letter] for letter in letters)), "".join(letters))


def stretched(build: Builder, index: int, shape: Sequence[int]) -> int:
    """A node whose axes of size 1 are repeated where others have more."""
    return index if build.shape(index) == tuple(shape) else build.add("expand", index, shape=tuple(shape))
