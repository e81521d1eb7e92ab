"""Hand-worked lines of operators, and that their relaxations are as tight as they are said to be."""

import math

import pytest
import torch

from boundlab.errors import BoundError
from boundlab.interval import Interval
from boundlab.ops import lookup
from boundlab.ops.curves import curve_lines
from boundlab.ops.hull import Curve


def interval(low, high):
    return Interval(torch.tensor([[low]], dtype=torch.float64), torch.tensor([[high]], dtype=torch.float64))


def line(affine):
    """Slope and intercept of a line in one variable."""
    bias = 0.0 if affine.bias is None else affine.bias.item()
    return pytest.approx((affine.maps[0].scale.item(), bias), abs=1e-7)


HAND = [
    ("leaky_relu", {"negative_slope": 0.5}, (-2, 1), (0.5, 0), (2 / 3, 1 / 3)),
    ("leaky_relu", {"negative_slope": 3.0}, (-1, 2), (5 / 3, -4 / 3), (1, 0)),
    ("abs", {}, (-1, 3), (1, 0), (0.5, 1.5)),
    ("abs", {}, (-3, 1), (-1, 0), (-0.5, 1.5)),
    ("clip", {"min": 0.0, "max": 1.0}, (-1, 3), (1 / 3, 0), (0, 1)),
    ("clip", {"min": 0.0, "max": 1.0}, (-2, 0.5), (0, 0), (0.2, 0.4)),
    ("clip", {"min": 0.0, "max": 1.0}, (0.5, 2), (1 / 3, 1 / 3), (0, 1)),
    ("clip", {"max": 1.0}, (-1, 0.5), (1, 0), (1, 0)),
    ("square", {}, (-1, 3), (2, -1), (2, 3)),
    ("reciprocal", {}, (1, 3), (-1 / 4, 1), (-1 / 3, 4 / 3)),
    ("reciprocal", {}, (-3, -1), (-1 / 3, -4 / 3), (-1 / 4, -1)),
    ("pow", {"exponent": -2.0}, (-3, -1), (1 / 4, 3 / 4), (4 / 9, 13 / 9)),
    ("sqrt", {}, (0, 4), (0.5, 0), (1 / (2 * math.sqrt(2)), math.sqrt(2) / 2)),
    ("pow", {"exponent": 3.0}, (-2, 1), (3, -2), (0.75, 0.25)),
    ("exp", {}, (0, 10), (math.exp(0.99), 0.01 * math.exp(0.99)), ((math.exp(10) - 1) / 10, 1)),
    ("sign", {}, (-1, 2), (1, -1), (0, 1)),
]


@pytest.mark.parametrize("name, attributes, ends, below, above", HAND)
def test_lines_worked_by_hand(name, attributes, ends, below, above):
    found = lookup(name).relax(interval(*map(float, ends)), **attributes)
    assert below == line(found.lower)
    assert above == line(found.upper)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "atan", "erf"])
def test_s_shaped_lines_touch_and_meet_the_far_end(name):
    """Around the bend the default line below touches where its tangent meets the upper end, unless the middle is nearer."""
    op, x = lookup(name), interval(-1.0, 3.0)
    low = op.relax(x).lower
    slope, bias = low.maps[0].scale.item(), low.bias.item()
    end = torch.tensor(3.0, dtype=torch.float64)
    assert slope * 3 + bias == pytest.approx(op.evaluate(end).item(), abs=1e-5)
    low = op.relax(interval(-3.0, 0.5)).lower
    middle = torch.tensor(-1.25, dtype=torch.float64)
    assert low.maps[0].scale.item() * -1.25 + low.bias.item() == pytest.approx(op.evaluate(middle).item(), abs=1e-9)


OUTSIDE = [("log", {}, (0, 1)), ("log", {}, (-1, 1)), ("sqrt", {}, (-1, 1)), ("rsqrt", {}, (0, 1)), ("reciprocal", {}, (-1, 1)),
           ("reciprocal", {}, (0, 1)), ("reciprocal", {}, (-1, 0)), ("pow", {"exponent": -2.0}, (-1, 1)),
           ("pow", {"exponent": 1.5}, (-1, 1)), ("pow", {"exponent": -0.5}, (-2, -1))]


@pytest.mark.parametrize(("name", "curve"), [
    ("sigmoid", Curve(torch.sigmoid, lambda x: torch.sigmoid(x) * torch.sigmoid(-x), (0.0,))),
    ("tanh", Curve(torch.tanh, lambda x: 1 - torch.tanh(x).square(), (0.0,)))])
def test_lines_from_a_formula_are_those_of_a_search(name, curve):
    """On narrow and wide intervals, on both sides of the bend and across it: as close in the middle, and on their side."""
    torch.manual_seed(0)
    ends = torch.randn(2, 1, 2000, dtype=torch.float64) * 10 ** (3 * torch.rand(2, 1, 2000, dtype=torch.float64) - 2)
    x = Interval(ends.amin(0), ends.amax(0))
    found, (below, above) = lookup(name).relax(x), curve_lines(curve, x, {})
    middle, places = x.center.unsqueeze(1), torch.linspace(0, 1, 200, dtype=torch.float64)[:, None, None, None]
    points = x.row_lower + places * (x.row_upper - x.row_lower)
    for side, (slope, bias), sign in ((found.lower, below, 1), (found.upper, above, -1)):
        line = side.maps[0].scale
        assert (sign * (line * middle + side.bias - slope * middle - bias) >= -1e-9).all()
        assert (sign * (line * points + side.bias - curve.f(points)) <= 1e-14 * (1 + (line * points).abs())).all()


