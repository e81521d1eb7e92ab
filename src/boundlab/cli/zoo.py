"""boundlab zoo: the networks of the papers, and with --time how long their bounds take here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from boundlab.cli.answer import Answer, Table
from boundlab.cli.verb import Misuse, Session
from boundlab.reports.zoo import METHODS, RADIUS, Timing, time_network
from boundlab.zoo import NAMES, RECORDS, Record, build, parameter_count

Beginnings = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Only names that begin so.")]
Timed = Annotated[bool, typer.Option("--time", help="Capture each network and bound it, with weights from seed 0.")]
Batch = Annotated[int, typer.Option(min=1, help="With --time: problems at a time.")]
LISTED = ("name", "input", "classes", "parameters", "source", "note")
TIMED = ("name", "parameters", "capture s", *(f"{name} s{more}" for name in METHODS for more in ("", " expected")))


def zoo(session: Session, name: Beginnings = None, time: Timed = False, batch: Batch = 1) -> Answer:
    """List the networks of the papers; NET of other verbs may be zoo:NAME."""
    chosen = [RECORDS[known] for known in NAMES if not name or known.startswith(tuple(name))]
    if not chosen:
        raise Misuse(f"no network of the zoo begins with {' or '.join(name or ())}; `boundlab zoo` lists all.")
    return timings(session, chosen, batch) if time else listing(chosen)


def listing(records: list[Record]) -> Answer:
    """What each record says, and its parameter count."""
    networks = [asdict(record) | {"parameters": parameter_count(build(record.name))} for record in records]
    for network in networks:
        del network["make"]
    rows = [(network["name"], "x".join(map(str, network["shape"])), str(network["classes"]), str(network["parameters"]),
             network["source"], network["note"] or "-") for network in networks]
    return Answer({"networks": networks}, (Table(LISTED, rows, numbers=frozenset({"classes", "parameters"})),),
                  (f"{len(rows)} networks.",))


def timings(session: Session, records: list[Record], batch: int) -> Answer:
    """Measured beside expected seconds."""
    found = [time_network(record, batch) for record in session.track(records, len(records), "networks")]
    said = (f"{len(found)} networks, batch {batch}, boxes of half-width {RADIUS:g}, up to 9 margins, medians of 3 runs.")
    return Answer({"batch": batch, "networks": [asdict(timing) for timing in found]},
                  (Table(TIMED, [cells(timing) for timing in found], numbers=frozenset(TIMED[1:])),), (said,))


def cells(timing: Timing) -> tuple[str, ...]:
    """One line."""
    seconds = [value for name in METHODS for value in (timing.measured[name], timing.expected[name])]
    return timing.name, str(timing.parameters), f"{timing.capture:.2g}", *(f"{value:.2g}" for value in seconds)
