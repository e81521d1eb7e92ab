"""Capture of PyTorch modules: the graph is the module, at any batch size, with its gradients; the rest is refused in words."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from boundlab import CaptureError, UnsupportedOperator, capture, evaluate


class Function(nn.Module):
    """A plain function with a linear layer of its own, so that there is a parameter to check gradients of."""

    def __init__(self, function, width=4):
        super().__init__()
        self.linear, self.function = nn.Linear(width, width), function

    def forward(self, x):
        return self.function(self.linear(x))


class TiedWeights(nn.Module):
    """One parameter in two places, and a buffer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.register_buffer("shift", torch.arange(4.0))

    def forward(self, x):
        return F.linear(F.linear(x, self.weight), self.weight) + self.shift


class Attention(nn.Module):
    """Two heads, written out."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 12), nn.Linear(4, 4)

    def forward(self, x):
        query, key, value = (part.unflatten(-1, (2, 2)).transpose(1, 2) for part in self.inner(x).chunk(3, -1))
        weights = torch.softmax(query @ key.transpose(-1, -2) / math.sqrt(2), -1)
        return self.outer((weights @ value).transpose(1, 2).flatten(2))


class TwoInputs(nn.Module):
    """Two inputs that meet."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, x, y):
        return torch.relu(self.first(x)) * self.second(y)


def chain(*layers):
    return nn.Sequential(*layers)


VECTOR, IMAGE, TOKENS = (4,), (2, 6, 6), (3, 4)
ZOO = {
    "mlp": (chain(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), VECTOR),
    "no bias": (chain(nn.Linear(4, 8, bias=False), nn.LeakyReLU(0.1), nn.Linear(8, 3, bias=False)), VECTOR),
    "smooth": (chain(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Tanh()), VECTOR),
    "tied weights": (TiedWeights(), VECTOR),
    "arithmetic": (Function(lambda x: 2 - 3 * x + x / 2 - (x - 1) * x), VECTOR),
    "broadcast": (Function(lambda x: x - x.mean(-1, keepdim=True) + x[:, :1]), VECTOR),
    "slices and stacks": (Function(lambda x: torch.stack([x[:, 1:3], x[:, ::2]], 1).flatten(1)), VECTOR),
    "halves": (Function(lambda x: torch.cat([part * 2 for part in x.chunk(2, 1)][::-1], 1)), VECTOR),
    "dropout in eval": (chain(nn.Linear(4, 4), nn.Dropout(0.5), nn.ReLU()), VECTOR),
    "convolutions": (chain(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2, padding="same"),
                           nn.Flatten(), nn.Linear(36, 3)), IMAGE),
    "batch norm": (chain(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU()), IMAGE),
    "pooling": (chain(nn.Conv2d(2, 3, 1), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()), IMAGE),
    "max pooling": (chain(nn.Conv2d(2, 3, 1), nn.MaxPool2d(3, 2, 1), nn.Flatten()), IMAGE),
    "transposed convolution": (chain(nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(3, 2, 3, 2, padding=1, output_padding=1)), IMAGE),
    "padding": (chain(nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(2, 2, 3)), IMAGE),
    "conv1d": (chain(nn.Conv1d(3, 5, 3, padding=1), nn.ReLU(), nn.Flatten()), TOKENS),
    "attention": (Attention(), TOKENS),
    "layer norm": (chain(nn.Linear(4, 4), nn.LayerNorm(4), nn.ReLU()), TOKENS),
    "softmax": (chain(nn.Linear(4, 5), nn.Softmax(-1)), VECTOR),
    "clipping": (Function(lambda x: F.hardtanh(x) + x.clamp(-0.5, 0.2) + F.relu6(x)), VECTOR),
    "exp and log": (Function(lambda x: torch.log(1 + torch.exp(x)) + torch.sqrt(x * x + 1)), VECTOR),
    "maximum": (Function(lambda x: torch.maximum(x, 0.5 - x) + x.abs()), VECTOR),
    "einsum": (Function(lambda x: torch.einsum("bij,bkj->bik", x, x)), TOKENS),
}


