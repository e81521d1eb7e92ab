"""What is known of one example at one radius."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field, replace

import numpy as np

from boundlab.bounds.problem import Rigour


class Status(enum.Enum):
    """What became of an example at a radius."""

    CERTIFIED = "the label is proven to stay on the whole set"
    FALSIFIED = "an input of the set has another label: it was replayed, and judged in exact arithmetic"
    UNKNOWN = "neither was found, or what was found holds in floating point alone"
    MISCLASSIFIED = "the network does not give the example itself its label, or gives another class the same score"
    FAILED = "the computation failed, so nothing is claimed"


@dataclass(frozen=True)
class Adversary:
    """A counterexample: the input (*shape), the other class with the highest score there, and all scores (classes,)."""

    x: np.ndarray
    label: int
    scores: np.ndarray

    def margin(self, label: int) -> float:
        """By how much the score of `label` is above the best of the others."""
        return float(self.scores[label] - np.delete(self.scores, label).max())


def adversary_of(x: np.ndarray, scores: np.ndarray, label: int) -> Adversary:
    """The counterexample to a label that an input with these scores is; the label itself may have as high a score."""
    others = np.where(np.arange(len(scores)) == label, -np.inf, scores)
    return Adversary(x, int(others.argmax()), scores)


@dataclass(frozen=True)
class Finding:
    """What a rung found out about a question, or all rungs together.

    `method` is what decided, and `effort` how much a search did for that. `margin` is the best lower bound of the least margin
    in floating point, -inf where there is none; `nested` is the radius at which it was found, if that is another one.
    """

    status: Status
    method: str = ""
    effort: str = ""
    rigour: Rigour | None = None
    seconds: float = 0.0
    margin: float = -math.inf
    reason: str = ""
    adversary: Adversary | None = field(default=None, repr=False)
    nested: float | None = None

    @property
    def decided(self) -> bool:
        """Whether the question is answered for good."""
        return self.status in (Status.CERTIFIED, Status.FALSIFIED, Status.MISCLASSIFIED)

    def after(self, earlier: Finding | None) -> Finding:
        """With what an earlier rung has spent on the same question, and its bound if that is better."""
        if earlier is None:
            return self
        return replace(self, seconds=self.seconds + earlier.seconds, margin=max(self.margin, earlier.margin))


@dataclass(frozen=True)
class Record:
    """One example at one radius: its place and name, label, what the network says of it, and what was found.

    `eps` is in the units of the inputs. `finding` has the status with its method, rigour, seconds, best lower bound of the
    least margin, reason, and counterexample.
    """

    index: int
    name: str | None
    label: int
    predicted: int
    eps: float
    finding: Finding

    @property
    def status(self) -> Status:
        """What became of it."""
        return self.finding.status

    def row(self) -> dict[str, str | int | float | None]:
        """The record as columns of plain values; a bound that does not exist is None."""
        found = self.finding
        return {"index": self.index, "name": self.name, "label": self.label, "predicted": self.predicted, "eps": self.eps,
                "status": found.status.name.lower(), "method": found.method or None, "effort": found.effort or None,
                "rigour": found.rigour and found.rigour.name.lower(), "seconds": found.seconds,
                "margin": found.margin if math.isfinite(found.margin) else None, "nested": found.nested,
                "adversary": None if found.adversary is None else found.adversary.label, "reason": found.reason or None}
