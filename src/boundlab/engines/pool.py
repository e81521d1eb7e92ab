"""Tasks in processes of this machine, which are replaced when they die."""

from __future__ import annotations

import signal
from collections import Counter, deque
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

import numpy as np
import torch

from boundlab.engines.child import READY, Child, child, end, send, stay_with_driver
from boundlab.engines.engine import Stream
from boundlab.engines.shared import tokens_in, whole
from boundlab.engines.task import Answer, Arrays, Function, answer, check_tasks, name_of, result_of
from boundlab.engines.waiting import Waiting
from boundlab.errors import EngineError, TaskError

STARTING = -1
"""Stands for the start of a worker among the places of tasks."""
SECONDS = 0.1
"""Work in a message to a worker. Results come back one by one: a longer batch gains nothing and is shared less evenly."""


@dataclass(frozen=True)
class Pool:
    """Tasks in `workers` processes of this machine, one thread each; a task whose process dies is tried `retries` times more.

    Processes are started afresh (spawned), so a script that uses a pool needs `if __name__ == "__main__":`. They end with the
    stream; `open` keeps them for several. torch uses one thread in a worker; whatever else starts threads there is not told.
    """

    workers: int = 2
    retries: int = 2

    def __post_init__(self) -> None:
        check_numbers(self.workers, self.retries)

    def stream(self, function: Function, tasks: Sequence[Arrays]) -> Stream:
        name = name_of(function)
        check_tasks(tasks)
        return self._stream(name, tasks)

    def _stream(self, name: str, tasks: Sequence[Arrays]) -> Stream:
        with self.open() as crew, closing(crew.run(name, tasks)) as stream:
            yield from stream

    @contextmanager
    def open(self) -> Generator[Crew, None, None]:
        """An engine whose processes live until the `with` block ends: for many streams of short tasks."""
        crew = Crew(self.workers, self.retries)
        try:
            yield crew
        finally:
            crew.stop()


def check_numbers(workers: int, retries: int) -> None:
    """EngineError if they cannot be numbers of workers and retries."""
    if workers < 1 or retries < 0:
        raise EngineError("an engine needs at least one worker and no fewer than 0 retries, got "
                          f"workers={workers} and retries={retries}.")


@dataclass(eq=False)
class Worker:
    """A process and the places it has yet to answer; `batch` is None until it has started.

    `held` are the hashes of the shared arrays that it has.
    """

    child: Child
    batch: deque[int] | None = None
    held: frozenset[bytes] = frozenset()

    def receive(self) -> Answer | str | None:
        """What it sent; None if it is dead. Called when there is something to receive or the process has ended."""
        try:
            process, pipe = self.child.process, self.child.pipe
            return pipe.recv() if pipe.poll() or process.is_alive() else None
        except (EOFError, OSError):
            return None


@dataclass
class Crew:
    """An engine of live processes; made by `Pool.open`."""

    workers: int
    retries: int
    idle: list[Worker] = field(default_factory=list)

    def stream(self, function: Function, tasks: Sequence[Arrays]) -> Stream:
        name = name_of(function)
        check_tasks(tasks)
        return self.run(name, tasks)

    def run(self, name: str, tasks: Sequence[Arrays]) -> Stream:
        """The stream of a function that has been checked, by its name."""
        count = min(self.workers, len(tasks))
        living = [worker for worker in self.idle if worker.child.process.is_alive()]
        end(worker.child for worker in self.idle if worker not in living)
        # Taken out of `idle`, so that two streams at a time never share a process.
        team, self.idle = living[:count], living[count:]
        waiting, deaths = Waiting(tasks, count, SECONDS), Counter[int]()
        try:
            while waiting or any(worker.batch for worker in team):
                while len(team) < count:
                    team.append(start())
                for worker in team:
                    hand_out(worker, name, waiting)
                for worker in ready(team):
                    message = worker.receive()
                    if isinstance(message, Answer) and worker.batch:
                        worker.batch.popleft()
                        waiting.learn(message.seconds)
                        hand_out(worker, name, waiting)  # before the caller takes its time with the result
                        yield message.place, result_of(message)
                    elif message == READY:
                        worker.batch, deaths[STARTING] = deque(), 0
                    else:
                        team.remove(worker)
                        self.bury(worker, waiting, deaths)
        finally:
            kept = [*self.idle, *(worker for worker in team if not worker.batch)]
            self.idle = kept[:self.workers]
            end(worker.child for worker in [*kept[self.workers:], *(worker for worker in team if worker.batch)])

    def bury(self, worker: Worker, waiting: Waiting, deaths: Counter[int]) -> None:
        """Ends a worker that died and puts its tasks back; an error if that has happened to its task too often."""
        end([worker.child])
        batch = list(worker.batch or [])
        guilty = batch[0] if batch else STARTING
        deaths[guilty] += 1
        if deaths[guilty] > self.retries and batch:
            raise TaskError(guilty, f"worker processes died {deaths[guilty]} times while computing it; look for too little "
                                    "memory, or run this task with Serial() to see what it does.")
        if deaths[guilty] > self.retries:
            raise EngineError(f"{deaths[guilty]} worker processes ended while starting, one after the other; a script that "
                              "uses a pool must do its work under `if __name__ == \"__main__\":`, because each worker imports "
                              "the script.")
        waiting.put_back(batch)

    def stop(self) -> None:
        """Ends all processes that no stream is using."""
        end(worker.child for worker in self.idle)
        self.idle = []


def start() -> Worker:
    """A new process, which says READY when it can take tasks."""
    return Worker(child(serve))


def hand_out(worker: Worker, name: str, waiting: Waiting) -> None:
    """Gives a batch to a worker that has none."""
    if worker.batch == deque() and waiting:
        worker.batch = deque(waiting.take())
        batch = [(place, waiting.shared.without(waiting.tasks[place])) for place in worker.batch]
        arrays = waiting.shared.by_token()
        fresh = {token: arrays[token] for token in tokens_in([task for _, task in batch]) - worker.held}
        with suppress(OSError):  # it has died; `ready` will say so
            send(worker.child.pipe, (name, batch, fresh, set(arrays)))
        worker.held = (worker.held & arrays.keys()) | fresh.keys()


def ready(team: Sequence[Worker]) -> list[Worker]:
    """Waits until workers that start or compute have sent something or died, and says which."""
    busy = [worker for worker in team if worker.batch != deque()]
    events = wait([event for worker in busy for event in (worker.child.pipe, worker.child.process.sentinel)])
    return [worker for worker in busy if worker.child.pipe in events or worker.child.process.sentinel in events]


def serve(pipe: Connection) -> None:
    """The life of a worker process: batches in, answers out, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    stay_with_driver()
    torch.set_num_threads(1)
    with suppress(EOFError, OSError):
        send(pipe, READY)
        held: dict[bytes, np.ndarray] = {}
        while True:
            name, batch, fresh, kept = pipe.recv()
            held = {token: array for token, array in (held | fresh).items() if token in kept}
            for place, task in batch:
                send(pipe, answer(name, place, whole(task, held)))
