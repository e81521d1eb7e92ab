"""No point of a set lies outside a bound: random networks, sets and methods, every node, the output and spec rows.

The points are evaluated in double precision. A bound counts as broken only beyond the a-priori rounding error of its own
computation (tests/bounds/rounding.py); that error stays below 1e-6 of the values, so the check has teeth.
"""

import dataclasses
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bounds.networks import KINDS, captured
from tests.bounds.soundness import METHODS, excess_of, points_of, policy_of, random_rows, region_of

SETS = ("box", "point", "l1", "l2", "linf", "l2 clipped")
RADII = (0.01, 0.1, 0.5, 1.5)
TEETH = 1e-6
"""An allowance above this share of a value would hide real errors; such a network does not count."""


def blocks_of(kind):
    return st.lists(st.sampled_from(sorted(KINDS[kind][1])), min_size=1, max_size=3)


COMMON = ("IBP", "Forward", "CROWN", "CROWN-IBP")
"""Methods with different code; the others vary slopes and chunks."""


def check_network(kind, blocks, seed, set_kind, radius, *, count=16, dtype=torch.float64, names=tuple(METHODS)):
    """The named methods on one network and set; returns the number of (point, bound) pairs that were compared."""
    module, model = captured(kind, blocks, seed)
    region, rows = region_of(set_kind, radius, KINDS[kind][0], seed), random_rows((3,), seed)
    points, compared = points_of(module, region, rows, count, seed), 0
    if dtype != torch.float64:
        model, region = model.to(dtype), single(region)
        points = region.project(points.to(dtype))
    for name, method in ((name, METHODS[name]) for name in names):
        excess, allowed, pairs = excess_of(model, region, points, rows, method, policy_of(method))
        assert excess <= 0, f"{name} is unsound on {kind} {blocks}, seed {seed}, {set_kind} of radius {radius}: by {excess:.3g}"
        compared += pairs if allowed <= TEETH or dtype != torch.float64 else 0
    return compared


def single(region):
    """A set with single-precision tensors."""
    def narrow(value):
        if torch.is_tensor(value):
            return value.float()
        return tuple(narrow(end) for end in value) if isinstance(value, tuple) else value

    return type(region)(**{field.name: narrow(getattr(region, field.name)) for field in dataclasses.fields(region)})


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(data=st.data())
def test_points_lie_inside_all_bounds(kind, data):
    blocks = data.draw(blocks_of(kind), label="blocks")
    seed = data.draw(st.integers(0, 9999), label="seed")
    set_kind, radius = data.draw(st.sampled_from(SETS), label="set"), data.draw(st.sampled_from(RADII), label="radius")
    check_network(kind, blocks, seed, set_kind, radius)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(data=st.data())
def test_points_lie_inside_all_bounds_in_single_precision(kind, data):
    blocks = data.draw(blocks_of(kind), label="blocks")
    seed, radius = data.draw(st.integers(0, 9999), label="seed"), data.draw(st.sampled_from(RADII), label="radius")
    check_network(kind, blocks, seed, "box", radius, dtype=torch.float32)


@pytest.mark.parametrize("kind", ["vector", "tokens", pytest.param("image", marks=pytest.mark.slow)])
def test_every_block_alone(kind):
    """Each block at least once, before a relu, on a box and a ball."""
    for place, name in enumerate(sorted(KINDS[kind][1])):
        compared = check_network(kind, [name, "relu"], place, "box" if place % 2 else "l2", 0.3, count=8, names=COMMON)
        assert compared > 0, f"no method bounds {name}"


@pytest.mark.slow
def test_a_million_checks():
    """At least a million (random network, set, method, point) combinations."""
    draw, combinations, pairs = random.Random(0), 0, 0
    while combinations < 1_000_000:
        kind = draw.choice(sorted(KINDS))
        blocks = [draw.choice(sorted(KINDS[kind][1])) for _ in range(draw.randint(1, 4))]
        count = 400
        compared = check_network(kind, blocks, draw.randrange(10**6), draw.choice(SETS), draw.choice(RADII), count=count)
        combinations += count * len(METHODS) if compared else 0  # a network without teeth does not count
        pairs += compared
    assert pairs > combinations
