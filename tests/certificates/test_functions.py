"""Lines of any slope enclose their function; library functions and derivatives are as exact as the checker assumes."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import pytest

from boundlab.certificates import curves
from boundlab.certificates.curves import COS, CUBE, EXP, LOG, RECIPROCAL, SIGMOID, SIN, SOFTPLUS, SQRT, SQUARE, TANH, UNITS
from boundlab.certificates.functions import Function, lines_of
from boundlab.certificates.joint import Largest, Product, Smallest
from boundlab.certificates.piecewise import Floor, Sign, absolute, clipped, relu
from boundlab.certificates.rounding import TINY, UNIT

ONE = np.ones((1, 1))
FUNCTIONS: dict[str, tuple[Function, Callable[..., np.ndarray], float, float]] = {
    "exp": (EXP, np.exp, -5, 5), "log": (LOG, np.log, 0.01, 9), "sqrt": (SQRT, np.sqrt, 0.01, 9),
    "square": (SQUARE, np.square, -5, 5), "cube": (CUBE, lambda x: x**3, -5, 5),
    "reciprocal": (RECIPROCAL, lambda x: 1 / x, 0.01, 4),
    "reciprocal below 0": (RECIPROCAL, lambda x: 1 / x, -4, -0.01), "softplus": (SOFTPLUS, lambda x: np.logaddexp(0, x), -9, 9),
    "sigmoid": (SIGMOID, lambda x: 1 / (1 + np.exp(-x)), -9, 9), "tanh": (TANH, np.tanh, -5, 5), "sin": (SIN, np.sin, -9, 9),
    "cos": (COS, np.cos, -9, 9), "relu": (relu(), lambda x: np.maximum(x, 0), -3, 3), "abs": (absolute(), np.abs, -3, 3),
    "leaky": (relu(0.1), lambda x: np.where(x > 0, x, 0.1 * x), -3, 3),
    "steep below": (relu(2.0), lambda x: np.where(x > 0, x, 2 * x), -3, 3),
    "clip": (clipped(-ONE, ONE / 2), lambda x: np.clip(x, -1, 0.5), -3, 3),
    "max": (clipped(ONE, None), lambda x: np.maximum(x, 1), -3, 3),
    "min": (clipped(None, ONE), lambda x: np.minimum(x, 1), -3, 3), "sign": (Sign(), np.sign, -3, 3),
    "floor": (Floor(), np.floor, -3, 3), "product": (Product(), np.multiply, -3, 3),
    "anchored product": (Product(anchored=True), np.multiply, -3, 3),
    "largest": (Largest(2), np.maximum, -3, 3), "smallest": (Smallest(2), np.minimum, -3, 3),
}
N = 600


@pytest.mark.parametrize("name", FUNCTIONS)
def test_lines_and_values_enclose_the_function(name: str) -> None:
    function, exact, low, high = FUNCTIONS[name]
    rng = np.random.default_rng(0)
    ends, points = [], []
    for _ in range(function.arity):
        l, u = np.sort(rng.uniform(low, high, (2, N, 1)), axis=0)
        u = l + (u - l) * rng.choice([1, 0.1, 1e-3, 0], size=(N, 1))
        if (low, high) == (-3, 3):
            l[:N // 6], u[:N // 6] = np.floor(l[:N // 6]), np.ceil(u[:N // 6])
        x = l + (u - l) * rng.uniform(0, 1, (N, 300))
        ends.append((l, u))
        jumps = [np.clip(0, l, u), np.floor(u), np.nextafter(np.floor(u), -99)]
        points.append(np.clip(np.concatenate([x, l, u, *jumps], 1), l, u))
    if function.arity == 2:
        points = [np.concatenate([x, *pair], 1) for x, pair in zip(points, (ends[0], ends[1][::-1]), strict=True)]
    y = exact(*points)
    rounding = 4 * UNIT * (1 + np.abs(y))
    slopes = [(rng.normal(size=(N, 1)) * rng.choice([0.3, 3], size=(N, 1)), rng.normal(size=(N, 1))) for _ in ends]
    for given in ([None] * len(ends), slopes):
        with np.errstate(all="ignore"):
            lines = lines_of(function, ends, given)
        low_line = lines.low + sum(m * x for m, x in zip(lines.lower, points, strict=True))
        high_line = lines.high + sum(m * x for m, x in zip(lines.upper, points, strict=True))
        scale = rounding + 8 * UNIT * sum(np.abs(m * x) for m, x in zip(lines.lower, points, strict=True))
        scale = scale + 8 * UNIT * sum(np.abs(m * x) for m, x in zip(lines.upper, points, strict=True))
        assert (low_line <= y + scale).all() and (y <= high_line + scale).all()
        if name not in ("sin", "cos", "floor", "largest", "smallest", "sign", "product", "anchored product"):
            # Tight: the lines touch, but for how densely the points lie.
            assert (y - low_line).min(axis=1).max() < 0.05 and (high_line - y).min(axis=1).max() < 0.05
    with np.errstate(all="ignore"):
        below, above = function.values(ends)
    assert (below <= y + rounding).all() and (y <= above + rounding).all()


def test_the_reciprocal_of_an_interval_around_zero_is_no_number() -> None:
    with np.errstate(all="ignore"):
        low, high = RECIPROCAL.intercepts([(np.array([[-1.0]]), np.array([[2.0]]))], (ONE,), (ONE,))
    assert np.isnan(low).all() and np.isnan(high).all()


def decimal_exp(x: float) -> Decimal:
    return Decimal(x).exp()


def decimal_wave(x: float, start: int) -> Decimal:
    """The Taylor series of cos (start 0) or sin (1) at a number, to far more digits than a float has."""
    term = total = Decimal(x) if start else Decimal(1)
    for k in range(start + 2, 400, 2):
        term = -term * Decimal(x) * Decimal(x) / (k * (k - 1))
        total += term
    return total


def decimal_sigmoid(x: float) -> Decimal:
    return 1 / (1 + decimal_exp(-x))


def decimal_tanh(x: float) -> Decimal:
    return 1 - 2 / (1 + decimal_exp(x) ** 2)


EXACT: dict[str, tuple[curves.Unary, Callable[[float], Decimal], float, float, float]] = {
    "exp": (np.exp, decimal_exp, 40, TINY, 0), "sigmoid": (curves.sigmoid, decimal_sigmoid, 40, TINY, 0),
    "sigmoid'": (curves.sigmoid_derivative, lambda x: decimal_sigmoid(x) * (1 - decimal_sigmoid(x)), 40, TINY, 1),
    "tanh": (np.tanh, decimal_tanh, 20, TINY, 0),
    "tanh'": (TANH.derivative, lambda x: 1 - decimal_tanh(x) ** 2, 20, TINY, 1),
    "softplus": (SOFTPLUS.value, lambda x: (1 + decimal_exp(x)).ln(), 30, TINY, 0),
    "sin": (np.sin, lambda x: decimal_wave(x, 1), 30, 0, 1), "cos": (np.cos, lambda x: decimal_wave(x, 0), 30, 0, 1),
    "log": (lambda x: np.log(np.abs(x)), lambda x: abs(Decimal(x)).ln(), 50, TINY, 0),
}


@pytest.mark.parametrize("name", EXACT)
def test_library_functions_stay_far_within_their_margin(name: str) -> None:
    function, exact, reach, floor, absolute_part = EXACT[name]
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.uniform(-reach, reach, 300), rng.normal(size=200) * 0.01, 1 + rng.normal(size=50) * 1e-6])
    worst = 0.0
    with localcontext() as context:
        context.prec = 120
        for point, value in zip(x.tolist(), function(x).tolist(), strict=True):
            true = exact(point)
            scale = abs(true) + Decimal(absolute_part)
            worst = max(worst, float((abs(Decimal(value) - true) - Decimal(floor)) / (scale * Decimal(UNIT))))
    assert worst < UNITS / 2


@pytest.mark.parametrize("name", ["reciprocal", "log"])
def test_wide_intervals_far_from_one_are_enclosed_exactly(name: str) -> None:
    """Ends from 1e-150 to 1e150: tangents and chords against numbers of 400 digits, and values that are tight there, too."""
    function, exact = {"reciprocal": (RECIPROCAL, lambda x: 1 / x), "log": (LOG, lambda x: x.ln())}[name]
    rng = np.random.default_rng(3)
    l = 10 ** rng.uniform(-150, 150, (60, 1))
    u = l * 10 ** np.abs(rng.normal(size=(60, 1)) * rng.choice([1e-9, 1, 60], size=(60, 1)))
    slope = np.where(rng.uniform(size=l.shape) < 0.3, 0, rng.normal(size=l.shape) / l / u)
    with np.errstate(all="ignore"):
        low, high = function.intercepts([(l, u)], (slope,), (slope,))
        below, above = function.values([(l, u)])
        own = function.defaults([(l, u)])[0][0]
        base = function.intercepts([(l, u)], (own,), (own,))[0]
    with localcontext() as context:
        context.prec = 60 if name == "log" else 400
        for k in range(len(l)):
            middle = [np.sqrt(l[k, 0]) * np.sqrt(u[k, 0]), l[k, 0] / 2 + u[k, 0] / 2]
            for x in map(Decimal, np.clip([l[k, 0], u[k, 0], *middle], l[k, 0], u[k, 0]).tolist()):
                value, m = exact(x), Decimal(float(slope[k, 0]))
                assert Decimal(float(below[k, 0])) <= value <= Decimal(float(above[k, 0]))
                assert Decimal(float(low[k, 0])) <= value - m * x <= Decimal(float(high[k, 0]))
                assert Decimal(float(base[k, 0])) <= value - Decimal(float(own[k, 0])) * x
            ends = sorted((exact(Decimal(float(l[k, 0]))), exact(Decimal(float(u[k, 0])))))
            room = Decimal("1e-12") * max(abs(ends[0]), abs(ends[1]), Decimal(int(name == "log")))
            assert ends[0] - room <= Decimal(float(below[k, 0])) and Decimal(float(above[k, 0])) <= ends[1] + room


@pytest.mark.parametrize("name", [*FUNCTIONS, "slope of each", "ends of each"])
def test_lines_on_some_entries_are_those_on_all(name: str) -> None:
    rng = np.random.default_rng(0)
    own = {"slope of each": relu(rng.normal(size=(9, 1))),
           "ends of each": clipped(rng.uniform(-1, 0, (9, 1)), rng.uniform(0, 1, (9, 1)))}
    function, low, high = (own[name], -3.0, 3.0) if name in own else (FUNCTIONS[name][0], *FUNCTIONS[name][2:])
    ends, slopes = ([tuple(np.sort(rng.uniform(low, high, (2, 9, 2)), axis=0)) for _ in range(function.arity)]
                    for _ in range(2))
    with np.errstate(all="ignore"):
        every = lines_of(function, ends, slopes)
    for read in (np.array([1, 4, 8]), np.array([], dtype=np.int64), None):
        chosen = [[tuple(side if read is None else side[read] for side in pair) for pair in pairs] for pairs in (ends, slopes)]
        with np.errstate(all="ignore"):
            some = lines_of(function.on(read), *chosen)
        for side in ("lower", "upper"):
            for mine, its in zip(vars(some)[side], vars(every)[side], strict=True):
                np.testing.assert_array_equal(mine, its if read is None else its[read])
        for side in ("low", "high"):
            np.testing.assert_array_equal(vars(some)[side], vars(every)[side] if read is None else vars(every)[side][read])
