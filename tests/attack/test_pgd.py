"""Laws of the attack: it finds what is there in networks whose worst point is known, and nothing that is not there."""

import itertools
import math

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.attack.pgd import ranking
from boundlab.capture.builder import Builder
from boundlab.maps import Dense

NORMS = [1, 1.5, 2, 4, math.inf]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def affine(seed=0, inputs=6, outputs=3):
    torch.manual_seed(seed)
    net = nn.Linear(inputs, outputs).double()
    return net, bl.capture(net, torch.zeros(2, inputs, dtype=torch.float64)).detached()


def network(seed=0, inputs=2, outputs=3):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, outputs)).double()
    return net, bl.capture(net, torch.zeros(2, inputs, dtype=torch.float64)).detached()


def ball(p, count=4, size=6, clip=(0.0, 1.0), eps=0.4):
    return bl.LpBall(torch.rand(count, size, generator=seeded(5), dtype=torch.float64), eps, p, clip)


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
@pytest.mark.parametrize("p", NORMS)
def test_an_affine_network_is_violated_exactly_where_it_can_be(p, clip):
    """Offsets put each problem's true minimum a little below or above zero."""
    net, model = affine()
    region, rows = ball(p, clip=clip), torch.randn(4, 1, 3, generator=seeded(1), dtype=torch.float64)
    weight, bias = net.weight.detach(), net.bias.detach()
    minimum = region.concretize(Dense((6,), None, rows @ weight)) + rows @ bias
    margin = 0.02 * (rows @ weight).abs().sum(2) * 0.4
    for sign in (1, -1):
        result = bl.attack(model, region, bl.at_least(rows, sign * margin - minimum), bl.PGD(steps=60), seeded())
        assert (result.violated == (sign < 0)).all()
        assert (result.worst >= sign * margin[:, 0] - 1e-9).all()


@pytest.mark.parametrize("p", NORMS)
def test_points_lie_in_the_set_and_margins_are_those_of_the_points(p):
    net, model = network(inputs=6)
    region, labels = ball(p), torch.tensor([0, 1, 2, 0])
    spec = bl.margins(labels, 3, torch.float64)
    result = bl.attack(model, region, spec, bl.PGD(steps=15), seeded())
    x = result.points[model.graph.inputs[0].name]
    distance = torch.linalg.vector_norm(x - region.center, p, dim=1)
    assert (distance <= 0.4 + 1e-12).all() and (x >= 0).all() and (x <= 1).all()
    torch.testing.assert_close(result.margins, spec.values(net(x)).detach())
    y = net(x).detach()
    others = y.masked_fill(nn.functional.one_hot(labels, 3).bool(), -torch.inf).amax(1)
    torch.testing.assert_close(result.worst, y[torch.arange(4), labels] - others)
    assert torch.equal(result.violated, result.worst <= 0)


@pytest.mark.parametrize("seed", range(4))
def test_as_low_as_a_fine_grid_and_never_below_the_bounds(seed):
    net, model = network(seed)
    center = torch.randn(3, 2, generator=seeded(seed), dtype=torch.float64)
    region = bl.Box(center - 0.5, center + 0.5)
    spec = bl.at_least(torch.eye(3, dtype=torch.float64)[None], torch.full((1, 3), 100.0, dtype=torch.float64))
    result = bl.attack(model, region, spec, bl.PGD(steps=40, restarts=8, targets=3), seeded())
    steps = torch.linspace(-0.5, 0.5, 101, dtype=torch.float64)
    grid = torch.cartesian_prod(steps, steps)
    lowest = torch.stack([(net(point + grid).detach() + 100).amin() for point in center])
    assert (result.worst <= lowest + 0.02).all()
    assert (result.worst >= bl.bound(model, region, spec=spec).lower.amin(1) - 1e-9).all()


def interval_spec(low, high):
    """Unsafe where low <= y <= high: one clause, in which one of two rows must be positive."""
    rows = torch.tensor([[[-1.0], [1.0]]], dtype=torch.float64)
    return bl.Specification(rows, torch.tensor([[low, -high]], dtype=torch.float64), torch.tensor([0, 0]))


def test_a_clause_holds_where_one_of_its_rows_does():
    model = bl.capture(nn.Identity(), torch.zeros(2, 1, dtype=torch.float64))
    region = bl.Box(torch.tensor([[0.0]], dtype=torch.float64), torch.tensor([[1.0]], dtype=torch.float64))
    found = bl.attack(model, region, interval_spec(0.71, 0.72), bl.PGD(steps=100), seeded())
    assert found.violated.all()
    assert 0.71 <= float(found.points[model.graph.inputs[0].name]) <= 0.72
    assert not bl.attack(model, region, interval_spec(1.001, 2.0), generator=seeded()).violated.any()


