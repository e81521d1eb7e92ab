"""Limits of one question: seconds and memory, as far as the operating system can be asked for them."""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from boundlab.errors import EngineError

LONGEST = 1e8
"""Seconds beyond which nobody sets an alarm."""


class Overrun(Exception):
    """A question that did not end by itself."""


def check_memory_limit(memory: int) -> None:
    """EngineError where no limit of memory can be set, or none so high."""
    resource = load_resource()
    if resource is None or allocated() is None:
        raise EngineError("this system sets no limit to a process's memory; leave out `memory`, or run on Linux.")
    if memory < 1:
        raise EngineError(f"a limit of memory is at least one byte, got {memory}.")


def load_resource() -> Any:
    """Python's module for limits; None where there is none (Windows)."""
    try:
        return importlib.import_module("resource")
    except ImportError:
        return None


def allocated() -> int | None:
    """Bytes that this process has allocated for data, as the limit counts them; None where the system does not say."""
    return psutil.Process().memory_info()._asdict().get("data")


@contextmanager
def limited(seconds: float, memory: int | None) -> Iterator[None]:
    """A context that raises Overrun after so many seconds, and MemoryError or torch's error beyond so many bytes more.

    Time is taken where the system has alarms and this is the main thread, and no one else has set one: a last resort for what
    does not look at the clock.
    """
    with interrupted_after(seconds), bounded_by(memory):
        yield


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Overrun after so many seconds, where that can be had."""
    alarms = alarm_timer()
    here = threading.current_thread() is threading.main_thread()
    if alarms is None or not here or seconds > LONGEST or signal.getitimer(alarms)[0] > 0:
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise Overrun(f"it did not end by itself within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(alarms, seconds)
    try:
        yield
    finally:
        signal.setitimer(alarms, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)  # None: not set by Python


def alarm_timer() -> int | None:
    """The timer that rings the alarm; None where there is none."""
    return vars(signal).get("ITIMER_REAL")


@contextmanager
def bounded_by(memory: int | None) -> Iterator[None]:
    """At most so many bytes more than now."""
    resource, now = load_resource(), allocated()
    if memory is None or resource is None or now is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = now + memory
    limits = [limit for limit in (soft, hard, wanted) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
