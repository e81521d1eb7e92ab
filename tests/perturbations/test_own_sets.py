"""A user's own set: two methods for bounds and proofs, a third for attacks, and nothing else."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import boundlab as bl
from boundlab.maps import Dense
from boundlab.perturbations.sets import Taken
from boundlab.testing import ConformanceError, check_perturbation

F64 = torch.float64


@dataclass(frozen=True)
class Segment(bl.PerturbationSet):
    """All points between two, by two methods."""

    start: Tensor
    end: Tensor

    def box(self):
        return bl.Interval(torch.minimum(self.start, self.end), torch.maximum(self.start, self.end))

    def concretize(self, rows):
        spread = rows.spread()
        return torch.minimum(spread.dot(self.start.unsqueeze(1)), spread.dot(self.end.unsqueeze(1)))

    def at(self, t):
        return torch.lerp(self.start, self.end, t.reshape(*t.shape, *[1] * (self.start.dim() - 1)))


@dataclass(frozen=True)
class Ends(Segment):
    """The two end points alone, by a third method: the nearer of them."""

    def project(self, point):
        far = [(point - end).flatten(point.dim() - self.start.dim() + 1).abs().sum(-1) for end in (self.start, self.end)]
        first = (far[0] <= far[1]).reshape(*far[0].shape, *[1] * (self.start.dim() - 1))
        return torch.where(first, self.start, self.end)


def uniform(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def segment(kind=Segment, *shape):
    shape = shape or (3, 6)
    return kind(uniform(*shape, seed=1), uniform(*shape, seed=2))


def known(region, count=50):
    return region.at(torch.linspace(0, 1, count, dtype=F64)[:, None].expand(count, len(region.start)))


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    return net, bl.capture(net, torch.zeros(2, 6, dtype=F64)).detached()


@pytest.mark.parametrize("shape", [(3, 6), (2, 2, 4, 3)], ids=["vectors", "images"])
def test_the_suite_checks_two_methods_against_known_points(shape):
    region = segment(Segment, *shape)
    check_perturbation(region, known=known(region))
    with pytest.raises(ConformanceError, match="no point of the set is known"):
        check_perturbation(region)
    outside = known(region)
    outside[7, 1] += 2
    with pytest.raises(ConformanceError, match="outside its own box"):
        check_perturbation(region, known=outside)
    with pytest.raises(ConformanceError, match="known points have shape"):
        check_perturbation(region, known=outside[:, 0])


def test_the_suite_finds_a_minimum_that_is_none():
    class Wrong(Segment):
        def concretize(self, rows):
            return rows.spread().dot(self.start.unsqueeze(1))

    region = segment(Wrong)
    with pytest.raises(ConformanceError, match="is not a minimum"):
        check_perturbation(region, known=known(region))


@pytest.mark.parametrize("shape", [(3, 6), (2, 2, 4, 3)], ids=["vectors", "images"])
def test_three_methods_pass_the_whole_suite(shape):
    check_perturbation(segment(Ends, *shape), points=60)


@pytest.mark.parametrize("method", [bl.IBP(), bl.Forward(), bl.CROWN(), bl.CROWN(bl.IBP()), bl.CROWN(problems=2, max_rows=3)],
                         ids=["IBP", "Forward", "CROWN", "CROWN-IBP", "CROWN in parts"])
def test_two_methods_are_enough_for_bounds(network, method):
    net, model = network
    region = segment()
    box = bl.Box(region.box().lower, region.box().upper)
    y = net(known(region)).detach()
    bounds = bl.bound(model, region, method=method)
    loose = bl.bound(model, box, method=method)
    assert (bounds.lower <= y + 1e-9).all() and (y <= bounds.upper + 1e-9).all()
    assert (bounds.upper - bounds.lower < loose.upper - loose.lower).all()
    spec = bl.at_least(torch.tensor([[[1.0, -1.0]]], dtype=F64))
    lower = bl.bound(model, region, method=method, spec=spec).lower
    assert (lower <= (y @ spec.rows[0, 0]).amin(0)[:, None] + 1e-9).all()


def test_two_methods_are_enough_for_proofs_and_never_falsify(network):
    net, model = network
    region = segment()
    rows = torch.tensor([[[1.0, -1.0]]], dtype=F64).expand(3, 1, 2)
    lowest = (net(known(region, 500)).detach() @ rows[0, 0]).amin(0)
    results = bl.verify(model, region, bl.at_least(rows, (5 - lowest)[:, None]), rigour=bl.Rigour.FLOAT)
    assert [result.verdict for result in results] == [bl.Verdict.VERIFIED] * 3
    results = bl.verify(model, region, bl.at_least(rows, (-0.1 - lowest)[:, None]), timeout=10, rigour=bl.Rigour.FLOAT)
    for result in results:
        assert result.verdict in (bl.Verdict.UNKNOWN, bl.Verdict.TIMEOUT)
        assert [note.startswith("attack: Segment has no `project`") for note in result.notes].count(True) == 1
        assert sum("no `project`" in note for note in result.notes) == 1


def test_a_third_method_is_enough_for_attacks(network):
    net, model = network
    region = segment(Ends)
    rows = torch.tensor([[[1.0, -1.0]]], dtype=F64).expand(3, 1, 2)
    ends = torch.stack([net(region.start), net(region.end)]).detach() @ rows[0, 0]
    results = bl.verify(model, region, bl.at_least(rows, (-0.01 - ends.amin(0))[:, None]), rigour=bl.Rigour.FLOAT)
    for problem, result in enumerate(results):
        assert result.verdict is bl.Verdict.FALSIFIED
        point = result.witness.inputs[model.graph.inputs[0].name][0]
        assert torch.equal(point, region.start[problem]) or torch.equal(point, region.end[problem])


def test_taken_problems_answer_as_in_their_batch():
    region, index = segment(Ends), torch.tensor([2, 0, 2, 1])
    taken = region.take(index)
    assert isinstance(taken, Taken) and isinstance(taken.take(torch.tensor([1])), Taken)
    rows = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(3), dtype=F64)
    expected = Ends(region.start[index], region.end[index])
    owner = torch.tensor([3, 3, 0, 1])
    for dense in (Dense((6,), None, rows), Dense((6,), None, rows[:1]), Dense((6,), owner, rows)):
        torch.testing.assert_close(taken.concretize(dense), expected.concretize(dense))
    points = torch.randn(5, 2, 4, 6, generator=torch.Generator().manual_seed(4), dtype=F64)
    assert torch.equal(taken.project(points), expected.project(points))
    assert torch.equal(taken.project(points[0, 0]), expected.project(points[0, 0]))
    torch.testing.assert_close(taken.ascent(points), expected.ascent(points))


class Two(nn.Module):
    """A network of two inputs, with layers that need rows of its inner neurons."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.mid, self.out = nn.Linear(4, 6), nn.Linear(2, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x, y):
        return self.out(torch.relu(self.mid(torch.relu(self.first(x) + self.second(y)))))


