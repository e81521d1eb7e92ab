"""Ends of intervals on single leaves: whatever multipliers say, values on the leaf lie within; and they are of use."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from boundlab.certificates.batches import joined
from boundlab.certificates.certificate import Argument, CaseProof, Certificate
from boundlab.certificates.checker import case_bounds
from boundlab.certificates.file import load, save
from boundlab.certificates.known import Slopes, derive
from boundlab.certificates.leaves import Leaves, places_of
from boundlab.certificates.mend import halved, taken
from boundlab.certificates.narrowing import Narrowed
from boundlab.certificates.reading import read_network
from boundlab.errors import CertificateError
from boundlab.question.vnnlib import parse_vnnlib
from tests.certificates.models import inner_values, perceptron, query_text
from tests.certificates.search import Leaf, Split, arguments, proof_of

CONTENT = perceptron((3, 8, 2), 5, "Relu")
NETWORK = read_network(CONTENT)
QUERY = parse_vnnlib(query_text([-1] * 3, [1] * 3, 2, "(<= Y_0 -100)"))
STEP = arguments(NETWORK).index(Argument("h0"))


def split_leaves(rng: np.random.Generator) -> list[Leaf]:
    """Leaves of one, two and three constraints on neurons of the first layer, with points inside."""
    point = inner_values(CONTENT, "Relu", rng.uniform(-1, 1, (1, 3)))["a0"][0]
    splits = [Split(STEP, j, 1 if point[j] > 0 else -1, float(point[j]) / 2, 0.1) for j in rng.permutation(8)[:3].tolist()]
    return [Leaf(0, tuple(splits[:count])) for count in (1, 2, 3)]


def ends(rng: np.random.Generator, proof: CaseProof, scale: float) -> Narrowed:
    """Both ends of all neurons of the first layer on all leaves, by random multipliers."""
    leaf, neuron, side = (part.reshape(-1) for part in np.meshgrid(np.arange(proof.leaves), np.arange(8), [1, -1]))
    multiplier = scale * rng.exponential(size=(len(leaf), proof.step.shape[1])) * rng.integers(0, 2, (len(leaf), 1))
    return Narrowed(leaf, np.full_like(leaf, STEP), neuron, side, multiplier)


def intervals(proof: CaseProof) -> tuple[np.ndarray, np.ndarray]:
    """The ends (8, leaves) of the first layer's neurons on each leaf."""
    boxes = [(QUERY.cases[0].lower.nearest[:, None], QUERY.cases[0].upper.nearest[:, None])]
    places, known = places_of(NETWORK), derive(NETWORK, boxes, Slopes())
    leaves = Leaves(proof, places, known, np.arange(proof.leaves), np.zeros(proof.leaves, dtype=np.int64))
    return leaves.clipped()[0][places.tensor(arguments(NETWORK)[STEP])]


@pytest.mark.parametrize("scale", [0.1, 1.0, 1e6])
@pytest.mark.parametrize("seed", range(6))
def test_values_on_a_leaf_lie_within_whatever_the_multipliers(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    proof = proof_of(NETWORK, QUERY.cases[0], split_leaves(rng))
    low, high = intervals(dataclasses.replace(proof, narrowed=ends(rng, proof, scale)))
    values = inner_values(CONTENT, "Relu", rng.uniform(-1, 1, (20000, 3)))["a0"]
    for leaf in range(proof.leaves):
        here = np.ones(len(values), dtype=bool)
        for depth in np.flatnonzero(proof.step[leaf] >= 0):
            here &= proof.side[leaf, depth] * (values[:, proof.neuron[leaf, depth]] - proof.point[leaf, depth]) >= 0
        inside = values[here]
        assert len(inside) > 20
        assert (low[:, leaf] <= inside.min(0)).all()
        assert (inside.max(0) <= high[:, leaf]).all()


def test_good_multipliers_cut_intervals_and_raise_bounds() -> None:
    rng = np.random.default_rng(0)
    proof = proof_of(NETWORK, QUERY.cases[0], split_leaves(rng))
    plain, before = intervals(proof), case_bounds(NETWORK, QUERY.cases[0], proof, places_of(NETWORK))
    every = [dataclasses.replace(proof, narrowed=ends(rng, proof, 0.3)) for _ in range(40)]
    found = [intervals(one) for one in every]
    low, high = np.max([one[0] for one in found], 0), np.min([one[1] for one in found], 0)
    assert ((low > plain[0]) | (high < plain[1])).sum() > 8
    after = np.max([case_bounds(NETWORK, QUERY.cases[0], one, places_of(NETWORK)) for one in every], 0)
    assert (after >= before).all()
    assert (after > before).any()


def test_they_stay_with_their_leaves() -> None:
    rng, case, places = np.random.default_rng(3), QUERY.cases[0], places_of(NETWORK)
    plain = proof_of(NETWORK, case, split_leaves(rng))
    proof = dataclasses.replace(plain, narrowed=ends(rng, plain, 0.3))
    bounds = case_bounds(NETWORK, case, proof, places)
    order = np.array([2, 0, 2])
    assert np.array_equal(case_bounds(NETWORK, case, taken(proof, order, fresh=True), places), bounds[order])
    both = joined([plain, proof], [0, 0])
    assert np.array_equal(case_bounds(NETWORK, case, both, places)[3:], bounds)
    both = halved(proof, case, NETWORK)
    assert both.narrowed is not None
    for half in range(6):
        mine, its = (one.narrowed.at(one.narrowed.leaf == leaf) for one, leaf in ((both, half), (proof, half // 2)))
        assert np.array_equal(mine.multiplier[:, :-1], its.multiplier)
        assert np.array_equal(mine.neuron, its.neuron)


def test_a_file_keeps_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    proof = proof_of(NETWORK, QUERY.cases[0], split_leaves(rng))
    own = ends(rng, proof, 1.0)
    save(Certificate("0" * 64, "0" * 64, (dataclasses.replace(proof, narrowed=own),)), tmp_path / "c")
    found = load(tmp_path / "c").cases[0].narrowed
    assert found is not None
    assert all(np.array_equal(found.whole[name], array) for name, array in own.whole.items())
    assert np.array_equal(found.multiplier, own.multiplier)


@pytest.mark.parametrize(("name", "value", "words"), [
    ("leaf", 3, "out of range"), ("step", 9, "out of range"), ("neuron", -1, "out of range"), ("side", 0, "neither 1 nor -1"),
    ("multiplier", -1.0, "below 0"), ("multiplier", np.nan, "not finite"), ("multiplier", np.inf, "not finite")])
def test_what_makes_no_sense_is_refused(name: str, value: float, words: str) -> None:
    rng = np.random.default_rng(1)
    proof = proof_of(NETWORK, QUERY.cases[0], split_leaves(rng))
    own = ends(rng, proof, 1.0)
    array = vars(own)[name].copy()
    array.flat[0] = value
    with pytest.raises(CertificateError, match=words):
        dataclasses.replace(proof, narrowed=dataclasses.replace(own, **{name: array}))
