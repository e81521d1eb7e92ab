"""boundlab train: a network trained by a recipe so that its labels can be proven, and what is proven of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import distributed

from boundlab.cli.answer import Answer, Table
from boundlab.cli.verb import Misuse, Session, narrator, resumable
from boundlab.data.examples import Examples
from boundlab.table import percent
from boundlab.train.checkpoint import NAME as CHECKPOINT
from boundlab.train.history import Epoch
from boundlab.train.plan import Keep
from boundlab.train.processes import Processes
from boundlab.train.recipe import Recipe, names, recipe
from boundlab.train.results import FILES, WORDS, record_of, write_run
from boundlab.train.run import Outcome, Place, carried_out
from boundlab.train.sources import examples_of

Name = Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="A TOML file, or the name of a recipe that --list shows.")]
Listing = Annotated[bool, typer.Option("--list", help="Show the recipes that come with boundlab.")]
Data = Annotated[Path | None, typer.Option(help="Folder or file with the data, as for other verbs; digits need none.")]
Out = Annotated[Path, typer.Option(help="Folder for network, weights, checkpoint, history and records.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in the folder, if there is one.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only so many test examples, the first ones.")]
Torchrun = Annotated[bool, typer.Option("--torchrun", help="One of the processes that torchrun has started: they share every "
                                        "batch, and the first one writes.")]
LISTED = ("recipe", "network", "data", "eps", "epochs", "published: clean", "verified", "source")
MEASURED = ("error", "ours", "published")


@dataclass(frozen=True)
class Where:
    """Data and results."""

    data: Data = None
    out: Out = Path("trained")
    resume: Resume = False
    limit: Limit = None
    torchrun: Torchrun = False


def train(session: Session, name: Name = None, where: Where = Where(), show: Listing = False) -> Answer:
    """Train a network by a recipe, and certify it on the test set.

    The same recipe gives the same weights; a run that was killed goes on with --resume as if nothing had been. Examples for
    validation are taken from the training data. What an attack breaks, ties and NaN are never counted as verified.
    """
    if show:
        return listing()
    if name is None:
        raise Misuse("name a recipe, or list them with --list.")
    asked = recipe(name)
    training, test = examples_of(asked, where.data)
    test = test if where.limit is None else test.take(range(min(where.limit, len(test))))
    refuse_results(where)
    where.out.mkdir(parents=True, exist_ok=True)
    with (placed(session, where) as place, resumable(lambda: kept(where.out)),
          session.working(f"training: {asked.title}") as say):
        tell = teller(session, asked, say)
        outcome = carried_out(asked, training, test, Keep(where.out, resume=where.resume), tell, place)
    if not place.processes.first:
        which, count = place.processes.number + 1, place.processes.count
        said = f"Process {which} of {count}; the first one reports."
        return Answer({"process": which, "processes": count}, sentences=(said,))
    return answer(name, asked, outcome, where, (training, test))


@contextmanager
def placed(session: Session, where: Where) -> Iterator[Place]:
    """The device, and with --torchrun the group of processes, which is left at the end."""
    device = torch.device(session.device)
    if not where.torchrun:
        yield Place(device)
        return
    if not distributed.is_available() or not distributed.is_torchelastic_launched():
        raise Misuse("--torchrun is for processes that torchrun has started: torchrun --nproc-per-node 2 -m boundlab train "
                     "RECIPE --torchrun.")
    distributed.init_process_group("gloo")
    try:
        yield Place(device, Processes.running())
    finally:
        distributed.destroy_process_group()


def refuse_results(where: Where) -> None:
    """Misuse if there are results in the folder that would be replaced, unless their run goes on."""
    kept = where.out / CHECKPOINT
    if where.resume and kept.exists():
        return
    held = [name for name in (CHECKPOINT, "history.csv", WORDS, *FILES) if (where.out / name).exists()]
    if held:
        resume = "go on with that run by --resume, or " if kept.exists() else ""
        raise Misuse(f"'{where.out}' holds {', '.join(held)} already, which a new run would replace; {resume}choose another "
                     "folder with --out.")


def kept(folder: Path) -> str:
    """What an interrupted run leaves, and how to go on."""
    if (folder / CHECKPOINT).exists():
        return f"its epochs are kept in '{folder}', and --resume goes on there."
    return "no epoch was finished."


def teller(session: Session, asked: Recipe, say: Callable[[str], None]) -> Callable[[Epoch], None]:
    """What is said after each epoch: in the spinner if a person watches, else a line on standard error."""
    narrate = say if sys.stderr.isatty() else narrator(session)

    def tell(epoch: Epoch) -> None:
        shares = [f"{name} {percent(value)}" for name, value in (
            ("clean", epoch.clean), ("attacked", epoch.attacked), ("verified", epoch.verified)) if value is not None]
        narrate(f"epoch {epoch.epoch + 1} of {asked.epochs}: " + ", ".join([f"loss {epoch.loss:.4f}", f"eps {epoch.eps:.4g}",
                                                                         *shares, f"{epoch.seconds:.1f} s"]))

    return tell


def listing() -> Answer:
    """The recipes that come with boundlab."""
    rows, data = [], []
    for name in names():
        held = recipe(name)
        known = held.published[0] if held.published else None
        errors = tuple("-" if value is None else f"{value:g} %" for value in (
            (known.clean_error, known.verified_error) if known else (None, None)))
        rows.append((name, held.network, held.data, f"{held.eps:.4g}", str(held.epochs), *errors, held.source))
        data.append({"name": name, **held.model_dump(mode="json", exclude_none=True)})
    return Answer({"recipes": data}, (Table(LISTED, rows, numbers=frozenset(LISTED[3:7])),),
                  (f"{len(rows)} recipes; `boundlab train NAME --data FOLDER --out FOLDER` carries one out.",))


def answer(name: str, asked: Recipe, outcome: Outcome, where: Where, data: tuple[Examples, Examples]) -> Answer:
    """The errors beside those that are published, and the files."""
    fitted, record = outcome.fitted, record_of(name, asked, outcome, (len(data[0]), len(data[1])))
    paths = write_run(where.out, record, outcome, data)
    rows = [(error, percent(value), published(asked, error)) for error, value in record["errors"].items()]
    said = [f"{len(data[1])} test examples, eps {asked.radius:g}, norm {asked.norm:g}; proven in floating point (float).",
            f"{len(fitted.history)} epochs of {outcome.seconds_an_epoch:.1f} s; weights of epoch {fitted.chosen + 1}; "
            f"attack and proofs took {outcome.seconds:.0f} s.",
            f"Written: {', '.join(map(str, paths))}"]
    return Answer(record | {"files": [str(path) for path in paths]},
                  (Table(MEASURED, rows, asked.title, frozenset(MEASURED[1:])),), tuple(said))


def published(asked: Recipe, error: str) -> str:
    """What is printed for an error at the radius of the test, with the verifier that was used."""
    kind, _, proof = error.partition(", ")
    found = []
    for known in asked.published:
        value = {"clean": known.clean_error, "verified": known.verified_error if known.verifier == proof else None}.get(kind)
        if value is not None and abs(known.eps - asked.radius) < 1e-9:
            found.append(f"{value:g} %")
    return ", ".join(found) or "-"

