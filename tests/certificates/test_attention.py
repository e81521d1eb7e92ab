"""Bounds of softmax and products of varying matrices: they hold at samples; sparse matrices give those of dense ones."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from boundlab.certificates import network as network_module
from boundlab.certificates.assumption import Assumption
from boundlab.certificates.batches import batch_of
from boundlab.certificates.certificate import Argument
from boundlab.certificates.checker import case_bounds, derive_frames
from boundlab.certificates.known import Slopes, derive
from boundlab.certificates.leaves import places_of
from boundlab.certificates.network import repeated
from boundlab.certificates.reading import read_network
from boundlab.question.vnnlib import parse_vnnlib
from tests.certificates.models import model, query_text
from tests.certificates.search import Leaf, arguments, proof_of
from tests.certificates.test_bounds import image_network, slopes
from tests.certificates.test_reading import replay


def attention(seed: int, scale: float) -> bytes:
    """One head of attention over four words of three numbers, with a residual path, LogSoftmax and a last layer, in float64."""
    rng = np.random.default_rng(seed)
    held = {name: scale * rng.normal(size=shape) for name, shape in
            (("q", (3, 4)), ("k", (3, 4)), ("v", (3, 3)), ("w", (3, 2)))}
    nodes = [helper.make_node("MatMul", ["x", "q"], ["a"]), helper.make_node("MatMul", ["x", "k"], ["b"]),
             helper.make_node("Transpose", ["b"], ["t"], perm=[0, 2, 1]), helper.make_node("MatMul", ["a", "t"], ["s"]),
             helper.make_node("Softmax", ["s"], ["p"]), helper.make_node("MatMul", ["x", "v"], ["z"]),
             helper.make_node("MatMul", ["p", "z"], ["m"]), helper.make_node("Add", ["m", "x"], ["r"]),
             helper.make_node("LogSoftmax", ["r"], ["l"], axis=1), helper.make_node("MatMul", ["l", "w"], ["o"]),
             helper.make_node("ReduceMean", ["o"], ["y"], axes=[1])]
    return model(nodes, (1, 4, 3), held, dtype=np.float64)


def run(held: dict[str, np.ndarray], x: np.ndarray) -> dict[str, np.ndarray]:
    """The tensors of `attention` at points (n, 12), in float64."""
    x = x.reshape(-1, 4, 3)
    a, b = x @ held["q"], x @ held["k"]
    s = a @ b.swapaxes(1, 2)
    p = np.exp(s - s.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    m = p @ (x @ held["v"])
    r = m + x
    top = r.max(axis=1, keepdims=True)
    log = r - top - np.log(np.exp(r - top).sum(axis=1, keepdims=True))
    return {"s": s, "p": p, "m": m, "l": log, "y": (log @ held["w"]).mean(axis=1)}


@pytest.mark.parametrize("scale, radius", [*itertools.product([0.1, 1.0, 6.0], [0.0, 1e-6, 0.05, 1.0])])
def test_bounds_hold_at_samples(scale: float, radius: float) -> None:
    said = []
    for seed in range(3):
        rng, content = np.random.default_rng(seed), attention(seed, scale)
        held = stored(content)
        network, middle = read_network(content), rng.normal(size=12)
        x = middle + radius * np.concatenate([rng.uniform(-1, 1, (2000, 12)), rng.choice([-1, 1], (500, 12))])
        values = run(held, x)
        known = derive(network, [((middle - radius)[:, None], (middle + radius)[:, None])], Slopes())
        for step, (low, high) in zip(network.steps, known.ends, strict=True):
            if step.name in values:
                found = values[step.name].reshape(len(x), -1)
                room = 1e-12 * (1 + np.abs(found).max())
                assert (low[:, 0] <= found.min(axis=0) + room).all(), step.name
                assert (high[:, 0] >= found.max(axis=0) - room).all(), step.name
        query = parse_vnnlib(query_text(middle - radius, middle + radius, 2, "(or (<= Y_0 0) (<= (- Y_1 Y_0) 0))"))
        case, places = query.cases[0], places_of(network)
        proof, y = proof_of(network, case, [Leaf(0), Leaf(1)]), values["y"].reshape(-1, 2)
        size = {one: places.size(one) for one in arguments(network) if places.bends(one)}
        given = {one: (slopes(rng, 2, count), slopes(rng, 2, count)) for one, count in size.items()}
        order = sorted(goal for goal in places.goals if goal is not None)
        inner = {(goal, one): (slopes(rng, proof.frames, 2, places.size(goal), count), slopes(rng, 1, 1, 1, count))
                 for goal in order for one, count in size.items() if rng.uniform() < 0.3}
        for one in (proof, dataclasses.replace(proof, lines=given), dataclasses.replace(proof, thorough=True),
                    dataclasses.replace(proof, inner=inner)):
            bounds = case_bounds(network, case, one, places)
            said.append(np.isfinite(bounds).all())
            assert not bounds[0] > y[:, 0].min() + 1e-10 and not bounds[1] > (y[:, 1] - y[:, 0]).min() + 1e-10
        if radius == 0:
            assert abs(case_bounds(network, case, proof, places)[0] - y[0, 0]) < 1e-10 * (10 + abs(y[0, 0]))
    assert scale * radius > 0.2 or np.mean(said) > 0.5  # differences beyond 415 have no exponential that counts as finite


def test_entries_that_a_product_repeats_are_bounded_once() -> None:
    rng, network = np.random.default_rng(0), read_network(attention(0, 1.0))
    names = {step.name: place for place, step in enumerate(network.steps)}
    x = rng.normal(size=12)
    known = derive(network, [(x[:, None] - 0.1, x[:, None] + 0.1)], Slopes(thorough=True))
    for copy, name, index in (("s:left", "a", np.arange(16).reshape(4, 1, 4).repeat(4, axis=1)),
                              ("s:right", "b", np.arange(16).reshape(1, 4, 4).repeat(4, axis=0)),
                              ("m:right", "z", np.arange(12).reshape(4, 3).T[None].repeat(4, axis=0))):
        source, repeats = repeated(network, names[copy])
        assert source == names[name] and repeats is not None and (repeats == index.reshape(-1)).all()
        for end, own in zip(known.ends[names[copy]], known.ends[source], strict=True):
            assert (end == own[repeats]).all()
    assert repeated(network, names["p:exp"]) == (names["p:exp"], None)
    assert {"a", "b", "z"} <= {goal.step for goal in places_of(network).goals if goal is not None}


def wide_softmax(seed: int, words: int, logarithm: bool = False) -> bytes:
    """Scores of words with each other, their softmax and a product with values: more words than are compared in pairs."""
    rng = np.random.default_rng(seed)
    held = {name: rng.normal(size=shape) for name, shape in (("q", (2, 2)), ("v", (2, 2)))}
    nodes = [helper.make_node("MatMul", ["x", "q"], ["a"]), helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
             helper.make_node("MatMul", ["a", "t"], ["s"]),
             helper.make_node("LogSoftmax" if logarithm else "Softmax", ["s"], ["p"], axis=2),
             helper.make_node("MatMul", ["x", "v"], ["z"]), helper.make_node("MatMul", ["p", "z"], ["m"]),
             helper.make_node("ReduceMean", ["m"], ["y"], axes=[1])]
    return model(nodes, (1, words, 2), held, dtype=np.float64)


@pytest.mark.parametrize("logarithm, radius", [(False, 0.1), (False, 1.0), (True, 0.1)])
def test_a_softmax_over_many_derives_intervals_of_its_entries(logarithm: bool, radius: float) -> None:
    """Bounds hold at samples, whatever slopes a certificate has for the steps."""
    words, rng, content = 9, np.random.default_rng(3), wide_softmax(3, 9, logarithm)
    network, held, middle = read_network(content), stored(content), rng.normal(size=18)
    x = middle + radius * np.concatenate([rng.uniform(-1, 1, (500, 18)), rng.choice([-1, 1], (500, 18))])
    w = x.reshape(-1, words, 2)
    s = w @ held["q"] @ w.swapaxes(1, 2)
    log = s - s.max(axis=2, keepdims=True)
    log = log - np.log(np.exp(log).sum(axis=2, keepdims=True))
    y = ((log if logarithm else np.exp(log)) @ (w @ held["v"])).mean(axis=1)
    query = parse_vnnlib(query_text(middle - radius, middle + radius, 2, "(or (<= Y_0 0) (<= (- Y_1 Y_0) 0))"))
    case, places = query.cases[0], places_of(network)
    proof = proof_of(network, case, [Leaf(0), Leaf(1)])
    assert Argument("s") in places.goals and not {Argument("p:exp"), Argument("p:logsumexp")} & places.goals
    ending = (Argument("m:product"), Argument("s:product")) if logarithm else (Argument("p:exp"), Argument("m:product"))
    size = {one: places.size(one) for one in (*(Argument("p:logsumexp", k) for k in range(words)), *ending)}
    for scale in (0.0, 1.0, 1e3, 1e307, np.nan):
        given = {one: tuple(scale * slopes(rng, 2, count).astype(float) for _ in range(2)) for one, count in size.items()}
        given = {one: tuple(np.where(np.isinf(part), np.nan, part) for part in pair) for one, pair in given.items()}
        inner = {(Argument("s"), Argument("s:product")): (slopes(rng, 1, 2, 81, 162), slopes(rng, 1, 1, 1, 162))}
        for one in (dataclasses.replace(proof, lines=given), dataclasses.replace(proof, plain={
                key: (low[:1], high[:1]) for key, (low, high) in given.items()}, inner=inner)):
            bounds = case_bounds(network, case, one, places)
            assert not bounds[0] > y[:, 0].min() + 1e-10 and not bounds[1] > (y[:, 1] - y[:, 0]).min() + 1e-10
            assert np.isfinite(bounds).all() or scale > 1e300
    known = derive(network, [((middle - radius)[:, None], (middle + radius)[:, None])], Slopes())
    names = {step.name: place for place, step in enumerate(network.steps)}
    for name, found in (("s", s), ("p", log if logarithm else np.exp(log))):
        low, high = (end[:, 0] for end in known.ends[names[name]])
        assert (low <= found.reshape(len(x), -1).min(axis=0) + 1e-12).all()
        assert (high >= found.reshape(len(x), -1).max(axis=0) - 1e-12).all()


def test_entries_of_a_softmax_over_many_may_be_bounded_where_a_clause_fails() -> None:
    """These are the intervals that its differences are made of, which follow; they hold at samples where the clause fails."""
    radius, rng, content = 0.003, np.random.default_rng(1), wide_softmax(3, 9)
    network, held, middle = read_network(content), stored(content), rng.normal(size=18)
    x = middle + radius * rng.uniform(-1, 1, (1000, 18))
    w = x.reshape(-1, 9, 2)
    s = (w @ held["q"] @ w.swapaxes(1, 2)).reshape(len(x), -1)
    share = np.exp(s.reshape(-1, 9, 9) - s.reshape(-1, 9, 9).max(axis=2, keepdims=True))
    y = (share / share.sum(axis=2, keepdims=True) @ (w @ held["v"])).mean(axis=1)
    level = float(np.quantile(y[:, 0], 0.01))
    fails = y[:, 0] <= level
    query, places = parse_vnnlib(query_text(middle - radius, middle + radius, 2, f"(<= Y_0 {level!r})")), places_of(network)
    case = query.cases[0]
    scores = Assumption(np.arange(81), 10 ** rng.uniform(-2, 1, (1, 2, 81, 1)), {})
    proof = dataclasses.replace(proof_of(network, case, [Leaf(0)]), assumed={Argument("s"): scores})
    whole = (np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
    plain, known = (derive_frames(network, batch_of(network, [case], [one]), places, whole, False)
                    for one in (dataclasses.replace(proof, assumed={}), proof))
    assert not bool(known.empty[0]) and not case_bounds(network, case, proof, places)[0] > 0
    names = {step.name: place for place, step in enumerate(network.steps)}
    for name, found in (("s", s), ("p:log", np.log(share / share.sum(axis=2, keepdims=True)).reshape(len(x), -1))):
        low, high = (end[:, 0] for end in known.ends[names[name]])
        assert ((low - 1e-12 <= found) & (found <= high + 1e-12))[fails].all()
        assert (high - low < (plain.ends[names[name]][1] - plain.ends[names[name]][0])[:, 0]).any()


def test_a_name_that_two_steps_have_is_that_of_no_interval() -> None:
    """A file may call a factor as the checker calls a step of its own: slopes for that one are not taken for the factor."""
    content = attention(0, 1.0)
    held = onnx.ModelProto.FromString(content)
    for node in held.graph.node:
        node.input[:], node.output[:] = ([{"a": "l:logsumexp"}.get(name, name) for name in names] for names in
                                         (node.input, node.output))
    network, x = read_network(held.SerializeToString()), np.random.default_rng(0).normal(size=12)
    places, query = places_of(network), parse_vnnlib(query_text(x - 0.1, x + 0.1, 2, "(<= Y_0 -9)"))
    count, size = places.size(Argument("l:logsumexp")), places.size(Argument("p:exp"))
    proof = proof_of(network, query.cases[0], [Leaf(0)])
    few = {(Argument("l:logsumexp"), Argument("p:exp")): (np.zeros((1, 2, count, size)), np.zeros((1, 2, count, size)))}
    assert None in places.goals
    bounds = [case_bounds(network, query.cases[0], dataclasses.replace(proof, inner=inner, thorough=True), places)
              for inner in ({}, few)]
    assert np.isfinite(bounds[0]).all() and np.isfinite(bounds[1]).all()


def stored(content: bytes) -> dict[str, np.ndarray]:
    """The weights of a file."""
    return {one.name: numpy_helper.to_array(one) for one in onnx.ModelProto.FromString(content).graph.initializer}


def test_the_runtime_agrees() -> None:
    content = attention(0, 1.0)
    x = np.random.default_rng(0).normal(size=12)
    np.testing.assert_allclose(replay(content, x), run(stored(content), x)["y"].reshape(-1), rtol=1e-9)


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_sparse_and_dense_matrices_give_the_same_bounds(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all matrices dense no entry is ever left out, with all of them sparse most are."""
    for content, size in ((attention(1, 0.5), 12), (image_network(1), 50)):
        middle = np.random.default_rng(1).normal(size=size)
        query = parse_vnnlib(query_text(middle - 0.05, middle + 0.05, 2, "(or (<= Y_0 0) (<= (- Y_1 Y_0) 0))"))
        case, found = query.cases[0], []
        for dense in (network_module.DENSE, share):
            monkeypatch.setattr(network_module, "DENSE", dense)
            network = read_network(content)
            found.append(case_bounds(network, case, proof_of(network, case, [Leaf(0), Leaf(1)]), places_of(network)))
        np.testing.assert_allclose(found[0], found[1], rtol=1e-9, atol=1e-9)
