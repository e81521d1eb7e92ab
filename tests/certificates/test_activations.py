"""Activations of several pieces: any slope encloses them in exact numbers, they bend where it is said, and files have them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from onnx import helper

from boundlab.certificates import activations, curves
from boundlab.certificates.activations import ERF, GELU, HARD_SWISH, TANH_GELU, exponential_unit
from boundlab.certificates.certificate import Semantics
from boundlab.certificates.functions import Function
from boundlab.certificates.known import Slopes, derive
from boundlab.certificates.reading import read_network
from boundlab.certificates.single import running
from tests.certificates.models import model
from tests.certificates.test_reading import replay

Exact = Callable[[mpmath.mpf], mpmath.mpf]


def tanh_gelu(x: Any) -> Any:
    return x * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3))) / 2


CASES: dict[str, tuple[Function, Exact, float, float]] = {
    "elu": (exponential_unit(1.0), lambda x: x if x > 0 else mpmath.expm1(x), -1e3, 1e3),
    "steep elu": (exponential_unit(3.0), lambda x: x if x > 0 else 3 * mpmath.expm1(x), -1e3, 1e3),
    "flat elu": (exponential_unit(0.3), lambda x: x if x > 0 else mpmath.mpf(0.3) * mpmath.expm1(x), -1e3, 1e3),
    "celu": (exponential_unit(0.7, 1 / 0.7), lambda x: x if x > 0 else mpmath.mpf(0.7) * mpmath.expm1(x / mpmath.mpf(0.7)),
             -1e3, 1e3),
    "selu": (exponential_unit(1.1 * 1.6, steep=1.1), lambda x: mpmath.mpf(1.1) * (
        x if x > 0 else mpmath.mpf(1.6) * mpmath.expm1(x)), -1e3, 1e3),
    "gelu": (GELU, lambda x: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2, -1e3, 1e3),
    "tanh gelu": (TANH_GELU, tanh_gelu, -1e3, 1e3),
    "hard swish": (HARD_SWISH, lambda x: x * min(max(x + 3, mpmath.mpf(0)), mpmath.mpf(6)) / 6, -1e3, 1e3),
    "erf": (ERF, mpmath.erf, -1e3, 1e3), "softsign": (curves.SOFTSIGN, lambda x: x / (1 + abs(x)), -1e6, 1e6),
    "sinh": (curves.SINH, mpmath.sinh, -300, 300), "cosh": (curves.COSH, mpmath.cosh, -300, 300),
    "asinh": (curves.ASINH, mpmath.asinh, -1e6, 1e6), "acosh": (curves.ACOSH, mpmath.acosh, 1, 1e6),
    "asin": (curves.ASIN, mpmath.asin, -1, 1), "acos": (curves.ACOS, mpmath.acos, -1, 1),
    "atan": (curves.ATAN, mpmath.atan, -1e6, 1e6), "atanh": (curves.ATANH, mpmath.atanh, -1, 1),
    "tan": (curves.TAN, mpmath.tan, -math.pi / 2, math.pi / 2),
}


def intervals(rng: np.random.Generator, low: float, high: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of all sizes: around 0, far out, of one point and of one float, and those that end at the domain's ends."""
    scale = min(high - low, 10.0) ** rng.uniform(-1, 1, (count, 1))
    middle = np.clip(rng.normal(size=(count, 1)) * rng.choice([0.1, 2, 30, high - low], size=(count, 1)), low, high)
    width = scale * rng.choice([0, 1e-15, 1e-8, 1e-3, 1, 10], size=(count, 1))
    l, u = np.clip(middle - width, low, high), np.clip(middle + width, low, high)
    l[:4], u[:4] = low, np.array([[high], [low], [(low + high) / 2], [low + (high - low) / 8]])
    u[4:6] = high
    return l, u


