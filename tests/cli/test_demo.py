import json
from dataclasses import asdict
from functools import partial

import pytest
import torch

from boundlab.capture.onnx import load_onnx
from boundlab.cli.demo import save_parts
from boundlab.errors import MissingPackage
from boundlab.evaluate import evaluate
from boundlab.reports.digits import METHODS, Settings, build_network, load_splits, run_study

SMALL = partial(Settings, grid=(0.0, 0.05), ordinary_epochs=2, certified_epochs=3, attack_steps=3, attack_restarts=1)


@pytest.fixture(scope="module")
def study():
    return run_study(SMALL(), lambda text: None)


def test_nothing_certified_falls_to_an_attack(study):
    assert {point.network for point in study.points} == {"ordinary", "certified"}
    for point in study.points:
        assert point.clean >= point.attacked >= max(point.certified.values())
        if point.eps == 0:
            assert point.clean == point.attacked


@pytest.mark.slow
def test_the_seed_fixes_everything(study):
    again = run_study(SMALL(), lambda text: None)
    assert [asdict(point) for point in again.points] == [asdict(point) for point in study.points]
    assert again.validation == study.validation


def test_splits_share_no_image_and_keep_all(study):
    splits = load_splits(0)
    assert study.sizes == {"train": 1078, "validation": 360, "test": 359}
    assert sum(study.sizes.values()) == 1797
    images = torch.cat([split.x for split in splits.values()])
    assert images.shape == (1797, 1, 8, 8) and images.min() == 0 and images.max() == 1
    other = load_splits(1)
    assert not torch.equal(other["test"].labels, splits["test"].labels)


def test_building_a_network_leaves_the_caller_s_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = build_network(0), build_network(0)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_verb_writes_a_figure_and_a_record(tmp_path, run, monkeypatch):
    monkeypatch.setattr("boundlab.cli.demo.Settings", SMALL)
    result = run("demo", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "digits.json").read_text())
    said = json.loads(result.stdout)
    assert said["points"] == record["points"] and len(record["points"]) == 4
    assert record["settings"]["seed"] == 0 and record["environment"]["torch"] and record["rigour"] == "float"
    assert set(record["points"][0]["certified"]) == set(METHODS)
    assert (tmp_path / "out" / "digits.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "out" / "digits.svg").read_text()


def test_what_the_demo_leaves_can_be_certified(study, tmp_path, run):
    save_parts(study, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"ordinary.onnx", "certified.onnx", "digits.npz"}
    common = ("--data", tmp_path / "digits.npz", "--eps", "0.01", "--limit", "3", "--engine", "serial", "--rigour", "float")
    result = run("certify", tmp_path / "certified.onnx", *common, "--method", "crown", "--out", tmp_path / "found")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "found" / "report.html").exists()
    images = load_splits(0)["test"].x[:5]
    assert torch.allclose(evaluate(load_onnx(tmp_path / "certified.onnx"), images), evaluate(study.models["certified"], images),
                          atol=1e-5)
    assert "models" not in study.record()


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(MissingPackage, match=r"boundlab\[demo\]"):
        load_splits(0)
