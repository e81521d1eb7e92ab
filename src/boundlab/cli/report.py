"""boundlab report: the page of a data set that `boundlab certify` has certified."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boundlab.certify.export import read_certification
from boundlab.cli.answer import Answer
from boundlab.cli.verb import Misuse, Session
from boundlab.reports.certified.page import save_report
from boundlab.reports.certified.words import headline, remainder

Folder = Annotated[Path, typer.Argument(help="The folder that `boundlab certify --out` has written.")]
Classes = Annotated[str | None, typer.Option(help="What classes are called, with commas between, from class 0 on.")]


def report(session: Session, folder: Folder, classes: Classes = None) -> Answer:
    """Write report.html and report.md into the folder of a certified data set: its answer as a page to hand on."""
    found = read_certification(folder)
    names = [] if classes is None else [name.strip() for name in classes.split(",")]
    if names and len(names) != found.classes:
        raise Misuse(f"--classes gives {len(names)} names, and the network has {found.classes} classes; name each.")
    written = save_report(found, folder, names)
    return Answer({"files": [str(path) for path in written]}, (),
                  (headline(found), remainder(found), f"Written: {', '.join(map(str, written))}"))
