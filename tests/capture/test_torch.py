"""Modules of torch become graphs that compute the same, keep their gradients, and whose bounds hold."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import boundlab as bl
from boundlab.errors import BoundlabError, CaptureError, UnsupportedOperator
from boundlab.evaluate import evaluate

VECTOR, IMAGE, TOKENS = (2, 6), (2, 4, 9, 9), (2, 5, 8)
HEADS = (2, 3, 5, 8)


class Apply(nn.Module):
    """A function of (module, x); keyword tensors become parameters (buffers where they are not floating)."""

    def __init__(self, function, **tensors):
        super().__init__()
        self.function = function
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and bool(torch.isfinite(tensor).all()):
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)

    def forward(self, x):
        return self.function(self, x)


class First(nn.Module):
    """The first result of a module."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)[0]


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


def normal(*shape):
    return torch.randn(*shape)


LOWER = torch.ones(5, 5).tril().bool()
MINUS = torch.zeros(5, 5).masked_fill(~LOWER, -math.inf)


def powers(module, x):
    return x**2 + x**3 + (x.abs() + 1)**1.5 + (x * x + 1)**-2 + (x**2 + 1)**-0.5 + 1 / (x.abs() + 1) + x**4 + 2**x


def roots(module, x):
    return torch.sqrt(x * x + 1) + torch.rsqrt(x.square() + 1) + torch.log(x.exp() + 1) + x / torch.sqrt(x.abs() + 1)


def two_values(module, x):
    return torch.maximum(x, module.w) + torch.minimum(x, -x) + torch.max(x, 2 * x)


def axes(module, x):
    return x.amax((1, 2), keepdim=True) + x.amin(-1, True) + x.max(1, True)[0]


def masked(module, x):
    return (x @ x.transpose(1, 2)).masked_fill(~module.m, -math.inf).softmax(-1)


def causal(module, x):
    return F.scaled_dot_product_attention(x, x, x, is_causal=True)


def by_mask(module, x):
    return F.scaled_dot_product_attention(x, x, x, attn_mask=module.m)


def padded(module, x):
    return torch.cat([torch.zeros(x.shape[0], 2), x], 1) + x.new_ones(x.shape[0], 8)


