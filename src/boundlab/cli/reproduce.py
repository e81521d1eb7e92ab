"""boundlab reproduce: a table of a paper, run again on the published weights, beside the published figures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

from boundlab.cli.answer import Answer, Table, jsonable
from boundlab.cli.engines import EngineChoice, Kind
from boundlab.cli.verb import Misuse, Session, narrator
from boundlab.engines.engine import Engine
from boundlab.engines.ledger import Recorded
from boundlab.reports.figure import save
from boundlab.reports.tables import Reproduction, figure_of, of_distortions, of_errors, of_flatness, of_radii, of_sentences
from boundlab.reproduce.barrier import Sample, Tell, distortion_table, error_table
from boundlab.reproduce.flatness import flat_rows
from boundlab.reproduce.frown import radius_table
from boundlab.reproduce.sentences import word_rows

Known = Literal["frown-3", "barrier-1", "barrier-2", "lirpa-figure-3", "lirpa-5"]
Which = Annotated[Known, typer.Argument(metavar="TABLE", help=(
    "frown-3: certified radii (Lyu et al. 2020); barrier-1, barrier-2: certified errors and radii (Salman et al. 2019); "
    "lirpa-figure-3: Figure 3 of Xu et al. 2020, two networks trained; lirpa-5: its Table 5, four networks for sentences."))]
Weights = Annotated[Path | None, typer.Option(help="Folder with the published weights as .npz archives, where it needs them.")]
Data = Annotated[Path, typer.Option(help="Folder with MNIST's four IDX files, or for lirpa-5 with sentences.")]
Images = Annotated[int | None, typer.Option(min=1, help="Test examples; by default 100, 500, 10 for the first three.")]
Linear = Annotated[int, typer.Option(min=0, help="frown-3: images of linear programs.")]
Seconds = Annotated[float, typer.Option(min=0, help="barrier-1: seconds of an integer program; 0 leaves them out.")]
Tolerance = Annotated[float, typer.Option(help="barrier-2: width of a radius's bracket at the end, as a share of it.")]
Spread = Annotated[bool, typer.Option("--spread", help="barrier-1: images spread over the test set, not its first ones.")]
LedgerPath = Annotated[Path | None, typer.Option(help="File that keeps results of programs, so that a run can be resumed.")]
Out = Annotated[Path, typer.Option(help="Folder for the JSON file and the figure.")]


@dataclass(frozen=True)
class Sources:
    """Where weights and images are."""

    data: Data
    weights: Weights = None

    @property
    def published(self) -> Path:
        """The folder with weights; Misuse if none is named."""
        if self.weights is None:
            raise Misuse("this table is about published weights; name their folder with --weights.")
        return self.weights


@dataclass(frozen=True)
class Effort:
    """How much is run."""

    images: Images = None
    lp_images: Linear = 3
    milp_seconds: Seconds = 2.0
    tolerance: Tolerance = 0.01
    spread: Spread = False


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


Run = Callable[[Sources, Effort, Engine, Tell], Reproduction]


def errors(sources: Sources, effort: Effort, engine: Engine, tell: Tell) -> Reproduction:
    """barrier-1."""
    return of_errors(error_table(sources.published, sources.data, Sample(effort.images or 500, effort.spread),
                                 effort.milp_seconds, engine, tell))


def distortions(sources: Sources, effort: Effort, engine: Engine, tell: Tell) -> Reproduction:
    """barrier-2."""
    images = effort.images or 10
    return of_distortions(distortion_table(sources.published, sources.data, images, effort.tolerance, engine, tell))


def radii(sources: Sources, effort: Effort, engine: Engine, tell: Tell) -> Reproduction:
    """frown-3."""
    return of_radii(radius_table(sources.published, sources.data, effort.images or 100, (effort.lp_images, engine), tell))


def flat(sources: Sources, effort: Effort, engine: Engine, tell: Tell) -> Reproduction:
    """lirpa-figure-3."""
    return of_flatness(flat_rows(sources.data, effort.images, tell))


def sentences(sources: Sources, effort: Effort, engine: Engine, tell: Tell) -> Reproduction:
    """lirpa-5."""
    return of_sentences(word_rows(sources.data, effort.images, tell))


TABLES: dict[str, Run] = {"frown-3": radii, "barrier-1": errors, "barrier-2": distortions, "lirpa-figure-3": flat,
                          "lirpa-5": sentences}


def reproduce(session: Session, table: Which, sources: Sources, effort: Effort = Effort(), engines: Engines = Engines(),
              out: Out = Path("reproduced")) -> Answer:
    """Run a paper's table again on given weights and images, and print ours beside the published figures (in brackets)."""
    started = time.perf_counter()
    if session.threads is None:
        torch.set_num_threads(1)  # as the published seconds are of one core
    out.mkdir(parents=True, exist_ok=True)
    with engines.open() as engine:
        found = TABLES[table](sources, effort, engine, narrator(session))
    seconds = time.perf_counter() - started
    record = jsonable({"table": table, "rows": found.data, "total seconds": seconds, "rigour": "float"})
    kept = [out / f"{table}.json", out / f"{table}.svg", *(out / f"{table}-{name}.svg" for name in found.figures)]
    kept[0].write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for path, figure in zip(kept[1:], (figure_of(found.panels), *found.figures.values()), strict=True):
        save(figure, path)
    said = f"Ours, and in brackets what is published; proven in float64 or float32 arithmetic (float); {seconds:.0f} s in all."
    return Answer(record | {"files": [str(path) for path in kept]},
                  (Table(found.columns, found.rows, numbers=frozenset(found.columns[1:])),),
                  (said, f"Written: {', '.join(map(str, kept))}"))


