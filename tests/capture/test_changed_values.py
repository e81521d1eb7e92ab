"""Operators that change values where an example input need not show it: casts, thresholds, crossed ends."""

import numpy as np
import pytest
import torch

import boundlab as bl
from boundlab.errors import UnsupportedOperator
from tests.capture.onnx_nets import one, save_single


class Net(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


LOSSY = {
    "int": lambda x: x.int().float() + x,
    "long": lambda x: x.to(torch.int64) * 2 + x,
    "bool": lambda x: x.bool().float() + x,
    "half": lambda x: x.half().float(),
}


@pytest.mark.parametrize("function", LOSSY.values(), ids=LOSSY)
def test_what_changes_values_unseen_by_the_example_is_refused(function):
    with pytest.raises(UnsupportedOperator):
        bl.capture(Net(function), torch.zeros(1, 3))


def test_casts_that_keep_values_are_captured():
    mask = torch.tensor([1, 0, 1])
    model = bl.capture(Net(lambda x: (x.double() * mask.to(torch.bool).to(torch.float32)).float()), torch.zeros(1, 3))
    assert torch.equal(bl.evaluate(model, torch.ones(2, 3)).float(), torch.tensor([[1.0, 0, 1], [1, 0, 1]]))


@pytest.mark.parametrize("method", [bl.IBP(), bl.CROWN(), bl.Forward()], ids=str)
def test_a_clip_whose_ends_cross_is_its_upper_end(method, tmp_path):
    models = [bl.capture(Net(lambda x: torch.clamp(x, 1.0, -1.0)), torch.zeros(1, 3)),
              bl.load_onnx(save_single(tmp_path / "clip.onnx", one("Clip", (1, 3), np.float32(1), np.float32(-1))))]
    for model in models:
        result = bl.bound(model, bl.Box(torch.full((1, 3), 0.5), torch.full((1, 3), 1.5)), method=method)
        assert (result.lower == -1).all()
        assert (result.upper == -1).all()
