"""Tasks that wait for a worker, handed out in batches that are worth a message."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from boundlab.engines.shared import Shared, shared_of
from boundlab.engines.task import Arrays

BYTES = 64_000_000
"""A batch is closed when its own arrays exceed this: it is held in memory at both ends."""


@dataclass
class Waiting:
    """Places of tasks without an answer; a batch is about `seconds` of work, and at the end a fair share of what is left.

    Until an answer has told how long tasks take, a batch is one task.
    """

    tasks: Sequence[Arrays]
    workers: int
    seconds: float
    fresh: deque[int] = field(init=False)
    again: deque[int] = field(init=False, default_factory=deque)
    spent: float = field(init=False, default=0.0)
    answers: int = field(init=False, default=0)
    shared: Shared = field(init=False)

    def __post_init__(self) -> None:
        self.fresh = deque(range(len(self.tasks)))
        self.shared = shared_of(self.tasks)

    def __bool__(self) -> bool:
        return bool(self.fresh or self.again)

    def learn(self, seconds: float) -> None:
        """An answer took this long."""
        self.spent += seconds
        self.answers += 1

    def put_back(self, places: Iterable[int]) -> None:
        """Tasks whose worker died: they go next, each alone, so that a task that kills its worker takes no other along."""
        self.again.extend(places)

    def take(self) -> list[int]:
        """The next batch; empty if nothing waits."""
        if self.again:
            return [self.again.popleft()]
        batch: list[int] = []
        size, most = 0, self.most()
        while self.fresh and len(batch) < most and size < BYTES:
            batch.append(self.fresh.popleft())
            size += sum(array.nbytes for array in self.tasks[batch[-1]].values() if self.shared.token(array) is None)
        return batch

    def most(self) -> int:
        """How many tasks a batch may have now."""
        if not self.answers:
            return 1
        worth = self.seconds * self.answers / max(self.spent, 1e-9)
        return max(1, int(min(worth, len(self.fresh) / (2 * self.workers))))
