"""Modules that differentiate inside forward: their values, any batch, and bounds of every method at sampled points."""

import pytest
import torch
from torch import nn

import boundlab as bl

METHODS = {"IBP": bl.IBP(), "CROWN-IBP": bl.CROWN(intermediate=bl.IBP()), "CROWN": bl.CROWN(), "Forward": bl.Forward()}


class Jacobian(nn.Module):
    """The derivatives of all outputs in all inputs, (b, outputs, *inputs)."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        x = x.requires_grad_()
        y = self.net(x)
        return torch.stack([torch.autograd.grad(y[:, k].sum(), x, create_graph=True)[0] for k in range(y.shape[1])], 1)


class Functional(Jacobian):
    """The same by torch.func."""

    def forward(self, x):
        return torch.vmap(torch.func.jacrev(lambda one: self.net(one[None])[0]))(x)


def perceptron(activation):
    return nn.Sequential(nn.Linear(3, 6), activation, nn.Linear(6, 6), activation, nn.Linear(6, 2)), (3,)


def convolutional():
    layers = nn.Conv2d(1, 3, 3, 2, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2, 1), nn.Conv2d(3, 2, 2), nn.Tanh()
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2, 2)), (1, 6, 6)


NETS = {
    **{type(activation).__name__: (lambda activation=activation: perceptron(activation))
       for activation in (nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.LeakyReLU(0.1), nn.ELU(), nn.Softplus(), nn.GELU(), nn.SiLU(),
                          nn.Hardtanh(-0.5, 0.5))},
    "convolutional": convolutional,
    "normalised": lambda: (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2)), (3,)),
    "softmax": lambda: (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Softmax(-1)), (3,)),
}


def made(name):
    torch.manual_seed(0)
    net, shape = NETS[name]()
    net = net.double().eval()
    return net, torch.randn(2, *shape, dtype=torch.float64)


def jacobians(net, points):
    """By torch.autograd.functional, one example at a time, (samples, b, outputs, *inputs)."""
    flat = [torch.autograd.functional.jacobian(lambda one: net(one[None])[0], x) for point in points for x in point]
    return torch.stack(flat).unflatten(0, points.shape[:2])


@pytest.mark.parametrize("name", NETS)
def test_bounds_of_a_jacobian_hold(name):
    net, x = made(name)
    model = bl.capture(Jacobian(net), x).detached()
    more = torch.cat([x, x + 0.3, -x])
    assert torch.allclose(bl.evaluate(model, more), jacobians(net, more[None])[0], rtol=1e-9, atol=1e-11)
    box = bl.Box(x - 0.05, x + 0.05)
    values = jacobians(net, box.sample(60, torch.Generator().manual_seed(0)))
    for method in METHODS.values():
        found = bl.bound(model, box, method=method)
        assert (found.lower - 1e-9 <= values).all() and (values <= found.upper + 1e-9).all()


def test_the_slope_of_a_relu_at_its_kink_is_any_between():
    """At 0 torch takes one of the two slopes; bounds hold for both and reach no farther."""
    net = nn.ReLU()
    at_kink = torch.zeros(1, 1)
    model = bl.capture(Jacobian(net), at_kink).detached()
    found = bl.bound(model, bl.Box(at_kink, at_kink + 1.0), method=bl.CROWN())
    assert found.lower.item() == 0 and found.upper.item() == 1


@pytest.mark.parametrize("name", ["ReLU", "Tanh"])
def test_a_local_lipschitz_constant_bounds_every_difference(name):
    net, x = made(name)
    box = bl.LpBall(x, 0.1)
    bounds = bl.bound(bl.capture(Jacobian(net), x).detached(), box)
    constant = torch.maximum(bounds.lower.abs(), bounds.upper.abs()).sum(-1).amax(-1)
    first, second = (box.sample(300, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    moved = (net(first) - net(second)).abs().amax(-1)
    assert (moved <= constant * (first - second).abs().amax(-1) + 1e-12).all()
    assert (constant <= 3 * jacobians(net, first[:50]).abs().sum(-1).amax(-1).amax(0)).all()


def test_torch_func_gives_the_same_bounds_where_it_can_be_captured():
    net, x = made("Tanh")
    box = bl.Box(x - 0.05, x + 0.05)
    one, other = (bl.bound(bl.capture(kind(net), x).detached(), box) for kind in (Jacobian, Functional))
    assert torch.allclose(one.lower, other.lower, atol=2e-3) and torch.allclose(one.upper, other.upper, atol=2e-3)


def test_torch_func_that_fixes_the_batch_is_refused_with_what_to_do():
    net, x = made("GELU")
    with pytest.raises(bl.CaptureError, match=r"torch\.autograd\.grad on the whole batch.*docs/jacobian\.md"):
        bl.capture(Functional(net), x)
