"""Laws of the classifier of tables: what it certifies holds on the table as it is, and it is what scikit-learn expects."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import boundlab as bl
from boundlab.certify.record import Status
from boundlab.errors import BoundlabError
from tests.reports.reading import read

PLAN = bl.TrainingPlan(epochs=12, batch=16, rate=bl.Rate(5e-3), ramp=bl.Ramp(1, 8), validation=None)
FAST = bl.Plan(stages=(bl.IBP(), bl.PGD(steps=10), bl.CROWN()))
SCALES = np.array([1e-3, 64.0, 1e6])


def table(count=90, seed=0):
    """Three columns in units of their own, and three classes."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, count)
    rows = draw.normal(size=(count, 3)) * 0.5 + np.eye(3)[labels] * 3
    return rows * SCALES + 5 * SCALES, np.array(["<b>low</b>", "mid", "high"])[labels]


def classifier(**changed):
    return bl.CertifiedClassifier(**({"eps": 0.2, "hidden": (16,), "plan": PLAN} | changed))


@pytest.fixture(scope="module")
def fitted():
    return classifier().fit(*table())


@pytest.mark.parametrize("norm", [math.inf, pytest.param(2.0, marks=pytest.mark.slow)])
def test_certified_rows_keep_their_label_in_the_units_of_the_table(norm):
    found = classifier(norm=norm).fit(*table())
    rows, labels = table(40, seed=1)
    mask, deviation = found.certify(rows, labels, plan=FAST).mask, table()[0].std(0)
    assert mask.dtype == bool and mask.shape == (40,) and mask.mean() > 0.4 and found.score(rows, labels) > 0.9
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
    moves = np.concatenate([corners, np.random.default_rng(0).uniform(-1, 1, (200, 3))])
    moves /= np.linalg.norm(moves, norm, axis=1, keepdims=True)
    for row, label in zip(rows[mask], labels[mask], strict=True):
        assert (found.predict(row + 0.2 * deviation * moves) == label).all()


def test_records_say_what_the_mask_says(fitted):
    rows, labels = table(30, seed=1)
    labels[:3] = np.where(labels[:3] == "mid", "high", "mid")
    found = fitted.certify(rows, labels, eps=0.3, plan=FAST)
    assert found.mask.tolist() == [record.status is Status.CERTIFIED for record in found.found.records]
    assert {record.eps for record in found.found.records} == {0.3} == {*found.found.settings.eps} == {*found.found.by_eps}
    assert [record.status for record in found.found.records[:3]] == [Status.MISCLASSIFIED] * 3
    alone = np.concatenate([fitted.certify(rows[place:place + 1], eps=0.3, plan=FAST).mask for place in range(3, 8)])
    assert (alone == fitted.certify(rows, eps=0.3, plan=FAST).mask[3:8]).all(), "without labels it is about predictions"
    assert fitted.certify(rows, eps=0.05, plan=FAST).mask.sum() >= fitted.certify(rows, eps=0.5, plan=FAST).mask.sum()
    assert repr(found).startswith("Certified(") and read(found._repr_html_()).every("table")


def test_radii_are_between_proof_and_attack(fitted):
    rows, labels = table(5, seed=1)
    found = fitted.radius(rows, labels)
    assert bool((found.proven < found.attacked).all()) and bool(found.holds.all())
    for row, label, proven in zip(rows[:3], labels[:3], found.proven.tolist(), strict=False):
        assert fitted.certify([row], [label], eps=0.99 * proven, plan=FAST).mask.all()


def test_units_do_not_matter(fitted):
    rows, labels = table()
    other = classifier().fit(rows * np.array([4.0, 0.5, 1024.0]), labels)
    assert (other.scores(rows * np.array([4.0, 0.5, 1024.0])) == fitted.scores(rows)).all()


def test_a_constant_column_changes_nothing_but_its_own_reach(fitted):
    """The deviation of equal numbers is rounding, 1e-17 for 0.1: no unit of a column."""
    rows, labels = table()
    assert np.full(len(rows), 0.1).std() > 0
    learned = classifier().fit(np.c_[rows, np.full(len(rows), 0.1)], labels).learned
    assert learned.mean[3] == 0.1 and learned.deviation[3] == 1 and learned.room(np.c_[rows, rows[:, :1]], 0.2) < 1e-3
    assert (learned.mean[:3] == fitted.learned.mean).all() and (learned.deviation[:3] == fitted.learned.deviation).all()
    assert torch.equal(fitted.scores(torch.tensor(rows, requires_grad=True)), fitted.scores(rows))


