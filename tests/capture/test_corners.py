"""Convolutions with padding="same" and even kernels pad unevenly; shapes of size one a problem go through every method."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import boundlab as bl

METHODS = [bl.IBP(), bl.Forward(), bl.CROWN(), bl.CROWN(filter=None), bl.CROWN(intermediate=bl.IBP())]


@pytest.mark.filterwarnings("ignore:Using padding=.same.:UserWarning")
@pytest.mark.parametrize("kernel,dilation", [(2, 1), (4, 1), (3, 2), (2, 3)])
def test_same_padding(kernel: int, dilation: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, kernel, padding="same", dilation=dilation), nn.ReLU(), nn.Conv2d(3, 2, 1)).double()
    x = torch.rand(3, 2, 7, 6, dtype=torch.float64)
    assert torch.allclose(bl.evaluate(bl.capture(net, x), x), net(x))


class Regressor(nn.Module):
    """One number a problem, without an axis of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.inner(x)).sum(1)
        return torch.tanh(hidden) * hidden - x[:, 0]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_number_without_axes(method: bl.Method) -> None:
    torch.manual_seed(1)
    net = Regressor().double()
    x = torch.rand(3, 4, dtype=torch.float64)
    model = bl.capture(net, x).detached()
    box = bl.Box(x - 0.1, x + 0.1)
    bounds = bl.bound(model, box, method=method)
    rows = bl.bound(model, box, method=method, spec=bl.at_least(torch.ones(1, 1, dtype=torch.float64)))
    points = box.sample(200, torch.Generator().manual_seed(0))
    values = torch.stack([net(point) for point in points])
    assert bounds.lower.shape == (3,) and bounds.upper is not None
    assert (values >= bounds.lower - 1e-12).all() and (values <= bounds.upper + 1e-12).all()
    assert (values >= rows.lower[:, 0] - 1e-12).all()


class PerExample(nn.Module):
    """Divides by the number of examples."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / x.shape[0]


class Constant(nn.Module):
    """Says the same of every input."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.answer).expand(x.shape[0], 3)


def test_the_size_of_the_batch_is_no_number() -> None:
    with pytest.raises(bl.CaptureError, match="size of the batch"):
        bl.capture(PerExample(), torch.rand(2, 3))


def test_an_output_that_depends_on_nothing() -> None:
    model = bl.capture(Constant(), torch.rand(2, 3))
    with pytest.raises(bl.ShapeError, match="depends on nothing"):
        bl.bound(model, bl.Box(torch.zeros(1, 3), torch.ones(1, 3)))


class Overwriting(nn.Module):
    """It writes over a value that its own gradient would need: no training, but there are bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.zeros(x.shape[0], 2, 4, dtype=x.dtype)
        rows[:, 0] = self.inner(x)
        rows[:, 1] = rows[:, 0].relu_()
        rows += 0.5
        return rows


def test_a_module_without_a_gradient_of_its_own_is_captured() -> None:
    net, x = Overwriting().double(), torch.rand(3, 4, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        net(x).sum().backward()
    model = bl.capture(net, x).detached()
    assert torch.allclose(bl.evaluate(model, x), net(x).detach())


def test_other_parameters_are_put_in_by_name() -> None:
    net, x = nn.Linear(4, 3).double(), torch.rand(3, 4, dtype=torch.float64)
    model = bl.capture(net, x).detached()
    assert torch.allclose(bl.evaluate(model.with_params({"bias": torch.zeros(3, dtype=torch.float64)}), x), x @ net.weight.T)
    for name, value in (("bias", torch.zeros(4)), ("slope", torch.zeros(3))):
        with pytest.raises(bl.ShapeError, match=f"parameter '{name}'"):
            model.with_params({name: value})
