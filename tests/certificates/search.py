"""A naive search that makes honest certificates with the checker's own slopes: split what is not proven, until all is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from boundlab.certificates.certificate import Argument, CaseProof
from boundlab.certificates.checker import case_bounds
from boundlab.certificates.known import Slopes, derive
from boundlab.certificates.leaves import places_of
from boundlab.certificates.network import Input, Network
from boundlab.question.exact import Case, Query


@dataclass(frozen=True)
class Split:
    """One constraint: place in the network's arguments, neuron, side, point."""

    step: int
    neuron: int
    side: int
    point: float
    multiplier: float = 0.0


@dataclass(frozen=True)
class Leaf:
    """A clause and constraints."""

    clause: int
    splits: tuple[Split, ...] = ()


def proof_of(network: Network, case: Case, leaves: Sequence[Leaf], weights: np.ndarray | None = None) -> CaseProof:
    """A case's proof from leaves; without weights the first atom of a clause has weight 1. Leaves of one box share a frame."""
    n, depth = len(leaves), max((len(leaf.splits) for leaf in leaves), default=0)
    atoms = max(map(len, case.unsafe))
    numbers, floats = np.full((3, n, depth), -1), np.zeros((2, n, depth))
    own = np.zeros((n, atoms))
    boxes: dict[tuple[Split, ...], int] = {}
    inputs = [place for place, one in enumerate(arguments(network)) if any(one.step == x.name for x in network.inputs)]
    frame = np.zeros(n, dtype=np.int64)
    for i, leaf in enumerate(leaves):
        own[i, 0] = 1
        frame[i] = boxes.setdefault(tuple(split for split in leaf.splits if split.step in inputs), len(boxes))
        for d, split in enumerate(leaf.splits):
            numbers[:, i, d] = split.step, split.neuron, split.side
            floats[:, i, d] = split.point, split.multiplier
    numbers[1:, numbers[0] < 0] = 0
    return CaseProof(np.array([leaf.clause for leaf in leaves]), own if weights is None else weights, *numbers, *floats, frame,
                     arguments(network), {}, {})


def arguments(network: Network) -> tuple[Argument, ...]:
    """What may be split."""
    return tuple(sorted(places_of(network).numbers))


def prove(network: Network, query: Query, turns: int = 12, inputs: bool = True, seed: int = 0) -> list[CaseProof] | None:
    """Proofs of all cases, by halving the widest input, and unless `inputs`, three neurons first; None if turns do not do."""
    rng, found = np.random.default_rng(seed), []
    for case in query.cases:
        leaves = [Leaf(clause) for clause in range(len(case.unsafe))]
        free = [] if inputs else crossing(network, case)[:3]
        for _ in range(turns):
            proof = proof_of(network, case, leaves)
            bounds = case_bounds(network, case, proof, places_of(network))
            if (bounds > 0).all():
                break
            leaves = [part for leaf, bound in zip(leaves, bounds, strict=True)
                      for part in ([leaf] if bound > 0 else halves(network, case, leaf, free, rng))]
        else:
            return None
        found.append(proof)
    return found


def crossing(network: Network, case: Case) -> list[tuple[int, int]]:
    """Places of arguments and neurons whose intervals on the case's box hold 0 inside, the widest first."""
    places = places_of(network)
    ends = [(case.lower.nearest[:, None], case.upper.nearest[:, None])]
    known, found = derive(network, ends, Slopes()), []
    for place, one in enumerate(arguments(network)):
        if not isinstance(network.steps[places.numbers[one][0]], Input):
            lower, upper = known.ends[places.tensor(one)]
            room = np.minimum(-lower[:, 0], upper[:, 0])
            found += [(float(room[neuron]), place, int(neuron)) for neuron in np.flatnonzero(room > 0)]
    return [(place, neuron) for _, place, neuron in sorted(found, reverse=True)]


def halves(network: Network, case: Case, leaf: Leaf, free: list[tuple[int, int]], rng: np.random.Generator) -> list[Leaf]:
    """A leaf in two: by the first neuron of `free` that is not split yet, or by its widest input if there is none."""
    named = arguments(network)
    left = [one for one in free if one not in {(split.step, split.neuron) for split in leaf.splits}]
    if not left:
        step = network.inputs[0]
        place = named.index(Argument(step.name))
        lower, upper = case.lower.nearest.copy(), case.upper.nearest.copy()
        for split in (one for one in leaf.splits if one.step == place):
            if split.side > 0:
                lower[split.neuron] = max(lower[split.neuron], split.point)
            else:
                upper[split.neuron] = min(upper[split.neuron], split.point)
        neuron = int(np.argmax(upper - lower))
        choice = (place, neuron, float(lower[neuron] + upper[neuron]) / 2)
    else:
        choice = (*left[0], 0.0)
    return [replace(leaf, splits=(*leaf.splits, Split(choice[0], choice[1], side, choice[2], float(rng.uniform(0, 0.3)))))
            for side in (1, -1)]
