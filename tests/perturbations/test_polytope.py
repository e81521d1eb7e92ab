"""Polytopes: minima against scipy's linear programs, sound whatever the solver says, emptiness, attacks, wrong calls."""

import builtins
import dataclasses
import math

import pytest
import torch
from scipy.optimize import linprog
from torch import nn

import boundlab as bl
from boundlab.maps import Dense, Select
from boundlab.testing import check_perturbation

pytest.importorskip("highspy")
F64 = torch.float64
SOLVERS = {"simplex": bl.Simplex(), "primal-dual": bl.PrimalDual()}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def uniform(*shape, seed=0):
    return torch.rand(shape, generator=seeded(seed), dtype=F64)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=F64)


def polytope(b=3, m=4, d=6, seed=0, solver=None, dtype=F64, slack=0.3):
    """Unit boxes cut by random constraints that keep a known point with some slack."""
    matrix, point = normal(b, m, d, seed=seed), uniform(b, d, seed=seed + 1)
    limit = torch.linalg.vecdot(matrix, point[:, None]) + slack * uniform(b, m, seed=seed + 2)
    numbers = (torch.zeros(b, d), torch.ones(b, d), matrix, limit)
    return bl.Polytope(*(number.to(dtype) for number in numbers), solver or bl.Simplex())


def reference(region, rows):
    """scipy's minimum of every row of every problem, (b, s)."""
    def single(i, c):
        axes = region.lower.dim()
        matrix = region.matrix[i] if region.matrix.dim() > axes else region.matrix
        limit = region.limit[i] if region.limit.dim() > 1 else region.limit
        bounds = torch.stack([region.lower[i].flatten(), region.upper[i].flatten()], 1).double().numpy()
        numbers = (c.flatten(), matrix.flatten(1), limit)
        answer = linprog(*(number.double().numpy() for number in numbers), bounds=bounds)
        assert answer.status == 0
        return answer.fun
    return torch.tensor([[single(i, c) for c in rows[i]] for i in range(len(region.lower))], dtype=F64)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("m", "d"), [(1, 2), (1, 8), (4, 6), (9, 5)])
def test_minima_are_those_of_linear_programs(m, d, solver):
    region, rows = polytope(m=m, d=d, seed=m + d, solver=SOLVERS[solver]), normal(3, 6, d, seed=7)
    found, expected = region.concretize(Dense((d,), None, rows)), reference(region, rows)
    assert (found <= expected + 1e-7).all()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7 if solver == "simplex" else 2e-2)
    plain = bl.Box(region.lower, region.upper).concretize(Dense((d,), None, rows))
    assert (found >= plain - 1e-12).all() and (found > plain + 1e-6).any()


