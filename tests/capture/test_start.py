"""A first answer does not wait for what it does not need, and results are sized as they turn out."""

import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import boundlab as bl
from boundlab.capture.builder import FEW, GROWN, extent, trial
from boundlab.exchange.onnx_file import onnx_of
from boundlab.ops import lookup

PROGRAM = """
import sys
import boundlab as bl
from boundlab.question.vnnlib import parse_vnnlib
network = bl.load_original("net.onnx")
result, = bl.verify(network, parse_vnnlib("spec.vnnlib"), timeout=60)
assert result.verdict is bl.Verdict.VERIFIED, result
heavy = {"torch._dynamo", "torch.fx.experimental.symbolic_shapes", "jinja2", "matplotlib"} & sys.modules.keys()
assert not heavy, heavy
"""


def test_a_verdict_needs_no_compiler_of_torch_and_no_page(tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    model = bl.capture(net, torch.zeros(1, 2))
    (tmp_path / "net.onnx").write_bytes(onnx_of(model, torch.float32))
    (tmp_path / "spec.vnnlib").write_text(
        "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(assert (>= X_0 0))(assert (<= X_0 1))"
        "(assert (>= X_1 0))(assert (<= X_1 1))(assert (>= Y_0 100))")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("op", "shapes", "attrs"), [
    ("sub", ((1, 3), (1, 3)), {}), ("linear", ((1, 4), (1, 3, 4), (1, 3)), {}), ("expand", ((1, 1, 3),), {"shape": (5, 3)}),
    ("sub", ((1, 2**15), (1, 2**15)), {}), ("expand", ((1, 1),), {"shape": (2**29,)}),
    ("expand", ((1, 1),), {"shape": (2**27,)})])
def test_a_trial_has_the_shape_and_type_of_the_result(op, shapes, attrs):
    found = trial(op, [(shape, torch.float32) for shape in shapes], attrs)
    meta = lookup(op).evaluate(*(torch.empty(shape, device="meta") for shape in shapes), **attrs)
    assert found.shape == meta.shape and found.dtype == meta.dtype
    sizes, factor = [math.prod(shape) for shape in shapes], extent(list(attrs.values()))
    assert (found.device.type == "cpu") == (math.prod(sizes) * factor <= FEW and max(sizes) * factor <= GROWN)


def test_what_zeros_cannot_be_asked_is_sized_without_values(monkeypatch):
    def evaluate(x):
        if x.device.type == "cpu":
            raise ZeroDivisionError
        return x.flatten(1)

    monkeypatch.setattr(sys.modules[trial.__module__], "lookup", lambda name: SimpleNamespace(evaluate=evaluate))
    found = trial("any", [((1, 2, 3), torch.int64)], {})
    assert found.shape == (1, 6) and found.dtype == torch.int64 and found.device.type == "meta"
