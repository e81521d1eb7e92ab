"""The commands about linear programs, on small networks under the published names, and the arithmetic behind their tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.barrier import PUBLISHED, Experiment, comparison
from benchmarks.programs import IMAGES, WEIGHTS, Case, Layer, Setting, Spent, measure
from boundlab.reproduce.published import BARRIER_1


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four noisy images, and networks of a few neurons under the names of Table 1."""
    folder, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for part in (WEIGHTS, IMAGES):
        (folder / part).mkdir(parents=True)
    digits = {"t10k-images-idx3-ubyte": draw.integers(0, 256, (4, 28, 28)), "t10k-labels-idx1-ubyte": np.arange(4)}
    for stem, array in digits.items():
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        (folder / IMAGES / stem).write_bytes(head + array.astype(np.uint8).tobytes())
    for name, _ in BARRIER_1:
        arrays = {}
        for place, (rows, columns) in enumerate(((6, 784), (6, 6), (10, 6))):
            arrays |= {f"{place}.weight": draw.normal(size=(rows, columns)).astype(np.float32) / math.sqrt(columns),
                       f"{place}.bias": np.zeros(rows, np.float32)}
        np.savez(folder / WEIGHTS / f"{name}.pth.npz", **arrays)
    return folder


def test_a_case_counts_its_programs(data):
    case = measure(Setting("NOR_MLP_B", 0.3, (0, 1), None), data)
    inner, last = case.layers
    assert (inner.rows, last.rows, case.neurons) == (False, True, 12)
    neurons = sum(spent.functions for spent in inner.tasks)
    assert 0 < neurons <= inner.programs <= 2 * neurons and last.programs == 2 * 9
    assert 0 <= case.driver <= case.seconds and all(spent.size[1] > 784 for spent in inner.tasks)


def test_the_command_prints_its_tables(data):
    outcome = CliRunner().invoke(app, ["programs", "--data", str(data), "--errors", "2", "--radii", "0"])
    assert outcome.exit_code == 0, outcome.output
    assert outcome.output.count("| rows |") >= 1 and "| 1000 |" in outcome.output and "CPU hours, one" in outcome.output


@pytest.mark.slow
def test_one_and_two_workers_take_turns(data):
    outcome = CliRunner().invoke(app, ["workers", "--data", str(data), "--images", "2", "--repeat", "1"])
    assert outcome.exit_code == 0 and "| one, wall s | two, wall s |" in outcome.output, outcome.output


def made_up(seconds: float, images: int) -> Case:
    """A case of one layer, in which each image has one task of one program."""
    spent = Spent(1, (1, 1, 1), np.array([seconds, seconds]), np.array([[seconds, seconds]]), 0)
    return Case(Setting("", 0.1, tuple(range(images)), 0.0), [Layer(False, [spent] * images)], images * (seconds + 0.5), 4)


def test_rows_that_were_not_measured_cost_what_the_costliest_does():
    cases = made_up(1.0, 2), made_up(3.0, 4)
    found = Experiment("", cases, rows=5, images=8, rounds=2)
    assert found.measured == 2 * 8 * (1.5 + 3.5) and found.unmeasured == 2 * 8 * 3 * 3.5
    assert found.driver == pytest.approx(2 * 8 * 5 * 0.5) and found.programs == 2 * 8 * 5
    assert found.all_programs == 2 * 8 * 5 * (2 * 4 + 9)
    (first, second) = found.layers()
    assert first == second and sorted(first) == [1.0] * 8 + [3.0] * 32
    assert f"{PUBLISHED / (found.measured + found.unmeasured):,.0f}th" in comparison([found])
