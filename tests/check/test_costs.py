"""What check expects is what the engine does: work and memory are counted on real runs too, and times are not far off."""

import dataclasses
import time

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab import zoo
from boundlab.check.report import duration, scaled
from boundlab.check.tally import Speed, Tally, Work, measure_speed

NETWORKS = {"mlp-b": 4, "cnn-small-mnist": 3, "frown-4x20-sigmoid-drive": 5}
METHODS = {"IBP": bl.IBP(), "CROWN-IBP": bl.CROWN(intermediate=bl.IBP())}


def case_of(name, batch, radius=0.01):
    torch.manual_seed(0)
    module, record = zoo.build(name).eval(), zoo.record(name)
    x = torch.rand(batch, *record.shape)
    spec = bl.margins(torch.zeros(batch, dtype=torch.long), record.classes)
    return bl.capture(module, x).detached(), bl.Box(x - radius, x + radius), spec


def counted(model, box, method, spec=None):
    """The work and the peak memory of a real run."""
    with Tally() as tally, torch.no_grad():
        bl.bound(model, box, method=method, spec=spec)
    return tally.work, tally.peak


def held(model):
    return sum(value.numel() * value.element_size() for value in model.params.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_work_and_memory_are_those_of_a_real_run(name):
    batch = NETWORKS[name]
    model, box, spec = case_of(name, batch)
    costs = {cost.method: cost for cost in bl.check(model, batch=batch).costs}
    for label, method in METHODS.items():
        work, peak = counted(model, box, method, spec)
        expected = costs[label]
        assert expected.work.multiply_adds == pytest.approx(work.multiply_adds, rel=0.1)
        moved, expected_moved = work.near + work.far, expected.work.near + expected.work.far
        assert 0.4 < expected_moved / moved < 1.6 and 0.4 < expected.work.calls / work.calls < 1.6
        assert abs(expected.memory - held(model) - peak) < max(0.4 * peak, 2**16)
    assert costs["CROWN-IBP"].rows == batch * spec.rows.shape[1]


@pytest.mark.parametrize(("name", "batch"), [("mlp-b", 4), ("crown-ibp-a-mnist", 2), ("frown-4x20-sigmoid-drive", 5)])
def test_crown_at_most_bounds_the_work_where_all_neurons_are_open_and_where_few_are(name, batch):
    model, wide, spec = case_of(name, batch, radius=1.0)
    full = bl.check(model, batch=batch).costs[-1]
    opened, _ = counted(model, wide, bl.CROWN(filter=None), spec)
    assert 0.4 < full.work.multiply_adds / opened.multiply_adds < 3
    narrow = bl.Box(wide.box().center - 1e-5, wide.box().center + 1e-5)
    settled, _ = counted(model, narrow, bl.CROWN(filter=None), spec)
    assert settled.multiply_adds <= 1.05 * full.work.multiply_adds


def test_work_grows_with_batch_and_rows():
    model, _, _ = case_of("cnn-small-mnist", 1)
    one, two, rows = (bl.check(model, batch=batch, rows=count).costs for batch, count in ((1, 9), (2, 9), (1, 36)))
    for before, after in zip(one, two, strict=True):
        assert after.work.multiply_adds > 1.5 * before.work.multiply_adds and after.memory > before.memory
    assert rows[1].work.multiply_adds > 2 * one[1].work.multiply_adds
    assert rows[0].work.multiply_adds > one[0].work.multiply_adds


def test_a_tally_counts_by_hand():
    """A product of 3x4 and 4x5, an elementwise sum of ten numbers, a view, and memory that is freed again."""
    for device in ("cpu", "meta"):
        a, b, c = (torch.empty(size, device=device) for size in ((3, 4), (4, 5), (10,)))
        with Tally() as tally:
            product = a @ b
            product.reshape(15)
            c + c
        assert tally.work == Work(products=60, near=4 * (12 + 20 + 15) + 4 * 30, calls=2)
        assert (tally.alive, tally.peak) == (60, 100)
        with Tally() as tally:
            product.addmm_(a, b)
        assert tally.work.products == 60
        kernel, image = torch.empty(2, 1, 3, 3, device=device), torch.empty(1, 1, 4, 4, device=device)
        with Tally() as tally:
            torch.nn.functional.conv2d(image, kernel)
        assert tally.work.convolutions == 2 * 4 * 9 and tally.work.products == 0
    assert Work(calls=3).then(Work(calls=2), 2.0).since(Work(calls=1)).calls == 6


def test_speed_is_measured_and_turned_into_seconds():
    start = time.perf_counter()
    speed = measure_speed(torch.device("cpu"), torch.float32)
    assert time.perf_counter() - start < 10  # half a second on a machine that does nothing else
    assert all(value > 0 for value in dataclasses.astuple(speed))
    made = Speed(1e9, 2e9, 4e9, 1e9, 5e8, 1e-6)
    assert made.seconds(Work(10**9, 10**9, 4 * 10**9, 10**9, 5 * 10**8, 0, 0)) == pytest.approx(1 + 0.5 + 1 + 1 + 1)
    assert made.seconds(Work(calls=100)) > 1e-4


def test_numbers_are_printed_short():
    assert [scaled(number) for number in (0, 7, 999, 1000, 1234567, 3e13)] == ["-", "7", "999", "1k", "1.23M", "30T"]
    assert [duration(number) for number in (0.00123, 1.26, 99.9, 1234.0)] == ["0.0012", "1.3", "1e+02", "1200"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crown-ibp-b-mnist", "4c3f-cifar", "cnn7-bn-cifar", "frown-4x2048-relu-cifar", "wrn-cifar",
                                  "transformer-sst2"])
def test_expected_seconds_are_not_far_from_measured_ones(name):
    """A factor of 3 on a machine of one's own; twice that here, where others may be at work."""
    batch = 8
    model, box, spec = case_of(name, batch, 1e-3)
    costs = {cost.method: cost.seconds for cost in bl.check(model, batch=batch).costs}
    for label, method in METHODS.items():
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            bl.bound(model, box, method=method, spec=spec)
            seconds.append(time.perf_counter() - start)
        assert 1 / 6 < costs[label] / min(seconds) < 6, label


def test_an_operator_of_a_user_is_counted_too():
    """Nothing is told of an operator's cost; its rules are run without data."""
    module = nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1), nn.Linear(8, 2))
    report = bl.check(module, torch.rand(4, 8))
    assert report.costs[1].work.calls > report.costs[0].work.calls > 0


def test_products_of_two_varying_matrices_are_counted_though_their_rule_looks_at_signs():
    class Scores(nn.Module):
        def forward(self, x):
            return (x @ x.mT).flatten(1)

    report = bl.check(Scores(), torch.rand(4, 3, 5))
    assert [cost.method for cost in report.costs[:2]] == ["IBP", "CROWN-IBP"]
    assert report.costs[0].work.calls > 0
