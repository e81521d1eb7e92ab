"""BCP and LMT: their order is a theorem, the worst row is that of a solver, nothing depends on the batch or on precision.

(That points lie inside BCP's bounds of random networks is in test_soundness.py; LMT's hold BCP's, as shown here.)
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import nn

import boundlab as bl
from boundlab.bounds.around import Around
from boundlab.bounds.lipschitz import caught, cut_ball
from boundlab.bounds.problem import problem_of
from boundlab.errors import BoundError
from boundlab.interval import Interval
from boundlab.maps import Dense, trainable_bound
from tests.bounds.networks import KINDS, captured
from tests.bounds.soundness import random_rows, region_of

CALM = {kind: sorted({*table} - {"quotient", "exp", "layer norm"}) for kind, (_, table) in KINDS.items()}
"""Blocks that LMT, which forgets signs, can bound on large sets."""


def small(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(1, 3, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(27, 8), nn.ReLU(), nn.Linear(8, 4))
    return bl.capture(net.to(dtype).eval(), torch.zeros(2, 1, 6, 6, dtype=dtype)), net


def images(count=3, dtype=torch.float64):
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=dtype)


@settings(max_examples=12, deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(CALM)), seed=st.integers(0, 9999),
       region=st.sampled_from(["box", "l1", "l2", "linf", "l2 clipped"]), radius=st.sampled_from([0.01, 0.3, 1.5]))
def test_bcp_is_within_lmt_and_within_the_intervals_of_the_same_box(data, kind, seed, region, radius):
    blocks = data.draw(st.lists(st.sampled_from(CALM[kind]), min_size=1, max_size=3))
    _, model = captured(kind, blocks, seed)
    where, spec = region_of(region, radius, KINDS[kind][0], seed), bl.at_least(random_rows((3,), seed))
    box = bl.Box(where.box().lower, where.box().upper)
    with torch.no_grad():
        ours, balls, boxes = (bl.bound(model, one, method=method, spec=spec) for one, method in (
            (where, bl.BCP()), (where, bl.LMT()), (box, bl.IBP())))
    for index, interval in ours.env.items():
        if isinstance(interval, Interval):
            for other in (balls.env[index], boxes.env[index]):
                slack = 1e-9 * (1 + other.lower.abs() + other.upper.abs())
                assert (interval.lower >= other.lower - slack).all() and (interval.upper <= other.upper + slack).all()
    for other in (balls.lower, boxes.lower):
        assert (ours.lower >= other - 1e-7 * (1 + other.abs())).all()


def test_a_problem_is_bounded_alone_as_in_a_batch_and_in_single_precision_as_in_double():
    model, _ = small()
    x, labels = images(), torch.tensor([0, 3, 1])
    spec = bl.margins(labels, 4, torch.float64)
    for method in (bl.BCP(), bl.LMT()):
        whole = bl.bound(model, bl.LpBall(x, 0.4, 2.0), method=method, spec=spec).lower
        for place in range(3):
            index = torch.tensor([place])
            alone = bl.bound(model, bl.LpBall(x[index], 0.4, 2.0), method=method, spec=spec.take(index)).lower
            assert torch.allclose(alone[0], whole[place], rtol=1e-12, atol=1e-12)
        single = bl.bound(model.to(torch.float32), bl.LpBall(x.float(), 0.4, 2.0), method=method,
                          spec=bl.margins(labels, 4)).lower
        assert torch.allclose(single.double(), whole, rtol=1e-4, atol=1e-5)


def test_lmt_of_a_plain_network_is_the_product_of_norms_times_the_norm_of_the_last_rows():
    torch.manual_seed(3)
    first, last = nn.Linear(5, 7).double(), nn.Linear(7, 3).double()
    model = bl.capture(nn.Sequential(first, nn.ReLU(), last), torch.zeros(2, 5, dtype=torch.float64))
    x, labels = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    found = bl.bound(model, bl.LpBall(x, 0.3, 2.0), method=bl.LMT(), spec=bl.margins(labels, 3, torch.float64)).lower
    margin = bl.margins(labels, 3, torch.float64)
    reach = 0.3 * torch.linalg.matrix_norm(first.weight, 2)
    wanted = margin.values(bl.evaluate(model, x)) - reach * (margin.rows @ last.weight).norm(dim=2)
    assert torch.allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 4.0, math.inf])
def test_balls_of_any_norm_begin_with_the_l2_ball_around_them(p):
    ball = bl.LpBall(torch.randn(2, 9, dtype=torch.float64), 0.5, p)
    center, radius = ball.l2_ball()
    points = ball.sample(400, torch.Generator().manual_seed(0))
    far = (points - center).norm(dim=2).amax(0)
    assert (far <= radius * (1 + 1e-12)).all()
    assert radius[0] == pytest.approx(0.5 * 9 ** max(0.0, 0.5 - 1 / p))


def test_a_ball_within_the_image_domain_is_smaller_than_the_ball():
    model, _ = small()
    x, labels = images(), torch.tensor([0, 3, 1])
    spec = bl.margins(labels, 4, torch.float64)
    balls = (bl.LpBall(x, 1.5, 2.0, clip) for clip in (None, (0.0, 1.0)))
    free, held = (bl.bound(model, ball, method=bl.BCP(), spec=spec).lower for ball in balls)
    assert (held >= free - 1e-12).all() and (held > free + 1e-3).any()


def test_residual_sums_add_their_radii_and_parts_side_by_side_stand_at_right_angles():
    class Both(nn.Module):
        """x + x and [x, x]."""

        def forward(self, x):
            return torch.cat([x, x + x], 1)

    model = bl.capture(Both(), torch.zeros(2, 3, dtype=torch.float64))
    problem = problem_of(model, bl.LpBall(torch.zeros(1, 3, dtype=torch.float64), 1.0, 2.0))
    _, balls = caught(problem, bl.LMT().norm, boxes=False)
    assert float(balls[model.graph.output.index].radius) == pytest.approx(math.sqrt(5), rel=1e-5)


def test_differences_whose_squares_vanish_do_not():
    class Both(nn.Module):
        """[x, x] with steps at right angles."""

        def forward(self, x):
            return torch.cat([x, 2 * x], 1)

    model = bl.capture(Both(), torch.zeros(2, 3))
    ball = bl.LpBall(torch.zeros(1, 3), 1e-25, 2.0)
    for method in (bl.LMT(), bl.BCP()):
        found = bl.bound(model, ball, method=method)
        assert (found.upper >= 0.999 * 1e-25).all() and (found.lower <= -0.999 * 1e-25).all()


# -- the worst row -------------------------------------------------------------------------------------------------------

def cut(seed, dtype=torch.float64):
    """A ball within a box, and rows; the box holds the center."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    center, below, above = numbers(2, 6), numbers(2, 6).abs() * 0.4, numbers(2, 6).abs() * 0.4
    below[:, 0] = above[:, 1] = 0
    return Around(center, numbers(2).abs() * 0.6), Interval(center - below, center + above), numbers(2, 3, 6)


