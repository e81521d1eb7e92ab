"""A recipe carried out: a network trained, and what it is worth on the test set."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch

from boundlab.attack.pgd import PGD
from boundlab.bounds.lipschitz import BCP, LMT
from boundlab.bounds.methods import CROWN, IBP
from boundlab.bounds.problem import Method
from boundlab.bounds.slopes import parallel
from boundlab.data.examples import Examples
from boundlab.train.fit import Fitted, captured, fit_against
from boundlab.train.history import Epoch
from boundlab.train.lipschitz import CAP, GloRo, RobustBCP, RobustLMT
from boundlab.train.measure import Measured, check_examples, measure
from boundlab.train.methods import RobustIBP, TrainingMethod
from boundlab.train.plan import Keep
from boundlab.train.processes import Processes
from boundlab.train.recipe import Recipe
from boundlab.train.words import HullIBP

PROOFS: Mapping[str, Method] = {"IBP": IBP(), "CROWN-IBP": CROWN(intermediate=IBP()), "CROWN": CROWN()}
"""By what a finished network is certified,"""
PROOFS_L2: Mapping[str, Method] = {"BCP": BCP(), "LMT": LMT(), "IBP": IBP(), "CROWN-BCP": CROWN(intermediate=BCP())}
"""and on balls in l_2,"""
OWN_PROOFS: Mapping[type[TrainingMethod], tuple[str, Method]] = {
    RobustBCP: ("BCP", BCP()), RobustLMT: ("LMT", LMT()), GloRo: ("LMT", LMT()), RobustIBP: ("IBP", IBP()),
    CAP: ("Fast-Lin", CROWN(alpha=parallel))}
"""where also by the bounds that a method trains with: CAP's polytope has the lines of Fast-Lin."""
SEARCH = PGD(steps=40, restarts=1, targets=1)
QUICK_PROOFS: Mapping[str, Method] = {"IBP": IBP(), "CROWN-IBP": CROWN(intermediate=IBP())}
"""Where weights vary, every example has weights of its own to be searched and bounded."""
WORD_PROOFS: Mapping[str, Method] = {"IBP": HullIBP(), "IBP+Backward": CROWN(intermediate=HullIBP())}
QUICK_SEARCH = PGD(steps=5, restarts=1, targets=0)


@dataclass(frozen=True)
class Outcome:
    """A trained network, what was measured on the test set, and the seconds of that."""

    fitted: Fitted
    measured: Measured
    seconds: float

    @property
    def seconds_an_epoch(self) -> float:
        """The mean over epochs, validation left out."""
        return sum(epoch.seconds for epoch in self.fitted.history) / len(self.fitted.history)


@dataclass(frozen=True)
class Place:
    """Where a recipe is carried out: on a device, alone or as one of several processes."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    processes: Processes = field(default_factory=Processes)


def how_measured(recipe: Recipe) -> tuple[Mapping[str, Method], PGD]:
    """By what the network of a recipe is proven, and attacked."""
    if recipe.words is not None:
        return WORD_PROOFS, QUICK_SEARCH
    if recipe.weights is not None:
        return QUICK_PROOFS, QUICK_SEARCH
    if recipe.norm != 2:
        return PROOFS, SEARCH
    own = OWN_PROOFS.get(type(recipe.training_method))
    return PROOFS_L2 if own is None else {**PROOFS_L2, own[0]: own[1]}, SEARCH


def carried_out(recipe: Recipe, training: Examples, test: Examples, keep: Keep | None = None,
                tell: Callable[[Epoch], None] | None = None, place: Place | None = None) -> Outcome:
    """Train the network of a recipe, and measure it on test examples at the recipe's test radius.

    Test examples that it could not be measured on are found before it is trained.
    """
    chosen, place = recipe.chosen(training), place or Place()
    keep = keep and replace(keep, about=f"initialisation {recipe.initialisation}")
    plan = replace(recipe.plan(keep), tell=tell, processes=place.processes)
    threat = recipe.threat(recipe.radius, chosen)
    module = recipe.built(chosen).to(place.device)
    check_examples(captured(module, chosen, threat), test, threat)
    fitted = fit_against(module, chosen, recipe.training_method, recipe.threat(recipe.eps, chosen), plan)
    started = time.perf_counter()
    proofs, search = how_measured(recipe)
    measured = measure(fitted.model, test, threat, proofs, search, recipe.seed)
    return Outcome(fitted, measured, time.perf_counter() - started)
