"""What a certificate holds: which parts cover each unsafe clause, and slopes and multipliers for the proof of each part.

It states no bound. For any slope m the lines m x + min(f(x) - m x) and m x + max(f(x) - m x) enclose f, and any multiplier of
at least 0 is sound, so whatever numbers stand here, the checker can only prove what is true.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from boundlab.certificates.assumption import Assumptions, validate_assumptions
from boundlab.certificates.naming import Argument
from boundlab.certificates.narrowing import Narrowed, validate_ends
from boundlab.errors import CertificateError

Pair = tuple[np.ndarray, np.ndarray]
"""Slopes of lower and of upper lines; NaN where the checker shall take its own."""


@dataclass(frozen=True)
class CaseProof:
    """Proofs of all unsafe clauses of one case, on n leaves; c is the most constraints of a leaf, a the most atoms of a clause.

    A leaf is the part of the case's box where its constraints hold, `side * (value - point) >= 0`; in place d stands the d-th
    split on the way from the root. The leaf shows that the sum of `weights` times the left sides of the clause's atoms is
    above 0, so that not all of them are <= 0.

    clause (n,) integers: the unsafe conjunction that is excluded; weights (n, a) >= 0, not all 0.
    step (n, c) integers: place in `steps` of the argument that a constraint is about, -1 for none (then none follows);
    neuron (n, c) integers: flat index in it; side (n, c) +1 or -1 (0 for none); point (n, c); multiplier (n, c) >= 0.
    frame (n,) integers, 0 ... f-1: leaves of a frame share the inner intervals, which hold on the hull of their boxes.
    lines: slopes (n or 1, size) of a leaf's own lines by argument; `size` is that of the operator's output.
    plain: slopes (f or 1, size) of a frame's lines by argument, for its inner intervals and for leaves without their own.
    inner: slopes (f or 1, 2 or 1, m or 1, size) by (target, argument), of the lines used while the intervals of the target's m
    neurons are derived: first for lower ends, then for upper ends. What is absent is the checker's own choice.
    thorough: whether leaves that are not shown otherwise are shown with intervals of all neurons, not only of those whose
    lines need them: dearer, seldom tighter.
    assumed: intervals that hold where a frame's clause fails, which all its leaves are about then; derived after all others.
    narrowed: ends of intervals that hold on single leaves, derived last; None without any.
    """

    clause: np.ndarray
    weights: np.ndarray
    step: np.ndarray
    neuron: np.ndarray
    side: np.ndarray
    point: np.ndarray
    multiplier: np.ndarray
    frame: np.ndarray
    steps: tuple[Argument, ...]
    lines: Mapping[Argument, Pair]
    inner: Mapping[tuple[Argument, Argument], Pair]
    plain: Mapping[Argument, Pair] = field(default_factory=dict)
    thorough: bool = False
    assumed: Assumptions = field(default_factory=dict)
    narrowed: Narrowed | None = None

    def __post_init__(self) -> None:
        validate(self)

    @property
    def leaves(self) -> int:
        """The number of leaves n."""
        return len(self.clause)

    @property
    def frames(self) -> int:
        """The number of frames f."""
        return int(self.frame.max()) + 1 if self.leaves else 0


@dataclass(frozen=True)
class Certificate:
    """A proof that no input of a query makes the network unsafe: one `CaseProof` for each of its cases, in order.

    `network` and `spec` are the SHA-256 (hexadecimal) of the ONNX and VNN-LIB files' bytes, uncompressed.
    """

    network: str
    spec: str
    cases: tuple[CaseProof, ...]


class Semantics(enum.Enum):
    """What a proof is about."""

    REAL = "the network as a function of real numbers, with the weights of the file"
    FLOAT32 = "the network as it runs in float32, in any order of summation"


@dataclass(frozen=True)
class Checked:
    """What the checker found: whether all is proven, the least margin of a leaf, the number of leaves, and what is missing.

    `short` are the leaves of a single case that are not shown.
    """

    accepted: bool
    margin: float
    leaves: int
    reason: str = ""
    short: tuple[int, ...] = field(default=(), repr=False)


def refuse(why: str) -> None:
    """CertificateError with what is wrong."""
    raise CertificateError(f"the certificate {why}.")


def validate(proof: CaseProof) -> None:
    """CertificateError unless all arrays have their types, shapes and ranges; sizes of steps are the checker's to know."""
    n = len(proof.clause) if proof.clause.ndim == 1 else 0
    if n == 0 or proof.weights.ndim != 2 or proof.step.ndim != 2:
        refuse("has a case without leaves, or arrays with a wrong number of axes")
    for name, array, shape in (("frame", proof.frame, (n,)), ("weights", proof.weights, (n, proof.weights.shape[1])),
                               *((name, array, (n, proof.step.shape[1])) for name, array in constraints(proof).items())):
        if array.shape != shape:
            refuse(f"has '{name}' of shape {array.shape}, where {shape} is needed")
    whole = {"clause": proof.clause, "frame": proof.frame, "step": proof.step, "neuron": proof.neuron, "side": proof.side}
    for name, array in whole.items():
        if not np.issubdtype(array.dtype, np.signedinteger):
            refuse(f"has '{name}' of type {array.dtype}, where signed integers are needed")
    for name, array in (("weights", proof.weights), ("point", proof.point), ("multiplier", proof.multiplier)):
        if array.dtype != np.float64 or not np.isfinite(array).all():
            refuse(f"has '{name}' with entries that are not finite float64 numbers")
    validate_ranges(proof)
    for argument, pair in proof.lines.items():
        validate_slopes(f"'{argument.step}'", pair, (n,))
    for argument, pair in proof.plain.items():
        validate_slopes(f"'{argument.step}'", pair, (proof.frames,))
    for (target, argument), pair in proof.inner.items():
        validate_slopes(f"'{argument.step}' under '{target.step}'", pair, (proof.frames, 2, None))
    validate_assumptions(proof.assumed, proof.frame, proof.clause, proof.weights.shape[1])
    if proof.narrowed is not None:
        validate_ends(proof.narrowed, n, len(proof.steps), proof.step.shape[1])


