"""Functions with gradients written by hand, against the same formulas left to autograd."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck

import boundlab.bounds.choice as choice_module
import boundlab.maps.boxes as boxes_module
from boundlab.bounds.choice import Choice
from boundlab.maps import Conv, Matrix
from boundlab.ops.piecewise import ShareAbove

SHAPES = {  # rows; low, turn, base, lift
    "vectors": ((3, 4, 5), ((3, 1, 5), (1, 1, 5), (3, 4, 5), (3, 1, 5))),
    "images": ((3, 2, 4, 4, 4), ((3, 1, 4, 4, 4), (3, 1, 4, 4, 4), (1, 1, 4, 4, 4), (3, 2, 4, 4, 4))),
    "shared": ((1, 4, 5), ((1, 1, 5), (1, 4, 5), (1, 1, 5), (1, 1, 5))),
}


def normal(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)


def written_out(layer, rows, weight, after, low, turn, base, lift):
    negative = rows.clamp(max=0)
    left = sum((part * table).flatten(2).sum(2) for part, table in ((rows, base), (negative, lift)) if table is not None)
    chosen = rows * low + negative * turn
    if layer is None:
        return chosen, left
    if after is not None:
        left = left + (chosen * after).flatten(2).sum(2)
    return replace(layer, weight=weight).pull(chosen), left


def agree(inputs, layer):
    tensors = [tensor for tensor in inputs if tensor is not None]
    ours, plain = Choice.apply(layer, *inputs), written_out(layer, *inputs)
    outer = [torch.randn(found.shape, generator=torch.Generator().manual_seed(9), dtype=found.dtype) for found in plain]
    gradients = (torch.autograd.grad(found, tensors, outer) for found in (ours, plain))
    for found, expected in itertools.chain(zip(ours, plain, strict=True), zip(*gradients, strict=True)):
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("at_once", [1, 10**6])
def test_the_choice_of_lines(kind, at_once, monkeypatch):
    monkeypatch.setattr(choice_module, "AT_ONCE", at_once)
    rows, tables = SHAPES[kind]
    agree((normal(rows, 0), None, None, *(normal(shape, seed + 1) for seed, shape in enumerate(tables))), None)


@pytest.mark.parametrize("after", [(1, 1, 4, 1, 1), (1, 1, 4, 4, 4), None], ids=str)
@pytest.mark.parametrize("at_once", [1, 200, 10**6])
def test_the_choice_of_lines_and_a_convolution(after, at_once, monkeypatch):
    monkeypatch.setattr(choice_module, "AT_ONCE", at_once)
    rows, tables = SHAPES["images"]
    weight = normal((4, 2, 3, 3), 7)
    layer = Conv((2, 7, 7), (4, 4, 4), weight.detach(), (2, 2), (1, 1), (1, 1), 1)
    bias = None if after is None else normal(after, 8)
    agree((normal(rows, 0), weight, bias, *(normal(shape, seed + 1) for seed, shape in enumerate(tables))), layer)


def test_a_coefficient_of_zero_has_the_gradient_of_one_side():
    rows = torch.zeros(1, 1, 1, dtype=torch.float64, requires_grad=True)
    tables = [torch.full((1, 1, 1), value, dtype=torch.float64) for value in (2.0, 3.0)]
    chosen, _ = Choice.apply(None, rows, None, None, *tables, None, None)
    chosen.sum().backward()
    assert rows.grad.item() == 2


def test_the_share_above_zero_and_its_gradient():
    lower = torch.tensor([-1.0, -3.0, 1.0, -2.0, 0.5, -0.1], dtype=torch.float64, requires_grad=True)
    upper = torch.tensor([3.0, 1.0, 2.0, -1.0, 0.6, 0.2], dtype=torch.float64, requires_grad=True)
    assert ShareAbove.apply(lower, upper).tolist() == pytest.approx([0.75, 0.25, 1, 0, 1, 2 / 3])
    assert gradcheck(ShareAbove.apply, (lower, upper))
    ends = torch.tensor([0.0, -1e-300, 1e-310, -1e-310], dtype=torch.float64)
    tops = torch.tensor([0.0, 0.0, 2e-310, 1e-310], dtype=torch.float64)
    lows, highs = ends.requires_grad_(), tops.requires_grad_()
    share = ShareAbove.apply(lows, highs)
    share.sum().backward()
    assert ((share >= 0) & (share <= 1)).all() and share[0] == 0
    assert torch.isfinite(lows.grad[:2]).all() and torch.isfinite(highs.grad[:2]).all()


@pytest.mark.parametrize("at_once", [1, 20, 10**6])
def test_images_of_boxes_under_a_matrix(at_once, monkeypatch):
    monkeypatch.setattr(boxes_module, "AT_ONCE", at_once)
    weight, lower, width = normal((6, 5), 0), normal((3, 2, 5), 1), normal((3, 2, 5), 2)
    upper = lower + width.detach().abs()
    layer = Matrix((2, 5), (2, 6), weight)
    found = layer.image(lower, upper)
    middle, half = layer.apply((lower + upper) / 2), layer.abs().apply((upper - lower) / 2)
    for ours, plain in zip(found, (middle - half, middle + half), strict=True):
        assert torch.allclose(ours, plain, rtol=1e-12)
    assert gradcheck(lambda w, low: Matrix((2, 5), (2, 6), w).image(low, upper.detach() + 1), (weight, lower))
