"""What an engine is, and the one that runs tasks in this process."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from boundlab.engines.task import Arrays, Function, answer, check_tasks, name_of, result_of
from boundlab.errors import EngineError

Stream = Generator[tuple[int, dict[str, np.ndarray]], None, None]
"""Pairs (place of the task, its result), in any order; closing it stops the work."""


@runtime_checkable
class Engine(Protocol):
    """Something that runs a function on many independent tasks."""

    def stream(self, function: Function, tasks: Sequence[Arrays]) -> Stream:
        """Pairs (place, result) as tasks finish, each place once, in any order.

        `function` stands at the top of a module and gives the same result whenever it is asked the same: a task may run again
        after a worker died. It gets arrays that it cannot write. EngineError for another function; TaskError, which names the
        task, if it raises or if its workers died more often than the engine tries. Closing the stream ends all work at once.
        """
        ...


def engine_value(engine: Engine) -> Engine:
    """The engine itself; EngineError for a name or a class."""
    if isinstance(engine, type) or not isinstance(engine, Engine):
        raise EngineError(f"an engine is a value such as Serial() or Pool(workers=2), got {engine!r}.")
    return engine


@dataclass(frozen=True)
class Serial:
    """Tasks one after the other in this process, in their order."""

    def stream(self, function: Function, tasks: Sequence[Arrays]) -> Stream:
        name = name_of(function)
        check_tasks(tasks)
        return ((place, result_of(answer(name, place, task))) for place, task in enumerate(tasks))


def results(engine: Engine, function: Function, tasks: Sequence[Arrays]) -> list[dict[str, np.ndarray]]:
    """The results of all tasks, in the order of the tasks; errors as for `Engine.stream`."""
    with closing(engine.stream(function, tasks)) as stream:
        found = dict(stream)
    missing = [place for place in range(len(tasks)) if place not in found]
    if missing:
        raise EngineError(f"{engine!r:.80} ended without a result for {len(missing)} of {len(tasks)} tasks, first of all task "
                          f"{missing[0]}; its `stream` must yield every place once.")
    return [found[place] for place in range(len(tasks))]
