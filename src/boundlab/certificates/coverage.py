"""Whether leaves are all the leaves of a tree of splits: then they cover the box, whatever the splits are.

Leaves that share their first d constraints have to be split by one and the same constraint in place d, with leaves on both of
its closed sides, or one of them has no further constraint and covers all that is there.
"""

from __future__ import annotations

import numpy as np

from boundlab.certificates.certificate import CaseProof


def uncovered(proof: CaseProof, clauses: int) -> str | None:
    """What keeps the leaves from covering each of a case's clauses; None if they do."""
    if (proof.clause >= clauses).any():
        return f"a leaf is about clause {int(proof.clause.max())}, but there are {clauses}"
    present = np.bincount(proof.clause, minlength=clauses) > 0
    if not present.all():
        return f"no leaf is about clause {int(np.argmin(present))}"
    leaves = np.arange(proof.leaves)
    groups = proof.clause.astype(np.int64)
    for depth in range(proof.step.shape[1] + 1):
        groups = np.unique(groups, return_inverse=True)[1].reshape(-1)
        count = int(groups.max()) + 1
        ended = proof.step[leaves, depth] < 0 if depth < proof.step.shape[1] else np.ones(len(leaves), dtype=bool)
        covered = np.bincount(groups[ended], minlength=count) > 0
        going = ~covered[groups]
        leaves, groups = leaves[going], groups[going]
        if not len(leaves):
            return None
        wrong = disagreeing(proof, leaves, groups, depth)
        if wrong is not None:
            leaf, why = wrong
            return f"clause {int(proof.clause[leaf])} is not covered: after {depth} splits, leaf {leaf} {why}"
        groups = 2 * groups + (proof.side[leaves, depth] > 0)
    raise AssertionError("every leaf ends at its last place")


def disagreeing(proof: CaseProof, leaves: np.ndarray, groups: np.ndarray, depth: int) -> tuple[int, str] | None:
    """A leaf of a group whose constraints in one place are not both sides of one split, and what is wrong with it."""
    count = int(groups.max()) + 1
    first = np.full(count, -1)
    first[groups[::-1]] = leaves[::-1]
    for array in (proof.step, proof.neuron, proof.point):
        other = array[leaves, depth] != array[first[groups], depth]
        if other.any():
            return int(leaves[np.argmax(other)]), f"is split otherwise than leaf {int(first[groups[np.argmax(other)]])}"
    sides = proof.side[leaves, depth] > 0
    for positive in (True, False):
        counts = np.bincount(groups[sides == positive], minlength=count)
        lone = (counts == 0) & (first >= 0)
        if lone.any():
            return int(first[np.argmax(lone)]), f"has no leaf on the {'upper' if positive else 'lower'} side of its split"
    return None
