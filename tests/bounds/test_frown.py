"""Inner bounds that are optimised, too: tighter, sound, the same alone and in a batch, whatever is shared or stopped."""

import time

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.evaluate import evaluate_all
from boundlab.interval import Interval
from tests.bounds.test_optimise import NETWORKS, D, case

SETTINGS = {
    "neurons": {}, "groups": {"group": 3}, "patience": {"patience": 2, "tolerance": 0.05}, "all slopes": {"space": bl.Full()},
    "multipliers": {"space": bl.Lagrangian()},
}


def frown(**settings):
    return bl.Optimised(**{"steps": 4, "rate": 0.2, "inner": True, **settings})


def spec_of(model, region):
    return bl.margins(bl.evaluate(model, region.box().center).argmax(1), 3, dtype=D)


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "relu" else pytest.mark.slow) for name in NETWORKS])
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_node_is_bounded_no_looser_than_by_crown_and_soundly(name, setting):
    _, model, region = case(name)
    spec, method = spec_of(model, region), frown(**SETTINGS[setting])
    plain, found = (bl.bound(model, region, method=one, spec=spec) for one in (bl.CROWN(), method))
    points = region.sample(300, torch.Generator().manual_seed(2))
    values = evaluate_all(model, {model.graph.inputs[0].name: points.flatten(0, 1)})
    for index, interval in found.env.items():
        if isinstance(interval, Interval):
            value = values[index].unflatten(0, points.shape[:2])
            assert bool((interval.lower <= value + 1e-9).all()) and bool((value <= interval.upper + 1e-9).all())
            assert bool((interval.lower >= plain.env[index].lower - 1e-12).all())
            assert bool((interval.upper <= plain.env[index].upper + 1e-12).all())
    value = values[model.graph.output.index].unflatten(0, points.shape[:2])
    assert bool((found.lower <= torch.einsum("bso,nbo->nbs", spec.rows, value).amin(0) + 1e-9).all())
    assert bool((found.lower >= plain.lower - 1e-12).all())


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_inner_bounds_become_tighter_and_rows_with_them(name):
    _, model, region = case(name)
    spec = spec_of(model, region)
    rows, both = (bl.bound(model, region, method=bl.Optimised(inner=inner), spec=spec) for inner in (False, True))

    def width(bounds):
        return sum(one.width.sum() for one in bounds.env.values() if isinstance(one, Interval))

    assert width(both) < 0.995 * width(rows) and both.lower.sum() > rows.lower.sum()


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_problem_alone_is_the_same_as_in_a_batch_and_in_parts(setting):
    _, model, region = case("relu", batch=4)
    spec, settings = spec_of(model, region), SETTINGS[setting] | {"enough": 0.0}
    near = 1e-3 if setting in ("multipliers", "all slopes") else 1e-7  # these begin at kinks, where rounding may decide
    whole = bl.bound(model, region, method=frown(**settings), spec=spec)
    parts = bl.bound(model, region, method=frown(memory=3000, **settings), spec=spec)
    assert torch.allclose(parts.lower, whole.lower, atol=near)
    for place in range(4):
        one = torch.tensor([place])
        alone = bl.bound(model, region.take(one), method=frown(**settings), spec=bl.at_least(spec.rows[one]))
        assert torch.allclose(alone.lower[0], whole.lower[place], atol=near)
        for index, interval in alone.env.items():
            if isinstance(interval, Interval):
                assert torch.allclose(interval.lower[0], whole.env[index].lower[place], atol=near)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_single_precision_agrees(name):
    _, model, region = case(name)
    spec = spec_of(model, region)
    double = bl.bound(model, region, method=frown(), spec=spec).lower
    single = bl.bound(model.to(torch.float32), bl.LpBall(region.center.float(), region.eps), method=frown(),
                      spec=bl.at_least(spec.rows.float())).lower
    assert torch.allclose(single.double(), double, atol=2e-2 * double.abs().max().item())


def test_rows_that_are_proven_stop_and_no_verdict_changes():
    _, model, region = case("relu", batch=8, radius=0.6)
    spec = spec_of(model, region)
    plain, all_rows, some = (bl.bound(model, region, method=method, spec=spec).lower for method in
                             (bl.CROWN(), bl.Optimised(), bl.Optimised(enough=0.0)))
    proven = plain > 0
    assert bool(proven.any()) and not bool(proven.all())
    assert torch.allclose(some[proven], plain[proven]) and bool((all_rows[proven] > plain[proven] + 1e-3).any())
    open_ = all_rows <= 0
    assert torch.equal(some > 0, all_rows > 0) and torch.allclose(some[open_], all_rows[open_])


