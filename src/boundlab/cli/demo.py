"""boundlab demo: real handwritten digits, trained twice, attacked and certified."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from boundlab.cli.answer import Answer, Table, jsonable
from boundlab.cli.verb import Session, narrator
from boundlab.exchange.onnx_file import save_onnx
from boundlab.reports.digits import CERTIFIED, METHODS, Settings, Study, load_splits, run_study
from boundlab.reports.figure import save_figure
from boundlab.table import percent

Seed = Annotated[int, typer.Option(help="Fixes the split, the initial weights, the batches and the attack.", min=0)]
Out = Annotated[Path, typer.Option(help="Folder for the figure, the networks, the test images and the JSON file.")]
COLUMNS = ("network", "eps", "clean", "attacked", *(f"certified {name}" for name in METHODS))


def accuracies(study: Study) -> Table:
    """One row a network and radius."""
    rows = [(point.network, f"{point.eps:g}", percent(point.clean), percent(point.attacked),
             *(percent(point.certified[name]) for name in METHODS)) for point in study.points]
    title = f"Accuracy on {study.sizes['test']} test images ({study.rigour})"
    return Table(COLUMNS, rows, title, frozenset(COLUMNS[1:]))


def save_parts(study: Study, out: Path) -> tuple[Path, ...]:
    """The trained networks as ONNX files and the test images with labels, as `certify` and other verbs take them."""
    networks = [out / f"{name}.onnx" for name in study.models]
    for path, model in zip(networks, study.models.values(), strict=True):
        save_onnx(model, path)
    test, images = load_splits(study.settings.seed)["test"], out / "digits.npz"
    assert test.labels is not None
    np.savez(images, x=test.x.numpy(), y=test.labels.numpy())
    return (*networks, images)


def demo(session: Session, seed: Seed = 0, out: Out = Path("demo-results")) -> Answer:
    """Train a small network on scikit-learn's digits twice, ordinarily and with bounds, then attack and certify both."""
    started = time.perf_counter()
    if session.threads is None:
        torch.set_num_threads(1)  # small batches: more threads gain little, and lose much on a busy machine
    out.mkdir(parents=True, exist_ok=True)
    study = run_study(replace(Settings(), seed=seed), narrator(session))
    written = (*save_figure(study, out), *save_parts(study, out))
    record = jsonable(study.record() | {"total seconds": time.perf_counter() - started})
    results = out / "digits.json"
    results.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    kept = [str(path) for path in (*written, results)]
    return Answer(record | {"files": kept}, (accuracies(study),), (
        f"Certified accuracies are proven in ordinary floating point ({study.rigour}); {record['total seconds']:.0f} s in all.",
        f"Written: {', '.join(kept)}",
        f"To certify with rounding counted in, and see a report: boundlab certify {out / CERTIFIED}.onnx "
        f"--data {out / 'digits.npz'} --eps 0.02,0.06,0.1 --limit 100 --out {out / 'certification'}"))
