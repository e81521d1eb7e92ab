"""Figure 3 of Xu et al. 2020 (auto_LiRPA) run again: training for a flat loss beside natural training, on 10 % of MNIST."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from boundlab.data.examples import Examples
from boundlab.train.fit import fit_against
from boundlab.train.landscape import Landscape, landscape
from boundlab.train.recipe import Recipe, recipe
from boundlab.train.sources import training_and_test
from boundlab.train.weights import Flatness, WeightThreat, flatness

RECIPES = {"natural": "flat-mnist-10pct-natural", "flat": "flat-mnist-10pct"}
POINTS, REACH = 15, 2.0


@dataclass(frozen=True)
class FlatRow:
    """One network: how flat the loss is on the training and on the test set, and the loss around its weights."""

    method: str
    epochs: int
    training: Flatness
    test: Flatness
    around: Landscape


def flat_rows(data: Path, images: int | None, tell: Callable[[str], None]) -> list[FlatRow]:
    """Both networks, trained by their recipes and measured on the first `images` test images (None: all)."""
    rows = []
    for method, name in RECIPES.items():
        asked = recipe(name)
        training, test = training_and_test(data, asked.data, asked.seed)
        test = test if images is None else test.take(range(min(images, len(test))))
        rows.append(flat_row(method, asked, (asked.chosen(training), test)))
        tell(f"{method}: test accuracy {rows[-1].test.accuracy:.4f}, certified training loss {rows[-1].training.certified:.4f}")
    return rows


def flat_row(method: str, asked: Recipe, data: tuple[Examples, Examples]) -> FlatRow:
    """One network, trained and measured."""
    training, test = data
    threat = asked.threat(asked.eps, training)
    assert isinstance(threat, WeightThreat)
    fitted = fit_against(asked.built(training), training, asked.training_method, threat, asked.plan())
    around = landscape(fitted.model, training, threat, REACH, POINTS)
    return FlatRow(method, asked.epochs, flatness(fitted.model, training, threat), flatness(fitted.model, test, threat), around)
