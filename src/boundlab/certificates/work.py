"""Until when a check may take time, and whose hands do it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")
Deal = Callable[[Callable[[Any], Any], Sequence[Any]], Sequence[Any]]
"""What a function finds for each of some items, whoever has called it; None for those that were not reached in time."""


def never() -> bool:
    """There is time."""
    return False


@dataclass(frozen=True)
class Work:
    """Nothing more is begun once `over` says so; with `deal` there are more hands than these, which run the same check.

    Every hand derives all that is small, and of long lists of items its share; `deal` gives each what the others found.
    """

    over: Callable[[], bool] = never
    hands: int = 1
    deal: Deal | None = None

    def portion(self, count: int, most: int, least: int) -> int:
        """How many of `count` rows to take at a time, `most` at most, so that every hand gets some; `least` are worth it."""
        return most if self.deal is None else max(min(most, count // (2 * self.hands)), least)

    def each(self, function: Callable[[Item, Work], Found], items: Sequence[Item]) -> Iterator[tuple[Item, Found]]:
        """Items with what the function makes of them, in order, without those that were not reached in time.

        It gets the hands that are left for an item: of many items each hand takes some for itself, at few all of them work.
        """
        if self.deal is None or len(items) < 2 * self.hands:
            yield from ((item, function(item, self)) for item in items if not self.over())
            return
        alone = Work(self.over)
        found = self.deal(lambda item: None if self.over() else function(item, alone), items)
        yield from ((item, own) for item, own in zip(items, found, strict=True) if own is not None)


ALONE = Work()
"""One pair of hands, and time."""
