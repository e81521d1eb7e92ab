"""boundlab export: the questions of a data set for other verifiers, as the competition lays them out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from boundlab.certify.export import read_certification
from boundlab.certify.instances import LIST, save_instances
from boundlab.certify.plan import Plan
from boundlab.cli.answer import Answer
from boundlab.cli.certify import Asked, original_of
from boundlab.cli.loading import NetworkChoice, norm_of
from boundlab.cli.verb import Session
from boundlab.reports.certified.words import plural

Out = Annotated[Path, typer.Option(help="Folder for network.onnx, the properties, and instances.csv.")]
Open = Annotated[Path | None, typer.Option("--open", metavar="FOLDER", help=(
    "Only what the certification in this folder (of `boundlab certify`, with the same options) has left open."))]
Timeout = Annotated[float, typer.Option(help="Seconds for each question, as instances.csv says them.")]


@dataclass(frozen=True)
class Output:
    """Where questions go, and which."""

    out: Out
    only: Open = None
    timeout: Timeout = 60.0


def export(session: Session, network: NetworkChoice, asked: Asked, output: Output) -> Answer:
    """Write a data set's questions for other verifiers: an ONNX file, a VNN-LIB 1.0 file for each, and instances.csv.

    `boundlab vnncomp FOLDER` runs them, and so do the tools of the competition. Misclassified examples are left out.
    """
    plan = Plan(norm_of(asked.norm), None if asked.clip == (-math.inf, math.inf) else asked.clip, timeout=output.timeout)
    certified, examples = None if output.only is None else read_certification(output.only), asked.examples()
    original, _ = original_of(session, network, asked.normalisation(), lambda: tuple(examples.x.shape[1:]))
    with session.working("writing properties"):
        found = save_instances(original, examples, asked.radii(), output.out, plan, certified)
    left = f" {plural(len(found.misclassified), 'misclassified example')} left out." if found.misclassified else ""
    said = f"{plural(len(found.asked), 'question')} about {plural(len({index for index, _ in found.asked}), 'example')}.{left}"
    return Answer({"folder": str(found.folder), "questions": [{"example": index, "eps": eps} for index, eps in found.asked],
                   "misclassified": list(found.misclassified)}, (),
                  (said, f"Written: {found.folder / LIST}; run by `boundlab vnncomp {found.folder}`."))