def test_the_room_for_rounding_covers_it(fitted):
    """Rows that are eps apart, as float64 holds them, are no further apart than what is certified."""
    learned = fitted.learned
    for far in (0.0, 1e10):
        shifted = replace(learned, mean=learned.mean + far * learned.deviation)
        rows = table(50, seed=2)[0] + far * learned.deviation
        moved = rows + 0.2 * learned.deviation
        apart = (shifted.standardised(moved) - shifted.standardised(rows)).abs().double()
        assert float(apart.max()) <= 0.2 + shifted.room(rows, 0.2)
    assert shifted.room(rows, 0.2) > 5 * learned.room(table(50, seed=2)[0], 0.2)


def test_equal_seeds_give_equal_networks_and_leave_torch_alone(fitted):
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    again, other = classifier().fit(*table()), classifier(random_state=1).fit(*table())
    assert torch.equal(torch.random.get_rng_state(), state)
    rows = table(seed=1)[0]
    assert torch.equal(again.scores(rows), fitted.scores(rows)) and not torch.equal(other.scores(rows), fitted.scores(rows))
    shares = fitted.predict_proba(rows)
    assert shares.shape == (90, 3) and np.allclose(shares.sum(1), 1)
    assert (fitted.classes_[shares.argmax(1)] == fitted.predict(rows)).all()
    assert (np.concatenate([fitted.predict(row[None]) for row in rows[:5]]) == fitted.predict(rows[:5])).all()


@pytest.mark.parametrize("kinds", [("a", "b", "c"), (3, 1, 2), (True, False, True), ((1, 2), (3,), ()), (1, "1", None),
                                   (0.5, 1.5, 2.5), (frozenset({1}), "x", 2)])
def test_labels_are_of_any_hashable_type(kinds):
    rows, labels = table(60)
    given = [kinds[("<b>low</b>", "mid", "high").index(label)] for label in labels]
    found = classifier(plan=replace(PLAN, epochs=8)).fit(rows.tolist(), given)
    assert set(found.predict(rows).tolist()) <= set(given) and len(found.classes_) == len(set(kinds))
    assert found.score(rows, given) > 0.7
    if len({*map(type, kinds)}) == 1:
        assert found.classes_.tolist() == sorted(set(kinds))


