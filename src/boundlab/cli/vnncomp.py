"""boundlab vnncomp: all instances of a competition folder, each in a process of its own."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from boundlab.cli.answer import FALSIFIED, OK, Answer, Table
from boundlab.cli.verb import Session
from boundlab.verify.competition import CORRECT, WRONG, Outcome, by_family, read_instances, run_instances

Folder = Annotated[Path, typer.Argument(help="A folder with instances.csv: onnx, vnnlib, timeout a line.")]
Family = Annotated[list[str] | None, typer.Option(help="Only this family; may be given several times.")]
Timeout = Annotated[float | None, typer.Option(min=0, help="Seconds for each instance; default: what instances.csv says.")]
Workers = Annotated[int, typer.Option(min=1, help="Instances at a time, which share --threads; each searches in as many "
                                                  "processes as it has threads.")]

Certificates = Annotated[Path | None, typer.Option(help="Folder for the certificates of what is verified.")]


def described(outcome: Outcome) -> dict[str, Any]:
    """One outcome as JSON holds it."""
    return {"family": outcome.instance.family, "onnx": str(outcome.instance.onnx), "vnnlib": str(outcome.instance.vnnlib),
            "verdict": outcome.verdict.name.lower(), "expected": outcome.instance.expected, "seconds": outcome.seconds,
            "score": outcome.score, "method": outcome.method, "error": outcome.error, "witness_accepted": outcome.accepted,
            "checked": outcome.checked, "notes": outcome.notes}


def vnncomp(session: Session, folder: Folder, family: Family = None, timeout: Timeout = None, workers: Workers = 1,
            certificates: Certificates = None) -> Answer:
    """Run a folder of VNN-COMP instances, count what came out, and give the competition's score.

    Exit code 10 if a verdict contradicts the folder's expectation, else 0.
    """
    instances, outcomes = read_instances(folder, family or ()), []
    if timeout is not None:
        instances = [replace(instance, timeout=timeout) for instance in instances]
    if certificates is not None:
        certificates.mkdir(parents=True, exist_ok=True)
        instances = [replace(instance, certificate=certificates / f"{number}-{instance.family}.zip")
                     for number, instance in enumerate(instances, 1)]
    running = session.track(run_instances(instances, workers, max(1, session.cores // workers)), len(instances), "instances")
    for place, outcome in enumerate(running, 1):
        outcomes.append(outcome)
        if not session.quiet:
            name = f"{outcome.instance.onnx.name} {outcome.instance.vnnlib.name}"
            said = f"{outcome.verdict.name.lower()} in {outcome.seconds:.1f} s {outcome.error}".rstrip()
            print(f"{place}/{len(instances)}  {name}: {said}", file=sys.stderr, flush=True)
    counts = [asdict(count) for count in by_family(outcomes)]
    columns = tuple(counts[0]) if counts else ("family",)
    rows = [tuple(f"{value:.1f}" if isinstance(value, float) else str(value) for value in count.values()) for count in counts]
    against = sum(outcome.agrees is False for outcome in outcomes)
    score, most = sum(outcome.score for outcome in outcomes), CORRECT * len(outcomes)
    said = f"{len(outcomes)} instances, {against} against the folder's expectation; verified means with rounding counted in."
    points = f"Score {score} of at most {most}: {CORRECT} for a verdict, {WRONG} for one against the folder's expectation."
    data = {"folder": str(folder), "score": score, "families": counts, "instances": [described(one) for one in outcomes]}
    table = Table(columns, rows, numbers=frozenset(columns[1:]))
    return Answer(data, (table,), (said, points), FALSIFIED if against else OK)