@pytest.mark.parametrize("method", [bl.IBP(), bl.Forward(), bl.CROWN(problems=2, max_rows=3)], ids=["IBP", "Forward", "CROWN"])
def test_two_methods_over_several_inputs_in_parts_of_a_batch(method):
    """A joint set of two inputs: problems answer alone as in their batch, where rows have owners within their parts."""
    torch.manual_seed(1)
    net, region = Two().double(), segment()
    model = bl.capture(net, torch.zeros(2, 4, dtype=F64), torch.zeros(2, 2, dtype=F64)).detached()
    names = tuple(node.name for node in model.graph.inputs)
    points = known(region, 200)
    y = net(points[..., :4].flatten(0, 1), points[..., 4:].flatten(0, 1)).detach().unflatten(0, (200, 3))
    bounds = bl.bound(model, {names: region}, method=method)
    assert (bounds.lower <= y + 1e-9).all() and (y <= bounds.upper + 1e-9).all()
    for order in (torch.tensor([2, 0, 1]), torch.tensor([1]), torch.tensor([0, 0, 2, 1])):
        taken = bl.bound(model, {names: region.take(order)}, method=method)
        torch.testing.assert_close(taken.lower, bounds.lower[order])


def test_errors_name_what_is_missing():
    region = segment()
    for call in (lambda: region.project(region.start), lambda: region.sample(3)):
        with pytest.raises(bl.MissingRule, match="it can be bounded and proven, but not attacked or sampled"):
            call()
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (bl.PerturbationSet,), {"box": lambda self: None})()


class Foreign:
    """Two methods without the base class."""

    box, concretize = Segment.box, Segment.concretize


def test_a_set_without_the_base_class_is_refused_in_words(network):
    with pytest.raises(bl.ShapeError, match="a class of your own that inherits from PerturbationSet, got Foreign"):
        bl.bound(network[1], Foreign())
