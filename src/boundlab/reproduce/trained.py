"""Tables of certified training run again: recipes carried out here, or runs that are there already, beside published errors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from boundlab.errors import DataError, SpecError
from boundlab.reproduce.published_training import (
    BCP_2,
    CROWN_IBP,
    CROWN_IBP_2,
    FUSED,
    HALF,
    IBP,
    LARGE,
    LIRPA_2,
    NATURAL,
    PURE,
    SMALL,
)
from boundlab.train.history import Epoch
from boundlab.train.lipschitz import CAP, RobustBCP, RobustLMT
from boundlab.train.methods import CrownIBP, RobustIBP, TrainingMethod
from boundlab.train.plan import Keep
from boundlab.train.recipe import MethodTable, Recipe, recipe
from boundlab.train.results import RESULT, Finished, read_run, record_of, runs_below, write_run
from boundlab.train.run import OWN_PROOFS, Place, carried_out
from boundlab.train.sources import examples_of

Tell = Callable[[str], None]
VARIANTS: Mapping[str, MethodTable] = {
    name: MethodTable.model_validate(table) for name, table in (
        (PURE, {"ibp": RobustIBP()}), (NATURAL, {"ibp": RobustIBP((1.0, 0.0))}), (HALF, {"ibp": RobustIBP((1.0, 0.5))}),
        (CROWN_IBP, {"crown-ibp": CrownIBP(fused=True)}))}
"""The methods of Zhang et al. 2020, Table 2, by name."""
BCP_METHODS: Mapping[type[TrainingMethod], str] = {CAP: "CAP", RobustLMT: "LMT", RobustIBP: "IBP", RobustBCP: "BCP"}
"""Those of Lee et al. 2020, Table 2, and IBP."""
FUSION: Mapping[str, MethodTable] = {IBP: VARIANTS[PURE], FUSED: VARIANTS[CROWN_IBP]}
STRUCTURES = {"4c3f": "4C3F", "6c2f": "6C2F", "wrn": "WRN", "cnn7-bn": "CNN-7+BN", "densenet": "DenseNet",
              "wideresnet": "WideResNet", "resnext": "ResNeXt"}
"""What papers call networks of the zoo, by the first part of their names."""


@dataclass(frozen=True)
class Effort:
    """How much smaller than their recipes runs are: epochs, training images and test images (None: as the recipes say).

    Schedules are shortened in proportion.
    """

    epochs: int | None = None
    examples: int | None = None
    images: int | None = None
    device: str = "cpu"

    def of(self, asked: Recipe) -> Recipe:
        """The recipe as it is carried out."""
        asked = asked if self.epochs is None else asked.shortened(self.epochs)
        return asked if self.examples is None else asked.model_copy(update={"examples": self.examples})


@dataclass(frozen=True)
class Row:
    """What a table says of a recipe: its labels, what its network is verified by, and published figures in percent by column.

    `published` is empty where the paper has no such row; three figures are the best, the median and the worst of several
    networks. `about` names the networks that they are of. Figures are errors, or accuracies.
    """

    labels: tuple[str, ...]
    proof: str
    published: Mapping[str, tuple[float, ...]]
    about: str = ""
    accuracies: bool = False


@dataclass(frozen=True)
class Line:
    """One run: its row, and by column its figure in percent."""

    run: Finished
    row: Row
    ours: Mapping[str, float]

    @property
    def labels(self) -> tuple[str, ...]:
        """What was run, column by column."""
        return self.row.labels

    @property
    def published(self) -> Mapping[str, tuple[float, ...]]:
        """The paper's figures by column."""
        return self.row.published

    @property
    def about(self) -> str:
        """The networks that these are of."""
        return self.row.about


