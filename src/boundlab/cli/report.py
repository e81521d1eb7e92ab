"""boundlab report: the page of a data set that `boundlab certify` has certified, and the same for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from boundlab.certify.certification import Certification
from boundlab.certify.export import FILES, read_certification, save_records
from boundlab.cli.answer import Answer
from boundlab.cli.certify import LEDGER
from boundlab.cli.verb import Misuse, Session
from boundlab.errors import MissingPackage
from boundlab.reports.certified.card import card_of
from boundlab.reports.certified.junit import junit_of
from boundlab.reports.certified.page import HTML, MARKDOWN, save_report
from boundlab.reports.certified.sarif import sarif_of
from boundlab.reports.certified.words import headline, remainder
from boundlab.whole_file import write_whole

Folder = Annotated[Path, typer.Argument(help="The folder that `boundlab certify --out` has written.")]
Classes = Annotated[str | None, typer.Option(help="What classes are called, with commas between, from class 0 on.")]
Junit = Annotated[Path | None, typer.Option(metavar="FILE", help="Also as JUnit XML: a test case for each example and radius.")]
Sarif = Annotated[Path | None, typer.Option(metavar="FILE", help="Also as SARIF 2.1.0: a result for what is not certified.")]
Card = Annotated[Path | None, typer.Option(metavar="FILE", help="Also as a model card, with metadata for Hugging Face.")]
Parquet = Annotated[Path | None, typer.Option(metavar="FILE", help="Also the records as Parquet (.parquet) or .csv.")]


@dataclass(frozen=True)
class Also:
    """Files for other programs."""

    junit: Junit = None
    sarif: Sarif = None
    card: Card = None
    parquet: Parquet = None

    def check(self, folder: Path) -> None:
        """Misuse for a folder, for one file twice, and for a file of the certification itself."""
        taken = {(folder / name).resolve(): "belongs to the certification" for name in (*FILES, LEDGER, HTML, MARKDOWN)}
        for path in (self.junit, self.sarif, self.card, self.parquet):
            if path is None:
                continue
            if path.is_dir():
                raise Misuse(f"'{path}' is a folder; name the file to write.")
            place = path.resolve()
            if place in taken:
                raise Misuse(f"'{path}' {taken[place]}; name another file.")
            taken[place] = "is named twice"

    def write(self, found: Certification, names: Sequence[str]) -> tuple[Path, ...]:
        """Those that are asked for; OSError names a file that cannot be written."""
        kinds = ((self.junit, partial(junit_of, found, names)), (self.sarif, partial(sarif_of, found, names)),
                 (self.card, partial(card_of, found)))
        written = [write_whole(path, text().encode()) for path, text in kinds if path is not None]
        return (*written, *(() if self.parquet is None else (save_records(found, self.parquet),)))


def report(session: Session, folder: Folder, classes: Classes = None, also: Also = Also()) -> Answer:
    """Write report.html and report.md into the folder of a certified data set, and files for other programs where asked."""
    found = read_certification(folder)
    also.check(folder)
    names = [] if classes is None else [name.strip() for name in classes.split(",")]
    if names and len(names) != found.classes:
        raise Misuse(f"--classes gives {len(names)} names, and the network has {found.classes} classes; name each.")
    written, lacking = also.write(found, names), []
    try:
        written = (*save_report(found, folder, names), *written)
    except MissingPackage as problem:
        if not written:
            raise
        lacking.append(f"There is no report: {problem}")
    said = (headline(found), remainder(found), *lacking, f"Written: {', '.join(map(str, written))}")
    return Answer({"files": [str(path) for path in written]}, (), said)
