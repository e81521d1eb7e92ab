"""What bounds must agree on: batches and single problems, chunks, windows and dense rows, precisions; exact cases; order."""

import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boundlab import CROWN, IBP, Box, Forward, bound, zero_slope
from boundlab.interval import Interval
from boundlab.maps import Dense
from boundlab.perturbations.ball import LpBall
from boundlab.spec import at_least
from tests.bounds.networks import AFFINE, KINDS, captured
from tests.bounds.rounding import rounding, rounding_of_rows
from tests.bounds.soundness import random_rows, region_of

METHODS = {"IBP": IBP(), "Forward": Forward(), "CROWN": CROWN(), "CROWN-IBP": CROWN(intermediate=IBP())}
SMOOTH = {"vector": ("linear", "residual", "relu", "concat", "hardtanh"), "tokens": ("tokenwise", "mixing", "relu", "residual"),
          "image": ("conv 3", "conv stride", "conv groups", "crop", "residual", "relu", "batch norm", "average pool",
                    "downsample")}
"""Blocks whose fixed-slope bounds change continuously with their numbers."""


def drawn(kind, table=None, most=3):
    """A network of `kind`: (blocks, seed)."""
    names = sorted(KINDS[kind][1]) if table is None else sorted(table)
    return st.tuples(st.lists(st.sampled_from(names), min_size=1, max_size=most), st.integers(0, 9999))


def agree(found, expected, error):
    """Two computations of the same bounds, each within `error` of the exact one."""
    assert ((found.double() - expected.double()).abs() <= 2 * error).all(), float(((found - expected).abs() - 2 * error).max())


def both_ends(model, region, method):
    """The bounds of the output with their rounding error."""
    with torch.no_grad():
        result = bound(model, region, method=method)
        return result, rounding(model, result.env)[model.graph.output.index]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_problem_in_a_batch_has_the_bounds_that_it_has_alone(kind, data):
    blocks, seed = data.draw(drawn(kind))
    _, model = captured(kind, blocks, seed)
    region, rows = region_of("box", 0.2, KINDS[kind][0], seed, batch=5), random_rows((3,), seed, batch=5)
    for method in METHODS.values():
        whole, error = both_ends(model, region, method)
        spec = bound(model, region, method=method, spec=at_least(rows))
        for problem in (0, 3):
            one = slice(problem, problem + 1)
            alone = bound(model, Box(region.lower[one], region.upper[one]), method=method)
            agree(alone.lower, whole.lower[one], error[one])
            agree(alone.upper, whole.upper[one], error[one])
            single = bound(model, Box(region.lower[one], region.upper[one]), method=method, spec=at_least(rows[one]))
            agree(single.lower, spec.lower[one], rounding_of_rows(rows[one], error[one], alone.env[model.graph.output.index]))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(data=st.data())
def test_rows_in_chunks_give_the_bounds_of_rows_together(kind, data):
    blocks, seed = data.draw(drawn(kind))
    _, model = captured(kind, blocks, seed)
    region = region_of("l2", 0.3, KINDS[kind][0], seed)
    whole, error = both_ends(model, region, CROWN())
    for rows in (1, 3):
        chunked = bound(model, region, method=CROWN(max_rows=rows))
        agree(chunked.lower, whole.lower, error)
        agree(chunked.upper, whole.upper, error)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(network=drawn("image", most=4))
def test_windows_and_dense_rows_give_the_same_bounds(network):
    blocks, seed = network
    _, model = captured("image", [*blocks, "relu", "conv 3", "relu"], seed)
    region = region_of("box", 0.3, KINDS["image"][0], seed)
    whole, error = both_ends(model, region, CROWN())
    table = importlib.import_module("boundlab.maps.compose")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "DENSE_AREA", 0.0)
        dense = bound(model, region, method=CROWN())
    agree(dense.lower, whole.lower, error)
    agree(dense.upper, whole.upper, error)
    for name, interval in whole.intermediate.items():
        slack = rounding(model, whole.env)[index_of(model, name)]
        agree(dense.intermediate[name].lower, interval.lower, slack)
        agree(dense.intermediate[name].upper, interval.upper, slack)


def index_of(model, name):
    return next(node.index for node in model.graph if node.name == name)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(data=st.data())
