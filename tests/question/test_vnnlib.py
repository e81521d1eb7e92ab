"""VNN-LIB: what a text means, exactly; round trips; refusals that name line and symbol."""

from __future__ import annotations

import functools
import gzip
import operator
import os
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import boundlab as bl
from boundlab.question.exact import Case, Ends, Query, ends_of
from boundlab.question.vnnlib import parse_vnnlib, write_vnnlib
from boundlab.verify.query import problems

COMPARE = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "=": operator.eq}


def declared(inputs: int, outputs: int) -> str:
    return "".join(f"(declare-const {letter}_{i} Real)\n" for letter, n in (("X", inputs), ("Y", outputs)) for i in range(n))


def boxed(inputs: int, low: str = "-1", high: str = "1") -> str:
    return "".join(f"(assert (>= X_{i} {low}))\n(assert (<= X_{i} {high}))\n" for i in range(inputs))


@functools.cache
def identity(size: int, dtype: torch.dtype = torch.float32) -> bl.Model:
    layer = nn.Linear(size, size, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(size))
        layer.bias.zero_()
    return bl.capture(layer, torch.zeros(2, size, dtype=dtype))


def test_acasxu_style_boxes_times_output_disjunction() -> None:
    query = parse_vnnlib(declared(2, 3) + """
(assert (or (and (<= X_0 0.5) (>= X_0 0.25) (<= X_1 1) (>= X_1 -1))
            (and (<= X_0 -0.25) (>= X_0 -0.5) (<= X_1 1) (>= X_1 -1))))
(assert (or (and (<= Y_1 Y_0)) (and (<= Y_2 Y_0))))
""")
    assert [case.lower.nearest.tolist() for case in query.cases] == [[0.25, -1.0], [-0.5, -1.0]]
    assert [len(case.unsafe) for case in query.cases] == [2, 2]
    batch, = problems(query, bl.capture(nn.Linear(2, 3), torch.zeros(2, 2)))
    assert batch.spec.rows.tolist() == [[[-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]]] * 2
    assert batch.spec.clause.tolist() == [0, 1]


def test_inputs_and_outputs_in_one_disjunct_share_their_box() -> None:
    query = parse_vnnlib(declared(1, 1) + """(assert (or
  (and (>= X_0 0.0) (<= X_0 1.0) (<= Y_0 0.5))
  (and (>= X_0 0.0) (<= X_0 1.0) (>= Y_0 2.5))
  (and (>= X_0 1.0) (<= X_0 2.0) (>= Y_0 3.5) (<= Y_0 4.5))))""")
    assert [[len(conjunct) for conjunct in case.unsafe] for case in query.cases] == [[1, 1], [2]]
    for x, y, unsafe in ((0.5, 0.5, True), (0.5, 1.0, False), (0.5, 2.5, True), (1.5, 0.5, False), (1.5, 4.0, True)):
        assert query.accepts(np.array([x]), np.array([y]), np.float32) is unsafe


@pytest.mark.parametrize("number", ["0.1", "0.800000011920929", "1e-3", "-7.25", "0.93341176", "16777217", "-0.0", "1e-46"])
def test_enclosing_box_holds_the_decimal_and_its_rounding(number: str) -> None:
    case, = parse_vnnlib(declared(1, 1) + f"(assert (<= X_0 {number}))(assert (>= X_0 {number}))(assert (<= Y_0 0))").cases
    for kind in (np.float32, np.float64):
        below, above = case.lower.outward(kind, -1)[0], case.upper.outward(kind, 1)[0]
        assert Fraction(float(below)) <= Fraction(Decimal(number)) <= Fraction(float(above))
        assert below <= kind(float(number)) <= above
        assert above <= np.nextafter(below, kind(np.inf)), "at most one float of width"
        if Fraction(float(kind(float(number)))) == Fraction(number):
            assert below == above


def test_rounding_twice_is_avoided() -> None:
    halfway, little = Fraction(1) + Fraction(1, 2**24), Fraction(1, 10**30)
    for number, expected in ((halfway + little, 1 + 2**-23), (halfway, 1.0), (halfway - little, 1.0)):
        assert ends_of([number]).rounded(np.float32)[0] == np.float32(expected)


