"""Training against weights that vary: bounds hold for every network in the balls, and lower the proven loss there."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import boundlab as bl
from boundlab.errors import SpecError
from boundlab.train.batch import Batch
from boundlab.train.landscape import landscape
from boundlab.train.losses import fused_loss, mixed_loss
from boundlab.train.step import in_parts
from boundlab.train.weights import WeightThreat, flatness, named_values
from tests.train.problems import clouds

PLAN = bl.TrainingPlan(epochs=12, batch=25, rate=bl.Rate(1e-2), ramp=bl.Ramp(2, 8), validation=None)
FLAT = bl.CrownIBP(crown_weight=(1, 1), fused=True)
THREATS = [WeightThreat(0.05), WeightThreat(0.02, joint=True), WeightThreat(0.01, ("*.weight", "5.bias"), relative=True),
           WeightThreat(0.004, norm=float("inf"))]


def perceptron(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def problem(threat, share=1.0, count=9):
    net, data = perceptron().double(), clouds(count)
    model = bl.capture(net, data.x[:2].double())
    return net, Batch(model, data.x.double(), data.labels, threat, share)


def sampled(batch, count):
    """Parameters by name, drawn from the balls."""
    balls = batch.threat.balls(batch.model.detached(), batch.share)
    drawn = {key: ball.sample(count, torch.Generator().manual_seed(0)) for key, ball in balls.items()}
    for place in range(count):
        yield {name: value[0] for name, value in named_values(batch.model, {key: some[place] for key, some in drawn.items()})}


@pytest.mark.parametrize("threat", THREATS, ids=repr)
@pytest.mark.parametrize("share", [0.4, 1.0])
def test_no_network_in_the_balls_loses_more_than_the_bound_of_any_example(threat, share):
    net, batch = problem(threat, share, count=5)
    found = torch.stack([cross_entropy(functional_call(net, weights, batch.x), batch.labels, reduction="none")
                         for weights in sampled(batch, 40)]).detach()
    each = [replace(batch, x=batch.x[place:place + 1], labels=batch.labels[place:place + 1]) for place in range(len(batch.x))]
    for loss in (fused_loss, mixed_loss):
        for weight in (0.0, 0.7, 1.0):
            bounds = torch.stack([loss(one.question, weight).detach() for one in each])
            torch.testing.assert_close(loss(batch.question, weight).detach(), bounds.mean())
            assert (found <= bounds + 1e-9).all()


@pytest.mark.parametrize("threat", THREATS, ids=repr)
def test_flatness_is_in_order_and_the_ascent_stays_inside(threat):
    _, batch = problem(threat, count=30)
    data = bl.Examples(batch.x.float(), batch.labels)
    found = flatness(batch.model, data, threat)
    assert found.loss < found.reached < found.certified
    small = flatness(batch.model, data, replace(threat, eps=threat.eps / 10))
    assert small.loss == found.loss and small.reached < found.reached and small.certified < found.certified


def test_the_gradient_is_that_of_the_bound_with_balls_that_move_along():
    net, batch = problem(WeightThreat(0.02, relative=True), count=4)
    fused_loss(batch.question, 1.0).backward()
    for parameter in net.parameters():
        way = torch.randn(parameter.shape, dtype=parameter.dtype, generator=torch.Generator().manual_seed(1))
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.add_(way, alpha=step)
                ends.append(fused_loss(replace(batch).question, 1.0))
                parameter.sub_(way, alpha=step)
        torch.testing.assert_close((parameter.grad * way).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-4, atol=1e-7)


def test_parts_of_a_batch_add_up_to_the_step_of_the_whole():
    steps = []
    for size in (9, 4):
        net, batch = problem(WeightThreat(0.05))
        in_parts(batch, FLAT, size, bl.Processes()).backward()
        steps.append([parameter.grad for parameter in net.parameters()])
    for whole, parts in zip(*steps, strict=True):
        torch.testing.assert_close(whole, parts)


def test_training_lowers_the_loss_that_is_proven_around_the_weights():
    threat, proven = WeightThreat(0.15), {}
    for name, method in (("natural", bl.Natural()), ("flat", FLAT)):
        found = bl.fit_against(perceptron(), clouds(160), method, threat, PLAN)
        proven[name] = flatness(found.model, clouds(80, seed=1), threat)
    assert proven["natural"].accuracy > 0.9 and found.history[-1].eps == pytest.approx(0.15)
    assert proven["flat"].certified < 0.7 * proven["natural"].certified


def test_measure_counts_what_is_proven_and_what_a_search_over_weights_breaks():
    threat, data, search = WeightThreat(0.05), clouds(100), bl.PGD(steps=5, restarts=1, targets=0)
    found = bl.fit_against(perceptron(), data, FLAT, threat, replace(PLAN, validation=bl.Validation(every=12)))
    last = found.history[-1]
    assert last.clean >= last.attacked >= last.verified > 0.3
    measured = bl.measure(found.model, data.take(range(20)), threat, {"CROWN": bl.CROWN()}, search)
    assert not (measured.proven["CROWN"] & ~measured.survived).any()


def test_methods_that_need_balls_of_inputs_say_so():
    for method in (bl.SABR(), bl.Adversarial(), bl.MTLIBP()):
        with pytest.raises(SpecError, match="around the inputs"):
            bl.fit_against(perceptron(), clouds(40), method, WeightThreat(0.1), PLAN)


@pytest.mark.parametrize("wrong", [
    {"eps": -1.0}, {"eps": float("nan")}, {"eps": 0.1, "norm": 0.5}, {"eps": 0.1, "names": ()},
    {"eps": "small"}, {"eps": 0.1, "norm": "2"}], ids=repr)
def test_balls_that_cannot_be_are_refused(wrong):
    with pytest.raises(SpecError):
        WeightThreat(**wrong)


def test_names_that_no_parameter_has_are_refused_before_training():
    with pytest.raises(SpecError, match="no parameter 'x'"):
        bl.fit_against(perceptron(), clouds(40), FLAT, WeightThreat(0.1, ("x",)), PLAN)


@pytest.mark.parametrize("threat", [WeightThreat(0.1), WeightThreat(0.05, joint=True)], ids=repr)
def test_a_landscape_has_the_weights_in_its_middle_and_the_worst_ones_one_step_away(threat):
    _, batch = problem(threat, count=30)
    data = bl.Examples(batch.x.float(), batch.labels)
    found, flat = landscape(batch.model, data, threat, points=5), flatness(batch.model, data, threat)
    assert found.steps.tolist() == [-2, -1, 0, 1, 2] and found.loss.shape == (5, 5)
    assert float(found.loss[2, 2]) == pytest.approx(flat.loss) and float(found.loss[3, 2]) == pytest.approx(flat.reached)
    assert float(found.loss[2, 3]) <= flat.certified
    with pytest.raises(SpecError, match="odd"):
        landscape(batch.model, data, threat, points=4)
