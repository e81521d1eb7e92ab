"""Questions written as VNN-LIB: read back, they have the same clauses and a box that holds the set and is hardly wider."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import boundlab as bl
from boundlab.question.exact import Atom, widened
from boundlab.question.vnnlib import parse_vnnlib, write_vnnlib
from boundlab.verify.saved import questions

INPUTS, OUTPUTS = 3, 3
FLOATS = st.floats(-4, 4, width=32)
RADII = st.one_of(st.floats(0, 2), st.floats(0, 2, width=32), st.sampled_from([0.0, 1e-3, 0.1, 8 / 255, 2.0**-40]))


@st.composite
def balls(draw):
    """A ball of the norm inf around one input, in float32 or float64, with or without a box of valid values."""
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    center = torch.tensor([draw(st.lists(FLOATS, min_size=INPUTS, max_size=INPUTS))], dtype=dtype)
    eps = draw(st.one_of(RADII, RADII.map(lambda value: torch.tensor([value], dtype=torch.float64))))
    return bl.LpBall(center, eps, clip=draw(st.sampled_from([None, (-4.0, 4.0), (-4.0, 5.3)])))


@st.composite
def specifications(draw, dtype):
    """Up to four rows in up to four clauses, with offsets; a row may be all zeros."""
    count = draw(st.integers(1, 4))
    numbers = st.one_of(FLOATS, st.just(0.0), st.sampled_from([1.0, -1.0]))
    rows = [draw(st.lists(numbers, min_size=OUTPUTS, max_size=OUTPUTS)) for _ in range(count)]
    clauses = sorted(draw(st.integers(0, count - 1)) for _ in range(count))
    ranks = {clause: rank for rank, clause in enumerate(sorted(set(clauses)))}
    return bl.Specification(torch.tensor([rows], dtype=dtype), torch.tensor([draw(st.lists(
        numbers, min_size=count, max_size=count))], dtype=dtype), torch.tensor([ranks[clause] for clause in clauses]))


def model(dtype, seed=0):
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(INPUTS, 6), torch.nn.ReLU(), torch.nn.Linear(6, OUTPUTS)).to(dtype)
    return bl.capture(net, torch.zeros(2, INPUTS, dtype=dtype)).detached()


MODELS = {dtype: model(dtype) for dtype in (torch.float32, torch.float64)}


def ends_of(ball):
    """The exact ends of a ball's box, by rational arithmetic from the numbers that were given."""
    given = Fraction(float(ball.eps)) if not isinstance(ball.eps, torch.Tensor) else Fraction(float(ball.eps[0]))
    low, high = ball.clip or (-math.inf, math.inf)
    for value in map(float, ball.center[0]):
        yield (max(Fraction(value) - given, low) if math.isfinite(low) else Fraction(value) - given,
               min(Fraction(value) + given, high) if math.isfinite(high) else Fraction(value) + given)


@settings(max_examples=80, deadline=None)
@given(balls(), st.data())
def test_what_is_written_is_read_back(ball, data):
    dtype = ball.center.dtype
    spec = data.draw(specifications(dtype))
    query, = questions(MODELS[dtype], ball, spec)
    text = write_vnnlib(widened(query))
    again = parse_vnnlib(text)
    case, = again.cases
    assert (again.inputs, again.outputs) == (INPUTS, OUTPUTS) and again.plain and not case.relations
    assert {frozenset(conjunct) for conjunct in case.unsafe} == {
        frozenset(map(normal, conjunct)) for conjunct in query.cases[0].unsafe}
    assert not case.lower.excess.any() and not case.upper.excess.any()
    for (low, high), lower, upper in zip(ends_of(ball), case.lower.nearest, case.upper.nearest, strict=True):
        step = 2 * np.spacing(max(abs(lower), abs(upper))) + (np.finfo(np.float32).eps * 8 if dtype is torch.float32 else 0)
        assert Fraction(lower) <= low and high <= Fraction(upper), "outward"
        assert low - Fraction(lower) <= Fraction(step) and Fraction(upper) - high <= Fraction(step), "hardly wider"
    for symbol, ends in ((">=", case.lower), ("<=", case.upper)):  # what other tools make of the text, and exact ones
        assert [float(word) for word in numbers(text, symbol)] == ends.nearest.tolist()
        assert [Fraction(word) for word in numbers(text, symbol)] == list(map(Fraction, ends.nearest.tolist()))