def test_witness_may_lie_on_the_rounded_end_and_no_further() -> None:
    query = parse_vnnlib(declared(1, 1) + "(assert (<= X_0 0.1))(assert (>= X_0 0))(assert (>= Y_0 1))")
    end = np.float32(0.1)
    assert Fraction(float(end)) > Fraction("0.1")
    assert query.accepts(np.array([end]), np.array([1.0]), np.float32)
    assert not query.accepts(np.array([np.nextafter(end, np.float32(1))]), np.array([1.0]), np.float32)
    assert not query.accepts(np.array([end]), np.array([np.nextafter(1.0, 0.0)]), np.float32)
    assert not query.accepts(np.array([end]), np.array([np.nan]), np.float32)


@pytest.mark.parametrize("symbol, tie", [("<=", True), ("<", False)])
def test_strict_constraints_need_strict_witnesses_and_positive_margins(symbol: str, tie: bool) -> None:
    query = parse_vnnlib(declared(2, 2) + boxed(2) + f"(assert ({symbol} Y_0 Y_1))")
    assert query.accepts(np.zeros(2), np.ones(2), np.float32) is tie
    batch, = problems(query, identity(2))
    assert batch.spec.worst(batch.spec.values(torch.ones(1, 2))).item() == 0


def test_arithmetic_negation_and_number_first() -> None:
    query = parse_vnnlib(declared(1, 2) + """
(assert (<= (- 1) X_0)) (assert (not (> X_0 (/ 1 2))))
(assert (not (or (< (+ (* 2 Y_0) (- Y_1) 1) 0) (= Y_0 Y_1))))""")
    case, = query.cases
    assert (case.lower.nearest.tolist(), case.upper.nearest.tolist()) == ([-1.0], [0.5])
    for y in ((0.0, 0.0), (1.0, 0.0), (0.0, 2.0), (0.0, 1.0)):
        assert case.violated(np.array(y), np.zeros(1)) is (2 * y[0] - y[1] + 1 >= 0 and y[0] != y[1])


def test_outputs_may_be_related_to_inputs() -> None:
    query = parse_vnnlib(declared(2, 2) + boxed(2) + "(assert (or (< Y_0 (- X_0 1)) (>= (+ Y_1 X_0) 3)))")
    for x, y in (([0.0, 0.5], [-0.5, 0.0]), ([0.0, 0.5], [-0.75, 0.0]), ([1.0, 0.0], [0.0, 2.0]), ([0.5, 0.0], [0.0, 2.0])):
        unsafe = y[0] < x[0] - 1 or y[1] + x[0] >= 3
        assert query.accepts(np.array(x), np.array(y), np.float32) is unsafe
    assert parse_vnnlib(write_vnnlib(query)).cases[0].unsafe == query.cases[0].unsafe
    assert bl.verify(identity(2), query)[0].verdict is bl.Verdict.VERIFIED
    shifted = parse_vnnlib(declared(2, 2) + boxed(2) + "(assert (< Y_0 X_0))")
    tie, = bl.verify(identity(2), shifted, stages=(bl.CROWN(), bl.PGD()))
    assert tie.verdict is bl.Verdict.UNKNOWN, "the margin is 0 everywhere: neither proven nor broken"


def test_relations_among_inputs_bind_witnesses_and_not_the_box() -> None:
    query = parse_vnnlib(declared(2, 1) + boxed(2) + "(assert (<= (+ X_0 X_1) 0.5))\n(assert (< X_0 1))\n(assert (<= Y_0 0))")
    case, = query.cases
    assert case.upper.nearest.tolist() == [1.0, 1.0]
    for x, inside in (([0.25, 0.25], True), ([0.5, 0.25], False), ([1.0, -1.0], False)):
        assert query.accepts(np.array(x), np.array([0.0]), np.float32) is inside


@pytest.mark.parametrize("body, said", [
    ("(assert (<= (3.86 (- Y_0 Y_1)) 0))", "line 4: '3.86' stands where"),
    ("\n(assert (<= Y_7 0))", "'Y_7'"),
    ("(assert (<= Y_0 0)", "never closed"),
    ("(assert (<= Y_0 0)))", "closes nothing"),
    ("(assert (<= (* Y_0 Y_1) 0))", "not linear"),
    ("(assert (=> (<= Y_0 0) (<= Y_1 0)))", "line 4: '=>'"),
    ("(assert (<= Y_0 abc))", "'abc' is neither"),
    ("(frobnicate)", "no command"),
    ("(assert (<= Y_0))", "two arguments"),
    ("(assert (<= Y_0 1e999))", "too large"),
    ("(assert (>= X_0 3))\n(assert (<= Y_0 1))", "no point at all"),
])
def test_what_cannot_be_read_is_refused_with_its_place(body: str, said: str) -> None:
    with pytest.raises(bl.SpecError) as problem:
        parse_vnnlib(declared(1, 2).replace("\n", " ") + "; a comment (\n" + boxed(1) + body)
    assert said in str(problem.value)


