"""A folder of VNN-COMP instances: each with a hard time limit in a process of its own, and a table of what came out.

`instances.csv` names networks and properties relative to the folder (or to the subfolder of the instance's family), either
with a header (family, onnx, vnnlib, timeout, expected, witness, ...) or as the competition writes it: onnx,vnnlib,timeout.
"""

from __future__ import annotations

import csv
import queue
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from boundlab.bounds.problem import Rigour
from boundlab.certificates.file import save
from boundlab.engines.child import READY, Child, child, end, stay_with_driver
from boundlab.errors import SpecError
from boundlab.question.exact import Query
from boundlab.question.vnnlib import parse_vnnlib
from boundlab.verify.options import Race
from boundlab.verify.query import NUMPY, flat_values
from boundlab.verify.recording import certificate_of
from boundlab.verify.sound import load_original
from boundlab.verify.team import ALONE, Team
from boundlab.verify.verdict import Verdict
from boundlab.verify.verify import LADDER, verify

EXPECTED = {"unsat": Verdict.VERIFIED, "sat": Verdict.FALSIFIED}
CORRECT, WRONG = 10, -150
"""Points of the competition for a correct and for a wrong verdict (rules of 2026; Brix et al. 2023, Sec. 2): none for time."""
GRACE = 1.0
"""Seconds that an instance may go on after its time limit before its process is ended."""


@dataclass(frozen=True)
class Instance:
    """One question of a benchmark; `expected` is a published verdict, `witness` a published counterexample (.npz of x, y).

    `certificate` is where to write the certificate of a proof.
    """

    family: str
    onnx: Path
    vnnlib: Path
    timeout: float
    expected: str = ""
    witness: Path | None = None
    certificate: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of an instance: a verdict, or an error's text; `accepted` says whether its published witness passed.

    `checked` says whether the checker derived a proof from the files themselves.
    """

    instance: Instance
    verdict: Verdict
    seconds: float
    method: str = ""
    error: str = ""
    accepted: bool | None = None
    notes: tuple[str, ...] = ()
    checked: bool = False

    @property
    def agrees(self) -> bool | None:
        """Whether verdict and expectation are the same; None where one of them is undecided."""
        expected = EXPECTED.get(self.instance.expected)
        return None if expected is None or not self.verdict.decided else self.verdict is expected

    @property
    def score(self) -> int:
        """Points of the competition, where a verdict of which nothing is expected counts as correct."""
        if not self.verdict.decided:
            return 0
        return WRONG if self.agrees is False else CORRECT


def read_instances(folder: Path, families: Sequence[str] = ()) -> list[Instance]:
    """The instances that a folder lists, of all families or these; SpecError if the list is missing or malformed."""
    listed = folder / "instances.csv"
    if not listed.is_file():
        raise SpecError(f"{folder} has no instances.csv, so it lists no instances.")
    lines = [line for line in csv.reader(listed.read_text(encoding="utf-8").splitlines()) if line]
    header = lines[0] if lines and "onnx" in lines[0] else ["onnx", "vnnlib", "timeout"]
    rows = [dict(zip(header, line, strict=False)) for line in (lines[1:] if header is lines[0] else lines)]
    broken = [number for number, row in enumerate(rows, 1) if not {"onnx", "vnnlib", "timeout"} <= set(row)]
    if broken:
        raise SpecError(f"{listed}: entry {broken[0]} has no onnx, vnnlib and timeout.")
    return [instance_of(folder, row) for row in rows if not families or row.get("family", folder.name) in families]


def instance_of(folder: Path, row: Mapping[str, str]) -> Instance:
    """One line of the list."""
    family = row.get("family", "")
    root = folder / family
    witness = root / row["witness"] if row.get("witness") else None
    return Instance(family or folder.name, packed(root / row["onnx"]), packed(root / row["vnnlib"]), float(row["timeout"]),
                    row.get("expected", ""), witness)


def packed(path: Path) -> Path:
    """The file itself, or its .gz where only that exists."""
    zipped = path.with_name(path.name + ".gz")
    return zipped if not path.exists() and zipped.exists() else path


def solve(instance: Instance, team: Team = ALONE) -> Outcome:
    """One instance in this process and those of a team; what boundlab cannot read or do becomes the outcome's error."""
    start = time.perf_counter()
    accepted = None
    try:
        query, original = parse_vnnlib(instance.vnnlib), load_original(instance.onnx)
        model = original.model
        accepted = None if instance.witness is None else accepts(query, instance.witness, model.dtype)
        left = instance.timeout - (time.perf_counter() - start)
        result, = verify(original, query, stages=(*LADDER[:-1], Race(team=team)), timeout=max(left, 0.0))
        if instance.certificate is not None and result.rigour is Rigour.CHECKED:
            save(certificate_of(result, instance.onnx, instance.vnnlib), instance.certificate)
        if result.witness is not None:
            point = flat_values(result.witness.inputs, model)
            if not query.accepts(point, result.witness.output.numpy().reshape(-1), NUMPY[model.dtype]):
                raise SpecError("the witness that was found does not pass the query's own check.")
    except Exception as problem:  # one instance's failure, of whatever kind, is its outcome and never ends the run
        text = f"{type(problem).__name__}: {problem}"
        return Outcome(instance, Verdict.UNKNOWN, time.perf_counter() - start, error=text, accepted=accepted)
    return Outcome(instance, result.verdict, time.perf_counter() - start, result.method, "", accepted, result.notes,
                   result.rigour is Rigour.CHECKED)


