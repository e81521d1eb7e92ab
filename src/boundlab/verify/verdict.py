"""Verdicts and results: what is known of one problem, and how firmly."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from boundlab.bounds.problem import Rigour
from boundlab.certificates.certificate import CaseProof
from boundlab.table import FEW, Shown, Table, Tone, below, plural
from boundlab.verify.proof import Proof


class Verdict(enum.Enum):
    """The five answers, each with its meaning."""

    VERIFIED = "the specification holds on the whole set: every clause has a row with a positive lower bound"
    FALSIFIED = "a point of the set violates the specification: the witness was replayed at zero tolerance"
    FLOAT_ONLY = "proven in floating point, which is no proof: rounding is not accounted for"
    UNKNOWN = "neither proof nor witness was found; more methods or time may decide it"
    TIMEOUT = "the time was over before proof or witness was found"

    @property
    def decided(self) -> bool:
        """Whether the question is answered."""
        return self in (Verdict.VERIFIED, Verdict.FALSIFIED)


TONES = {Verdict.VERIFIED: Tone.PROVEN, Verdict.FALSIFIED: Tone.BROKEN, Verdict.FLOAT_ONLY: Tone.OPEN,
         Verdict.UNKNOWN: Tone.OPEN, Verdict.TIMEOUT: Tone.OPEN}
WORDS = {verdict.name.lower(): tone for verdict, tone in TONES.items()}
"""What verdicts are called, and the tone of each."""


@dataclass(frozen=True)
class Witness:
    """A counterexample: inputs (1, *shape) by name, and the output (1, *out) that the replay gave."""

    inputs: Mapping[str, Tensor]
    output: Tensor


@dataclass(frozen=True, repr=False)
class Result(Shown):
    """The answer to one problem.

    `lower` are the best lower bounds found of the specification's rows (s,), -inf where no method said anything;
    `method` names what decided (empty if nothing did), `notes` say why methods said nothing. `proofs` say how to see that the
    specification holds, one for each case of a query, if they were kept and it was proven; `certified` are those as the
    checker of certificates has accepted them.
    """

    verdict: Verdict
    lower: Tensor
    method: str
    seconds: float
    witness: Witness | None = None
    notes: tuple[str, ...] = ()
    rigour: Rigour = Rigour.FLOAT
    proofs: tuple[Proof, ...] = field(default=(), repr=False)
    certified: tuple[CaseProof, ...] = field(default=(), repr=False)

    @property
    def rounding(self) -> str:
        """How rounding was counted in what is verified; empty for other verdicts."""
        return self.rigour.name.lower() if self.verdict is Verdict.VERIFIED else ""

    def __repr__(self) -> str:
        return f"Result({self}; least bound {below(float(self.lower.amin()))} of {plural(len(self.lower), 'row')})"

    def shown(self) -> Table:
        """The verdict, and what led to it."""
        told = {"rounding": self.rounding, "decided by": self.method, "seconds": f"{self.seconds:.2f}",
                "least bound": f"{below(float(self.lower.amin()))}, of {plural(len(self.lower), 'row')}"}
        if self.witness is not None:
            held = ", ".join(f"{name} {list(value.shape[1:])}" for name, value in self.witness.inputs.items())
            told["witness"] = f"{held}, output {list(self.witness.output.shape[1:])}"
        rows = [("verdict", self.verdict.name.lower()), *((name, text) for name, text in told.items() if text),
                *(("note", note) for note in self.notes[:FEW])]
        return Table(("what", "found"), rows, "Result", more=max(0, len(self.notes) - FEW), tones=WORDS)

    def __str__(self) -> str:
        by = f" by {self.method}" if self.method else ""
        rigour = f" ({self.rounding})" if self.rounding else ""
        return f"{self.verdict.name.lower()}{rigour}{by} in {self.seconds:.2f} s"


class Results(Shown, tuple[Result, ...]):
    """The results of a batch of problems, in their order: a tuple that is shown in a few lines."""

    def shown(self) -> Table:
        """How many problems have each verdict, and the first few."""
        counts = Counter(result.verdict for result in self)
        told = ", ".join(f"{counts[verdict]:,} {verdict.name.lower()}" for verdict in Verdict if counts[verdict])
        columns = ("problem", "verdict", "rounding", "decided by", "seconds", "least bound")
        rows = [(str(place), one.verdict.name.lower(), one.rounding or "-", one.method or "-", f"{one.seconds:.2f}",
                 below(float(one.lower.amin()))) for place, one in enumerate(self[:FEW])]
        return Table(columns, rows, f"{plural(len(self), 'problem')}: {told or 'nothing was asked'}",
                     frozenset({"problem", "seconds", "least bound"}), len(self) - len(rows), WORDS)
