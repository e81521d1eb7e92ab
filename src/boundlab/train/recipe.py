"""Recipes: what is trained, as a TOML file, with the figures that were published for it."""

from __future__ import annotations

import math
import tomllib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import nn

from boundlab import zoo
from boundlab.bounds.lipschitz import BCP
from boundlab.bounds.methods import IBP
from boundlab.data.examples import Examples
from boundlab.errors import RecipeError, SpecError
from boundlab.train.augmentation import Augmentation
from boundlab.train.averaging import Averaging
from boundlab.train.batch import Threat, ThreatModel
from boundlab.train.latent import STAPS, TAPS
from boundlab.train.lipschitz import CAP, ByMargin, GloRo, RobustBCP, RobustLMT
from boundlab.train.methods import (
    CCIBP,
    MTLIBP,
    SABR,
    Adversarial,
    CrownIBP,
    ExpIBP,
    Natural,
    RobustIBP,
    TrainingMethod,
)
from boundlab.train.normalise import Normalise
from boundlab.train.plan import SGD, Adam, HeldOut, Keep, Optimiser, Statistics, TrainingPlan, Validation
from boundlab.train.regularisers import L1, Calm, Regulariser, initialise_as_bert, initialise_for_ibp
from boundlab.train.schedule import Exponential, Linear, Ramp, Rate, Shape, Smooth
from boundlab.train.weights import WeightThreat
from boundlab.train.words import WordThreat

FOLDER = "recipes"
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
"""What pydantic calls keys that nobody reads."""
Radius = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100)]


class Part(BaseModel):
    """A table of a recipe: keys that it does not know are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    def only(self, what: str) -> Any:
        """The one entry that is given; ValueError if there is none, or more than one."""
        given = [name for name in type(self).model_fields if vars(self)[name] is not None]
        if len(given) != 1:
            known = ", ".join(field.alias or name for name, field in type(self).model_fields.items())
            raise ValueError(f"a recipe has one {what}, of {known}; found {len(given)}")
        return vars(self)[given[0]]


class MethodTable(Part):
    """The method, as a table of its own settings below its name."""

    natural: Natural | None = None
    pgd: Adversarial | None = None
    ibp: RobustIBP | None = None
    crown_ibp: CrownIBP | None = Field(None, alias="crown-ibp")
    sabr: SABR | None = None
    taps: TAPS | None = None
    staps: STAPS | None = None
    mtl_ibp: MTLIBP | None = Field(None, alias="mtl-ibp")
    cc_ibp: CCIBP | None = Field(None, alias="cc-ibp")
    exp_ibp: ExpIBP | None = Field(None, alias="exp-ibp")
    bcp: RobustBCP | None = None
    lmt: RobustLMT | None = None
    gloro: GloRo | None = None
    cap: CAP | None = None
    by_margin: ByMargin | None = Field(None, alias="by-margin")

    @model_validator(mode="after")
    def one(self) -> MethodTable:
        """Exactly one method."""
        self.only("method")
        return self


class OptimiserTable(Part):
    """The optimiser, as a table of its own settings below its name."""

    adam: Adam | None = None
    sgd: SGD | None = None

    @model_validator(mode="after")
    def one(self) -> OptimiserTable:
        """Exactly one optimiser."""
        self.only("optimiser")
        return self


class RampTable(Part):
    """The ramp of eps in epochs: linear, or of the shape that is given."""

    start: float
    end: float
    smooth: Smooth | None = None
    exponential: Exponential | None = None

    def value(self) -> Ramp:
        """The ramp."""
        shape: Shape = self.smooth or self.exponential or Linear()
        return Ramp(self.start, self.end, shape)


class RegulariserTable(Part):
    """What is added to the loss."""

    l1: L1 | None = None
    calm: Calm | None = None

    def values(self) -> tuple[Regulariser, ...]:
        """Those that are given."""
        return tuple(one for one in (self.l1, self.calm) if one is not None)


class NormaliseTable(Part):
    """Mean and deviation of each channel."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class WeightsTable(Part):
    """Weights that vary, in balls of radius eps and of the recipe's norm, in place of inputs; see `WeightThreat`."""

    names: tuple[str, ...] = ("*.weight",)
    relative: bool = False
    joint: bool = False


