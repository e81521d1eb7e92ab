"""Streams that a failing task does not end."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing

from boundlab.engines.engine import Engine
from boundlab.engines.task import Arrays, Function
from boundlab.errors import EngineError, TaskError

Outcomes = Generator[tuple[int, Arrays | str], None, None]


def contained(engine: Engine, function: Function, tasks: Sequence[Arrays]) -> Outcomes:
    """Pairs (place, result) of all tasks, or (place, why there is none) where a task failed or killed its workers."""
    left = list(range(len(tasks)))
    while left:
        done = set()
        try:
            with closing(engine.stream(function, [tasks[place] for place in left])) as stream:
                for number, result in stream:
                    done.add(number)
                    yield left[number], result
                if len(done) < len(left):
                    raise EngineError(f"{engine!r:.80} gave {len(done)} of {len(left)} results; its `stream` must yield every "
                                      "place once.")
        except TaskError as problem:
            done.add(problem.place)
            yield left[problem.place], problem.reason
        left = [place for number, place in enumerate(left) if number not in done]
