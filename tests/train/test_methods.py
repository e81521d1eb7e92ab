"""Laws of the training losses: what they are above, what they lie between, and that parts of a batch add up."""

import copy
import functools
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

import boundlab as bl
from boundlab.errors import ShapeError, SpecError
from boundlab.train.adversary import Ascent
from boundlab.train.batch import Batch, Threat
from boundlab.train.methods import CCIBP, MTLIBP, SABR, Adversarial, CrownIBP, ExpIBP, Natural, RobustIBP
from boundlab.train.plan import Statistics, TrainingPlan
from boundlab.train.regularisers import L1, Calm, initialise_for_ibp
from boundlab.train.step import objective, with_statistics_of
from tests.train.directional import along_directions
from tests.train.problems import clouds, network

PROVING = [RobustIBP(), CrownIBP((1, 1)), CrownIBP((1, 0)), CrownIBP((1, 1), fused=True), CrownIBP((1, 0), fused=True),
           MTLIBP(ibp_weight=1.0), CCIBP(ibp_weight=1.0), ExpIBP(ibp_weight=1.0)]
ALL = [*PROVING, Natural(), Adversarial(Ascent(3)), RobustIBP((1.0, 0.5)), CrownIBP((1, 0), (0.3, 0.6)), SABR(0.3),
       MTLIBP(0.4, 1.5), CCIBP(0.4), ExpIBP(0.4)]


@functools.cache
def captured(norm):
    """A network and its model, which tests share: capture takes longer than they do."""
    net = network(norm=norm).double().eval()
    return net, bl.capture(net, clouds(2).x.double())


def problem(norm=False, eps=0.05, share=0.5, count=11, threat=None):
    (net, model), data = captured(norm), clouds(count)
    net.zero_grad()
    return net, Batch(model, data.x.double(), data.labels, threat or Threat(eps, clip=(0.0, 1.0)), share)


def number(loss):
    return float(loss.detach())


