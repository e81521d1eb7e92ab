"""Training against replaced words: what is proven of a sentence holds for every sentence that its replacements make."""

import functools
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import boundlab as bl
from boundlab import zoo
from boundlab.data.lexicon import SPECIAL, Lexicon, lexicon_of
from boundlab.data.sentences import read_sentences
from boundlab.errors import DataError, RecipeError, ShapeError, SpecError
from boundlab.evaluate import evaluate
from boundlab.train.batch import Batch
from boundlab.train.losses import mixed_loss
from boundlab.train.recipe import parsed
from boundlab.train.run import carried_out
from boundlab.train.sources import examples_of
from boundlab.train.step import in_parts
from boundlab.train.words import HullIBP, WordThreat, by_budget, by_every_sentence, every_sentence, sentences_made
from boundlab.zoo.language import LSTMClassifier, TransformerClassifier

WIDTH, LENGTH, WORDS = 4, 4, 10
CANDIDATES = torch.zeros(WORDS, 2, dtype=torch.int64)
CANDIDATES[3], CANDIDATES[4], CANDIDATES[5] = torch.tensor([4, 5]), torch.tensor([3, 0]), torch.tensor([6, 7])
SENTENCES = torch.tensor([[3, 4, 5, 8], [5, 5, 0, 0], [8, 3, 9, 0], [8, 9, 0, 0], [3, 3, 3, 3]])
LABELS = torch.tensor([0, 1, 0, 1, 1])
METHODS = {"IBP": HullIBP(), "IBP+Backward": bl.CROWN(intermediate=HullIBP()), "first layer": bl.IBP(), "CROWN": bl.CROWN(),
           "Forward+Backward": bl.CROWN(intermediate=bl.Forward())}
CLASSIFIERS = {"lstm": lambda: LSTMClassifier(WIDTH, 2, hidden=2),
               "transformer": lambda: TransformerClassifier(WIDTH, 2, hidden=4, heads=2, inner=3)}


class Bag(torch.nn.Module):
    """The mean over words of what a small network makes of each."""

    def __init__(self):
        super().__init__()
        self.each = torch.nn.Sequential(torch.nn.Linear(WIDTH, 8), torch.nn.ReLU())
        self.last = torch.nn.Linear(8, 2)

    def forward(self, x, mask):
        return self.last((self.each(x) * mask.unsqueeze(-1)).mean(1))


def worded(kind):
    torch.manual_seed(0)
    return zoo.Worded(CLASSIFIERS[kind](), WORDS, WIDTH).double().eval()


def variants(sentence, budget):
    """All sentences with at most `budget` words replaced, (n, length)."""
    choices = [[word, *(other for other in CANDIDATES[word].tolist() if other)] for word in sentence.tolist()]
    made = torch.tensor(list(itertools.product(*choices)))
    return made[(made != sentence).sum(1) <= budget]


@functools.cache
def captured(kind):
    """A network and its model, which shares its parameters."""
    net = worded(kind)
    return net, WordThreat(CANDIDATES).captured(net, SENTENCES[:2])


def batch_of(kind, share=1.0, budget=2):
    net, model = captured(kind)
    net.zero_grad()
    return net, Batch(model, SENTENCES, LABELS, WordThreat(CANDIDATES, budget), share)


@pytest.mark.parametrize(("kind", "budget"), [("transformer", 0), ("transformer", 1), ("transformer", 4), ("lstm", 2)])
def test_bounds_hold_for_every_sentence_and_what_is_proven_is_robust(kind, budget):
    net, batch = batch_of(kind, budget=budget)
    spec = bl.margins(LABELS, 2, torch.float64)
    worst = []
    for sentence, label in zip(SENTENCES, LABELS, strict=True):
        every = variants(sentence, budget)
        logits = net(every, (every > 0).double())
        worst.append((logits[:, label] - logits[:, 1 - label]).min().detach())
    worst = torch.stack(worst)
    found = by_budget(batch.model, bl.Examples(SENTENCES, LABELS), batch.threat, METHODS, [budget])
    for name, method in METHODS.items():
        lower = bl.bound(batch.model.detached(), batch.sets, method=method, spec=spec).lower.squeeze(1)
        assert (lower <= worst + 1e-9).all(), name
        assert found.verified[name][budget] == pytest.approx(float((lower > 0).double().mean()))
        assert found.verified[name][budget] <= float((worst > 0).double().mean())
        unchanged = [place for place, sentence in enumerate(SENTENCES) if len(variants(sentence, budget)) == 1]
        torch.testing.assert_close(lower[unchanged], worst[unchanged])


@pytest.mark.parametrize("budget", [0, 1, 2, 4])
def test_every_sentence_is_made_once_and_counted_before(budget):
    counts = sentences_made(SENTENCES, CANDIDATES, budget)
    for sentence, count in zip(SENTENCES, counts.tolist(), strict=True):
        made, replaced = every_sentence(sentence, CANDIDATES, budget)
        expected = variants(sentence, budget)
        assert len(made) == count == len(expected) == len(made.unique(dim=0))
        assert set(map(tuple, made.tolist())) == set(map(tuple, expected.tolist()))
        assert torch.equal(replaced, (made != sentence).sum(1))