ROWS, LABELS = table(20)
HOLED = np.where(np.arange(60).reshape(20, 3) == 7, np.nan, ROWS)
BAD = {
    "not fitted": (lambda fit: classifier().predict(ROWS), "not fitted yet; call fit"),
    "other columns": (lambda fit: fit.predict(ROWS[:, :2]), "2 columns, .* fitted on 3"),
    "NaN to fit": (lambda fit: classifier().fit(HOLED, LABELS), "row 2 holds nan in column 1"),
    "NaN to predict": (lambda fit: fit.predict(HOLED), "row 2 holds nan in column 1"),
    "infinite": (lambda fit: fit.predict(ROWS + np.inf), "row 0 holds inf"),
    "words": (lambda fit: fit.predict([["a", "b", "c"]]), "no number .*encode such columns"),
    "one row without a table": (lambda fit: fit.predict(ROWS[0]), "rows and columns"),
    "no row": (lambda fit: fit.predict(ROWS[:0]), "at least one number"),
    "complex numbers": (lambda fit: fit.predict(ROWS + 1j), "no number .*complex128"),
    "dates": (lambda fit: fit.predict(np.array([["2020-01-01"] * 3], dtype="datetime64[D]")), "no number .*datetime64"),
    "numbers without a deviation": (lambda fit: classifier().fit(ROWS * 1e300, LABELS), "column 0 are too large"),
    "numbers too far away": (lambda fit: fit.predict_proba(ROWS * 1e300), "row 0 holds .* too far from the training data"),
    "no labels": (lambda fit: classifier().fit(ROWS, None), "one value a row, got None"),
    "a number as labels": (lambda fit: fit.score(ROWS, 3), "one value a row, got 3"),
    "several radii": (lambda fit: fit.certify(ROWS, LABELS, [0.1, 0.2]), "one radius, got 2"),
    "a plan in words": (lambda fit: fit.certify(ROWS, plan="fast"), "bl.Plan, .* got 'fast'"),
    "a plan of training in words": (lambda fit: classifier(plan="fast").fit(ROWS, LABELS), "plan is a bl.TrainingPlan"),
    "a method in words": (lambda fit: classifier(method="ibp").fit(ROWS, LABELS), "method is a training method"),
    "a method that trains nothing": (lambda fit: classifier(method=bl.CROWN()).fit(ROWS, LABELS), "method is a training"),
    "one width": (lambda fit: classifier(hidden=64).fit(ROWS, LABELS), "such as .64, 64., got 64"),
    "a norm in words": (lambda fit: classifier(norm="2").fit(ROWS, LABELS), "order at least 1 .* got '2'"),
    "eps in words": (lambda fit: classifier(eps="small").fit(ROWS, LABELS), "finite number, at least 0, got 'small'"),
    "a huge seed": (lambda fit: classifier(random_state=2**70).fit(ROWS, LABELS), "below 2..63"),
    "one class": (lambda fit: classifier().fit(ROWS, ["a"] * 20), "all 20 rows have the label 'a'"),
    "labels of another length": (lambda fit: classifier().fit(ROWS, LABELS[:19]), "20 rows and 19 labels"),
    "scores of another length": (lambda fit: fit.score(ROWS, LABELS[:19]), "20 rows and 19 labels"),
    "lists as labels": (lambda fit: classifier().fit(ROWS, [[1]] * 20), "not hashable"),
    "a label that is missing": (lambda fit: classifier().fit(ROWS, [*range(19), math.nan]), "row 19 is nan"),
    "a new label": (lambda fit: fit.certify(ROWS, ["new"] * 20), "'new' is none of the 3 classes"),
    "a negative eps": (lambda fit: fit.certify(ROWS, eps=-0.1), "got -0.1"),
    "a negative eps to train": (lambda fit: classifier(eps=-0.1).fit(ROWS, LABELS), "-0.1"),
    "no neurons": (lambda fit: classifier(hidden=(0,)).fit(ROWS, LABELS), r"at least 1 each, got \(0,\)"),
    "a seed in words": (lambda fit: classifier(random_state="a").fit(ROWS, LABELS), "random_state is a whole number"),
    "no such argument": (lambda fit: classifier().set_params(depth=3), "no argument 'depth'; it has eps"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_calls_are_one_sentence(fitted, name):
    call, words = BAD[name]
    with pytest.raises(BoundlabError, match=words) as caught:
        call(fitted)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_it_is_shown_in_a_few_lines(fitted):
    assert len(repr(fitted).splitlines()) == 1 and "eps=0.2" in repr(fitted)
    cells = [cell.text() for cell in read(fitted._repr_html_()).every("td")]
    assert cells[0] == "0.2" and cells[-1] == "3 columns, 3 classes"
    assert "fitted" not in classifier()._repr_html_()


def test_scikit_learn_takes_it_for_a_classifier(fitted):
    base = pytest.importorskip("sklearn.base", reason="scikit-learn is not installed")
    selection, pipeline = (pytest.importorskip(f"sklearn.{name}") for name in ("model_selection", "pipeline"))
    scaler = pytest.importorskip("sklearn.preprocessing").RobustScaler()
    rows, labels = table(60)
    copy = base.clone(fitted)
    assert base.is_classifier(copy) and copy.get_params() == fitted.get_params() and not hasattr(copy, "classes_")
    line = pipeline.make_pipeline(scaler, classifier(plan=replace(PLAN, epochs=8)))
    assert line.fit(rows, labels).score(rows, labels) > 0.8
    grid = selection.GridSearchCV(line, {"certifiedclassifier__eps": [0.01, 0.3]}, cv=2, error_score="raise")
    assert set(grid.fit(rows, labels).cv_results_["param_certifiedclassifier__eps"]) == {0.01, 0.3}
    proven = selection.cross_val_score(classifier(plan=replace(PLAN, epochs=8)), rows, labels, cv=2, error_score="raise",
                                       scoring=lambda one, x, y: one.certify(x, y, plan=FAST).mask.mean())
    assert 0 < proven.mean() <= 1