def enclosed(name: str, count: int) -> float:
    """Asserts that any slopes give lines around a function in exact numbers; how often they are numbers."""
    function, exact, low, high = CASES[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    l, u = intervals(rng, low, high, count)
    slopes = tuple(rng.normal(size=(count, 1)) * rng.choice([0, 0.3, 3, 1e6, 1e300], size=(count, 1)) for _ in range(2))
    slopes[0][:3], slopes[1][:3] = np.array([[np.nan], [np.inf], [-np.inf]]), np.array([[np.inf], [np.nan], [1.0]])
    with np.errstate(all="ignore"):
        own = function.defaults([(l, u)])
        found = [(*pair, *function.intercepts([(l, u)], (pair[0],), (pair[1],))) for pair in (slopes, (own[0][0], own[1][0]))]
        below, above = function.values([(l, u)])
    inside = rng.uniform(size=(count, 3))
    points = np.clip(np.concatenate([l, u, l + (u - l) * inside, np.clip(0, l, u)], axis=1), l, u)
    with mpmath.workprec(250):
        for k in range(count):
            for x in map(mpmath.mpf, points[k].tolist()):
                y = exact(x)
                if not mpmath.isfinite(y):
                    continue
                assert not below[k, 0] > y and not above[k, 0] < y, (name, l[k], u[k])
                for m, n, least, most in found:
                    if np.isfinite(m[k, 0]):
                        assert not mpmath.mpf(float(least[k, 0])) > y - mpmath.mpf(float(m[k, 0])) * x, (name, l[k], u[k], m[k])
                    if np.isfinite(n[k, 0]):
                        assert not mpmath.mpf(float(most[k, 0])) < y - mpmath.mpf(float(n[k, 0])) * x, (name, l[k], u[k], n[k])
        for slope, ends in ((slopes[0], found[0][2]), (slopes[1], found[0][3])):
            assert not np.isfinite(ends[~np.isfinite(slope)]).any()
    return float(np.isfinite([below, above, found[1][2], found[1][3]]).mean())


@pytest.mark.parametrize("name", CASES)
def test_any_slope_gives_lines_around_the_function(name: str) -> None:
    assert enclosed(name, 40) > 0.2


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_any_slope_gives_lines_around_the_function_on_many_intervals(name: str) -> None:
    assert enclosed(name, 600) > 0.2


@pytest.mark.parametrize("name, bend", [("gelu", activations.GELU_BEND), ("tanh gelu", activations.TANH_BEND)])
def test_gelu_bends_where_it_is_said(name: str, bend: float) -> None:
    """f'' has the sign that is counted on at many places, and beside the bend as near as two floats."""
    exact = CASES[name][1]
    with mpmath.workprec(300):
        near = [bend * (1 - 2.0**-51), bend * (1 + 2.0**-51)]
        for x in [*np.linspace(0, 12, 60).tolist(), *near]:
            second = mpmath.diff(exact, x, 2)
            assert (second > 0) == (x < bend) and mpmath.diff(exact, -x, 2) * second > 0, x
        assert abs(mpmath.diff(exact, bend, 2)) < activations.UNSURE
    assert near[0] < bend < near[1]


@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives_are_as_exact_as_is_assumed(name: str) -> None:
    function, exact, low, high = CASES[name]
    rng = np.random.default_rng(0)
    inner = np.concatenate([rng.normal(size=60), rng.uniform(max(low, -40), min(high, 40), 60), rng.normal(size=20) * 1e-8])
    x = inner[(inner > low) & (inner < high)]
    if isinstance(function, activations.Spliced):
        value, slope = (function.of(x, lambda part, which=which: of_part(part, which)) for which in (0, 1))
        floor, blur = 0.0, max(part.blur for part in function.parts)
    else:
        assert isinstance(function, curves.Curve)
        value, slope, floor, blur = function.value(x), function.derivative(x), function.floor, function.blur
    with mpmath.workprec(200):
        for k, point in enumerate(map(mpmath.mpf, x.tolist())):
            y = exact(point)
            assert abs(mpmath.mpf(float(value[k])) - y) <= curves.UNITS * curves.UNIT / 2 * abs(y) + floor / 2, (name, point)
            if abs(point) in (0, 3):
                continue
            steep = mpmath.diff(exact, point)
            room = curves.UNITS * curves.UNIT / 2 * (abs(steep) + blur) + mpmath.mpf(2) ** -80
            assert abs(mpmath.mpf(float(slope[k])) - steep) <= room, (name, point)


def of_part(part: curves.Curve, which: int) -> curves.Unary:
    """The value or the derivative of a part."""
    return part.derivative if which else part.value


FILES: dict[str, tuple[str, dict[str, Any], int]] = {
    "elu": ("Elu", {"alpha": 1.5}, 17), "celu": ("Celu", {"alpha": 0.6}, 17), "selu": ("Selu", {}, 17),
    "gelu": ("Gelu", {}, 20), "tanh gelu": ("Gelu", {"approximate": "tanh"}, 20), "hard swish": ("HardSwish", {}, 17),
    "erf": ("Erf", {}, 17), "softsign": ("Softsign", {}, 17), "sinh": ("Sinh", {}, 17), "cosh": ("Cosh", {}, 17),
    "asinh": ("Asinh", {}, 17), "atan": ("Atan", {}, 17),
}


@pytest.mark.parametrize("name", FILES)
def test_files_have_them_and_runtimes_agree(name: str) -> None:
    operator, attributes, opset = FILES[name]
    content = model([helper.make_node(operator, ["x"], ["y"], **attributes)], (1, 40), {}, opset=opset)
    network, middle = read_network(content), np.linspace(-4, 4, 40).astype(np.float32)
    for radius in (0.0, 0.3):
        box = [(middle[:, None].astype(np.float64) - radius, middle[:, None].astype(np.float64) + radius)]
        low, high = (end[:, 0] for end in derive(network, box, Slopes()).ends[network.output])
        for share in (-1, 0, 1):
            found = replay(content, (middle + share * radius).astype(np.float32))
            room = 2e-6 * (1 + np.abs(found))
            assert (low <= found + room).all() and (found <= high + room).all()
        assert (high - low < 2e-5 * (1 + np.abs(found))).all() or radius


@pytest.mark.parametrize("name", FILES)
def test_as_it_runs_the_runtime_stays_inside(name: str) -> None:
    operator, attributes, opset = FILES[name]
    content = model([helper.make_node(operator, ["x"], ["y"], **attributes)], (1, 40), {}, opset=opset)
    network, x = running(read_network(content), Semantics.FLOAT32), np.linspace(-20, 20, 40).astype(np.float32)
    low, high = (end[:, 0] for end in derive(network, [(x[:, None].astype(np.float64),) * 2], Slopes()).ends[network.output])
    found = replay(content, x)
    assert not (low > found).any() and not (high < found).any()
    assert np.isfinite(low).all() == (name not in ("sinh", "cosh", "asinh"))
