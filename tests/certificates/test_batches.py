"""Cases that are checked together have the bounds that they have alone, in whatever chunks; no case spoils another."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest

from boundlab.certificates import checker, known
from boundlab.certificates.batches import batch_of, gathered
from boundlab.certificates.certificate import Argument, CaseProof
from boundlab.certificates.checker import all_bounds, batch_bounds, case_bounds, check_proofs
from boundlab.certificates.leaves import places_of
from boundlab.certificates.network import Network
from boundlab.certificates.reading import read_network
from boundlab.certificates.work import Work
from boundlab.question.exact import Atom, Case, Query
from boundlab.question.vnnlib import parse_vnnlib
from tests.certificates.models import inner_values, layers, perceptron, query_text
from tests.certificates.search import arguments, prove
from tests.certificates.test_bounds import UNSAFE, random_leaves, random_proof

CASES = 5


def several(seed: int, function: str, radius: float = 0.3) -> tuple[Network, list[Case], list[CaseProof]]:
    """Cases on boxes far from each other with random leaves; some are thorough, some split nothing, some have no slopes."""
    rng, content = np.random.default_rng(seed), perceptron((3, 6, 5, 2), seed, function, scale=0.5)
    network, cases, proofs = read_network(content), [], []
    for number in range(CASES):
        middle = 3 * rng.normal(size=3)
        query = parse_vnnlib(query_text(middle - radius, middle + radius, 2, UNSAFE if number % 2 else "(<= Y_0 (* 2 Y_1))"))
        values = inner_values(content, function, middle + radius * rng.uniform(-1, 1, (300, 3)))
        leaves = random_leaves(rng, arguments(network), values)
        if number % 2 == 0:
            leaves = [dataclasses.replace(leaf, clause=0, splits=leaf.splits if number else ()) for leaf in leaves]
        proof = random_proof(rng, content, query, leaves)
        if number % 2 == 0:
            proof = dataclasses.replace(proof, weights=proof.weights[:, :1] + 0.1, inner={})
        cases.append(query.cases[0])
        proofs.append(dataclasses.replace(proof, thorough=number in (2, 3)))
    return network, cases, proofs


@pytest.mark.parametrize("function", ["Relu", "Tanh", "Floor", "Sin"])
def test_together_equals_alone(function: str) -> None:
    for seed in range(4):
        network, cases, proofs = several(seed, function)
        places = places_of(network)
        alone = [case_bounds(network, case, proof, places) for case, proof in zip(cases, proofs, strict=True)]
        groups = gathered(cases, proofs, 10**9, 10**9)
        assert sorted(number for group in groups for number in group) == list(range(CASES))
        assert any(len(group) > 1 for group in groups)
        for group in groups:
            batch = batch_of(network, [cases[k] for k in group], [proofs[k] for k in group])
            found = batch_bounds(network, batch, places)
            for place, k in enumerate(group):
                own = found[batch.first[place]:batch.first[place + 1]]
                np.testing.assert_allclose(own, alone[k], rtol=1e-9, atol=1e-9)
        for number, bounds in all_bounds(network, cases, proofs, places):
            assert ((bounds > 0) == (alone[number] > 0)).all()


@pytest.mark.parametrize("numbers, rows", [(1, 1), (100, 40), (2000, 2**10)])
def test_chunks_equal_the_whole(numbers: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, cases, proofs = several(7, "Relu")
    places = places_of(network)
    whole = dict(all_bounds(network, cases, proofs, places))
    monkeypatch.setattr(checker, "MOST_NUMBERS", numbers)
    monkeypatch.setattr(checker, "FEWEST", 2)
    monkeypatch.setattr(known, "MOST_NUMBERS", rows)
    monkeypatch.setattr(known, "FEWEST", 2)
    for number, bounds in all_bounds(network, cases, proofs, places):
        np.testing.assert_allclose(bounds, whole[number], rtol=1e-9, atol=1e-9)


def test_no_case_spoils_another() -> None:
    """One of three boxes is so large that nothing can be said of it: the other two are shown all the same."""
    content = perceptron((2, 6, 2), 1)
    network, places = read_network(content), places_of(read_network(content))
    unsafe = "(or (<= Y_0 -4) (and (>= Y_1 4) (<= Y_0 9)))"
    query = parse_vnnlib(query_text([-1, -1], [1, 1], 2, unsafe))
    far = parse_vnnlib(query_text([-1e200, -1], [1e200, 1], 2, unsafe))
    proofs = prove(network, query)
    assert proofs is not None
    cases, every = (query.cases[0], far.cases[0], query.cases[0]), [*proofs, *proofs, *proofs]
    shown = {number: bool((bounds > 0).all()) for number, bounds in all_bounds(network, cases, every, places)}
    assert shown == {0: True, 1: False, 2: True}
    found = check_proofs(network, Query(2, 2, cases), every)
    assert not found.accepted and found.reason.startswith("case 1:")
    assert check_proofs(network, Query(2, 2, cases[::2]), every[::2]).accepted


def test_clauses_and_slopes_stay_with_their_cases() -> None:
    """y = relu(x), once on [-1, 0] and once on [2, 3]: what is said of one box is no proof about the other."""
    content = perceptron((1, 1, 1), 0)
    network = read_network(content)
    weight, bias = (float(value[0]) for value in (layers(content)[0][0][0], layers(content)[0][1]))
    queries = [parse_vnnlib(query_text([low], [low + 1], 1, "(<= Y_0 100)")) for low in (-1, 2)]
    none = np.zeros((1, 0), dtype=np.int64)
    proofs = [CaseProof(np.zeros(1, dtype=np.int64), np.ones((1, 1)), none, none, none, none * 0.0, none * 0.0,
                        np.zeros(1, dtype=np.int64), (), {}, {}, {Argument("h0"): (np.full((1, 1), slope),) * 2})
              for slope in (0.25, 0.5)]
    batch = batch_of(network, [query.cases[0] for query in queries], proofs)
    np.testing.assert_array_equal(batch.proof.plain[Argument("h0")][0], [[0.25], [0.5]])
    np.testing.assert_array_equal(batch.case, [0, 1])
    np.testing.assert_array_equal(batch.proof.clause, [0, 1])
    ends = checker.derive_frames(network, batch, places_of(network), (np.arange(2), np.arange(2)), False).ends[1]
    exact = np.sort(weight * np.array([[-1, 0], [2, 3]]) + bias, axis=1)
    np.testing.assert_allclose(np.stack([ends[0][0], ends[1][0]], axis=1), exact, rtol=1e-12)


def test_nothing_is_shown_once_time_is_over():
    network, cases, proofs = several(1, "Relu")
    never = (Atom(((0, Fraction(1)),), Fraction(1000)),)
    easy = [dataclasses.replace(case, unsafe=(never,) * len(case.unsafe)) for case in cases]
    proofs = [dataclasses.replace(proof, weights=proof.weights[:, :1] + 0.1) for proof in proofs]
    shown = {number for number, found in checker.each_case(network, easy, proofs) if found.accepted}
    counts = []
    for patience in (0, 1, 3, 10, 1000):
        left = iter(range(patience))
        found = dict(checker.each_case(network, easy, proofs, Work(lambda left=left: next(left, None) is None)))
        early = {number for number, one in found.items() if one.accepted}
        assert early <= shown
        counts.append(len(early))
    assert counts[0] == 0 and counts[-1] == len(shown) > 0
