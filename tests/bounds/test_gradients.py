"""Gradients of bounds with respect to parameters and sets, against finite differences in double precision."""

import functools

import pytest
import torch

from boundlab import CROWN, IBP, Box, Forward, Interval, bound, capture
from boundlab.ops import lookup
from boundlab.spec import at_least
from tests.bounds.networks import captured
from tests.bounds.soundness import random_rows

NETWORKS = {
    "convolutions": ("image", ["conv stride", "relu", "residual", "relu"]),
    "windows": ("image", ["conv 3", "relu", "crop", "leaky"]),
    "smooth": ("vector", ["linear", "tanh", "product", "sigmoid"]),
    "attention": ("tokens", ["attention", "layer norm", "relu"]),
}
METHODS = {"IBP": IBP(), "CROWN-IBP": CROWN(intermediate=IBP()), "Forward": Forward(), "CROWN": CROWN()}
STEP = 1e-6


@functools.cache
def network_of(name):
    """A network as module and as model; the tests move its parameters and move them back."""
    kind, blocks = NETWORKS[name]
    return captured(kind, blocks, 3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("with_rows", [False, True], ids=["output", "rows"])
def test_gradients_match_finite_differences(network, method, with_rows):
    module, model = network_of(network)
    generator = torch.Generator().manual_seed(5)
    center = torch.randn((2, *model.graph.inputs[0].shape), generator=generator, dtype=torch.float64, requires_grad=True)
    rows = random_rows((3,), 0) if with_rows else None

    def total():
        region = Box(center - 0.05, center + 0.05)
        result = bound(model, region, method=METHODS[method], spec=None if rows is None else at_least(rows))
        return result.lower.square().sum() if rows is not None else (result.lower.square() + 2 * result.upper).sum()

    leaves = [*module.parameters(), center]
    gradients = torch.autograd.grad(total(), leaves, allow_unused=True)
    used = [(leaf, gradient) for leaf, gradient in zip(leaves, gradients, strict=True) if gradient is not None]
    assert len(used) == len(leaves), "some parameter has no influence on the bounds"
    for leaf, gradient in used:
        direction = torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
        expected = (gradient * direction).sum()
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                leaf += sign * STEP * direction
                ends.append(total())
                leaf -= sign * STEP * direction
        measured = (ends[0] - ends[1]) / (2 * STEP)
        scale = 1e-2 + (gradient.abs() * direction.abs()).sum()
        assert (measured - expected).abs() <= 1e-5 * scale, (float(measured), float(expected))


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_of_zeros_gets_its_gradient(method):
    """What is zero everywhere on the sets moves once a layer before it does, though it carries nothing yet."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2)).double()
    torch.nn.init.zeros_(net[0].weight)
    with torch.no_grad():
        net[0].bias.mul_(torch.tensor([0, 0, 0, 0, 1, 1]))
    model = capture(net, torch.zeros(1, 3, dtype=torch.float64))
    center = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64)
    rows = torch.tensor([[[1.0, -2.0]]], dtype=torch.float64)
    lower = bound(model, Box(center, center), method=METHODS[method], spec=at_least(rows)).lower
    found = torch.autograd.grad(lower.sum(), [*net.parameters()])
    expected = torch.autograd.grad((net(center) * rows[0]).sum(), [*net.parameters()])
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_a_share_of_one_has_no_width(name):
    x = Interval(torch.tensor([[-0.3]], requires_grad=True), torch.tensor([[0.8]], requires_grad=True))
    found = lookup(name).interval(x, dim=0)
    assert torch.equal(found.lower, found.upper)
    assert torch.equal(found.lower, lookup(name).evaluate(x.lower, dim=0))


@pytest.mark.parametrize("end", ["lower", "upper"])
def test_lines_over_a_straight_piece_keep_their_slope(end):
    """SELU is above 0 a line with slope 1, which its upper line keeps while the middle is there, wherever the ends are."""
    ends = {"lower": torch.tensor([[-0.6]], dtype=torch.float64), "upper": torch.tensor([[1.9]], dtype=torch.float64)}
    ends[end].requires_grad_()
    slope = lookup("elu").lines(Interval(**ends), scale=1.67).upper.maps[0].scale
    assert slope.item() == pytest.approx(1.0)
    (gradient,) = torch.autograd.grad(slope.sum(), ends[end], allow_unused=True)
    assert gradient is None or gradient.item() == pytest.approx(0.0)
