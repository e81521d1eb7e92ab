"""Every registered operator keeps the laws of operators; and the suite notices operators that do not."""

import dataclasses

import pytest
import torch

from boundlab import ops
from boundlab.affine import LinearBound, chord, lines
from boundlab.interval import Interval
from boundlab.ops.op import REGISTRY
from boundlab.testing import Case, ConformanceError, Vary, check_operator

NAMES = sorted(REGISTRY)


@pytest.mark.parametrize("name", NAMES)
def test_laws_of_operators(name):
    check_operator(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(1, 6))
def test_laws_of_operators_on_more_points(name, seed):
    check_operator(name, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_relaxations_compile_whole(name):
    check_operator(name, compiled=True)


@pytest.fixture
def broken():
    """Registers a changed copy of an operator under another name, and removes it again."""
    names = []

    def make(name, **changes):
        names.append(f"broken_{name}")
        ops.register(dataclasses.replace(ops.lookup(name), name=names[-1], **changes))
        return names[-1]

    yield make
    for name in names:
        del REGISTRY[name]


def shifted(name, amount):
    """The operator's relaxation with its lower line moved up by `amount` of the box's width."""
    def relax(x, alpha=None):
        bound = ops.lookup(name).relax(x, alpha=alpha)
        bias = amount * (x.row_upper - x.row_lower) + (0 if bound.lower.bias is None else bound.lower.bias)
        return LinearBound(dataclasses.replace(bound.lower, bias=bias), bound.upper)
    return relax


def secant_below(x, alpha=None):
    """The chord of tanh as its lower line: wrong wherever tanh is convex."""
    slope = chord(torch.tanh, x, torch.ones_like(x.row_lower))
    return lines((slope, torch.tanh(x.row_lower) - slope * x.row_lower), (torch.zeros_like(slope), torch.ones_like(slope)))


BREAKS = {
    "lower line lies above": {"relax": shifted("relu", 1e-3)},
    "rises above the interval": {"interval": lambda x: Interval(torch.relu(x.lower), torch.relu(x.upper) * 0.999)},
    "falls below the interval": {"interval": lambda x: Interval(torch.relu(x.lower) + 1e-3, torch.relu(x.upper) + 1e-3)},
    "derivative rises": {"derivative": lambda x: Interval(torch.zeros_like(x.lower), torch.zeros_like(x.lower))},
    "depend on the others": {"interval": lambda x: Interval(
        torch.relu(x.lower), torch.relu(x.upper).amax(0, True).expand_as(x.upper))},
    "is NaN or infinite": {"interval": lambda x: Interval(torch.relu(x.lower), torch.relu(x.upper) / 0)},
}


@pytest.mark.parametrize("law", BREAKS)
def test_a_broken_operator_is_found(broken, law):
    with pytest.raises(ConformanceError, match=law) as found:
        check_operator(broken("relu", **BREAKS[law]))
    assert "broken_relu" in str(found.value)


def test_a_start_that_differs_from_the_plain_relaxation_is_found(broken):
    free = ops.lookup("relu").alpha["slope"]
    wrong = {"slope": dataclasses.replace(free, start=lambda x: 1 - free.start(x))}
    with pytest.raises(ConformanceError, match="differ from the plain ones"):
        check_operator(broken("relu", alpha=wrong))


def test_a_chord_on_the_convex_side_is_found(broken):
    with pytest.raises(ConformanceError, match="lower line lies above"):
        check_operator(broken("tanh", relax=secant_below, alpha={}))


def test_a_users_operator_brings_its_own_cases(broken):
    name = broken("relu")
    check_operator(name, [Case((Vary((2, 5), low=-1.0, high=3.0),))])
