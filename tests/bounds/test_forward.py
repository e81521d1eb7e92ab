"""Forward forms: windows and explicit columns, groups of problems and the place where forms begin change no bound."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from boundlab import Box, Forward, Interval, at_least, bound, capture
from boundlab.bounds import forms, forward
from boundlab.bounds.problem import problem_of
from boundlab.perturbations.ball import LpBall
from tests.bounds.networks import KINDS, captured
from tests.bounds.rounding import rounding, rounding_of_rows
from tests.bounds.soundness import random_rows, region_of
from tests.bounds.test_laws import agree, drawn


def bounds_of(model, region, method=None, rows=None):
    """Output bounds, or those of rows, and the rounding error of the output."""
    with torch.no_grad():
        found = bound(model, region, method=method or Forward(), spec=None if rows is None else at_least(rows))
        return found, rounding(model, found.env)[model.graph.output.index]


def by_definition(layers, box):
    """Forward LiRPA of a ReLU network as in Xu et al. 2020, App. A: matrices of both sides, met with intervals."""
    center, radius = box.box().center, box.box().radius
    eye = torch.eye(center.shape[1], dtype=center.dtype).expand(len(center), -1, -1)
    low = high = (eye, torch.zeros_like(center))
    l, u = box.lower, box.upper
    for number, layer in enumerate(layers):
        plus, minus = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
        low, high = [(plus @ one[0] + minus @ other[0], one[1] @ plus.mT + other[1] @ minus.mT + layer.bias)
                     for one, other in ((low, high), (high, low))]
        l, u = l @ plus.mT + u @ minus.mT + layer.bias, u @ plus.mT + l @ minus.mT + layer.bias
        (a, c), (b, d) = low, high
        l = torch.maximum(l, (a @ center[..., None])[..., 0] + c - (a.abs() @ radius[..., None])[..., 0])
        u = torch.minimum(u, (b @ center[..., None])[..., 0] + d + (b.abs() @ radius[..., None])[..., 0])
        if number + 1 == len(layers):
            return l, u
        slope = torch.where(l >= 0, 1.0, torch.where(u <= 0, 0.0, u / (u - l)))
        below = torch.where(l >= 0, 1.0, torch.where(u <= 0, 0.0, (u > -l).to(l)))
        low = below[..., None] * a, below * c
        high = slope[..., None] * b, slope * d + torch.where((l < 0) & (u > 0), -slope * l, 0.0)
        l, u = l.clamp(min=0), u.clamp(min=0)
    raise AssertionError("a network has layers")


@pytest.mark.parametrize("sizes", [(5, 9, 8, 7, 3), (6, 12, 9, 4, 2)], ids=str)
def test_bounds_are_those_of_the_definition(sizes):
    torch.manual_seed(1)
    layers = [nn.Linear(inner, outer).double() for inner, outer in itertools.pairwise(sizes)]
    net = nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])
    x = torch.randn(6, sizes[0], dtype=torch.float64)
    box = Box(x - 0.3 * torch.rand_like(x), x + 0.3)
    with torch.no_grad():
        lower, upper = by_definition(layers, box)
        found = bound(capture(net, x[:2]).detached(), box, method=Forward())
    assert torch.allclose(found.lower, lower, atol=1e-12)
    assert torch.allclose(found.upper, upper, atol=1e-12)


@pytest.mark.parametrize("kind", ["box", "l2"])
@settings(max_examples=3, deadline=None, derandomize=True)
@given(network=drawn("image", most=4))
def test_windows_and_explicit_columns_give_the_same_bounds(kind, network):
    blocks, seed = network
    _, model = captured("image", ["conv 3", "relu", *blocks], seed)
    region, rows = region_of(kind, 0.2, KINDS["image"][0], seed), random_rows((3,), seed)
    whole, error = bounds_of(model, region)
    lines, _ = bounds_of(model, region, rows=rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "STRUCTURED", ())
        dense, _ = bounds_of(model, region)
        dense_lines, _ = bounds_of(model, region, rows=rows)
    agree(dense.lower, whole.lower, error)
    agree(dense.upper, whole.upper, error)
    agree(dense_lines.lower, lines.lower, rounding_of_rows(rows, error, whole.env[model.graph.output.index]))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(data=st.data())
def test_groups_of_problems_give_the_bounds_of_all_together(kind, data):
    blocks, seed = data.draw(drawn(kind))
    _, model = captured(kind, ["relu", *blocks], seed)
    region, rows = region_of("box", 0.2, KINDS[kind][0], seed, batch=5), random_rows((3,), seed, batch=5)
    whole, error = bounds_of(model, region)
    lines, _ = bounds_of(model, region, rows=rows)
    for problems in (1, 2):
        parts, _ = bounds_of(model, region, Forward(problems=problems))
        agree(parts.lower, whole.lower, error)
        agree(parts.upper, whole.upper, error)
        grouped, _ = bounds_of(model, region, Forward(problems=problems), rows)
        agree(grouped.lower, lines.lower, rounding_of_rows(rows, error, whole.env[model.graph.output.index]))
        assert grouped.linear is not None and lines.linear is not None
        point = region.sample(3, torch.Generator().manual_seed(seed))
        for index, part in lines.linear.coefficients.items():
            found = grouped.linear.coefficients[index]
            assert torch.allclose(found.dot(point[0].unsqueeze(1)), part.dot(point[0].unsqueeze(1)), atol=1e-9)


class Narrow(nn.Module):
    """Fewer first neurons than inputs; tanh needs every neuron's interval, so no interval is left to a cheaper bound."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 3, stride=2, padding=1), nn.Conv2d(2, 3, 3, padding=1)
        self.last = nn.Linear(75, 4)

    def forward(self, x):
        y = torch.tanh(self.second(torch.tanh(self.first(x) - x.mean((1, 2, 3), keepdim=True))))
        return torch.tanh(self.last(y.flatten(1)))


