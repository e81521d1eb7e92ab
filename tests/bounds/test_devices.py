"""The same code on a GPU gives the same bounds; where there is none, that is said and counted, not passed over."""

import pytest
import torch
from torch import nn

import boundlab as bl

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: bounds on a GPU were not tried")
METHODS = (bl.IBP(), bl.CROWN(bl.IBP()), bl.CROWN(), bl.CROWN(filter=None), bl.CROWN(max_rows=3, problems=1), bl.Forward(),
           bl.CROWN(bl.Forward()))


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


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_bounds_on_a_gpu_are_those_on_a_cpu(name, method):
    module, shape = NETWORKS[name]
    x = torch.rand(3, *shape, dtype=torch.float64)
    model, spec = bl.capture(module.double().eval(), x).detached(), bl.margins(torch.tensor([0, 1, 2]), 3, dtype=torch.float64)
    here = bl.bound(model, bl.LpBall(x, 0.01), method=method, spec=spec).lower
    rows = bl.Specification(spec.rows.cuda(), spec.offset.cuda(), spec.clause.cuda())
    there = bl.bound(model.to(torch.device("cuda")), bl.LpBall(x.cuda(), 0.01), method=method, spec=rows).lower
    assert there.is_cuda and torch.allclose(there.cpu(), here, rtol=1e-9, atol=1e-9)
