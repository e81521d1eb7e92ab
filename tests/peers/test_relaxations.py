"""Mean gaps of relaxations beside auto_LiRPA's, where it is installed: ours are no wider on any interval.

Run it where both can be imported; it prints the table: pytest tests/peers/test_relaxations.py -m slow
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boundlab.affine import LinearBound, lines
from boundlab.interval import Interval
from boundlab.ops import lookup
from boundlab.testing.cases import Case, Vary
from boundlab.testing.tightness import gap, sampled_boxes

pytestmark = pytest.mark.slow
POSITIVE, COUNT = Vary(low=0.05), 200


@dataclasses.dataclass(frozen=True)
class Pair:
    """Our operator and the torch function that auto_LiRPA bounds."""

    op: str
    function: Callable[[Tensor], Tensor]
    case: Case = dataclasses.field(default_factory=Case)


def tanh_slope(x: Tensor) -> Tensor:
    """Their operator for the slope of tanh, which only Jacobians reach."""
    return importlib.import_module("auto_LiRPA.operators.s_shaped").TanhGradOp.apply(x)


PAIRS = (
    Pair("relu", torch.relu), Pair("leaky_relu", F.leaky_relu), Pair("abs", torch.abs),
    Pair("clip", lambda x: torch.clamp(x, -1.0, 1.5), Case(attributes={"min": -1.0, "max": 1.5})),
    Pair("sigmoid", torch.sigmoid), Pair("tanh", torch.tanh), Pair("atan", torch.atan), Pair("gelu", F.gelu),
    Pair("tanh_gelu", lambda x: F.gelu(x, approximate="tanh")), Pair("silu", F.silu), Pair("softsign", F.softsign),
    Pair("log_sigmoid", F.logsigmoid), Pair("tanhshrink", F.tanhshrink), Pair("sin", torch.sin), Pair("cos", torch.cos),
    Pair("tan", torch.tan, Case((Vary(low=-1.4, high=1.4),))), Pair("sign", torch.sign),
    Pair("heaviside", lambda x: torch.heaviside(x, torch.zeros(1))), Pair("floor", torch.floor), Pair("tanh_grad", tanh_slope),
    Pair("exp", torch.exp), Pair("square", lambda x: x ** 2), Pair("pow", lambda x: x ** 3, Case(attributes={"exponent": 3.0})),
    Pair("log", torch.log, Case((POSITIVE,))), Pair("sqrt", torch.sqrt, Case((POSITIVE,))),
    Pair("reciprocal", lambda x: 1 / x, Case((POSITIVE,))),
    Pair("pow", lambda x: x ** 1.5, Case((POSITIVE,), {"exponent": 1.5})),
)


class Net(nn.Module):
    """A function alone."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.fixture(scope="module")
def peer():
    """auto_LiRPA with what its capture needs of recent torch, or a skip that says why."""
    reason = "auto_LiRPA is not installed beside boundlab; it is no dependency"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("auto_LiRPA", reason=reason)
        for version in range(7, 21):
            importlib.import_module(f"torch.onnx._internal.torchscript_exporter.symbolic_opset{version}")
    return module


def their_lines(peer, function: Callable[[Tensor], Tensor], x: Interval) -> LinearBound:
    """Slopes and intercepts that auto_LiRPA gives by default on intervals (1, n)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = peer.BoundedModule(Net(function), x.center.float(), device="cpu", verbose=0)
        set_ = peer.PerturbationLpNorm(norm=float("inf"), x_L=x.lower.float(), x_U=x.upper.float())
        needed = defaultdict(set)
        needed[net.output_name[0]].add(net.input_name[0])
        *_, found = net.compute_bounds(x=(peer.BoundedTensor(x.center.float(), set_),), method="backward", return_A=True,
                                       needed_A_dict=needed)
    rows = found[net.output_name[0]][net.input_name[0]]
    sides = [(torch.diagonal(rows[f"{side}A"], dim1=1, dim2=2).double()[:, None], rows[f"{side}bias"].double()[:, None])
             for side in ("l", "u")]
    return lines(*sides)


def cuts(bound: LinearBound, points: Tensor, values: Tensor) -> Tensor:
    """On which intervals a line cuts off the function by more than single precision explains, (n,)."""
    room = 2e-5 * (1 + values.abs().amax(1, keepdim=True))
    bad = torch.zeros(len(points), dtype=torch.bool)
    for side, sign in ((bound.lower, 1.0), (bound.upper, -1.0)):
        bias = 0.0 if side.bias is None else side.bias[0, 0, :, None]
        line = side.maps[0].scale[0, 0, :, None] * points + bias
        bad |= (sign * (line - values) > room).any(1)
    return bad


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.op} {dict(pair.case.attributes) or ''}".strip())
def test_gaps_are_no_wider_than_those_of_auto_lirpa(peer, pair, capfd):
    op, attributes = lookup(pair.op), pair.case.attributes
    x = sampled_boxes(pair.case.arguments[0], COUNT).map(lambda end: end.float().double())
    ours, theirs = op.relax(x, **attributes), their_lines(peer, pair.function, x)
    points = torch.lerp(x.lower[0, :, None], x.upper[0, :, None], torch.linspace(0, 1, 201).double())
    values = op.evaluate(points, **attributes)
    unsound = cuts(theirs, points, values)
    first, second, sound = gap(ours, x), gap(theirs, x), ~unsound
    label = " ".join([pair.op, *(f"{name} {value:g}" for name, value in attributes.items())])
    narrower = int((sound & (first < 0.999 * second - 1e-6)).sum())
    means = " | ".join(f"{float(gaps[sound].mean()):.5g}" for gaps in (first, second))
    with capfd.disabled():
        sys.stdout.write(f"\n| {label} | {means} | {narrower} | {int(unsound.sum())} |")
    assert not cuts(ours, points, values).any()
    room = 1e-3 * second.abs() + 1e-5 * (1 + values.abs().amax(1))
    assert ((first <= second + room) | unsound).all()
