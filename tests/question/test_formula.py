"""Formulas: what they mean, exactly, and that they never blow up."""

from __future__ import annotations

import functools
import operator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import boundlab as bl
from boundlab.question.exact import Atom, Formula, Nested, Query, atoms
from boundlab.question.expressions import Condition, Expression
from boundlab.question.formula import GROWTH, MOST_BOXES, conjunctions, negated, size
from boundlab.question.stated import Ends, Tensors, query_of
from boundlab.question.vnnlib import parse_vnnlib, write_vnnlib

INPUTS, OUTPUTS = Tensors(("x",), ((2,),)), Tensors(("y",), ((3,),))
NUMBERS = st.sampled_from([-1.0, -0.5, 0.0, 0.1, 0.5, 1.0])
DYADIC = st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0])
COMPARE = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt, "==": operator.eq, "!=": operator.ne}
Tree = tuple
"""(symbol, weights of y and x, constant) for a comparison; ("and" | "or", parts); ("not", part)."""

leaves = st.tuples(st.sampled_from(sorted(COMPARE)), st.lists(NUMBERS, min_size=5, max_size=5), NUMBERS)
trees = st.recursive(leaves, lambda inner: st.one_of(
    st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=4)),
    st.tuples(st.just("not"), inner)), max_leaves=24)


def true_at(tree: Tree, values: list[Fraction]) -> bool:
    if tree[0] == "not":
        return not true_at(tree[1], values)
    if tree[0] in ("and", "or"):
        return (all if tree[0] == "and" else any)(true_at(part, values) for part in tree[1])
    total = sum((Fraction(weight) * value for weight, value in zip(tree[1], values, strict=True)), Fraction(0))
    return COMPARE[tree[0]](total, Fraction(tree[2]))


def written(tree: Tree, x: Expression, y: Expression) -> Condition:
    if tree[0] == "not":
        return ~written(tree[1], x, y)
    if tree[0] in ("and", "or"):
        join = operator.and_ if tree[0] == "and" else operator.or_
        return functools.reduce(join, (written(part, x, y) for part in tree[1]))
    weights = np.array(tree[1])
    return COMPARE[tree[0]](weights[:3] @ y + (x * weights[3:]).sum(), tree[2])


def comparisons(tree: Tree) -> int:
    if tree[0] == "not":
        return comparisons(tree[1])
    if tree[0] in ("and", "or"):
        return sum(map(comparisons, tree[1]))
    return 2 if tree[0] in ("==", "!=") else 1


def leaves_of(tree: Tree) -> list[Tree]:
    if tree[0] == "not":
        return leaves_of(tree[1])
    return [leaf for part in tree[1] for leaf in leaves_of(part)] if tree[0] in ("and", "or") else [tree]


def asked(tree: Tree) -> Query:
    return query_of(INPUTS, OUTPUTS, lambda x, y: written(tree, x, y), {"x": Ends(-1, 1)})


@settings(deadline=None, max_examples=150)
@given(trees, st.lists(st.lists(NUMBERS, min_size=5, max_size=5), min_size=1, max_size=8))
def test_a_query_accepts_exactly_where_the_formula_fails(tree: Tree, points: list[list[float]]) -> None:
    query = asked(tree)
    again = parse_vnnlib(write_vnnlib(query))
    for point in points:
        y, x = np.array(point[:3]), np.array(point[3:])
        fails = not true_at(tree, [Fraction(value) for value in point])
        assert query.accepts(x, y, np.float64) is fails
        assert again.accepts(x, y, np.float64) is fails, "text reads as the same question"
    counted = [sum(map(size, case.unsafe)) for case in query.cases]
    inputs_alone = any(not any(leaf[1][:3]) for leaf in leaves_of(tree))
    assert sum(counted) <= GROWTH * comparisons(tree) * (MOST_BOXES if inputs_alone else 1)


