"""The most instructive example: the open question nearest to a proof, and what its layers lose."""

from __future__ import annotations

import pytest
import torch

import boundlab as bl
from boundlab.certify import explained as module
from boundlab.certify.explained import explained, instructive
from boundlab.certify.record import Finding, Record, Status
from tests.certify.cases import EPS, examples, model

OPEN = bl.Plan(stages=(bl.IBP(), bl.CROWN()))


def record(index, eps, status, margin):
    return Record(index, None, 0, 0, eps, Finding(status, margin=margin))


def test_what_is_instructive():
    proven = [record(*one[:2], Status.CERTIFIED, one[2]) for one in ((0, 0.1, 0.1), (1, 0.1, 0.5), (0, 0.2, 0.9))]
    broken = [record(2, 0.1, status, 0.0) for status in (Status.FALSIFIED, Status.FAILED, Status.MISCLASSIFIED)]
    waiting = [record(*one[:2], Status.UNKNOWN, one[2]) for one in ((5, 0.2, -0.01), (6, 0.1, -1), (7, 0.1, -0.2))]
    assert instructive(broken) is None
    assert instructive([*broken, *proven]).index == 1, "of an example its largest certified radius counts"
    assert instructive([*proven, *waiting, *broken]).index == 7


def test_the_explained_bound_is_that_of_crown(tmp_path):
    data = examples()
    found = bl.certify(model(), data, EPS, OPEN)
    one = found.explained
    chosen = instructive(found.records)
    assert chosen.status is Status.UNKNOWN and (one.index, one.eps) == (chosen.index, chosen.eps)
    place = slice(one.index, one.index + 1)
    lower = bl.bound(model(), bl.LpBall(data.x[place], one.eps, clip=(0, 1)), method=bl.CROWN(),
                     spec=bl.margins(data.labels[place], 3)).lower[0]
    others = [other for other in range(3) if other != chosen.label]
    assert one.losses.bound == pytest.approx(float(lower.min()), rel=1e-4) and one.other == others[int(lower.argmin())]
    assert len(one.losses.layers) == 2 and one.losses.value > one.losses.bound - 1e-5
    bl.save_certification(found, tmp_path)
    assert bl.read_certification(tmp_path).explained == one


def test_what_cannot_be_explained_changes_nothing_else(monkeypatch):
    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(module, "explain", fails)
    data = examples(4, 0)
    found = bl.certify(model(), data, EPS[0])
    assert found.explained is None and len(found.records) == 4


def test_time_is_limited():
    data = examples(4, 0)
    found = bl.certify(model(), data, EPS[0])
    assert found.explained is not None
    assert explained(model(), data.x, found.records, bl.Plan(timeout=1e-6)) is None


def test_examples_all_misclassified_have_nothing_to_explain():
    data = examples(3, 3)
    assert bl.certify(model(), data, EPS[0]).explained is None and torch.is_tensor(data.x)