def prepared(module):
    """The module in double precision and eval mode, with statistics as after some training."""
    module = module.double().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-1, 1)
            layer.running_var.uniform_(0.5, 2)
    return module


def example(shape, batch):
    return torch.randn((batch, *shape), generator=torch.Generator().manual_seed(batch), dtype=torch.float64)


@pytest.mark.parametrize("name", ZOO)
def test_the_graph_is_the_module(name):
    """Equal at batch sizes 1, 2 and 5, in value and in the gradient of every parameter; the parameters are the module's own."""
    module, shape = ZOO[name]
    module = prepared(module)
    model = capture(module, example(shape, 2))
    for batch in (1, 2, 5):
        x = example(shape, batch)
        expected, found = module(x), evaluate(model, x)
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parameters = list(module.parameters())
    first = torch.autograd.grad((expected * weights).sum(), parameters)
    second = torch.autograd.grad((found * weights).sum(), parameters)
    for one, other in zip(first, second, strict=True):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-10)
    kept = {id(tensor) for tensor in model.params.values()}
    assert all(id(parameter) in kept for parameter in parameters)


def test_two_inputs():
    module = TwoInputs().double()
    model = capture(module, example((4,), 2), example((2,), 2))
    names = [node.name for node in model.graph.inputs]
    for batch in (1, 5):
        x, y = example((4,), batch), example((2,), batch)
        assert torch.allclose(evaluate(model, dict(zip(names, (x, y), strict=True))), module(x, y), rtol=1e-10)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_any_example_batch_gives_the_same_graph(batch):
    module = prepared(ZOO["mlp"][0])
    model = capture(module, example(VECTOR, batch))
    assert [node.op for node in model.graph] == [node.op for node in capture(module, example(VECTOR, 3)).graph]


def test_single_precision_stays_single():
    model = capture(chain(nn.Linear(4, 2), nn.ReLU()), torch.zeros(1, 4))
    assert evaluate(model, torch.ones(2, 4)).dtype == torch.float32


class Strange(nn.Module):
    """Uses an operator that nobody declares."""

    def forward(self, x):
        return torch.special.i0(x)


def test_an_unknown_operator_is_named_with_its_line():
    with pytest.raises(UnsupportedOperator) as found:
        capture(Strange(), torch.zeros(2, 4))
    line = next(number for number, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "special.i0(x)" in text)
    assert "special_i0" in str(found.value) and f"{Path(__file__).name}:{line}" in str(found.value)


MIXING = {
    "centred over the batch": lambda x: x - x.mean(0),
    "centred over everything": lambda x: x - x.mean(),
    "total": lambda x: x + x.sum(),
    "gram matrix": lambda x: x @ x.transpose(0, 1) @ x,
    "reversed batch": lambda x: x.flip(0) + x,
    "first example": lambda x: x - x[0],
    "every other example": lambda x: x[::2],
    "softmax over the batch": lambda x: torch.softmax(x, 0),
    "concatenated along the batch": lambda x: torch.cat([x, x], 0),
    "rolled": lambda x: torch.roll(x, 1, 0),
    "cumulated": lambda x: torch.cumsum(x, 0),
    "batch in the features": lambda x: x.reshape(-1, 2),
    "transposed": lambda x: x.transpose(0, 1) @ x,
}


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("batch", [1, 2])
def test_modules_that_mix_examples_are_refused(name, batch):
    """Whatever the example looks like, even if its batch holds one example."""
    with pytest.raises((CaptureError, UnsupportedOperator)):
        capture(Function(MIXING[name]).double(), example(VECTOR, batch))


def test_training_mode_is_refused_where_it_matters():
    for layer in (nn.Dropout(0.5), nn.BatchNorm1d(4)):
        with pytest.raises((CaptureError, UnsupportedOperator)):
            capture(chain(nn.Linear(4, 4), layer).train(), torch.randn(4, 4))


class Branch(nn.Module):
    """Decides by a value."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_a_branch_on_values_is_refused():
    with pytest.raises(CaptureError, match="Branch"):
        capture(Branch(), torch.zeros(2, 4))


def test_capture_needs_a_batch_axis():
    with pytest.raises(CaptureError, match="batch"):
        capture(nn.Identity(), torch.tensor(1.0))