def test_it_begins_where_another_run_ended():
    _, model, region = case("relu")
    spec = spec_of(model, region)
    found = bl.bound(model, region, method=bl.Optimised(), spec=spec)
    again = bl.bound(model, region, method=bl.Optimised(steps=1, rate=1e-9, start=found.variables), spec=spec)
    assert bool((again.lower >= found.lower - 1e-9).all())
    nearby = bl.LpBall(region.center, region.eps * 1.1)
    warm, cold = (bl.bound(model, nearby, method=bl.Optimised(steps=1, start=start), spec=spec).lower
                  for start in (found.variables, None))
    assert warm.sum() > cold.sum()
    warmed, ball = bl.Optimised(steps=1, start=found.variables), bl.LpBall(region.center.float(), region.eps)
    single = bl.bound(model.to(torch.float32), ball, method=warmed, spec=bl.at_least(spec.rows.float())).lower
    assert single.dtype == torch.float32 and torch.allclose(single.double(), found.lower, atol=1e-2)
    with pytest.raises(bl.SpecError, match="start holds variables of \\[6\\] groups of rows, the question has 4"):
        bl.bound(model, region.take(torch.arange(2)), method=bl.Optimised(start=found.variables),
                 spec=bl.at_least(spec.rows[:2]))


def intervals(bounds):
    return {index: one for index, one in bounds.env.items() if isinstance(one, Interval)}


@pytest.mark.parametrize("setting", [{}, {"group": 3}, {"space": bl.Full()}, {"space": bl.Lagrangian()},
                                     {"space": bl.Lagrangian(), "group": 2}], ids=str)
@pytest.mark.parametrize("with_spec", [True, False])
def test_neurons_begin_where_another_run_ended(setting, with_spec):
    """Without steps kept variables give the same bounds again where each neuron has its own, and better ones than none."""
    _, model, region = case("relu")
    spec = spec_of(model, region) if with_spec else None
    kept = bl.bound(model, region, method=frown(steps=6, keep=True, **setting), spec=spec)
    again, cold = (bl.bound(model, region, method=frown(steps=0, start=start, keep=True, **setting), spec=spec)
                   for start in (kept.variables, None))
    first, second, plain = map(intervals, (kept, again, cold))
    if "group" not in setting:
        assert all(torch.allclose(first[index].lower, second[index].lower, atol=1e-9) for index in first)
        assert all(torch.allclose(first[index].upper, second[index].upper, atol=1e-9) for index in first)
        assert torch.allclose(kept.lower, again.lower, atol=1e-9)
    assert sum(one.width.sum() for one in second.values()) < sum(one.width.sum() for one in plain.values()) - 1e-3
    assert bool((again.lower >= cold.lower - 1e-12).all()) and bool((again.lower > cold.lower + 1e-3).any())


def test_a_start_of_neurons_serves_other_radii_and_neurons_that_it_does_not_know():
    module, model, region = case("relu", radius=0.2)
    spec = spec_of(model, region)
    kept = bl.bound(model, region, method=frown(steps=20, keep=True), spec=spec).variables
    wider = bl.LpBall(region.center, 0.3)
    known, fresh = (one.neurons for one in (kept, bl.bound(model, wider, method=frown(keep=True), spec=spec).variables))
    assert any(bool(((known[node].group < 0) & (fresh[node].group >= 0)).any()) for node in fresh)
    warm, cold = (bl.bound(model, wider, method=frown(steps=1, rate=0.1, start=start), spec=spec) for start in (kept, None))
    assert sum(one.width.sum() for one in intervals(warm).values()) < sum(one.width.sum() for one in intervals(cold).values())
    plain = intervals(bl.bound(model, wider, spec=spec))
    assert all(bool((one.lower >= plain[index].lower - 1e-12).all()) for index, one in intervals(warm).items())
    values = module(wider.sample(500).flatten(0, 1)).unflatten(0, (500, 3))
    assert bool((warm.lower <= torch.einsum("bso,nbo->nbs", spec.rows, values).amin(0) + 1e-9).all())


