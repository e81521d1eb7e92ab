"""certify: every example at every radius, by batches of cheap questions and searches of what they leave open."""

from __future__ import annotations

import math
import platform
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from boundlab.certify.board import Board, Question
from boundlab.certify.carried import Parcel, as_array, digest, parcel_of
from boundlab.certify.certification import UNASKED, Certification, Inputs, Interrupted, Settings
from boundlab.certify.contained import contained
from boundlab.certify.explained import explained
from boundlab.certify.plan import Jobs, Plan, Progress, Rung
from boundlab.certify.record import Finding, Record, Status
from boundlab.certify.task import Questions, decide, findings_of, lasting, succeeded, task_of
from boundlab.data.examples import Examples, examples_in
from boundlab.engines.engine import Engine
from boundlab.engines.ledger import Recorded, any_result
from boundlab.engines.task import Arrays
from boundlab.errors import ShapeError, SpecError
from boundlab.evaluate import evaluate
from boundlab.graph import Model
from boundlab.spec import labelled_right
from boundlab.verify.sound import Original
from boundlab.verify.verify import Stage

CHUNK = 64
"""Examples that are evaluated at once."""
MOMENT, LATELY, FEWEST = 0.5, 30.0, 4
"""Seconds between two reports of progress; the rate is that of so many seconds, and of so many reports with news at least."""
LEDGER = "certify 1"
"""Stands in the version of a ledger's results: another number where the same task would give another answer."""


def certify(model: Model | Original, examples: Examples, eps: float | Sequence[float], plan: Plan | None = None,
            jobs: Jobs | None = None) -> Certification:
    """Which examples are proven to keep their label on balls of radii `eps`, which provably do not, and which are open.

    Each question is decided by `verify`: proofs count rounding unless the plan's rigour is FLOAT, and counterexamples are
    replayed. What fails, takes too long or needs too much memory is a record with its reason. With a ledger a run that was
    killed goes on where it was; Ctrl-C raises Interrupted, a KeyboardInterrupt that holds what is known so far. A misclassified
    example is never certified. DataError for data without labels, outside the domain (`plan.clip`), or that does not fit the
    network; ShapeError if that has several inputs or no vector of scores.
    """
    plan, jobs = plan or Plan(), jobs or Jobs()
    original, radii = (model if isinstance(model, Original) else Original(model)).detached(), radii_of(eps)
    x, labels = fitting(original.model, examples, plan)
    scores = scores_of(original.model, x, jobs.device)
    network = parcel_of(original)
    work = Work(network, x, labels, plan, jobs, engine_of(jobs), time.perf_counter())
    state, stopped = State(Board(len(x), radii, misclassified(scores, labels, len(radii)))), False
    try:
        work.run(state)
    except KeyboardInterrupt:
        stopped = True
    board = work.finished(state)
    settings = Settings(network.digest, digest(as_array(x.numpy().tobytes() + labels.numpy().tobytes())), radii, plan.p,
                        plan.clip, tuple(map(plainly, plan.stages)), plan.rigour.name.lower(), plan.timeout,
                        plan.most_memory, versions())
    predicted = scores.argmax(1).tolist()
    names = examples.names or (None,) * len(x)
    records = tuple(Record(index, names[index], int(labels[index]), predicted[index], radius, board.found[index, place])
                    for place, radius in enumerate(radii) for index in range(len(x)))
    inputs = Inputs(dict(enumerate(x.numpy())), tuple(examples.x.shape[1:]))
    most = None if stopped else explained(original.model.to(torch.device(jobs.device)), x, records, plan)
    found = Certification(settings, scores.shape[1], records, time.perf_counter() - work.started, inputs, most)
    if stopped:
        raise Interrupted(found)
    return found


def radii_of(eps: float | Sequence[float]) -> tuple[float, ...]:
    """The radii in ascending order, each once; SpecError if there is none, or one that is no radius."""
    told = eps.reshape(-1).tolist() if isinstance(eps, Tensor | np.ndarray) else eps
    given = list(told) if isinstance(told, Iterable) and not isinstance(told, str) else [told]
    wrong = [one for one in given if not isinstance(one, Real) or not 0 <= float(one) < math.inf]
    if wrong or not given:
        raise SpecError(f"radii are finite numbers, 0 or more, and at least one; got {wrong[0] if wrong else 'none'}.")
    return tuple(sorted({float(one) for one in given}))


def fitting(model: Model, examples: Examples, plan: Plan) -> tuple[Tensor, Tensor]:
    """Inputs in the network's type and labels, both checked against network and domain."""
    inputs, shape = model.graph.inputs, model.graph.output.shape
    if len(inputs) != 1 or len(shape) != 1 or shape[0] < 2:
        raise ShapeError(f"data sets are for networks with one input and a vector of scores, one a class; this one has "
                         f"{len(inputs)} inputs and an output of shape {list(shape)}.")
    if model.dtype not in (torch.float32, torch.float64):
        raise ShapeError(f"data sets are for networks of float32 or float64; this one computes in {model.dtype}.")
    fitted = examples_in(examples).fitted(inputs[0].shape)
    if plan.clip is not None:
        fitted = fitted.within(*plan.clip)
    x, labels = fitted.of_classes(shape[0]).labelled()
    return x.detach().cpu().to(model.dtype), labels.cpu()


@torch.no_grad()
def scores_of(model: Model, x: Tensor, device: str) -> Tensor:
    """The network's scores (n, classes) of all examples."""
    moved = model.to(torch.device(device))
    return torch.cat([evaluate(moved, part.to(moved.device)).cpu() for part in x.split(CHUNK)])