@pytest.mark.parametrize("p", [float("inf"), 2.0, 1.0])
def test_forms_may_begin_at_the_inputs_or_at_a_narrower_affine_layer(p):
    torch.manual_seed(0)
    model = capture(Narrow().double(), torch.zeros(2, 3, 10, 9, dtype=torch.float64)).detached()
    ball = LpBall(torch.rand(3, 3, 10, 9, dtype=torch.float64), 0.05 if p > 2 else 0.5, p)
    narrow, error = bounds_of(model, ball)
    (base,) = forward.base_nodes(model.graph, problem_of(model, ball))
    assert model.graph[base].shape == (2, 5, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forward, "base_nodes", lambda graph, problem: frozenset(problem.sets))
        wide, _ = bounds_of(model, ball)
    for node in model.graph:
        if node.op == "tanh":
            found, expected = narrow.env[node.args[0]], wide.env[node.args[0]]
            assert isinstance(found, Interval) and isinstance(expected, Interval)
            assert torch.allclose(found.lower, expected.lower, atol=1e-12)
            assert torch.allclose(found.upper, expected.upper, atol=1e-12)
    agree(narrow.lower, wide.lower, error)
    agree(narrow.upper, wide.upper, error)


@pytest.mark.parametrize("budget", [1, 100, 10000])
def test_rows_in_chunks_give_the_bounds_of_rows_together(budget):
    model = captured("image", ["conv stride", "relu", "conv 3", "relu", "conv 3", "tanh"], 2)[1]
    region = region_of("l2", 0.4, KINDS["image"][0], 2)
    whole, error = bounds_of(model, region)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ROW_CELLS", "ENTRY_CELLS"):
            patch.setattr(forward, name, budget)
        patch.setattr(forms, "CELLS", budget)
        parts, _ = bounds_of(model, region)
        agree(parts.lower, whole.lower, error)
        agree(parts.upper, whole.upper, error)


def test_known_bounds_of_single_problems_beside_one_set():
    model = captured("image", ["conv 3", "relu", "conv 3", "relu"], 4)[1]
    region = region_of("box", 0.3, KINDS["image"][0], 4, batch=1)
    name = next(node.name for node in model.graph if node.op == "conv")
    wide = bound(model, region, method=Forward()).intermediate[name]
    share = torch.tensor([0.2, 0.6, 1.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    known = {name: Interval(wide.center - share * wide.radius, wide.center + share * wide.radius)}
    together = bound(model, region, method=Forward(), known=known)
    for problem in range(3):
        part = {name: known[name].map(lambda end, problem=problem: end[problem:problem + 1])}
        alone = bound(model, region, method=Forward(), known=part)
        assert torch.allclose(together.lower[problem], alone.lower[0], atol=1e-9)
        assert torch.allclose(together.upper[problem], alone.upper[0], atol=1e-9)


def test_groups_are_as_large_as_the_budget_allows():
    net = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    model = capture(net, torch.zeros(2, 40)).detached()
    box = Box(torch.zeros(64, 40), torch.ones(64, 40))
    assert len(Forward().groups(problem_of(model, box))) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forward, "FORM_BUDGET", 40 * 64 * 10)
        assert [part.batch for part in Forward().groups(problem_of(model, box))] == [10] * 6 + [4]
