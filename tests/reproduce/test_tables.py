"""The papers' tables: on small random networks they keep the order that is a theorem, on the published ones they agree."""

import gzip
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from boundlab.capture.torch import capture
from boundlab.cli.app import app
from boundlab.data.idx import read_idx_folder
from boundlab.engines.engine import Serial
from boundlab.errors import SpecError
from boundlab.radii.search import Search
from boundlab.reports.tables import of_errors
from boundlab.reproduce.barrier import GREEDY, TEN, Sample, distortion_row, error_table, programs
from boundlab.reproduce.files import named_tensors, network_of, weights_in
from boundlab.reproduce.frown import classified, radius_row
from boundlab.reproduce.published import BARRIER_1, BARRIER_2

DATA = os.environ.get("BOUNDLAB_DATA")
IMAGES = 9000
"""More than the last of the ten images."""


def quiet(text):
    """No narration."""


def idx(array):
    """Bytes of an IDX file."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(size).to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def small(activation=nn.ReLU):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, 10))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random digits, and random networks under the names of the published ones."""
    found = tmp_path_factory.mktemp("published")
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (IMAGES, 28, 28)) * (draw.random((IMAGES, 28, 28)) < 0.2)
    (found / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images), 1))
    (found / "t10k-labels-idx1-ubyte").write_bytes(idx(draw.integers(0, 10, IMAGES)))
    torch.manual_seed(0)
    for name in {name for name, _ in BARRIER_1} | set(BARRIER_2):
        np.savez(found / f"{name}.pth.npz", **{key: value.numpy() for key, value in small().state_dict().items()})
    for name, activation in (("net_3_100_relu", nn.ReLU), ("net_3_100_sigmoid", nn.Sigmoid)):
        (found / name).mkdir()
        weights = {key: value.numpy() for key, value in small(activation).state_dict().items()}
        np.savez(found / name / "merged_bn_net.npz", **weights)
    return found


def test_files_are_read_as_they_were_written(folder):
    x, labels = read_idx_folder(folder).labelled()
    assert x.shape == (IMAGES, 1, 28, 28) and labels.shape == (IMAGES,) and float(x.max()) <= 1 and float(x.min()) == 0
    tensors = named_tensors(weights_in(folder, "NOR_MLP_B"))
    module = small()
    module.load_state_dict(tensors)
    assert torch.equal(network_of(tensors)(x[:3]), module(x[:3]))
    conv = nn.Sequential(nn.Conv2d(1, 2, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(392, 10))
    assert torch.equal(network_of(conv.state_dict())(x[:3]), conv(x[:3]))


@pytest.mark.slow
def test_errors_keep_their_order(folder):
    rows = error_table(folder, folder, Sample(4, spread=True), 0.3, Serial(), quiet)
    assert [(row.network, row.eps) for row in rows] == list(BARRIER_1)
    for row in rows:
        errors = [row.attacked, *reversed([row.error[name] for name in ("LP-GREEDY", "Dual", "LP-LAST", "LP-ALL", "MILP")])]
        assert all(a <= b for a, b in zip([row.test, *errors], errors, strict=False))
    found = of_errors(rows)
    assert len(found.rows) == len(rows) and all(len(row) == len(found.columns) for row in found.rows)
    assert "(13.40)" in " ".join(found.rows[0])


@pytest.mark.slow
def test_radii_keep_their_order(folder):
    x, labels = read_idx_folder(folder).labelled()
    scaled = (x.flatten(1) - 0.5) / 0.5
    model = capture(network_of(named_tensors(weights_in(folder, "net_3_100_relu"))), scaled[:2]).detached()
    row = radius_row("net_3_100_relu", 1.0, model, classified(model, (scaled, labels), 2), (1, Serial()), quiet)
    assert all(0 < row.each["least area"][place] <= row.each[name][place] for name in ("FROWN", "full") for place in range(2))
    assert row.run["LP"] == 1 and row.each["LP"][0] >= row.each["FROWN"][0] and row.published.percent > 7
    methods = {"LP-GREEDY": GREEDY, **programs(Serial())}
    own = distortion_row("small", model, scaled[:1], methods, Search(tolerance=0.05), quiet)
    assert own.proven["LP-GREEDY"] <= own.proven["LP-LAST"] <= own.proven["LP-ALL"] < own.attacked


@pytest.mark.parametrize(("table", "images", "columns"), [
    ("barrier-1", "2", "s, LP-ALL"), *(pytest.param(*rest, marks=pytest.mark.slow) for rest in (
        ("barrier-2", "1", "LP-ALL"), ("frown-3", "1", "gain full")))])
def test_the_command_prints_and_keeps_a_table(folder, tmp_path, table, images, columns):
    options = ["--weights", str(folder), "--data", str(folder), "--images", images, "--out", str(tmp_path)]
    own = {"barrier-1": ["--milp-seconds", "0"], "barrier-2": [], "frown-3": ["--lp-images", "1"]}[table]
    result = CliRunner().invoke(app, ["reproduce", table, *options, *own])
    assert result.exit_code == 0, result.output
    assert columns in result.stdout and "in brackets" in result.stdout
    kept = json.loads((tmp_path / f"{table}.json").read_text())
    assert kept["table"] == table and len(kept["rows"]) == {"barrier-1": 4, "barrier-2": 3, "frown-3": 6}[table]
    assert (tmp_path / f"{table}.svg").read_text().lstrip().startswith("<?xml")
    for row in kept["rows"]:
        if table == "barrier-2":
            assert row["proven"]["LP-GREEDY"] <= row["proven"]["LP-LAST"] <= row["proven"]["LP-ALL"]
        elif table == "frown-3":
            assert row["mean"]["least area"] <= min(row["mean"]["FROWN"], row["mean"]["full"], row["mean"]["LP"])


BAD = {
    "no weights": (lambda folder, tmp: weights_in(folder, "another"), "no weights of 'another'"),
    "no archive": (lambda folder, tmp: named_tensors(folder / "t10k-labels-idx1-ubyte"), "not a readable .npz archive"),
    "a vector": (lambda folder, tmp: network_of({"0.weight": torch.ones(3), "0.bias": torch.ones(3)}), "no weight of a linear"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_said_in_a_sentence(folder, tmp_path, name):
    call, words = BAD[name]
    with pytest.raises(SpecError, match=words):
        call(folder, tmp_path)


@pytest.mark.skipif(DATA is None, reason="BOUNDLAB_DATA names no folder with published weights")
def test_greedy_radii_are_the_published_ones():
    """Salman et al. 2019, Table 2: the search for radii stops at 1 %, on either side."""
    weights, images = Path(DATA) / "paper_models/lp_all_salman2019", read_idx_folder(Path(DATA) / "datasets/mnist").x
    name = "mnist_MLP_2_100_NOR"
    model = capture(network_of(named_tensors(weights_in(weights, name))), images[:2]).detached()
    row = distortion_row(name, model, images[list(TEN)], {"LP-GREEDY": GREEDY}, Search(attack=None), quiet)
    assert math.isclose(row.proven["LP-GREEDY"], BARRIER_2[name].greedy, rel_tol=0.015)