ZOO = {
    "product": (lambda: Apply(lambda m, x: x @ m.w, w=normal(6, 3)), VECTOR),
    "product of tokens": (lambda: Apply(lambda m, x: x @ m.w, w=normal(8, 3)), TOKENS),
    "constant on the left": (lambda: Apply(lambda m, x: m.w @ x, w=normal(4, 5)), TOKENS),
    "times a vector": (lambda: Apply(lambda m, x: x @ m.w, w=normal(8)), TOKENS),
    "addmm": (lambda: Apply(lambda m, x: torch.addmm(m.b, x, m.w, beta=.5, alpha=2), w=normal(6, 3), b=normal(3)), VECTOR),
    "bmm": (lambda: Apply(lambda m, x: torch.bmm(x, x.transpose(1, 2))), TOKENS),
    "baddbmm": (lambda: Apply(lambda m, x: torch.baddbmm(m.b, x, x.transpose(1, 2)), b=normal(1, 5, 5)), TOKENS),
    "einsum": (lambda: Apply(lambda m, x: torch.einsum("bij,kj->bik", x, m.w), w=normal(3, 8)), TOKENS),
    "batch norms": (lambda: nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(245, 4),
                                          nn.BatchNorm1d(4)), IMAGE),
    "batch norm first": (lambda: nn.BatchNorm2d(4), IMAGE),
    "batch norm over tokens": (lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(5)), TOKENS),
    "max pool": (lambda: nn.MaxPool2d(2), IMAGE),
    "max pool, padded": (lambda: nn.MaxPool2d(3, 2, 1), IMAGE),
    "max pool, ceil": (lambda: nn.MaxPool2d(2, ceil_mode=True), IMAGE),
    "max pool, dilated": (lambda: nn.MaxPool2d(2, 1, dilation=2), IMAGE),
    "max pool 1d": (lambda: nn.MaxPool1d(3, 2, 1), TOKENS),
    "adaptive max pool": (lambda: nn.AdaptiveMaxPool2d(3), IMAGE),
    "average pool": (lambda: nn.AvgPool2d(2), IMAGE),
    "layer norm": (lambda: nn.LayerNorm((5, 8)), TOKENS),
    "group norm": (lambda: nn.GroupNorm(2, 4), IMAGE),
    "instance norm": (lambda: nn.InstanceNorm2d(4, affine=True), IMAGE),
    "instance norm, tracked": (lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True), IMAGE),
    "rms norm": (lambda: nn.RMSNorm(8), TOKENS),
    "standard deviation": (lambda: Apply(lambda m, x: x.std(-1) + x.var(-1, unbiased=False)), TOKENS),
    "normalize": (lambda: Apply(lambda m, x: F.normalize(x, dim=-1)), TOKENS),
    "clamp": (lambda: Apply(lambda m, x: x.clamp(-.5, .7) + x.clamp(min=.1) + torch.clamp(x, max=.2) + F.hardtanh(x)), VECTOR),
    "clamp by tensors": (lambda: Apply(lambda m, x: torch.clamp(x, m.low, m.low + 1), low=normal(6)), VECTOR),
    "kinks": (lambda: nn.Sequential(nn.LeakyReLU(.2), nn.ReLU6(), nn.PReLU(4)), IMAGE),
    "powers": (lambda: Apply(powers), VECTOR),
    "roots": (lambda: Apply(roots), VECTOR),
    "extremes": (lambda: Apply(two_values, w=normal(6)), VECTOR),
    "extremes over axes": (lambda: Apply(axes), TOKENS),
    "softmax": (lambda: Apply(lambda m, x: x.softmax(1) + x.log_softmax(-1) + x.logsumexp(-1, True)), TOKENS),
    "gates": (lambda: nn.Sequential(nn.SiLU(), nn.GELU(), nn.ELU(.5), nn.SELU(), nn.Hardswish(), nn.GLU()), TOKENS),
    "softplus": (lambda: nn.Sequential(nn.Softplus(2), nn.LogSigmoid()), VECTOR),
    "attention": (lambda: Apply(lambda m, x: F.scaled_dot_product_attention(x, x * 2, x + 1)), HEADS),
    "causal attention": (lambda: Apply(causal), HEADS),
    "masked attention": (lambda: Apply(by_mask, m=LOWER), HEADS),
    "masked scores": (lambda: Apply(masked, m=LOWER), TOKENS),
    "added mask": (lambda: Apply(lambda m, x: (x @ x.transpose(1, 2) + m.m).softmax(-1), m=MINUS), TOKENS),
    "where": (lambda: Apply(lambda m, x: torch.where(torch.arange(6) > 2, x, 0.)), VECTOR),
    "multi-head attention": (SelfAttention, TOKENS),
    "encoder layer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0., batch_first=True, norm_first=True), TOKENS),
    "lstm": (lambda: First(nn.LSTM(8, 4, batch_first=True)), TOKENS),
    "gru": (lambda: First(nn.GRU(8, 4, batch_first=True)), TOKENS),
    "class token": (lambda: Apply(lambda m, x: torch.cat([m.c.expand(x.shape[0], -1, -1), x + m.p], 1),
                                  c=normal(1, 1, 8), p=normal(1, 5, 8)), TOKENS),
    "zeros of the batch": (lambda: Apply(padded), VECTOR),
    "embedded positions": (lambda: Apply(lambda m, x: x + F.embedding(torch.arange(5), m.w), w=normal(5, 8)), TOKENS),
    "divided": (lambda: Apply(lambda m, x: x / m.w / 3, w=normal(6)), VECTOR),
    "weight of norm one": (lambda: Apply(lambda m, x: F.linear(x, m.w / m.w.norm()), w=normal(3, 6)), VECTOR),
}


@pytest.fixture(params=ZOO)
def captured(request):
    """A module with random parameters, its graph, and an input of two examples."""
    torch.manual_seed(0)
    make, shape = ZOO[request.param]
    module = make().eval()
    for tensor in module.parameters():
        tensor.data = tensor.data + .1 * torch.randn_like(tensor)
    for name, buffer in module.named_buffers():
        if "running_" in name:
            buffer.copy_(torch.rand_like(buffer) + .5)
    x = torch.randn(shape)
    return module, bl.capture(module, x), x


