"""VERIFIED counts rounding: exact questions, and proofs that the checker derives again."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import boundlab as bl
from boundlab.question.exact import Atom, Case, Nested, Query, ends_of
from boundlab.verify.exactly import difference, ends_of_region, queries_of

NUMBERS = st.floats(-1e6, 1e6, width=32) | st.floats(-1e3, 1e3) | st.sampled_from([0.0, 0.1, 1e-30, 1 / 255])
ONE = torch.arange(1)


def fractions(pair):
    """What is known of numbers (1, d): the nearest float, and on which side of it they lie."""
    return [(Fraction(near), int(side)) for near, side in zip(pair[0][0].tolist(), pair[1][0].tolist(), strict=True)]


def same(found, number):
    """Whether a pair describes an exact number."""
    near, side = found
    return near == Fraction(float(number)) and side == (number > near) - (number < near)


@given(NUMBERS, NUMBERS)
def test_differences_know_their_rounding(a, b):
    found, = fractions(difference(np.array([[a]]), np.array([[b]])))
    assert same(found, Fraction(a) - Fraction(b))


@given(NUMBERS, st.floats(0, 100), st.sampled_from([None, (0.0, 1.0), (0.1, 0.7), (-math.inf, 0.3)]),
       st.sampled_from([torch.float32, torch.float64]))
def test_balls_are_exact(center, eps, clip, dtype):
    x = torch.tensor([[center]], dtype=dtype)
    try:
        ball = bl.LpBall(x, eps, clip=clip)
    except bl.SpecError:  # it does not reach the limits
        return
    radius = max(Fraction(eps), Fraction(float(ball.radius)))
    ends = [Fraction(float(x)) - radius, Fraction(float(x)) + radius]
    if clip is not None:
        low, high = (torch.tensor(limit, dtype=dtype).item() for limit in clip)
        low, high = min(low, clip[0]), max(high, clip[1])
        ends = [end if low < end else Fraction(low) for end in ends]
        ends = [end if end < high else Fraction(high) for end in ends]
    lower, upper = (fractions(pair)[0] for pair in ends_of_region(ball, ONE))
    assert same(lower, ends[0]) and same(upper, ends[1])


def setting(dtype=torch.float32):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)).to(dtype)
    x = torch.randn(6, 4, dtype=dtype)
    with torch.no_grad():
        spec = bl.margins(module(x).argmax(1), 3, dtype=dtype)
    return bl.capture(module, x).detached(), x, spec


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_verified_by_default_is_sound(dtype):
    model, x, spec = setting(dtype)
    for sets in (bl.LpBall(x, 0.02), bl.LpBall(x, 0.02, clip=(-3, 3)), bl.Box(x - 0.02, x + 0.02), bl.LpBall(x, 0.03, 2.0),
                 bl.LpBall(x, 0.05, 1.0, clip=(-3, 3))):
        results = bl.verify(model, sets, spec, timeout=60)
        assert {result.verdict for result in results} <= {bl.Verdict.VERIFIED, bl.Verdict.FALSIFIED}
        proven = [result for result in results if result.verdict is bl.Verdict.VERIFIED]
        assert len(proven) > 2 and {result.rigour for result in proven} == {bl.Rigour.SOUND}


def test_queries_ask_what_specifications_ask():
    model, x, spec = setting(torch.float64)
    either = bl.Specification(spec.rows, spec.offset + 0.1, torch.tensor([0, 0]))
    ball = bl.LpBall(x, 0.3)
    for question in (spec, either):
        queries = queries_of(model, {model.graph.inputs[0].name: ball}, question, torch.arange(6))
        points = ball.sample(200, torch.Generator().manual_seed(1))
        for problem, query in enumerate(queries):
            y = bl.evaluate(model, points[:, problem])
            one = torch.tensor([problem])
            worst = question.take(one).worst(question.take(one).values(y))
            for point, output, margin in zip(points[:, problem].numpy(), y.numpy(), worst.tolist(), strict=True):
                assert query.accepts(point, output, np.float64) == (margin <= 0)


def test_sets_without_an_exact_form_are_said_to_hold_in_floating_point_only():
    model, x, spec = setting()
    weights = bl.weight_ball(model, "*", eps=1e-4)
    result, = bl.verify(model, {"input": x[:1], **weights}, spec.take(ONE))
    assert result.verdict is bl.Verdict.FLOAT_ONLY and "rounding is not accounted for" in result.notes[-1]
    assert not result.verdict.decided


def test_an_operator_that_the_checker_does_not_know_is_named():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 3), nn.Softplus(), nn.Linear(3, 1))
    model, x = bl.capture(module, torch.zeros(1, 2)).detached(), torch.zeros(1, 2)
    spec = bl.at_least(torch.ones(1, 1, 1), torch.full((1, 1), 100.0))
    result, = bl.verify(model, bl.LpBall(x, 0.1), spec)
    assert result.verdict is bl.Verdict.FLOAT_ONLY and "softplus" in result.notes[-1]


def test_rounding_decides_a_tie():
    """y = x + 2^-30 - x is 2^-30, and 0 in float32: it is proven only as a function of real numbers, and there only above 0."""
    class Lost(nn.Module):
        def forward(self, x):
            return (x + 2.0**-30) - x

    model, x = bl.capture(Lost(), torch.ones(1, 1)).detached(), torch.ones(1, 1)
    for offset, holds in ((0.0, True), (-(2.0**-31), True), (-(2.0**-30), False)):
        spec = bl.at_least(torch.ones(1, 1, 1), torch.tensor([[offset]]))
        result, = bl.verify(model.to(torch.float64), bl.Box(x.double(), x.double() + 1), spec_of(spec), timeout=1)
        assert (result.verdict is bl.Verdict.VERIFIED) == holds


def spec_of(spec):
    return bl.Specification(spec.rows.double(), spec.offset.double(), spec.clause)


def test_margins_below_rounding_are_not_proven_of_what_runs_in_float32():
    model, x, spec = setting()
    results = bl.verify(model, bl.LpBall(x, 0.02), spec, timeout=60, rigour=bl.Rigour.FLOAT32)
    proven = [place for place, result in enumerate(results) if result.verdict is bl.Verdict.VERIFIED]
    assert len(proven) > 2 and {results[place].rigour for place in proven} == {bl.Rigour.FLOAT32}
    one = torch.tensor(proven[:1])
    exact = bl.bound(model.to(torch.float64), bl.Box(x[one].double(), x[one].double()), spec=spec_of(spec.take(one)))
    point, row = bl.Box(x[one], x[one]), spec.rows[one[:1]][:, :1]
    for slack, proven in ((1e-3, True), (1e-9, False)):
        asked = bl.at_least(row.double(), slack - exact.lower[:, :1])
        wide = bl.verify(model.to(torch.float64), bl.Box(x[one].double(), x[one].double()), asked, timeout=5)[0]
        assert wide.verdict is bl.Verdict.VERIFIED
        single = bl.Specification(asked.rows.float(), asked.offset.float(), asked.clause)
        found, = bl.verify(model, point, single, timeout=5, rigour=bl.Rigour.FLOAT32)
        assert (found.verdict is bl.Verdict.VERIFIED) == proven


def test_balls_in_the_largest_norm_are_halved():
    model, x, spec = setting()
    ball = bl.LpBall(x, 0.3)
    box = bl.Box(ball.box().lower, ball.box().upper)
    found, same = (bl.verify(model, sets, spec, stages=(bl.Bisection(),), timeout=60) for sets in (ball, box))
    assert [one.verdict for one in found] == [one.verdict for one in same]
    assert any("boxes" in one.method and one.verdict is bl.Verdict.VERIFIED for one in found)


# -- what an adversary found ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("between", [(), (nn.ReLU(),)], ids=["folded", "alone"])
def test_how_a_computed_constant_was_rounded_is_not_known_in_float32(between):
    """Means that are large beside the result: torch's own output in float32 is not the graph's."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(3).eval()
    with torch.no_grad():
        norm.running_mean.copy_(torch.tensor([50.0, 400.0, 1000.0]))
        norm.bias.copy_(norm.running_mean)
    module, x = nn.Sequential(nn.Linear(2, 3), *between, norm).eval(), torch.randn(4, 2)
    model, spec = bl.capture(module, x).detached(), bl.at_least(torch.ones(1, 1, 3), torch.full((1, 1), 1e6))
    result, = bl.verify(model, bl.LpBall(x[:1], 0.01), spec, rigour=bl.Rigour.FLOAT32)
    assert result.verdict is bl.Verdict.FLOAT_ONLY and "how node" in result.notes[-1]
    assert bl.verify(model, bl.LpBall(x[:1], 0.01), spec)[0].rigour is bl.Rigour.SOUND


