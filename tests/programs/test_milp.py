"""Integer programs: the true minimum, for every operator that has one, and a point that attains it."""

import itertools
import sys

import pytest
import torch
from scipy.optimize import linprog
from torch import nn

import boundlab as bl
from boundlab.bounds.problem import problem_of
from boundlab.programs.integer import by_gurobi, by_scip

D = torch.float64


@torch.no_grad()
def minimum_by_patterns(module, row, lower, upper):
    """The minimum of row . y over a box, as the smallest of linear programs over all patterns of the ReLUs."""
    found, widths = [], [part.out_features for part in module if isinstance(part, nn.Linear)][:-1]
    for pattern in itertools.product((0.0, 1.0), repeat=sum(widths)):
        matrix, offset, sides, limits, place = torch.eye(2, dtype=D), torch.zeros(2, dtype=D), [], [], 0
        for layer in (part for part in module if isinstance(part, nn.Linear)):
            matrix, offset = layer.weight @ matrix, layer.weight @ offset + layer.bias
            if layer is module[-1]:
                break
            on = torch.tensor(pattern[place:place + len(offset)], dtype=D)
            place += len(offset)
            sides.append((1 - 2 * on)[:, None] * matrix)
            limits.append((2 * on - 1) * offset)
            matrix, offset = on[:, None] * matrix, on * offset
        result = linprog((row @ matrix).detach().numpy(), torch.cat(sides).detach().numpy(), torch.cat(limits).detach().numpy(),
                         bounds=list(zip(lower.tolist(), upper.tolist(), strict=True)))
        if result.success:
            found.append(result.fun + float(row @ offset))
    return min(found)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_it_is_the_minimum_over_all_patterns(seed):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    model, x = bl.capture(module, torch.zeros(1, 2, dtype=D)).detached(), torch.randn(1, 2, dtype=D)
    box, rows = bl.Box(x - 1, x + 1), torch.randn(1, 2, 2, dtype=D)
    found = bl.MILP().minima(problem_of(model, box, bl.at_least(rows)))
    for row in range(2):
        exact = minimum_by_patterns(module, rows[0, row], box.lower[0], box.upper[0])
        assert float(found.lower[0, row]) == pytest.approx(exact, abs=1e-5)
        assert float(found.upper[0, row]) == pytest.approx(exact, abs=1e-5)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.first, self.last, self.function = nn.Linear(2, 6), nn.Linear(6, 1), function

    def forward(self, x):
        y = self.function(self.first(x))
        return self.last(y) if y.shape[1] == 6 else y.sum(1, keepdim=True)


EXACT = {
    "leaky": lambda x: nn.functional.leaky_relu(x, 0.1), "prelu": lambda x: nn.functional.leaky_relu(x, 1.5), "abs": torch.abs,
    "clip": lambda x: x.clamp(-0.3, 0.4), "sign": torch.sign, "shrink": lambda x: nn.functional.softshrink(x, 0.3),
    "hard": lambda x: nn.functional.hardshrink(x, 0.3), "maximum": lambda x: torch.maximum(x, x.flip(1) - 0.2),
    "largest": lambda x: x.unflatten(1, (3, 2)).amax(2), "twice": lambda x: torch.relu(0.3 - torch.abs(x)),
}


@pytest.mark.parametrize("p", [pytest.param(1.0, marks=pytest.mark.slow), float("inf")])
@pytest.mark.parametrize("name", EXACT)
def test_operators_with_pieces_are_exact(name, p):
    torch.manual_seed(1)
    module = Function(EXACT[name]).double()
    model, x = bl.capture(module, torch.zeros(1, 2, dtype=D)).detached(), torch.zeros(1, 2, dtype=D)
    ball, spec = bl.LpBall(x, 0.8, p), bl.at_least(torch.tensor([[[1.0], [-1.0]]], dtype=D))
    found = bl.MILP().minima(problem_of(model, ball, spec))
    side = torch.linspace(-0.8, 0.8, 801, dtype=D)
    grid = torch.cartesian_prod(side, side)
    grid = grid[grid.abs().sum(1) <= 0.8] if p == 1 else grid
    values = module(grid)
    lowest = torch.stack([values.min(), -values.max()])
    assert bool((found.lower[0] <= lowest + 1e-7).all())
    assert bool((lowest - found.lower[0] <= 0.02).all())


