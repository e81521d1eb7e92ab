"""Turns: contenders run one after the other, A B A B, so that whatever slows the machine slows both."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from benchmarks.worker import Contender, Failure, Run

FEWEST, MOST = 3, 15
Name = TypeVar("Name")


@dataclass(frozen=True)
class Measured:
    """What is known of one contender: `state` is done, over, memory, refused, died or skipped.

    `at_least` are the seconds that it had taken, on this or a smaller batch, when it was stopped; `build` those of preparing.
    """

    state: str
    runs: tuple[float, ...] = ()
    memory: int | None = None
    values: tuple[float, ...] = ()
    note: str = ""
    at_least: float | None = None
    build: float | None = None

    @property
    def seconds(self) -> float | None:
        """The median of the runs."""
        return statistics.median(self.runs) if self.runs else None

    @property
    def mean(self) -> float | None:
        """The mean of what was computed."""
        return statistics.fmean(self.values) if self.values else None


def runs_wanted(first: float, patience: float) -> int:
    """How many runs after a first one of that many seconds: none if that took longer than our patience."""
    return 0 if first > patience else max(FEWEST, min(MOST, math.ceil(patience / max(first, 1e-9))))


def take_turns(contenders: Mapping[Name, Contender], patience: float) -> dict[Name, Measured]:
    """Every contender's figures. The first run tells memory and warms up; it counts as time only if it was a long one."""
    firsts = {name: contender.run() for name, contender in contenders.items()}
    wanted = {name: runs_wanted(first.seconds, patience) for name, first in firsts.items() if isinstance(first, Run)}
    seconds: dict[Name, list[float]] = {name: [] for name in firsts}
    failed = {name: first for name, first in firsts.items() if isinstance(first, Failure)}
    for turn in range(MOST):
        for name in [name for name, count in wanted.items() if turn < count and name not in failed]:
            run = contenders[name].run()
            if isinstance(run, Failure):
                failed[name] = run
            else:
                seconds[name].append(run.seconds)
    found = {name: outcome(failed.get(name, first), seconds[name]) for name, first in firsts.items()}
    builds = {name: contender.build for name, contender in contenders.items()}
    return {name: replace(measured, build=build if isinstance(build := builds[name], float) else None)
            for name, measured in found.items()}


def outcome(first: Run | Failure, seconds: list[float]) -> Measured:
    """What a first run, or a failure, and the seconds of later runs amount to."""
    if isinstance(first, Failure):
        return Measured(first.kind, note=first.text, at_least=first.seconds)
    return Measured("done", tuple(seconds) or (first.seconds,), first.memory, first.values)
