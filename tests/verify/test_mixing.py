"""Sums of a clause's rows: the best of two rows that their lines allow, and never more than these."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import boundlab as bl
from boundlab.spec import Specification
from boundlab.verify.mixing import Lines, best_step, mixed
from boundlab.verify.verdict import Verdict

D = torch.float64


def question(seed, rows):
    torch.manual_seed(seed)
    lines = Lines(torch.randn(20, 2 * rows, dtype=D), torch.randn(20, 2 * rows, 3, dtype=D), torch.rand(20, 3, dtype=D))
    spec = Specification(torch.ones(1, 2 * rows, 1, dtype=D), torch.zeros(1, 2 * rows, dtype=D), torch.arange(2 * rows) % 2)
    lower = lines.middle - torch.linalg.vecdot(lines.slope.abs(), lines.radius[:, None])
    return spec, lower, lines


def largest_minimum(middle, slope, radius):
    """The best bound that a sum with weights has, which is the least of the largest line on the box (a linear program)."""
    rows, d = slope.shape
    found = linprog(np.append(np.zeros(d), 1.0), A_ub=np.c_[slope, -np.ones(rows)], b_ub=-middle,
                    bounds=[*((-r, r) for r in radius), (None, None)])
    return found.fun


@pytest.mark.parametrize(("rows", "exact"), [(1, True), (2, True), (3, False)])
def test_sums_are_the_best_of_two_rows_and_never_more_than_there_is(rows, exact):
    spec, lower, lines = question(rows, rows)
    found = mixed(spec, lower, lines)
    assert bool((found.weights >= 0).all()) and torch.allclose(found.weights.sum(2), torch.ones(20, 2, dtype=D))
    gained = 0
    for box in range(20):
        for clause in range(2):
            own = spec.clause == clause
            parts = lines.middle[box, own], lines.slope[box, own], lines.radius[box]
            best = largest_minimum(*(part.numpy() for part in parts))
            bound, alone = float(found.lower[box, clause]), float(lower[box, own].max())
            assert alone <= bound <= best + 1e-9
            gained += bound > alone + 1e-6
            if exact and alone <= 0:
                assert bound == pytest.approx(best, abs=1e-9)
            total = (found.weights[box, clause, :, None] * lines.slope[box, own]).sum(0)
            value = (found.weights[box, clause] * lines.middle[box, own]).sum()
            if alone <= 0:
                assert bound == pytest.approx(float(value - total.abs() @ lines.radius[box]), abs=1e-9)
    assert (gained > 5) == (rows > 1)


def test_the_best_step_is_the_best_of_many():
    torch.manual_seed(0)
    gain, slope, change, radius = (torch.randn(50, dtype=D), *torch.randn(2, 50, 4, dtype=D), torch.rand(50, 4, dtype=D))
    place = torch.linspace(0, 1, 501, dtype=D)

    def value(t):
        return t * gain[:, None] - ((slope[:, None] + t[..., None] * change[:, None]).abs() * radius[:, None]).sum(2)

    best = value(best_step(gain, slope, change, radius)[:, None])[:, 0]
    assert bool((best >= value(place.expand(50, -1)).amax(1) - 1e-12).all())


def test_rows_without_lines_are_as_they_were():
    spec, lower, _ = question(0, 2)
    found = mixed(spec, lower, None)
    assert torch.equal(found.lower, spec.best(lower)) and bool((found.weights.amax(2) == 1).all())


@pytest.mark.parametrize("offset", [0.01, -0.01])
def test_a_clause_that_no_row_shows_alone_is_decided(offset):
    """max(x, -x) + offset: positive everywhere or not at 0, and one sum of both rows says so of the whole box."""
    model = bl.capture(torch.nn.Identity(), torch.zeros(1, 1, dtype=D)).detached()
    rows = torch.tensor([[[1.0], [-1.0]]], dtype=D)
    spec = Specification(rows, torch.full((1, 2), offset, dtype=D), torch.tensor([0, 0]))
    box = bl.Box(-torch.ones(1, 1, dtype=D), torch.ones(1, 1, dtype=D))
    result, = bl.verify(model, box, spec, stages=(bl.Bisection(),), timeout=10)
    assert result.verdict is (Verdict.VERIFIED if offset > 0 else Verdict.FALSIFIED)
    assert offset < 0 or "1 boxes" in result.method
