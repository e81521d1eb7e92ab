"""Symbols of paths that meet again stay apart; sets, constants and specifications of different batch sizes."""

import pytest
import torch

from boundlab import CROWN, IBP, Box, Forward, Interval, LpBall, at_least, bound, capture, evaluate

METHODS = (IBP(), Forward(), Forward(problems=2), CROWN(), CROWN(problems=1), CROWN(problems=2), CROWN(filter=None))


class Sides(torch.nn.Module):
    """The two sides of zero by different operators, summed, and a difference of coordinates after it."""

    def forward(self, x):
        whole = torch.relu(x) + torch.clamp(x, max=0.0)
        return torch.relu(whole[:, :1] - whole[:, 1:])


class Skip(torch.nn.Module):
    """A skip connection around an activation."""

    def forward(self, x):
        return torch.relu((x + torch.relu(x)) @ torch.tensor([[1.0, 1.0], [-1.0, 2.0]]))


class Shifted(torch.nn.Module):
    """One input added before and after an activation of the other."""

    def forward(self, x, c):
        return torch.relu(x + c) - c


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("network", [Sides(), Skip()], ids=["sides", "skip"])
def test_paths_that_meet_again_hold_the_same_symbols(network, method):
    model = capture(network, torch.zeros(1, 2))
    box = Box(torch.tensor([[-3.0, 3.0], [3.0, -3.0]]) - 1, torch.tensor([[-3.0, 3.0], [3.0, -3.0]]) + 1)
    result = bound(model, box, method=method)
    points = {"x": box.sample(200, torch.Generator().manual_seed(0)).transpose(0, 1)}
    for name, interval in result.intermediate.items():
        part = model.up_to(name) if name != "x" else None
        for problem in range(2) if part else ():
            values = evaluate(part, points["x"][problem])
            inside = Interval(interval.lower[problem:problem + 1] - 1e-5, interval.upper[problem:problem + 1] + 1e-5)
            assert inside.contains(values).all(), name


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("sizes", [(3, 1), (1, 3), (3, 3)], ids=str)
def test_sets_of_different_batch_sizes_are_bounded_like_repeated_ones(method, sizes):
    model = capture(Shifted(), torch.zeros(2, 3), torch.zeros(2, 3))
    middle = (torch.arange(9.0).reshape(3, 3) - 4)[:sizes[0]], (torch.arange(9.0).reshape(3, 3).mT - 4)[:sizes[1]]
    boxes = {name: Box(value - 0.5, value + 0.5) for name, value in zip(("x", "c"), middle, strict=True)}
    result = bound(model, boxes, method=method)
    for problem in range(3):
        alone = {name: box.take(torch.tensor([min(problem, len(box.lower) - 1)])) for name, box in boxes.items()}
        expected = bound(model, alone, method=method)
        assert torch.allclose(result.lower[problem], expected.lower[0], atol=1e-5)
        assert torch.allclose(result.upper[problem], expected.upper[0], atol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("count", [1, 3])
def test_every_problem_keeps_its_own_constants(method, count):
    model = capture(Shifted(), torch.zeros(2, 3), torch.zeros(2, 3))
    constant = torch.tensor([[1.0], [5.0], [-3.0]]).expand(3, 3)
    box = Box(torch.zeros(count, 3) - 0.1, torch.zeros(count, 3) + 0.1)
    result = bound(model, {"x": box, "c": constant}, method=method, spec=at_least(torch.eye(3).expand(3, 3, 3)))
    expected = torch.relu(-0.1 + constant) - constant
    assert torch.allclose(result.lower, expected, atol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_one_set_serves_many_specifications(method):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    model, box = capture(net, torch.zeros(1, 3)).detached(), Box(-torch.ones(1, 3), torch.ones(1, 3))
    rows = torch.randn(12, 5, 4)
    together = bound(model, box, method=method, spec=at_least(rows)).lower
    alone = torch.cat([bound(model, box, method=method, spec=at_least(row[None])).lower for row in rows])
    assert torch.allclose(together, alone, atol=1e-5)


class Silent(torch.nn.Module):
    """Neurons that are zero everywhere, which no relaxation sees: relu(x - |x|), with |x| written as two activations."""

    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(6, 2)

    def forward(self, x):
        silent = torch.relu(x - torch.relu(x) - torch.relu(-x))
        return torch.relu(self.last(torch.cat([silent, x], 1)))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_is_known_to_be_zero_is_left_out_of_values_and_columns_alike(method):
    torch.manual_seed(0)
    model = capture(Silent(), torch.zeros(2, 3)).detached()
    box = Box(torch.tensor([[-1.0, -0.5, 0.5]]), torch.tensor([[1.0, 2.0, 1.0]]))
    name = [node.name for node in model.graph if node.op == "relu"][2]
    zero = Interval(torch.zeros(1, 3), torch.zeros(1, 3))
    values = evaluate(model, {"x": box.sample(2000, torch.Generator().manual_seed(0)).squeeze(1)})
    for known in ({}, {name: zero}):
        found = bound(model, box, method=method, known=known)
        assert (values >= found.lower - 1e-5).all() and (values <= found.upper + 1e-5).all()


def test_a_batch_that_the_output_does_not_depend_on_still_counts():
    class First(torch.nn.Module):
        def forward(self, x, y):
            return torch.relu(2 * x)

    model = capture(First(), torch.zeros(2, 3), torch.zeros(2, 3))
    first, second = (node.name for node in model.graph.inputs)
    sets = {first: LpBall(torch.zeros(1, 3), 0.1), second: LpBall(torch.rand(4, 3), 0.1)}
    spec = at_least(torch.ones(1, 1, 3))
    for method in (*METHODS, Forward(problems=1)):
        bounds = bound(model, sets, method=method)
        assert bounds.lower.shape == bounds.upper.shape == (4, 3)
        assert bound(model, sets, method=method, spec=spec).lower.shape == (4, 1)
