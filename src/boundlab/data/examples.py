"""Examples: inputs with their labels, as every reader gives them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from boundlab.data.lexicon import Lexicon
from boundlab.errors import DataError


class Part(enum.Enum):
    """Which part of a data set that comes in two."""

    TRAIN = "train"
    TEST = "test"


@dataclass(frozen=True)
class Examples:
    """Inputs x (n, *shape) in float32, labels (n,) int64 or None, and names where there are any.

    Sentences are int64 numbers of words, and `lexicon` says which words these are.

    DataError if there is no example, if lengths do not fit, for numbers that are not finite, and for negative labels.
    """

    x: Tensor
    labels: Tensor | None = None
    names: tuple[str, ...] | None = None
    lexicon: Lexicon | None = None

    def __post_init__(self) -> None:
        if self.x.dtype not in (torch.float32, torch.int64) or self.x.dim() < 2 or self.x.numel() == 0:
            raise DataError(f"examples are a float32 tensor (n, ...) with at least one number, or int64 numbers of words; got "
                            f"{self.x.dtype} of shape {list(self.x.shape)}.")
        finite = torch.isfinite(self.x).flatten(1).all(1)
        if not bool(finite.all()):
            raise DataError(f"example {self.name(int((~finite).nonzero()[0]))} holds NaN or infinite numbers.")
        if self.names is not None and len(self.names) != len(self.x):
            raise DataError(f"there are {len(self.x)} examples and {len(self.names)} names; give one for each.")
        if self.labels is not None:
            check_labels(self.labels, len(self.x))

    def __len__(self) -> int:
        return len(self.x)

    def name(self, place: int) -> str:
        """What an example is called: its own name, or its number."""
        return str(place) if self.names is None else f"{place} ('{self.names[place]}')"

    def take(self, places: Sequence[int]) -> Examples:
        """The examples at some places, in that order."""
        chosen = list(places)
        return replace(self, x=self.x[chosen], labels=None if self.labels is None else self.labels[chosen],
                       names=None if self.names is None else tuple(self.names[place] for place in chosen))

    def first_of_each(self, count: int) -> Examples:
        """The first `count` examples of each class, in their order; DataError without labels."""
        labels = self.labelled()[1]
        places = [(labels == label).nonzero().flatten()[:count] for label in labels.unique()]
        return self.take(torch.cat(places).sort().values.tolist())

    def labelled(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels; DataError if there are none."""
        if self.labels is None:
            raise DataError("the data has no labels; name them 'y' in an .npz file, or 'label' in a table.")
        return self.x, self.labels

    def of_classes(self, count: int) -> Examples:
        """These examples, if each has the label of one of `count` classes, from 0 on; else DataError, which names the first."""
        _, labels = self.labelled()
        wrong = (labels >= count).nonzero().flatten().tolist()
        if wrong:
            raise DataError(f"example {self.name(wrong[0])} has the label {int(labels[wrong[0]])}, and the network has the "
                            f"classes 0 to {count - 1}.")
        return self

    def within(self, low: float, high: float) -> Examples:
        """These examples, if all their numbers lie between `low` and `high`; else DataError, which names the first."""
        outside = ((self.x < low) | (self.x > high)).flatten(1).any(1)
        if bool(outside.any()):
            first = int(outside.nonzero()[0])
            ends = float(self.x[first].min()), float(self.x[first].max())
            raise DataError(f"{int(outside.sum())} of {len(self)} examples have numbers outside {low:g} to {high:g}; the "
                            f"first, {self.name(first)}, goes from {ends[0]:g} to {ends[1]:g}: scale the data, or say which "
                            "domain it has.")
        return self

    def fitted(self, shape: Sequence[int]) -> Examples:
        """These examples for a network with inputs of `shape`; DataError if they do not fit.

        The pixels of a (channels, height, width) image in a row are the same image, and so are its channels last.
        """
        own, wanted = tuple(self.x.shape[1:]), tuple(shape)
        if own == wanted:
            return self
        if len(own) == 3 and wanted == (own[1], own[2], own[0]):
            return replace(self, x=self.x.permute(0, 2, 3, 1).contiguous())
        plain = tuple(size for size in own if size != 1), tuple(size for size in wanted if size != 1)
        if plain[0] == plain[1] or (self.x[0].numel() == torch.Size(wanted).numel() and min(map(len, plain)) <= 1):
            return replace(self, x=self.x.reshape(len(self), *wanted))
        raise DataError(f"the data has examples of shape {list(own)}; the network takes {list(wanted)}.")


def check_labels(labels: Tensor, count: int) -> None:
    """DataError unless these are `count` whole numbers from 0 on."""
    if labels.dtype != torch.int64 or labels.dim() != 1:
        raise DataError(f"labels are int64 of shape (n,), got {labels.dtype} of shape {list(labels.shape)}.")
    if len(labels) != count:
        raise DataError(f"there are {count} examples and {len(labels)} labels; give one for each.")
    if bool((labels < 0).any()):
        raise DataError(f"label {int(labels.min())} of example {int(labels.argmin())} is negative; classes are counted from 0.")


def examples_in(data: object) -> Examples:
    """The same examples; DataError for anything else, such as a tuple of tensors."""
    if isinstance(data, Examples):
        return data
    raise DataError(f"data is given as bl.Examples(x, labels), got {type(data).__name__}.")
