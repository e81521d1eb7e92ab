"""Tasks on a Ray cluster, or on a Ray of this machine that is started for them."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from boundlab.engines.engine import Stream
from boundlab.engines.pool import check_numbers
from boundlab.engines.shared import Sent, tokens_in, whole
from boundlab.engines.task import Answer, Arrays, Function, answer, check_tasks, name_elsewhere, result_of
from boundlab.engines.waiting import Waiting
from boundlab.errors import EngineError, MissingPackage, TaskError

SECONDS = 1.0
"""Work in a batch: its answers come together, and a message costs milliseconds."""


@dataclass(frozen=True)
class Ray:
    """Tasks on the Ray cluster at `address`, one CPU each; a batch whose worker or node dies is tried `retries` times more.

    `address` is "auto" for the cluster that this machine belongs to, "host:port" for another, and None for a Ray of this
    machine alone, with `workers` CPUs (None: all), which ends with the stream; `open` keeps it, or the connection, for several.
    If Ray is connected already, that is used and left as it is. On a cluster, `workers` bounds how many batches run at once
    (None: as many as it has CPUs). Every machine needs the same boundlab, and the function's module where Python finds it.
    MissingPackage without ray.
    """

    address: str | None = None
    workers: int | None = None
    retries: int = 2

    def __post_init__(self) -> None:
        check_numbers(1 if self.workers is None else self.workers, self.retries)

    def stream(self, function: Function, tasks: Sequence[Arrays]) -> Stream:
        name = name_elsewhere(function)
        check_tasks(tasks)
        return self._stream(load_ray(), name, tasks)

    def _stream(self, ray: Any, name: str, tasks: Sequence[Arrays]) -> Stream:
        if not tasks:
            return
        with self.open():
            remote = ray.remote(answers).options(num_cpus=1, max_retries=self.retries)
            waiting, running = Waiting(tasks, self._at_once(ray), SECONDS), dict[Any, list[int]]()
            stored = {token: ray.put(array) for token, array in waiting.shared.by_token().items()}
            try:
                while waiting or running:
                    waiting.workers = self._at_once(ray)  # machines may have joined
                    while waiting and len(running) < waiting.workers:
                        batch = waiting.take()
                        sent = [(place, waiting.shared.without(tasks[place])) for place in batch]
                        needed = sorted(tokens_in([task for _, task in sent]))
                        running[remote.remote(name, sent, needed, *(stored[token] for token in needed))] = batch
                    for reference in finished(ray, list(running)):
                        batch = running.pop(reference)
                        for found in self._fetch(ray, reference, batch, waiting):
                            waiting.learn(found.seconds)
                            yield found.place, writable(result_of(found))
            finally:
                for reference in running:
                    ray.cancel(reference, force=True)

    @contextmanager
    def open(self) -> Generator[Ray, None, None]:
        """This engine, connected until the `with` block ends: for many streams of short tasks."""
        ray = load_ray()
        if ray.is_initialized():
            yield self
            return
        # Without "local", Ray would look for a cluster that someone left running on this machine.
        where = {"address": self.address} if self.address else {"address": "local", "num_cpus": self.workers,
                                                                "include_dashboard": False}
        try:
            if self.address and self.address != "auto":
                knock(self.address)
            ray.init(**where, logging_level="ERROR", log_to_driver=False)
        except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as problem:
            asked = f"no Ray cluster answers at '{self.address}'" if self.address else "Ray does not start on this machine"
            raise EngineError(f"{asked} ({' '.join(str(problem).split()):.200}); start one with `ray start --head`, or use "
                              "Pool(), which needs no Ray.") from problem
        try:
            yield self
        finally:
            ray.shutdown()

    def _at_once(self, ray: Any) -> int:
        """How many batches to have on the cluster now."""
        return self.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def _fetch(self, ray: Any, reference: Any, batch: list[int], waiting: Waiting) -> list[Answer]:
        """The answers of a finished batch; none, and its tasks wait again, each alone, if Ray has given the batch up."""
        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as problem:  # `answers` raises nothing, so it was not found there
            raise EngineError(f"a worker of the cluster could not begin ({' '.join(str(problem).split())[-200:]}); every "
                              "machine needs the same Python packages, boundlab among them.") from problem
        except ray.exceptions.RayError as problem:
            if len(batch) == 1:
                raise TaskError(batch[0], f"Ray gave it up after {self.retries} retries ({type(problem).__name__}); look for "
                                          "too little memory, or run this task with Serial() to see what it does.") from problem
            waiting.put_back(batch)
            return []


def load_ray() -> Any:
    """The package `ray`; MissingPackage if it is not installed."""
    try:
        return importlib.import_module("ray")
    except ImportError as problem:
        raise MissingPackage("running tasks on Ray needs a package: pip install 'boundlab[ray]'; or use Pool(), which runs "
                             "them in processes of this machine.") from problem


def knock(address: str) -> None:
    """OSError or ValueError if nothing listens at "host:port"; Ray itself would try for many minutes."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=10).close()


def finished(ray: Any, references: list[Any]) -> list[Any]:
    """Waits for one of the batches, and says which are finished then."""
    ray.wait(references, num_returns=1)
    return ray.wait(references, num_returns=len(references), timeout=0)[0]


def answers(name: str, batch: list[tuple[int, Sent]], tokens: list[bytes], *arrays: np.ndarray) -> list[Answer]:
    """The answers of a batch, computed by one worker with one thread; arrays that tasks share come beside them."""
    torch.set_num_threads(1)
    held = dict(zip(tokens, arrays, strict=True))
    return [answer(name, place, whole(task, held)) for place, task in batch]


def writable(result: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copies: what Ray returns lies in its store, cannot be written, and fills the store for as long as it is held."""
    return {name: array.copy(order="K") for name, array in result.items()}
