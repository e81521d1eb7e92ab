"""Figures of papers that are about training: small networks, and everything that the pictures and tables need of them."""

import json

import pytest
from typer.testing import CliRunner

from boundlab.capture.onnx import load_onnx
from boundlab.cli.app import app
from boundlab.reports.figure import save
from boundlab.reports.tables import figure_of, of_flatness, of_sentences
from boundlab.reproduce.flatness import flat_row
from boundlab.reproduce.sentences import word_row
from boundlab.train.recipe import parsed
from boundlab.train.sources import digits
from tests.train.test_words import RECIPE, folder

__all__ = ["folder"]
FLAT = """
title = "flat"
source = "test"
network = "flat-mlp-mnist"
data = "digits"
each_class = 10
eps = 0.05
norm = 2
epochs = 4
batch = 50
rate = { first = 0.1 }
ramp = { start = 0, end = 2 }
validation = 0.0
optimiser = { sgd = { momentum = 0.9 } }
[weights]
[method.crown-ibp]
crown_weight = [1.0, 1.0]
fused = true
"""


def test_flatness_as_a_table_and_as_pictures(tmp_path):
    asked, rows = parsed(FLAT, "test"), []
    training, test = asked.chosen(digits()), digits().take(range(50))
    assert training.labels.bincount().tolist() == [10] * 10
    for method in ("natural", "flat"):
        one = asked if method == "flat" else parsed(FLAT.split("[method")[0] + "[method.natural]\n", "test")
        rows.append(flat_row(method, one, (training, test)))
        assert rows[-1].training.loss <= rows[-1].training.reached <= rows[-1].training.certified
    found = of_flatness(rows)
    assert [row[0] for row in found.rows] == ["natural", "flat"] and all(len(row) == len(found.columns) for row in found.rows)
    for name, figure in {"bars": figure_of(found.panels), **found.figures}.items():
        save(figure, tmp_path / f"{name}.svg")
    assert "to the worst found" in (tmp_path / "landscape.svg").read_text() and json.dumps(found.data)


def test_words_as_a_table(folder):
    row = word_row("Transformer", "budget 6", parsed(RECIPE, "test"), folder, 10)
    found = of_sentences([row])
    assert row.sentences == 10 and [line[2] for line in found.rows] == ["IBP", "IBP+Backward", "Forward+Backward",
                                                                             "every sentence"]
    assert "(78.4)" in found.rows[0][3] and "(77.4)" in found.rows[1][4] and len(found.columns) == len(found.rows[0]) == 10
    figure_of(found.panels)


def test_the_verb_trains_on_sentences_and_writes_their_words(folder, tmp_path):
    (tmp_path / "words.toml").write_text(RECIPE)
    out = tmp_path / "run"
    call = ["train", str(tmp_path / "words.toml"), "--data", str(folder), "--out", str(out), "--limit", "5"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    words = json.loads((out / "words.json").read_text())
    assert words["words"][:3] == ["[pad]", "[unk]", "[cls]"] and len(words["candidates"]) == len(words["words"])
    assert [node.shape for node in load_onnx(out / "network.onnx").graph.inputs] == [(5, 64), (5,)]
    assert CliRunner().invoke(app, call).exit_code == 2


@pytest.mark.parametrize("table", ["frown-3", "barrier-1"])
def test_tables_about_published_weights_ask_for_them(table, folder):
    result = CliRunner().invoke(app, ["reproduce", table, "--data", str(folder)])
    assert result.exit_code == 2 and "--weights" in result.output
