"""The simulated schedule against hand examples, lower bounds, and the best of all orders."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boundlab.engines.schedule import schedule
from boundlab.errors import EngineError

SECONDS = st.lists(st.lists(st.floats(0, 100), max_size=12), max_size=4)


@pytest.mark.parametrize("layers, workers, overhead, makespan, utilisation", [
    ([[3, 3, 2, 2, 2]], 2, 0, 7, 12 / 14),             # longest first is not always best: 3+3 beside 2+2+2 takes 6
    ([[1, 1, 1, 4]], 2, 0, 4, 7 / 8),                  # the long task first, or it would end at 5
    ([[2, 2], [3]], 2, 0, 5, 7 / 10),                  # the second layer waits for the first
    ([[2, 2], [3]], 2, 0.5, 6, 7 / 12),
    ([[1, 1, 1]], 8, 0, 1, 3 / 8),                     # idle workers count
    ([[5, 1, 2]], 1, 0, 8, 1), ([], 3, 0, 0, 1), ([[], [0.0]], 3, 0, 0, 1)])
def test_hand_examples(layers, workers, overhead, makespan, utilisation):
    found = schedule(layers, workers, overhead)
    assert found.makespan == pytest.approx(makespan) and found.utilisation == pytest.approx(utilisation)


@given(SECONDS, st.integers(1, 5), st.floats(0, 1))
def test_no_schedule_beats_the_lower_bounds_and_none_is_far_from_them(layers, workers, overhead):
    found = schedule(layers, workers, overhead)
    full = [[seconds + overhead for seconds in layer] for layer in layers]
    least = sum(max(math.fsum(layer) / workers, max(layer, default=0.0)) for layer in full)
    most = sum(math.fsum(layer) / workers + (1 - 1 / workers) * max(layer, default=0.0) for layer in full)  # Graham 1966
    assert least * (1 - 1e-9) <= found.makespan <= most * (1 + 1e-9) + 1e-12
    assert 0 <= found.utilisation <= 1 + 1e-9


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=6), st.integers(1, 3))
def test_a_layer_is_near_the_best_of_all_orders(layer, workers):
    best = min(max(sum(s for s, place in zip(layer, places, strict=True) if place == worker) for worker in range(workers))
               for places in itertools.product(range(workers), repeat=len(layer)))
    ratio = 4 / 3 - 1 / (3 * workers)
    assert best * (1 - 1e-9) <= schedule([layer], workers).makespan <= ratio * best * (1 + 1e-9)


def test_arrays_are_layers_too():
    assert schedule([np.full(10, 0.1)], 5).makespan == pytest.approx(0.2)


@pytest.mark.parametrize("layers, workers, overhead", [([[1.0]], 0, 0.0), ([[-1.0]], 1, 0.0), ([[math.nan]], 1, 0.0),
                                                       ([[math.inf]], 1, 0.0), ([[1.0]], 1, -0.1)])
def test_what_makes_no_schedule(layers, workers, overhead):
    with pytest.raises(EngineError, match="a schedule needs"):
        schedule(layers, workers, overhead)
