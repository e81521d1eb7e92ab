"""boundlab ops: the operators that are registered, the rules that each one has, and how tight they are."""

from __future__ import annotations

import inspect
import re
from enum import Enum
from typing import Annotated

import typer

from boundlab.cli.answer import Answer, Table
from boundlab.cli.names import reached
from boundlab.cli.verb import Session
from boundlab.ops import Op
from boundlab.ops.op import REGISTRY, always, never
from boundlab.testing.tightness import gaps_of, single_cases

COLUMNS = ("name", "what it is", "interval", "relaxation", "free variables", "exact when", "breaks", "torch", "ONNX")
MOST_NAMES = 14
"""Framework names that a line lists; of the others it gives the number."""
PREFACE = """# Operators

This page is what `boundlab ops --format markdown` prints; a test compares the two. Read it like this:

* **exact when**: an operator that is always exact is affine, and bounds pass through it unchanged. Others are exact where it
  says so, and bounded by their lines elsewhere.
* **relaxation**: the two lines around the function. By default they have the least area that is possible for a function of
  one number (the tangent of an exponential stays positive instead); `boundlab ops --gaps` measures that.
* **free variables**: numbers that optimised bounds may move.
* **breaks**: where a split of the argument makes the operator simpler.
* **torch**, **ONNX**: names in an exported program (without `aten.`) and in ONNX files that may become this operator, on their
  own or among others, as their rule in the lowering tables says. Whatever is in none of the tables is refused at capture.
"""


class Format(Enum):
    """How the list is printed."""

    TABLE = "table"
    MARKDOWN = "markdown"


def words(function: object, otherwise: str) -> str:
    """The first sentence of a rule's own docstring."""
    text = " ".join((inspect.getdoc(function) or "").split())
    return re.split(r"(?<! al)(?<! Sec)\. |\.$", text)[0] or otherwise


def lines_of(op: Op) -> str:
    """How the operator is relaxed."""
    if op.relax is None:
        return "none: its interval"
    return "the operator itself" if op.affine is always else words(op.relax, "a line below and a line above")


def exact_when(op: Op) -> str:
    """Where the relaxation is the operator itself."""
    if op.affine is always:
        return "always"
    if op.affine is not never:
        return words(op.affine, "-").lower().removeprefix("affine ")
    return "between its breaks" if op.piecewise else "never"


def places(op: Op) -> str:
    """Where a split of the argument helps."""
    if callable(op.breaks):
        return "by attributes"
    return "-" if op.breaks is None else ", ".join(f"{place:g}" for place in op.breaks) or "anywhere"


def listing(names: list[str]) -> str:
    """Framework names in a line."""
    more = len(names) - MOST_NAMES
    return (", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")) or "-"


def meaning(op: Op) -> str:
    """What the operator is, in words or as a formula."""
    evaluate = op.evaluate
    return op.meaning or (words(evaluate, "-") if evaluate.__module__ and evaluate.__module__.startswith("boundlab") else "-")


def described(op: Op, torch_names: list[str], onnx_names: list[str]) -> dict[str, str]:
    """One operator as text by column."""
    linear = op.affine is always
    return {
        "name": op.name,
        "what it is": meaning(op),
        "interval": words(op.interval, "exact image" if linear else "from the function's shape"),
        "relaxation": lines_of(op),
        "free variables": ", ".join(op.alpha) or "-",
        "exact when": exact_when(op),
        "breaks": places(op),
        "torch": listing(torch_names),
        "ONNX": listing(onnx_names),
    }


def markdown(table: Table) -> str:
    """A table as Markdown."""
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def measured(session: Session) -> Answer:
    """Mean gaps between the two lines of every operator of one number, and the least that two lines can have."""
    cases = [(op, case) for _, op in sorted(REGISTRY.items()) if op.affine is never and op.relax for case in single_cases(op)]
    rows = []
    for op, case in session.track(cases, len(cases), "measuring"):
        gaps = gaps_of(op, case)
        attributes = ", ".join(f"{name} {value:g}" for name, value in case.attributes.items()) or "-"
        rows.append((op.name, attributes, f"{float(gaps.found.mean()):.5g}", f"{float(gaps.least.mean()):.5g}"))
    columns = ("name", "attributes", "mean gap", "least possible")
    listed = [dict(zip(columns, row, strict=True)) for row in rows]
    table = Table(columns, rows, numbers=frozenset(columns[2:]))
    return Answer({"operators": listed}, (table,), (f"{len(rows)} operators and attributes, 200 intervals each.",))


def ops(session: Session,
        form: Annotated[Format, typer.Option("--format", help="A table, or the page docs/operators.md.")] = Format.TABLE,
        gaps: Annotated[bool, typer.Option("--gaps", help="How tight the relaxations of functions are.")] = False) -> Answer:
    """List the operators: what each is, how it is bounded, what an optimiser may move, and which framework names reach it."""
    if gaps:
        return measured(session)
    names = reached()
    listed = [described(op, *names[name]) for name, op in sorted(REGISTRY.items())]
    table = Table(COLUMNS, [tuple(op[name] for name in COLUMNS) for op in listed])
    text = f"{PREFACE}\n{markdown(table)}" if form is Format.MARKDOWN else None
    return Answer({"operators": listed}, (table,), (f"{len(listed)} operators.",), text=text)