def misclassified(scores: Tensor, labels: Tensor, radii: int) -> dict[Question, Finding]:
    """The examples that the network does not give their label: another class has as high a score, or one is no number."""
    wrong, endless = ~labelled_right(scores, labels), ~torch.isfinite(scores).all(1)
    said = "a score is NaN or infinite"
    return {(index, place): Finding(Status.MISCLASSIFIED, "prediction", reason=said if bool(endless[index]) else "")
            for index in wrong.nonzero().flatten().tolist() for place in range(radii)}


def engine_of(jobs: Jobs) -> Engine:
    """The engine, beside a ledger if there is one; results of another version of boundlab are not those of this one."""
    if jobs.ledger is None:
        return jobs.engine
    trusted = succeeded if jobs.retry_failed else any_result
    return Recorded(jobs.engine, jobs.ledger, f"{LEDGER}, {version('boundlab')}", lasting, trusted)


def plainly(stage: Stage) -> str:
    """A stage as text, the same in every run."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(stage))


def versions() -> dict[str, str]:
    """What computed the records."""
    packages = {name: version(name) for name in ("boundlab", "torch", "numpy")}
    return packages | {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}


@dataclass
class State:
    """What is known so far, what the rung that runs has done, and when progress was last reported."""

    board: Board
    rung: int = 0
    done: int = 0
    marks: deque[tuple[float, int]] = field(default_factory=deque)
    tried: set[Question] = field(default_factory=set)
    said: float = field(default=-math.inf)

    def rate(self, now: float) -> float:
        """Questions a second, lately: what a ledger gave at once says nothing about the rest."""
        if self.done > self.marks[-1][1]:
            self.marks.append((now, self.done))
        while len(self.marks) > FEWEST and self.marks[0][0] < now - LATELY:
            self.marks.popleft()
        began, done = self.marks[0]
        return (self.done - done) / max(now - began, 1e-9)


@dataclass(frozen=True)
class Work:
    """A network, its examples, and what decides the questions about them."""

    network: Parcel
    x: Tensor
    labels: Tensor
    plan: Plan
    jobs: Jobs
    engine: Engine
    started: float

    def run(self, state: State) -> None:
        """All rungs on all questions that are open; what they find is in the state as it comes."""
        for rung in self.plan.rungs:
            state.rung, state.done, state.tried = state.rung + 1, 0, set()
            state.marks = deque([(time.perf_counter(), 0)])
            while asked := state.board.wave(state.tried):
                for new in self.answers(asked, rung, state.board.eps):
                    state.board = state.board.with_findings(new)
                    state.tried.update(new)
                    state.done += len(new)
                    self.report(state)
        self.report(state, last=True)

    def finished(self, state: State) -> Board:
        """The board with a finding of every question: what a run that ended before its time would have asked is unknown."""
        board, tried = state.board, state.tried if state.rung == len(self.plan.rungs) else set()
        questions = ((example, place) for place in range(len(board.eps)) for example in range(board.count))
        left = {question: Finding(Status.UNKNOWN, reason=UNASKED).after(board.found.get(question))
                for question in questions if board.open(question) and question not in tried}
        return replace(board, found={**board.found, **left})

    def answers(self, asked: Sequence[Question], rung: Rung, eps: tuple[float, ...]) -> Iterator[dict[Question, Finding]]:
        """Findings as they come. The questions of a batch that failed are asked again, each alone."""
        waiting = [asked[start:start + rung.batch] for start in range(0, len(asked), rung.batch)]
        while waiting:
            again: list[Sequence[Question]] = []
            tasks = [self.task(batch, rung, eps) for batch in waiting]
            for place, answer in contained(self.engine, decide, tasks):
                batch = waiting[place]
                labels = [int(self.labels[example]) for example, _ in batch]
                found = answer if isinstance(answer, str) else findings_of(answer, labels)
                if not isinstance(found, str):
                    yield dict(zip(batch, found, strict=True))
                elif len(batch) > 1:
                    again += [[question] for question in batch]
                else:
                    yield {batch[0]: Finding(Status.FAILED, reason=found)}
            waiting = again

    def task(self, batch: Sequence[Question], rung: Rung, eps: tuple[float, ...]) -> Arrays:
        """The task of some questions."""
        index = [example for example, _ in batch]
        asked = Questions(self.x[index].numpy(), self.labels[index].numpy(), np.array([eps[place] for _, place in batch]))
        return task_of(self.network, asked, rung, self.plan, self.jobs.device)

    def report(self, state: State, last: bool = False) -> None:
        """Tells who watches how far the run is, now and then."""
        now, board = time.perf_counter(), state.board
        if self.jobs.watch is None or (now - state.said < MOMENT and not last):
            return
        state.said = now
        places, questions = range(len(board.eps)), board.count * len(board.eps)
        open_ones = 0 if last else sum(board.open((example, place)) and (example, place) not in state.tried
                                       for example in range(board.count) for place in places)
        rate = state.rate(now)
        answered = questions - sum(board.open((example, place)) for example in range(board.count) for place in places)
        self.jobs.watch(Progress(
            state.rung, len(self.plan.rungs), answered, questions, open_ones, now - self.started, rate,
            open_ones / rate if rate else math.inf, tuple(board.share(place, Status.CERTIFIED) for place in places),
            tuple(1 - board.share(place, Status.FALSIFIED, Status.MISCLASSIFIED) for place in places)))
