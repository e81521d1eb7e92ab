"""How long tasks of known lengths would take on a number of workers: a simulation, nothing runs."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from boundlab.errors import EngineError


@dataclass(frozen=True)
class Schedule:
    """When the last task ends, and the share of the workers' time until then that is work of tasks (1 if there is no task)."""

    makespan: float
    utilisation: float


def schedule(layers: Sequence[Sequence[float]], workers: int, overhead: float = 0.0) -> Schedule:
    """The time that `workers` need for tasks of these seconds, where a layer begins when the one before it is done.

    In a layer, whoever is free takes the longest task left. Each task costs `overhead` seconds more, which count as time and
    not as work. A layer takes at most 4/3 - 1/(3 workers) times as long as the best possible order (Graham 1969, Bounds on
    multiprocessing timing anomalies, Theorem 3). EngineError for times that are negative or not finite, or no worker.
    """
    if workers < 1:
        raise EngineError(f"a schedule needs at least one worker, got {workers}.")
    wrong = [seconds for layer in (*layers, [overhead]) for seconds in layer if not 0 <= seconds < math.inf]
    if wrong:
        raise EngineError(f"a schedule needs times that are finite and not negative, got {wrong[0]}.")
    makespan = sum(layer_time(layer, workers, overhead) for layer in layers)
    work = math.fsum(seconds for layer in layers for seconds in layer)
    return Schedule(makespan, work / (workers * makespan) if makespan else 1.0)


def layer_time(layer: Sequence[float], workers: int, overhead: float) -> float:
    """When the last task of one layer ends."""
    free = [0.0] * min(workers, len(layer))
    for seconds in sorted(layer, reverse=True):
        heapq.heapreplace(free, free[0] + seconds + overhead)
    return max(free, default=0.0)
