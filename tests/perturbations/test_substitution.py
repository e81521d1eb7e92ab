"""Word substitution: exact minima against every sentence and the dynamic program, through networks, and wrong calls."""

import functools
import json
import math
import os
from pathlib import Path

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.maps import Dense, Select
from tests.perturbations import brute

F64 = torch.float64
DATA = os.environ.get("BOUNDLAB_DATA")
WIDTH = 4
METHODS = [bl.IBP(), bl.Forward(), bl.CROWN(bl.IBP()), bl.CROWN()]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


def region(length=6, choices=3, budget=2, batch=2, seed=0, share=0.6):
    """Sentences with ragged lists: a share of the places holds a candidate, the rest NaN that must never be read."""
    allowed = torch.rand(batch, length, choices, generator=seeded(seed + 1)) < share
    candidates = torch.where(allowed[..., None], normal(batch, length, choices, WIDTH, seed=seed + 2), torch.nan)
    return bl.Substitution(normal(batch, length, WIDTH, seed=seed), candidates, budget, allowed)


def dynamic_program(sentence, rows):
    """Xu et al. 2020, Theorem 2: g[i][j] is the minimum over the first i positions with j of them replaced."""
    center, candidates, allowed = sentence.center[0], sentence.candidates[0], sentence.allowed[0]
    found = []
    for row in rows:
        best = [0.0] + [math.inf] * int(sentence.budget)
        for place in range(len(center)):
            own = float(row[place] @ center[place])
            others = [float(row[place] @ word) for word in candidates[place][allowed[place]]]
            best = [min(best[j] + own, best[j - 1] + min(others, default=math.inf) if j else math.inf)
                    for j in range(len(best))]
        found.append(min(best))
    return torch.tensor(found, dtype=rows.dtype)


def alone(sentences, problem):
    return sentences.take(torch.tensor([problem]))


@pytest.mark.parametrize(("length", "budget"), [(1, 1), (3, 2), (5, 0), (6, 3), (8, 2), (8, 4)])
def test_minima_equal_every_sentence_and_the_dynamic_program(length, budget):
    sentences = region(length, choices=2 if budget > 3 else 3, budget=budget, seed=length + budget)
    rows = normal(2, 5, length, WIDTH, seed=9)
    found, box = sentences.concretize(Dense((length, WIDTH), None, rows)), sentences.box()
    for problem in range(2):
        one = alone(sentences, problem)
        every = brute.sentences(one)
        torch.testing.assert_close(found[problem], brute.minimum(every, rows[problem]), rtol=0, atol=1e-12)
        torch.testing.assert_close(found[problem], dynamic_program(one, rows[problem]), rtol=0, atol=1e-12)
        assert torch.equal(box.lower[problem], every.amin(0)) and torch.equal(box.upper[problem], every.amax(0))


def test_every_sentence_has_its_own_budget():
    sentences = bl.Substitution(*(getattr(region(), name) for name in ("center", "candidates")), torch.tensor([0, 3]),
                                region().allowed)
    rows = Dense((6, WIDTH), None, normal(1, 4, 6, WIDTH, seed=3))
    found = sentences.concretize(rows)
    for problem, budget in enumerate((0, 3)):
        own = region(budget=budget).take(torch.tensor([problem]))
        torch.testing.assert_close(found[problem], own.concretize(rows)[0])
    owner = torch.tensor([1, 0, 1])
    select = Select((6, WIDTH), owner, torch.tensor([0, 5, 9]), torch.tensor([1.0, -1.0], dtype=F64))
    dense = Dense((6, WIDTH), None, select.dense())
    torch.testing.assert_close(sentences.concretize(select), sentences.take(owner).concretize(dense))


def test_projections_and_samples_are_sentences():
    sentences = region(seed=4)
    for problem in range(2):
        one = alone(sentences, problem)
        every = brute.sentences(one)
        assert torch.equal(one.project(every[:, None])[:, 0], every)
        known = {tuple(sentence.flatten().tolist()) for sentence in every}
        for points in (one.sample(400, seeded(1)), one.project(2 * normal(200, 1, 6, WIDTH, seed=5))):
            seen = {tuple(point.flatten().tolist()) for point in points}
            assert seen <= known and len(seen) > len(known) / 10
        row = normal(1, 1, 6, WIDTH, seed=6)
        best = one.project(one.center + one.ascent(-row[0]))
        low = one.concretize(Dense((6, WIDTH), None, row))
        torch.testing.assert_close((row[0] * best).sum(), low[0, 0])


