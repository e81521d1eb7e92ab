"""Operators of several numbers beside auto_LiRPA's, where it is installed: mean bounds of random rows are no looser.

For operators alone. Compositions are printed without that claim: lines of least area are not the best ones for every row.

Run it where both can be imported; it prints the table: pytest tests/peers/test_several_arguments.py -m slow
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import boundlab as bl
from tests.peers.test_relaxations import Net, peer

__all__ = ["peer"]
pytestmark = pytest.mark.slow
BATCH, SHAPE, ROWS, WIDTHS = 40, (4, 4), 6, (0.02, 4.0)
"""Problems, the shape of the input, rows of the output for each problem, widths of intervals from the least to the largest."""


def halves(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function of two arguments, which are the halves of the input."""
    return lambda x: function(x[:, :2], x[:, 2:])


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(-1), "max pool": lambda x: F.max_pool2d(x[:, None], 2),
    "maximum": halves(torch.maximum), "minimum": halves(torch.minimum), "product": halves(torch.mul),
    "matrix product": lambda x: x.matmul(x.transpose(1, 2)), "secant": lambda x: 1 / torch.cos(0.15 * x),
}
COMPOSED: dict[str, Callable[[Tensor], Tensor]] = {
    "division by an exponential": halves(lambda x, y: x / (y.exp() + 0.5)), "layer norm": lambda x: F.layer_norm(x, (4,)),
    "attention": lambda x: (x.matmul(x.transpose(1, 2)) / 2).softmax(-1).matmul(x),
    "square of a sum": lambda x: x.sum(-1) ** 2, "mean of absolutes": lambda x: x.abs().mean(-1),
}


def boxes() -> bl.Box:
    """Intervals with widths from narrow to wide, with middles around zero."""
    generator = torch.Generator().manual_seed(0)
    center = torch.randn(BATCH, *SHAPE, generator=generator)
    width = WIDTHS[0] * (WIDTHS[1] / WIDTHS[0]) ** torch.rand(BATCH, 1, 1, generator=generator)
    return bl.Box(center - width / 2, center + width / 2)


def theirs(peer, function, box: bl.Box, rows: Tensor) -> Tensor:
    """Lower bounds by their backward method, (b, s)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        center = (box.lower + box.upper) / 2
        flat = Net(lambda x: function(x).flatten(1))
        net = peer.BoundedModule(flat, center, device="cpu", verbose=0)
        region = peer.PerturbationLpNorm(norm=float("inf"), x_L=box.lower, x_U=box.upper)
        lower, _ = net.compute_bounds(x=(peer.BoundedTensor(center, region),), C=rows, method="backward", bound_upper=False)
    return lower.detach()


@pytest.mark.parametrize("name", [*FUNCTIONS, *COMPOSED])
def test_bounds_of_rows_beside_those_of_auto_lirpa(peer, name, capfd):
    """Sound; and for single operators no looser than theirs on average. Compositions are printed without that claim."""
    function, box = {**FUNCTIONS, **COMPOSED}[name], boxes()
    model = bl.capture(Net(lambda x: function(x).flatten(1)), box.lower[:2]).detached()
    rows = torch.randn(BATCH, ROWS, *model.graph.output.shape, generator=torch.Generator().manual_seed(1))
    spec = bl.Specification(rows, torch.zeros(BATCH, ROWS), torch.arange(ROWS))
    points = box.sample(400, torch.Generator().manual_seed(2))
    least = torch.stack([spec.values(function(point).flatten(1)) for point in points]).amin(0)
    found = bl.bound(model, box, method=bl.CROWN(), spec=spec).lower
    other = theirs(peer, function, box, rows)
    room = 1e-4 * (1 + least.abs())
    wrong = (other > least + room).any(1)
    gaps = [(least - lower)[~wrong & torch.isfinite(other).all(1)] for lower in (found, other)]
    looser = float((gaps[0] > 1.001 * gaps[1] + 1e-4).float().mean())
    with capfd.disabled():
        sys.stdout.write(f"\n| {name} | {gaps[0].mean():.5g} | {gaps[1].mean():.5g} | {looser:.0%} | {int(wrong.sum())} |")
    assert (found <= least + room).all()
    assert name in COMPOSED or gaps[0].mean() <= 1.001 * gaps[1].mean() + 1e-5