def atom(index: int, strict: bool = False) -> Atom:
    return Atom(((index, Fraction(1)),), Fraction(-index), strict)


@pytest.mark.parametrize("count", [1, 2, 5, 40, 200])
def test_an_and_of_many_ors_stays_linear(count: int) -> None:
    pairs: list[Formula] = [Nested(False, (atom(2 * place), atom(2 * place + 1, True))) for place in range(count)]
    found = conjunctions(Nested(True, tuple(pairs)))
    assert sum(map(size, found)) <= GROWTH * 2 * count
    if count <= 2:
        assert len(found) == 2 ** count and all(isinstance(part, Atom) for members in found for part in members)


def test_ors_that_mix_inputs_and_outputs_are_not_multiplied_out() -> None:
    def holds(x: Expression, y: Expression) -> Condition:
        return functools.reduce(operator.or_, [(y[0] > place) & ((x[0] < place) | (y[1] > place)) for place in range(100)])
    query = query_of(INPUTS, OUTPUTS, holds, {"x": Ends(-1, 1)})
    assert sum(size(members) for case in query.cases for members in case.unsafe) <= GROWTH * 300


def test_negation_twice_is_the_same_and_once_the_opposite() -> None:
    formula = Nested(True, (atom(0), Nested(False, (atom(1, True), atom(2)))))
    assert negated(negated(formula)) == formula
    for values in ([0.0, 1.0, 2.0], [1.0, 0.0, 0.0], [0.0, 5.0, 2.0], [0.0, 1.0, 3.0]):
        assert negated(formula).holds(values) is not formula.holds(values)
    assert len(list(atoms(formula))) == 3


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(DYADIC, min_size=4, max_size=4), min_size=1, max_size=8), DYADIC)
def test_absolute_values_maxima_and_minima(points: list[list[float]], bound: float) -> None:
    tensors = Tensors(("y",), ((2, 2),))
    meant = (
        (lambda y: abs(y[0] - 2 * y[1]) <= bound, lambda y: np.abs(y[0] - 2 * y[1]).max() <= bound),
        (lambda y: (abs(y) >= bound).any(), lambda y: (np.abs(y) >= bound).any()),
        (lambda y: y.max() - y[0, 0] < bound, lambda y: y.max() - y[0, 0] < bound),
        (lambda y: -y[1].min() * 0.5 < 0.5, lambda y: -y[1].min() * 0.5 < 0.5),
        (lambda y: bound >= 1 - y.min() / 2, lambda y: bound >= 1 - y.min() / 2),
        (lambda y: ~(abs(y).max() > bound), lambda y: not np.abs(y).max() > bound),
        (lambda y: (y.mean(0) != bound).all(), lambda y: (y[0] + y[1] != 2 * bound).all()),
    )
    for states, truth in meant:
        query = query_of(Tensors(("x",), ((1,),)), tensors, lambda x, y, states=states: states(y), {"x": Ends(0, 0)})
        for point in points:
            safe = bool(truth(np.array(point).reshape(2, 2)))
            assert query.accepts(np.zeros(1), np.array(point), np.float64) is not safe


