"""A process of this machine that is started afresh, ends with the one that started it, and talks through a pipe."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from boundlab.errors import EngineError

READY = "ready"
"""What a child says when it has loaded everything."""


@dataclass(frozen=True)
class Child:
    """A process, and our end of the pipe to it."""

    process: SpawnProcess
    pipe: Connection


def child(life: Callable[..., None], *about: object, parent: bool = False) -> Child:
    """A new process that runs `life(pipe, *about)`, a function of a module; as a `parent` it may start some of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=life, args=(theirs, *about), daemon=not parent)
    try:
        process.start()
    except OSError as problem:
        raise EngineError(f"the system starts no more processes ({problem}); ask for fewer workers.") from problem
    theirs.close()  # with one holder left, its death is the end of the stream
    return Child(process, ours)


def end(children: Iterable[Child]) -> None:
    """Ends processes at once: what they compute can be computed again."""
    ended = list(children)
    for one in ended:
        one.pipe.close()
        one.process.kill()
    for one in ended:
        one.process.join()
        one.process.close()


def send(pipe: Connection, message: object) -> None:
    """Sends with the newest protocol of pickle; the one that pipes use turns arrays of foreign byte order into others."""
    pipe.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))


def stay_with_driver() -> None:
    """From now on this process ends with the one that started it, whatever either of them does."""
    threading.Thread(target=die_with_driver, daemon=True).start()


def die_with_driver() -> None:
    """Ends this process as soon as the one that started it is gone, even in the middle of a task."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)