def test_a_mixture_of_versions_is_refused_with_and_without_the_package() -> None:
    with pytest.raises(bl.BoundlabError, match=r"VNN-LIB 2\.0"):
        parse_vnnlib(declared(1, 2) + boxed(1) + "(vnnlib-version <2.0>)")


def test_a_missing_bound_and_a_wrong_network_are_refused() -> None:
    with pytest.raises(bl.SpecError, match="X_1 has no upper bound"):
        parse_vnnlib(declared(2, 1) + boxed(1) + "(assert (>= X_1 0))(assert (<= Y_0 0))")
    query = parse_vnnlib(declared(2, 1) + boxed(2) + "(assert (<= Y_0 0))")
    with pytest.raises(bl.SpecError, match="2 inputs and 1 outputs, the network has 3 and 3"):
        problems(query, identity(3))


def test_files_may_be_packed(tmp_path: Path) -> None:
    text = declared(1, 1) + boxed(1) + "(assert (<= Y_0 0))"
    plain, packed = tmp_path / "a.vnnlib", tmp_path / "a.vnnlib.gz"
    plain.write_text(text)
    packed.write_bytes(gzip.compress(text.encode()))
    assert equal(parse_vnnlib(plain), parse_vnnlib(text)) and equal(parse_vnnlib(str(packed)), parse_vnnlib(text))


def equal(one: Query, other: Query) -> bool:
    def key(case: Case) -> tuple[object, ...]:
        return (*(a.tolist() for ends in (case.lower, case.upper) for a in (ends.nearest, ends.excess)),
                {frozenset(conjunct) for conjunct in case.unsafe}, set(case.relations))

    sizes = (one.inputs, one.outputs) == (other.inputs, other.outputs)
    return sizes and [key(case) for case in one.cases] == [key(case) for case in other.cases]


numbers = st.decimals(min_value=-4, max_value=4, places=3).map(str) | st.sampled_from(["0", "1", "-1", "0.5"])


@st.composite
def formulas(draw: st.DrawFn, depth: int = 2) -> tuple[str, object]:
    """A random formula over Y_0 .. Y_2, as text and as a tree that the test evaluates by itself."""
    kind = draw(st.sampled_from(["and", "or", "not", *COMPARE])) if depth else draw(st.sampled_from(list(COMPARE)))
    if kind in COMPARE:
        first, second = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        weight, constant = draw(numbers), draw(numbers)
        text = f"({kind} (+ (* {weight} Y_{first}) {constant}) Y_{second})"
        return text, (kind, first, Fraction(weight), Fraction(constant), second)
    parts = draw(st.lists(formulas(depth - 1), min_size=1, max_size=1 if kind == "not" else 3))
    return f"({kind} {' '.join(text for text, _ in parts)})", (kind, [tree for _, tree in parts])


def true_at(tree: object, y: list[Fraction]) -> bool:
    kind, *rest = tree  # type: ignore[misc]
    if kind in COMPARE:
        first, weight, constant, second = rest
        return COMPARE[kind](weight * y[first] + constant, y[second])
    values = [true_at(part, y) for part in rest[0]]
    return not values[0] if kind == "not" else all(values) if kind == "and" else any(values)


points = st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0]), min_size=3, max_size=3)


@settings(max_examples=150, deadline=None)
@given(formulas(), st.lists(points, min_size=1, max_size=5))
def test_random_formulas_mean_what_they_say(formula: tuple[str, object], ys: list[list[float]]) -> None:
    text, tree = formula
    query = parse_vnnlib(declared(3, 3) + boxed(3) + f"(assert {text})")
    case, = query.cases
    again, = parse_vnnlib(write_vnnlib(query)).cases
    batch, = problems(query, identity(3, torch.float64))
    for y in ys:
        unsafe = true_at(tree, [Fraction(value) for value in y])
        assert case.violated(np.array(y), np.zeros(1)) is unsafe
        assert again.violated(np.array(y), np.zeros(1)) is unsafe
        safe = bool(batch.spec.worst(batch.spec.values(torch.tensor([y], dtype=torch.float64))) > 1e-9)
        assert not (safe and unsafe)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.sampled_from([-1, 0, 1])), min_size=1, max_size=4))
