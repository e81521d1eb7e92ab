"""Averaged weights: they are the mean of the weights on the way, training goes on without them, and a run can be resumed."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from boundlab.errors import SpecError
from boundlab.train.averaging import Average, Averaging
from boundlab.train.checkpoint import opened, weights_of
from boundlab.train.fit import fit
from boundlab.train.methods import RobustIBP
from boundlab.train.plan import Keep, Statistics, TrainingPlan, Validation
from boundlab.train.recipe import parsed
from boundlab.train.schedule import Ramp, Rate
from tests.train.problems import clouds, network
from tests.train.test_fit import same, timeless, weights
from tests.train.test_recipes import SMALL

PLAN = TrainingPlan(epochs=5, batch=32, rate=Rate(1e-2), ramp=Ramp(1, 3), validation=None)


def trained(averaging, plan=PLAN, seed=0, norm=False):
    return fit(network(seed, norm=norm), clouds(), RobustIBP(), eps=0.05, plan=replace(plan, averaging=averaging))


def epochs_of():
    """Weights of a plain run after each of its epochs."""
    net, found = network(), []
    fit(net, clouds(), RobustIBP(), eps=0.05, plan=replace(PLAN, tell=lambda epoch: found.append(weights(net))))
    return found


def test_the_plain_mean_is_that_of_the_weights_after_each_step_that_counts():
    steps = -(-len(clouds()) // PLAN.batch)
    after = epochs_of()[2:]
    found = weights(trained(Averaging(2.0, every=steps)).module)
    for name, value in found.items():
        assert torch.allclose(value, torch.stack([one[name] for one in after]).mean(0), atol=1e-6), name


def test_an_exponential_mean_forgets():
    steps = -(-len(clouds()) // PLAN.batch)
    after = epochs_of()[2:]
    found = weights(trained(Averaging(2.0, every=steps, decay=0.75)).module)
    for name, value in found.items():
        expected = after[0][name]
        for one in after[1:]:
            expected = 0.75 * expected + 0.25 * one[name]
        assert torch.allclose(value, expected, atol=1e-6), name


def test_the_mean_of_one_is_itself_and_training_goes_on_without_it():
    plain = trained(None)
    assert same(weights(trained(Averaging(0.0, decay=0.0)).module), weights(plain.module))
    assert [epoch.loss for epoch in trained(Averaging(0.0)).history] == [epoch.loss for epoch in plain.history]


@pytest.mark.parametrize(("best", "statistics"), [(False, Statistics.CLEAN), (True, Statistics.POPULATION)])
def test_a_run_that_was_interrupted_ends_with_the_same_bits(tmp_path, best, statistics):
    plan = replace(PLAN, statistics=statistics, validation=Validation(best=best))
    averaging = Averaging(1.5, every=2)
    whole = trained(averaging, plan, norm=True)

    def interrupt(epoch):
        if epoch.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(averaging, replace(plan, keep=Keep(tmp_path), tell=interrupt), norm=True)
    resumed = trained(averaging, replace(plan, keep=Keep(tmp_path, resume=True)), seed=5, norm=True)
    assert same(weights(whole.module), weights(resumed.module)) and timeless(whole.history) == timeless(resumed.history)
    assert whole.chosen == resumed.chosen
    assert same(weights(whole.module), weights_of(*opened(tmp_path / "checkpoint.safetensors", tensors=True)))


def test_running_statistics_are_those_of_the_averaged_network():
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 3))  # before all weights: those of the data
    data = clouds()
    fit(net, data, RobustIBP(), eps=0.05, plan=replace(PLAN, batch=len(data), averaging=Averaging(0.0)))
    assert torch.allclose(net[1].running_mean, data.x.flatten(1).mean(0), atol=1e-5)
    assert torch.allclose(net[1].running_var, data.x.flatten(1).var(0), atol=1e-5)


def test_what_is_validated_is_the_mean():
    held = []
    plan = replace(PLAN, validation=Validation(), tell=held.append)
    trained(Averaging(0.0, decay=0.9999), plan)  # the first weights, for the most part
    other = []
    trained(None, replace(plan, tell=other.append))
    assert held[0].loss == other[0].loss and held[-1].verified != other[-1].verified


@pytest.mark.parametrize("averaging", [Averaging(4.99), Averaging(0, every=21), Averaging(4.6, every=11)])
def test_a_mean_of_no_weights_is_refused(averaging):
    net = network()
    assert not Average.of(net).begun
    before = weights(net)
    with pytest.raises(SpecError, match="of 20 steps none counts"):
        fit(net, clouds(), RobustIBP(), eps=0.05, plan=replace(PLAN, averaging=averaging))
    assert same(before, weights(net))


def test_a_mean_of_the_last_step_is_that_step():
    assert same(weights(trained(Averaging(4.75, every=20)).module), weights(trained(None).module))


def test_bad_requests_are_refused():
    for make in (lambda: Averaging(-1.0), lambda: Averaging(0.0, every=0), lambda: Averaging(0.0, decay=1.0),
                 lambda: Averaging(float("nan")), lambda: replace(PLAN, averaging=Averaging(5.0))):
        with pytest.raises(SpecError):
            make()


def test_a_recipe_may_average():
    assert parsed("averaging = { start = 2, decay = 0.9 }\n" + SMALL, "one").plan().averaging == Averaging(2, decay=0.9)
