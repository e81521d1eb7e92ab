"""A process of its own for one library on one case: it prepares the call, then runs it as often as it is told.

So neither library's allocations, threads or caches touch the other's. The process is fresh, so the first run tells the memory.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks import memory
from benchmarks.cases import OURS, Job, Limits

GRACE, PREPARING, LEAVING, ALARM = 5, 300, 3, 0.01
"""A process that does not stop by itself is ended after GRACE times the limit. Seconds: to prepare, to leave, to be late."""


@dataclass(frozen=True)
class Run:
    """One call: CPU seconds (CUDA: wall seconds), bytes held at the most beyond before (first call only), what it gave."""

    seconds: float
    memory: int | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class Failure:
    """Why there is no run: `over` (time: it took at least `seconds`), `memory`, `refused` (by the library), or `died`."""

    kind: str
    text: str
    seconds: float | None = None


class Contender(Protocol):
    """Someone who takes turns; `build` are the seconds that preparing took, or why it failed."""

    @property
    def build(self) -> float | Failure:
        ...

    def run(self) -> Run | Failure:
        """Do the work once."""
        ...

    def end(self) -> None:
        """Nothing more is asked."""
        ...


class OverTime(BaseException):
    """The call has used its seconds; not an Exception, so that no handler inside a library keeps it."""


def clock(device: str) -> float:
    """CPU seconds of this process; on CUDA wall seconds, with the device's work done."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(call: Callable[[], Tensor], job: Job, measure_memory: bool) -> Run:
    """One call, measured."""
    before = memory.start(job.device) if measure_memory else 0
    started = clock(job.device)
    found = call()
    seconds = clock(job.device) - started
    peak = memory.most_since(job.device, before) if measure_memory else None
    return Run(seconds, peak, tuple(found.flatten().tolist()))


def guarded(action: Callable[[], Any], job: Job, limits: Limits) -> Any:
    """What an action gives, or a Failure: it may use `limits.seconds` of this process's time (CUDA: wall time)."""
    started = clock(job.device)

    def stop(number: int, frame: Any) -> None:
        left = limits.seconds - (clock(job.device) - started)
        if left <= 0:
            raise OverTime
        signal.setitimer(signal.ITIMER_REAL, left + ALARM)

    signal.signal(signal.SIGALRM, stop)  # wall time, asked again: a CPU-time alarm makes Linux's CPU clock coarse
    signal.setitimer(signal.ITIMER_REAL, limits.seconds)
    try:
        return action()
    except OverTime:
        return Failure("over", f"over {limits.seconds:g} s", limits.seconds)
    except (MemoryError, torch.OutOfMemoryError):
        return Failure("memory", f"over {limits.gigabytes:g} GB")
    except Exception as problem:  # whatever a library raises is its answer
        text = " ".join(str(problem).split())
        if "memory" in text and "allocat" in text:
            return Failure("memory", f"over {limits.gigabytes:g} GB")
        return Failure("refused", f"{type(problem).__name__}: {text}"[:300])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def prepared(job: Job) -> Callable[[], Tensor]:
    """The call of a job, by its library."""
    if job.library == OURS:
        from benchmarks import ours

        return ours.prepare(job)
    from benchmarks import peer

    return peer.prepare(job)


def serve(connection: Connection, job: Job, limits: Limits) -> None:
    """What the process does: prepare, say how long that took, and run once for each message. Libraries' prints are dropped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if job.device == "cpu":
        memory.limit(limits.gigabytes)
    started = clock(job.device)
    call = guarded(lambda: prepared(job), job, Limits(PREPARING, limits.gigabytes))
    if isinstance(call, Failure):
        connection.send(call)
        return
    connection.send(clock(job.device) - started)
    first = True
    while connection.recv():
        connection.send(guarded(lambda: timed(call, job, first), job, limits))  # noqa: B023 (called at once)
        first = False


@dataclass(frozen=True)
class Remote:
    """A contender in a process of its own."""

    process: SpawnProcess
    connection: Connection
    limits: Limits
    build: float | Failure

    def run(self) -> Run | Failure:
        if isinstance(self.build, Failure):
            return self.build
        self.connection.send(True)
        answer: Run | Failure = heard(self.connection, GRACE * self.limits.seconds)
        return answer

    def end(self) -> None:
        with suppress(OSError):
            self.connection.send(False)
        self.process.join(LEAVING)
        self.process.kill()  # where it does not leave by itself: inside a call that was too long
        self.process.join()
        self.connection.close()


def heard(connection: Connection, seconds: float) -> Any:
    """What a process says within a time."""
    try:
        return connection.recv() if connection.poll(seconds) else Failure("over", f"over {seconds:g} s of wall time")
    except (EOFError, OSError):
        return Failure("died", "the process died, most likely for lack of memory")


def remote(job: Job, limits: Limits) -> Remote:
    """A contender that has prepared its call."""
    context = multiprocessing.get_context("spawn")
    own, other = context.Pipe()
    process = context.Process(target=serve, args=(other, job, limits), daemon=True)
    process.start()
    other.close()
    return Remote(process, own, limits, heard(own, GRACE * PREPARING))


@dataclass(frozen=True)
class Local:
    """A contender in this process: no memory, no limits, nothing between it and others. For quick checks."""

    job: Job
    call: Callable[[], Tensor]
    build: float

    def run(self) -> Run | Failure:
        return timed(self.call, self.job, measure_memory=False)

    def end(self) -> None:
        return


def local(job: Job, limits: Limits) -> Local:
    """A contender in this process that has prepared its call; `limits` do not hold for it."""
    started = clock(job.device)
    call = prepared(job)
    return Local(job, call, clock(job.device) - started)
