"""Networks written as ONNX: onnxruntime and the library's own importer compute what the graph computes."""

import numpy as np
import onnxruntime
import pytest
import torch

import boundlab as bl
from boundlab.evaluate import evaluate
from boundlab.exchange.onnx_file import onnx_of, save_onnx
from boundlab.exchange.operators import RULES
from boundlab.graph import INPUT, PARAMETER, Graph, Model, Node
from boundlab.ops import lookup
from boundlab.testing.cases import Vary, cases_of
from tests.bounds.networks import IMAGE, KINDS, TOKENS, VECTOR, network

OPERATORS = sorted(RULES)
CASES = [(name, number) for name in OPERATORS for number in range(len(cases_of(name)))]
UNWRITTEN = {("softplus", 1), ("softplus", 2), ("softplus", 3)}
"""Calls that ONNX has no operator for: thresholds."""
LAYERS = {"conv", "conv_transpose", "linear"}
"""Operators whose weights may not vary."""
IMPRECISE = {("elu", 1), ("elu", 2)}
"""Calls whose attributes are no float32."""


def one_node(name, case, dtype):
    """A network that is one call of an operator, and inputs (1, *shape) by name."""
    generator = torch.Generator().manual_seed(0)
    nodes, params, inputs = [], {}, {}
    for place, argument in enumerate(case.arguments):
        if isinstance(argument, Vary):
            low, high = max(argument.low, -2.0), min(argument.high, max(argument.low, -2.0) + 4.0)
            value = (low + (high - low) * torch.rand(1, *argument.shape, generator=generator, dtype=torch.float64)).to(dtype)
            inputs[f"x{place}"] = value
            nodes.append(Node(place, INPUT, (), {}, argument.shape, f"x{place}"))
        else:
            params[f"c{place}"] = argument[0].to(dtype) if argument.is_floating_point() else argument[0]
            nodes.append(Node(place, PARAMETER, (), {}, tuple(argument.shape[1:]), f"c{place}"))
    arguments = [inputs.get(node.name, params.get(node.name)) for node in nodes]
    arguments = [value if node.op == INPUT else value.unsqueeze(0) for node, value in zip(nodes, arguments, strict=True)]
    result = lookup(name).evaluate(*arguments, **case.attributes)
    nodes.append(Node(len(nodes), name, tuple(range(len(nodes))), case.attributes, tuple(result.shape[1:]), "y"))
    return Model(Graph(tuple(nodes), (len(nodes) - 1,)), params), inputs, result


def run(content, inputs):
    """What onnxruntime computes."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})


def read(content, inputs, folder):
    """What the library's importer makes of it, which evaluates float64 where onnxruntime has no kernel."""
    (folder / "net.onnx").write_bytes(content)
    return evaluate(bl.load_onnx(folder / "net.onnx"), inputs).numpy()


@pytest.mark.parametrize(("name", "number"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_operator_is_what_onnxruntime_makes_of_it(name, number, dtype, tmp_path):
    model, inputs, result = one_node(name, cases_of(name)[number], dtype)
    lost = (name, number) in IMPRECISE and dtype is torch.float64
    if (name, number) in UNWRITTEN or lost or (name in LAYERS and {"x1", "x2"} & set(inputs)):
        with pytest.raises(bl.UnsupportedOperator, match="cannot be written as ONNX with"):
            onnx_of(model, dtype)
        return
    single, content = dtype is torch.float32, onnx_of(model, dtype)
    found = run(content, inputs)[0] if single else read(content, inputs, tmp_path)
    tolerance = 1e-5 if single else 1e-12
    np.testing.assert_allclose(found, result.numpy(), rtol=tolerance, atol=tolerance)


NETWORKS = [(kind, block) for kind, table in (("vector", VECTOR), ("image", IMAGE), ("tokens", TOKENS)) for block in table]


@pytest.mark.parametrize(("kind", "block"), NETWORKS)
def test_captured_networks_come_back_as_they_were(kind, block, tmp_path):
    module = network(kind, [block, "relu"], seed=1).float()
    x = torch.randn(1, *KINDS[kind][0])
    model = bl.capture(module, x)
    save_onnx(model, tmp_path / "net.onnx")
    again = bl.load_onnx(tmp_path / "net.onnx")
    with torch.no_grad():
        expected = module(x)
    np.testing.assert_allclose(run((tmp_path / "net.onnx").read_bytes(), {model.graph.inputs[0].name: x})[0], expected,
                               rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(evaluate(again, x), expected, rtol=1e-4, atol=1e-5)


def test_an_operator_without_counterpart_is_named():
    model = bl.capture(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Softplus()), torch.zeros(1, 2))
    with pytest.raises(bl.UnsupportedOperator, match=r"threshold 20.*ONNX has none"):
        onnx_of(model)


def test_names_and_constants_are_not_mixed_up():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(2, 2))

        def forward(self, x):
            return x @ self.weight.exp() + x @ self.weight, x, self.weight.sum() + x * 0

    module, x = Twice(), torch.randn(1, 2)
    model = bl.capture(module, x)
    for found, expected in zip(run(onnx_of(model), {model.graph.inputs[0].name: x}), module(x), strict=True):
        np.testing.assert_allclose(found, expected.detach(), rtol=1e-5, atol=1e-6)
