"""The application: all verbs, and --version."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from boundlab.cli import (
    attack,
    bound,
    certify,
    check,
    demo,
    export,
    ops,
    radius,
    report,
    reproduce,
    show,
    train,
    verify,
    vnncomp,
    zoo,
)
from boundlab.cli.verb import verb

app = typer.Typer(
    name="boundlab", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    help="Proven bounds of neural networks. Exit codes: 0 done or verified, 10 falsified, 20 not decided, 2 bad request.",
)


def print_version(asked: bool) -> None:
    """Print the version and leave."""
    if asked:
        print(f"boundlab {version('boundlab')}")
        raise typer.Exit(0)


@app.callback()
def root(show_version: Annotated[bool, typer.Option("--version", callback=print_version, is_eager=True,
                                                    help="Print the version.")] = False) -> None:
    """Options that stand before the verb."""


for function in (
    show.show, bound.bound, radius.radius, certify.certify, report.report, export.export, verify.verify, check.check,
    attack.attack, vnncomp.vnncomp, ops.ops, zoo.zoo, demo.demo, reproduce.reproduce, train.train,
):
    app.command()(verb(function))
