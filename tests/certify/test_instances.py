"""A data set's questions as a folder: the same questions as certify asks, about the same network, in the competition's form."""

from __future__ import annotations

import csv

import pytest

import boundlab as bl
from boundlab.certify.certification import Certification
from boundlab.question.vnnlib import parse_vnnlib
from boundlab.verify.competition import read_instances
from tests.certify.cases import EPS, examples, model

RADII = EPS[:2]
SMALL = examples(6)


@pytest.fixture(scope="module")
def found():
    return bl.certify(model(), SMALL, RADII, bl.Plan(stages=(bl.IBP(), bl.CROWN())))


def test_each_question_is_there_once_and_misclassified_examples_are_not(tmp_path, found):
    made = bl.save_instances(model(), SMALL, RADII, tmp_path / "new/folder", bl.Plan(timeout=7))
    wrong = {record.index for record in found.records if record.status is bl.Status.MISCLASSIFIED}
    assert set(made.misclassified) == wrong == {0, 1} and len(set(made.asked)) == len(made.asked)
    assert set(made.asked) == {(index, eps) for index in range(6) if index not in wrong for eps in RADII}
    with (made.folder / "instances.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert len(rows) == len(made.asked) and {(row[0], row[2]) for row in rows} == {("network.onnx", "7")}
    assert [instance.vnnlib.is_file() and instance.onnx.is_file() for instance in read_instances(made.folder)] == [True] * 8


def test_verdicts_of_the_files_are_those_of_certify(tmp_path):
    found = bl.certify(model(), SMALL, RADII)
    statuses = {(record.index, record.eps): record.status for record in found.records}
    made = bl.save_instances(model(), SMALL, RADII, tmp_path)
    original = bl.load_original(tmp_path / "network.onnx")
    verdicts = {bl.Status.CERTIFIED: bl.Verdict.VERIFIED, bl.Status.FALSIFIED: bl.Verdict.FALSIFIED}
    for key, instance in zip(made.asked, read_instances(made.folder), strict=True):
        result, = bl.verify(original, parse_vnnlib(instance.vnnlib))
        assert result.verdict is verdicts[statuses[key]]


def test_an_onnx_file_is_handed_on_as_it_is(tmp_path):
    bl.save_onnx(model(), tmp_path / "net.onnx")
    bl.save_instances(bl.load_original(tmp_path / "net.onnx"), SMALL, 0.01, tmp_path / "out")
    assert (tmp_path / "out/network.onnx").read_bytes() == (tmp_path / "net.onnx").read_bytes()


def test_a_network_that_is_there_is_not_replaced_by_another(tmp_path):
    bl.save_instances(model(), SMALL, 0.01, tmp_path)
    bl.save_instances(model(), SMALL, 0.02, tmp_path)
    before = (tmp_path / "network.onnx").read_bytes()
    with pytest.raises(bl.SpecError, match="another network, which would be replaced"):
        bl.save_instances(model(seed=14), SMALL, 0.01, tmp_path)
    assert (tmp_path / "network.onnx").read_bytes() == before


def test_only_what_a_certification_left_open(tmp_path, found: Certification):
    made = bl.save_instances(model(), SMALL, RADII, tmp_path, None, found)
    waiting = {(record.index, record.eps) for record in found.records if record.status is bl.Status.UNKNOWN}
    assert set(made.asked) == waiting and waiting
    with pytest.raises(bl.DataError, match="another network"):
        bl.save_instances(model(seed=14), SMALL, RADII, tmp_path, None, found)
    with pytest.raises(bl.DataError, match="other data and another domain"):
        bl.save_instances(model(), SMALL.take(range(5)), RADII, tmp_path, bl.Plan(clip=None), found)


def test_another_norm_is_refused(tmp_path):
    with pytest.raises(bl.SpecError, match="norm 2 is none; use norm inf"):
        bl.save_instances(model(), SMALL, 0.1, tmp_path, bl.Plan(p=2))