@pytest.mark.parametrize("eps", [0.7, torch.tensor(0.7, dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)])
def test_a_radius_of_another_type_is_not_rounded_away(eps):
    """0.7 in float32 is 0.69999999; the claim fails at 0.7."""
    model = bl.capture(nn.ReLU(), torch.zeros(1, 1)).detached()
    spec = bl.at_least(torch.full((1, 1, 1), -21.0), torch.full((1, 1), 14.699999809))
    zero = torch.zeros(1, 1, dtype=torch.float64)
    for ball in (bl.LpBall(torch.zeros(1, 1), eps), bl.LpBall(torch.zeros(1, 1), 2.0, clip=(zero, zero + 0.7))):
        assert bl.verify(model, ball, spec)[0].verdict is bl.Verdict.FLOAT_ONLY


def test_terms_of_one_value_are_added_exactly():
    class Large(nn.Module):
        def forward(self, x):
            return torch.cat([x * 2.0**30, torch.relu(x) * 2.0**30], 1)

    model = bl.capture(Large(), torch.zeros(1, 1)).detached()
    atom = Atom(((0, Fraction(-1)), (0, Fraction(-1, 2**25)), (1, Fraction(1))), Fraction(1, 2))
    assert atom.holds([2.0**30, 2.0**30])
    one = ends_of([Fraction(1)])
    query = Query(1, 2, (Case(one, one, ((Nested(False, (atom, atom)),),)),))
    assert bl.verify(model, query)[0].verdict is not bl.Verdict.VERIFIED