def test_what_holds_of_every_sentence_is_what_trying_all_finds_and_no_method_verifies_more():
    net, batch = batch_of("transformer")
    budgets = [0, 1, 2, 4]
    found = by_every_sentence(batch.model, bl.Examples(SENTENCES, LABELS), batch.threat, budgets)
    for budget in budgets:
        every = [variants(sentence, budget) for sentence in SENTENCES]
        right = [bool((net(some, (some > 0).double()).argmax(1) == label).all())
                 for some, label in zip(every, LABELS, strict=True)]
        assert found[budget] == pytest.approx(sum(right) / len(right))
    proven = by_budget(batch.model, bl.Examples(SENTENCES, LABELS), batch.threat, METHODS, budgets)
    assert found[4] > 0 and all(shares[budget] <= found[budget] <= proven.clean for shares in proven.verified.values()
                                for budget in budgets)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_candidates_are_moved_towards_the_word_while_eps_rises(kind):
    _, batch = batch_of(kind, share=0.3)
    words, mask = (node.name for node in batch.model.graph.inputs)
    whole, part = batch.threat.sets(batch.model, SENTENCES), batch.sets
    assert torch.equal(part[mask], (SENTENCES > 0).double())
    torch.testing.assert_close(part[words].choices, whole[words].center.unsqueeze(2).lerp(whole[words].choices, 0.3))
    logits = torch.stack([evaluate(batch.model, {words: some, mask: part[mask]})
                          for some in part[words].sample(50, torch.Generator().manual_seed(0))]).detach()
    spec = bl.margins(LABELS, 2, torch.float64)
    lower = bl.bound(batch.model.detached(), part, method=METHODS["IBP+Backward"], spec=spec).lower
    assert (lower <= torch.einsum("bsc,nbc->nbs", spec.rows, logits) + 1e-9).all()


@pytest.mark.parametrize(("kind", "weight"), [("transformer", 0.0), ("transformer", 0.5), ("lstm", 0.5)])
def test_gradients_reach_the_word_vectors_and_are_those_of_the_loss(kind, weight):
    net, batch = batch_of(kind, share=0.5)
    mixed_loss(batch.question, weight).backward()
    table = net.embedding.weight
    way = torch.randn(table.shape, dtype=table.dtype, generator=torch.Generator().manual_seed(1))
    ends = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            table.add_(way, alpha=step)
            ends.append(mixed_loss(replace(batch).question, weight))
            table.sub_(way, alpha=step)
    torch.testing.assert_close((table.grad * way).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-4, atol=1e-7)


def test_parts_of_a_batch_add_up_to_the_step_of_the_whole():
    steps = []
    for size in (5, 2):
        net, batch = batch_of("transformer")
        in_parts(batch, bl.CrownIBP((0.5, 0.5)), size, bl.Processes()).backward()
        steps.append([parameter.grad for parameter in net.parameters()])
    for whole, parts in zip(*steps, strict=True):
        torch.testing.assert_close(whole, parts)


