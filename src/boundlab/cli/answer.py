"""What a verb answers, and how it is shown: a table on a terminal, plain columns in a pipe, or JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from boundlab.table import Table

OK, MISUSE, FALSIFIED, UNKNOWN, INTERRUPTED = 0, 2, 10, 20, 130
"""Exit codes: done or verified; bad request; falsified; not decided; Ctrl-C. An internal error ends with 1."""


@dataclass(frozen=True)
class Answer:
    """A verb's result: `data` for --json, tables and sentences for people, the exit code for scripts.

    `text` stands alone: it is printed as it is and replaces tables and sentences.
    """

    data: Mapping[str, Any]
    tables: tuple[Table, ...] = ()
    sentences: tuple[str, ...] = ()
    code: int = OK
    text: str | None = field(default=None)


def jsonable(value: Any) -> Any:
    """The value with tensors and tuples as lists, and with numbers that JSON lacks as text."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return jsonable(value.tolist())


def show(answer: Answer, as_json: bool) -> None:
    """Print an answer on standard output."""
    if as_json:
        print(json.dumps(jsonable(answer.data), indent=2))
    elif answer.text is not None:
        print(answer.text)
    elif sys.stdout.isatty():
        show_rich(answer)
    else:
        print("\n\n".join([*(table.plain() for table in answer.tables), "\n".join(answer.sentences)]).strip("\n"))


def show_rich(answer: Answer) -> None:
    """Tables with rules and bold headers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(highlight=False)
    for table in answer.tables:
        drawn = RichTable(title=table.title or None, box=box.SIMPLE_HEAD, title_justify="left", header_style="bold")
        for name in table.columns:
            drawn.add_column(name, justify="right" if name in table.numbers else "left", overflow="fold")
        for row in table.rows:
            drawn.add_row(*(cell.replace("[", r"\[") for cell in row))
        if table.more:
            drawn.add_row(table.left_out)
        console.print(drawn)
    for sentence in answer.sentences:
        console.print(sentence, markup=False)