def normal(atom):
    """An atom as the reader writes it: variables in order, none with the factor 0."""
    return Atom(tuple(sorted((index, weight) for index, weight in atom.terms if weight)), atom.constant, atom.strict)


def numbers(text, symbol):
    """The bounds of inputs that have this symbol, in the order of the text."""
    lines = [line.strip("()").split() for line in text.splitlines() if line.startswith(f"(assert ({symbol} X_")]
    return [line[-1] for line in lines]


@settings(max_examples=40, deadline=None)
@given(balls(), st.data())
def test_outputs_are_unsafe_where_the_specification_does_not_hold(ball, data):
    dtype = ball.center.dtype
    spec = data.draw(specifications(dtype))
    query, = questions(MODELS[dtype], ball, spec)
    case, = parse_vnnlib(write_vnnlib(widened(query))).cases
    for y in data.draw(st.lists(st.lists(st.integers(-3, 3), min_size=OUTPUTS, max_size=OUTPUTS), min_size=1, max_size=4)):
        rows = [[Fraction(float(number)) for number in row] for row in spec.rows[0]]
        margins = [sum(weight * value for weight, value in zip(row, y, strict=True)) + Fraction(float(offset))
                   for row, offset in zip(rows, spec.offset[0], strict=True)]
        safe = all(any(margin > 0 for margin, own in zip(margins, spec.clause.tolist(), strict=True) if own == clause)
                   for clause in range(spec.clauses))
        assert case.violated(np.array(y, float), np.zeros(INPUTS)) == (not safe)


@pytest.mark.parametrize("seed", range(6))
def test_the_verdict_of_the_file_is_that_of_the_question(tmp_path, seed):
    net = model(torch.float32, seed)
    x = torch.rand(1, INPUTS, generator=torch.Generator().manual_seed(seed))
    ball, spec = bl.LpBall(x, 0.02 * 3**(seed % 3), clip=(0, 1)), bl.margins(bl.evaluate(net, x).argmax(1), OUTPUTS)
    bl.save_onnx(net, tmp_path / "net.onnx")
    bl.save_vnnlib(net, ball, spec, tmp_path / "q.vnnlib")
    result, = bl.verify(net, ball, spec)
    other, = bl.verify(bl.load_original(tmp_path / "net.onnx"), parse_vnnlib(tmp_path / "q.vnnlib"))
    assert result.verdict.decided and other.verdict is result.verdict


def test_a_box_and_a_query_are_written_as_they_are(tmp_path):
    net, spec = MODELS[torch.float64], bl.margins([0], OUTPUTS, torch.float64)
    lower, upper = torch.tensor([[0.1, -1.0, 0.0]], dtype=torch.float64), torch.tensor([[0.3, 1.0, 0.0]], dtype=torch.float64)
    bl.save_vnnlib(net, bl.Box(lower, upper), spec, tmp_path / "box.vnnlib")
    case, = parse_vnnlib(tmp_path / "box.vnnlib").cases
    assert np.array_equal(case.lower.nearest, lower[0]) and np.array_equal(case.upper.nearest, upper[0])
    query = bl.spec(net, lambda x, y: (y[0] > y[1]) & (y[2] <= x[0]), box=(0, 1))
    bl.save_vnnlib(net, query, None, tmp_path / "query.vnnlib")
    assert parse_vnnlib(tmp_path / "query.vnnlib").cases[0].unsafe == query.cases[0].unsafe


@pytest.mark.parametrize(("call", "words"), [
    (lambda net, ball, spec: (net, bl.LpBall(ball.center, 0.1, p=2), spec), "ball of norm 2 is none; use norm inf"),
    (lambda net, ball, spec: (net, ball, None), "give a specification"),
    (lambda net, ball, spec: (net, bl.LpBall(ball.center.expand(4, -1), 0.1), spec), "these are 4"),
    (lambda net, ball, spec: (net, bl.spec(net, lambda x, y: y > 0, box=(0, 1)), spec), "leave out `spec`"),
    (lambda net, ball, spec: (net, bl.L0Ball(ball.center, 1, 0.0, 1.0), spec), "no exact form"),
])
def test_what_vnnlib_cannot_state_is_one_sentence(tmp_path, call, words):
    arguments = call(MODELS[torch.float32], bl.LpBall(torch.zeros(1, INPUTS), 0.1), bl.margins([0], OUTPUTS))
    with pytest.raises(bl.BoundlabError, match=words):
        bl.save_vnnlib(*arguments, tmp_path / "q.vnnlib")
    assert not (tmp_path / "q.vnnlib").exists()
