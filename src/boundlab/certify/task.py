"""The task of an engine: some questions about one network, decided in one process, with whatever goes wrong as its answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from boundlab.bounds.problem import Rigour
from boundlab.certify.carried import Parcel, arrived, packed, unpacked
from boundlab.certify.limits import Overrun, limited
from boundlab.certify.plan import Plan, Rung
from boundlab.certify.record import Finding, Status, adversary_of
from boundlab.engines.task import Arrays
from boundlab.errors import BoundlabError, MissingPackage
from boundlab.perturbations.ball import LpBall
from boundlab.spec import margins
from boundlab.verify.verdict import Result, Verdict
from boundlab.verify.verify import verify

STATUS = {Verdict.VERIFIED: Status.CERTIFIED, Verdict.FALSIFIED: Status.FALSIFIED}
PATIENCE, GRACE = 2.0, 10.0
"""A task is ended by force when it has taken so many times its limit, and so many seconds more."""
MEMORY = ("can't allocate memory", "not enough memory", "cannot allocate memory", "bad_alloc", "out of memory", "memoryerror")
"""How messages of torch and of the system say that memory is short."""


@dataclass(frozen=True)
class Questions:
    """Examples x (m, *shape) with labels (m,), each at a radius of its own (m,)."""

    x: np.ndarray
    labels: np.ndarray
    eps: np.ndarray


def task_of(network: Parcel, questions: Questions, rung: Rung, plan: Plan, device: str) -> Arrays:
    """The task of deciding some questions by the stages of a rung."""
    limits = (plan.timeout * len(questions.labels), plan.most_memory)
    how = (plan.p, plan.clip, rung.stages, plan.rigour, limits)
    return {"network": network.data, "digest": np.array(network.digest), "x": questions.x,
            "labels": questions.labels, "eps": questions.eps, "how": packed(how), "device": np.array(device)}


def decide(task: Arrays) -> Arrays:
    """The findings of a task, or the reason why there are none."""
    p, clip, stages, rigour, (seconds, memory) = unpacked(task["how"])
    started = time.perf_counter()
    try:
        original = arrived(Parcel(str(task["digest"]), task["network"]), str(task["device"]))
        with limited(PATIENCE * seconds + GRACE, memory):
            x = torch.from_numpy(task["x"].copy()).to(original.model.device)
            ball = LpBall(x, torch.from_numpy(task["eps"].copy()).to(x.device), p, clip)
            labels = torch.from_numpy(task["labels"].copy()).to(x.device)
            spec = margins(labels, original.model.graph.output.shape[0], original.model.dtype)
            found = verify(original, ball, spec, stages=stages, timeout=seconds, rigour=rigour)
    except Exception as problem:  # one question's failure, of whatever kind, is its answer and never ends the run
        return failure(reason_of(problem, memory), of_surroundings(problem, memory))
    return answers(found, spec.worst(torch.stack([result.lower for result in found])).tolist(), time.perf_counter() - started)


def is_memory(problem: Exception) -> bool:
    """Whether memory was short."""
    return isinstance(problem, MemoryError) or any(words in str(problem).lower() for words in MEMORY)


def reason_of(problem: Exception, memory: int | None) -> str:
    """Why a question has no answer, in one line."""
    text = " ".join(str(problem).split())
    if is_memory(problem):
        return "memory was short" if memory is None else f"it needed more than {memory} bytes of memory"
    if isinstance(problem, BoundlabError | Overrun):
        return text
    return f"{type(problem).__name__}: {text:.300}"


def of_surroundings(problem: Exception, memory: int | None) -> bool:
    """Whether the same question may have an answer at another time: a full disk, a missing package, memory that others took."""
    return isinstance(problem, OSError | ImportError | MissingPackage) or (memory is None and is_memory(problem))


def failure(reason: str, passing: bool) -> Arrays:
    """The answer that there is none."""
    return {"failure": np.array(reason), "passing": np.array(passing)}


def lasting(answer: Arrays) -> bool:
    """Whether a ledger keeps the answer: not where surroundings made a question fail, so that it is asked again."""
    return not bool(answer.get("passing", False))


def succeeded(answer: Arrays) -> bool:
    """Whether the answer is one."""
    return "failure" not in answer


def answers(found: Sequence[Result], worst: Sequence[float], seconds: float) -> Arrays:
    """Results as arrays; the time of a batch is shared by its questions."""
    broken = [place for place, result in enumerate(found) if result.witness is not None]
    witnesses = [witness for result in found if (witness := result.witness) is not None]
    held = {"broken": np.array(broken, np.int64)}
    if broken:
        held |= {"points": np.concatenate([next(iter(one.inputs.values())).detach().cpu().numpy() for one in witnesses]),
                 "scores": np.concatenate([one.output.detach().cpu().numpy() for one in witnesses])}
    return held | {
        "verdict": np.array([list(Verdict).index(result.verdict) for result in found], np.int64),
        "rigour": np.array([list(Rigour).index(result.rigour) for result in found], np.int64),
        "method": texts(result.method for result in found), "reason": texts(why(result) for result in found),
        "margin": np.array(worst, np.float64), "seconds": np.full(len(found), seconds / len(found))}


def texts(lines: object) -> np.ndarray:
    """Lines as an array."""
    return np.array(list(lines), np.str_)  # type: ignore[call-overload]


def why(result: Result) -> str:
    """Why a result decides nothing; empty if it does."""
    if result.verdict.decided:
        return ""
    first = "the time was over" if result.verdict is Verdict.TIMEOUT else ""
    return " ".join(part for part in (first, *dict.fromkeys(result.notes)) if part)


def findings_of(answer: Arrays, labels: Sequence[int]) -> list[Finding] | str:
    """The findings of an answer, one a question with its label, or why there are none."""
    if not succeeded(answer):
        return str(answer["failure"])
    places = answer["broken"].tolist()
    adversaries = {place: adversary_of(answer["points"][number], answer["scores"][number], labels[place])
                   for number, place in enumerate(places)}
    found = []
    for place, code in enumerate(answer["verdict"].tolist()):
        verdict = list(Verdict)[code]
        rigour = list(Rigour)[int(answer["rigour"][place])] if verdict is Verdict.VERIFIED else None
        method, _, effort = str(answer["method"][place]).partition(", ")
        found.append(Finding(STATUS.get(verdict, Status.UNKNOWN), method, effort, rigour,
                             float(answer["seconds"][place]), float(answer["margin"][place]), str(answer["reason"][place]),
                             adversaries.get(place)))
    return found
