"""Linear programs: between CROWN and the truth, in the order that is a theorem, whatever the solver says."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from torch import nn

import boundlab as bl
from boundlab.programs.program import Program
from tests.bounds.soundness import region_of

D = torch.float64
GREEDY = bl.CROWN(alpha=bl.parallel)
KINDS = ("linf", "l1", "l2", "l2 clipped", "box")


class Largest(nn.Module):
    """Products, a curve, a largest value, and a sum of what two layers make of one value."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(3, 3)

    def forward(self, x):
        y = torch.sigmoid(self.first(x)) * torch.relu(self.second(x))
        return self.last(y.unflatten(1, (3, 2)).amax(2)) + x[:, :3]


def layers(activation, sizes=(4, 8, 8, 3)):
    parts = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), activation())]
    return nn.Sequential(*parts[:-1])


NETWORKS = {
    "relu": (lambda: layers(nn.ReLU), (4,)), "sigmoid": (lambda: layers(nn.Sigmoid), (4,)),
    "tanh": (lambda: layers(nn.Tanh), (4,)), "hardtanh": (lambda: layers(nn.Hardtanh), (4,)), "largest": (Largest, (4,)),
    "convolution": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.LeakyReLU(0.1),
                                          nn.Flatten(), nn.Linear(4, 3)), (2, 4, 4)),
}

PIECEWISE = ("relu", "hardtanh", "convolution")


@functools.cache
def captured(name):
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    module = make().double()
    return module, bl.capture(module, torch.zeros(1, *shape, dtype=D)).detached(), shape


def case(name, kind="linf", radius=0.4, batch=2):
    module, model, shape = captured(name)
    return module, model, region_of(kind, radius, shape, seed=1, batch=batch), bl.margins(torch.tensor([0, 1]), 3, D)


def lowest_seen(module, region, spec):
    """The smallest values of the rows at samples and corners, (b, s)."""
    points = region.sample(2000, torch.Generator().manual_seed(2))
    values = module(points.flatten(0, 1)).unflatten(0, points.shape[:2])
    return torch.stack([spec.values(one) for one in values]).amin(0)


@pytest.mark.parametrize(("name", "kind"), [
    pytest.param(name, kind, marks=() if kind == kinds else pytest.mark.slow)
    for name, kinds in zip(NETWORKS, ("linf", "l2 clipped", "l1", "box", "l2", "linf"), strict=True) for kind in KINDS])
def test_all_is_no_looser_than_last_than_greedy_and_sound(name, kind):
    module, model, region, spec = case(name, kind)
    greedy, last, whole = (bl.bound(model, region, method=method, spec=spec).lower
                           for method in (GREEDY, bl.LP(GREEDY, inner=False), bl.LP(GREEDY)))
    assert bool((last >= greedy - 1e-12).all()) and bool((whole >= greedy - 1e-12).all())
    if name in PIECEWISE:  # of a smooth curve, three tangents on a narrower interval are other tangents
        assert bool((whole >= last - 1e-7).all())
    assert bool((whole <= lowest_seen(module, region, spec) + 1e-7).all())
    sides = bl.bound(model, region, method=bl.LP(GREEDY))
    values = module(region.sample(300).flatten(0, 1)).unflatten(0, (300, 2))
    assert bool((sides.lower <= values + 1e-7).all()) and bool((values <= sides.upper + 1e-7).all())


@pytest.mark.parametrize("kind", ["linf", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("l1", "l2"))])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, *(pytest.param(one, marks=pytest.mark.slow)
                                                               for one in (nn.Tanh, nn.LeakyReLU))])
def test_with_one_line_a_side_that_is_consistent_it_is_crown(activation, kind):
    """Lyu et al. 2020, Theorem 1: if intermediate bounds are those of the lines themselves, CROWN solves the program."""
    compared, plain = 0, bl.CROWN(filter=None)
    first = bl.capture(layers(activation).double(), torch.zeros(1, 4, dtype=D)).detached()
    for seed in range(6):
        torch.manual_seed(seed)
        model = first.with_params(dict(layers(activation).double().named_parameters())).detached()
        region = region_of(kind, 0.5, (4,), seed)
        found = bl.bound(model, region, method=plain)
        if not consistent(model, region, found, plain, activation in (nn.ReLU, nn.LeakyReLU)):
            continue
        compared += 1
        spec = bl.margins(torch.tensor([0, 1]), 3, D)
        rows = [bl.bound(model, region, method=method, spec=spec).lower for method in (plain, bl.LP(plain, False, lines=1))]
        assert torch.allclose(*rows, rtol=0, atol=1e-5)
    assert compared >= 3