@dataclass(frozen=True)
class TrainedTable:
    """A paper's table: columns that say what was run, recipes of CPU size and what varies of them, and a recipe's row.

    `row` is None for recipes that the table is not about. `lengths` are those of ramps, as shares of all epochs, where they
    vary.
    """

    labels: tuple[str, ...]
    recipes: tuple[str, ...]
    methods: Mapping[str, MethodTable]
    row: Callable[[Recipe], Row | None]
    lengths: tuple[float, ...] = ()

    def planned(self, names: Sequence[str]) -> dict[str, Recipe]:
        """What is trained, by the name of its folder: each recipe with each method, or as it is if no methods are named."""
        found = {}
        for name in names or self.recipes:
            asked = recipe(name)
            if not self.methods:
                found[Path(name).stem] = asked
            for method, table in self.methods.items():
                title = f"{asked.network} on {asked.data} at eps {asked.radius:.4g} by {method}"
                own = asked.model_copy(update={"method": table, "title": title})
                found |= {f"{Path(name).stem}, {method}": own} if not self.lengths else {
                    f"{Path(name).stem}, {method}, {share:g}": with_length(own, share) for share in self.lengths}
        return found

    def line(self, run: Finished) -> Line | None:
        """A run's line, if its recipe has a row; DataError if the run has not been measured by what the row is verified by."""
        row = self.row(run.recipe)
        if row is None:
            return None
        errors = percents(run, row.proof)
        return Line(run, row, {name: 100 - error for name, error in errors.items()} if row.accuracies else errors)


def with_length(asked: Recipe, share: float) -> Recipe:
    """The recipe with a ramp that takes a share of all epochs, and ends at the last one at the latest."""
    length = min(share * asked.epochs, asked.epochs - 1 - asked.ramp.start)
    return asked.model_copy(update={"ramp": asked.ramp.model_copy(update={"end": asked.ramp.start + length})})


def trained_lines(table: TrainedTable, planned: Mapping[str, Recipe], data: Path | None, out: Path, effort: Effort, tell: Tell
                  ) -> list[Line]:
    """The lines of planned runs, each in a folder of its own below `out`; what is finished there is not run again.

    SpecError, before anything is trained, if one of them is no row of the table.
    """
    for name, asked in planned.items():
        if table.row(asked) is None:
            raise SpecError(f"'{name}' would be no row of this table, which has no such data, radius, norm and method; leave "
                            "its recipe out.")
    runs = []
    for name, asked in planned.items():
        runs.append(run_of(name, effort.of(asked), data, out, effort, tell))
        tell(f"{name}: errors {', '.join(f'{what} {100 * share:.2f} %' for what, share in runs[-1].errors.items())}")
    return lines_of(table, runs)


def lines_of(table: TrainedTable, runs: Sequence[Finished]) -> list[Line]:
    """Those of the runs that the table is about, in its order; SpecError if there is none."""
    found = [line for run in runs if (line := table.line(run)) is not None]
    if not found:
        raise SpecError(f"none of the {len(runs)} runs belongs to this table: none has the data, the radius, the norm and the "
                        "method of one of its rows.")
    return sorted(found, key=lambda line: line.labels)


def found_lines(table: TrainedTable, folder: Path) -> list[Line]:
    """The lines of all finished runs below a folder that the table is about."""
    return lines_of(table, runs_below(folder))


def run_of(name: str, asked: Recipe, data: Path | None, out: Path, effort: Effort, tell: Tell) -> Finished:
    """A recipe carried out in a folder below `out`: a finished run is read, one that was interrupted goes on.

    SpecError if what is there was run with other settings, or on another number of test examples.
    """
    folder = out / re.sub(r"[^\w.-]+", "-", name)
    training, test = examples_of(asked, None if asked.data == "digits" else data)
    test = test if effort.images is None else test.take(range(min(effort.images, len(test))))
    if not (folder / RESULT).exists():
        folder.mkdir(parents=True, exist_ok=True)

        def each(epoch: Epoch) -> None:
            tell(f"{name}: epoch {epoch.epoch + 1} of {asked.epochs}, loss {epoch.loss:.4f}, {epoch.seconds:.1f} s")

        outcome = carried_out(asked, training, test, Keep(folder, resume=True), each, Place(torch.device(effort.device)))
        write_run(folder, record_of(name, asked, outcome, (len(training), len(test))), outcome, (training, test))
    found = read_run(folder)
    if found.recipe != asked or found.examples != len(test):
        raise SpecError(f"'{folder}' holds a run with other settings, or other test examples ({found.examples}), which is not "
                        "replaced; choose another folder with --out.")
    return found


def method_of(asked: Recipe, names: Mapping[str, MethodTable]) -> str | None:
    """What the recipe's method is called; loss fusion does not change the name."""
    def plain(method: TrainingMethod) -> TrainingMethod:
        return replace(method, fused=False) if isinstance(method, CrownIBP) else method

    own = plain(asked.training_method)
    return next((name for name, table in names.items() if plain(table.only("method")) == own), None)


