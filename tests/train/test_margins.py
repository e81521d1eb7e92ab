import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

import boundlab as bl
import boundlab.train.margins as margins_module
from boundlab.bounds.problem import problem_of
from boundlab.train.margins import Spread, differences, margin_interval
from tests.train.test_losses import problem


def margins_of(model, region, labels):
    asked = problem_of(model, region)
    return margin_interval(asked, bl.IBP().environment(asked), labels)


@pytest.mark.parametrize("region", [lambda x: bl.Box(x - 0.1, x + 0.1), lambda x: bl.LpBall(x, 0.2, 2.0)], ids=["box", "ball"])
@pytest.mark.parametrize("affine", [False, True])
def test_both_ends_are_those_of_interval_propagation_with_rows(region, affine):
    net, model, x, _, labels = problem()
    if affine:
        net = nn.Sequential(nn.Linear(16, 4), nn.Linear(4, 3)).double()
        model = bl.capture(net, x)
    found = margins_of(model, region(x), labels)
    spec = bl.margins(labels, 3, torch.float64)
    others = torch.nn.functional.one_hot(labels, 3) == 0
    for end, rows in ((found.lower, spec.rows), (-found.upper, -spec.rows)):
        plain = bl.bound(model, region(x), spec=bl.at_least(rows), method=bl.IBP()).lower
        assert torch.allclose(end[others].reshape(len(x), 2), plain, rtol=1e-9, atol=1e-12)
    own = torch.arange(len(x)), labels
    assert (found.lower[own] == 0).all() and (found.upper[own] == 0).all()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("at_once", [1, 30, 10**6])
def test_spread_is_a_sum_of_absolute_differences_with_its_gradient(shared, at_once, monkeypatch):
    monkeypatch.setattr(margins_module, "AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(1 if shared else 4, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    radius = torch.rand(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 3, 3, 4])
    plain = (differences(rows, labels).abs() * radius.unsqueeze(1)).sum(2)
    assert torch.allclose(Spread.apply(rows, labels, radius), plain, rtol=1e-12)
    others = torch.arange(5) != labels[:, None]  # at the label itself the absolute value has a kink
    assert gradcheck(lambda rows, radius: Spread.apply(rows, labels, radius)[others], (rows, radius))
