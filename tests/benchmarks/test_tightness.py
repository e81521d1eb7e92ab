"""Margins against time, on a network of one epoch: nothing proven is above what an attack finds, and the picture is drawn."""

from __future__ import annotations

import pytest

from benchmarks.scatter import frontier, save_scatter
from benchmarks.tightness import METHODS, SETTINGS, Extent, measure_networks, tightness_table

pytest.importorskip("sklearn")
pytest.importorskip("highspy")


@pytest.fixture(scope="module")
def entries():
    return list(measure_networks(SETTINGS[:1], Extent(epochs=1, images=2, turns=1, patience=0.0)))


def test_methods_stand_between_intervals_and_an_attack(entries):
    margins = {point["method"]: point["margin"] for point in entries[0]["points"]}
    assert set(margins) == set(METHODS)
    assert all(margins["IBP"] < margin <= entries[0]["attacked"] for name, margin in margins.items() if name != "IBP")
    assert margins["CROWN"] <= margins["Optimised"] + 1e-5 and margins["LP-LAST"] <= margins["LP-ALL"] + 1e-5
    assert all(point["seconds"] > 0 for point in entries[0]["points"])


def test_the_table_and_the_picture_hold_every_method(entries, tmp_path):
    pytest.importorskip("matplotlib")
    rows = tightness_table(entries).rows
    assert [row[2] for row in rows] == [*METHODS, "an attack finds"]
    save_scatter(entries, "a caption", tmp_path / "found.svg")
    drawn = (tmp_path / "found.svg").read_text()
    assert all(f">{name}<" in drawn for name in METHODS) and "a caption" in drawn


def test_the_frontier_has_what_nothing_beats():
    assert frontier([(1, 5), (2, 6), (3, 2), (3, 3), (9, 1)]) == [(1, 5), (3, 2), (9, 1)]