def test_a_start_that_does_not_fit_is_refused():
    _, model, region = case("relu")
    spec = spec_of(model, region)
    start = bl.bound(model, region, method=frown(keep=True), spec=spec).variables
    with pytest.raises(bl.SpecError, match=r"start holds variables of \[3, 12\] \(problems, neurons\)"):
        bl.bound(model, region.take(torch.arange(2)), method=frown(start=start), spec=bl.at_least(spec.rows[:2]))
    torch.manual_seed(0)
    layers = torch.nn.Linear(4, 9), torch.nn.ReLU(), torch.nn.Linear(9, 9), torch.nn.ReLU(), torch.nn.Linear(9, 3)
    other = bl.capture(torch.nn.Sequential(*layers).double(), region.center).detached()
    with pytest.raises(bl.SpecError, match=r"of shape \[1, 12\] for node \d+, which has \[1, 9\]"):
        bl.bound(other, region, method=bl.Optimised(start=start), spec=spec)
    with pytest.raises(bl.SpecError, match="start are the `variables` of earlier bounds, got Tensor"):
        bl.Optimised(start=spec.rows)
    with pytest.raises(bl.SpecError, match="a space is a value"):
        bl.Optimised(space=bl.Full)


def test_a_group_that_gains_nothing_stops_early():
    _, model, region = case("relu")
    spec = spec_of(model, region)
    plain, stopped, free = (bl.bound(model, region, method=method, spec=spec).lower for method in (
        bl.CROWN(), bl.Optimised(patience=1, tolerance=1e6, steps=50), bl.Optimised(steps=50)))
    assert torch.allclose(stopped, plain, atol=1e-12) and bool((free > stopped + 1e-3).any())


class Branches(torch.nn.Module):
    """Two branches: the second one's neurons depend on no function of the first one's."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.middle, self.last = (torch.nn.Linear(*size) for size in ((3, 4), (3, 4), (4, 4), (8, 2)))

    def forward(self, x):
        branches = self.middle(torch.relu(self.first(x))), self.middle(self.second(x))
        return self.last(torch.relu(torch.cat(branches, 1))) + torch.relu(branches[1])[:, :2]


@pytest.mark.parametrize("setting", SETTINGS)
def test_branches_that_depend_on_no_variable(setting):
    torch.manual_seed(0)
    module = Branches().double()
    model, ball = bl.capture(module, torch.zeros(1, 3, dtype=D)).detached(), bl.LpBall(torch.zeros(2, 3, dtype=D), 0.5)
    found, plain = (bl.bound(model, ball, method=method) for method in (frown(**SETTINGS[setting]), bl.CROWN()))
    values = module(ball.sample(500).flatten(0, 1)).unflatten(0, (500, 2))
    assert bool((found.lower <= values + 1e-9).all()) and bool((values <= found.upper + 1e-9).all())
    assert bool((found.lower >= plain.lower - 1e-12).all()) and bool((found.upper <= plain.upper + 1e-12).all())


@pytest.mark.parametrize("wrong", [{"group": 0}, {"patience": 0}])
def test_bad_numbers_are_refused(wrong):
    with pytest.raises(bl.SpecError, match="both at least 1"):
        bl.Optimised(**wrong)
    with pytest.raises(bl.SpecError, match="decay is a factor above 0"):
        bl.Optimised(decay=1.5)


def test_after_the_deadline_nothing_climbs():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 3))
    model, x = bl.capture(module, torch.zeros(2, 4)).detached(), torch.randn(2, 4)
    ball, spec = bl.LpBall(x, 0.5), bl.margins(torch.tensor([0, 1]), 3)
    plain = bl.bound(model, ball, method=bl.CROWN(), spec=spec).lower
    late = bl.bound(model, ball, method=bl.Optimised(inner=True, deadline=time.perf_counter()), spec=spec).lower
    timely = bl.bound(model, ball, method=bl.Optimised(inner=True, deadline=time.perf_counter() + 1000), spec=spec).lower
    torch.testing.assert_close(late, plain)
    assert torch.equal(timely, bl.bound(model, ball, method=bl.Optimised(inner=True), spec=spec).lower)
    assert bool((timely > plain).any())
