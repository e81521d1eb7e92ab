"""Ranges of matrix products by signs, entry by entry, and in blocks are the same ranges."""

import pytest
import torch

from boundlab.interval import Interval
from boundlab.ops import linear
from boundlab.ops.linear import entrywise, matmul_interval


def drawn(shape, generator, least=-1.0):
    low = least + (1 - least) * torch.rand(shape, generator=generator, dtype=torch.float64)
    return Interval(low, low + torch.rand(shape, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("least", [(0.0, -1.0), (-1.0, 0.0), (0.0, 0.0), (-1.0, -1.0)])
@pytest.mark.parametrize("shared", [(3, 3), (1, 3), (3, 1)])
def test_every_way_gives_the_same_range(least, shared, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x, y = drawn((shared[0], 2, 4, 5), generator, least[0]), drawn((shared[1], 1, 5, 3), generator, least[1])
    whole = entrywise(x, y)
    monkeypatch.setattr(linear, "BLOCK", 1)
    for found in (entrywise(x, y), matmul_interval(x, y)):
        torch.testing.assert_close(found.lower, whole.lower)
        torch.testing.assert_close(found.upper, whole.upper)
    weights = torch.rand(200, 1, 1, 1, 1, generator=generator, dtype=torch.float64)
    corners = torch.rand(200, 1, 1, 1, 1, generator=generator, dtype=torch.float64).round()
    values = (x.lower + weights * x.width) @ (y.lower + corners * y.width)
    assert bool(((whole.lower - 1e-12 <= values) & (values <= whole.upper + 1e-12)).all())


def test_infinite_ends_stay_infinite_and_are_no_nan():
    x = Interval(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[torch.inf, 2.0]]]))
    y = Interval(torch.tensor([[[1.0], [1.0]]]), torch.tensor([[[2.0], [3.0]]]))
    found = matmul_interval(x, y)
    assert float(found.lower) == 1.0 and float(found.upper) == torch.inf
