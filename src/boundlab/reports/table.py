"""A table of text, for people."""

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
