"""Functions of torch: captured as they are, bounded soundly by every method, and recognised where a network spells them out."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import boundlab as bl

torch.manual_seed(0)


def turned(x):
    """The two halves, swapped."""
    return torch.cat([x[:, 2:], x[:, :2]], 1)


def halves(x):
    """The four numbers as a matrix."""
    return x.unflatten(1, (2, 2))


class Net(nn.Module):
    """A linear layer, so that intervals meet zero, before a function."""

    def __init__(self, function, positive=False):
        super().__init__()
        self.linear, self.function, self.positive = nn.Linear(4, 4), function, positive

    def forward(self, x):
        x = self.linear(x)
        return self.function(x.square() + 0.5 if self.positive else x)


EXPONENTS = torch.tensor([2.0, 2.0, 2.0, 2.0], dtype=torch.float64)
SEVERAL = torch.tensor([1.5, 2.0, 0.5, -1.0], dtype=torch.float64)
PLACES = torch.tensor([[0, 2, 2, 1]])
THIRD = torch.tensor(0.3, dtype=torch.float64)
REAL = {
    "elu": F.elu, "elu 2": lambda x: F.elu(x, 2.0), "selu": F.selu, "celu": lambda x: F.celu(x, 1.7), "mish": F.mish,
    "silu": F.silu, "gelu": F.gelu, "gelu tanh": lambda x: F.gelu(x, approximate="tanh"), "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish, "hardtanh": F.hardtanh, "relu6": F.relu6, "softsign": F.softsign, "softshrink": F.softshrink,
    "hardshrink": F.hardshrink, "tanhshrink": F.tanhshrink, "logsigmoid": F.logsigmoid,
    "threshold": lambda x: F.threshold(x, 0.2, -0.3), "softplus": F.softplus,
    "softplus beta": lambda x: F.softplus(x, 3.0, 1.0), "rrelu": lambda x: F.rrelu(x), "leaky_relu": F.leaky_relu,
    "erf": torch.erf, "erfc": torch.erfc, "ndtr": torch.special.ndtr, "sin": torch.sin, "cos": torch.cos,
    "tan": lambda x: torch.tan(x.tanh()), "sec": lambda x: 1 / torch.cos(x.tanh()), "atan": torch.atan,
    "asin": lambda x: torch.asin(x.tanh() * 0.9), "acos": lambda x: torch.acos(x.tanh() * 0.9), "sinh": torch.sinh,
    "cosh": torch.cosh, "asinh": torch.asinh, "atanh": lambda x: torch.atanh(x.tanh() * 0.9), "sign": torch.sign,
    "sgn": torch.sgn, "heaviside": lambda x: torch.heaviside(x.detach(), THIRD), "floor": lambda x: torch.floor(3 * x),
    "ceil": lambda x: torch.ceil(3 * x), "round": lambda x: torch.round(3 * x),
    "decimals": lambda x: torch.round(x, decimals=1), "trunc": lambda x: torch.trunc(3 * x),
    "frac": lambda x: torch.frac(3 * x), "fmod": lambda x: torch.fmod(x, 0.7), "remainder": lambda x: torch.remainder(x, 0.7),
    "floor divide": lambda x: x.detach() // 0.3, "exp2": torch.exp2, "expm1": torch.expm1,
    "divide mode": lambda x: torch.div(x, 0.3, rounding_mode="trunc"), "cube": lambda x: x ** 3, "fourth": lambda x: x ** 4,
    "zeroth": lambda x: x ** 0, "power tensor": lambda x: x ** EXPONENTS, "base": lambda x: 2.0 ** x,
    "maximum": lambda x: torch.maximum(x, turned(x)), "max number": lambda x: torch.maximum(x, THIRD),
    "min number": lambda x: torch.minimum(x, THIRD), "minimum": lambda x: torch.minimum(x, 0.2 - x),
    "amax": lambda x: x.amax(1), "amin": lambda x: x.amin(1, keepdim=True), "min dim": lambda x: x.min(1)[0],
    "aminmax": lambda x: torch.aminmax(x, dim=1)[1], "clamp tensors": lambda x: torch.clamp(x, -EXPONENTS / 9, EXPONENTS / 9),
    "clamp by input": lambda x: torch.clamp(x, min=-turned(x)), "where constant": lambda x: torch.where(EXPONENTS > 3, x, -x),
    "where": lambda x: torch.where(x > 0, x, x.square()), "where two": lambda x: torch.where(x >= turned(x), x, 1.0),
    "where and": lambda x: torch.where((x > -0.3) & (x < 0.4), x, 2 * x),
    "where or not": lambda x: torch.where( torch.logical_or(~(x > 0.1), x > 0.5), x, 0.0),
    "masked fill": lambda x: x.masked_fill(x < 0.1, -1.0), "mask": lambda x: x * (x > 0),
    "mask float": lambda x: (x <= 0.2).float() - x, "norm 1": lambda x: x.norm(1, dim=1), "norm 2": lambda x: x.norm(dim=1),
    "norm inf": lambda x: x.norm(math.inf, dim=1), "norm 3": lambda x: x.norm(3, dim=1),
    "norm of all": lambda x: torch.linalg.vector_norm(x.unflatten(1, (2, 2)), dim=(1, 2)), "softmax": lambda x: x.softmax(1),
    "logsumexp": lambda x: x.logsumexp(1), "logsumexp two": lambda x: x.unflatten(1, (2, 2)).logsumexp((1, 2)),
    "log_softmax": lambda x: x.log_softmax(1), "logaddexp": lambda x: torch.logaddexp(x, turned(x)),
    "softmin": lambda x: F.softmin(x, 1), "var_mean": lambda x: torch.stack(torch.var_mean(x, 1), 1),
    "var_mean, all": lambda x: torch.stack(torch.var_mean(x.unflatten(1, (2, 2)), (1, 2), correction=0), 1),
    "std_mean": lambda x: torch.cat(torch.std_mean(x, 1, keepdim=True), 1), "degrees": torch.rad2deg, "radians": torch.deg2rad,
    "cross": lambda x: torch.linalg.cross(x[:, :3], x[:, 1:]), "matrix norm": lambda x: halves(x).norm(dim=(1, 2)),
    "frobenius": lambda x: torch.linalg.matrix_norm(halves(x)), "spread": lambda x: torch.linalg.matrix_norm(halves(x), 1),
    "inner": lambda x: torch.inner(x, EXPONENTS), "trapezoid": lambda x: torch.trapezoid(x, dim=1),
    "l1 loss": lambda x: F.l1_loss(x, EXPONENTS.expand_as(x), reduction="none"),
    "huber loss": lambda x: F.huber_loss(x, x.new_full((4,), 0.9).expand_as(x), reduction="none"),
    "scatter_add": lambda x: x.new_zeros(x.shape[0], 3).scatter_add(1, PLACES.expand(x.shape[0], -1), x),
    "scatter_add, two axes": lambda x: halves(x).scatter_add(2, PLACES.view(1, 2, 2).expand(x.shape[0], -1, -1) % 2, halves(x)),
}
POSITIVE = {
    "log": torch.log, "log2": torch.log2, "log10": torch.log10, "log1p": torch.log1p, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal, "power 1.5": lambda x: x ** 1.5, "power -2": lambda x: x ** -2,
    "power -0.3": lambda x: x ** -0.3, "powers": lambda x: x ** SEVERAL, "power of itself": lambda x: x ** x,
    "acosh": lambda x: torch.acosh(x + 1), "logit": lambda x: torch.logit(1 / (1 + x)), "xlogy": lambda x: torch.xlogy(x, x),
}
NETS = {**{name: Net(function) for name, function in REAL.items()},
        **{name: Net(function, positive=True) for name, function in POSITIVE.items()}}


@pytest.mark.parametrize("name", NETS)
def test_functions_are_captured_and_bounded(name):
    torch.manual_seed(1)
    net = NETS[name].double()
    x = torch.randn(3, 4, dtype=torch.float64)
    model = bl.capture(net, x).detached()
    box = bl.Box(x - 0.4, x + 0.4)
    points = box.sample(300, torch.Generator().manual_seed(0))
    values = torch.stack([net(point) for point in points])
    for method in (bl.IBP(), bl.CROWN(), bl.Forward()):
        found = bl.bound(model, box, method=method)
        assert (values >= found.lower - 1e-9).all() and (values <= found.upper + 1e-9).all()


def swish(x):
    return x * torch.sigmoid(1.5 * x)


def written_gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def fast_gelu(x):
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


SPELLED = {
    "silu": lambda x: x * torch.sigmoid(x), "silu scaled": swish, "silu outside": lambda x: torch.sigmoid(x) * x * 0.5,
    "gelu": written_gelu, "gelu otherwise": lambda x: x * 0.5 * (1 + torch.erf(x * 0.5 ** 0.5)), "tanh_gelu": fast_gelu,
    "mish": lambda x: x * torch.tanh(F.softplus(x)), "softsign": F.softsign, "tanhshrink": F.tanhshrink,
    "hard_shrink": F.hardshrink, "soft_shrink": F.softshrink, "rsqrt": lambda x: 1 / torch.sqrt(x.square() + 1),
    "sec": lambda x: 1 / torch.cos(0.1 * x), "relu": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.1 * x), "clip": lambda x: torch.maximum(x, torch.full_like(x, 0.3)),
}


@pytest.mark.parametrize("name", SPELLED)
def test_functions_that_are_spelled_out_become_one_operator(name):
    model = bl.capture(Net(SPELLED[name]).double(), torch.randn(2, 4, dtype=torch.float64))
    assert name.split()[0] in [node.op for node in model.graph]


LOOKALIKES = {
    "another gate": lambda x: x * torch.sigmoid(turned(x)), "another constant": lambda x: x * (1.5 + torch.erf(x)),
    "another cube": lambda x: x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.05 * x ** 3))),
    "another shift": lambda x: x / (2 + x.abs()),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_lookalikes_stay_what_they_are(name):
    model = bl.capture(Net(LOOKALIKES[name]).double(), torch.randn(2, 4, dtype=torch.float64))
    assert not {"silu", "gelu", "tanh_gelu", "softsign"} & {node.op for node in model.graph}


REFUSED = {
    "equal": (lambda x: torch.where(x == 0, 1.0, x), "eq"), "random": (lambda x: F.rrelu(x, training=True), "training"),
    "negative alpha": (lambda x: F.elu(x, -1.0), "alpha"),
    "many at zero": (lambda x: torch.heaviside(x, EXPONENTS * x), "zero"), "norm": (lambda x: x.norm(0.5, dim=1), "order 0.5"),
    "batch": (lambda x: x - x.max(), "batch"), "base": (lambda x: (-2.0) ** x, "positive"),
    "divisor": (lambda x: torch.remainder(x, 0.0), "divisor"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_functions_that_have_no_bounds_are_refused_in_words(name):
    function, words = REFUSED[name]
    with pytest.raises(bl.BoundlabError, match=words):
        bl.capture(Net(function), torch.randn(2, 4))


OUTSIDE = {
    "power": lambda x: x ** 1.5, "pole": lambda x: x ** -1, "log": torch.log, "acosh": torch.acosh, "asin": torch.asin,
    "tan": torch.tan, "sec": lambda x: 1 / torch.cos(x), "division": lambda x: 1 / x,
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_outside_the_domain_the_error_names_the_node(name):
    inside = 1.5 if name == "acosh" else 0.5
    shifted = nn.Sequential(nn.Identity(), Plain(OUTSIDE[name])).double()
    example = torch.full((2, 4), inside, dtype=torch.float64)
    model = bl.capture(shifted, example)
    with pytest.raises(bl.BoundError, match="NaN or infinite"):
        bl.bound(model, bl.Box(example - 9, example + 9), method=bl.IBP())


class Plain(nn.Module):
    """A function and nothing else."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)
