"""What is known of a batch of problems while stages run, and the clock that they share."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from boundlab.bounds.problem import Method
from boundlab.verify.learnt import Learnt
from boundlab.verify.proof import Proof
from boundlab.verify.verdict import Result, Verdict, Witness


@dataclass(frozen=True)
class Standing:
    """What is known of b problems so far: best lower bounds of the rows (b, s), and by problem what decided it.

    `learnt` are the intervals with which a later search begins.
    """

    lower: Tensor
    decided: Mapping[int, str] = field(default_factory=dict)
    seconds: Mapping[int, float] = field(default_factory=dict)
    witnesses: Mapping[int, Witness] = field(default_factory=dict)
    notes: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    proofs: Mapping[int, Proof] = field(default_factory=dict)
    learnt: tuple[Learnt, ...] = ()

    @property
    def open(self) -> Tensor:
        """The problems that nothing has decided, (m,)."""
        return torch.tensor([i for i in range(len(self.lower)) if i not in self.decided], dtype=torch.long)

    def decide(self, problems: Mapping[int, Witness | None], by: str, seconds: float) -> Standing:
        """With some problems decided: by their witness, or proven if there is none."""
        found = {problem: witness for problem, witness in problems.items() if witness is not None}
        return replace(self, decided={**self.decided, **dict.fromkeys(problems, by)},
                       seconds={**self.seconds, **dict.fromkeys(problems, seconds)}, witnesses={**self.witnesses, **found})

    def raised(self, rows: Mapping[int, Tensor]) -> Standing:
        """With better lower bounds of some problems' rows (s,)."""
        if not rows:
            return self
        lower = self.lower.clone()
        for problem, better in rows.items():
            lower[problem] = torch.maximum(lower[problem], better)
        return replace(self, lower=lower)

    def show(self, proofs: Mapping[int, Proof]) -> Standing:
        """With proofs of some problems."""
        return replace(self, proofs={**self.proofs, **proofs})

    def note(self, said: Mapping[int, str]) -> Standing:
        """With a remark on some problems, once each."""
        new = {i: (*self.notes.get(i, ()), text) for i, text in said.items() if text not in self.notes.get(i, ())}
        return replace(self, notes={**self.notes, **new})


@dataclass(frozen=True)
class Clock:
    """When a verification began and when it has to end, in seconds of `time.perf_counter`."""

    start: float
    deadline: float

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return time.perf_counter() >= self.deadline

    def part(self, share: float) -> float:
        """When a share of the time that is left will be over, in seconds of `time.perf_counter`."""
        now = time.perf_counter()
        return now + share * (self.deadline - now)


def result_of(standing: Standing, problem: int, clock: Clock) -> Result:
    """What is known of one problem, as a result."""
    by = standing.decided.get(problem, "")
    witness = standing.witnesses.get(problem)
    verdict = Verdict.FALSIFIED if witness else Verdict.VERIFIED if by else Verdict.TIMEOUT if clock.over else Verdict.UNKNOWN
    proof = standing.proofs.get(problem)
    return Result(verdict, standing.lower[problem], by, standing.seconds.get(problem, clock.spent), witness,
                  standing.notes.get(problem, ()), proofs=() if proof is None else (proof,))


def describe(method: Method) -> str:
    """A method as a reader names it: its class, and what bounds the inner nodes."""
    inner = vars(method).get("intermediate")
    return type(method).__name__ + (f"-{describe(inner)}" if inner is not None else "")
