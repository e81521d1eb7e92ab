"""A table of text, as columns and as HTML, and numbers as people read them."""

from __future__ import annotations

import abc
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from html import escape

FEW = 6
"""Rows of a result that a REPL or a notebook shows; how many more there are is said."""
WORDS, LONG = 9, 32
"""Characters from which a cell needs a column of some width."""
LONGEST = 200
"""Characters of a cell that a fragment shows."""


class Tone(enum.Enum):
    """What a word says, for its colour: (background, letters), which are read on any page, light or dark."""

    PROVEN = ("#1d5fa8", "#ffffff")
    BROKEN = ("#a8430f", "#ffffff")
    OPEN = ("#e0ac2b", "#1a2330")
    FAILED = ("#7a3fa0", "#ffffff")
    QUIET = ("#566273", "#ffffff")


STYLE = (".boundlab{overflow-x:auto;max-width:100%}.boundlab table{border-collapse:collapse;font-variant-numeric:tabular-nums;"
         "color:inherit;margin:.3em 0}.boundlab caption{caption-side:top;text-align:left;color:inherit;padding:0 0 .3em}"
         ".boundlab th,.boundlab td{text-align:left;vertical-align:top;padding:.2em .9em .2em 0;border:0;"
         "border-bottom:1px solid #8888}.boundlab .number{text-align:right}.boundlab thead th{font-weight:600}"
         ".boundlab tbody th{font-weight:400}.boundlab mark{padding:.05em .5em;border-radius:.3em;font-weight:600}")
"""Letters and lines take the colours of the page around them."""


@dataclass(frozen=True)
class Table:
    """Rows of text under named columns; columns in `numbers` are aligned to the right.

    `more` rows were left out. A cell that says a word of `tones` has its colour in a notebook.
    """

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    title: str = ""
    numbers: frozenset[str] = frozenset()
    more: int = 0
    tones: Mapping[str, Tone] = field(default_factory=dict)

    def plain(self) -> str:
        """Columns apart by two spaces, a header line first; no title, colours or frames."""
        lines = aligned([self.columns, *self.rows], [name in self.numbers for name in self.columns])
        return f"{lines}\n{self.left_out}" if self.more else lines

    @property
    def left_out(self) -> str:
        """How many rows are left out."""
        return f"... {self.more:,} more"

    def html(self, kind: str = "") -> str:
        """The table as HTML without colours, of a class `kind`; everything in it is escaped."""
        head = "".join(f'<th scope="col"{self.kind(place)}>{escape(name)}</th>' for place, name in enumerate(self.columns))
        rows = "\n".join(f"<tr>{''.join(self.cell(place, text) for place, text in enumerate(row))}</tr>" for row in self.rows)
        if self.more:
            rows += f'\n<tr><td colspan="{len(self.columns)}">{self.left_out}</td></tr>'
        own = f' class="{kind}"' if kind else ""
        return (f"<table{own}>\n<caption>{escape(self.title)}</caption>\n<thead><tr>{head}</tr></thead>\n"
                f"<tbody>\n{rows}\n</tbody>\n</table>")

    def cell(self, place: int, text: str) -> str:
        """A cell as HTML; the first one of a row is its header."""
        shown = escape(text)
        if text in self.tones:
            paper, ink = self.tones[text].value
            shown = f'<mark style="background:{paper};color:{ink}">{shown}</mark>'
        if place == 0:
            return f'<th scope="row"{self.kind(place, "words" if len(text) > WORDS else "")}>{shown}</th>'
        return f'<td{self.kind(place, "long" if len(text) > LONG else "")}>{shown}</td>'

    def kind(self, place: int, other: str = "") -> str:
        """The class of a column's cells, as an attribute."""
        name = "number" if self.columns[place] in self.numbers else other
        return f' class="{name}"' if name else ""

    def fragment(self) -> str:
        """The table as a piece of HTML for any page, light or dark, with its own style and cells of bounded length."""
        cut = Table(self.columns, [[shortened(text) for text in row] for row in self.rows], shortened(self.title),
                    self.numbers, self.more, self.tones)
        return f'<div class="boundlab"><style>{STYLE}</style>\n{cut.html()}\n</div>'


class Shown(abc.ABC):
    """A result that a REPL shows as a few lines and a notebook as a small table: `shown` says which."""

    @abc.abstractmethod
    def shown(self) -> Table:
        """What people see of it: a title, and no more than a few rows."""

    def __repr__(self) -> str:
        table = self.shown()
        return f"{table.title}\n{table.plain()}" if table.rows else table.title

    def _repr_html_(self) -> str:
        return self.shown().fragment()


def aligned(lines: Sequence[Sequence[str]], right: Sequence[bool] = ()) -> str:
    """Text in columns two spaces apart; those marked in `right` end flush."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    moves = [str.rjust if place < len(right) and right[place] else str.ljust for place in range(len(widths))]
    return "\n".join("  ".join(move(cell, width) for move, cell, width in zip(moves, line, widths, strict=True)).rstrip()
                     for line in lines)


def shortened(text: str) -> str:
    """Text without its middle if it is long."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST // 2]} ... {text[-LONGEST // 2:]}"


def number(value: float) -> str:
    """A number for people."""
    return f"{value:.5g}"


def below(value: float) -> str:
    """A number for people that is not above the value: what is shown of a lower bound holds."""
    nearest = number(value)
    return directed(value, ROUND_FLOOR) if float(nearest) > value else nearest


def above(value: float) -> str:
    """A number for people that is not below the value: what is shown of an upper bound holds."""
    nearest = number(value)
    return directed(value, ROUND_CEILING) if float(nearest) < value else nearest


def directed(value: float, rounding: str) -> str:
    """Five digits, rounded in a direction."""
    return number(float(Context(prec=5, rounding=rounding).create_decimal_from_float(value)))


def plural(count: int, word: str) -> str:
    """A number of things."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def percent(share: float) -> str:
    """A share for people: 0.0 % and 100.0 % say none and all, whatever is between is rounded to what is between."""
    return f"{100 * share if share in (0, 1) else min(max(100 * share, 0.1), 99.9):.1f} %"


def radius(eps: float) -> str:
    """A radius for people, exactly: as a short decimal, as a number of 255ths, or with all its digits."""
    steps = round(eps * 255)
    text = f"{eps:g}"
    return text if float(text) == eps else f"{steps}/255" if steps / 255 == eps else repr(eps)
