"""Log-sum-exp: lines of any slopes enclose it, those of the hull touch it, and the range of log softmax is exact."""

from __future__ import annotations

import dataclasses
from decimal import Decimal, localcontext

import numpy as np
import pytest
from onnx import helper

from boundlab.certificates.checker import case_bounds, check_proofs
from boundlab.certificates.functions import lines_of
from boundlab.certificates.leaves import places_of
from boundlab.certificates.logsumexp import LogShares, LogSumExp
from boundlab.certificates.reading import read_network
from boundlab.certificates.rounding import UNIT
from boundlab.question.vnnlib import parse_vnnlib
from tests.certificates.models import model, query_text
from tests.certificates.search import Leaf, proof_of
from tests.certificates.test_attention import attention, run, stored

COUNT = 400


def logsumexp(x: list[np.ndarray]) -> np.ndarray:
    top = np.max(x, axis=0)
    return top + np.log(np.sum(np.exp(np.array(x) - top), axis=0))


def boxes(rng: np.random.Generator, arity: int, width: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Intervals (COUNT, 1), some of no width."""
    middle = rng.normal(size=(arity, COUNT, 1)) * rng.choice([0.1, 1, 30], size=(1, COUNT, 1))
    radius = width * rng.uniform(0, 1, size=(arity, COUNT, 1)) * rng.choice([0, 1, 1], size=(arity, COUNT, 1))
    return [(m - r, m + r) for m, r in zip(middle, radius, strict=True)]


@pytest.mark.parametrize("arity, width", [(2, 1e-6), (2, 1.0), (5, 0.1), (5, 20.0), (17, 3.0)])
def test_lines_of_any_slopes_enclose_it(arity: int, width: float) -> None:
    rng, function = np.random.default_rng(arity), LogSumExp(arity)
    ends = boxes(rng, arity, width)
    share = rng.uniform(0, 1, (arity, COUNT, 300))
    share[..., :100] = np.round(share[..., :100])
    x = [low + (high - low) * part for (low, high), part in zip(ends, share, strict=True)]
    y = logsumexp(x)
    slopes = rng.dirichlet(np.full(arity, 0.5), size=COUNT).T[..., None]
    scale = rng.choice([0, 1e-3, 1, 1e200], size=(arity, COUNT, 1), p=[0.3, 0.2, 0.49, 0.01])
    wild = scale * rng.normal(size=scale.shape)
    for given in ([None] * arity, [(one, one) for one in slopes], [(one, one.copy()) for one in wild]):
        with np.errstate(all="ignore"):
            lines = lines_of(function, ends, given)
        low, high = (sum(m * part for m, part in zip(side, x, strict=True)) for side in (lines.lower, lines.upper))
        size = 1 + np.abs(y) + sum(np.abs(m * part) for side in (lines.lower, lines.upper)
                                   for m, part in zip(side, x, strict=True))
        room = 8 * arity * UNIT * size
        assert (lines.low + low <= y + room).all() and (y <= lines.high + high + room).all()
    with np.errstate(all="ignore"):
        lines, (least, most) = lines_of(function, ends, [None] * arity), function.values(ends)
    middle = [low / 2 + high / 2 for low, high in ends]
    below = lines.low + sum(m * part for m, part in zip(lines.lower, middle, strict=True))
    above = lines.high + sum(m * part for m, part in zip(lines.upper, middle, strict=True))
    room = 1e-12 * (1 + sum(np.abs(part) for part in middle)) * arity
    loose = sum(high - low for low, high in ends)
    assert (logsumexp(middle) - below < room).all() and (above - below < room + loose).all()
    corners = [logsumexp([pair[side] for pair in ends]) for side in range(2)]
    assert (least <= corners[0]).all() and (corners[0] - least < room).all()
    assert (most >= corners[1]).all() and (most - corners[1] < room).all()


def test_planes_hold_to_the_last_digit() -> None:
    """Against numbers of 60 digits, at corners and at the point where the plane below touches."""
    rng, arity = np.random.default_rng(0), 3
    ends, function = boxes(rng, arity, 1.0), LogSumExp(arity)
    with np.errstate(all="ignore"):
        lines, (least, most) = lines_of(function, ends, [None] * arity), function.values(ends)
    with localcontext() as context:
        context.prec = 60
        for k in range(0, COUNT, 8):
            own = [[float(end[k, 0]) for end in pair] for pair in ends]
            middle = [(low + high) / 2 for low, high in own]
            for x in (middle, *([pair[(n >> i) & 1] for i, pair in enumerate(own)] for n in range(2**arity))):
                exact = sum(Decimal(one).exp() for one in x).ln()
                low, high = (Decimal(float(rest[k, 0])) + sum(Decimal(float(m[k, 0])) * Decimal(one) for m, one in
                             zip(side, x, strict=True)) for rest, side in ((lines.low, lines.lower), (lines.high, lines.upper)))
                assert low <= exact <= high
                assert Decimal(float(least[k, 0])) <= exact <= Decimal(float(most[k, 0]))


def test_slopes_that_are_no_numbers_prove_nothing() -> None:
    ends = [(np.array([[-1.0]]), np.array([[np.inf]])), (np.zeros((1, 1)), np.ones((1, 1)))]
    with np.errstate(all="ignore"):
        lines = lines_of(LogSumExp(2), ends, [None, None])
        low, high = LogSumExp(2).values(ends)
    assert np.isnan(lines.high).all() and np.isnan(high).all()
    assert not (low > np.log(np.exp(-1) + 1)).any()


@pytest.mark.parametrize("count, scale", [(2, 1.0), (5, 30.0), (9, 1e-3)])
def test_the_range_of_log_softmax_is_exact(count: int, scale: float) -> None:
    """Each end is enclosed, and attained at a corner to within rounding, against numbers of 60 digits."""
    rng = np.random.default_rng(count)
    low = rng.normal(size=(4 * count, 3)) * 3 * scale
    high = low + scale * rng.exponential(size=low.shape)
    members = rng.permutation(4 * count).reshape(4, count)
    with np.errstate(all="ignore"):
        least, most = LogShares(members).within((low, high))
    with localcontext() as context:
        context.prec = 60
        for group in members:
            for j in group[:3]:
                for end, own, other in ((least, low, high), (most, high, low)):
                    total = sum(Decimal(float((own if k == j else other)[k, 0])).exp() for k in group)
                    exact, found = Decimal(float(own[j, 0])) - total.ln(), Decimal(float(end[j, 0]))
                    assert (found <= exact if end is least else found >= exact)
                    assert abs(found - exact) < Decimal("1e-10") * (1 + Decimal(scale))


def test_where_exponentials_underflow_nothing_is_said_of_the_range() -> None:
    """Next to an entry of 0 the others at -800 have no exponentials, and so no share of theirs may be left out."""
    low, high = np.array([[-790.0], [-800.0], [-801.0]]), np.array([[0.0], [-800.0], [-801.0]])
    with np.errstate(all="ignore"):
        least, most = LogShares(np.array([[0, 1, 2]])).within((low, high))
    exact = -np.logaddexp(0, np.logaddexp(-800, -801) + 790)
    assert not least[0, 0] > exact and not most[0, 0] < 0


def test_whatever_the_slopes_what_is_false_is_not_accepted() -> None:
    """A threshold that samples refute by a hair, and one that the checker's own slopes prove: mutations lose, and never win."""
    rng, content, accepted = np.random.default_rng(5), attention(5, 1.0), 0
    network, middle, radius = read_network(content), rng.normal(size=12), 0.02
    places = places_of(network)
    y = run(stored(content), middle + radius * rng.choice([-1, 1], (4000, 12)))["y"][:, 0]
    softmax = [one for one in places.numbers if one.step.endswith((":logsumexp", ":exp")) and places.bends(one)]
    for level, true in ((y.min() + 1e-7, False), (y.min() - 0.2, True)):
        case = parse_vnnlib(query_text(middle - radius, middle + radius, 2, f"(<= Y_0 {float(level)!r})")).cases[0]
        honest = proof_of(network, case, [Leaf(0)])
        assert (case_bounds(network, case, honest, places)[0] > 0) == true
        for scale in (1e-3, 1.0, 100.0, 1e307):
            lines = {one: tuple(scale * rng.normal(size=(1, places.size(one))) for _ in range(2)) for one in softmax}
            found = case_bounds(network, case, dataclasses.replace(honest, lines=lines), places)[0]
            accepted += bool(found > 0)
            assert true or not found > 0
    assert accepted < 4


@pytest.mark.parametrize("shift", [5.0, -5.0])
def test_the_range_of_log_shares_is_not_that_of_what_is_added_to_them(shift):
    """relu(log softmax(x) + c) summed up: a claim below its true values is refused, and one above them is not."""
    held = {"c": np.full(2, shift), "w": np.array([[1.0], [1.0]])}
    nodes = [helper.make_node("LogSoftmax", ["x"], ["l"], axis=1), helper.make_node("Add", ["l", "c"], ["a"]),
             helper.make_node("Relu", ["a"], ["r"]), helper.make_node("MatMul", ["r", "w"], ["y"])]
    network = read_network(model(nodes, (1, 2), held, dtype=np.float64))
    x = np.linspace(-0.1, 0.1, 201)[:, None] * np.array([1.0, -1.0])
    largest = np.maximum(x - np.log(np.exp(x).sum(1, keepdims=True)) + shift, 0).sum(1).max()
    for claim, true in ((largest - 0.05, False), (largest + 0.3, True)):
        query = parse_vnnlib(query_text(np.full(2, -0.1), np.full(2, 0.1), 1, f"(>= Y_0 {claim})"))
        assert check_proofs(network, query, [proof_of(network, query.cases[0], [Leaf(0)])]).accepted is true