def searched(method, batch, seed=0):
    return replace(batch, points=method.search(batch, torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("method", PROVING, ids=repr)
@pytest.mark.parametrize("norm", [float("inf"), 2.0])
def test_a_robust_loss_is_above_the_cross_entropy_at_every_point(method, norm):
    net, batch = problem(threat=Threat(0.1, norm, (0.0, 1.0)))
    robust = method.loss(searched(method, batch))
    for point in batch.threat.around(batch.x, batch.share).sample(60, torch.Generator().manual_seed(0)):
        assert cross_entropy(net(point), batch.labels) <= robust + 1e-9


@pytest.mark.parametrize("kind", [MTLIBP, CCIBP, ExpIBP])
def test_expressive_losses_go_from_the_attack_to_the_bound(kind):
    _, batch = problem()
    batch = searched(kind(), batch)
    values = [number(kind(ibp_weight=weight).loss(batch)) for weight in (0.0, 0.2, 0.6, 1.0)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(number(Adversarial().loss(batch)))
    assert values[-1] == pytest.approx(number(RobustIBP().loss(batch)))


def test_a_small_box_costs_no_more_than_the_whole_and_the_largest_is_the_whole():
    _, batch = problem()
    batch = searched(SABR(), batch)
    values = [number(SABR(part).loss(batch)) for part in (0.0, 0.2, 0.7, 1.0)]
    assert values[0] == pytest.approx(number(Adversarial().loss(batch)))
    assert values[-1] == pytest.approx(number(RobustIBP().loss(batch)))
    assert max(values) == values[-1]


@pytest.mark.parametrize("attack", [Ascent(1, 10.0), Ascent(8)])
def test_an_attack_stays_in_its_set_and_raises_the_loss(attack):
    net, batch = problem(eps=0.2, share=1.0)
    region = batch.threat.around(batch.x)
    point = attack.points(batch.model, region, batch.labels, torch.Generator().manual_seed(0))
    assert region.box().contains(point).all()
    assert cross_entropy(net(point), batch.labels) > cross_entropy(net(batch.x), batch.labels)
    assert (point != batch.x).any() and not torch.equal(point[0] - batch.x[0], point[1] - batch.x[1])


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch norm"])
@pytest.mark.parametrize("method", ALL, ids=repr)
def test_parts_of_a_batch_lose_nothing(method, norm):
    plan = TrainingPlan(regularisers=(L1(1e-3), Calm()))
    found = []
    for micro in (None, 4):
        net, batch = problem(norm)
        batch = with_statistics_of(batch, Statistics.CLEAN)
        loss = objective(batch, method, replace(plan, micro=micro), torch.Generator().manual_seed(1))
        loss.backward()
        found.append((loss.detach(), [parameter.grad.clone() for parameter in net.parameters()]))
    for loss, gradients in found[1:]:
        assert torch.allclose(loss, found[0][0], rtol=1e-10)
        for ours, theirs in zip(gradients, found[0][1], strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("method", ALL, ids=repr)
def test_gradients_agree_with_finite_differences(method):
    net, batch = problem()
    batch = searched(method, batch)
    method.loss(batch).backward()
    for name, slopes, numeric in along_directions(net, batch.model, lambda moved: method.loss(replace(batch, model=moved))):
        assert float(slopes.sum()) == pytest.approx(numeric, rel=1e-4, abs=1e-7), name


@pytest.mark.parametrize("method", ALL, ids=repr)
def test_without_perturbation_every_loss_is_the_natural_one(method):
    _, batch = problem(share=0.0)
    expected = Natural().loss(batch)
    assert torch.allclose(method.loss(searched(method, batch)), expected, rtol=1e-8)
    assert torch.allclose(objective(batch, method, TrainingPlan(), torch.Generator()), expected, rtol=1e-12)


def test_weights_go_along_the_share_of_eps():
    _, batch = problem(share=0.25)
    mixed = RobustIBP((1.0, 0.5)).loss(batch)
    assert torch.allclose(mixed, 0.875 * Natural().loss(batch) + 0.125 * RobustIBP().loss(batch), rtol=1e-10)
    assert torch.allclose(CrownIBP((1, 0)).loss(batch), CrownIBP((0.75, 0.75)).loss(batch), rtol=1e-10)


def test_what_keeps_intervals_calm_counts_until_the_ramp_ends():
    net, batch = copy.deepcopy(problem()[0]), problem()[1]
    with torch.no_grad():
        net[0].weight.mul_(10)
    batch = replace(batch, model=bl.capture(net, batch.x[:2]))
    terms = [Calm(0.5).term(replace(batch, share=share)) for share in (0.0, 0.5, 1.0)]
    assert terms[2] is None and all(0 < number(term) <= 0.5 * 3 for term in terms[:2])
    terms[1].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in net[0].parameters())
    wide = bl.bound(batch.model, batch.threat.around(batch.x, 0.5), method=bl.IBP()).env
    layers = [wide[node.args[0]] for node in batch.model.graph if node.op == "relu"]
    expected = sum(max(0.0, 0.5 - 0.025 / number(layer.radius.mean())) / 0.5 for layer in layers) / 2
    inner = replace(batch, threat=Threat(0.05))  # without the clip box every half-width of the input is eps
    narrow = Calm(1.0, 0.5).term(replace(inner, share=0.5))
    assert number(narrow) >= 0.5 * expected * 0.9 > 0
    dead = copy.deepcopy(net)
    with torch.no_grad():
        dead[0].bias.fill_(-100.0)
    dead.zero_grad()
    Calm(0.5).term(replace(batch, model=bl.capture(dead, batch.x[:2]))).backward()
    assert all(parameter.grad is None or torch.isfinite(parameter.grad).all() for parameter in dead.parameters())
    term = L1(0.1).term(batch)
    assert number(term) == pytest.approx(0.1 * sum(number(layer.weight.abs().sum()) for layer in (net[0], net[3], net[5])))


def test_the_initialisation_keeps_intervals_from_growing():
    # Shi et al. 2021, Sec. 4.1: the expected gain of a layer and its ReLU is about 1.
    torch.manual_seed(0)
    net = torch.nn.Sequential(*[part for _ in range(6) for part in (torch.nn.Linear(200, 200), torch.nn.ReLU())],
                              torch.nn.Linear(200, 3))
    x = torch.rand(4, 200)
    last = net[-1].weight.clone()

    def growth():
        inner = bl.bound(bl.capture(net, x), bl.Box(x - 0.01, x + 0.01), method=bl.IBP()).intermediate
        widths = [number(interval.radius.mean()) for interval in inner.values()]
        return widths[-3] / widths[0]

    before = growth()
    initialise_for_ibp(net, seed=1)
    assert torch.equal(net[-1].weight, last)
    assert 0.2 < growth() < 5 < before


def test_bad_requests_are_refused():
    _, batch = problem(threat=Threat(0.1, 2.0))
    with pytest.raises(SpecError, match="norm inf"):
        SABR().loss(searched(SABR(), batch))
    with pytest.raises(SpecError, match="search"):
        Adversarial().loss(batch)
    for make in (lambda: RobustIBP((0.0, 1.5)), lambda: CCIBP(2.0), lambda: MTLIBP(attack_scale=0.0), lambda: Ascent(0),
                 lambda: L1(-1.0), lambda: Calm(tolerance=0.0), lambda: Threat(-0.1), lambda: Threat(0.1, 0.5),
                 lambda: Threat(float("nan"))):
        with pytest.raises(SpecError):
            make()
    with pytest.raises(SpecError, match="none"):
        initialise_for_ibp(torch.nn.ReLU())
    with pytest.raises(ShapeError):
        replace(batch, labels=batch.labels[:3]).question
