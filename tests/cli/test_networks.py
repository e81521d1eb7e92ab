"""Networks that verbs take beside ONNX files: of the zoo and of the user's modules, with weights, as boundlab trains them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from boundlab import zoo
from boundlab.train.checkpoint import FORMAT, weights_of
from boundlab.train.sources import digits

RECIPE = """
title = "a test"
source = "boundlab"
network = "crown-ibp-a-mnist"
data = "digits"
eps = 0.05
epochs = 2
best = true
validation = 0.2
batch = 128
examples = 300
rate = { first = 5e-3 }
ramp = { start = 0, end = 1 }
[normalise]
mean = [0.3]
deviation = [0.7]
[method.crown-ibp]
"""
OWN = '''
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))

def double():
    return make().double()
'''


def bounds_of(run, *arguments):
    result = run("bound", *arguments, "--method", "ibp", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    return torch.tensor(found["lower"]), torch.tensor(found["upper"])


def test_what_train_writes_is_a_network_that_every_file_of_it_gives(folder, run):
    (folder / "recipe.toml").write_text(RECIPE)
    assert run("train", "recipe.toml", "--out", "run", "--limit", "5").exit_code == 0
    held = digits().take(range(3))
    np.savez("digits.npz", x=held.x.numpy(), y=held.labels.numpy())
    np.save("plain.npy", held.x.numpy())
    asked = ("--data", "plain.npy", "--eps", "0.01")  # 8 x 8 pixels, where the paper's network has 28 x 28
    expected = bounds_of(run, "run/network.onnx", *asked)
    for net, weights in (("crown-ibp-a-mnist", "weights"), ("zoo:crown-ibp-a-mnist", "checkpoint")):
        found = bounds_of(run, net, "--weights", f"run/{weights}.safetensors", *asked)
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, expected, strict=True))
    result = run("certify", "crown-ibp-a-mnist", "--weights", "run/weights.safetensors", "--data", "digits.npz", "--eps",
                 "0.01", "--out", "out", "--engine", "serial", "--method", "ibp", "--json")
    assert result.exit_code == 0 and len(json.loads(result.stdout)["records"]) == 3, result.output
    other = run("show", "crown-ibp-b-mnist", "--weights", "run/weights.safetensors", "--input-shape", "1,8,8")
    assert other.exit_code == 2 and "do not fit 'crown-ibp-b-mnist'" in other.stderr


def test_the_weights_of_a_checkpoint_are_those_that_its_run_would_end_with():
    last, best, other = torch.zeros(1), torch.ones(1), torch.full((1,), 2.0)
    held = {"module.a": last, "optimiser.0.step": other}
    assert weights_of({"format": FORMAT}, held) == {"a": last}
    assert weights_of({"format": FORMAT}, held | {"best.a": best}) == {"a": best}
    assert weights_of({"format": "pt"}, held) == held == weights_of({}, held)


@pytest.mark.parametrize(("net", "weights", "data"), [
    ("own_nets:make", torch.float32, (2, 2)), ("own_nets:make", torch.float16, (4,)),
    ("own_nets:double", torch.float64, (2, 2))])
def test_a_module_takes_weights_and_its_shape_from_the_data(folder, run, net, weights, data):
    (folder / "own_nets.py").write_text(OWN)
    torch.manual_seed(1)
    layer = nn.Linear(4, 3).to(weights)
    save_file({f"1.{name}": value for name, value in layer.state_dict().items()}, "own.safetensors")
    x = torch.rand(2, *data)
    np.save("own.npy", x.numpy())
    lower, upper = bounds_of(run, net, "--weights", "own.safetensors", "--data", "own.npy", "--eps", "0.001")
    y = layer.double()(x.double().flatten(1)).detach()
    assert (lower < y).all() and (y < upper).all() and (upper - lower < 0.01).all()
    for verb in (("verify",), ("attack", "--steps", "1")):
        done = run(*verb, net, "--weights", "own.safetensors", "--data", "own.npy", "--eps", "0", "--label", int(y[0].argmax()))
        assert done.exit_code in (0, 10, 20), done.output
    assert run("radius", net, "--weights", "own.safetensors", "--data", "own.npy", "--no-attack").exit_code == 0


def test_a_zoo_network_keeps_its_own_shape_where_the_data_fit(folder, run):
    np.savez("flat.npz", x=np.zeros((1, 784), np.uint8))
    lower, upper = bounds_of(run, "mlp-b", "--data", "flat.npz", "--eps", "0")
    torch.manual_seed(0)
    y = zoo.build("mlp-b").eval()(torch.zeros(1, 1, 28, 28))
    assert torch.allclose(lower, y, atol=1e-5) and torch.allclose(upper, y, atol=1e-5)


def test_a_file_called_like_a_network_of_the_zoo_is_that_file(folder, run):
    (folder / "net.onnx").rename("mlp-b")
    assert "relu" in run("show", "mlp-b").stdout and "784" not in run("show", "mlp-b").stdout


def test_help_says_that_a_module_is_run(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    for verb in ("certify", "verify", "bound", "show", "radius", "attack"):
        assert "runs its code" in " ".join(run(verb, "--help").stdout.split())