class Recurrent(nn.Module):
    """A small LSTM classifier: mean of the hidden states."""

    def __init__(self):
        super().__init__()
        self.cells, self.out = nn.LSTM(WIDTH, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.out(self.cells(x)[0].mean(1))


class Attending(nn.Module):
    """A small transformer classifier: one block of attention with two heads, layer norms, a mean over positions."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(nn.ModuleList(nn.Linear(WIDTH, 2) for _ in range(3)) for _ in range(2))
        self.first, self.second, self.mix = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), nn.Linear(4, WIDTH)
        self.wide, self.narrow, self.out = nn.Linear(WIDTH, 6), nn.Linear(6, WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, x):
        found = [torch.softmax(query(x) @ key(x).transpose(1, 2) / math.sqrt(2), -1) @ value(x)
                 for query, key, value in self.heads]
        x = self.first(x + self.mix(torch.cat(found, -1)))
        return self.out(self.second(x + self.narrow(torch.relu(self.wide(x)))).mean(1))


@functools.cache
def captured(kind, length):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = kind().double().eval()
    return net, bl.capture(net, torch.zeros(2, length, WIDTH, dtype=F64)).detached()


@pytest.mark.parametrize("method", METHODS, ids=["IBP", "Forward", "CROWN-IBP", "CROWN"])
@pytest.mark.parametrize(("kind", "length"), [(Recurrent, 4), (Attending, 5)], ids=["LSTM", "transformer"])
def test_bounds_contain_every_sentence(kind, length, method):
    net, model = captured(kind, length)
    wide = region(length, budget=2, seed=8)
    near = torch.lerp(wide.center.unsqueeze(2), wide.candidates, 0.3)
    for candidates in (near, wide.candidates):
        sentences = bl.Substitution(wide.center, candidates, 2, wide.allowed)
        bounds = bl.bound(model, sentences, method=method)
        for problem in range(2):
            y = net(brute.sentences(alone(sentences, problem))).detach()
            assert (bounds.lower[problem] <= y + 1e-9).all() and (y <= bounds.upper[problem] + 1e-9).all()


@pytest.mark.parametrize(("kind", "length"), [(Recurrent, 4), (Attending, 5)], ids=["LSTM", "transformer"])
def test_verdicts_agree_with_every_sentence(kind, length):
    net, model = captured(kind, length)
    wide = region(length, budget=2, seed=8)
    near = torch.lerp(wide.center.unsqueeze(2), wide.candidates, 0.3 if kind is Recurrent else 0.1)
    sentences = bl.Substitution(wide.center, near, 2, wide.allowed)
    rows = torch.tensor([[[1.0, -1.0]]], dtype=F64)
    lowest = torch.stack([(net(brute.sentences(alone(sentences, i))).detach() @ rows[0, 0]).amin() for i in range(2)])
    verdicts = []
    for gap in (-0.02, 0.01, 2.0):
        spec = bl.at_least(rows.expand(2, 1, 2), (gap - lowest)[:, None])
        for result in bl.verify(model, sentences, spec, timeout=3, rigour=bl.Rigour.FLOAT):
            assert result.verdict is not (bl.Verdict.VERIFIED if gap < 0 else bl.Verdict.FALSIFIED)
            verdicts.append(result.verdict)
    assert bl.Verdict.VERIFIED in verdicts and bl.Verdict.FALSIFIED in verdicts


def test_an_affine_network_is_decided_exactly():
    net = nn.Sequential(nn.Flatten(), nn.Linear(6 * WIDTH, 2)).double()
    sentences, rows = region(seed=3), torch.tensor([[[1.0, -1.0]]], dtype=F64).expand(2, 1, 2)
    lowest = torch.stack([(net(brute.sentences(alone(sentences, i))).detach() @ rows[0, 0]).amin() for i in range(2)])
    model = bl.capture(net, sentences.center)
    for gap, wanted in ((1e-9, bl.Verdict.VERIFIED), (-1e-9, bl.Verdict.FALSIFIED)):
        for result in bl.verify(model, sentences, bl.at_least(rows, (gap - lowest)[:, None]), rigour=bl.Rigour.FLOAT):
            assert result.verdict is wanted


WORDS = ["[pad]", "[unk]", "a", "good", "fine", "great", "bad", "poor", "film", "movie"]
VOCABULARY = {word: number for number, word in enumerate(WORDS)}
SYNONYMS = {"good": ("fine", "great", "good", "fine"), "film": ("movie",), "movie": ("film",), "bad": ("poor",)}
VECTORS = bl.WordVectors(VOCABULARY, normal(len(WORDS), WIDTH), unknown="[unk]", padding="[pad]")


def test_words_become_vectors_and_lists():
    sentences = [["a", "good", "film"], ["odd", "movie"]]
    made = VECTORS.substitution(sentences, SYNONYMS, budget=2)
    vector = VECTORS.vectors
    assert torch.equal(made.center[0], vector[[2, 3, 8]]) and torch.equal(made.center[1], vector[[1, 9, 0]])
    assert made.allowed.long().tolist() == [[[0, 0], [1, 1], [1, 0]], [[0, 0], [1, 0], [0, 0]]]
    assert torch.equal(made.candidates[0, 1], vector[[4, 5]]) and torch.equal(made.candidates[1, 1, 0], vector[8])
    assert len(brute.sentences(made.take(torch.tensor([0])))) == 1 + 3 + 2
    assert VECTORS.embed(sentences, length=5).shape == (2, 5, WIDTH)


def test_candidates_may_depend_on_the_sentence():
    def after_an_article(sentence, place):
        return ["movie"] if place and sentence[place - 1] == "a" else []

    made = VECTORS.substitution([["a", "film", "film"]], after_an_article, budget=1)
    assert made.allowed[0, :, 0].tolist() == [False, True, False]


def test_vectors_that_learn_pass_gradients():
    table = nn.Embedding(len(WORDS), WIDTH)
    made = bl.WordVectors(VOCABULARY, table.weight).substitution([["good", "film"]], SYNONYMS, 1)
    made.concretize(Dense((2, WIDTH), None, torch.ones(1, 1, 2, WIDTH))).sum().backward()
    assert table.weight.grad[VOCABULARY["film"]].abs().sum() + table.weight.grad[VOCABULARY["movie"]].abs().sum() > 0


def test_no_synonyms_are_one_sentence():
    made = VECTORS.substitution([["a", "a"]], SYNONYMS, 5)
    assert torch.equal(made.box().lower, made.center) and torch.equal(made.sample(3)[2], made.center)


def test_synonyms_from_a_file(tmp_path):
    path = tmp_path / "synonyms.json"
    path.write_text(json.dumps({"film": ["movie", "picture"], "odd": ["strange"]}))
    synonyms = bl.read_synonyms(path)
    assert synonyms == {"film": ("movie", "picture"), "odd": ("strange",)}
    assert bl.known_words(synonyms, VOCABULARY) == {"film": ("movie",)}


X, CANDIDATES = torch.zeros(2, 3, 4), torch.zeros(2, 3, 1, 4)
WRONG = {
    "negative budget": (lambda: bl.Substitution(X, CANDIDATES, -1), "budget must not be negative"),
    "budget of no whole number": (lambda: bl.Substitution(X, CANDIDATES, 0.5), "budget must be a whole number"),
    "budget for other sentences": (lambda: bl.Substitution(X, CANDIDATES, torch.tensor([1, 2, 3])), "each of 2 problems"),
    "sentences without positions": (lambda: bl.Substitution(X[0], CANDIDATES, 1), r"shape \(batch, positions, width\)"),
    "candidates of other sentences": (lambda: bl.Substitution(X, CANDIDATES[:, :2], 1), "do not fit sentences"),
    "candidates of another type": (lambda: bl.Substitution(X, CANDIDATES.double(), 1), "candidates are torch.float64"),
    "candidates without lists": (lambda: bl.Substitution(X, X, 1), "must be a tensor"),
    "NaN in a candidate": (lambda: bl.Substitution(X, CANDIDATES * math.nan, 1), "candidate that counts holds NaN"),
    "NaN in a sentence": (lambda: bl.Substitution(X * math.nan, CANDIDATES, 1), "NaN or infinite"),
    "a mask of numbers": (lambda: bl.Substitution(X, CANDIDATES, 1, torch.ones(2, 3, 1)), "allowed must be booleans"),
    "an unknown synonym": (lambda: VECTORS.substitution([["good"]], {"good": ["nice", "kind"]}, 1),
                           r"'nice', a candidate for 'good', is not in the vocabulary \(and 1 more\); known_words"),
    "an unknown word": (lambda: bl.WordVectors(VOCABULARY, VECTORS.vectors).substitution([["odd", "new"]], SYNONYMS, 1),
                        "lacks 'new', 'odd'; give WordVectors a word for `unknown`"),
    "sentences of unequal length": (lambda: bl.WordVectors(VOCABULARY, VECTORS.vectors).embed([["a"], ["a", "bad"]]),
                                    "1 to 2 words for 2 positions; .*`padding`"),
    "a sentence that is too long": (lambda: VECTORS.embed([["a", "good", "film"]], length=2), "more than length 2"),
    "a sentence without words": (lambda: VECTORS.embed([["a"], []]), "at least one word"),
    "no sentence": (lambda: VECTORS.embed([]), "at least one sentence"),
    "text for words": (lambda: VECTORS.embed(["a good film"]), "split it into words"),
    "a list that is text": (lambda: VECTORS.substitution([["film"]], {"film": "movie"}, 1), "must be a list of words"),
    "a number without vector": (lambda: bl.WordVectors({"a": 7}, torch.zeros(3, 2)), "3 word vectors; .* 'a'"),
    "vectors that are none": (lambda: bl.WordVectors({"a": 0}, torch.zeros(3)), "floating tensor"),
    "padding that is no word": (lambda: bl.WordVectors({"a": 0}, torch.zeros(1, 2), padding="b"), "'b' for padding"),
}


@pytest.mark.parametrize("call", WRONG)
def test_impossible_substitutions_are_refused_in_words(call):
    wrong, words = WRONG[call]
    with pytest.raises(bl.SpecError, match=words) as caught:
        wrong()
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(("text", "words"), [("{", "not readable as JSON"), ("[1]", "an object of words"),
                                             ('{"a": "b"}', "lists of words; that of 'a'"), ('{"a": [1]}', "lists of words")])
def test_files_without_synonyms_are_refused(tmp_path, text, words):
    path = tmp_path / "synonyms.json"
    path.write_text(text)
    with pytest.raises(bl.SpecError, match=words):
        bl.read_synonyms(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(bl.SpecError, match=r"none\.json' cannot be read: No such file"):
        bl.read_synonyms(tmp_path / "none.json")


@pytest.mark.skipif(DATA is None, reason="BOUNDLAB_DATA is not set")
@pytest.mark.parametrize("name", ["synonyms.json", "counterfitted_neighbors.json"])
def test_real_synonyms_of_real_sentences(name):
    """Sentences of up to 8 words from SST-2 with published synonyms, in a vocabulary of the training set's frequent words."""
    folder = Path(DATA) / "datasets" / "sst2"
    lines = [line.split("\t")[0].split() for line in (folder / "dev.tsv").read_text().splitlines()]
    vocabulary = {word: i for i, word in enumerate(sorted({word for line in lines for word in line}))}
    words = bl.WordVectors(vocabulary, normal(len(vocabulary), WIDTH), padding="film")
    synonyms = bl.known_words(bl.read_synonyms(folder / name), vocabulary)
    short = [line for line in lines if 4 <= len(line) <= 8]
    made = words.substitution(short, synonyms, budget=2)
    assert len(short) > 20 and made.allowed.any(2).sum() > 20
    rows = normal(len(short), 3, *made.center.shape[1:], seed=2)
    found, tried = made.concretize(Dense(tuple(made.center.shape[1:]), None, rows)), 0
    for problem in range(len(short)):
        one = alone(made, problem)
        every = brute.sentences(one)
        torch.testing.assert_close(found[problem], brute.minimum(every, rows[problem]), rtol=0, atol=1e-12)
        tried += len(every)
    assert tried > 5 * len(short)
