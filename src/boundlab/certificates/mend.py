"""A proof that falls a little short, mended: boxes of leaves that are not shown are halved until they are.

A search in single precision, or one with other bounds of inner neurons, may leave some leaves just below zero here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from boundlab.certificates.batches import joined
from boundlab.certificates.certificate import Argument, CaseProof, Pair
from boundlab.certificates.checker import case_bounds
from boundlab.certificates.leaves import Places
from boundlab.certificates.network import Network
from boundlab.certificates.work import ALONE, Work
from boundlab.question.exact import Case

MOST_ROUNDS = 10
"""Halvings of one leaf's box."""
MOST_LEAVES, MOST_NUMBERS = 4096, 2**21
"""Leaves that are not shown, and numbers that all their frames hold, at most: with more the proof is not a little short."""
Key = TypeVar("Key")


def mended(network: Network, case: Case, proof: CaseProof, places: Places, short: Sequence[int],
           work: Work = ALONE) -> CaseProof:
    """The proof with more intervals derived, and halves, of the leaves `short`, which the checker does not accept.

    The proof as it was if too many leaves remain, or time is over.
    """
    proof, good = replace(proof, thorough=True), np.ones(proof.leaves, dtype=bool)
    good[list(short)] = False
    done, pending = [], proof
    for _ in range(MOST_ROUNDS + 1):
        if good.any():
            done.append(taken(pending, np.flatnonzero(good), fresh=False))
        if good.all():
            return joined(done, [0] * len(done))
        if work.over() or (~good).sum() > min(MOST_LEAVES, MOST_NUMBERS // sum(step.size for step in network.steps)):
            break
        left = taken(pending, np.flatnonzero(~good), fresh=True)
        pending = left if pending is proof else halved(left, case, network)
        good = case_bounds(network, case, pending, places, work) > 0
    return proof


def taken(proof: CaseProof, leaves: np.ndarray, fresh: bool) -> CaseProof:
    """Some leaves, in frames of their own (`fresh`), or in as many as they had."""
    frames, number = np.unique(proof.frame[leaves], return_inverse=True)
    if fresh:
        frames, number = proof.frame[leaves], np.arange(len(leaves))

    def at(pairs: Mapping[Key, Pair], index: np.ndarray) -> dict[Key, Pair]:
        return {key: (low if len(low) == 1 else low[index], high if len(high) == 1 else high[index])
                for key, (low, high) in pairs.items()}

    return CaseProof(
        proof.clause[leaves], proof.weights[leaves], proof.step[leaves], proof.neuron[leaves], proof.side[leaves],
        proof.point[leaves], proof.multiplier[leaves], number.reshape(-1).astype(np.int64), proof.steps,
        at(proof.lines, leaves), at(proof.inner, frames), at(proof.plain, frames), proof.thorough,
        {target: one.at(frames) for target, one in proof.assumed.items()}, proof.narrowed and proof.narrowed.of(leaves))


def halved(proof: CaseProof, case: Case, network: Network) -> CaseProof:
    """Both halves of every leaf's box, cut at the middle of the coordinate that is widest beside the whole box."""
    every = np.repeat(np.arange(proof.leaves), 2)
    steps = tuple(dict.fromkeys([*proof.steps, *(Argument(one.name) for one in network.inputs)]))
    lower, upper = boxes(proof, case, network)
    whole = np.maximum(case.upper.nearest - case.lower.nearest, np.finfo(np.float64).tiny)
    coordinate = ((upper - lower) / whole).argmax(axis=1)
    middle = (lower + upper)[np.arange(proof.leaves), coordinate] / 2
    step, neuron = (np.zeros(proof.leaves, dtype=np.int64) for _ in range(2))
    for one in network.inputs:
        here = (one.start <= coordinate) & (coordinate < one.start + one.size)
        step[here], neuron[here] = steps.index(Argument(one.name)), coordinate[here] - one.start
    both = taken(proof, every, fresh=True)
    depth = (both.step >= 0).sum(axis=1)
    side, none = np.tile([1, -1], proof.leaves), np.zeros(len(every))
    return replace(both, steps=steps, step=with_column(both.step, depth, step[every], -1),
                   neuron=with_column(both.neuron, depth, neuron[every], 0), side=with_column(both.side, depth, side, 0),
                   point=with_column(both.point, depth, middle[every], 0),
                   multiplier=with_column(both.multiplier, depth, none, 0),
                   narrowed=both.narrowed and both.narrowed.wide(both.step.shape[1] + 1))


def with_column(array: np.ndarray, depth: np.ndarray, value: np.ndarray, empty: float) -> np.ndarray:
    """One more entry in every row (n, c), behind the first `depth` (n,)."""
    wide = np.concatenate([array, np.full((len(array), 1), empty, dtype=array.dtype)], axis=1)
    wide[np.arange(len(array)), depth] = value
    return wide


def boxes(proof: CaseProof, case: Case, network: Network) -> tuple[np.ndarray, np.ndarray]:
    """The ends (n, d) of the leaves' boxes, as floats."""
    lower, upper = (np.repeat(end.nearest[None], proof.leaves, axis=0) for end in (case.lower, case.upper))
    start = {Argument(one.name): one.start for one in network.inputs}
    place = np.array([start.get(one, -1) for one in proof.steps] or [-1])
    for depth in range(proof.step.shape[1]):
        own = (proof.step[:, depth] >= 0) & (place[proof.step[:, depth]] >= 0)
        leaf = np.flatnonzero(own)
        coordinate, point = place[proof.step[leaf, depth]] + proof.neuron[leaf, depth], proof.point[leaf, depth]
        over = proof.side[leaf, depth] > 0
        lower[leaf[over], coordinate[over]] = np.maximum(lower[leaf[over], coordinate[over]], point[over])
        upper[leaf[~over], coordinate[~over]] = np.minimum(upper[leaf[~over], coordinate[~over]], point[~over])
    return lower, upper
