"""Watching a pass: where time and memory go, node by node, and whether it has to end.

An observer is a value that the caller passes in, and reads.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from boundlab.errors import OutOfTime
from boundlab.graph import Node

Observer = Callable[[Node, str, int], AbstractContextManager[None]]
"""Called with a node, the kind of work and the number of rows; the work is done inside the context that it returns."""
Found = TypeVar("Found")


def watch(observe: Observer | None, node: Node, work: str, rows: int = 0) -> AbstractContextManager[None]:
    """The observer's context for a piece of work, or one that does nothing."""
    return nullcontext() if observe is None else observe(node, work, rows)


def watched(observe: Observer | None, work: str, refine: Callable[[Node, Any], Found]) -> Callable[[Node, Any], Found]:
    """A function of a node and an environment, each call a piece of work; the function itself if nobody watches."""
    if observe is None:
        return refine

    def run(node: Node, env: Any) -> Found:
        with observe(node, work, 0):
            return refine(node, env)

    return run


@dataclass(frozen=True)
class Deadline:
    """An observer that ends the pass: OutOfTime at the first piece of work that would begin later than `at`.

    `at` is in seconds of `time.perf_counter`. A piece is one operator's interval, or as many rows as are pulled at once.
    """

    at: float

    @contextmanager
    def __call__(self, node: Node, work: str, rows: int = 0) -> Iterator[None]:
        if time.perf_counter() >= self.at:
            raise OutOfTime(f"the time was over before the {work} of {node.describe()}.")
        yield


@dataclass(frozen=True)
class Step:
    """A piece of work: where, what (interval, zonotope, forms, rows), how many rows, wall seconds, memory in bytes."""

    node: Node
    work: str
    rows: int
    seconds: float
    memory: int | None


@dataclass(frozen=True)
class Recorder:
    """An observer that measures: `bound(..., observe=recorder)` fills `steps`.

    A step's memory is by how much it raised the peak of the process so far (on CUDA: of the device's allocations), so a step
    that fits in what earlier steps held and left counts 0; None where the platform does not tell.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def __call__(self, node: Node, work: str, rows: int = 0) -> Iterator[None]:
        before, started = peak_memory(self.device), self.now()
        yield
        seconds, after = self.now() - started, peak_memory(self.device)
        memory = None if before is None or after is None else after - before
        self.steps.append(Step(node, work, rows, seconds, memory))

    def now(self) -> float:
        """Seconds on the wall clock, with all work on the device done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def peak_memory(device: torch.device) -> int | None:
    """The most bytes ever held at once, by the process or on a CUDA device; None if the platform does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
