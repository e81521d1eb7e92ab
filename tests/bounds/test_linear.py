"""Linear forms of any node: they enclose its value on the set, and concretize to the bounds of the method."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.bounds.linear import linear_bounds
from boundlab.evaluate import evaluate_all


def setting() -> tuple[bl.Model, bl.Box]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 6), nn.Tanh(), nn.Linear(6, 4))
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    return bl.capture(net.double(), x).detached(), bl.Box(x - 0.1, x + 0.1)


@pytest.mark.parametrize("method", [bl.CROWN(), bl.Forward(), bl.CROWN(intermediate=bl.IBP())])
def test_every_node_lies_between_its_forms(method: bl.Method) -> None:
    model, box = setting()
    source = model.graph.inputs[0].name
    points = box.sample(20, torch.Generator().manual_seed(0))
    perturbed = {model.graph.inputs[0].index}
    for node in model.graph:
        if not any(arg in perturbed for arg in node.args):
            continue
        perturbed.add(node.index)
        forms = linear_bounds(model, box, node=node.name, method=method)
        for x in points:
            value = evaluate_all(model, {source: x})[node.index]
            assert (forms.lower.values({source: x}) <= value + 1e-9).all()
            assert (forms.upper.values({source: x}) >= value - 1e-9).all()


def test_ibp_has_none() -> None:
    model, box = setting()
    with pytest.raises(bl.MissingRule, match="no linear bounds"):
        linear_bounds(model, box, method=bl.IBP())
