"""Layers whose weight lies in a ball: intervals and planes hold at its points, and at the worst of them."""

import math

import pytest
import torch

from boundlab import LpBall, ops
from boundlab.interval import Ball, Interval, laid_together

F64 = torch.float64
LAYERS = {
    "linear": ((4,), (3, 4), {}),
    "linear over tokens": ((2, 4), (3, 4), {}),
    "conv": ((2, 5, 4), (4, 1, 3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}),
    "conv_transpose": ((4, 3, 4), (4, 1, 3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2),
                                                 "output_padding": (1, 0), "groups": 2}),
    "matmul": ((2, 3, 4), (2, 4, 2), {}),
}


def pieces(layer, p, own, seed=0):
    """Boxes of x of several widths, a ball of the weight (of each problem, if `own`), and the operator."""
    shape, weight, attributes = LAYERS[layer]
    generator = torch.Generator().manual_seed(seed)

    def randn(*sizes):
        return torch.randn(sizes, generator=generator, dtype=F64)

    center, width = randn(6, *shape), torch.tensor([0.0, 1e-3, 0.1, 1.0, 5.0, 1.0], dtype=F64)
    reach = width.reshape(-1, *[1] * len(shape)) * randn(6, *shape).abs()
    center[5] = reach[5] + center[5].abs()  # one problem of positive entries
    count = 6 if own else 1
    ball = LpBall(randn(count, *weight), torch.linspace(0.1, 1, count, dtype=F64), p)
    assert isinstance(ball.box(), Ball)
    return ops.lookup(layer.split()[0]), Interval(center - reach, center + reach), ball, attributes


def points(x, ball):
    """Points of both sets: samples, and for every corner of x the weights that make each output least and largest."""
    generator = torch.Generator().manual_seed(1)
    place = torch.rand(60, *x.shape, generator=generator, dtype=F64)
    place[::2] = place[::2].round()
    return x.lower + place * x.width, ball.sample(60, generator).expand(60, len(x.lower), *ball.center.shape[1:])


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("p", [1.0, 1.02, 1.5, 2.0, 4.0])
@pytest.mark.parametrize("layer", LAYERS)
def test_intervals_and_planes_hold_on_balls(layer, p, own):
    op, x, ball, attributes = pieces(layer, p, own)
    xs, ws = points(x, ball)
    interval, bound = op.interval(x, ball.box(), **attributes), op.relax(x, ball.box(), **attributes)
    for turn in range(2):
        if turn:  # the worst weights of the ball for each sampled x and one output
            leaf = ws.clone().requires_grad_()
            y = op.evaluate(xs.flatten(0, 1), leaf.flatten(0, 1), **attributes).flatten(1)
            chosen = torch.arange(len(y)) % y.shape[1]
            gradient, = torch.autograd.grad(y[torch.arange(len(y)), chosen].sum(), leaf)
            flat = gradient.flatten(2)
            q = math.inf if p == 1 else p / (p - 1)
            move = flat.sign() * (flat.abs() / flat.abs().amax(-1, keepdim=True)) ** (q - 1) if p > 1 else (
                flat * (flat.abs() == flat.abs().amax(-1, keepdim=True)))
            move = move / torch.linalg.vector_norm(move, p, dim=-1, keepdim=True)
            signs = torch.where(torch.arange(60) % 2 == 0, 1.0, -1.0).reshape(-1, *[1] * (ws.dim() - 1))
            ws = ball.center + signs * ball.radius * move.reshape(ws.shape)
        y = op.evaluate(xs.flatten(0, 1), ws.flatten(0, 1), **attributes).reshape(60, 6, *interval.shape[1:])
        slack = 1e-9 * (1 + y.abs())
        assert bool((interval.lower - slack <= y).all() and (y <= interval.upper + slack).all())
        for side, sign in ((bound.lower, 1.0), (bound.upper, -1.0)):
            line = side.bias.squeeze(1) + torch.stack([
                side.maps[0].apply(a) + side.maps[1].push(b.unsqueeze(1)).squeeze(1) for a, b in zip(xs, ws, strict=True)])
            assert bool((sign * (line - y) <= slack).all())


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_ball_is_never_looser_than_its_box(layer, p):
    op, x, ball, attributes = pieces(layer, p, False)
    box = ball.box()
    tight, wide = (op.interval(x, w, **attributes) for w in (box, Interval(box.lower, box.upper)))
    fixed, loose = (op.interval(x.center, w, **attributes) for w in (box, Interval(box.lower, box.upper)))
    for one, other in ((tight, wide), (fixed, loose)):
        assert bool((one.width <= other.width * (1 + 1e-9) + 1e-12).all())


def test_balls_of_several_groups_of_problems_stay_balls():
    balls = [LpBall(torch.zeros(2, 3), 0.1, 2).box(), LpBall(torch.ones(1, 3), 0.2, 2).box()]
    both = laid_together(balls)
    assert isinstance(both, Ball) and torch.allclose(both.eps.flatten(), torch.tensor([0.1, 0.1, 0.2]))
    assert not isinstance(laid_together([balls[0], Interval(torch.zeros(1, 3), torch.ones(1, 3))]), Ball)
