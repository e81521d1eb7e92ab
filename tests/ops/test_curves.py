"""Curves with any number of bends: their lines are sound and have the least area, and free shares move them."""

import dataclasses
import math

import pytest
import torch

from boundlab import ops
from boundlab.interval import Interval
from boundlab.ops.curves import crosses, curve_op
from boundlab.ops.hull import Curve
from boundlab.ops.op import REGISTRY, never
from boundlab.testing import ConformanceError, check_operator
from boundlab.testing.tightness import gaps_of, single_cases

SHORT = {"exp", "exp2", "expm1"}
"""Operators whose default tangent stays positive, and is not the one of least area."""
FUNCTIONS = [pytest.param(op, case, id=f"{op.name}-{dict(case.attributes)}") for _, op in sorted(REGISTRY.items())
             if op.affine is never and op.relax for case in single_cases(op) if case.attributes.get("threshold") is None]


@pytest.mark.parametrize(("op", "case"), FUNCTIONS)
def test_lines_have_the_least_area(op, case):
    """No two lines around the function have a smaller mean gap, found on samples without looking at the rule."""
    if op.name in SHORT:
        relax = op.relax
        op = dataclasses.replace(op, relax=lambda x, alpha=None: relax(x, alpha={"lower": torch.full_like(x.row_lower, 0.5)}))
    gaps = gaps_of(op, case, count=40)
    assert (gaps.found <= gaps.least * (1 + 1e-3) + 1e-6).all()
    assert (gaps.found >= gaps.least * (1 - 1e-6) - 1e-6).all()


def double_well(x):
    return x ** 4 / 8 - x.square()


def well_slope(x):
    return x ** 3 / 2 - 2 * x


WELL = Curve(double_well, well_slope, (-math.sqrt(4 / 3), math.sqrt(4 / 3)), turns=(-2.0, 0.0, 2.0))


def beats(x):
    return torch.sin(x) + torch.sin(2 * x)


def beats_slope(x):
    return torch.cos(x) + 2 * torch.cos(2 * x)


def roots_of(f, count=4000):
    """Where a function of period 2 pi crosses zero, in (0, 2 pi], by bisection."""
    grid = torch.linspace(0, 2 * math.pi, count, dtype=torch.float64) + 1e-3
    low, high = grid[:-1], grid[1:]
    crossing = f(low) * f(high) < 0
    low, high = low[crossing], high[crossing]
    for _ in range(60):
        half = (low + high) / 2
        left = f(low) * f(half) > 0
        low, high = torch.where(left, half, low), torch.where(left, high, half)
    return tuple(sorted((low % (2 * math.pi)).tolist()))


def beats_bend(x):
    return -torch.sin(x) - 4 * torch.sin(2 * x)


BENDS = (*[bend for bend in roots_of(beats_bend) if bend > 1e-6], 2 * math.pi)
BEATS = Curve(beats, beats_slope, BENDS, convex=False, turns=roots_of(beats_slope), period=2 * math.pi)
KINK = Curve(lambda x: torch.where(x > 0, 2 * x, torch.where(x < -1, x + 0.5, 0.5 * x)),
             lambda x: torch.where(x > 0, 2.0, torch.where(x < -1, 1.0, torch.where(x == -1, 0.5, 0.5))), (-1.0,), convex=False)
CUBES = Curve(lambda x: x ** 3 - 3 * x, lambda x: 3 * x.square() - 3, (0.0,), convex=False, turns=(-1.0, 1.0))
CURVES = {"well": WELL, "kinks": KINK, "cubes": CUBES}


@pytest.fixture
def own():
    """Registers a curve for one test."""
    names = []

    def make(curve, **changes):
        names.append(f"own_{len(names)}")
        return ops.register(curve_op(names[-1], dataclasses.replace(curve, **changes)))

    yield make
    for name in names:
        del REGISTRY[name]


@pytest.mark.parametrize("curve", [*(pytest.param(curve, id=name) for name, curve in CURVES.items()),
                                   pytest.param(BEATS, id="beats", marks=pytest.mark.slow)])
def test_curves_of_a_user_keep_the_laws(own, curve):
    op = own(curve)
    check_operator(op.name)
    gaps = gaps_of(op, single_cases(op)[0], count=60)
    assert (gaps.found <= gaps.least * (1 + 2e-3) + 1e-6).all()


def test_which_curves_have_lines_that_touch_two_pieces():
    assert crosses(WELL) and crosses(BEATS) and not crosses(CUBES)
    bell = Curve(lambda x: 1 / (1 + x.square()), lambda x: -2 * x / (1 + x.square()).square(), (-3 ** -0.5, 3 ** -0.5))
    assert not crosses(bell)