def test_shared_constraints_of_images():
    lower = torch.zeros(2, 1, 3, 3, dtype=F64)
    mean = torch.full((1, 1, 3, 3), 1 / 9, dtype=F64)
    region = bl.Polytope(lower, lower + 1, torch.cat([mean, -mean]), torch.tensor([0.6, -0.4], dtype=F64))
    rows = normal(2, 5, 1, 3, 3, seed=3)
    torch.testing.assert_close(region.concretize(Dense((1, 3, 3), None, rows)), reference(region, rows), rtol=0, atol=1e-8)
    owner = torch.tensor([1, 0, 1])
    select = Select((1, 3, 3), owner, torch.tensor([0, 4, 8]), torch.tensor([1.0, -1.0], dtype=F64))
    found = region.concretize(select)
    torch.testing.assert_close(found, torch.tensor([[0.0, -1.0]], dtype=F64).expand(3, 2), rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_the_box_holds_the_polytope_and_is_exact_for_one_constraint(dtype):
    for m, exact in ((1, True), (4, False)):
        region = polytope(m=m, seed=m, dtype=dtype, slack=0.05)
        if exact:
            limit = torch.tensor([[0.5], [0.9], [1.7]], dtype=dtype)
            region = bl.Polytope(region.lower, region.upper, region.matrix.abs(), limit)
        eye = torch.eye(6, dtype=dtype).expand(3, 6, 6)
        low, high = reference(region, eye), -reference(region, -eye)
        box = region.box()
        assert (box.lower.double() <= low + 1e-9).all() and (box.upper.double() >= high - 1e-9).all()
        assert (box.lower > region.lower).any() or (box.upper < region.upper).any()
        if exact:
            torch.testing.assert_close(box.lower.double(), low, rtol=0, atol=1e-5)
            torch.testing.assert_close(box.upper.double(), high, rtol=0, atol=1e-5)


@dataclasses.dataclass(frozen=True)
class Lying:
    """A solver that returns any numbers at all."""

    seed: int

    def solve(self, region, c, owner):
        wild = torch.rand(*c.shape[:2], region.matrix.shape[1], generator=seeded(self.seed), dtype=c.dtype) * 10
        return wild, torch.zeros_like(c)


def test_a_wrong_solver_makes_bounds_looser_not_wrong():
    honest, rows = polytope(seed=11), normal(3, 6, 6, seed=12)
    expected = reference(honest, rows)
    for seed in range(20):
        region = bl.Polytope(honest.lower, honest.upper, honest.matrix, honest.limit, Lying(seed), honest.inside)
        assert (region.concretize(Dense((6,), None, rows)) <= expected + 1e-9).all()


def test_tiny_and_large_rows_keep_their_minima():
    region, rows = polytope(seed=13), normal(3, 4, 6, seed=14)
    whole = region.concretize(Dense((6,), None, rows))
    for size in (1e-12, 1e9):
        torch.testing.assert_close(region.concretize(Dense((6,), None, size * rows)), size * whole, rtol=1e-9, atol=0)


@pytest.mark.parametrize("about", ["rows", "lower", "upper", "matrix", "limit"])
def test_gradients_agree_with_finite_differences(about):
    region, rows = polytope(b=2, m=3, d=4, seed=15, slack=0.1), normal(2, 3, 4, seed=16)
    numbers = {"rows": rows} | {name: getattr(region, name) for name in ("lower", "upper", "matrix", "limit")}

    def minima(value):
        held = numbers | {about: value}
        moved = bl.Polytope(held["lower"], held["upper"], held["matrix"], held["limit"], inner=region.inside)
        return moved.concretize(Dense((4,), None, held["rows"]))

    assert torch.autograd.gradcheck(minima, numbers[about].clone().requires_grad_(), eps=1e-6, atol=1e-5)


def test_gradients_of_the_approximate_solver_are_near():
    rows = normal(3, 4, 6, seed=16)
    slopes = []
    for solver in (bl.Simplex(), bl.PrimalDual()):
        leaf = rows.clone().requires_grad_()
        slopes += torch.autograd.grad(polytope(seed=15, solver=solver).concretize(Dense((6,), None, leaf)).sum(), leaf)
    assert (slopes[0] - slopes[1]).abs().mean() < 0.02


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_projections_and_samples_keep_all_constraints(solver, dtype):
    region = polytope(seed=17, solver=SOLVERS[solver], dtype=dtype)
    wild = region.project((3 * normal(100, 3, 6, seed=18)).to(dtype))
    for points in (wild, region.sample(100, seeded(1))):
        assert (torch.einsum("nbd,bmd->nbm", points.double(), region.matrix.double()) <= region.limit.double()).all()
        assert ((points >= 0) & (points <= 1)).all()
        assert torch.equal(region.project(points), points)
    edge = torch.einsum("nbd,bmd->nbm", wild.double(), region.matrix.double()) >= region.limit.double() - 1e-3
    assert edge.any(2).double().mean() > 0.5, "projections should come near the constraints"


def network(d=6):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(d, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    return net, bl.capture(net, torch.zeros(2, d, dtype=F64)).detached()


def test_bounds_hold_and_are_tighter_than_those_of_the_box():
    net, model = network()
    region = polytope(seed=19, slack=0.05)
    y, box = net(region.sample(300, seeded(2))).detach(), bl.Box(region.lower, region.upper)
    for method in (bl.IBP(), bl.Forward(), bl.CROWN(bl.IBP()), bl.CROWN()):
        bounds, loose = bl.bound(model, region, method=method), bl.bound(model, box, method=method)
        assert (bounds.lower <= y + 1e-9).all() and (y <= bounds.upper + 1e-9).all()
        assert (bounds.upper - bounds.lower < loose.upper - loose.lower).all()


def test_an_affine_network_is_decided_exactly():
    net = nn.Sequential(nn.Linear(6, 2)).double()
    region, rows = polytope(seed=21), torch.tensor([[[1.0, -1.0]]], dtype=F64).expand(3, 1, 2)
    model = bl.capture(net, torch.zeros(2, 6, dtype=F64))
    weight, bias = net[0].weight.detach(), net[0].bias.detach()
    lowest = reference(region, (weight[0] - weight[1]).expand(3, 1, 6))[:, 0] + bias[0] - bias[1]
    for gap, wanted in ((1e-6, bl.Verdict.VERIFIED), (-1e-4, bl.Verdict.FALSIFIED)):
        results = bl.verify(model, region, bl.at_least(rows, (gap - lowest)[:, None]), rigour=bl.Rigour.FLOAT)
        assert [result.verdict for result in results] == [wanted] * 3


def simplex_of_probabilities(b=2, d=4):
    """Numbers from 0 to 1 whose sum is 1, as two inequalities."""
    ones = torch.ones(1, d, dtype=F64)
    lower = torch.zeros(b, d, dtype=F64)
    return bl.Polytope(lower, lower + 1, torch.cat([ones, -ones]), torch.tensor([1.0, -1.0], dtype=F64))


def test_equations_are_bounded_and_proven_but_not_attacked():
    region, rows = simplex_of_probabilities(), normal(2, 5, 4, seed=22)
    torch.testing.assert_close(region.concretize(Dense((4,), None, rows)), rows.amin(2), rtol=0, atol=1e-8)
    with pytest.raises(bl.MissingRule, match="2 of 2 polytopes have no inner points"):
        region.sample(3)
    known = torch.distributions.Dirichlet(torch.ones(4, dtype=F64)).expand((50, 2)).sample()
    check_perturbation(region, known=known)
    _, model = network(4)
    bounds = bl.bound(model, region)
    for gap, wanted in ((1e-3, bl.Verdict.VERIFIED), (-100.0, bl.Verdict.UNKNOWN)):
        spec = bl.at_least(torch.tensor([[[1.0, 0.0]]], dtype=F64).expand(2, 1, 2), (gap - bounds.lower[:, :1]))
        results = bl.verify(model, region, spec, rigour=bl.Rigour.FLOAT)
        assert [result.verdict for result in results] == [wanted] * 2
        assert all(sum("no inner points" in note for note in result.notes) <= 1 for result in results)
    assert all(any(note.startswith("attack: ") for note in result.notes) for result in results)


def test_empty_polytopes_are_refused_by_both_solvers():
    ones = torch.ones(1, 4, dtype=F64)
    lower = torch.zeros(2, 4, dtype=F64)
    for solver in SOLVERS.values():
        for limit in (torch.tensor([[1.0, -1.5], [1.0, 0.0]]), torch.tensor([[-0.01, 9.0], [1.0, 1.0]])):
            with pytest.raises(bl.SpecError, match="1 of 2 polytopes are empty: within number 0's box its 2 constraints"):
                bl.Polytope(lower, lower + 1, torch.cat([ones, -ones]), limit.double(), solver)
        bl.Polytope(lower, lower + 1, torch.cat([ones, -ones]), torch.tensor([1.0, -0.99], dtype=F64), solver)


def test_float32_equations_with_rounded_thirds_are_not_called_empty():
    third = torch.full((1, 3), 1 / 3)
    lower = torch.zeros(1, 3)
    region = bl.Polytope(lower, lower + 1, torch.cat([third, -third]), torch.tensor([1 / 3, -1 / 3]))
    found = region.concretize(Dense((3,), None, torch.eye(3)[None]))
    assert (found <= 1e-6).all()


def test_without_the_package_the_error_says_what_to_do(monkeypatch):
    kept = builtins.__import__

    def absent(name, *rest, **more):
        if name == "highspy":
            raise ImportError(name)
        return kept(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(bl.BoundlabError, match=r"pip install 'boundlab\[lp\]'; or give the set solver=PrimalDual\(\)"):
        polytope()
    rows = normal(3, 2, 6)
    assert torch.isfinite(polytope(solver=bl.PrimalDual()).concretize(Dense((6,), None, rows))).all()


LOW, ONES = torch.zeros(2, 3), torch.ones(1, 3)
WRONG = {
    "bounds the wrong way round": (lambda: bl.Polytope(LOW + 1, LOW, ONES, torch.ones(1)), "box is empty"),
    "a matrix of another width": (lambda: bl.Polytope(LOW, LOW + 1, torch.ones(1, 4), torch.ones(1)), "got matrix"),
    "a limit of another length": (lambda: bl.Polytope(LOW, LOW + 1, ONES, torch.ones(2)), "got matrix"),
    "a matrix without rows": (lambda: bl.Polytope(LOW, LOW + 1, torch.ones(0, 3), torch.ones(0)), "got matrix"),
    "a limit that is a number": (lambda: bl.Polytope(LOW, LOW + 1, ONES, 1.0), "needs tensors matrix"),
    "a matrix for other problems": (lambda: bl.Polytope(LOW, LOW + 1, torch.ones(3, 1, 3), torch.ones(1)), "got matrix"),
    "NaN in the matrix": (lambda: bl.Polytope(LOW, LOW + 1, ONES * math.nan, torch.ones(1)), "matrix of a polytope must"),
    "no limit at all": (lambda: bl.Polytope(LOW, LOW + 1, ONES, torch.full((1,), math.inf)), "limit of a polytope must"),
    "a box without end": (lambda: bl.Polytope(LOW, LOW + math.inf, ONES, torch.ones(1)), "bounds of a polytope must be finite"),
    "constraints that contradict": (lambda: bl.Polytope(LOW, LOW + 1, torch.cat([ONES, -ONES]), torch.tensor([1.0, -2.0])),
                                    "2 of 2 polytopes are empty"),
}


@pytest.mark.parametrize("call", WRONG)
def test_impossible_polytopes_are_refused_in_words(call):
    wrong, words = WRONG[call]
    with pytest.raises(bl.SpecError, match=words) as caught:
        wrong()
    assert str(caught.value).count("\n") == 0
