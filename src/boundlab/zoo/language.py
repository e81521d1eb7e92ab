"""Classifiers of embedded sentences for SST-2: a bag of words, an LSTM and a Transformer, and an embedding in front of one."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from boundlab.errors import ShapeError
from boundlab.zoo.layers import Shape, activated
from boundlab.zoo.record import Record

WORDS = (32, 64)
"""Words of a sentence, padding included, and numbers of an embedding."""
SOURCE = "Xu et al. 2020 (auto_LiRPA), Table 5 and App. C.2"
FAR = -1e4
"""Added to the attention scores of padding."""


def sentence(shape: Shape) -> Shape:
    """The shape itself; ShapeError unless it is (words, width)."""
    if len(shape) != 2:
        raise ShapeError(f"this network takes embedded sentences (words, width), got the shape {list(shape)}.")
    return shape


class LSTMClassifier(nn.Module):
    """A cell that reads the words forwards and one that reads them backwards; the mean of their states, one linear layer."""

    def __init__(self, width: int, classes: int, hidden: int = 64) -> None:
        super().__init__()
        self.forwards, self.backwards = nn.LSTMCell(width, hidden), nn.LSTMCell(width, hidden)
        self.last = nn.Linear(2 * hidden, classes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embeddings (b, words, width), and 1 for words and 0 for padding in `mask` (b, words), to logits (b, classes)."""
        x = x if mask is None else x * mask.unsqueeze(-1)
        means = []
        for cell, words in ((self.forwards, x.unbind(1)), (self.backwards, x.unbind(1)[::-1])):
            states, state = [], None
            for word in words:
                state = cell(word, state)
                states.append(state[0])
            means.append(torch.stack(states).mean(0))
        logits: Tensor = self.last(torch.cat(means, dim=1))
        return logits


class Centred(nn.Module):
    """Layer norm without its division: x minus its mean, then a learned scale and shift (Shi et al. 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(b, words, width) to the same."""
        return self.weight * (x - x.mean(-1, keepdim=True)) + self.bias


class Attention(nn.Module):
    """Self-attention of several heads, written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def split(self, x: Tensor) -> Tensor:
        """(b, words, width) to (b, heads, words, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(b, words, width) to the same."""
        query, key, value = (self.split(part(x)) for part in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        if mask is not None:
            scores = scores + FAR * (1 - mask)[:, None, None, :]
        mixed: Tensor = self.out((torch.softmax(scores, -1) @ value).transpose(1, 2).flatten(2))
        return mixed


class TransformerClassifier(nn.Module):
    """A linear layer, one encoder layer with ReLU, and a tanh pooler on the first word; norms without variance."""

    def __init__(self, width: int, classes: int, hidden: int = 64, heads: int = 4, inner: int = 128) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(width, hidden), Centred(hidden)
        self.attention, self.attention_norm = Attention(hidden, heads), Centred(hidden)
        self.feed = nn.Sequential(*activated(nn.Linear(hidden, inner)), nn.Linear(inner, hidden))
        self.feed_norm = Centred(hidden)
        self.pooler = nn.Sequential(*activated(nn.Linear(hidden, hidden), nn.Tanh))
        self.last = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embeddings (b, words, width), and 1 for words and 0 for padding in `mask` (b, words), to logits (b, classes)."""
        x = self.norm(self.first(x))
        x = self.attention_norm(x + self.attention(x, mask))
        x = self.feed_norm(x + self.feed(x))
        logits: Tensor = self.last(self.pooler(x[:, 0]))
        return logits


class BagClassifier(nn.Module):
    """The mean over words of a layer that reads each on its own, and one hidden layer; the order of words does not count."""

    def __init__(self, width: int, classes: int, hidden: int = 64) -> None:
        super().__init__()
        self.each = nn.Sequential(*activated(nn.Linear(width, hidden)))
        self.tail = nn.Sequential(*activated(nn.Linear(hidden, hidden)), nn.Linear(hidden, classes))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embeddings (b, words, width), and 1 for words and 0 for padding in `mask` (b, words), to logits (b, classes)."""
        read = self.each(x)
        logits: Tensor = self.tail((read if mask is None else read * mask.unsqueeze(-1)).mean(1))
        return logits


class Worded(nn.Module):
    """An embedding in front of a classifier of embedded sentences; leave it out where embeddings are what varies."""

    def __init__(self, classifier: nn.Module, words: int, width: int = WORDS[1]) -> None:
        super().__init__()
        self.embedding, self.classifier = nn.Embedding(words, width), classifier

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Numbers of words (b, words) to logits (b, classes)."""
        logits: Tensor = self.classifier(self.embedding(tokens), mask)
        return logits


def lstm(shape: Shape, classes: int) -> nn.Module:
    """The LSTM classifier for sentences of this shape."""
    return LSTMClassifier(sentence(shape)[1], classes)


def transformer(shape: Shape, classes: int) -> nn.Module:
    """The Transformer classifier for sentences of this shape."""
    return TransformerClassifier(sentence(shape)[1], classes)


def bag(shape: Shape, classes: int) -> nn.Module:
    """The bag of words for sentences of this shape."""
    return BagClassifier(sentence(shape)[1], classes)


def records() -> Iterator[Record]:
    """All of this family."""
    yield Record("bag-sst2", "boundlab; after the bag of words of Jia et al. 2019", WORDS, 2, bag,
                 note="small enough to be trained by bounds in minutes of one core")
    yield Record("lstm-sst2", SOURCE, WORDS, 2, lstm, note="the dropout of 0.5 on embeddings in training is left out")
    yield Record("transformer-sst2", SOURCE, WORDS, 2, transformer,
                 note="norms divide by no variance, and there are no embeddings of positions and segments, as in the published "
                      "code; the dropout of 0.1 in training is left out")