WRONG = {
    "a bend too few": {"bends": (-math.sqrt(4 / 3),)}, "the other way round": {"convex": False}, "no turns": {"turns": ()},
    "a wrong slope": {"slope": lambda x: x ** 3 / 2 - x},
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_curve_is_found(own, mistake):
    op = own(WELL, **WRONG[mistake])
    with pytest.raises(ConformanceError):
        check_operator(op.name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [
    "sigmoid", "tanh", "gelu", "silu", "mish", "softsign", "elu", "sin", "tanh_grad", "hard_swish"])
def test_lines_are_sound_on_intervals_of_all_sizes(name, dtype):
    """From ends that are one rounding apart to a million: sampled in double precision, with room for rounding only."""
    generator = torch.Generator().manual_seed(0)
    size = 10 ** (torch.rand(1, 4000, generator=generator, dtype=torch.float64) * 12 - 6)
    place = torch.randn(1, 4000, generator=generator, dtype=torch.float64) * 10 ** (
        torch.rand(1, 4000, generator=generator, dtype=torch.float64) * 5 - 2)
    low = place.to(dtype)
    x = Interval(low, torch.maximum((place + size).to(dtype), low))
    op = ops.lookup(name)
    for share in (None, 0.0, 0.3, 1.0):
        alpha = None if share is None else {side: torch.full_like(x.row_lower, share) for side in op.alpha}
        found = op.relax(x, alpha=alpha)
        points = torch.lerp(x.lower[0, :, None].double(), x.upper[0, :, None].double(), torch.linspace(0, 1, 41).double())
        values = op.evaluate(points)
        for side, sign in ((found.lower, 1.0), (found.upper, -1.0)):
            slope, bias = side.maps[0].scale[0, 0, :, None].double(), side.bias[0, 0, :, None].double()
            scale = values.abs() + slope.abs() * (points.abs().amax(1, keepdim=True)) + bias.abs()
            assert (sign * (slope * points + bias - values) <= 24 * torch.finfo(dtype).eps * (scale + points.abs())).all()


def test_shares_move_lines_from_the_first_of_the_hull_to_its_last():
    op, x = ops.lookup("gelu"), Interval(torch.tensor([[-3.0]]).double(), torch.tensor([[4.0]]).double())
    shares = torch.linspace(0, 1, 11).double().reshape(1, -1, 1)
    found = op.relax(x, alpha={"lower": shares, "upper": shares})
    slopes = found.lower.maps[0].scale[0, :, 0]
    assert (slopes.diff() >= -1e-9).all() and slopes[0] < slopes[-1]
    first = (op.evaluate(x.lower) - (slopes[0] * x.lower + found.lower.bias[0, 0])).abs()
    last = (op.evaluate(x.upper) - (slopes[-1] * x.upper + found.lower.bias[0, -1])).abs()
    assert float(first) < 1e-6 and float(last) < 1e-6


@pytest.mark.parametrize("share", [None, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", ["gelu", "tanh", "sin", "mish"])
def test_lines_have_the_gradients_of_what_they_solve(name, share):
    def slopes(low, high):
        alpha = None if share is None else {side: torch.full((1, 1, 4), share, dtype=low.dtype) for side in ("lower", "upper")}
        found = ops.lookup(name).relax(Interval(low, high), alpha=alpha)
        return found.lower.maps[0].scale, found.lower.bias, found.upper.maps[0].scale, found.upper.bias

    low = torch.tensor([[-1.0, -0.5, -2.0, -3.2]], dtype=torch.float64, requires_grad=True)
    high = torch.tensor([[1.5, 3.0, 0.4, 2.9]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(slopes, (low, high), eps=3e-3, atol=4e-3, rtol=2e-2)


@pytest.mark.parametrize("name", ["asinh", "acosh"])
def test_lines_hold_where_the_square_of_an_end_is_no_float32(name):
    """A slope there that is taken as 0 makes flat tangents of steep ones."""
    op, high = REGISTRY[name], torch.logspace(20, 36, 9)
    low = torch.ones(9) if name == "acosh" else -high / 2
    x = Interval(low[None], high[None])
    shares = torch.cat([torch.logspace(-17, 0, 60), torch.linspace(0, 1, 60)]).double()
    at = low.double() + shares[:, None] * (high - low).double()
    exact = op.evaluate(at)
    for share in (0.0, 0.3, 0.999, 1.0):
        bound = op.relax(x, alpha={side: torch.full((1, 1, 9), share) for side in op.alpha})
        for side, line in ((1, bound.lower), (-1, bound.upper)):
            value = line.maps[0].scale[0, 0].double() * at + line.bias[0, 0].double()
            assert (side * (value - exact) <= 1e-4 * (1 + exact.abs())).all()
