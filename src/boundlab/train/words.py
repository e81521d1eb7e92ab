"""Training against replaced words: sentences are numbers of words, and the sets are those of their vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real

import torch
from torch import Tensor, nn

from boundlab.bounds.backward import Env
from boundlab.bounds.methods import IBP, interval_rows
from boundlab.bounds.problem import Bounds, Method, Problem
from boundlab.capture.torch import capture
from boundlab.data.examples import Examples
from boundlab.errors import DataError, ShapeError, SpecError
from boundlab.evaluate import evaluate
from boundlab.graph import Model
from boundlab.perturbations.sets import Box
from boundlab.perturbations.substitution import Substitution
from boundlab.spec import labelled_right
from boundlab.train.batch import ThreatModel, placed
from boundlab.train.measure import check_examples, parts, proven, share
from boundlab.zoo.language import Worded

TABLE = "embedding.weight"
"""The word vectors, (words, width), beside the parameters of the network behind them."""
AT_ONCE, TRIED = 50, 1000
"""Sentences that are bounded together, whose candidates' vectors take memory, too; sentences that are tried together."""


@dataclass(frozen=True)
class HullIBP:
    """IBP from the box around each set alone: for replaced words, the hull of each word's candidates, whatever the budget.

    `IBP()` bounds the first layer by the set itself, which is tighter and costs a row for each neuron and word. Jia et al.
    2019; Xu et al. 2020 (auto_LiRPA), published code.
    """

    def environment(self, problem: Problem) -> Env:
        """Intervals of every node."""
        boxes = {index: region.box() for index, region in problem.sets.items()}
        return IBP().environment(replace(problem, sets={index: Box(box.lower, box.upper) for index, box in boxes.items()}))

    def run(self, problem: Problem) -> Bounds:
        """Bounds of the output or of the specification's rows."""
        return interval_rows(problem, self.environment(problem))


@dataclass(frozen=True)
class WordThreat(ThreatModel):
    """At most `budget` words of a sentence are replaced, each by one of its `candidates` (words, c), numbers filled up with 0.

    For a `zoo.Worded`: examples are numbers of words (n, length), 0 for padding, and the word vectors are trained along. While
    eps rises to 1 a word's candidates are moved towards the word itself: x + eps (candidate - x), as in the published code of
    Xu et al. 2020 (auto_LiRPA). What is proven below 1 is about such mixtures, not about sentences. SpecError for other values.
    """

    candidates: Tensor = field(repr=False, compare=False)
    budget: int = 6
    eps: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.candidates, Tensor):
            raise SpecError(f"candidates are a tensor (words, c) of int64 numbers, got a {type(self.candidates).__name__}.")
        if self.candidates.dtype != torch.int64 or self.candidates.dim() != 2 or not self.candidates.numel():
            raise SpecError(f"candidates are int64 numbers (words, c), got {self.candidates.dtype} of shape "
                            f"{list(self.candidates.shape)}.")
        if int(self.candidates.min()) < 0:
            raise SpecError(f"candidates are numbers of words, and 0 where there is none, got {int(self.candidates.min())}.")
        if not (isinstance(self.budget, int) and self.budget >= 0 and isinstance(self.eps, Real) and 0 <= self.eps <= 1):
            raise SpecError(f"a budget is a whole number from 0 on, and eps lies between 0 and 1, got {self.budget} and "
                            f"{self.eps!r:.60}.")

    def captured(self, module: nn.Module, x: Tensor) -> Model:
        if not isinstance(module, Worded):
            raise SpecError("words are replaced in a zoo.Worded, an embedding before a classifier, got a "
                            f"{type(module).__name__}.")
        vectors, mask = module.embedding(x), mask_of(x, module.embedding.weight)
        behind = capture(module.classifier, vectors, mask)
        return Model(behind.graph, {**behind.params, TABLE: module.embedding.weight})

    def inputs(self, model: Model, x: Tensor) -> Mapping[str, Tensor]:
        words, mask = (node.name for node in model.graph.inputs)
        table = model.params[TABLE]
        return {words: table[x], mask: mask_of(x, table)}

    def sets(self, model: Model, x: Tensor, share: float = 1.0) -> Mapping[str, Substitution | Tensor]:
        words, table = model.graph.inputs[0].name, model.params[TABLE]
        inputs = self.inputs(model, x)
        center, others = inputs[words], self.candidates.to(x.device)[x]
        mixed = torch.lerp(center.unsqueeze(2), table[others], share * self.eps)
        return {**inputs, words: Substitution(center, mixed, self.budget, others > 0)}

    def check(self, model: Model, examples: Examples) -> None:
        wanted, given = model.graph.inputs[-1].shape, tuple(examples.x.shape[1:])
        if examples.x.dtype != torch.int64:
            raise DataError("words are replaced in sentences, which are int64 numbers of words; the examples hold others.")
        if given != wanted:
            raise ShapeError(f"the network takes sentences of {list(wanted)} words, and the examples have {list(given)}.")
        if int(self.candidates.max()) >= len(model.params[TABLE]):
            raise DataError(f"the candidates have words up to {int(self.candidates.max())}, and there are only "
                            f"{len(model.params[TABLE])} word vectors.")
        if int(examples.x.min()) < 0 or int(examples.x.max()) >= min(len(self.candidates), len(model.params[TABLE])):
            raise DataError(f"the examples have words {int(examples.x.min())} to {int(examples.x.max())}; there are "
                            f"{len(model.params[TABLE])} word vectors, and candidates for {len(self.candidates)} words.")

    @property
    def layers(self) -> Method:
        return HullIBP()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.candidates,)