def reviews(count, seed):
    """Sentences that one word decides, and two that decide nothing; words of a kind are synonyms of each other."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=draw)
    pick = torch.randint(2, (3, count), generator=draw)
    return [(("the", "a")[a], (("bad", "poor"), ("good", "fine"))[label][b], ("film", "movie")[c])
            for label, a, b, c in zip(labels.tolist(), *pick.tolist(), strict=True)], labels.tolist()


SYNONYMS = {"bad": ["poor", "horrid"], "poor": ["bad"], "good": ["fine"], "fine": ["good"], "film": ["movie"],
            "movie": ["film"]}
RECIPE = """
title = "words"
source = "test"
network = "transformer-sst2"
data = "sst2"
eps = 1.0
epochs = 2
batch = 20
rate = { first = 2e-3 }
ramp = { start = 0, end = 1 }
validation = 0.0
gradient_norm = 10.0
[words]
length = 5
budget = 2
start = true
deviation = 0.1
[method.crown-ibp]
"""


@pytest.fixture
def folder(tmp_path):
    for name, count, seed in (("train", 80, 0), ("test", 30, 1)):
        lines = [f"{' '.join(words)}\t{label}" for words, label in zip(*reviews(count, seed), strict=True)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "synonyms.json").write_text(json.dumps(SYNONYMS))
    return tmp_path


def test_training_by_bounds_proves_what_natural_training_does_not(folder):
    training, test = examples_of(parsed(RECIPE, "test"), folder)
    threat, verified = WordThreat(training.lexicon.candidates, 2), {}
    plan = bl.TrainingPlan(epochs=20, batch=20, rate=bl.Rate(2e-2), ramp=bl.Ramp(4, 12), validation=None)
    for name, method in (("natural", bl.Natural()), ("IBP", bl.RobustIBP()), ("CROWN-IBP", bl.CrownIBP())):
        torch.manual_seed(0)
        net = zoo.Worded(Bag(), len(training.lexicon.words), WIDTH)
        found = bl.fit_against(net, training, method, threat, plan)
        shares = by_budget(found.model, test, threat, {"IBP": HullIBP(), "CROWN": bl.CROWN()}, [1, 3])
        assert shares.clean == 1 and all(each[3] <= each[1] for each in shares.verified.values())
        verified[name] = shares.verified["IBP"][3]
    assert min(verified["IBP"], verified["CROWN-IBP"]) > max(0.8, verified["natural"] + 0.3)


def test_a_recipe_of_words_is_carried_out(folder):
    asked = parsed(RECIPE, "test")
    training, test = examples_of(asked, folder)
    outcome = carried_out(asked, training, test)
    for held in outcome.measured.proven.values():
        assert not (held & ~outcome.measured.survived).any()
    assert len(outcome.fitted.module.embedding.weight) == len(training.lexicon.words)
    assert outcome.fitted.history[-1].eps == 1 and set(outcome.measured.proven) == {"IBP", "IBP+Backward"}


def test_lexicon_numbers_words_by_the_alphabet_and_knows_candidates_of_known_words():
    sentences, _ = reviews(60, 0)
    found = lexicon_of([*sentences, ("rare", "the")], SYNONYMS)
    assert found.words == (*SPECIAL, "a", "bad", "film", "fine", "good", "movie", "poor", "the")
    assert [found.words[place] for place in found.candidates[found.number["bad"]].tolist() if place] == ["poor"]
    numbers = found.numbers([("the", "rare", "film"), ("a", "good", "film", "the", "bad")], 4, start=True)
    assert numbers.tolist() == [[2, 10, 1, 5], [2, 3, 7, 5]]
    assert found.numbers([("film",)], 3).tolist() == [[5, 0, 0]]


def test_sentences_that_are_too_long_are_cut_or_left_out(folder):
    (folder / "test.tsv").write_text("the good film\t1\na very long and bad film\t0\n")
    cut, left_out = (examples_of(parsed(RECIPE.replace("start = true", f"start = true\nlonger = '{how}'"), "test"), folder)[1]
                     for how in ("cut", "left out"))
    assert len(cut) == 2 and len(left_out) == 1 and left_out.x.tolist() == [cut.x[0].tolist()]


@pytest.mark.parametrize(("text", "said"), [("good film 1\n", "line 1"), ("sentence\tlabel\nfine\tgood\n", "line 2"),
                                            ("sentence\tlabel\n", "no sentence"), ("\t1\n", "line 1")])
def test_files_that_hold_no_sentences_are_refused_by_name_and_line(tmp_path, text, said):
    path = tmp_path / "train.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_sentences(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_sentences(tmp_path)


def test_what_does_not_fit_is_refused(folder):
    data = bl.Examples(SENTENCES, LABELS)
    net = zoo.Worded(Bag(), WORDS, WIDTH)
    threat = WordThreat(CANDIDATES)
    plan = bl.TrainingPlan(epochs=1, batch=5, validation=None)
    refused = [
        (SpecError, "zoo.Worded", lambda: bl.fit_against(net.classifier, data, bl.RobustIBP(), threat, plan)),
        (SpecError, "around the inputs", lambda: bl.fit_against(net, data, bl.SABR(), threat, plan)),
        (DataError, "words 1 to 10", lambda: bl.fit_against(net, bl.Examples((SENTENCES + 1) % 11, LABELS), bl.RobustIBP(),
                                                            WordThreat(CANDIDATES[:9]), plan)),
        (SpecError, "int64", lambda: WordThreat(CANDIDATES.float())), (SpecError, "budget", lambda: WordThreat(CANDIDATES, -1)),
        (SpecError, "got a list", lambda: WordThreat(CANDIDATES.tolist())),
        (SpecError, "got -1", lambda: WordThreat(CANDIDATES - 1)),
        (SpecError, "'small'", lambda: WordThreat(CANDIDATES, eps="small")),
        (DataError, "up to 99", lambda: bl.fit_against(net, data, bl.RobustIBP(), WordThreat(CANDIDATES.clamp(min=99)), plan)),
        (SpecError, "eps", lambda: WordThreat(CANDIDATES, eps=2.0)), (DataError, "begins", lambda: Lexicon(("a",), CANDIDATES)),
        (DataError, "no number", lambda: Lexicon((*SPECIAL, "a"), CANDIDATES[:4])),
        (DataError, "name the folder", lambda: examples_of(parsed(RECIPE, "test"), None)),
        (RecipeError, "words", lambda: parsed(RECIPE.replace("sst2\"\neps", "mnist\"\neps"), "test")),
    ]
    for kind, said, call in refused:
        with pytest.raises(kind, match=said):
            call()
    with pytest.raises(ShapeError, match="sentences of"):
        by_budget(threat.captured(net, SENTENCES[:2]), bl.Examples(SENTENCES[:, :3], LABELS), threat, {})


def test_there_is_a_file_for_each_name_of_the_folder(folder):
    for name in ("train.tsv", "test.tsv", "synonyms.json"):
        missing = Path(folder / name).rename(folder / "away")
        with pytest.raises((DataError, SpecError), match=name):
            examples_of(parsed(RECIPE, "test"), folder)
        missing.rename(folder / name)