@pytest.mark.parametrize("name, attributes, ends", OUTSIDE)
def test_intervals_outside_the_domain_are_never_finite(name, attributes, ends):
    found = lookup(name).interval(interval(*map(float, ends)), **attributes)
    assert not (torch.isfinite(found.lower) & torch.isfinite(found.upper)).any()


def test_the_maximum_of_values_of_which_one_wins_is_that_one():
    x = Interval(torch.tensor([[2.0, -1.0, 0.0]]), torch.tensor([[3.0, 1.0, 2.0]]))
    found = lookup("reduce_max").relax(x, dim=0)
    assert found.lower.maps[0].weight.tolist() == found.upper.maps[0].weight.tolist() == [[[1.0, 0.0, 0.0]]]


def test_entries_that_are_absent_do_not_take_part():
    x = Interval(torch.tensor([[0.0, 5.0]]), torch.tensor([[1.0, 6.0]]))
    found = lookup("reduce_max").interval(x, dim=0, absent=torch.tensor([False, True]))
    assert found.lower.tolist() == [0.0] and found.upper.tolist() == [1.0]


def test_the_hull_of_max_over_a_box():
    """On [0, 2] x [1, 3] the planes of max(x, y) through the ends average to x / 4 + 3 y / 4 + 3 / 4."""
    x, y = interval(0.0, 2.0), interval(1.0, 3.0)
    upper = lookup("maximum").relax(x, y).upper
    slopes = [layer.scale.item() for layer in upper.maps]
    assert [*slopes, upper.bias.item()] == pytest.approx([0.25, 0.75, 0.75])


def test_softmax_interval_is_attained_and_stable():
    torch.manual_seed(0)
    x = Interval(torch.randn(1, 5).double() * 40, torch.zeros(1, 5))
    x = Interval(x.lower, x.lower + torch.rand(1, 5) * 60)
    found = lookup("softmax").interval(x, dim=0)
    for j in range(5):
        corner = x.upper.clone()
        corner[0, j] = x.lower[0, j]
        assert found.lower[0, j].item() == pytest.approx(torch.softmax(corner, 1)[0, j].item(), rel=1e-9)


def test_softmax_planes_beat_the_interval_on_a_small_box():
    torch.manual_seed(0)
    x = Interval(torch.randn(3, 6).double(), torch.zeros(3, 6))
    x = Interval(x.lower, x.lower + 0.3)
    op = lookup("softmax")
    planes, own = op.relax(x, dim=0), op.interval(x, dim=0)
    middle = x.center.unsqueeze(1)
    low, high = (side.maps[0].push(middle) + side.bias for side in (planes.lower, planes.upper))
    assert ((high - low).squeeze(1) < 0.1 * own.width).all()


def test_tangent_points_have_the_gradient_of_the_equation_they_solve():
    def slopes(low, high):
        found = lookup("tanh").relax(Interval(low, high))
        return found.lower.maps[0].scale, found.lower.bias, found.upper.maps[0].scale, found.upper.bias

    low = torch.tensor([[-1.0, -0.5, -2.0]], dtype=torch.float64, requires_grad=True)
    high = torch.tensor([[1.5, 3.0, 0.4]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(slopes, (low, high), eps=1e-3, atol=1e-3, rtol=1e-2)


def test_outside_the_domain_the_error_names_the_node():
    from boundlab.bounds.intermediate import checked
    from boundlab.graph import Node

    node = Node(0, "log", (), {}, (1,), "features.2")
    with pytest.raises(BoundError, match=r"features\.2"):
        checked(node, lookup("log").interval(interval(-1.0, 1.0)))


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "atan", "erf"])
def test_s_shaped_lines_hold_at_the_ends_of_huge_intervals(name):
    sizes = torch.tensor([1.0, 30.0, 1e6, 999993.6875, 1e10, 1e15])
    low, high = -sizes.repeat(6)[None], sizes.repeat_interleave(6)[None]
    found = lookup(name).relax(Interval(low, high))
    for end in (low.double(), high.double()):
        value = lookup(name).evaluate(end)
        lines = [side.maps[0].scale.double() * end[:, None] + side.bias.double() for side in (found.lower, found.upper)]
        assert (lines[0] <= value + 1e-5).all()
        assert (lines[1] >= value - 1e-5).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 3, 11, 1000])
def test_lines_across_a_jump_hold_as_computed_on_narrow_intervals(steps, dtype):
    """The steepest line across a jump would be lost in the rounding of its intercept."""
    place, value, op = 1.25, -500.0, lookup("threshold")
    reach = steps * torch.finfo(dtype).eps * place
    x = Interval(*(torch.tensor([[place + side * reach]], dtype=dtype) for side in (-1, 1)))
    bound = op.lines(x, threshold=place, value=value)
    for point in (x.lower, torch.full_like(x.lower, place), x.upper):
        low, high = (side.maps[0].scale * point + side.bias for side in (bound.lower, bound.upper))
        exact = op.evaluate(point, threshold=place, value=value)
        assert low <= exact + 1e-4 and exact <= high + 1e-4
