"""Operators that only move entries move the ends of an interval unchanged, however far apart the ends are."""

import pytest
import torch

from boundlab.interval import Interval
from boundlab.ops import lookup

CASES = {
    "concat": ((2,), {"dim": 0}), "pad": ((1,), {"before": (1, 0), "shape": (5, 4)}), "reshape": ((1,), {"shape": (4, 3)}),
    "permute": ((1,), {"dims": (1, 0)}), "slice": ((1,), {"slices": (slice(0, 2, 1), slice(1, 4, 2))}),
    "gather": ((1,), {"index": torch.tensor([5, 0, 11]), "shape": (3,)}),
}


@pytest.mark.parametrize("name", CASES)
def test_ends_are_moved_without_rounding(name):
    (count,), attributes = CASES[name]
    op = lookup(name)
    ends = torch.linspace(-20, 1, 12).reshape(1, 3, 4)
    boxes = [Interval(ends, ends.abs() * 1e9 + 1)] * count
    found = op.interval(*boxes, **attributes)
    assert torch.equal(found.lower, op.evaluate(*(box.lower for box in boxes), **attributes))
    assert torch.equal(found.upper, op.evaluate(*(box.upper for box in boxes), **attributes))