def percents(run: Finished, verified: str) -> dict[str, float]:
    """Errors in percent by column, verified by the method that is named; DataError if the run has not been measured by it."""
    try:
        return {"clean": 100 * run.errors["clean"], "attacked": 100 * run.errors["attacked"],
                "verified": 100 * run.errors[f"verified, {verified}"]}
    except KeyError as problem:
        raise DataError(f"the {RESULT} in '{run.folder}' lacks the error {problem}; carry that run out again.") from problem


def near(first: float, second: float) -> bool:
    """Whether two radii are the same but for rounding of their digits."""
    return abs(first - second) < 1e-6


def about_images(asked: Recipe) -> bool:
    """Whether it is inputs that vary, in l_inf balls."""
    return asked.norm == math.inf and asked.words is None and asked.weights is None


def crown_ibp_row(asked: Recipe) -> Row | None:
    """Zhang et al. 2020, Table 2: errors, verified by IBP, beside those of the family of networks that it belongs to."""
    method = method_of(asked, VARIANTS)
    model = re.match(r"crown-ibp-([a-t])-", asked.network)
    if method is None or not about_images(asked) or asked.network.startswith("dm-large"):
        return None
    family = SMALL if model is None or model[1] < "k" else LARGE
    known = next((row for (data, eps, size, name), row in CROWN_IBP_2.items() if near(eps, asked.radius) and
                  (data, size, name) == (asked.data, family, method)), None)
    if known is None and asked.data != "digits":
        return None
    published = {} if known is None else {"clean": known.clean, "verified": known.verified}
    labels = (asked.data, f"{asked.radius:.4g}", asked.network, method)
    return Row(labels, "IBP", published, "" if known is None else f"{family}: best, median, worst")


def structure(asked: Recipe, usual: str) -> str:
    """What the paper calls the network; `usual` for one that it has not."""
    found = [name for part, name in STRUCTURES.items() if asked.network.startswith(part + "-")]
    return found[0] if found else usual


def bcp_row(asked: Recipe) -> Row | None:
    """Lee et al. 2020, Table 2: accuracies on l_2 balls, each method's network verified by what it was trained by."""
    kind = type(asked.training_method)
    own = BCP_METHODS.get(kind)
    radius = {"mnist": 1.58, "cifar10": 36 / 255}.get(asked.data)
    if own is None or asked.norm != 2 or asked.weights is not None or (radius is not None and not near(radius, asked.radius)):
        return None
    about = structure(asked, "4C3F")
    (proof, _), known = OWN_PROOFS[kind], BCP_2.get((asked.data, about, own))
    published = {} if known is None else {name: (value,) for name, value in vars(known).items()}
    labels = (asked.data, f"{asked.radius:.4g}", asked.network, own, proof)
    return Row(labels, proof, published, about if known is not None else "", accuracies=True)


def fusion_row(asked: Recipe) -> Row | None:
    """Xu et al. 2020, Table 2: errors at 8/255 by IBP and by CROWN-IBP with loss fusion, verified by IBP."""
    method = method_of(asked, FUSION)
    if method is None or not about_images(asked):
        return None
    about = structure(asked, "CNN-7+BN")
    known = LIRPA_2.get((asked.data, about, method)) if near(asked.radius, 8 / 255) else None
    if known is None and asked.data != "digits":
        return None
    published = {} if known is None else {name: (value,) for name, value in vars(known).items()}
    labels = (asked.data, f"{asked.radius:.4g}", asked.network, method)
    return Row(labels, "IBP", published, about if known is not None else "")


TABLES: Mapping[str, TrainedTable] = {
    "crown-ibp-2": TrainedTable(("data", "eps", "network", "method"), ("mnist-a-short",), VARIANTS, crown_ibp_row),
    "crown-ibp-figure-3": TrainedTable(("data", "eps", "network", "method"), ("mnist-a-short",), VARIANTS, crown_ibp_row,
                                       (0.2, 0.4, 0.7)),
    "bcp-2": TrainedTable(("data", "eps", "network", "method", "proven by"), (
        "bcp-mnist-small", "lmt-mnist-small", "cap-mnist-small", "ibp-mnist-small-l2"), {}, bcp_row),
    "lirpa-2": TrainedTable(("data", "eps", "network", "method"), ("cifar-b-short",), FUSION, fusion_row),
}
"""The tables by the names that `boundlab reproduce` knows them by."""
