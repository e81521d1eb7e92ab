"""A network behind a normalisation is the network of normalised inputs, for its own runtime too."""

import numpy as np
import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.capture.normalised import Normalisation, Normalised, normalised_onnx
from boundlab.errors import BoundlabError

CASES = {"first": ((3, 4, 5), (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)), "last": ((4, 5, 3), (0.1, 0.2, 0.3), (2.0,)),
         "one": ((6,), (0.5,), (0.3081,)), "each": ((2,), (0.5, -1.0), (1.0, 3.0))}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_network_of_normalised_inputs(name, dtype, tmp_path):
    shape, mean, std = CASES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 4), nn.ReLU(), nn.Linear(4, 3)).to(dtype)
        x = torch.rand(2, *shape, dtype=dtype)
    spread = (3, 1, 1) if name == "first" else (-1,)
    wanted = net((x - torch.tensor(mean, dtype=dtype).reshape(spread)) / torch.tensor(std, dtype=dtype).reshape(
        spread if len(std) > 1 else (-1,))).detach()
    plain = bl.capture(net, x).detached()
    bl.save_onnx(plain, tmp_path / "net.onnx")
    normalisation = Normalisation(mean, std)
    (tmp_path / "normalised.onnx").write_bytes(normalised_onnx(tmp_path / "net.onnx", normalisation))
    file = bl.load_original(tmp_path / "normalised.onnx")
    (given,) = file.model.graph.inputs
    close = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-6}
    for found in (bl.evaluate(file.model, x), torch.cat([file.replay({given.name: one[None]}) for one in x]),
                  Normalised(net, normalisation, shape)(x).detach()):
        assert torch.allclose(found, wanted, **close)


@pytest.mark.parametrize(("mean", "std", "words"), [
    ((), (1.0,), "finite means"), ((0.0,), (0.0,), "above 0"), ((float("nan"),), (1.0,), "finite means"),
    ((0.0, 0.0), (1.0,), "2 channels does not fit inputs of shape"),
])
def test_what_does_not_fit_is_a_sentence(mean, std, words):
    with pytest.raises(BoundlabError, match=words):
        Normalised(nn.Identity(), Normalisation(mean, std), (3, 4, 5))
