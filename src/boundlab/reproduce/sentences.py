"""Table 5 of Xu et al. 2020 (auto_LiRPA) run again, on a small scale: networks for SST-2 and replaced words, by budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from boundlab.bounds.methods import CROWN, Forward
from boundlab.bounds.problem import Method
from boundlab.errors import SpecError
from boundlab.reproduce.published import LIRPA_5, Verified
from boundlab.reproduce.trained import Effort
from boundlab.train.fit import fit_against
from boundlab.train.methods import Natural
from boundlab.train.recipe import MethodTable, Recipe, recipe
from boundlab.train.run import WORD_PROOFS
from boundlab.train.sources import sentences_in
from boundlab.train.words import ByBudget, WordThreat, by_budget, by_every_sentence, sentences_made

RECIPES = ("sst2-bag-short", "sst2-transformer-short", "sst2-lstm-short")
NETWORKS = {"bag-sst2": "bag of words", "transformer-sst2": "Transformer", "lstm-sst2": "LSTM"}
PROOFS: Mapping[str, Method] = {**WORD_PROOFS, "Forward+Backward": CROWN(intermediate=Forward())}
EVERY, MOST = "every sentence", 2000
"""What trying all sentences is called, and of how many at most: longer sentences are left out."""


@dataclass(frozen=True)
class WordRow:
    """One network: accuracy on test sentences, and by method and budget the share that is proven, and that really holds."""

    network: str
    trained: str
    sentences: int
    found: ByBudget
    seconds: float
    published: Mapping[str, Verified]


def word_rows(folder: Path, names: Sequence[str], effort: Effort, tell: Callable[[str], None]) -> list[WordRow]:
    """Networks of the recipes that are named, or of `RECIPES`, trained naturally and by bounds, and measured.

    On the first `effort.images` test sentences (None: all), those of which replacements make at most `MOST`, which are all
    tried. SpecError, before anything is trained, for a recipe that is not about words.
    """
    rows = []
    recipes = {name: effort.of(recipe(name)) for name in names or RECIPES}
    foreign = [name for name, asked in recipes.items() if asked.words is None]
    if foreign:
        raise SpecError(f"'{foreign[0]}' trains on {recipes[foreign[0]].data}, and this table is about replaced words; name a "
                        "recipe with a table 'words'.")
    for asked in recipes.values():
        network = NETWORKS.get(asked.network, asked.network)
        natural = asked.model_copy(update={"method": MethodTable.model_validate({"natural": Natural()})})
        for trained, one in (("natural", natural), ("budget 6", asked)):
            rows.append(word_row(network, trained, one, folder, effort.images))
            shares = {method: {budget: round(share, 4) for budget, share in found.items()}
                      for method, found in rows[-1].found.verified.items()}
            tell(f"{network}, {trained}: accuracy {rows[-1].found.clean:.4f}, verified {shares}, {rows[-1].seconds:.0f} s of "
                 "training")
    return rows


def word_row(network: str, trained: str, asked: Recipe, folder: Path, sentences: int | None) -> WordRow:
    """One network, trained and measured."""
    assert asked.words is not None
    training, test = sentences_in(folder, asked.words)
    training = asked.chosen(training)
    test = test if sentences is None else test.take(range(min(sentences, len(test))))
    threat = asked.threat(asked.eps, training)
    assert isinstance(threat, WordThreat)
    test = test.take((sentences_made(test.x, threat.candidates, threat.budget) <= MOST).nonzero().flatten().tolist())
    fitted = fit_against(asked.built(training), training, asked.training_method, threat, asked.plan())
    found = by_budget(fitted.model, test, threat, PROOFS)
    held = by_every_sentence(fitted.model, test, threat)
    found = ByBudget(found.clean, {**found.verified, EVERY: held})
    known = {method: LIRPA_5[network, trained, method] for method in PROOFS if (network, trained, method) in LIRPA_5}
    return WordRow(network, trained, len(test), found, sum(epoch.seconds for epoch in fitted.history), known)