def consistent(model, region, found, method, piecewise):
    """Whether the interval of every neuron that bends is what its rows give, and not a better one from elsewhere."""
    for name, interval in found.intermediate.items():
        node = model.graph.node_named(name) if any(node.name == name and not node.source for node in model.graph) else None
        if node is None or node.op != "linear" or node.index == model.graph.output.index:
            continue
        eye = torch.eye(node.shape[0], dtype=D)
        rows = bl.bound(model.up_to(name), region, method=method, spec=bl.at_least(torch.cat([eye, -eye])[None])).lower
        low, high = rows.chunk(2, dim=1)
        bends = (interval.lower < 0) & (interval.upper > 0) if piecewise else interval.width > 0
        away = torch.maximum((low - interval.lower).abs(), (high + interval.upper).abs())
        if bool((away[bends] > 1e-9).any()):
            return False
    return True


def test_more_lines_are_never_looser():
    _, model, region, spec = case("tanh")
    rows = [bl.bound(model, region, method=bl.LP(inner=False, lines=lines), spec=spec).lower for lines in (1, 3, 9)]
    assert bool((rows[1] >= rows[0] - 1e-7).all()) and bool((rows[2] >= rows[1] - 1e-7).all())
    assert bool((rows[2] > rows[0] + 1e-4).any())


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_on_an_affine_network_it_is_the_dual_norm(p):
    torch.manual_seed(0)
    layer = nn.Linear(5, 3).double()
    x = torch.randn(2, 5, dtype=D)
    model, dual = bl.capture(layer, x).detached(), {1.0: math.inf, 2.0: 2, math.inf: 1}[p]
    found = bl.bound(model, bl.LpBall(x, 0.7, p), method=bl.LP(), spec=bl.at_least(torch.eye(3, dtype=D)[None])).lower
    exact = layer(x) - 0.7 * torch.linalg.vector_norm(layer.weight, dual, dim=1)
    assert torch.allclose(found, exact, atol=1e-7)


def test_a_convolution_is_the_same_as_its_matrix():
    module, model, region, spec = case("convolution", radius=0.6)
    eye = torch.eye(32, dtype=D).unflatten(1, (2, 4, 4))
    flat = []
    for part, shape in ((module[0], (2, 4, 4)), (module[2], (3, 2, 2))):
        size = math.prod(shape)
        zero = part(torch.zeros(1, *shape, dtype=D)).flatten()
        linear = nn.Linear(size, len(zero)).double()
        with torch.no_grad():
            linear.weight.copy_((part(torch.eye(size, dtype=D).unflatten(1, shape)).flatten(1) - zero).mT)
            linear.bias.copy_(zero)
        flat += [linear, nn.ReLU() if not flat else nn.LeakyReLU(0.1)]
    dense = nn.Sequential(nn.Flatten(), *flat, module[5])
    assert torch.allclose(dense(eye), module(eye))
    other = bl.capture(dense, eye).detached()
    rows = [bl.bound(net, region, method=bl.LP(GREEDY), spec=spec).lower for net in (model, other)]
    assert torch.allclose(*rows, atol=1e-7)


@pytest.mark.parametrize("name", ["largest", *(pytest.param(name, marks=pytest.mark.slow) for name in PIECEWISE)])
def test_alone_as_in_a_batch_and_in_single_precision(name):
    _, model, region, spec = case(name)
    whole = bl.bound(model, region, method=bl.LP(), spec=spec).lower
    second = bl.bound(model, region.take(torch.tensor([1])), method=bl.LP(), spec=spec.take(torch.tensor([1]))).lower
    assert torch.allclose(whole[1:], second, atol=1e-9)
    ball = bl.LpBall(region.center.float(), region.eps)
    single = bl.bound(model.to(torch.float32), ball, method=bl.LP(), spec=bl.margins(torch.tensor([0, 1]), 3)).lower
    assert single.dtype == torch.float32 and torch.allclose(single.double(), whole, atol=1e-4)


def test_enough_stops_early_and_decides_the_same():
    _, model, region, spec = case("relu", radius=0.1)
    spec = bl.Specification(spec.rows, spec.offset + 0.02, spec.clause)
    whole, enough = (bl.bound(model, region, method=bl.LP(enough=end), spec=spec).lower for end in (None, 0.0))
    assert bool(((whole > 0) == (enough > 0)).all()) and bool((enough <= whole + 1e-9).all())
    assert bool((whole > 0).any()) and bool((whole <= 0).any())


def test_minima_come_with_points_of_the_set():
    module, model, region, spec = case("relu", "l1")
    problem = bl.bounds.problem.problem_of(model, region, spec)
    found = bl.LP().minima(problem)
    points = found.points["input"] if "input" in found.points else next(iter(found.points.values()))
    assert points.shape == (2, 2, 4) and bool((found.lower <= found.upper + 1e-9).all())
    assert bool(((points - region.center[:, None]).abs().sum(-1) <= region.eps + 1e-9).all())
    for row in range(2):
        assert torch.allclose(spec.values(module(points[:, row]))[:, row], found.upper[:, row], atol=1e-12)