@pytest.mark.parametrize("seed", range(8))
def test_the_worst_row_is_that_of_a_solver(seed):
    ball, box, rows = cut(seed)
    found = cut_ball(ball, box).concretize(Dense((6,), None, rows))
    for problem in range(2):
        middle, radius = ball.center[problem].numpy(), float(ball.radius[problem])
        ends = list(zip(box.lower[problem].tolist(), box.upper[problem].tolist(), strict=True))
        for row in range(3):
            c = rows[problem, row].numpy()
            best = minimize(lambda y, c=c: float(c @ y), middle, jac=lambda y, c=c: c, bounds=ends, method="SLSQP",
                            constraints={"type": "ineq", "fun": lambda y, m=middle, r=radius: r**2 - np.sum((y - m) ** 2),
                                         "jac": lambda y, m=middle: -2 * (y - m)}, options={"ftol": 1e-14, "maxiter": 500})
            assert float(found[problem, row]) == pytest.approx(best.fun, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_worst_row_is_below_all_points_of_ball_and_box_and_single_precision_agrees(dtype):
    for seed in range(20):
        ball, box, rows = cut(seed, dtype)
        region = cut_ball(ball, box)
        found = region.concretize(Dense((6,), None, rows)).double()
        exact_ball, exact_box, exact_rows = cut(seed)
        exact = cut_ball(exact_ball, exact_box).concretize(Dense((6,), None, exact_rows))
        assert torch.allclose(found, exact, atol=2e-5 if dtype is torch.float32 else 1e-12)
        points = region.sample(100, torch.Generator().manual_seed(0)).double()
        values = torch.einsum("nbk,bsk->nbs", points, exact_rows)
        assert (values >= found - 1e-5).all()


def test_the_gradient_of_the_worst_row_is_that_of_differences():
    ball, box, rows = cut(4)
    inputs = [part.clone().requires_grad_() for part in (ball.center, ball.radius, box.lower - 0.01, box.upper + 0.01, rows)]

    def worst(center, radius, lower, upper, rows):
        return cut_ball(Around(center, radius), Interval(lower, upper)).concretize(Dense((6,), None, rows))

    assert torch.autograd.gradcheck(worst, inputs, eps=1e-6, atol=1e-6)


def test_the_gradient_of_margins_in_the_weights_is_that_of_differences():
    model, net = small()
    x, spec = images(), bl.margins(torch.tensor([0, 3, 1]), 4, torch.float64)

    def loss(model, norm=bl.BCP().norm):
        return bl.bound(model, bl.LpBall(x, 0.4, 2.0), method=bl.BCP(norm), spec=spec).lower.sum()

    loss(model, lambda layer, like: trainable_bound(layer, like, 300)).backward()
    for name, parameter in net.named_parameters():
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        near = [loss(model.with_params({name: parameter.detach() + step * direction})).detach() for step in (1e-6, -1e-6)]
        assert float((parameter.grad * direction).sum()) == pytest.approx(float(near[0] - near[1]) / 2e-6, rel=2e-3, abs=1e-5)


def test_what_is_no_number_is_never_certified():
    model, net = small()
    with torch.no_grad():
        net[3].weight[0, 0] = math.nan
    for method in (bl.BCP(), bl.LMT()):
        with pytest.raises(BoundError, match="NaN or infinite"):
            bl.bound(model, bl.LpBall(images(), 0.1, 2.0), method=method, spec=bl.margins([0, 3, 1], 4, torch.float64))


def test_slopes_beyond_an_operators_domain_bound_nothing():
    class Logarithm(nn.Module):
        """The logarithm of x and of 5 y + 10, which the ball around both outgrows and its points do not."""

        def forward(self, x):
            return torch.log(x * torch.tensor([1.0, 5.0], dtype=x.dtype) + torch.tensor([1.0001, 10.0], dtype=x.dtype))

    model = bl.capture(Logarithm(), torch.zeros(2, 2, dtype=torch.float64))
    ball = bl.LpBall(torch.zeros(1, 2, dtype=torch.float64), 1.0, 2.0)
    with pytest.raises(BoundError, match="log"):
        bl.bound(model, ball, method=bl.LMT())
    found = bl.bound(model, ball, method=bl.BCP())
    lowest = bl.evaluate(model, torch.tensor([[-1.0, 0.0]], dtype=torch.float64))
    assert (found.lower <= lowest).all() and (lowest <= found.upper).all()


def test_the_order_of_a_norm_is_no_norm_of_layers():
    for method in (bl.BCP(2.0), bl.LMT(2.0)):
        with pytest.raises(bl.SpecError, match="function that bounds the spectral norm of a layer, got 2"):
            bl.bound(small()[0], bl.LpBall(images(), 0.1, 2.0), method=method)
