"""Training for l_2 balls: which losses are bounds, what the further logit says, and what random projections estimate."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

import boundlab as bl
from boundlab import zoo
from boundlab.bounds.problem import problem_of
from boundlab.errors import MissingRule, SpecError
from boundlab.train.lipschitz import lower_margins
from boundlab.train.projections import estimated
from boundlab.train.recipe import recipe
from boundlab.train.step import objective
from tests.train.problems import clouds, network

BOUNDS = [bl.RobustBCP((0, 0)), bl.RobustLMT((0, 0)), bl.CAP()]
ALL = [*BOUNDS, bl.RobustBCP(), bl.GloRo(), bl.CAP(20)]


def problem(eps=0.1, norm=2.0, share=1.0, count=7, dtype=torch.float64):
    net = network().to(dtype).eval()
    data = clouds(count)
    x = data.x.to(dtype)
    return net, bl.Batch(bl.capture(net, x[:2]), x, data.labels, bl.Threat(eps, norm), share)


@pytest.mark.parametrize("method", BOUNDS, ids=repr)
@pytest.mark.parametrize("norm", [2.0, math.inf])
def test_a_loss_is_above_the_cross_entropy_at_every_point(method, norm):
    net, batch = problem(norm=norm)
    robust = method.loss(batch)
    for point in batch.threat.around(batch.x).sample(60, torch.Generator().manual_seed(0)):
        assert cross_entropy(net(point), batch.labels) <= robust + 1e-9


def test_the_worst_logits_by_bcp_cost_no_more_than_by_lmt_or_by_intervals():
    _, batch = problem(eps=0.4)
    values = [float(method.loss(batch).detach()) for method in (bl.RobustBCP((0, 0)), bl.RobustLMT((0, 0)), bl.RobustIBP())]
    assert values[0] < values[1] and values[0] < values[2]


@pytest.mark.parametrize("method", ALL, ids=repr)
def test_without_perturbation_a_loss_is_the_natural_one_or_a_tie_of_it(method):
    _, batch = problem(share=0.0)
    natural = bl.Natural().loss(batch)
    assert torch.allclose(objective(batch, method, bl.TrainingPlan(), torch.Generator()), natural)
    if not isinstance(method, bl.GloRo):
        assert torch.allclose(method.loss(batch), natural, rtol=1e-8)


def test_the_further_logit_is_largest_where_the_chosen_class_is_not_certain():
    for eps in (0.02, 0.1, 0.3):
        _, batch = problem(eps=eps, count=30)
        chosen = batch.logits.argmax(1)
        margin = lower_margins(batch, bl.LMT(), chosen).amin(1)
        rival = batch.logits.amax(1) - margin
        losses = cross_entropy(torch.cat([batch.logits, rival[:, None]], 1), batch.labels)
        assert torch.allclose(bl.GloRo().loss(batch), losses, rtol=1e-5)
        proven = bl.bound(batch.model, batch.threat.around(batch.x), method=bl.LMT(),
                          spec=bl.margins(chosen, 3, torch.float64)).lower.amin(1) > 0
        assert torch.equal(proven, rival < batch.logits.amax(1))


@pytest.mark.parametrize(("norm", "eps"), [(2.0, 0.5), (1.0, 0.5), (math.inf, 0.05)])
def test_a_loss_by_margins_is_above_the_one_at_every_point_of_a_network_that_is_1_lipschitz(norm, eps):
    torch.manual_seed(0)
    net, data = torch.nn.Sequential(torch.nn.Flatten(), zoo.AOLLinear(36, 8), zoo.MaxMin(8), zoo.AOLLinear(8, 3)), clouds(20)
    batch = bl.Batch(bl.capture(net, data.x), data.x, data.labels, bl.Threat(eps, norm), 1.0)
    whole, half = (bl.ByMargin(0.3, scale).loss(batch) for scale in (1.0, 0.5))
    for point in batch.sets.sample(100, torch.Generator().manual_seed(0)):
        assert 0.3 * cross_entropy(net(point) / 0.3, batch.labels) <= whole
    assert half < whole
    assert torch.allclose(bl.ByMargin(1.0, 0.0).loss(batch), bl.Natural().loss(batch))


@pytest.mark.parametrize("norm", [2.0, math.inf])
def test_projections_estimate_the_widths_that_exact_norms_give(norm):
    _, batch = problem(eps=0.05, norm=norm)
    ball = batch.threat.around(batch.x)
    asked = problem_of(batch.model.detached(), ball)
    found = estimated(asked, ball, 4000, torch.Generator().manual_seed(0))
    for node in batch.model.graph:
        if node.op == "relu":
            before = batch.model.detached().up_to(batch.model.graph[node.args[0]].name)
            exact = bl.bound(before, ball, method=bl.CROWN(alpha=bl.parallel, filter=None))
            ours, theirs = found[node.args[0]].radius.mean(), (exact.upper - exact.lower).mean() / 2
            assert float(ours) == pytest.approx(float(theirs), rel=0.05)


def test_equal_batches_have_equal_estimates_and_others_have_others():
    _, batch = problem()
    first, again = (bl.CAP(10).loss(batch) for _ in range(2))
    other = bl.CAP(10).loss(replace(batch, x=batch.x.roll(1, 2)))
    assert torch.equal(first, again) and not torch.equal(first, other)
    for make in (lambda: bl.ByMargin(0.0), lambda: bl.ByMargin(scale=-1.0), lambda: bl.ByMargin(math.inf)):
        with pytest.raises(SpecError, match="temperature"):
            make()
    with pytest.raises(SpecError, match="norm 1"):
        bl.CAP(10).loss(replace(batch, threat=bl.Threat(0.1, 1.0)))
    with pytest.raises(SpecError, match="random vectors"):
        bl.CAP(0)
    smooth = bl.capture(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 4), torch.nn.Sigmoid(),
                                            torch.nn.Linear(4, 3)).double(), batch.x[:2])
    with pytest.raises(MissingRule, match="parallel"):
        bl.CAP(10).loss(replace(batch, model=smooth))


@pytest.mark.parametrize("method", [bl.RobustBCP(), bl.RobustLMT(), bl.GloRo(), bl.CAP(10)], ids=repr)
def test_each_trains(method):
    torch.manual_seed(0)
    data = clouds(60)
    plan = bl.TrainingPlan(epochs=6, batch=8, rate=bl.Rate(1e-2), ramp=bl.Ramp(1, 4),
                           validation=bl.Validation(bl.HeldOut(0.2), bound=bl.BCP()))
    found = bl.fit(network(), data, method, eps=0.15, norm=2.0, plan=plan)
    held = bl.measure(found.model, data, bl.Threat(0.15, 2.0), {"BCP": bl.BCP(), "LMT": bl.LMT()}, bl.PGD(steps=5))
    assert held.clean >= held.attacked >= held.verified["BCP"] >= held.verified["LMT"]
    assert held.verified["BCP"] > 0.5


@pytest.mark.parametrize("name", ["bcp-mnist-small", "lmt-mnist-small", "ibp-mnist-small-l2", "cap-mnist-small",
                                  "gloro-mnist-small"])
def test_small_recipes_differ_in_their_method_alone(name):
    def rest(which):
        return recipe(which).model_dump(exclude={"method", "title", "source"})

    assert rest(name) == rest("bcp-mnist-small") and recipe(name).limits is None


def test_a_run_that_is_validated_by_bcp_can_go_on():
    # What a checkpoint knows a run by is the repr of its plan, which must be the same in every process.
    assert repr(bl.BCP()) == "BCP()" and repr(bl.LMT()) == "LMT()"
    plan = recipe("bcp-mnist-small").plan()
    assert " at 0x" not in repr(plan)