def test_a_polytope_and_two_inputs():
    class Two(nn.Module):
        def forward(self, x, y):
            return torch.relu(x - y) + torch.relu(x + y)

    model = bl.capture(Two(), torch.zeros(2, 3), torch.zeros(2, 3)).detached().to(D)
    x = torch.zeros(1, 3, dtype=D)
    shape = bl.Polytope(x - 1, x + 1, torch.ones(1, 3, dtype=D), torch.tensor([-1.5], dtype=D))
    names = [node.name for node in model.graph.inputs]
    spec = bl.at_least(torch.ones(1, 1, 3, dtype=D))
    found = bl.bound(model, {names[0]: shape, names[1]: torch.full((1, 3), 0.25, dtype=D)}, method=bl.LP(), spec=spec).lower
    lowest = min(sum(max(a - 0.25, 0) + max(a + 0.25, 0) for a in point)
                 for point in itertools.product(np.linspace(-1, 1, 9), repeat=3) if sum(point) <= -1.5)
    assert float(found) == pytest.approx(lowest, abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_any_multipliers_give_a_lower_bound(seed):
    draw = np.random.default_rng(seed)
    matrix, point = draw.normal(size=(3, 4)), draw.uniform(-1, 1, size=4)
    middle, gaps = matrix @ point, draw.exponential(size=(2, 3))
    gaps[draw.random((2, 3)) < 0.3] = np.inf
    ones, endless = np.ones(4), np.full(4, np.inf)
    program = Program(csr_array(matrix), middle - gaps[0], middle + gaps[1], -endless, endless, -ones, ones, ones < 0)
    cost, multipliers = draw.normal(size=4), draw.normal(size=3) * draw.choice([0.0, 1.0, 1e6])
    assert program.proven(cost, multipliers) <= cost @ point + 1e-6
    assert program.proven(cost, np.full(3, np.nan)) == -np.inf or np.isfinite(program.proven(cost, np.full(3, np.nan)))


def contradictory():
    layer = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Tanh(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        layer[0].weight.fill_(1.0)
    model = bl.capture(layer, torch.zeros(1, 1, dtype=D)).detached()
    name = next(node.name for node in model.graph if node.op == "linear")
    known = {name: bl.Interval(torch.tensor([[0.5, -1.0]], dtype=D), torch.tensor([[1.0, -0.5]], dtype=D))}
    return model, bl.Box(torch.full((1, 1), -1.0, dtype=D), torch.ones(1, 1, dtype=D)), known


def test_what_cannot_be_a_program_is_said_in_a_sentence(monkeypatch):
    _, model, region, spec = case("relu")
    with pytest.raises(bl.MissingRule, match="no rows for L0Ball"):
        bl.bound(model, bl.L0Ball(region.center, 1, -1, 1), method=bl.LP(), spec=spec)
    with pytest.raises(bl.MissingRule, match="norm 1, 2 and inf, not 3"):
        bl.bound(model, bl.LpBall(region.center, 0.1, 3.0), method=bl.LP(), spec=spec)
    with pytest.raises(bl.SpecError, match="at least 1"):
        bl.LP(lines=0)
    net, box, known = contradictory()
    with pytest.raises(bl.BoundError, match="contradict each other"):
        bl.bound(net, box, method=bl.LP(inner=False), known=known)
    monkeypatch.setitem(__import__("sys").modules, "highspy", None)
    with pytest.raises(bl.errors.MissingPackage, match=r"boundlab\[lp\]"):
        bl.bound(model, region, method=bl.LP(), spec=spec)


def test_a_program_without_a_solution_spoils_no_other_radius():
    """What a solver refuses at one radius counts as not proven there, for that problem alone."""
    _, model, region, spec = case("relu")

    class Refusing(bl.LP):
        def run(self, problem):
            if float(problem.sets[min(problem.sets)].radius.max()) > 0.1:
                net, box, known = contradictory()
                bl.bound(net, box, method=bl.LP(inner=False), known=known)
            return bl.LP.run(self, problem)

    own = bl.Specification(spec.rows, spec.offset + 5, spec.clause)
    found = bl.radius(model, region.center, own, method=Refusing(), search=bl.Search(start=0.01, attack=None))
    assert bool((found.proven > 0.09).all()) and bool((found.proven <= 0.1).all())


def test_an_interior_point_takes_over_where_the_simplex_method_is_slow(monkeypatch):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)).double()
    model, x = bl.capture(module, torch.zeros(1, 4, dtype=torch.float64)).detached(), torch.randn(2, 4, dtype=torch.float64)
    box, spec = bl.Box(x - 0.5, x + 0.5), bl.margins(torch.tensor([0, 1]), 3, torch.float64)
    usual = bl.bound(model, box, method=bl.LP(inner=False), spec=spec).lower
    monkeypatch.setattr("boundlab.programs.solve.MOST_STEPS", 1)
    other = bl.bound(model, box, method=bl.LP(inner=False), spec=spec).lower
    torch.testing.assert_close(other, usual, rtol=1e-6, atol=1e-6)
    assert not torch.equal(other, usual)
