"""Several proofs as one: leaves one after the other, and cases of a query whose frames and leaves are checked together.

In a batch the clauses of all cases are numbered through, and a frame belongs to a case, whose box it lies in.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from boundlab.certificates.assumption import stacked_assumptions
from boundlab.certificates.balls import Balls, balls_of
from boundlab.certificates.certificate import Argument, CaseProof, Pair
from boundlab.certificates.functions import Ends
from boundlab.certificates.narrowing import stacked_ends
from boundlab.certificates.network import Network
from boundlab.certificates.unsafe import Atoms, atoms_of
from boundlab.question.exact import Case

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Batch:
    """Cases with one proof for all of them, the ends (d, cases) of their boxes, the case of each frame (f,), and their atoms.

    `first` (cases + 1,) says which leaves belong to which case; `balls` are those of the cases, which all have one or none do.
    """

    proof: CaseProof
    root: Ends
    case: np.ndarray
    atoms: Atoms
    first: np.ndarray
    balls: Balls | None = None


def batch_of(network: Network, cases: Sequence[Case], proofs: Sequence[CaseProof]) -> Batch:
    """Cases and their proofs as a batch; the clauses that proofs name have to exist."""
    root = tuple(np.stack([end.outward(network.dtype, side).astype(np.float64) for end in ends], axis=1) for side, ends in
                 ((-1, [case.lower for case in cases]), (1, [case.upper for case in cases])))
    balls = balls_of([case.ball for case in cases], len(root[0]))
    if balls is not None:
        root = balls.within((root[0], root[1]))
    start = np.cumsum([0, *(len(case.unsafe) for case in cases)])
    case = np.repeat(np.arange(len(cases)), [proof.frames for proof in proofs])
    first = np.cumsum([0, *(proof.leaves for proof in proofs)])
    return Batch(joined(proofs, start[:-1].tolist()), (root[0], root[1]), case,
                 atoms_of(cases, network.steps[network.output].size), first, balls)


def gathered(cases: Sequence[Case], proofs: Sequence[CaseProof], frames: int, leaves: int) -> list[list[int]]:
    """Numbers of cases that can be checked together, in groups of at most so many frames and leaves, or of one case."""
    groups: list[list[int]] = []
    current: dict[Hashable, tuple[int, int, int]] = {}
    for number, (case, proof) in enumerate(zip(cases, proofs, strict=True)):
        inner = tuple((key, *(slopes.shape[1:] for slopes in proof.inner[key])) for key in sorted(proof.inner))
        assumed = tuple((target, proof.assumed[target].layout) for target in sorted(proof.assumed))
        layout = case.ball and case.ball.p, proof.thorough, inner, assumed
        group, held, full = current.get(layout, (-1, frames, leaves))
        if held + proof.frames > frames or full + proof.leaves > leaves:
            group, held, full = len(groups), 0, 0
            groups.append([])
        groups[group].append(number)
        current[layout] = group, held + proof.frames, full + proof.leaves
    return groups


def joined(proofs: Sequence[CaseProof], clauses: Sequence[int]) -> CaseProof:
    """The leaves of all proofs in one, each proof's clauses counted from its number in `clauses`.

    Proofs agree on `thorough` and have inner slopes for the same arguments, of the same shape, and assumptions of one layout.
    """
    if len(proofs) == 1 and clauses[0] == 0:
        return proofs[0]
    steps = tuple(dict.fromkeys(itertools.chain.from_iterable(proof.steps for proof in proofs)))
    place = {step: k for k, step in enumerate(steps)}
    columns, atoms = (max(array.shape[1] for array in arrays) for arrays in zip(
        *((proof.step, proof.weights) for proof in proofs), strict=True))

    def column(name: str, empty: float) -> np.ndarray:
        arrays = [renumbered(proof, place) if name == "step" else vars(proof)[name] for proof in proofs]
        width = atoms if name == "weights" else columns
        return np.concatenate([array if array.shape[1] == width else np.pad(
            array, ((0, 0), (0, width - array.shape[1])), constant_values=empty) for array in arrays])

    frames, leaves = ([count(proof) for proof in proofs] for count in (lambda proof: proof.frames, lambda proof: proof.leaves))
    frame = np.concatenate([proof.frame for proof in proofs]) + np.repeat(np.cumsum([0, *frames[:-1]]), leaves)
    clause = np.concatenate([proof.clause for proof in proofs]) + np.repeat(clauses, leaves)
    places = [np.array([place[step] for step in proof.steps], dtype=np.int64) for proof in proofs]
    return CaseProof(
        clause, column("weights", 0), column("step", -1), column("neuron", 0), column("side", 0), column("point", 0),
        column("multiplier", 0), frame, steps, stacked([proof.lines for proof in proofs], leaves),
        stacked([proof.inner for proof in proofs], frames), stacked([proof.plain for proof in proofs], frames),
        proofs[0].thorough, stacked_assumptions([proof.assumed for proof in proofs], frames),
        stacked_ends([proof.narrowed for proof in proofs], leaves, places, columns))


def renumbered(proof: CaseProof, place: Mapping[Argument, int]) -> np.ndarray:
    """A proof's `step` by the places that steps have among others."""
    if not proof.steps:
        return proof.step
    table = np.array([*(place[step] for step in proof.steps), -1])
    return table[np.where(proof.step < 0, len(proof.steps), proof.step)]


def stacked(parts: Sequence[Mapping[Key, Pair]], counts: Sequence[int]) -> dict[Key, Pair]:
    """Slopes of several proofs one after the other, with as many entries as each has leaves or frames; NaN where it has none.

    An array of one entry that all proofs share stays one.
    """
    def side(key: Key, place: int) -> np.ndarray:
        own = [part[key][place] if key in part else None for part in parts]
        known = next(array for array in own if array is not None)
        if len(known) == 1 and all(array is known for array in own):
            return known
        nothing = np.full((1, *known.shape[1:]), np.nan, dtype=known.dtype)
        return np.concatenate([np.broadcast_to(nothing if array is None else array, (count, *known.shape[1:]))
                               for array, count in zip(own, counts, strict=True)])

    keys = dict.fromkeys(itertools.chain.from_iterable(parts))
    return {key: (side(key, 0), side(key, 1)) for key in keys}