def accepts(query: Query, path: Path, dtype: torch.dtype) -> bool:
    """Whether a published witness passes the check that our own have to pass."""
    with np.load(path) as stored:
        return query.accepts(stored["x"], stored["y"], NUMPY[dtype])


def serve(connection: Connection, cores: int) -> None:
    """A worker's life: first a sign that all is loaded, then an instance in, its outcome out, until None arrives.

    In searches it has so many cores, a process on each. It has one thread: operations that wait for each other's threads are
    very slow on a machine with other work.
    """
    stay_with_driver()
    torch.set_num_threads(1)
    with Team.beside(torch.device("cpu"), cores) as team:
        team.start(wait=True)
        connection.send(READY)
        while (instance := connection.recv()) is not None:
            connection.send(solve(instance, team))
            team.start(wait=True)  # one that died is replaced


def answer(worker: Child, instance: Instance) -> Outcome | None:
    """What a worker says of an instance; None if it died or is past its time: it must not be asked again then."""
    worker.pipe.send(instance)
    try:
        return worker.pipe.recv() if worker.pipe.poll(instance.timeout + GRACE) else None
    except (EOFError, OSError):
        return None


def new_worker(cores: int) -> Child:
    """A worker that has loaded its libraries, so that no instance pays for that."""
    worker = child(serve, cores, parent=True)
    worker.pipe.recv()
    return worker


def run_instances(instances: Iterable[Instance], workers: int = 1, cores: int = 1) -> Iterator[Outcome]:
    """Outcomes in order, as they come; `workers` instances at a time, each with so many `cores`.

    A worker that dies (memory) or hangs costs its instance and is replaced.
    """
    idle: queue.SimpleQueue[Child] = queue.SimpleQueue()
    for _ in range(workers):
        idle.put(new_worker(cores))

    def run(instance: Instance) -> Outcome:
        outcome, worker = ask(idle.get(), instance, cores)
        idle.put(worker)
        return outcome

    try:
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(run, instances)
    finally:
        while not idle.empty():
            end([idle.get()])


def ask(worker: Child, instance: Instance, cores: int) -> tuple[Outcome, Child]:
    """The outcome of an instance, and the worker for the next one. An answer after the limit is no answer."""
    start = time.perf_counter()
    outcome = answer(worker, instance)
    if outcome is None:
        worker.process.join(0.5)
        late = worker.process.is_alive()
        end([worker])
        verdict = Verdict.TIMEOUT if late else Verdict.UNKNOWN
        error = "ended after its time limit" if late else "the process died, most likely for lack of memory"
        return Outcome(instance, verdict, time.perf_counter() - start, error=error), new_worker(cores)
    if outcome.verdict.decided and outcome.seconds > instance.timeout:
        note = f"{outcome.verdict.name.lower()} after {outcome.seconds:.1f} s, past the limit"
        outcome = replace(outcome, verdict=Verdict.TIMEOUT, notes=(*outcome.notes, note))
    return outcome, worker


@dataclass(frozen=True)
class FamilyCount:
    """Outcomes of one family: what came out, what was against expectation, published witnesses, the competition's score."""

    family: str
    instances: int
    verified: int
    checked: int
    falsified: int
    disagree: int
    undecided: int
    errors: int
    witnesses: int
    accepted: int
    seconds: float
    score: int


def by_family(outcomes: Iterable[Outcome]) -> list[FamilyCount]:
    """The table of a run, one line a family in the order in which they came."""
    families: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        families.setdefault(outcome.instance.family, []).append(outcome)
    return [count(family, found) for family, found in families.items()]


def count(family: str, found: Sequence[Outcome]) -> FamilyCount:
    """One line of the table."""
    verdicts = [outcome.verdict for outcome in found]
    return FamilyCount(
        family, len(found), verdicts.count(Verdict.VERIFIED), sum(outcome.checked for outcome in found),
        verdicts.count(Verdict.FALSIFIED),
        disagree=sum(outcome.agrees is False for outcome in found), undecided=sum(not verdict.decided for verdict in verdicts),
        errors=sum(bool(outcome.error) for outcome in found), witnesses=sum(outcome.accepted is not None for outcome in found),
        accepted=sum(outcome.accepted is True for outcome in found), seconds=sum(outcome.seconds for outcome in found),
        score=sum(outcome.score for outcome in found))
