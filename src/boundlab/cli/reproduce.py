"""boundlab reproduce: a table of a paper, run again on the published weights, beside the published figures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

from boundlab.cli.answer import Answer, Table, jsonable
from boundlab.cli.engines import EngineChoice, Kind
from boundlab.cli.verb import Misuse, Session, narrator, resumable
from boundlab.engines.engine import Engine
from boundlab.engines.ledger import Recorded
from boundlab.reports.figure import save
from boundlab.reports.tables import Reproduction, figure_of, of_distortions, of_errors, of_flatness, of_radii, of_sentences
from boundlab.reports.trained import of_curves, of_lengths, of_planes, of_steps, of_tightness, of_trained
from boundlab.reproduce.barrier import Sample, Tell, distortion_table, error_table
from boundlab.reproduce.flatness import flat_rows
from boundlab.reproduce.frown import radius_table
from boundlab.reproduce.fusion import SHORT, step_rows
from boundlab.reproduce.outer import curves, planes, tightness
from boundlab.reproduce.sentences import word_rows
from boundlab.reproduce.trained import TABLES, Line, found_lines, trained_lines
from boundlab.reproduce.trained import Effort as Smaller
from boundlab.train.results import Finished

Known = Literal["frown-3", "barrier-1", "barrier-2", "lirpa-figure-3", "lirpa-5", "crown-ibp-2", "crown-ibp-figure-3", "bcp-2",
                "bcp-figure-2", "bcp-figure-3", "bcp-figure-4", "lirpa-2", "lirpa-3"]
Which = Annotated[Known, typer.Argument(metavar="TABLE", help=(
    "frown-3: certified radii (Lyu et al. 2020); barrier-1, barrier-2: certified errors and radii (Salman et al. 2019); "
    "lirpa-2, lirpa-3, lirpa-5, lirpa-figure-3: loss fusion, its cost, words, flat losses (Xu et al. 2020); crown-ibp-2, "
    "crown-ibp-figure-3: CROWN-IBP beside IBP, and lengths of the ramp (Zhang et al. 2020); bcp-2, bcp-figure-2, bcp-figure-3, "
    "bcp-figure-4: l_2 balls, outer bounds, their tightness, accuracy by radius (Lee et al. 2020)."))]
Weights = Annotated[Path | None, typer.Option(help="Folder with the published weights as .npz archives, where it needs them.")]
Data = Annotated[Path | None, typer.Option(help="Folder with MNIST's four IDX files, CIFAR-10, or for lirpa-5 with sentences.")]
Runs = Annotated[Path | None, typer.Option(help="Folder with finished runs of `boundlab train`, which are taken as they are.")]
Recipes = Annotated[list[str] | None, typer.Option("--recipe", help="Recipe in place of the short ones; may be given again.")]
Images = Annotated[int | None, typer.Option(min=1, help="Test examples; by default 100, 500, 10 for the first three.")]
Linear = Annotated[int, typer.Option(min=0, help="frown-3: images of linear programs.")]
Seconds = Annotated[float, typer.Option(min=0, help="barrier-1: seconds of an integer program; 0 leaves them out.")]
Tolerance = Annotated[float, typer.Option(help="barrier-2: width of a radius's bracket at the end, as a share of it.")]
Spread = Annotated[bool, typer.Option("--spread", help="barrier-1: images spread over the test set, not its first ones.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Epochs of training, the schedules in proportion.")]
Examples = Annotated[int | None, typer.Option(min=2, help="Only so many training examples.")]
Batch = Annotated[int, typer.Option(min=1, help="lirpa-3: examples of a step.")]
Networks = Annotated[list[str] | None, typer.Option("--network", help="lirpa-3: network of the zoo; may be given again.")]
LedgerPath = Annotated[Path | None, typer.Option(help="File that keeps results of programs, so that a run can be resumed.")]
Out = Annotated[Path, typer.Option(help="Folder for the JSON file, figures and runs; runs that are finished there are kept.")]


@dataclass(frozen=True)
class Sources:
    """Where weights, images and runs are."""

    data: Data = None
    weights: Weights = None
    runs: Runs = None
    recipes: Recipes = None

    @property
    def published(self) -> Path:
        """The folder with weights; Misuse if none is named."""
        if self.weights is None:
            raise Misuse("this table is about published weights; name their folder with --weights.")
        return self.weights

    @property
    def examples(self) -> Path:
        """The folder with images or sentences; Misuse if none is named."""
        if self.data is None:
            raise Misuse("name the folder with images or sentences with --data.")
        return self.data


@dataclass(frozen=True)
class Effort:
    """How much is run."""

    images: Images = None
    lp_images: Linear = 3
    milp_seconds: Seconds = 2.0
    tolerance: Tolerance = 0.01
    spread: Spread = False
    epochs: Epochs = None
    training: Examples = None
    batch: Batch = 4
    networks: Networks = None


@dataclass(frozen=True)
class Engines(EngineChoice):
    """What runs programs, and what keeps their results."""

    engine: Kind = "serial"
    ledger: LedgerPath = None

    @contextmanager
    def open(self) -> Iterator[Engine]:
        """The engine, with its processes, and its ledger if there is one; other versions have results of their own."""
        with super().open() as engine:
            yield engine if self.ledger is None else Recorded(engine, self.ledger, version("boundlab"))


@dataclass(frozen=True)
class Means:
    """What runs programs, where tensors live, where runs are kept, and who hears of it."""

    engine: Engine
    device: str
    out: Path
    tell: Tell


Run = Callable[[Sources, Effort, Means], Reproduction]


def errors(sources: Sources, effort: Effort, means: Means) -> Reproduction:
    """barrier-1."""
    return of_errors(error_table(sources.published, sources.examples, Sample(effort.images or 500, effort.spread),
                                 effort.milp_seconds, means.engine, means.tell))


def distortions(sources: Sources, effort: Effort, means: Means) -> Reproduction:
    """barrier-2."""
    images = effort.images or 10
    return of_distortions(distortion_table(sources.published, sources.examples, images, effort.tolerance, means.engine,
                                           means.tell))


def radii(sources: Sources, effort: Effort, means: Means) -> Reproduction:
    """frown-3."""
    return of_radii(radius_table(sources.published, sources.examples, effort.images or 100, (effort.lp_images, means.engine),
                                 means.tell))


def flat(sources: Sources, effort: Effort, means: Means) -> Reproduction:
    """lirpa-figure-3."""
    return of_flatness(flat_rows(sources.examples, effort.images, means.tell))


def sentences(sources: Sources, effort: Effort, means: Means) -> Reproduction:
    """lirpa-5."""
    return of_sentences(word_rows(sources.examples, sources.recipes or (), smaller(effort, means), means.tell))


def smaller(effort: Effort, means: Means) -> Smaller:
    """How much smaller than their recipes runs shall be."""
    return Smaller(effort.epochs, effort.training, effort.images, means.device)


def lines(name: str, sources: Sources, effort: Effort, means: Means) -> list[Line]:
    """What runs of a table give, those that are named or those that are trained now."""
    table = TABLES[name]
    if sources.runs is not None:
        return found_lines(table, sources.runs)
    return trained_lines(table, table.planned(sources.recipes or ()), sources.data, means.out / "runs", smaller(effort, means),
                         means.tell)


def trained(name: str) -> Run:
    """crown-ibp-2, bcp-2, lirpa-2."""
    return lambda sources, effort, means: of_trained(TABLES[name], lines(name, sources, effort, means))


def lengths(sources: Sources, effort: Effort, means: Means) -> Reproduction:
    """crown-ibp-figure-3."""
    return of_lengths(lines("crown-ibp-figure-3", sources, effort, means))


def steps(sources: Sources, effort: Effort, means: Means) -> Reproduction:
    """lirpa-3."""
    networks = tuple(effort.networks or SHORT)
    return of_steps(step_rows(networks, effort.batch, torch.device(means.device), means.tell))


def outer(picture: Callable[[list[Finished], Path, int | None], Reproduction]) -> Run:
    """bcp-figure-2, bcp-figure-3, bcp-figure-4: of runs that are named, or trained now."""
    return lambda sources, effort, means: picture(
        [line.run for line in lines("bcp-2", sources, effort, means)], sources.examples, effort.images)


@dataclass(frozen=True)
class Made:
    """How a table is made, and the options that it reads."""

    run: Run
    reads: frozenset[str]


PROGRAMS = frozenset({"weights", "data", "images", "engine", "workers", "address", "ledger"})
TRAINING = frozenset({"data", "images", "recipe", "epochs", "training"})
RUNS = TRAINING | {"runs"}
MADE: dict[str, Made] = {
    "frown-3": Made(radii, PROGRAMS | {"lp-images"}),
    "barrier-1": Made(errors, PROGRAMS | {"milp-seconds", "spread"}),
    "barrier-2": Made(distortions, PROGRAMS | {"tolerance"}),
    "lirpa-figure-3": Made(flat, frozenset({"data", "images"})),
    "lirpa-5": Made(sentences, TRAINING),
    "lirpa-3": Made(steps, frozenset({"batch", "network"})),
    "crown-ibp-figure-3": Made(lengths, RUNS),
    **{name: Made(trained(name), RUNS) for name in ("crown-ibp-2", "bcp-2", "lirpa-2")},
    "bcp-figure-2": Made(outer(lambda *given: of_planes(planes(*given))), RUNS),
    "bcp-figure-3": Made(outer(lambda *given: of_tightness(tightness(*given))), RUNS),
    "bcp-figure-4": Made(outer(lambda *given: of_curves(curves(*given))), RUNS)}
ONE_OF_SEVERAL = {"recipes": "recipe", "networks": "network"}
"""Options that may be given again, by the name of all that was given."""


def refuse_unread(table: str, *groups: Sources | Effort | Engines) -> None:
    """Misuse if an option is given that would change nothing of this table."""
    given = [ONE_OF_SEVERAL.get(name, name.replace("_", "-")) for group in groups
             for name, value in asdict(group).items() if value != asdict(type(group)())[name]]
    unread = [f"--{option}" for option in given if option not in MADE[table].reads]
    if unread:
        raise Misuse(f"{', '.join(unread)} would change nothing of {table}; leave it out.")


def kept_of(table: str, out: Path) -> str:
    """What an interrupted table leaves."""
    if "runs" in MADE[table].reads and (out / "runs").exists():
        return f"finished runs and epochs are kept in '{out / 'runs'}', and the same command goes on there."
    return "nothing is kept but what a ledger holds."


def reproduce(session: Session, table: Which, sources: Sources, effort: Effort = Effort(), engines: Engines = Engines(),
              out: Out = Path("reproduced")) -> Answer:
    """Run a paper's table again on given weights and images, and print ours beside the published figures (in brackets)."""
    refuse_unread(table, sources, effort, engines)
    started = time.perf_counter()
    if session.threads is None:
        torch.set_num_threads(1)  # as the published seconds are of one core
    out.mkdir(parents=True, exist_ok=True)
    with resumable(lambda: kept_of(table, out)), engines.open() as engine:
        found = MADE[table].run(sources, effort, Means(engine, session.device, out, narrator(session)))
    seconds = time.perf_counter() - started
    record = jsonable({"table": table, "rows": found.data, "total seconds": seconds, "rigour": "float"})
    figures = dict(found.figures) | ({"": figure_of(found.panels)} if found.panels else {})
    kept = [out / f"{table}.json", *(out / f"{table}{name and f'-{name}'}.svg" for name in figures)]
    kept[0].write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for path, figure in zip(kept[1:], figures.values(), strict=True):
        save(figure, path)
    said = f"Ours, and in brackets what is published; proven in float64 or float32 arithmetic (float); {seconds:.0f} s in all."
    return Answer(record | {"files": [str(path) for path in kept]},
                  (Table(found.columns, found.rows, numbers=frozenset(found.columns[1:])),),
                  (said, f"Written: {', '.join(map(str, kept))}"))
