"""The Lagrangian dual reaches the layer-wise relaxation's optimum from below, and never leaves what is sound."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import boundlab as bl
from tests.bounds.layerwise import least
from tests.bounds.soundness import attacked

D = torch.float64
FUNCTIONS = {"relu": (nn.ReLU, lambda x: np.maximum(x, 0)), "sigmoid": (nn.Sigmoid, lambda x: 1 / (1 + np.exp(-x)))}
STEPS = {"relu": 1200, "sigmoid": 200}


def question(name, seed, widths=(4, 9, 9, 3), radius=0.5):
    torch.manual_seed(seed)
    layers = [layer for i, o in pairwise(widths) for layer in (nn.Linear(i, o), FUNCTIONS[name][0]())][:-1]
    net = nn.Sequential(*layers).double()
    for layer in net:
        if isinstance(layer, nn.Linear):
            layer.weight.data *= 1.5
    x = torch.randn(1, widths[0], dtype=D)
    rows = torch.cat([torch.eye(widths[-1], dtype=D), -torch.eye(widths[-1], dtype=D)])
    return net, bl.capture(net, x).detached(), bl.Box(x - radius, x + radius), rows


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_it_reaches_the_optimum_of_the_relaxation_and_no_more(name, seed):
    net, model, region, rows = question(name, seed)
    spec = bl.at_least(rows[None])
    plain = bl.bound(model, region, spec=spec)
    found = bl.bound(model, region, method=bl.Dual(steps=STEPS[name]), spec=spec).lower[0].numpy()
    arguments = [plain.env[node.args[0]] for node in model.graph if node.op == name]
    box = [end[0].numpy() for end in (region.lower, region.upper)]
    intervals = [(one.lower[0].numpy(), one.upper[0].numpy()) for one in arguments]
    best = least(net, box, intervals, FUNCTIONS[name][1], rows.numpy())
    crown = plain.lower[0].numpy()
    assert (best > crown + 1e-3 * abs(best)).any()  # else there is nothing to reach
    assert (found >= best - 1e-3 * abs(best)).all()
    assert (found <= best + 1e-5 * abs(best)).all()  # the program's hull is made of chords of points on the curve
    assert (found >= crown - 1e-12).all()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("p", [2.0, *(pytest.param(p, marks=pytest.mark.slow) for p in (1.0, torch.inf))])
def test_it_is_never_above_the_truth_nor_below_crown(name, p):
    net, model, region, rows = question(name, 3)
    ball, spec = bl.LpBall(region.box().center, 0.6, p), bl.at_least(rows[None])
    found, plain = bl.bound(model, ball, method=bl.Dual(steps=60), spec=spec).lower, bl.bound(model, ball, spec=spec).lower
    points = torch.cat([ball.sample(3000, torch.Generator().manual_seed(0)),
                        attacked(net, ball, ball.sample(50, torch.Generator().manual_seed(1)), rows[None], steps=30)])
    reached = torch.einsum("nbo,so->nbs", net(points.flatten(0, 1)).unflatten(0, points.shape[:2]), rows).amin(0)
    assert bool((found <= reached + 1e-9).all()) and bool((found >= plain - 1e-12).all())
    assert bool((found > plain + 1e-3).any())


@pytest.mark.slow
def test_no_lines_on_the_same_inner_bounds_do_better():
    _, model, region, rows = question("relu", 5)
    spec = bl.at_least(rows[None])
    methods = bl.Dual(steps=500), bl.Optimised(steps=200), bl.Optimised(steps=500, rate=0.3, space=bl.Full(), decay=0.987)
    dual, lines, slopes = (bl.bound(model, region, method=method, spec=spec).lower for method in methods)
    size = 1e-3 * dual.abs().max()
    assert bool((lines <= dual + size).all()) and bool((slopes <= dual + size).all())
    assert bool((slopes >= dual - size).all())  # row by row the space of all slopes is the same problem


def test_outputs_are_bounded_from_both_sides_alone_as_in_a_batch():
    _, model, region, _ = question("relu", 7)
    wide = bl.Box(torch.cat([region.lower, region.lower - 0.2]), torch.cat([region.upper, region.upper + 0.1]))
    whole = bl.bound(model, wide, method=bl.Dual(steps=20))
    for place in range(2):
        alone = bl.bound(model, wide.take(torch.tensor([place])), method=bl.Dual(steps=20))
        assert torch.allclose(alone.lower[0], whole.lower[place], atol=1e-6)
        assert torch.allclose(alone.upper[0], whole.upper[place], atol=1e-6)


def test_rows_that_are_proven_rise_no_further_and_no_verdict_changes():
    _, model, region, rows = question("relu", 7)
    plain = bl.bound(model, region, spec=bl.at_least(rows[None])).lower[0]
    level = bl.bound(model, region, method=bl.Dual(steps=40), spec=bl.at_least(rows[None])).lower[0]
    limit = float((plain + level)[(level > plain + 1e-2).nonzero()[0]]) / 2  # one row passes it on its way
    spec = bl.at_least(rows[None], torch.full((1, len(rows)), -limit, dtype=D))
    whole, some = (bl.bound(model, region, method=bl.Dual(steps=40, enough=enough), spec=spec).lower for enough in (None, 0.0))
    assert torch.equal(whole > 0, some > 0) and bool((some < whole - 1e-6).any())
    assert torch.allclose(some[whole <= 0], whole[whole <= 0], atol=1e-9)


def test_bad_settings_are_refused():
    with pytest.raises(bl.SpecError, match="steps must be at least 0"):
        bl.Dual(steps=-1)