def test_a_question_beyond_the_checker_spoils_no_other():
    """The order of a softmax's outputs can be derived, and nothing else of them."""
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(3, 3), nn.Softmax(1)), torch.randn(1, 3).expand(2, 3)
    model, ball = bl.capture(module, torch.zeros(1, 3)).detached(), bl.LpBall(x, 1e-3)
    label = int(module(x).argmax(1)[0])
    rows = bl.margins([label, label], 3).rows
    spec = bl.Specification(rows, torch.tensor([[0.0, 0.0], [0.01, 0.01]]), torch.tensor([0, 1]))
    first, second = bl.verify(model, ball, spec)
    assert first.rigour is bl.Rigour.SOUND and second.verdict is bl.Verdict.FLOAT_ONLY and "softmax" in second.notes[-1]


def test_specifications_and_queries_that_say_nothing_are_refused():
    model, x, _ = setting()
    for offset in (math.inf, math.nan):
        spec = bl.at_least(torch.ones(1, 1, 3), torch.full((1, 1), offset))
        found, = bl.verify(model, bl.LpBall(x[:1], 0.01), spec, timeout=1)
        assert found.verdict is not bl.Verdict.VERIFIED
    with pytest.raises(bl.SpecError, match="floating"):
        bl.at_least(torch.ones(1, 1, 3), torch.zeros(1, 1, dtype=torch.int64))
    end = ends_of([Fraction(0)] * 4)
    with pytest.raises(bl.SpecError, match="no case"):
        bl.verify(model, Query(4, 3, ()))
    for unsafe in ((), ((),), ((Atom(((9, Fraction(1)),), Fraction(0)),),), ((Atom(((-1, Fraction(1)),), Fraction(0)),),)):
        with pytest.raises(bl.SpecError, match="case 0"):
            Query(4, 3, (Case(end, end, unsafe),))
