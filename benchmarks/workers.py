"""Whether two workers are twice as fast as one: a real run of linear programs, in turns."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import boundlab as bl
from benchmarks.programs import Clocked, Setting
from boundlab.cli.answer import Table
from boundlab.engines.engine import Engine, results
from boundlab.engines.task import Arrays
from boundlab.reproduce.barrier import GREEDY


def count(task: Arrays) -> Arrays:
    """Work of a fixed amount, that needs nothing but a core."""
    return {"total": np.array(sum(sum(range(1000)) for _ in range(int(task["loops"]))))}


def counting(engine: Engine, loops: int = 20_000) -> float:
    """Seconds that an engine needs to count twice."""
    began = time.perf_counter()
    results(engine, count, [{"loops": np.array(loops)}] * 2)
    return time.perf_counter() - began


@dataclass(frozen=True)
class Turn:
    """One run: wall seconds, CPU seconds of the driver and of the worker that had most, lower bounds, load.

    `counting` are the wall seconds of two tasks that only count, right before: what the machine has to give.
    """

    wall: float
    driver: float
    busiest: float
    lower: torch.Tensor
    counting: float
    load: float

    @property
    def alone(self) -> float:
        """What the run would take if nobody else used the machine: the driver's seconds, then those of the busiest worker."""
        return self.driver + self.busiest


def turn(setting: Setting, data: Path, engine: Engine) -> Turn:
    """One run of LP-ALL on an engine that is open."""
    (model, ball, spec), spun = setting.question(data), counting(engine)
    clocked, wall, cpu = Clocked(engine), time.perf_counter(), time.process_time()
    lower = bl.bound(model, ball, method=bl.LP(GREEDY, enough=setting.enough, engine=clocked), spec=spec).lower
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    busiest = 0.0
    for layer in clocked.layers:  # a layer begins when the one before it is done
        spent: dict[int, float] = defaultdict(float)
        for task in layer.tasks:
            spent[task.process] += float(task.task[0])
        busiest += max(spent.values())
    return Turn(wall, cpu, busiest, lower, spun, os.getloadavg()[0])


def turns(setting: Setting, data: Path, engines: tuple[Engine, Engine], repeat: int) -> list[tuple[Turn, Turn]]:
    """Runs with one and with two workers, one after the other, `repeat` times; a first pair starts the processes."""
    found = [(turn(setting, data, engines[0]), turn(setting, data, engines[1])) for _ in range(repeat + 1)][1:]
    assert all(torch.equal(one.lower, two.lower) for one, two in found)
    return found


def turns_table(found: Sequence[tuple[Turn, Turn]]) -> Table:
    """One line for each pair."""
    columns = ("one, wall s", "two, wall s", "ratio", "of counting", "one, CPU s", "two, CPU s", "CPU ratio",
               "load")
    rows = [tuple(f"{value:.2f}" for value in (one.wall, two.wall, two.wall / one.wall, two.counting / one.counting, one.alone,
                                               two.alone, two.alone / one.alone, two.load)) for one, two in found]
    title = "One worker and two; CPU s: the driver's, and in each layer those of the busiest worker"
    return Table(columns, rows, title, frozenset(columns))
