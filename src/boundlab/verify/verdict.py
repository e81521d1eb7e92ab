"""Verdicts and results: what is known of one problem, and how firmly."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from boundlab.bounds.problem import Rigour
from boundlab.certificates.certificate import CaseProof
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


@dataclass(frozen=True)
class Witness:
    """A counterexample: inputs (1, *shape) by name, and the output (1, *out) that the replay gave."""

    inputs: Mapping[str, Tensor]
    output: Tensor


@dataclass(frozen=True)
class Result:
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

    def __str__(self) -> str:
        by = f" by {self.method}" if self.method else ""
        rigour = f" ({self.rigour.name.lower()})" if self.verdict is Verdict.VERIFIED else ""
        return f"{self.verdict.name.lower()}{rigour}{by} in {self.seconds:.2f} s"