def test_graph_and_module_agree_on_a_batch_of_another_size(captured):
    module, model, x = captured
    more = torch.cat([x, x + .3, -x])[:5]
    torch.testing.assert_close(evaluate(model, more), module(more), atol=1e-5, rtol=1e-4)


def test_sampled_outputs_lie_inside_the_bounds(captured):
    module, model, x = captured
    model, eps = model.detached(), .02
    noise = torch.rand(20, *x.shape) * 2 - 1
    with torch.no_grad():
        points = [x + eps * step for step in (*noise[:10], *noise[10:].sign())]
        values = torch.stack([module(point) for point in points])
    for method in (bl.IBP(), bl.CROWN(intermediate=bl.IBP()), bl.Forward()):
        found = bl.bound(model, bl.Box(x - eps, x + eps), method=method)
        slack = 1e-5 * (1 + values.abs().amax(0) + (found.upper - found.lower))
        assert (found.lower <= values + slack).all() and (values <= found.upper + slack).all(), method


def varying(model):
    """Names of the operators that see the input."""
    reached = {node.index for node in model.graph.inputs}
    found = []
    for node in model.graph:
        if any(arg in reached for arg in node.args):
            reached.add(node.index)
            found.append(node.op)
    return found


def test_batch_norm_joins_the_layer_before_it():
    make, shape = ZOO["batch norms"]
    assert varying(bl.capture(make().eval(), torch.randn(shape))) == ["conv", "relu", "reshape", "linear"]


def test_batch_norm_stays_apart_where_the_convolution_has_another_reader():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)

        def forward(self, x):
            y = self.conv(x)
            return y + self.norm(y)

    assert varying(bl.capture(Two().eval(), torch.randn(IMAGE))).count("conv") == 1


def test_gradients_of_bounds_reach_a_folded_batch_norm():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU()).eval()
    x = torch.randn(IMAGE)
    bl.bound(bl.capture(module, x), bl.Box(x - .1, x + .1), method=bl.IBP()).upper.sum().backward()
    assert all(bool(tensor.grad.abs().sum() > 0) for tensor in module.parameters())


def test_one_over_a_root_is_one_operator():
    model = bl.capture(Apply(lambda m, x: x / torch.sqrt(x.square() + 1)), torch.randn(VECTOR))
    assert "rsqrt" in varying(model) and "reciprocal" not in varying(model)


MIXING = {
    "along the batch": lambda m, x: x - x.mean(0, keepdim=True),
    "reshape across it": lambda m, x: x.reshape(x.shape[1], x.shape[0]),
    "product along it": lambda m, x: x @ x.t(),
}


@pytest.mark.parametrize("name", MIXING)
def test_mixing_examples_is_refused(name):
    with pytest.raises(BoundlabError, match=r"mix|batch"):
        bl.capture(Apply(MIXING[name]), torch.randn(VECTOR))


def test_a_choice_by_equality_is_refused():
    with pytest.raises(UnsupportedOperator, match=r"aten\.eq"):
        bl.capture(Apply(lambda m, x: torch.where(x == 0, x, x.square())), torch.randn(VECTOR))


def test_dropout_and_batch_norm_in_training_mode_are_refused():
    for module in (nn.Sequential(nn.Linear(6, 6), nn.Dropout(.5)), nn.BatchNorm1d(6)):
        with pytest.raises((UnsupportedOperator, CaptureError)):
            bl.capture(module.train(), torch.randn(VECTOR))


def test_a_root_of_a_negative_number_is_an_error_that_names_the_node():
    model = bl.capture(Apply(lambda m, x: torch.log(x)), torch.rand(VECTOR) + 1)
    box = bl.Box(torch.zeros(VECTOR) - 1, torch.ones(VECTOR))
    with pytest.raises(BoundlabError, match="log"):
        bl.bound(model, box, method=bl.IBP())