def test_it_is_no_looser_than_lp_and_stops_at_its_limits():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 3)).double()
    x = torch.randn(2, 4, dtype=D)
    model, ball, spec = bl.capture(module, x).detached(), bl.LpBall(x, 0.5), bl.margins(torch.tensor([0, 1]), 3, D)
    tight, exact = (bl.bound(model, ball, method=method, spec=spec).lower for method in (bl.LP(), bl.MILP()))
    assert bool((exact >= tight - 1e-5).all())
    low = float(exact.min()) - 1
    early = bl.bound(model, ball, method=bl.MILP(enough=low), spec=spec).lower
    assert bool((early > low).all()) and bool((early <= exact + 1e-6).all())
    hasty = bl.bound(model, ball, method=bl.MILP(seconds=1e-3), spec=spec).lower
    assert bool((hasty <= exact + 1e-6).all())
    outputs = bl.bound(model, ball, method=bl.MILP())
    values = module(ball.sample(500).flatten(0, 1)).unflatten(0, (500, 2))
    assert bool((outputs.lower <= values + 1e-6).all()) and bool((values <= outputs.upper + 1e-6).all())


def test_what_cannot_be_exact_is_said_in_a_sentence(monkeypatch):
    module = nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 2)).double()
    x = torch.zeros(1, 2, dtype=D)
    model, spec = bl.capture(module, x).detached(), bl.margins(torch.tensor([0]), 2, D)
    with pytest.raises(bl.MissingRule, match="cannot be encoded exactly"):
        bl.bound(model, bl.LpBall(x, 0.1), method=bl.MILP(), spec=spec)
    relu = bl.capture(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).double(), x).detached()
    with pytest.raises(bl.MissingRule, match="norm 2 has none"):
        bl.bound(relu, bl.LpBall(x, 5.0, 2.0), method=bl.MILP(), spec=spec)
    with pytest.raises(bl.SpecError, match="seconds"):
        bl.MILP(seconds=0)
    with pytest.raises(bl.SpecError, match="minima are those of a specification's rows"):
        bl.MILP().minima(problem_of(relu, bl.LpBall(x, 0.1)))
    for package, solver in (("pyscipopt", by_scip), ("gurobipy", by_gurobi)):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(bl.errors.MissingPackage, match=package):
            bl.bound(relu, bl.LpBall(x, 5.0), method=bl.MILP(solver=solver), spec=spec)


JUMPS = {"sign": torch.sign, "heaviside": lambda x: (x > 0).to(x.dtype), "hard": lambda x: nn.functional.hardshrink(x, 0.5),
         "threshold": lambda x: nn.functional.threshold(x, 0.5, 20.0), "clip": lambda x: x.clamp(-0.5, 0.5)}
NEXT = torch.nextafter(torch.tensor(0.5, dtype=D), torch.tensor(1.0, dtype=D)).item()


@pytest.mark.parametrize("name", JUMPS)
def test_breaks_at_an_end_and_settled_networks_are_exact(name):
    class Sloped(nn.Module):
        def forward(self, x):
            return JUMPS[name](x) + 0.25 * x

    model = bl.capture(Sloped(), torch.zeros(1, 1, dtype=D))
    for lower, upper in itertools.combinations_with_replacement((-2.0, -0.5, -5e-324, 0.0, 5e-324, 0.5, NEXT, 2.0), 2):
        places = [place for place in (-2.0, -0.5, -0.4, -5e-324, 0.0, 5e-324, 0.4, 0.5, NEXT, 2.0) if lower <= place <= upper]
        values = Sloped()(torch.tensor(places, dtype=D))
        ends = (torch.full((1, 1), end, dtype=D) for end in (lower, upper))
        found = bl.bound(model, bl.Box(*ends), method=bl.MILP())
        assert float(found.lower) <= float(values.min()) + 1e-9, (lower, upper)
        assert float(found.upper) >= float(values.max()) - 1e-9, (lower, upper)


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e6, 1e10, 1e16])
@pytest.mark.parametrize("layer", [0, 2, 4])
def test_numbers_beyond_a_solvers_tolerances_do_not_make_bounds_wrong(layer, scale):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        module[layer].weight.mul_(scale)
    model, ball = bl.capture(module, torch.zeros(1, 2, dtype=D)).detached(), bl.LpBall(torch.zeros(1, 2, dtype=D), 1.0)
    found, plain = (bl.bound(model, ball, method=method) for method in (bl.MILP(), bl.CROWN()))
    values = module(ball.sample(2000)[:, 0])
    slack = 1e-12 * values.abs().amax()
    assert bool((found.lower <= values.amin(0) + slack).all()) and bool((values.amax(0) - slack <= found.upper).all())
    assert bool((found.lower >= plain.lower - slack).all()) and bool((found.upper <= plain.upper + slack).all())