def test_round_trip_keeps_exact_ends(ends: list[tuple[float, int]]) -> None:
    nearest, excess = np.array([near for near, _ in ends]), np.array([sign for _, sign in ends], dtype=np.int8)
    wide = Ends(nearest + 1e7, excess)
    text = declared(len(ends), 1) + boxed(len(ends)) + "(assert (or (<= Y_0 0.1) (> Y_0 (/ 1 3))))"
    unsafe = parse_vnnlib(text).cases[0].unsafe
    query = Query(len(ends), 1, (Case(Ends(nearest, excess), wide, unsafe), Case(Ends(nearest - 2.0, excess), wide, unsafe)))
    assert equal(parse_vnnlib(write_vnnlib(query)), query)
    single = Query(len(ends), 1, query.cases[:1])
    assert equal(parse_vnnlib(write_vnnlib(single)), single)


def test_twelve_thousand_inputs_take_little_time() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(12288)
    bounds = [f"(assert (>= X_{i} {v:.8f}))\n(assert (<= X_{i} {v + 0.01:.8f}))\n" for i, v in enumerate(values)]
    text = declared(12288, 2) + "".join(bounds)
    start = time.process_time()
    query = parse_vnnlib(text + "(assert (<= Y_0 Y_1))")
    assert time.process_time() - start < 1.0
    assert np.abs(query.cases[0].lower.nearest - values).max() < 1e-8


@pytest.mark.skipif("BOUNDLAB_DATA" not in os.environ, reason="BOUNDLAB_DATA names no folder of VNN-COMP instances")
def test_published_witnesses_are_accepted() -> None:
    from boundlab.verify.competition import accepts, read_instances

    instances = [one for one in read_instances(Path(os.environ["BOUNDLAB_DATA"]) / "vnncomp") if one.witness is not None]
    assert len(instances) > 50
    assert [one.vnnlib.name for one in instances if not accepts(parse_vnnlib(one.vnnlib), one.witness, torch.float32)] == []


@pytest.mark.parametrize(("text", "words"), [
    (declared(2, 1), "no input has a bound"),
    (declared(1, 1) + boxed(1) + "(assert (<= Y_0 (+ " * 60 + "1" + "))" * 60 + ")", "opens more than"),
    (declared(1, 1) + boxed(1) + "(assert " + "(not " * 50_000 + "(<= Y_0 0)" + ")" * 50_001, "opens more than"),
    (declared(1, 1) + boxed(1) + "(assert (<= Y_0 1e-999999999))", "too many digits"),
    (declared(1, 1) + boxed(1) + "(assert (<= (* 2 Y_0) 1e-999999999))", "too many digits"),
    (declared(1, 1) + boxed(1) + f"(assert (<= Y_0 0.{'9' * 5000}))", "too many digits"),
    (declared(1, 1) + boxed(1) + "(assert (and \x000))", "number 0"),
    (declared(1, 1) + boxed(1, high="1e400") + "(assert (<= Y_0 0))", "too large for a float64"),
])
def test_texts_that_would_take_forever_or_too_much(text: str, words: str) -> None:
    start = time.perf_counter()
    with pytest.raises(bl.SpecError, match=words):
        parse_vnnlib(text)
    assert time.perf_counter() - start < 5


def test_bounds_beyond_the_network_s_type_are_refused() -> None:
    query = parse_vnnlib(declared(1, 1) + boxed(1, high="1e300") + "(assert (<= Y_0 1e300))")
    with pytest.raises(bl.SpecError, match="too large for the network's type, float32"):
        problems(query, identity(1))
    assert len(problems(query, identity(1, torch.float64))) == 1


def test_many_cases_cost_little() -> None:
    text = declared(1, 1) + boxed(1) + "(assert (or (<= Y_0 0.5) (>= Y_0 0.25) (and (<= X_0 0.5) (>= Y_0 0.1))))\n" * 8
    query, start = parse_vnnlib(text), time.process_time()
    batches = problems(query, identity(1))
    assert sum(batch.spec.rows.shape[1] for batch in batches) == 8 * 3**8
    assert time.process_time() - start < 1.0
