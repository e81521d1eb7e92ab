"""A table of text, and shares as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from boundlab.check.report import columns


@dataclass(frozen=True)
class Table:
    """Rows of text under named columns; columns in `numbers` are aligned to the right."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    title: str = ""
    numbers: frozenset[str] = frozenset()

    def plain(self) -> str:
        """Columns apart by two spaces, a header line first; no title, colours or frames."""
        return columns([self.columns, *self.rows], [name in self.numbers for name in self.columns])


def percent(share: float) -> str:
    """A share for people: 0.0 % and 100.0 % say none and all, whatever is between is rounded to what is between."""
    return f"{100 * share if share in (0, 1) else min(max(100 * share, 0.1), 99.9):.1f} %"
