"""Leaves of random split trees cover; with a leaf dropped, a point moved, or a side flipped, they do not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boundlab.certificates.certificate import Argument, CaseProof
from boundlab.certificates.coverage import uncovered
from boundlab.errors import CertificateError

STEPS = (Argument("x"), Argument("h", 0), Argument("h", 1))


def grown(rng: np.random.Generator, clauses: int, splits: int) -> CaseProof:
    """A random tree for each clause, its leaves in random order."""
    leaves: list[tuple[int, list[tuple[int, int, int, float]]]] = [(clause, []) for clause in range(clauses)]
    for _ in range(splits):
        clause, path = leaves.pop(rng.integers(len(leaves)))
        step, neuron, point = int(rng.integers(3)), int(rng.integers(4)), float(rng.choice([0.0, rng.normal()]))
        leaves += [(clause, [*path, (step, neuron, side, point)]) for side in (1, -1)]
    rng.shuffle(leaves)  # type: ignore[arg-type]
    return stacked(leaves)


def stacked(leaves: list[tuple[int, list[tuple[int, int, int, float]]]]) -> CaseProof:
    n, depth = len(leaves), max(len(path) for _, path in leaves)
    whole, point = np.zeros((3, n, depth), dtype=np.int64), np.zeros((n, depth))
    whole[0] = -1
    for i, (_, path) in enumerate(leaves):
        for d, (*numbers, cut) in enumerate(path):
            whole[:, i, d], point[i, d] = numbers, cut
    clause = np.array([clause for clause, _ in leaves])
    return CaseProof(clause, np.ones((n, 1)), *whole, point, np.zeros((n, depth)), np.zeros(n, dtype=np.int64), STEPS, {}, {})


def taken(proof: CaseProof, chosen: np.ndarray) -> CaseProof:
    """Some of the leaves."""
    arrays = {name: value[chosen] for name, value in vars(proof).items() if isinstance(value, np.ndarray)}
    return dataclasses.replace(proof, **arrays)


SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS, clauses=st.integers(1, 3), splits=st.integers(0, 25))
def test_trees_cover_and_damaged_trees_do_not(seed: int, clauses: int, splits: int) -> None:
    rng = np.random.default_rng(seed)
    proof = grown(rng, clauses, splits)
    assert uncovered(proof, clauses) is None
    for dropped in range(proof.leaves):
        if proof.leaves > 1:
            left = taken(proof, np.arange(proof.leaves) != dropped)
            assert uncovered(left, clauses) is not None
    assert uncovered(proof, clauses + 1) is not None
    used = np.argwhere(proof.step >= 0)
    if len(used):
        leaf, place = used[rng.integers(len(used))]
        for name, change in (("point", lambda x: x + 0.5), ("side", lambda x: -x), ("neuron", lambda x: x + 1),
                             ("step", lambda x: (x + 1) % 3)):
            array = vars(proof)[name].copy()
            array[leaf, place] = change(array[leaf, place])
            assert uncovered(dataclasses.replace(proof, **{name: array}), clauses) is not None, name


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_a_leaf_that_ends_early_covers_what_others_repeat(seed: int) -> None:
    rng = np.random.default_rng(seed)
    proof = grown(rng, 1, 12)
    twice = taken(proof, np.concatenate([np.arange(proof.leaves), rng.integers(proof.leaves, size=3)]))
    assert uncovered(twice, 1) is None


def test_samples_of_the_line_lie_in_some_leaf_of_what_is_accepted() -> None:
    """Brute force on one axis: random constraints of depth two are accepted only if they leave no gap."""
    rng, accepted = np.random.default_rng(0), 0
    x = np.concatenate([np.linspace(-3, 3, 241)])
    for _ in range(4000):
        leaves = [(0, [(0, 0, int(rng.choice([1, -1])), float(rng.integers(-1, 2))) for _ in range(rng.integers(1, 3))])
                  for _ in range(rng.integers(1, 5))]
        if uncovered(stacked(leaves), 1) is None:
            accepted += 1
            inside = [np.all([side * (x - point) >= 0 for _, _, side, point in path], axis=0) for _, path in leaves]
            assert np.any(inside, axis=0).all()
    assert accepted > 20


def test_a_deep_tree_needs_neither_recursion_nor_much_time() -> None:
    depth = 1200
    path = [(0, 0, 1, float(d)) for d in range(depth)]
    leaves = [(0, [*path[:d], (0, 0, -1, float(d))]) for d in range(depth)] + [(0, path)]
    proof = stacked(leaves)
    assert uncovered(proof, 1) is None
    assert "clause 0" in str(uncovered(taken(proof, np.arange(proof.leaves) != 700), 1))


@pytest.mark.parametrize("name, value, message", [
    ("step", [[-1, 0], [0, 0]], "after an empty place"), ("side", [[0, 1], [1, 1]], "side is neither"),
    ("clause", [-1, 0], "out of range"), ("neuron", [[-1, 0], [0, 0]], "out of range"),
    ("step", [[3, 0], [0, 0]], "out of range"),
    ("point", [[np.nan, 0], [0, 0]], "not finite"), ("multiplier", [[-1.0, 0], [0, 0]], "below 0"),
    ("weights", [[0.0], [1]], "all 0"), ("weights", [[-1.0], [1]], "below 0"), ("weights", [[np.inf], [1]], "finite"),
    ("frame", [0, 2], "frames"), ("frame", [-1, 0], "frames"), ("frame", [0.0, 0.0], "signed integers"),
    ("point", [[0, 0, 0], [0, 0, 0.0]], "shape"), ("steps", (STEPS[0],) * 3, "twice"),
    ("lines", {STEPS[1]: (np.zeros((3, 2)), np.zeros((1, 2)))}, "slopes of shape"),
    ("lines", {STEPS[1]: (np.zeros((2, 2), dtype=np.int64), np.zeros((1, 2)))}, "float32 or float64"),
    ("lines", {STEPS[1]: (np.full((2, 2), np.inf), np.zeros((1, 2)))}, "infinite"),
])
def test_arrays_out_of_range_are_refused(name: str, value: object, message: str) -> None:
    path = [(0, 0, 1, 0.0), (1, 0, 1, 0.0)]
    proof = stacked([(0, path), (0, path)])
    with pytest.raises(CertificateError, match=message):
        dataclasses.replace(proof, **{name: np.array(value) if isinstance(value, list) else value})