def constraints(proof: CaseProof) -> dict[str, np.ndarray]:
    """The arrays (n, c) of the constraints by name."""
    return {"step": proof.step, "neuron": proof.neuron, "side": proof.side, "point": proof.point,
            "multiplier": proof.multiplier}


def validate_ranges(proof: CaseProof) -> None:
    """CertificateError for numbers out of range, and for a constraint that follows an empty place."""
    used = proof.step >= 0
    if (proof.weights < 0).any() or (proof.multiplier < 0).any():
        refuse("has a weight or a multiplier below 0")
    if not (proof.weights > 0).any(axis=1).all():
        refuse("has a leaf whose weights are all 0")
    if (proof.step >= len(proof.steps)).any() or (used & (proof.neuron < 0)).any() or (proof.clause < 0).any():
        refuse("has a clause, step or neuron out of range")
    if (used & (np.abs(proof.side) != 1)).any():
        refuse("has a constraint whose side is neither 1 nor -1")
    if (used[:, 1:] & ~used[:, :-1]).any():
        refuse("has a constraint after an empty place")
    if (proof.frame < 0).any() or proof.frames > proof.leaves or len(np.unique(proof.frame)) != proof.frames:
        refuse("has frames that are not numbered 0, 1, 2, ... without gaps")
    if len(set(proof.steps)) != len(proof.steps):
        refuse("names a step twice in 'steps'")


def validate_slopes(name: str, pair: Pair, leading: tuple[int | None, ...]) -> None:
    """CertificateError unless slopes are float32 or float64, not infinite, with leading axes of a given size or 1."""
    for array in pair:
        sizes = zip(array.shape, leading, strict=False)
        fits = all(size == 1 or wanted is None or size == wanted for size, wanted in sizes)
        if array.ndim != len(leading) + 1 or not fits:
            refuse(f"has slopes of shape {array.shape} for {name}")
        if array.dtype not in (np.float32, np.float64) or np.isinf(array).any():
            refuse(f"has slopes for {name} that are not float32 or float64, or infinite")
