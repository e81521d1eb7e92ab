"""boundlab demo: real handwritten digits, trained twice, attacked and certified."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from boundlab.cli.answer import Answer, Table, jsonable
from boundlab.cli.verb import Session, narrator
from boundlab.reports.digits import METHODS, Settings, Study, run_study
from boundlab.reports.figure import save_figure
from boundlab.table import percent

Seed = Annotated[int, typer.Option(help="Fixes the split, the initial weights, the batches and the attack.", min=0)]
Out = Annotated[Path, typer.Option(help="Folder for the figure and the JSON file.")]
COLUMNS = ("network", "eps", "clean", "attacked", *(f"certified {name}" for name in METHODS))


def accuracies(study: Study) -> Table:
    """One row a network and radius."""
    rows = [(point.network, f"{point.eps:g}", percent(point.clean), percent(point.attacked),
             *(percent(point.certified[name]) for name in METHODS)) for point in study.points]
    title = f"Accuracy on {study.sizes['test']} test images ({study.rigour})"
    return Table(COLUMNS, rows, title, frozenset(COLUMNS[1:]))


def demo(session: Session, seed: Seed = 0, out: Out = Path("demo-results")) -> Answer:
    """Train a small network on scikit-learn's digits twice, ordinarily and with bounds, then attack and certify both."""
    started = time.perf_counter()
    if session.threads is None:
        torch.set_num_threads(1)  # small batches: more threads gain little, and lose much on a busy machine
    out.mkdir(parents=True, exist_ok=True)
    study = run_study(replace(Settings(), seed=seed), narrator(session))
    figures = save_figure(study, out)
    record = jsonable(study.record() | {"total seconds": time.perf_counter() - started})
    results = out / "digits.json"
    results.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    kept = ", ".join(str(path) for path in (*figures, results))
    return Answer(record | {"files": [str(path) for path in (*figures, results)]}, (accuracies(study),), (
        f"Certified accuracies are proven in ordinary floating point ({study.rigour}); {record['total seconds']:.0f} s in all.",
        f"Written: {kept}"))
