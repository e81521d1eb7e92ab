"""Laws of l_p balls: every minimum against a feasible point found by other means, and against scipy's solvers."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

import boundlab as bl
from boundlab.maps import Dense, Origin, Select, Windows
from boundlab.perturbations import reach
from boundlab.testing import check_perturbation

NORMS = [1, 1.1, 1.5, 2, 3, 10, math.inf]
FINITE = [p for p in NORMS if math.isfinite(p)]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def ball(p, seed=0, outside=0.0, count=4, size=6, clip=(0.0, 1.0), dtype=torch.float64):
    """Balls about points up to `outside` beyond the clip box, each with its own radius, large enough to reach it."""
    generator = seeded(seed)
    center = torch.rand(count, size, generator=generator, dtype=dtype) * (1 + 2 * outside) - outside
    distance = torch.linalg.vector_norm(center - center.clamp(0, 1), p, dim=1)
    slack = torch.tensor([0.02, 0.1, 0.5, 1.0, 3.0], dtype=dtype)[torch.arange(count) % 5]
    return bl.LpBall(center, distance + slack, p, clip)


def rows(size=6, count=4, seed=9, dtype=torch.float64):
    return Dense((size,), None, torch.randn(count, 5, size, generator=seeded(seed), dtype=dtype))


def scaled_power(c, p):
    """Where the gradient of |v|^p / p is parallel to c: the direction of the minimum of c . v over a ball."""
    return -torch.sign(c) * (c.abs() / c.abs().max()) ** (1 / (p - 1))


def feasible_minimum(region, c, index, steps=110):
    """Value at a feasible point that bisection on the multiplier finds, one row and one problem at a time."""
    center, eps, p = region.center[index], float(region.radius.flatten()[index]), region.p
    low, high = 0.0 - center, 1.0 - center
    direction = scaled_power(c, p)

    def point(t):
        return torch.minimum(torch.maximum(t * direction, low), high)

    small, large = -80.0, 80.0
    if torch.linalg.vector_norm(point(math.exp(large)), p) <= eps:
        return float(c @ (center + point(math.exp(large))))
    for _ in range(steps):
        middle = (small + large) / 2
        inside = torch.linalg.vector_norm(point(math.exp(middle)), p) <= eps
        small, large = (middle, large) if inside else (small, middle)
    return float(c @ (center + point(math.exp(small))))


@pytest.mark.parametrize("outside", [0.0, 0.4])
@pytest.mark.parametrize("p", [p for p in FINITE if p > 1])
def test_minimum_is_attained_and_a_lower_bound(p, outside):
    for seed in range(3):
        region, linear = ball(p, seed, outside), rows(seed=seed + 50)
        found = region.concretize(linear)
        for index in range(4):
            for row in range(5):
                attained = feasible_minimum(region, linear.coefficients[index, row], index)
                assert found[index, row] <= attained + 1e-9
                assert found[index, row] == pytest.approx(attained, abs=1e-7)


@pytest.mark.parametrize("p", [1.5, 2, 3])
def test_minimum_agrees_with_sequential_quadratic_programming(p):
    region, linear = ball(p, seed=3, outside=0.2), rows(seed=4)
    found, agreed = region.concretize(linear), 0
    for index in range(2, 4):
        center, eps = region.center[index].numpy(), float(region.eps[index])
        for row in range(5):
            c = linear.coefficients[index, row].numpy()
            limit = {"type": "ineq", "fun": lambda x: eps**p - (np.abs(x - center) ** p).sum(),
                     "jac": lambda x: -p * np.abs(x - center) ** (p - 1) * np.sign(x - center)}
            answer = minimize(lambda x: c @ x, center.clip(0, 1), jac=lambda x: c, bounds=[(0, 1)] * 6,
                              constraints=[limit], options={"ftol": 1e-13, "maxiter": 500})
            if answer.success:
                assert float(found[index, row]) == pytest.approx(answer.fun, abs=1e-5)
                agreed += 1
    assert agreed >= 5, "the reference solver gave up too often"


def linear_program(center, eps, c, p):
    """Minimum of c . x over an l_1 or l_inf ball within [0, 1], as a linear program with one slack a coordinate."""
    size = len(center)
    eye, zero = np.eye(size), np.zeros((size, size))
    above = np.block([[eye, -eye], [-eye, -eye]])
    budget = np.block([np.zeros((1, size)), np.ones((1, size))]) if p == 1 else np.block([zero, eye])
    ends = np.concatenate([center, -center, np.full(len(budget), eps)])
    answer = linprog(np.concatenate([c, np.zeros(size)]), np.concatenate([above, budget]), ends,
                     bounds=[(0, 1)] * size + [(0, None)] * size)
    assert answer.status == 0
    return answer.fun


@pytest.mark.parametrize("outside", [0.0, 0.4])
@pytest.mark.parametrize("p", [1, math.inf])
def test_minimum_agrees_with_linear_programming(p, outside):
    for seed in range(2):
        region, linear = ball(p, seed, outside), rows(seed=seed + 20)
        found = region.concretize(linear)
        for index in range(4):
            for row in range(5):
                c = linear.coefficients[index, row].numpy()
                best = linear_program(region.center[index].numpy(), float(region.eps[index]), c, p)
                assert float(found[index, row]) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("p", NORMS)
def test_without_clip_the_minimum_is_the_dual_norm(p):
    region, linear = ball(p, clip=None), rows()
    q = {1: math.inf, math.inf: 1}.get(p) or p / (p - 1)
    norms = torch.linalg.vector_norm(linear.coefficients, q, dim=2)
    expected = (linear.coefficients @ region.center[:, :, None]).squeeze(2) - region.eps[:, None] * norms
    torch.testing.assert_close(region.concretize(linear), expected)
    wide = bl.LpBall(region.center, region.eps, p, (-100.0, math.inf))
    torch.testing.assert_close(wide.concretize(linear), expected)


@pytest.mark.parametrize("p", [1.01, 1.1, 3, 40])
def test_powers_of_small_coefficients_do_not_vanish(p):
    center, c = torch.zeros(1, 4), torch.tensor([[[3e-12, -4e-12, 1e-12, 0.0]]])
    for clip in (None, (-2.0, 2.0)):
        small = bl.LpBall(center, 1.0, p, clip).concretize(Dense((4,), None, c))
        large = bl.LpBall(center, 1.0, p, clip).concretize(Dense((4,), None, c * 2.0**40))
        assert small < -3.9e-12
        torch.testing.assert_close(small * 2.0**40, large, rtol=1e-4, atol=0)


@pytest.mark.parametrize("outside", [0.0, 0.3])
@pytest.mark.parametrize("p", NORMS)
def test_float32_agrees_with_float64(p, outside):
    exact = ball(p, seed=5, outside=outside, count=4, size=200, dtype=torch.float32)
    linear = rows(200, seed=6, dtype=torch.float32)
    wide = bl.LpBall(exact.center.double(), exact.eps.double() * (1 + 1e-6), p, exact.clip)
    expected = wide.concretize(Dense((200,), None, linear.coefficients.double()))
    scale = linear.coefficients.abs().sum(2).max()
    assert (exact.concretize(linear).double() - expected).abs().max() <= 2e-5 * float(scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
@pytest.mark.parametrize("p", NORMS)
def test_samples_lie_in_the_set_and_above_the_minimum(p, clip, dtype):
    region, linear = ball(p, seed=7, outside=0.2, clip=clip, dtype=dtype), rows(seed=8, dtype=dtype)
    points, box, low = region.sample(400, seeded(1)), region.box(), region.concretize(linear)
    rounding = 30 * torch.finfo(dtype).eps
    distance = torch.linalg.vector_norm(points - region.center, p, dim=2)
    assert (distance <= region.eps * (1 + rounding) + rounding).all()
    assert ((box.lower <= points) & (points <= box.upper)).all()
    assert clip is None or ((points >= 0) & (points <= 1)).all()
    values = torch.einsum("bsk,nbk->nbs", linear.coefficients, points)
    assert (values >= low - 20 * rounding).all()
    assert (distance >= 0.99 * region.eps).any(0)[:2].all(), "no sample on the sphere of a small ball"


@pytest.mark.parametrize(("clip", "dtype"), [
    (None, torch.float32), ((0.0, 1.0), torch.float64), pytest.param(None, torch.float64, marks=pytest.mark.slow),
    pytest.param((0.0, 1.0), torch.float32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("p", NORMS)
def test_the_conformance_suite_accepts_balls(p, clip, dtype):
    region = ball(p, seed=27, outside=0.2, size=32, clip=clip, dtype=dtype)
    check_perturbation(bl.LpBall(region.center.reshape(4, 2, 4, 4), region.eps, p, clip))


@pytest.mark.parametrize("outside", [0.0, 0.4])
@pytest.mark.parametrize("p", NORMS)
def test_the_box_is_the_range_of_every_coordinate(p, outside):
    region = ball(p, seed=11, outside=outside)
    eye = torch.eye(6, dtype=torch.float64).expand(4, 6, 6)
    box = region.box()
    torch.testing.assert_close(box.lower, region.concretize(Dense((6,), None, eye)), rtol=0, atol=1e-7)
    torch.testing.assert_close(box.upper, -region.concretize(Dense((6,), None, -eye)), rtol=0, atol=1e-7)


@pytest.mark.parametrize("p", NORMS)
def test_projection_is_feasible_and_leaves_points_of_the_set_alone(p):
    region = ball(p, seed=13, outside=0.3)
    points = torch.randn(50, 4, 6, generator=seeded(2), dtype=torch.float64)
    near = region.project(points)
    distance = torch.linalg.vector_norm(near - region.center, p, dim=2)
    assert (distance <= region.eps + 1e-12).all()
    assert ((near >= 0) & (near <= 1)).all()
    torch.testing.assert_close(region.project(near), near, rtol=0, atol=1e-9)
    torch.testing.assert_close(region.project(points[0]), near[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("p", [1, 1.5, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_center_far_outside_the_box_moves_no_projected_point(p, dtype):
    """Little is left over there: rounding of a share is a long way, and the search for the multiplier has kinks."""
    for seed in range(20):
        center = torch.randn(3, 6, generator=seeded(5000 + seed), dtype=torch.float64).to(dtype)
        distance = torch.linalg.vector_norm(center - center.clamp(-0.7, 0.9), p, dim=1)
        region = bl.LpBall(center, distance * (1 + 0.3 * torch.rand(3, generator=seeded(seed), dtype=dtype)), p, (-0.7, 0.9))
        near = region.project(center + 3 * torch.randn(500, 3, 6, generator=seeded(seed), dtype=torch.float64).to(dtype))
        spent = torch.linalg.vector_norm((near - center).double(), p, dim=2)
        rounding = 32 * torch.finfo(dtype).eps
        assert (spent <= region.eps.double() * (1 + rounding)).all()
        torch.testing.assert_close(region.project(near), near, rtol=0, atol=rounding)


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_projection_is_the_nearest_point(p):
    """Obtuse angle criterion: no point of the set makes an acute angle with the way back."""
    region = ball(p, seed=17, outside=0.3)
    points = torch.randn(30, 4, 6, generator=seeded(3), dtype=torch.float64)
    near, others = region.project(points), region.sample(200, seeded(4))
    angles = torch.einsum("nbk,mnbk->mnb", points - near, others[:, None] - near)
    assert angles.max() <= 1e-7


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
@pytest.mark.parametrize("p", NORMS)
def test_gradients_agree_with_finite_differences(p, clip):
    region = ball(p, seed=19, outside=0.2, clip=clip)
    coefficients = rows(seed=21).coefficients[:, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda c: region.concretize(Dense((6,), None, c)), coefficients, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
@pytest.mark.parametrize("p", NORMS)
def test_gradient_in_the_radius_agrees_with_finite_differences(p, clip):
    still = ball(p, seed=23, clip=clip)
    linear = rows(seed=24)
    eps = still.eps.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda e: bl.LpBall(still.center, e, p, clip).concretize(linear), eps, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
@pytest.mark.parametrize("p", NORMS)
def test_zero_rows_and_zero_radius(p, clip):
    center = torch.rand(2, 5, generator=seeded(1))
    coefficients = torch.zeros(2, 3, 5, requires_grad=True)
    value = bl.LpBall(center, 0.2, p, clip).concretize(Dense((5,), None, coefficients))
    assert (value == 0).all()
    value.sum().backward()
    assert torch.isfinite(coefficients.grad).all()
    some = torch.randn(2, 3, 5, generator=seeded(2), requires_grad=True)
    point = bl.LpBall(center, torch.tensor([0.0, 0.1]), p, clip)
    value = point.concretize(Dense((5,), None, some))
    torch.testing.assert_close(value[0], some[0] @ center[0])
    value.sum().backward()
    assert torch.isfinite(some.grad).all()
    assert torch.equal(point.box().lower[0], center[0])
    assert torch.equal(point.sample(5)[:, 0], center[0].expand(5, 5))


@pytest.mark.parametrize("p", NORMS)
def test_a_ball_that_touches_the_box_is_one_point(p):
    center = torch.tensor([[1.25, 0.5, -0.5]], dtype=torch.float64)
    eps = float(torch.linalg.vector_norm(center - center.clamp(0, 1), p))
    region = bl.LpBall(center, eps, p, (0.0, 1.0))
    c = torch.tensor([[[1.0, -2.0, 0.5], [-1.0, 3.0, 1.0]]], dtype=torch.float64)
    found, corner = region.concretize(Dense((3,), None, c)), torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    if math.isinf(p):
        assert (found <= c[0] @ corner).all()
    else:
        attained, sizes = c[0] @ corner, c[0].abs().sum(1)
        assert (found <= attained).all()
        assert (found >= attained - sizes * eps * (1e-14 * 40) ** (1 / p)).all()


@pytest.mark.parametrize("excess", [1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("p", FINITE)
def test_rounding_near_contact_makes_bounds_looser_not_wrong(p, excess):
    """Balls that barely reach the box, in float32, against the same balls in float64."""
    center = torch.rand(100, 30, generator=seeded(1)) * 1.4 - 0.2
    distance = torch.linalg.vector_norm(center - center.clamp(0, 1), p, dim=1)
    eps, c = distance * (1 + excess), torch.randn(100, 2, 30, generator=seeded(2))
    found = bl.LpBall(center, eps, p, (0.0, 1.0)).concretize(Dense((30,), None, c)).double()
    exact = bl.LpBall(center.double(), eps.double(), p, (0.0, 1.0)).concretize(Dense((30,), None, c.double()))
    assert (found <= exact + 2e-6 * c.abs().sum(2)).all()


@pytest.mark.parametrize("p", [1, 1.5, 2, math.inf])
def test_all_kinds_of_rows_agree(p):
    """Windows that reach over the edge of the map, ragged selections, and rows that all problems share."""
    shape = (2, 4, 5)
    center = torch.rand(3, *shape, generator=seeded(1), dtype=torch.float64) * 1.4 - 0.2
    low = torch.tensor([0.0, 0.05], dtype=torch.float64)[:, None, None]
    distance = torch.linalg.vector_norm((center - center.clamp(0.05, 0.9)).flatten(1), p, dim=1)
    region = bl.LpBall(center, distance + 0.3, p, (low, 0.9))
    owner = torch.tensor([2, 0, 0, 1])
    origin = Origin(torch.tensor([0, 8, 19, 11]), (4, 5), (1, 1), (-1, -1))
    images = torch.randn(4, 2, 3, 3, 2, generator=seeded(2), dtype=torch.float64)
    windows = Windows(shape, owner, images, origin, clean=False)
    select = Select(shape, owner, torch.tensor([0, 7, 39, 20]), torch.tensor([[1.0, -1.0]], dtype=torch.float64))
    for structured in (windows, select):
        dense = Dense(shape, None, structured.dense())
        torch.testing.assert_close(region.concretize(structured), region.take(owner).concretize(dense))
    shared = torch.randn(1, 6, *shape, generator=seeded(3), dtype=torch.float64)
    together = region.concretize(Dense(shape, None, shared))
    torch.testing.assert_close(together, region.concretize(Dense(shape, None, shared.expand(3, *shared.shape[1:]))))


@pytest.mark.parametrize("p", [1, 1.5, 2])
def test_work_in_halves_changes_nothing(p, monkeypatch):
    region, linear = ball(p, seed=29, outside=0.2), rows(seed=30)
    shared = Dense((6,), None, linear.coefficients[:1])
    whole, common = region.concretize(linear), region.concretize(shared)
    monkeypatch.setattr(reach, "MOST_CELLS", 10)
    torch.testing.assert_close(region.concretize(linear), whole)
    torch.testing.assert_close(region.concretize(shared), common)


@pytest.mark.parametrize("p", [1, 2, 3, math.inf])
def test_problems_do_not_influence_each_other(p):
    region, linear = ball(p, seed=31, outside=0.2), rows(seed=32)
    whole, samples = region.concretize(linear), region.sample(9, seeded(5))
    for index in range(4):
        alone = region.take(torch.tensor([index]))
        own = Dense((6,), None, linear.coefficients[index, None])
        torch.testing.assert_close(alone.concretize(own)[0], whole[index])
        torch.testing.assert_close(alone.sample(9, seeded(5))[:, 0], samples[:, index])


def test_take_follows_clip_tensors_and_radii():
    center = torch.tensor([[0.2, 0.3], [0.6, 0.7]])
    region = bl.LpBall(center, torch.tensor([0.1, 0.2]), 2, (center - 0.05, torch.tensor([1.0, 1.0])))
    taken = region.take(torch.tensor([1, 1, 0]))
    torch.testing.assert_close(taken.box().lower, center[[1, 1, 0]] - 0.05)
    torch.testing.assert_close(taken.box().upper, center[[1, 1, 0]] + torch.tensor([[0.2], [0.2], [0.1]]))


@pytest.mark.parametrize("p", NORMS)
def test_ascent_moves_one_radius_up(p):
    region = ball(p, clip=None)
    gradient = torch.randn(7, 4, 6, generator=seeded(1), dtype=torch.float64)
    move = region.ascent(gradient)
    torch.testing.assert_close(torch.linalg.vector_norm(move, p, dim=2), region.eps.expand(7, 4))
    gain = (gradient * move).sum(2)
    most = -region.concretize(Dense((6,), None, -gradient[0][:, None]))[:, 0] - (gradient[0] * region.center).sum(1)
    torch.testing.assert_close(gain[0], most)
    assert (region.ascent(torch.zeros(4, 6, dtype=torch.float64)) == 0).all() or p == 1


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(eps=-0.1), "not negative"), (dict(eps=math.nan), "finite"), (dict(eps=math.inf), "finite"),
    (dict(eps=0.1, p=0.5), "p >= 1"), (dict(eps=0.1, p=math.nan), "p >= 1"),
    (dict(eps=torch.tensor([0.1, 0.2, 0.3])), "each of 2"), (dict(eps=0.1, clip=(1.0, 0.0)), "clip box is empty"),
    (dict(eps=0.1, clip=(0.75, 1.0)), "do not reach"), (dict(eps=0.1, p=2, clip=(0.6, math.nan)), "clip box is empty"),
    (dict(eps=0.14, p=2, clip=(0.6, 1.0)), "do not reach"), (dict(eps=0.19, p=1, clip=(0.6, 1.0)), "do not reach"),
])
def test_impossible_balls_are_refused(arguments, message):
    center = torch.full((2, 2), 0.5)
    with pytest.raises(bl.SpecError, match=message):
        bl.LpBall(center, **arguments)


def test_a_center_without_numbers_is_refused():
    with pytest.raises(bl.SpecError, match="center"):
        bl.LpBall(torch.tensor([[0.1, math.nan]]), 0.1)
    with pytest.raises(bl.SpecError, match="center"):
        bl.LpBall(torch.tensor([[1, 2]]), 0.1)


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_interval_bounds_use_the_ball_itself_in_the_first_layer(p):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).double()
    region = ball(p, seed=41)
    model = bl.capture(net, region.center)
    bounds = bl.bound(model, region, method=bl.IBP())
    weight, bias = net[0].weight.detach(), net[0].bias.detach()
    first = next(node for node in model.graph if node.op == "linear")
    lower = region.concretize(Dense((6,), None, weight[None])) + bias
    torch.testing.assert_close(bounds.intermediate[first.name].lower, lower)
    values = torch.stack([net(points) for points in region.sample(200, seeded(1))])
    crown = bl.bound(model, region)
    for found in (bounds, crown):
        assert (values >= found.lower - 1e-9).all() and (values <= found.upper + 1e-9).all()


def test_taking_problems_takes_their_radii_whatever_their_shape():
    center, places = torch.zeros(3, 2, 2), torch.tensor([2, 0, 1])
    for eps in (torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1)):
        assert bl.LpBall(center, eps).take(places).box().upper[:, 0, 0].tolist() == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
def test_tiny_coefficients_keep_their_share_of_the_radius(p):
    rows = torch.full((1, 1, 4), 1e-25)
    lower = bl.LpBall(torch.zeros(1, 4), 1.0, p=p).concretize(Dense((4,), None, rows))
    assert lower.item() == pytest.approx(-1e-25 * 4 ** (1 - 1 / p), rel=1e-5)
