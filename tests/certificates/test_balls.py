"""Balls: membership in exact arithmetic, minima of linear functions against closed forms, and networks at samples of balls."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import boundlab as bl
from boundlab.certificates.balls import balls_of, dual_norm
from boundlab.certificates.batches import batch_of
from boundlab.certificates.checker import all_bounds, case_bounds, check_proofs, derive_frames, each_case
from boundlab.certificates.leaves import places_of
from boundlab.certificates.reading import read_network
from boundlab.question.exact import Ball, Query
from boundlab.question.vnnlib import parse_vnnlib, write_vnnlib
from tests.certificates.models import inner_values, perceptron, query_text
from tests.certificates.search import Leaf, arguments, proof_of
from tests.certificates.test_bounds import LEAVES, UNSAFE, random_leaves, random_proof

ORDERS = (1, 2, math.inf, 3, 1.5)


def exactly(values: np.ndarray) -> tuple[Fraction, ...]:
    return tuple(Fraction(float(value)) for value in values)


def sampled(rng: np.random.Generator, center: np.ndarray, radius: float, p: float, count: int) -> np.ndarray:
    """Points of a ball (count, d), many of them on its border, corners of l1 balls among them."""
    d = len(center)
    x = rng.normal(size=(count, d)) * rng.choice([1, 1e-3], size=(count, d))
    x[:2 * d] = np.concatenate([np.eye(d), -np.eye(d)])
    x /= np.linalg.norm(x, ord=p, axis=1, keepdims=True)
    return center + radius * x * rng.choice([1, 1, 0.7], size=(count, 1))


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("scale", [1.0, 1e-160, 1e160])
def test_least_values_are_those_of_the_closed_form(p: float, scale: float) -> None:
    rng, d, n = np.random.default_rng(0), 7, 40
    a, center = scale * rng.normal(size=(d, n)) * rng.choice([0, 1, 1e-9], size=(d, n)), rng.normal(size=(d, n))
    radius = rng.choice([0, 1e-9, 0.3, 5], size=n)
    q = 1.0 if math.isinf(p) else math.inf if p == 1 else p / (p - 1)
    balls = balls_of([Ball(exactly(middle), Fraction(float(r)), p) for middle, r in zip(center.T, radius, strict=True)], d)
    assert balls is not None
    size = np.abs(a / scale)
    norm = np.linalg.norm(size, ord=q, axis=0) * scale
    found = balls.least(a)
    exact = (a * center).sum(axis=0) - radius * norm
    assert (np.abs(found - exact) <= 1e-12 * (scale + np.abs(exact))).all()
    assert (dual_norm(np.abs(a), p) >= norm * (1 - 4e-16)).all()
    for k in range(n):  # rational arithmetic, where a norm can be stated in it
        pairs = zip(exactly(a[:, k]), exactly(center[:, k]), strict=True)
        middle = sum((x * c for x, c in pairs), Fraction(0))
        gap, sizes = middle - Fraction(float(found[k])), [abs(Fraction(x)) for x in a[:, k].tolist()]
        if p in (1, math.inf):
            assert gap >= Fraction(float(radius[k])) * (max(sizes) if p == 1 else sum(sizes))
        elif p == 2:
            assert gap >= 0 and gap**2 >= Fraction(float(radius[k]))**2 * sum(x * x for x in sizes)


@pytest.mark.parametrize("p", [1, 2, 3, math.inf])
def test_membership_is_exact(p: float) -> None:
    ball = Ball((Fraction(1, 10), Fraction(0)), Fraction(1, 2), p)
    for x, inside in (([math.nextafter(0.6, 1), 0.0], False), ([0.6, 0.0], True), ([math.nan, 0.0], False),
                      ([math.inf, 0.0], False)):
        assert ball.contains(x) is inside
    corner = [0.1 - 0.5, 0.5]
    assert ball.contains(corner) is (p == math.inf and Fraction(corner[0]) >= Fraction(-2, 5))
    assert Ball((Fraction(0), Fraction(0)), Fraction(5), 2).contains([3.0, 4.0])
    assert not Ball((Fraction(0), Fraction(0)), Fraction(5), 2).contains([3.0, math.nextafter(4.0, 5)])
    for wrong in ((Fraction(-1), 2.0), (Fraction(1), 0.5), (Fraction(1), math.nan)):
        with pytest.raises(bl.SpecError, match="a ball needs"):
            Ball((), *wrong)
    with pytest.raises(bl.SpecError, match="coordinates"):
        ball.contains([0.0])


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("function", ["Relu", "Tanh"])
def test_leaves_and_intervals_hold_at_samples_of_balls(p: float, function: str) -> None:
    gained = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        content = perceptron((3, 6, 5, 2), seed, function)
        network, center, radius = read_network(content), rng.normal(size=3), float(rng.choice([0.01, 0.4, 1.5]))
        query = parse_vnnlib(query_text(center - np.array([1, 0.3, 1]), center + np.array([0.2, 1, 1]), 2, UNSAFE))
        case = dataclasses.replace(query.cases[0], ball=Ball(exactly(center), Fraction(radius), p))
        x = sampled(rng, center, radius * (1 - 1e-12), p, 6000)
        x = np.clip(x, case.lower.nearest, case.upper.nearest)  # towards the center, which lies in the box
        values = inner_values(content, function, x)
        leaves = random_leaves(rng, arguments(network), values)
        proof, places = random_proof(rng, content, query, leaves), places_of(network)
        known = derive_frames(network, batch_of(network, [case], [proof]), places,
                              (np.arange(proof.frames), np.arange(LEAVES)), True)
        whole = [one for one in range(LEAVES) if not leaves[one].splits]
        for step, (low, high) in zip(network.steps, known.ends, strict=True):
            for leaf in whole:
                frame = proof.frame[leaf]
                assert (low[:, frame] <= values[step.name].min(axis=0) + 1e-9).all()
                assert (high[:, frame] >= values[step.name].max(axis=0) - 1e-9).all()
        bounds = case_bounds(network, case, proof, places)
        y = values["y"]
        atoms = [np.stack([y[:, 0] - 0.3, 1.1 - y[:, 1]]), np.stack([y[:, 0] - 2.5 * y[:, 1] - 0.7, 0 * y[:, 0]])]
        for leaf, bound, weights in zip(leaves, bounds, proof.weights, strict=True):
            inside = np.ones(len(x), dtype=bool)
            for split in leaf.splits:
                tensor = values[proof.steps[split.step].step.replace("h", "a")]
                inside &= split.side * (tensor[:, split.neuron] - split.point) >= 0
            assert inside.any() and not bound > (weights @ atoms[leaf.clause])[inside].min() + 1e-9
        gained.append((bounds > case_bounds(network, query.cases[0], proof, places) + 1e-9).mean())
    assert np.mean(gained) > 0.3


def test_a_ball_of_infinite_order_is_its_box() -> None:
    content, rng = perceptron((3, 6, 5, 2), 2), np.random.default_rng(2)
    network, places, center = read_network(content), places_of(read_network(content)), rng.normal(size=3)
    box = parse_vnnlib(query_text(center - 0.25, center + 0.25, 2, UNSAFE))
    large = parse_vnnlib(query_text(center - 9, center + 9, 2, UNSAFE)).cases[0]
    ball = dataclasses.replace(large, ball=Ball(exactly(center), Fraction(1, 4), math.inf))
    leaves = random_leaves(rng, arguments(network), inner_values(content, "Relu", center + rng.uniform(-0.25, 0.25, (99, 3))))
    proof = random_proof(rng, content, box, leaves)
    # Boxes of float32 networks are rounded outward in that type, balls in float64.
    expected, found = case_bounds(network, box.cases[0], proof, places), case_bounds(network, ball, proof, places)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    same = dataclasses.replace(box.cases[0], ball=Ball(exactly(center), Fraction(9), math.inf))
    np.testing.assert_allclose(case_bounds(network, same, proof, places), expected, rtol=1e-12, atol=1e-12)


def test_linear_functions_are_exact_on_balls_and_batches_keep_them_apart() -> None:
    """x_0 + x_1 on balls around (1, 1) of radius 1: 0, 2 - sqrt(2) and 1 are its least values for the orders inf, 2 and 1."""
    weights = np.array([[1.0], [1.0]])
    content = perceptron((2, 1), 0)
    made = onnx.ModelProto.FromString(content)
    for tensor, value in zip(made.graph.initializer, (weights, np.zeros(1)), strict=True):
        tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
    network = read_network(made.SerializeToString())
    case = parse_vnnlib(query_text([-9, -9], [9, 9], 1, "(<= Y_0 0)")).cases[0]
    cases = [dataclasses.replace(case, ball=Ball((Fraction(1), Fraction(1)), Fraction(1), p)) for p in (math.inf, 2, 1, 2)]
    proofs = [proof_of(network, case, [Leaf(0)]) for _ in cases]
    bounds = dict(all_bounds(network, cases, proofs, places_of(network)))
    np.testing.assert_allclose([float(bounds[k][0]) for k in range(4)], [0, 2 - 2**0.5, 1, 2 - 2**0.5], atol=1e-12)
    assert bounds[0][0] <= 0 and check_proofs(network, Query(2, 1, tuple(cases[1:])), proofs[1:]).accepted
    assert not check_proofs(network, Query(2, 1, (case,)), proofs[:1]).accepted


def test_a_ball_has_no_text_and_needs_its_dimension() -> None:
    query = parse_vnnlib(query_text([-1, -1], [1, 1], 2, "(<= Y_0 -90)"))
    network = read_network(perceptron((2, 4, 2)))
    cases = tuple(dataclasses.replace(query.cases[0], ball=Ball((Fraction(0),) * size, Fraction(1), 2)) for size in (2, 3))
    with pytest.raises(bl.SpecError, match="ball"):
        write_vnnlib(Query(2, 2, cases[:1]))
    for case, fits in zip(cases, (True, False), strict=True):
        proof = proof_of(network, case, [Leaf(0)])
        if fits:
            assert check_proofs(network, Query(2, 2, (case,)), [proof]).accepted
        else:
            with pytest.raises(bl.SpecError, match="a ball"):
                Query(2, 2, (case,))
            with pytest.raises(bl.CertificateError, match="coordinates"):
                list(each_case(network, [case], [proof]))
    assert not cases[0].contains(np.array([0.8, 0.8]), np.float32) and cases[0].contains(np.array([0.6, 0.6]), np.float32)