def mask_of(x: Tensor, like: Tensor) -> Tensor:
    """1 for words and 0 for padding."""
    return (x > 0).to(like.dtype)


@dataclass(frozen=True)
class ByBudget:
    """Shares of sentences that are labelled right, and by method and budget those that are also proven."""

    clean: float
    verified: Mapping[str, Mapping[int, float]]


def by_budget(model: Model, examples: Examples, threat: WordThreat, methods: Mapping[str, Method],
              budgets: Sequence[int] = (1, 2, 3, 4, 5, 6)) -> ByBudget:
    """Verified accuracy at several budgets; NaN, ties and what cannot be bounded count as not proven.

    What is proven at the largest budget holds at the smaller ones, whose sentences are among its own, and is not bounded there
    again; what is not proven at one of these is not tried at the next. Errors as those of `measure`.
    """
    check_examples(model, examples, threat)
    model = model.detached()
    given = placed(examples.x, model), examples.labelled()[1].to(model.device)
    right = torch.cat([labelled_right(evaluate(model, threat.inputs(model, x)), own) for x, own in parts(*given, AT_ONCE)])

    def verified(method: Method) -> Mapping[int, float]:
        def among(chosen: Tensor, budget: int) -> Tensor:
            found = torch.zeros_like(chosen)
            if bool(chosen.any()):
                found[chosen] = all_proven(model, (given[0][chosen], given[1][chosen]), replace(threat, budget=budget), method)
            return found

        most = among(right, max(budgets))
        tried, shares = right & ~most, {max(budgets): share(most)}
        for budget in sorted(budgets)[:-1]:
            tried = among(tried, budget)
            shares[budget] = share(most | tried)
        return {budget: shares[budget] for budget in budgets}

    return ByBudget(share(right), {name: verified(method) for name, method in methods.items()})


def all_proven(model: Model, given: tuple[Tensor, Tensor], threat: WordThreat, method: Method) -> Tensor:
    """Which sentences a method proves, (n,), a few at a time."""
    return torch.cat([proven(model, x, labels, threat, method) for x, labels in parts(*given, AT_ONCE)])


def every_sentence(sentence: Tensor, candidates: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """All sentences (n, length) that at most `budget` replacements make of one (length,), and how many words of each differ."""
    made, counts = sentence[None], torch.zeros(1, dtype=torch.int64, device=sentence.device)
    for place, word in enumerate(sentence.tolist()):
        others = candidates[word][candidates[word] > 0].to(sentence.device)
        room = counts < budget
        if not len(others) or not bool(room.any()):
            continue
        more = made[room].repeat_interleave(len(others), 0)
        more[:, place] = others.repeat(int(room.sum()))
        made, counts = torch.cat([made, more]), torch.cat([counts, counts[room].repeat_interleave(len(others)) + 1])
    return made, counts


def sentences_made(x: Tensor, candidates: Tensor, budget: int) -> Tensor:
    """How many sentences at most `budget` replacements make of each of x (b, length), (b,)."""
    choices = (candidates > 0).sum(1).double().to(x.device)[x]
    by_count = torch.zeros(len(x), budget + 1, dtype=torch.float64, device=x.device)
    by_count[:, 0] = 1
    for own in choices.unbind(1):
        by_count[:, 1:] = by_count[:, 1:] + own[:, None] * by_count[:, :-1]
    return by_count.sum(1)


def by_every_sentence(model: Model, examples: Examples, threat: WordThreat, budgets: Sequence[int] = (1, 2, 3, 4, 5, 6)
                      ) -> Mapping[int, float]:
    """By budget, the share of sentences that are labelled right whatever is replaced: each sentence that can be made is tried.

    What any method verifies is at most that. Of long sentences there are too many: see `sentences_made`. Errors as those of
    `measure`.
    """
    check_examples(model, examples, threat)
    model = model.detached()
    inputs, labels = placed(examples.x, model), examples.labelled()[1].to(model.device)
    least = []
    for sentence, label in zip(inputs, labels, strict=True):
        made, counts = every_sentence(sentence, threat.candidates, max(budgets))
        right = torch.cat([labelled_right(evaluate(model, threat.inputs(model, some)), label.expand(len(some)))
                           for some in made.split(TRIED)])
        least.append(int(torch.where(right, max(budgets) + 1, counts).min()))
    return {budget: sum(broken > budget for broken in least) / len(least) for budget in budgets}
