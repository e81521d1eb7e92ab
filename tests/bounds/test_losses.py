"""Laws of losses: with one nonlinear layer they are all that is lost, and lines that are exact lose nothing."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.bounds.losses import losses

BENDS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "leaky": lambda: nn.LeakyReLU(0.1)}


def planted(bend, sizes=(3, 8, 2), seed=0):
    """A network in float64, the center of a ball, and one row with an offset."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), BENDS[bend]())]
        net, x = nn.Sequential(*layers[:-1]).double(), torch.rand(1, sizes[0]).double()
        rows = torch.randn(1, 1, sizes[-1]).double()
    spec = bl.Specification(rows, torch.full((1, 1), 0.25).double(), torch.zeros(1, dtype=torch.long))
    return bl.capture(net, x).detached(), x, spec


@pytest.mark.parametrize("bend", BENDS)
@pytest.mark.parametrize("p", [float("inf"), 2.0])
def test_one_layer_loses_all_that_is_lost(bend, p):
    lost = 0.0
    for seed in range(4):
        model, x, spec = planted(bend, seed=seed)
        ball = bl.LpBall(x, 0.5, p)
        found = losses(model, ball, spec)
        assert found.bound == pytest.approx(float(bl.bound(model, ball, method=bl.CROWN(), spec=spec).lower))
        assert found.bound + found.layers[0].loss == pytest.approx(found.value)
        lost += found.layers[0].loss
    assert lost > 0.01


@pytest.mark.parametrize("bend", BENDS)
@pytest.mark.parametrize("seed", range(3))
def test_layers_lose_something_and_the_value_is_one_of_the_network(bend, seed):
    model, x, spec = planted(bend, (3, 8, 8, 8, 2), seed)
    ball = bl.LpBall(x, 0.4)
    found, bounds = losses(model, ball, spec), bl.bound(model, ball, method=bl.CROWN(), spec=spec)
    assert len(found.layers) == 3 and all(one.loss >= -1e-12 for one in found.layers)
    assert found.bound == pytest.approx(float(bounds.lower)) and found.bound < found.value
    grid = torch.cartesian_prod(*[torch.linspace(-0.4, 0.4, 9).double()] * 3) + x
    values = bl.evaluate(model, grid) @ spec.rows[0, 0] + 0.25
    assert values.min() - 0.05 <= found.value <= values.max() + 0.05


def test_numbers_that_are_not_exact_are_those_whose_interval_has_the_kink_inside():
    model, x, spec = planted("relu", (3, 20, 20, 2))
    ball = bl.LpBall(x, 0.3)
    read = [node.args[0] for node in model.graph if node.op == "relu"]
    env = bl.bound(model, ball, method=bl.CROWN(), spec=spec).env
    for one, index in zip(losses(model, ball, spec).layers, read, strict=True):
        assert one.numbers == 20 and one.inexact == int(((env[index].lower < 0) & (env[index].upper > 0)).sum())
        assert one.width == pytest.approx(float(env[index].width.mean()))


def test_where_nothing_bends_nothing_is_lost():
    model, x, spec = planted("relu", (3, 8, 8, 2))
    found = losses(model, bl.LpBall(x, 1e-6), spec)
    assert [(one.inexact, one.loss) for one in found.layers] == [(0, pytest.approx(0, abs=1e-15))] * 2
    assert found.value == pytest.approx(found.bound)


def test_looser_intervals_lose_more():
    model, x, spec = planted("relu", (3, 8, 8, 2))
    tight, loose = (losses(model, bl.LpBall(x, 0.4), spec, method) for method in (bl.CROWN(), bl.IBP()))
    assert loose.bound < tight.bound and loose.layers[1].width > tight.layers[1].width


def test_several_rows_are_a_sentence():
    model, x, _ = planted("relu")
    with pytest.raises(bl.ShapeError, match=r"one row of one problem, got rows of shape \[1, 2, 2\]"):
        losses(model, bl.LpBall(x, 0.1), bl.Specification(torch.ones(1, 2, 2).double(), torch.zeros(1, 2).double(),
                                                          torch.tensor([0, 1])))
