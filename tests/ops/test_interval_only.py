"""An operator with a value and an interval alone: every method is sound, says so, and is as loose as the interval there."""

import itertools

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.capture.builder import Builder
from boundlab.ops.op import REGISTRY
from boundlab.testing import Case, ConformanceError, Vary, check_operator
from tests.bounds.soundness import METHODS, excess_of, points_of, policy_of, random_rows, region_of

F64 = torch.float64


def ranked(x):
    """Each vector in order: every coordinate depends on all others, and grows with each of them."""
    return x.sort(-1).values


def product(x, y):
    """The range of a product of two intervals."""
    ends = torch.stack([a * b for a in (x.lower, x.upper) for b in (y.lower, y.upper)])
    return bl.Interval(ends.amin(0), ends.amax(0))


OWN = {
    "ranked": bl.interval_op("ranked", ranked, bl.monotone(ranked)),
    "ripple": bl.interval_op("ripple", lambda x: x + 0.3 * torch.cos(5 * x),
                             lambda x: bl.Interval(x.lower - 0.3, x.upper + 0.3)),
    "pointwise": bl.interval_op("pointwise", torch.mul, product),
}


@pytest.fixture(autouse=True)
def registered():
    for op in OWN.values():
        bl.register(op)
    yield
    for name in OWN:
        del REGISTRY[name]


def network(seed=0):
    """Linear, ripple, linear, ranked, a product with itself shifted, ReLU, linear: paths with and without relaxations meet."""
    torch.manual_seed(seed)
    linear = [nn.Linear(*size).double() for size in ((4, 6), (6, 5), (5, 3))]
    build = Builder(F64)
    x = build.input("x", (4,))

    def layer(place, index):
        weight = build.parameter(f"w{place}", linear[place].weight.detach())
        return build.add("linear", index, weight, build.parameter(f"b{place}", linear[place].bias.detach()))

    first = layer(0, x)
    rippled = layer(1, build.add("ripple", first))
    ordered = build.add("ranked", rippled)
    mixed = build.add("pointwise", ordered, build.add("tanh", rippled))
    out = layer(2, build.add("relu", build.add("add", mixed, rippled)))

    def forward(x):
        middle = linear[1](OWN["ripple"].evaluate(linear[0](x)))
        return linear[2](torch.relu(ranked(middle) * torch.tanh(middle) + middle))

    return build.model([out]), forward


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("kind", "radius"), [("box", 0.3), ("l2", 0.5), ("point", 0.0)])
def test_every_method_is_sound(name, kind, radius):
    for seed in range(2):
        model, forward = network(seed)
        region, rows = region_of(kind, radius, (4,), seed), random_rows((3,), seed)
        points = points_of(forward, region, rows, 100, seed)
        excess, _, pairs = excess_of(model, region, points, rows, METHODS[name], policy_of(METHODS[name]))
        assert excess <= 0 and pairs > 1000


def test_its_lines_are_the_ends_of_its_interval():
    x = bl.Interval(torch.tensor([[-1.0, 2.0, 0.0]]), torch.tensor([[1.0, 3.0, 0.5]]))
    lines, interval = OWN["ranked"].lines(x), OWN["ranked"].interval(x)
    for point in (x.lower, x.center, x.upper):
        assert torch.equal(lines.lower.maps[0].apply(point) + lines.lower.bias.squeeze(1), interval.lower)
        assert torch.equal(lines.upper.maps[0].apply(point) + lines.upper.bias.squeeze(1), interval.upper)


def test_a_network_that_ends_in_one_has_its_interval_as_bounds():
    build = Builder(F64)
    weight = torch.randn(3, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    x = build.input("x", (4,))
    model = build.model([build.add("ranked", build.add("linear", x, build.parameter("w", weight)))])
    box = bl.Box(-torch.ones(2, 4, dtype=F64), torch.ones(2, 4, dtype=F64))
    reach = weight.abs().sum(1).sort().values  # by hand: |w| summed, then put in order
    for method in METHODS.values():
        found = bl.bound(model, box, method=method)
        assert torch.allclose(found.upper, reach.expand(2, 3)) and torch.allclose(found.lower, -reach.flip(0).expand(2, 3))


def test_bounds_say_where_the_interval_stood_in():
    model, _ = network()
    box = bl.Box(torch.zeros(1, 4, dtype=F64), torch.ones(1, 4, dtype=F64))
    notes = bl.bound(model, box).notes
    assert [name for note in notes for name in OWN if f"({name}," in note] == ["ripple", "ranked", "pointwise"]
    assert bl.bound(model.up_to("linear"), box).notes == ()


def test_the_conformance_suite_takes_it():
    check_operator("ripple")
    check_operator("ranked", [Case((Vary((2, 5)),))])
    bl.register(bl.interval_op("ripple", OWN["ripple"].evaluate, lambda x: bl.Interval(x.lower, x.upper)))
    with pytest.raises(ConformanceError, match="the function falls below the interval"):
        check_operator("ripple")


def test_gradients_pass_through_its_interval():
    model, _ = network()
    weight = model.params["w0"].requires_grad_()
    box = bl.Box(torch.zeros(1, 4, dtype=F64), torch.ones(1, 4, dtype=F64))
    for method in (bl.IBP(), bl.CROWN(intermediate=bl.IBP()), bl.CROWN()):
        (gradient,) = torch.autograd.grad(bl.bound(model, box, method=method).lower.sum(), weight)
        assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0


@pytest.mark.parametrize("seed", range(6))
def test_writing_at_uncertain_places_is_bounded_by_the_hull_of_all_that_may_happen(seed):
    torch.manual_seed(seed)
    low = torch.randint(-1, 3, (2, 3, 2)).double()
    spots = bl.Interval(low, low + torch.randint(0, 2, (2, 3, 2)))
    x, update = torch.randn(2, 3, 3, 2, dtype=F64), torch.randn(2, 3, 2, dtype=F64)
    found = REGISTRY["put"].interval(x, spots, update)
    # Each of the three updates on its own, or nothing where no update surely lands: by hand, cell by cell.
    for problem, row, column in itertools.product(range(2), range(3), range(3)):
        cell = torch.tensor([row, column])
        inside = ((spots.lower[problem] <= cell) & (cell <= spots.upper[problem])).all(1)
        sure = (inside & (spots.lower[problem] == spots.upper[problem]).all(1)).any()
        values = [update[problem, k] for k in inside.nonzero().flatten()] + ([] if sure else [x[problem, row, column]])
        assert torch.equal(found.lower[problem, row, column], torch.stack(values).amin(0))
        assert torch.equal(found.upper[problem, row, column], torch.stack(values).amax(0))