def test_every_clause_is_tried():
    """The first clause is lowest at the center but never fails; the last fails far from there."""
    model = bl.capture(nn.Identity(), torch.zeros(2, 2, dtype=torch.float64))
    rows = torch.tensor([[[1e-3, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    spec = bl.at_least(rows, torch.tensor([[0.01, 0.95]], dtype=torch.float64))
    region = bl.Box(-torch.ones(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))
    assert bl.attack(model, region, spec, bl.PGD(restarts=1, steps=10), seeded()).violated.all()
    assert not bl.attack(model, region, spec, bl.PGD(restarts=1, steps=10, targets=0), seeded()).violated.any()


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_a_problem_alone_finds_what_it_finds_in_a_batch(p):
    _, model = network(3, inputs=6)
    region, labels = ball(p, eps=0.7), torch.tensor([0, 1, 2, 1])
    together = bl.attack(model, region, bl.margins(labels, 3, torch.float64), bl.PGD(steps=20), seeded(2))
    name = model.graph.inputs[0].name
    assert together.violated.any() and not together.violated.all(), "the test needs problems of both kinds"
    for index in range(4):
        one = torch.tensor([index])
        alone = bl.attack(model, region.take(one), bl.margins(labels[one], 3, torch.float64), bl.PGD(steps=20), seeded(2))
        torch.testing.assert_close(alone.points[name], together.points[name][one])
        torch.testing.assert_close(alone.margins, together.margins[one])


def test_a_violation_at_the_center_ends_the_search():
    _, model = affine()
    calls = []

    class Watched(bl.Box):
        def ascent(self, gradient):
            calls.append(1)
            return super().ascent(gradient)

    region = Watched(torch.zeros(2, 6, dtype=torch.float64), torch.ones(2, 6, dtype=torch.float64))
    low = bl.at_least(torch.ones(1, 1, 3, dtype=torch.float64), torch.full((1, 1), -100.0, dtype=torch.float64))
    assert bl.attack(model, region, low, generator=seeded()).violated.all()
    assert not calls


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4).double(), nn.Linear(2, 4).double()

    def forward(self, x, z):
        return self.first(x) * torch.relu(self.second(z))


def test_several_inputs_may_vary_or_be_constant():
    torch.manual_seed(0)
    net = Two()
    x, z = torch.randn(3, 3, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    model = bl.capture(net, x, z)
    first, second = (node.name for node in model.graph.inputs)
    rows = torch.randn(1, 2, 4, generator=seeded(), dtype=torch.float64)
    spec = bl.at_least(rows, torch.full((1, 2), 50.0, dtype=torch.float64))
    ranges = {first: bl.LpBall(x, 0.3, 2), second: bl.LpBall(z[:1], 0.2)}
    both = bl.attack(model, ranges, spec, generator=seeded())
    torch.testing.assert_close(both.margins, spec.values(net(both.points[first], both.points[second])).detach())
    fixed = bl.attack(model, {first: ranges[first], second: z}, spec, generator=seeded())
    assert set(fixed.points) == {first}
    torch.testing.assert_close(fixed.margins, spec.values(net(fixed.points[first], z)).detach())
    still = spec.worst(spec.values(net(x, z)).detach())
    assert (fixed.worst < still).all()
    corners = torch.tensor(list(itertools.product((-0.2, 0.2), repeat=2)), dtype=torch.float64)
    seen = torch.stack([spec.worst(spec.values(net(x, z[:1] + shift).detach())) for shift in corners])
    assert (both.worst <= seen.amin(0)).all()


def test_parameters_may_vary():
    builder = Builder(torch.float64)
    x = builder.input("x", (3,))
    weight = torch.randn(3, 2, generator=seeded(), dtype=torch.float64)
    row = builder.add("reshape", x, shape=(1, 3))
    model = builder.model([builder.add("matmul", row, builder.parameter("weight", weight))])
    sets = {"x": torch.ones(2, 3, dtype=torch.float64), "weight": bl.Box(weight[None] - 0.1, weight[None] + 0.1)}
    spec = bl.at_least(torch.ones(1, 1, 1, 2, dtype=torch.float64), -(weight.sum() - 0.6 + 1e-6)[None, None])
    result = bl.attack(model, sets, spec, generator=seeded())
    assert result.violated.all()
    torch.testing.assert_close(result.worst, torch.full((2,), -1e-6, dtype=torch.float64), atol=1e-9, rtol=0)


def test_what_does_not_fit_is_named():
    _, model = affine()
    spec = bl.at_least(torch.ones(1, 1, 3, dtype=torch.float64))
    center = torch.zeros(2, 6, dtype=torch.float64)
    name = model.graph.inputs[0].name
    for sets, wrong, message in [
        ({name: center}, spec, "no perturbation set"), (bl.LpBall(center[:, :5], 0.1), spec, "takes"),
        (bl.LpBall(center, 0.1), bl.at_least(torch.ones(1, 1, 4)), "the specification reads"),
        (bl.LpBall(center, 0.1), bl.at_least(torch.ones(3, 1, 3)), "each must be 1 or 3"),
    ]:
        with pytest.raises(bl.ShapeError, match=message):
            bl.attack(model, sets, wrong)


def test_a_network_without_slopes_is_attacked_by_samples_alone():
    build = Builder()
    place = build.add("argmax", build.input("x", (3,)), dim=0, keepdim=True)
    model = build.model([place])
    box = bl.Box(torch.zeros(1, 3), torch.ones(1, 3))
    never_two, never_three = (bl.at_least(torch.tensor([[[-1.0]]]), torch.tensor([[bound]])) for bound in (1.5, 2.5))
    found = bl.attack(model, box, never_two, generator=seeded())
    assert bool(found.violated.all()) and int(bl.evaluate(model, found.points["x"])) == 2
    assert not bool(bl.attack(model, box, never_three, generator=seeded()).violated.any())


class Thresholds(nn.Module):
    """A network of signs whose scores end in a softmax that gives one class all the weight."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(800, 60), nn.Linear(60, 60), nn.Linear(60, 4)

    def forward(self, x):
        hidden = torch.sign(self.second(torch.sign(self.first(x))))
        return torch.softmax(40 * self.last(hidden), dim=1)


def test_counterexamples_are_found_through_jumps_and_a_softmax():
    """Both have slopes of zero; 200 random points of the same balls find far fewer."""
    net, x = Thresholds().double(), torch.rand(20, 800, generator=seeded(3), dtype=torch.float64)
    model, spec = bl.capture(net, x).detached(), bl.margins(net(x).argmax(1), 4, torch.float64)
    region = bl.LpBall(x, 0.006)
    result = bl.attack(model, region, spec, bl.PGD(), seeded())
    found = result.points[model.graph.inputs[0].name]
    label = net(x).argmax(1)
    assert (net(found).argmax(1) != label)[result.violated & (result.worst < 0)].all()
    samples = torch.stack([spec.worst(spec.values(net(point))) for point in region.sample(200, seeded(4))])
    assert result.violated.sum() > (samples.amin(0) <= 0).sum() + 5 > 5


def test_margins_of_scores_before_a_softmax_are_never_reported():
    net = nn.Sequential(nn.Linear(3, 4), nn.Softmax(1)).double()
    x = torch.rand(2, 3, dtype=torch.float64)
    model, spec = bl.capture(net, x).detached(), bl.margins(torch.tensor([0, 1]), 4, torch.float64)
    result = bl.attack(model, bl.LpBall(x, 0.3), spec, bl.PGD(steps=5), seeded())
    assert torch.allclose(result.margins, spec.values(net(result.points[model.graph.inputs[0].name])))


@pytest.mark.parametrize("layer", [nn.Softmax(1), nn.LogSoftmax(1)], ids=["softmax", "log softmax"])
def test_a_softmax_alone_is_attacked(layer):
    x = torch.tensor([[0.3, 0.1, 0.0]], dtype=torch.float64)
    model, spec = bl.capture(layer, torch.zeros(2, 3, dtype=torch.float64)), bl.margins([0], 3, torch.float64)
    for eps in (0.05, 0.2):
        found = bl.attack(model, bl.LpBall(x, eps), spec)
        assert bool(found.violated) == (eps > 0.1)


@pytest.mark.parametrize("rows", [[[1.0, -1, 0, 0]], [[1.0, -0.5, 0, 0]], [[2.0, -1, -1, 0]]])
def test_scores_before_a_softmax_stand_in_for_it_only_where_two_of_them_are_compared(rows):
    net = nn.Sequential(nn.Linear(3, 4), nn.Softmax(1)).double()
    model = bl.capture(net, torch.rand(2, 3, dtype=torch.float64)).detached()
    rows = torch.tensor([rows], dtype=torch.float64)
    plain = ranking(model, bl.at_least(rows, torch.zeros(1, 1, dtype=torch.float64)))
    assert (plain.graph.output.op == "linear") == (rows.tolist() == [[[1.0, -1, 0, 0]]])
    shifted = ranking(model, bl.at_least(rows, torch.full((1, 1), 0.1, dtype=torch.float64)))
    assert shifted is model