class WordsTable(Part):
    """Sentences whose words may be replaced, in place of inputs in balls; see `WordThreat`.

    `length` words are read of each sentence, of which `start` says whether a special one comes first; sentences that are longer
    are cut, or left out. Words that training sentences have less than `least` times are unknown. Word vectors are drawn with
    the standard deviation `deviation`. `training` is the file of the folder that is trained on.
    """

    training: Annotated[str, Field(min_length=1)] = "train.tsv"

    length: Annotated[int, Field(ge=2)] = 32
    budget: Annotated[int, Field(ge=0)] = 6
    least: Annotated[int, Field(ge=1)] = 2
    start: bool = False
    longer: Literal["cut", "left out"] = "cut"
    deviation: Annotated[float, Field(gt=0)] = 1.0


class Published(Part):
    """Errors in percent that a paper prints, at the radius `eps` of the test."""

    source: str
    eps: Radius
    clean_error: Percent | None = None
    verified_error: Percent | None = None
    verifier: str = "IBP"
    note: str = ""


class Recipe(Part):
    """One training run. Times are in epochs from 0, eps is in the units of the data.

    `test_eps` is the radius at which the result is measured (`eps` if left out). Inputs vary in balls, or the `weights` do.
    With `each_class` only the first so many examples of each class are trained on. `validation` is the share of the training
    examples that is held out; with `best` the weights of its best epoch are kept.
    """

    title: str
    source: str
    network: str
    data: Literal["mnist", "fashion-mnist", "cifar10", "digits", "sst2"]
    eps: Radius
    test_eps: Radius | None = None
    norm: Annotated[float, Field(ge=1)] = math.inf
    clip: tuple[float, float] | None = (0.0, 1.0)
    epochs: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    examples: Annotated[int, Field(ge=2)] | None = None
    each_class: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    initialisation: Literal["torch", "ibp", "bert"] = "torch"
    normalise: NormaliseTable | None = None
    weights: WeightsTable | None = None
    words: WordsTable | None = None
    method: MethodTable
    optimiser: OptimiserTable = OptimiserTable(adam=Adam())
    rate: Rate
    ramp: RampTable
    regularisers: RegulariserTable = RegulariserTable()
    gradient_norm: Annotated[float, Field(gt=0)] | None = None
    statistics: Literal["clean", "population", "frozen"] = "clean"
    augmentation: Augmentation | None = None
    averaging: Averaging | None = None
    micro: Annotated[int, Field(ge=1)] | None = None
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    best: bool = False
    published: tuple[Published, ...] = ()

    @model_validator(mode="after")
    def one_kind(self) -> Recipe:
        """Words vary in sentences and nowhere else, and weights do not vary beside them."""
        if (self.words is None) == (self.data == "sst2"):
            raise ValueError("data 'sst2' and the table 'words' go together")
        if self.words is not None and (self.weights is not None or self.eps > 1):
            raise ValueError("where words vary, weights do not, and eps is at most 1, the whole way to the candidates")
        return self

    @property
    def training_method(self) -> TrainingMethod:
        """The method."""
        found: TrainingMethod = self.method.only("method")
        return found

    @property
    def radius(self) -> float:
        """The radius at which the result is measured."""
        return self.eps if self.test_eps is None else self.test_eps

    @property
    def limits(self) -> tuple[float, float] | None:
        """The numbers that inputs stay between; None where `clip` is infinite, so that balls are whole."""
        return self.clip if self.clip is not None and any(map(math.isfinite, self.clip)) else None

    def threat(self, eps: float, training: Examples) -> ThreatModel:
        """What varies, with the radius `eps`; words have the candidates that the lexicon of the examples lists."""
        if self.words is not None and training.lexicon is not None:
            return WordThreat(training.lexicon.candidates, self.words.budget, eps)
        if self.weights is None:
            return Threat(eps, self.norm, self.limits)
        return WeightThreat(eps, self.weights.names, self.norm, self.weights.relative, self.weights.joint)

    def chosen(self, training: Examples) -> Examples:
        """The examples that are trained on."""
        if self.each_class is not None:
            training = training.first_of_each(self.each_class)
        return training if self.examples is None else training.take(range(min(self.examples, len(training))))

    def shortened(self, epochs: int) -> Recipe:
        """The recipe in so many epochs: its ramp and the drops of its rate come in proportion sooner, or later."""
        part = epochs / self.epochs
        ramp = self.ramp.model_copy(update={"start": part * self.ramp.start, "end": part * self.ramp.end})
        rate = replace(self.rate, drops=tuple(part * drop for drop in self.rate.drops))
        return self.model_copy(update={"epochs": epochs, "ramp": ramp, "rate": rate})

    def plan(self, keep: Keep | None = None) -> TrainingPlan:
        """How the network is trained; validated by BCP where balls are in l_2, else by IBP."""
        optimiser: Optimiser = self.optimiser.only("optimiser")
        bound = BCP() if self.norm == 2 and self.weights is None else IBP()
        validation = Validation(HeldOut(self.validation), bound=bound, best=self.best) if self.validation else None
        return TrainingPlan(
            self.epochs, self.batch, self.rate, self.ramp.value(), optimiser, self.regularisers.values(), self.gradient_norm,
            Statistics[self.statistics.upper()], self.augmentation, self.limits, self.micro, self.seed, validation,
            self.averaging, keep)

    def built(self, training: Examples) -> nn.Module:
        """The network with its initial weights, which `seed` fixes, for inputs of the shape that the data have."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            if self.words is None or training.lexicon is None:
                net = zoo.build(self.network, tuple(training.x.shape[1:]))
            else:
                shape = training.x.shape[1], zoo.record(self.network).shape[1]
                net = zoo.Worded(zoo.build(self.network, shape), len(training.lexicon.words), shape[1])
                nn.init.normal_(net.embedding.weight, std=self.words.deviation)
        if self.initialisation == "ibp":
            initialise_for_ibp(net, self.seed)
        if self.initialisation == "bert":
            initialise_as_bert(net, self.seed)
        if self.normalise is None:
            return net
        if len(self.normalise.mean) != training.x.shape[1]:
            raise RecipeError(f"'normalise' has {len(self.normalise.mean)} channels, and the data {training.x.shape[1]}.")
        return nn.Sequential(Normalise(self.normalise.mean, self.normalise.deviation), net)


def names() -> tuple[str, ...]:
    """The names of the recipes that come with boundlab."""
    held = (place.name for place in files("boundlab.train").joinpath(FOLDER).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in held if name.endswith(".toml")))


def recipe(name: str | Path) -> Recipe:
    """A recipe by its name, or from a file; RecipeError, in one sentence, if there is none or it is not valid."""
    if str(name) in names():
        return parsed(files("boundlab.train").joinpath(FOLDER, f"{name}.toml").read_text(encoding="utf-8"), str(name))
    path = Path(name)
    if not path.is_file():
        raise RecipeError(f"there is no recipe '{name}': it is neither a file nor one of {', '.join(names())}.")
    try:
        return parsed(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as problem:
        raise RecipeError(f"the recipe '{path}' is not a text file.") from problem


def parsed(text: str, name: str) -> Recipe:
    """A recipe from TOML."""
    try:
        found = Recipe.model_validate(tomllib.loads(text))
        zoo.record(found.network)
        found.plan()
    except tomllib.TOMLDecodeError as problem:
        raise RecipeError(f"the recipe '{name}' is no TOML: {problem}.") from problem
    except ValidationError as problem:
        raise RecipeError(f"the recipe '{name}' is not valid: {said(problem)}.") from problem
    except SpecError as problem:  # of a value that a table stands for
        raise RecipeError(f"the recipe '{name}' is not valid: {problem}") from problem
    return found


def said(problem: ValidationError) -> str:
    """What is wrong first, as a clause; an unknown key before what it may stand for is missed."""
    found = problem.errors(include_url=False)
    first = next((one for one in found if one["type"] in UNKNOWN), found[0])
    where = ".".join(map(str, first["loc"])) or "it"
    if first["type"] in UNKNOWN:
        return f"'{where}' is no key that a recipe may have there"
    if first["type"] in ("missing", "missing_argument"):
        return f"'{where}' is missing"
    return f"'{where}': {first['msg'].removeprefix('Value error, ')}, got {str(first['input'])[:60]}"
