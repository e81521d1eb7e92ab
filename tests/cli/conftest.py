"""A small network as an ONNX file and as a Python factory, inputs, properties, and damaged copies of each."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from boundlab.cli.app import app

FACTORY = '''
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))

def nan():
    net = make()
    net[0].weight.data[0, 0] = float("nan")
    net[2].bias.data[1] = float("nan")
    return net

def wrong_kind():
    return 3

def broken():
    raise ValueError("the factory itself is broken")

def leaves():
    raise SystemExit(3)

def lacks_a_key():
    return {}["width"]

def wide(width):
    return nn.Linear(2, width)

def unsupported():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.fft.fft(x).real
    return Odd()
'''


def network():
    """y_0 = relu(x_0) + 3, y_1 = relu(x_1): over [-1, 1]^2 y_0 is always above y_1."""
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        for layer, bias in ((net[0], [0.0, 0.0]), (net[2], [3.0, 0.0])):
            layer.weight.copy_(torch.eye(2))
            layer.bias.copy_(torch.tensor(bias))
    return net


def write_onnx(path, net, extra=None):
    initializers, names = [], []
    for place, layer in ((0, net[0]), (2, net[2])):
        for kind, value in (("w", layer.weight), ("b", layer.bias)):
            names.append(f"{kind}{place}")
            initializers.append(numpy_helper.from_array(value.detach().numpy(), names[-1]))
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["h"], transB=1), helper.make_node(extra or "Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], transB=1)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)


def spec_text(lines, inputs=2, outputs=2, low=-1, high=1):
    declared = [f"(declare-const X_{i} Real)" for i in range(inputs)] + [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    bounds = [f"(assert (>= X_{i} {low}))\n(assert (<= X_{i} {high}))" for i in range(inputs)]
    return "\n".join([*declared, *bounds, *lines]) + "\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory with every file that the tests name."""
    monkeypatch.chdir(tmp_path)
    net = network()
    write_onnx("net.onnx", net)
    write_onnx("unknown.onnx", net, "Det")
    with torch.no_grad():
        net[0].weight[0, 0] = float("nan")
    write_onnx("nan.onnx", net)
    whole = (tmp_path / "net.onnx").read_bytes()
    (tmp_path / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.onnx").write_text("this is not a network\n" * 20)
    (tmp_path / "safe.vnnlib").write_text(spec_text(["(assert (>= Y_1 Y_0))"]))
    (tmp_path / "unsafe.vnnlib").write_text(spec_text(["(assert (>= Y_1 0.5))"]))
    (tmp_path / "three.vnnlib").write_text(spec_text(["(assert (>= Y_1 Y_0))"], inputs=3))
    (tmp_path / "empty.vnnlib").write_text(spec_text(["(assert (>= Y_1 Y_0))"], low=1, high=-1))
    (tmp_path / "garbage.vnnlib").write_text("(assert (>= Y_1")
    (tmp_path / "binary.vnnlib").write_bytes(bytes(range(128, 256)))
    np.save("x.npy", np.array([[0.5, -0.5], [-0.5, 0.25]], dtype=np.float32))
    np.savez("labelled.npz", x=np.array([[0.5, -0.5]], dtype=np.float32), y=np.array([0]))
    np.save("single.npy", np.zeros(2, dtype=np.float32))
    np.save("wide.npy", np.zeros((1, 5), dtype=np.float32))
    np.save("nan.npy", np.full((1, 2), np.nan, dtype=np.float32))
    np.save("words.npy", np.array([["a", "b"]]))
    np.savez("nameless.npz", a=np.zeros((1, 2)), b=np.zeros((1, 2)))
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY not really")
    (tmp_path / "factory_of_test.py").write_text(FACTORY)
    (tmp_path / "needy_of_test.py").write_text("import no_module_of_this_name")
    (tmp_path / "garbled_of_test.py").write_text("def make(:")
    torch.save({"0.weight": torch.zeros(3)}, "other.pt")
    torch.save([torch.zeros(3)], "list.pt")
    for name in ("pickled.pt", "pickled.safetensors"):
        torch.save(nn.Linear(2, 2), name)
    weights = {"0.weight": torch.rand(8, 2, dtype=torch.float64), "0.bias": torch.zeros(8), "2.weight": torch.zeros(2, 8)}
    save_file(weights | {"2.bias": torch.zeros(2)}, "double.safetensors")
    (tmp_path / "noise.safetensors").write_bytes(b"noise" * 9)
    (tmp_path / "noise.pt").write_bytes(b"noise")
    return tmp_path


@pytest.fixture
def run():
    """The application in this process: run("bound", "net.onnx", ...) gives exit_code, stdout and stderr."""
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])
