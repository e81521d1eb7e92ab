"""boundlab ops: the operators that are registered, and the rules that each one has."""

from __future__ import annotations

import inspect
import re

from boundlab.cli.answer import Answer, Table
from boundlab.cli.verb import Session
from boundlab.ops import Op
from boundlab.ops.op import REGISTRY, always, never

COLUMNS = ("name", "interval", "relaxation", "free variables", "exact when", "breaks", "sources")


def words(function: object, otherwise: str) -> str:
    """The first sentence of a rule's own docstring."""
    text = " ".join((inspect.getdoc(function) or "").split())
    return re.split(r"(?<! al)(?<! Sec)\. |\.$", text)[0] or otherwise


def lines_of(op: Op) -> str:
    """How the operator is relaxed."""
    if op.relax is None:
        return "none: its interval"
    return "the operator itself" if op.affine is always else words(op.relax, "a line below and a line above")


def places(op: Op) -> str:
    """Where a split of the argument helps."""
    if callable(op.breaks):
        return "by attributes"
    return "-" if op.breaks is None else ", ".join(f"{place:g}" for place in op.breaks) or "anywhere"


def described(op: Op) -> dict[str, str]:
    """One operator as text by column."""
    linear = op.affine is always
    return {
        "name": op.name,
        "interval": words(op.interval, "exact image" if linear else "from the function's shape"),
        "relaxation": lines_of(op),
        "free variables": ", ".join(op.alpha) or "-",
        "exact when": "between its breaks" if op.piecewise else "never" if op.affine is never else words(op.affine, "-"),
        "breaks": places(op),
        "sources": ", ".join(op.sources) or "by lowering",
    }


def ops(session: Session) -> Answer:
    """List the operators: how each is bounded, what an optimiser may move, where it can be split, and its framework names."""
    listed = [described(op) for _, op in sorted(REGISTRY.items())]
    rows = [tuple(op[name] for name in COLUMNS) for op in listed]
    return Answer({"operators": listed}, (Table(COLUMNS, rows),), (f"{len(rows)} operators.",))