def test_single_and_double_precision_agree_to_rounding(kind, data):
    blocks, seed = data.draw(drawn(kind, SMOOTH[kind]))
    _, model = captured(kind, blocks, seed)
    small, region = model.to(torch.float32), region_of("box", 0.1, KINDS[kind][0], seed)
    narrow = Box(region.lower.float(), region.upper.float())
    wide = Box(narrow.lower.double(), narrow.upper.double())
    for method in (IBP(), CROWN(alpha=zero_slope), CROWN(intermediate=IBP(), alpha=zero_slope)):
        with torch.no_grad():
            low, high = bound(small, narrow, method=method), bound(small.to(torch.float64), wide, method=method)
            error = rounding(small, low.env)[model.graph.output.index]
        agree(low.lower, high.lower, error)
        agree(low.upper, high.upper, error)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(data=st.data())
def test_affine_networks_are_bounded_exactly(kind, data):
    """CROWN, forward LiRPA and IBP with a specification give the optimum of a linear function over the set itself."""
    blocks, seed = data.draw(drawn(kind, AFFINE[kind], most=4))
    module, model = captured(kind, blocks, seed)
    shape = KINDS[kind][0]
    zero = torch.zeros(1, *shape, dtype=torch.float64)
    matrix, offset = torch.autograd.functional.jacobian(lambda x: module(x)[0], zero), module(zero).detach()
    matrix = matrix.reshape(1, 3, *shape)
    for set_kind in ("box", "l2", "l1"):
        region = region_of(set_kind, 0.4, shape, seed)
        lower = region.concretize(Dense(shape, None, matrix)) + offset
        upper = offset - region.concretize(Dense(shape, None, -matrix))
        for method in (Forward(), CROWN(), CROWN(intermediate=IBP())):
            found, error = both_ends(model, region, method)
            agree(found.lower, lower, error)
            agree(found.upper, upper, error)
        rows = torch.eye(3, dtype=torch.float64).unsqueeze(0)
        for method in METHODS.values():
            spec = bound(model, region, method=method, spec=at_least(rows))
            agree(spec.lower, lower, error)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_larger_set_is_looser_for_interval_bounds(kind, data):
    blocks, seed = data.draw(drawn(kind))
    _, model = captured(kind, blocks, seed)
    region = region_of("box", 0.2, KINDS[kind][0], seed)
    small, _ = both_ends(model, region, IBP())
    large, error = both_ends(model, Box(region.lower - 0.05, region.upper + 0.1), IBP())
    assert (large.lower <= small.lower + 2 * error).all() and (large.upper >= small.upper - 2 * error).all()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(data=st.data())
def test_what_is_met_with_intervals_is_never_looser_than_intervals(kind, data):
    """Forward bounds, and every inner node of CROWN, are intersected with intervals, whose rules keep inclusion."""
    blocks, seed = data.draw(drawn(kind))
    _, model = captured(kind, blocks, seed)
    region = region_of("box", 0.2, KINDS[kind][0], seed)
    plain, _ = both_ends(model, region, IBP())
    for method in (Forward(), CROWN(), CROWN(intermediate=IBP())):
        better, _ = both_ends(model, region, method)
        errors = rounding(model, plain.env)
        for index, interval in better.env.items():
            if isinstance(interval, Interval):
                assert (interval.lower >= plain.env[index].lower - 2 * errors[index]).all()
                assert (interval.upper <= plain.env[index].upper + 2 * errors[index]).all()


@settings(max_examples=2, deadline=None, derandomize=True)
@given(network=drawn("vector"))
def test_known_bounds_are_met_and_never_lost(network):
    blocks, seed = network
    _, model = captured("vector", blocks, seed)
    region = region_of("box", 0.3, KINDS["vector"][0], seed)
    known, _ = both_ends(model, region, CROWN())
    for method in METHODS.values():
        found = bound(model, region, method=method, known=known.intermediate)
        error = rounding(model, found.env)
        for name, interval in found.intermediate.items():
            slack = error[index_of(model, name)]
            assert (interval.lower >= known.intermediate[name].lower - slack).all()
            assert (interval.upper <= known.intermediate[name].upper + slack).all()


def test_balls_of_norm_infinity_and_their_boxes_have_the_same_bounds():
    _, model = captured("image", ["conv 3", "relu", "conv stride", "relu"], 7)
    center = torch.randn(2, 2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ball, box = LpBall(center, 0.1, float("inf")), Box(center - 0.1, center + 0.1)
    for method in METHODS.values():
        found, error = both_ends(model, ball, method)
        agree(found.lower, bound(model, box, method=method).lower, error)
