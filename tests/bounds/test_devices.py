"""The same code on a GPU gives the same bounds; where there is none, that is said and counted, not passed over.

On any machine: tensors of two devices never meet.
"""

import functools
from dataclasses import replace

import pytest
import torch
from torch import nn

import boundlab as bl
from tests.bounds.elsewhere import Elsewhere, strict

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: bounds on a GPU were not tried")
METHODS = (bl.IBP(), bl.CROWN(bl.IBP()), bl.CROWN(), bl.CROWN(filter=None), bl.CROWN(max_rows=3, problems=1), bl.Forward(),
           bl.CROWN(bl.Forward()), bl.CROWN(bl.IBP(), memory="1KB"), bl.Forward(problems=1))

ALONE = (bl.CROWN(max_rows=3, problems=1), bl.Forward(problems=1))
"""Methods in many small parts, which take long."""


class Tokens(nn.Module):
    """Attention over a few tokens."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.layer(x).mean(1)[:, :3]


NETWORKS = {
    "images": (nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                             nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3)), (2, 8, 8)),
    "tokens": (Tokens(), (4, 8)),
}


@functools.cache
def case_of(name):
    """A network, three inputs in double precision, and margins of every class."""
    module, shape = NETWORKS[name]
    x = torch.rand(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return bl.capture(module.double().eval(), x).detached(), x, bl.margins(torch.tensor([0, 1, 2]), 3, dtype=torch.float64)


@gpu
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_bounds_on_a_gpu_are_those_on_a_cpu(name, method):
    model, x, spec = case_of(name)
    here = bl.bound(model, bl.LpBall(x, 0.01), method=method, spec=spec).lower
    rows = bl.Specification(spec.rows.cuda(), spec.offset.cuda(), spec.clause.cuda())
    there = bl.bound(model.to(torch.device("cuda")), bl.LpBall(x.cuda(), 0.01), method=method, spec=rows).lower
    assert there.is_cuda and torch.allclose(there.cpu(), here, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("method", "name"), [
    pytest.param(method, name, id=f"{method}-{name}", marks=pytest.mark.slow if name == "tokens" and method in ALONE else [])
    for method in METHODS for name in NETWORKS])
@torch.no_grad()
def test_tensors_of_two_devices_never_meet(name, method):
    (model, x, spec), eps = case_of(name), torch.tensor([0.01], dtype=torch.float64)
    here = bl.bound(model, bl.LpBall(x, eps, p=2), method=method, spec=spec).lower
    away = replace(model, params={name: Elsewhere(value) for name, value in model.params.items()})
    rows = bl.Specification(Elsewhere(spec.rows), Elsewhere(spec.offset), Elsewhere(spec.clause))
    with strict():
        ball = bl.LpBall(Elsewhere(x), Elsewhere(eps), p=2)
        there = bl.bound(away, ball, method=method, spec=rows).lower
    assert isinstance(there, Elsewhere) and torch.allclose(there.values, here, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("meet", [torch.add, lambda far, near: far.index_select(0, near.long()),
                                  lambda far, near: near[far.long()], lambda far, near: torch.cat([far, near])])
def test_tensors_of_two_devices_would_be_seen(meet):
    with strict(), pytest.raises(RuntimeError, match="of two devices"):
        meet(Elsewhere(torch.zeros(2)), torch.zeros(2))