REFUSED = {
    "product": (lambda x, y: y[0] * y[1] > 0, "not linear"),
    "power": (lambda x, y: y[0] ** 2 > 0, "not linear"),
    "quotient": (lambda x, y: 1 / y[0] > 0, "linear"),
    "index": (lambda x, y: y[7] > 0, r"shape \[3\] has no entries \[7\]"),
    "axis": (lambda x, y: y.sum(3) > 0, "no axis 3"),
    "shapes": (lambda x, y: y > x, r"shapes \[3\] and \[2\] do not fit"),
    "chain": (lambda x, y: 0 < y[0] < 1, r"\(a < b\) & \(b < c\)"),
    "and": (lambda x, y: y[0] > 0 and y[1] > 0, "a & b for 'a and b'"),
    "brackets": (lambda x, y: y[0] > y[1] & y[2] > 0, "brackets"),
    "not a comparison": (lambda x, y: y[0], "a comparison was needed"),
    "truth value": (lambda x, y: True, "a comparison was needed"),
    "array under or": (lambda x, y: (y > 0) | (y[0] > 1), r"3 comparisons at once: say .all\(\) or .any\(\)"),
    "array under not": (lambda x, y: ~((y > 0) & (y < 1)), "6 comparisons at once"),
    "NaN": (lambda x, y: y[0] > float("nan"), "finite"),
    "text": (lambda x, y: y[0] > "one", "finite numbers, got 'one'"),
    "two maxima": (lambda x, y: y.max() > x.max(), "only one may be"),
    "maximum of minima": (lambda x, y: (abs(y) * -1).max() > 0, "not supported"),
    "too few arguments": (lambda y: y[0] > 0, "2 arguments, 'x', 'y'"),
    "nothing": (lambda x, y: y[3:] > 0, "says nothing"),
}


@pytest.mark.parametrize("says, message", REFUSED.values(), ids=list(REFUSED))
def test_what_is_malformed_is_refused_in_one_sentence(says, message: str) -> None:
    with pytest.raises(bl.SpecError, match=message):
        query_of(INPUTS, OUTPUTS, says, {"x": Ends(0, 1)})


def test_regions_that_are_empty_unbounded_or_do_not_fit_are_refused() -> None:
    def safe(x: Expression, y: Expression) -> Condition:
        return y[0] > 0
    for boxes, where, message in (({}, None, "no bounds"), ({"x": Ends(1, 0)}, None, "no point at all"),
                                  ({}, lambda x: x >= 0, "no upper bound"),
                                  ({}, lambda x: (x[0] >= 0) & (x[0] <= 1), "X_1 has no"),
                                  ({"z": Ends(0, 1)}, None, "'z'; the network has the inputs 'x'"),
                                  ({"x": Ends(np.zeros(3), 1)}, None, r"\[3\] and \[\], which do not fit"),
                                  ({"x": Ends(0, np.inf)}, None, "finite")):
        with pytest.raises(bl.SpecError, match=message):
            query_of(INPUTS, OUTPUTS, safe, boxes, where)


def test_boxes_by_where_and_by_a_batch_are_cases() -> None:
    def safe(x: Expression, y: Expression) -> Condition:
        return y[0] > y[1]
    low, high = np.array([[0.0, 0.1], [0.5, 0.5]]), np.array([[0.25, 0.2], [1.0, 0.75]])
    batch = query_of(INPUTS, OUTPUTS, safe, {"x": Ends(low, high)})
    said = query_of(INPUTS, OUTPUTS, safe, {}, lambda x: (
        ((x >= low[0]) & (x <= high[0])).all() | ((x >= low[1]) & (x <= high[1])).all()))
    assert [case.lower.nearest.tolist() for case in batch.cases] == low.tolist()
    assert parse_vnnlib(write_vnnlib(batch)).cases[1].unsafe == said.cases[1].unsafe
    for point in ([0.1, 0.15], [0.6, 0.6], [0.3, 0.3], [0.1, 0.6]):
        inside = bool(((low <= point) & (point <= high)).all(1).any())
        for query in (batch, said):
            assert query.accepts(np.array(point), np.zeros(3), np.float64) is inside


def test_decimals_and_fractions_are_exact_and_floats_mean_themselves() -> None:
    from decimal import Decimal
    query = query_of(INPUTS, OUTPUTS, lambda x, y: (y[0] < Decimal("0.1")) & (y[1] < 0.1) & (y[2] < Fraction(1, 3)),
                     {"x": Ends(0, 1)})
    constants = [-atom.constant for conjunct in query.cases[0].unsafe for atom in conjunct if isinstance(atom, Atom)]
    assert [abs(constant) for constant in constants] == [Fraction(1, 10), Fraction(0.1), Fraction(1, 3)]
