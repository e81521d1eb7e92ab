"""Optimised lines: sound, never below plain CROWN, better where there is freedom, the same alone and in a batch."""

import pytest
import torch
from torch import nn

import boundlab as bl
from tests.bounds.soundness import region_of

D = torch.float64
ROUNDING = 1e-12
"""Other methods pull other rows together, and processors add up products of other shapes in another order."""


class Gated(nn.Module):
    """Two arguments of one product, a smooth curve, a largest value."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(3, 3)

    def forward(self, x):
        y = torch.sigmoid(self.first(x)) * nn.functional.gelu(self.second(x))
        return self.last(y.unflatten(1, (3, 2)).amax(2))


NETWORKS = {
    "relu": (lambda: nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)), (4,)),
    "tanh": (lambda: nn.Sequential(nn.Linear(4, 10), nn.Tanh(), nn.Linear(10, 10), nn.Sigmoid(), nn.Linear(10, 3)), (4,)),
    "gated": (Gated, (4,)),
    "convolution": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.LeakyReLU(0.1),
                                          nn.Flatten(), nn.Linear(4, 3)), (2, 4, 4)),
}
METHODS = (bl.Optimised(), bl.Optimised(bl.CROWN(bl.IBP())), bl.Optimised(bl.IBP(), steps=5))


def case(name, batch=3, kind="linf", radius=0.3):
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    module = make().double()
    region = region_of(kind, radius, shape, seed=1, batch=batch)
    return module, bl.capture(module, region.box().center).detached(), region


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ["linf", "l2", "box"])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_bounds_are_sound_and_no_looser_than_plain_ones(name, kind, method):
    module, model, region = case(name, kind=kind)
    spec = bl.margins(torch.tensor([0, 1, 2]), 3, dtype=D)
    rows, whole = bl.bound(model, region, method=method, spec=spec).lower, bl.bound(model, region, method=method)
    points = region.sample(300, torch.Generator().manual_seed(2))
    values = module(points.flatten(0, 1)).unflatten(0, points.shape[:2])
    assert bool((whole.lower <= values + 1e-9).all()) and bool((values <= whole.upper + 1e-9).all())
    margins = torch.einsum("bso,nbo->nbs", spec.rows, values) + spec.offset
    assert bool((rows <= margins + 1e-9).all())
    plain = bl.CROWN(intermediate=method.base)
    assert bool((rows >= bl.bound(model, region, method=plain, spec=spec).lower - ROUNDING).all())
    outputs = bl.bound(model, region, method=plain)
    assert bool((whole.lower >= outputs.lower - ROUNDING).all()) and bool((whole.upper <= outputs.upper + ROUNDING).all())


@pytest.mark.parametrize("name", NETWORKS)
def test_freedom_is_used(name):
    _, model, region = case(name)
    plain, found = (bl.bound(model, region, method=method) for method in (bl.CROWN(), bl.Optimised()))
    assert (found.upper - found.lower).sum() < 0.999 * (plain.upper - plain.lower).sum()


@pytest.mark.parametrize("memory", [None, 2000])
def test_a_problem_is_optimised_alone_as_in_a_batch(memory):
    _, model, region = case("relu")
    method = bl.Optimised(memory=memory)
    whole = bl.bound(model, region, method=method)
    for place in range(3):
        alone = bl.bound(model, region.take(torch.tensor([place])), method=method)
        assert torch.allclose(alone.lower[0], whole.lower[place], atol=1e-9)


def test_more_steps_are_never_worse_and_none_is_crown():
    _, model, region = case("tanh")
    found = [bl.bound(model, region, method=bl.Optimised(steps=steps)).lower for steps in (0, 5, 20)]
    assert torch.allclose(found[0], bl.bound(model, region, method=bl.CROWN()).lower, rtol=0, atol=ROUNDING)
    assert bool((found[0] <= found[1]).all()) and bool((found[1] <= found[2] + 1e-12).all())


def test_it_works_without_gradients_around_and_where_nothing_is_free():
    _, model, region = case("relu")
    with torch.no_grad():
        bl.bound(model, region, method=bl.Optimised(steps=2))
    linear = bl.capture(nn.Linear(4, 2).double(), torch.zeros(1, 4, dtype=D)).detached()
    assert torch.equal(bl.bound(linear, region, method=bl.Optimised()).lower, bl.bound(linear, region, method=bl.CROWN()).lower)


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"rate": 0.0}, {"rate": float("nan")}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(bl.SpecError, match="steps must be at least 0 and rate a positive number"):
        bl.Optimised(**wrong)
