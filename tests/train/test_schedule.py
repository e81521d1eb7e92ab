import itertools

import pytest

from boundlab.train.schedule import between, linear_ramp, progress, smooth_ramp

RAMPS = [
    linear_ramp, smooth_ramp, lambda t: smooth_ramp(t, 0.4), lambda t: smooth_ramp(t, 0.0), lambda t: smooth_ramp(t, 1.0, 2),
]


@pytest.mark.parametrize("ramp", RAMPS)
def test_a_ramp_starts_at_0_ends_at_1_and_never_falls(ramp):
    values = [ramp(step / 100) for step in range(-20, 121)]
    assert values[:21] == [0.0] * 21 and values[-21:] == [1.0] * 21
    assert all(a <= b for a, b in itertools.pairwise(values))


@pytest.mark.parametrize("middle", [0.25, 0.4, 0.9])
def test_the_smooth_ramp_bends_without_a_kink(middle):
    step = 1e-6
    before = (smooth_ramp(middle) - smooth_ramp(middle - step)) / step
    after = (smooth_ramp(middle + step) - smooth_ramp(middle)) / step
    assert before == pytest.approx(after, rel=1e-4)


def test_the_smooth_ramp_with_middle_0_is_linear():
    assert [smooth_ramp(t / 10, 0.0) for t in range(11)] == [linear_ramp(t / 10) for t in range(11)]


def test_progress_and_values():
    assert [progress(step, 10, 20) for step in (0, 10, 15, 20, 30)] == [-1.0, 0.0, 0.5, 1.0, 2.0]
    assert [progress(step, 10, 10) for step in (9, 10, 11)] == [0.0, 1.0, 1.0]
    assert between(1.0, 0.2, 0.5) == pytest.approx(0.6)
