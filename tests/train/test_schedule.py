import itertools

import pytest

from boundlab.errors import SpecError
from boundlab.train.schedule import (
    Exponential,
    Linear,
    Ramp,
    Rate,
    Smooth,
    auto_lirpa_ramp,
    bcp_ramp,
    between,
    crown_ibp_ramp,
    drops_every,
    linear_ramp,
    progress,
    ramp_in_steps,
    smooth_ramp,
)

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


def test_a_ramp_is_0_before_its_start_and_1_from_its_end_on():
    for shape in (Linear(), Smooth(), Smooth(0.4), Exponential(0.02)):
        values = [Ramp(2, 7, shape).at(step / 10) for step in range(100)]
        assert values[:20] == [0.0] * 20 and values[70:] == [1.0] * 30
        assert all(a <= b for a, b in itertools.pairwise(values)) and 0 < values[45] < 1
    assert [Ramp().at(0.0), Ramp(3, 3).at(2.9), Ramp(3, 3).at(3.0)] == [1.0, 0.0, 1.0]


def test_smooth_and_exponential_values_agree_with_their_formulas():
    # E = eps_max - eps_0 = 1, m the middle, p the power: a (s - s0)^p with a = E / ((s1 - m) p (m - s0)^(p - 1) + (m - s0)^p).
    start, end, middle, power = 10.0, 50.0, 20.0, 4
    a = 1 / ((end - middle) * power * (middle - start) ** (power - 1) + (middle - start) ** power)
    ramp, reached = Ramp(start, end, Smooth((middle - start) / (end - start), power)), a * (middle - start) ** power
    for step in (11.0, 15.0, 19.9):
        assert ramp.at(step) == pytest.approx(a * (step - start) ** power, rel=1e-12)
    for step in (20.0, 33.0, 49.0):
        assert ramp.at(step) == pytest.approx(reached + (1 - reached) * (step - middle) / (end - middle), rel=1e-12)
    ratios = [Ramp(0, 10, Exponential(0.01)).at(step + 1) / Ramp(0, 10, Exponential(0.01)).at(step) for step in range(9)]
    assert ratios == pytest.approx([100 ** 0.1] * 9)


def test_conventions_of_the_papers():
    assert crown_ibp_ramp(1, 61) == Ramp(1, 61)  # the paper's "60 epochs"
    assert auto_lirpa_ramp(101, 801, 0.4) == Ramp(100, 901, Smooth(0.4))
    assert auto_lirpa_ramp(1, 20) == Ramp(0, 20, Smooth()) and auto_lirpa_ramp(2, 80) == Ramp(1, 81, Smooth())
    bcp = bcp_ramp(1, 20)
    assert [bcp.at(1 + place) for place in range(20)] == pytest.approx([place / 19 for place in range(20)])
    assert ramp_in_steps(2000, 10000, 300) == Ramp(2000 / 300, 40.0)
    assert drops_every(10, 60, 100) == (70, 80, 90)


def test_a_rate_falls_at_its_drops():
    rate = Rate(1e-3, (5, 8), 0.1)
    assert [rate.at(time) for time in (0, 4.99, 5, 7.5, 8, 20)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


@pytest.mark.parametrize("make", [lambda: Ramp(5, 2), lambda: Ramp(-1, 2), lambda: Rate(0.0), lambda: Rate(1e-3, (), -1.0),
                                  lambda: Exponential(0.0), lambda: Ramp(float("nan"), 2)])
def test_impossible_schedules_are_refused(make):
    with pytest.raises(SpecError):
        make()
