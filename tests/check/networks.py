"""Modules and files with places that boundlab does not know, for the tests of check."""

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn


class Strange(nn.Module):
    """Three calls that no operator declares, one of them after another; and one that everybody knows."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        y = torch.special.i0(self.linear(x))  # first place
        z = torch.relu(torch.special.i1(y))  # second place
        return z + torch.special.bessel_j0(x)  # third place


class Mixing(nn.Module):
    """Mixes the examples of a batch, and uses an unknown call besides."""

    def forward(self, x):
        return torch.relu(x - x.mean(0)) + torch.special.i0(x)


class Branching(nn.Module):
    """Decides by a value, so that there is no graph."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


class Parts(nn.Module):
    """A call with two results."""

    def forward(self, x):
        sign, size = torch.linalg.slogdet(x.unflatten(1, (2, 2)))
        return torch.stack([sign, size.relu()], 1)


def strange_file(path):
    """Gemm, Det of nothing we know, a custom operator behind it, and a known one behind both; and one untouched branch."""
    weight = numpy_helper.from_array(torch.eye(4).numpy(), "w")
    nodes = [helper.make_node("Gemm", ["x", "w"], ["h"], name="first"), helper.make_node("Relu", ["h"], ["r"], name="fine"),
             helper.make_node("Hardmax", ["r"], ["odd"], name="odd"), helper.make_node("Relu", ["odd"], ["s"], name="behind"),
             helper.make_node("Twist", ["s"], ["t"], name="own", domain="mine"),
             helper.make_node("Add", ["t", "r"], ["y"], name="last")]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], [weight])
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), path)
    return path
