"""Every network of the zoo is captured, bounded and trained: bounds finite and sound by sampling, gradients right.

The default suite takes the small networks, and the large architectures for small images; `slow` takes all as published.
"""

import dataclasses
from functools import partial

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab import zoo
from boundlab.train.losses import crown_ibp_loss
from boundlab.zoo.residual import wide

METHODS = {"IBP": bl.IBP(), "CROWN-IBP": bl.CROWN(intermediate=bl.IBP())}
SMALL = {
    "crown-ibp-a-mnist": None, "crown-ibp-e-mnist": None, "crown-ibp-g-mnist": None, "cnn-deep-2-mnist": None, "mlp-b": None,
    "frown-4x20-relu-drive": None, "frown-12x20-sigmoid-drive": None, "frown-8x20-tanh-drive": None,
    "8c2f-tiny": (3, 22, 22), "cnn7-bn-tiny": (3, 4, 4), "wrn-cifar": (3, 8, 8), "wideresnet-cifar": (3, 4, 4),
    "6c2f-cifar": (3, 4, 4), "resnext-cifar": (3, 4, 4), "densenet-cifar": (3, 4, 4), "lstm-sst2": (4, 64),
    "transformer-sst2": (5, 64), "bag-sst2": (5, 64), "aol-small-mnist": (1, 8, 8),
}
"""Names, and shapes of inputs where the published ones take long."""


@dataclasses.dataclass
class Case:
    """A network in double precision with statistics as after some training, an example, and a box around each input."""

    module: nn.Module
    model: bl.Model
    x: torch.Tensor
    box: bl.Box


def case_of(name, shape=None, classes=None, batch=2, radius=1e-3):
    torch.manual_seed(0)
    return case_of_module(zoo.build(name, shape, classes), shape or zoo.record(name).shape, batch, radius)


def case_of_module(module, shape, batch=2, radius=1e-3):
    module = module.double().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.5, 2)
            layer.weight.data.uniform_(0.5, 1.5)
        if isinstance(layer, (zoo.AOLLinear, zoo.AOLConv2d)):  # the first weights lie at kinks of the rescaling
            layer.weight.data.add_(0.05 * torch.randn_like(layer.weight))
    x = torch.rand(batch, *shape, dtype=torch.float64)
    return Case(module, bl.capture(module, x), x, bl.Box(x - radius, x + radius))


def few(labels, classes, most=9):
    """Margins against at most nine other classes."""
    spec = bl.margins(labels, classes, torch.float64)
    return bl.Specification(spec.rows[:, :most], spec.offset[:, :most], spec.clause[:most])


def check_bounds(case, samples):
    """Both methods are finite, and no sampled point has an output or a margin outside."""
    with torch.no_grad():
        points = case.box.sample(samples, torch.Generator().manual_seed(1))
        values = torch.stack([case.module(point) for point in points])
        spec = few(values[0].argmax(1), values.shape[-1])
        margins = torch.einsum("nbo,bso->nbs", values, spec.rows)
        for method in METHODS.values():
            model = case.model.detached()
            if values.shape[-1] <= 10:
                found = bl.bound(model, case.box, method=method)
                slack = 1e-10 * (1 + values.abs().amax())
                assert torch.isfinite(found.lower).all() and torch.isfinite(found.upper).all()
                assert (found.lower <= values + slack).all() and (values <= found.upper + slack).all()
                assert (found.lower < found.upper).all()
            lower = bl.bound(model, case.box, method=method, spec=spec).lower
            assert torch.isfinite(lower).all() and (lower <= margins + 1e-10 * (1 + margins.abs().amax())).all()


def check_training(case, labels):
    """Every parameter has a finite gradient, and a short step against the gradient lowers the loss as the gradient says."""
    parameters = list(case.module.parameters())
    loss = crown_ibp_loss(case.model, case.box, labels, 0.5)
    loss.backward()
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in parameters)
    size = float(torch.stack([parameter.grad.square().sum() for parameter in parameters]).sum())
    assert size > 0
    step = 1e-6 * float(loss.detach()) / size
    with torch.no_grad():
        for parameter in parameters:
            parameter -= step * parameter.grad
        fallen = float(loss - crown_ibp_loss(case.model, case.box, labels, 0.5))
    assert fallen == pytest.approx(step * size, rel=0.05)


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_are_bounded_and_trained(name):
    shape = SMALL[name]
    case = case_of(name, shape, 3 if shape and len(shape) == 3 else None)
    check_bounds(case, 24)
    check_training(case, torch.tensor([0, 1]))


def test_the_pooled_wide_network_with_few_channels_is_bounded_and_trained():
    torch.manual_seed(0)
    case = case_of_module(wide((3, 28, 28), 3, (4, 6, 8), pooled=True), (3, 28, 28))
    check_bounds(case, 24)
    check_training(case, torch.tensor([0, 1]))


def maker(name):
    """The function that builds a network."""
    make = zoo.record(name).make
    return make.func if isinstance(make, partial) else make


def test_every_builder_is_among_the_small_ones():
    assert {maker(name) for name in zoo.NAMES} - {maker(name) for name in SMALL} == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.NAMES)
def test_networks_are_captured_bounded_and_trained_as_published(name):
    """Trained for ten classes, since every margin of a thousand classes at once does not fit into memory."""
    check_bounds(case_of(name), 12)
    classes = min(10, zoo.record(name).classes)
    check_training(case_of(name, classes=classes), torch.tensor([0, 1]))
