"""Planted counterexamples: they are where they should be, samples miss them, and nothing in the library proves them away."""

import collections
import functools
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.testing import Architecture, Place, planted, planted_problems
from boundlab.testing.exact import Sum, exact_numbers, exact_output
from boundlab.verify.verify import LADDER
from tests.bounds.soundness import METHODS

BY_ROUNDING = (Place.LOST, Place.ROUNDED)
COUNTS = {Place.LOST: (True, False), Place.ROUNDED: (False, True)}
"""Whether a point counts in real arithmetic, and as the network runs, where not in both."""
SMOOTH = (Architecture.SIGMOID, Architecture.TANH, Architecture.PRODUCT)
PROGRAMS = {"LP-ALL": bl.LP(), "LP-LAST": bl.LP(inner=False)}
LADDER_ALONE = {"the ladder": LADDER}
SEARCHES = {**LADDER_ALONE, "bisection": (bl.Bisection(),), "branching": (bl.Branching(),)}


@functools.cache
def captured(architecture, kind, dtype):
    """One capture for all seeds: exporting takes longer than all bounds."""
    found = planted(kind, architecture, dtype=dtype)
    return bl.capture(found.module, found.point).detached()


def model_of(problem):
    """The problem's network as a model."""
    kind = problem.place if problem.place in (Place.LEAST, *BY_ROUNDING) else Place.DEEP
    model = captured(problem.architecture, kind, problem.point.dtype)
    return model.with_params({name: value.detach() for name, value in problem.module.named_parameters()})


def deaf(inputs):
    """A replay that confirms no witness, so that a search goes on trying to prove."""
    return torch.full((1, 3), torch.nan)


def provers(problem, model, timeout, searches=LADDER_ALONE):
    """Everything that claims to have proven the problem."""
    exact = {} if problem.architecture in SMOOTH else {"MILP": bl.MILP(seconds=2 * timeout)}
    for name, method in {**METHODS, **PROGRAMS, **exact}.items():
        bounds = bl.bound(model, problem.box, method=method, spec=problem.spec)
        if bool(problem.spec.worst(bounds.lower) > 0):
            yield name
    for name, stages in searches.items():
        result, = bl.verify(bl.Original(model, deaf), problem.box, problem.spec, stages=stages, timeout=timeout)
        if result.verdict is bl.Verdict.VERIFIED:
            yield name


def refutation(problem, model, timeout):
    """What verify says, and that its witness, if it has one, is real."""
    result, = bl.verify(model, problem.box, problem.spec, timeout=timeout)
    if result.witness is not None:
        x, = result.witness.inputs.values()
        assert bool(problem.box.box().contains(x).all())
        assert problem.spec.worst(problem.spec.values(problem.module(x))) <= 1e-6
    return result.verdict


def nobody_proves(problems, timeout, searches=LADDER_ALONE):
    """Verdicts by place, after every method and search has been tried in vain."""
    verdicts, proven = collections.Counter(), []
    for problem in problems:
        if problem.place in BY_ROUNDING:  # the tests below
            continue
        model = model_of(problem)
        proven += [f"{problem}: {name}" for name in provers(problem, model, timeout, searches)]
        verdict = refutation(problem, model, timeout)
        proven += [f"{problem}: verify"] if verdict is bl.Verdict.VERIFIED else []
        verdicts[problem.place.name.lower(), verdict.name] += 1
    assert not proven, proven
    return verdicts


def test_nobody_proves_a_planted_problem():
    verdicts = nobody_proves(planted_problems(7), timeout=0.1)
    assert len({place for place, _ in verdicts}) == 6, "a place was left out"


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 500, 50))
def test_nobody_proves_one_of_500(start, capsys):
    verdicts = nobody_proves(planted_problems(50, start), timeout=0.4, searches=SEARCHES)
    with capsys.disabled():
        sys.stdout.write(f"\nplanted problems from {start}: {dict(sorted(verdicts.items()))}\n")


@pytest.mark.parametrize("architecture", Architecture)
def test_every_place_holds_what_it_says(architecture):
    for seed, place in enumerate(Place):
        problem = planted(place, architecture, seed=seed, dtype=(torch.float32, torch.float64)[seed % 2])
        assert bool(problem.box.box().contains(problem.point).all())
        assert (problem.real, problem.runs) == COUNTS.get(place, (True, True))
        sides = (problem.point == problem.box.lower) | (problem.point == problem.box.upper)
        if place is Place.CORNER:
            assert bool(sides.all())
        if place is Place.FACE:
            assert int(sides.sum()) == 1
        if place in (Place.DEEP, Place.THIN, Place.RIDGE):
            assert not bool(sides.any())


@pytest.mark.parametrize("place", [Place.THIN, Place.DEEP, Place.FACE])
def test_needles_are_not_found_by_sampling(place):
    for architecture in (Architecture.DENSE, Architecture.CONV, Architecture.SIGMOID):
        problem = planted(place, architecture, seed=3)
        points = problem.box.sample(4000, torch.Generator().manual_seed(0)).flatten(0, 1)
        with torch.no_grad():
            assert bool((problem.spec.worst(problem.spec.values(problem.module(points))) > 0).all())


def test_equal_arguments_give_equal_problems_and_seeds_differ():
    first, again, other = (planted(Place.THIN, Architecture.LEAKY, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.point, again.point) and first.margin == again.margin
    assert not torch.equal(first.point, other.point)
    assert str(first) == "thin in leaky, float32, seed 1"


def test_a_problem_moved_off_its_point_is_none():
    """The margin is that of the point and not of the box: a wrong point would be noticed."""
    problem = planted(Place.THIN, Architecture.DENSE, seed=4)
    with torch.no_grad():
        aside = problem.box.project(problem.point + 0.01)
        assert float(problem.spec.worst(problem.spec.values(problem.module(aside)))) > 0 > problem.margin


@pytest.mark.parametrize("layers", [
    (nn.Linear(6, 5), nn.LeakyReLU(0.25), nn.Linear(5, 2)), (Sum(nn.Identity(), nn.Linear(6, 6)), nn.Tanh(), nn.Sigmoid()),
    (nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 2, 2, stride=1, padding=1, bias=False), nn.MaxPool2d(2, 1), nn.Flatten()),
])
def test_exact_arithmetic_is_what_the_layers_compute(layers):
    torch.manual_seed(0)
    module, x = nn.Sequential(*layers).double(), torch.randn(1, 6, dtype=torch.float64)
    exact = exact_numbers(x[0])
    if isinstance(layers[0], nn.Unflatten):
        module, exact, x = module[1:], exact.reshape(1, 2, 3), x.reshape(1, 1, 2, 3)
    found = exact_output(module, exact)
    assert all(isinstance(number, Fraction) for number in found.flatten())
    np.testing.assert_allclose(found.astype(float), module(x)[0].detach().numpy(), rtol=1e-13, atol=1e-15)


def test_exact_arithmetic_refuses_what_it_does_not_know():
    for layer in (nn.GELU(), nn.Conv2d(1, 1, 1, groups=1, padding="same"), nn.MaxPool2d(2, padding=1)):
        with pytest.raises(bl.UnsupportedOperator, match="exact arithmetic"):
            exact_output(layer, exact_numbers(torch.zeros(1, 4, 4)))


@pytest.mark.parametrize("architecture", [Architecture.DENSE, Architecture.TANH])
def test_what_float32_loses_float64_does_not_prove(architecture):
    problem = planted(Place.LOST, architecture, seed=1)
    model = model_of(problem).to(torch.float64)
    box = bl.Box(problem.box.lower.double(), problem.box.upper.double())
    spec = replace(problem.spec, rows=problem.spec.rows.double(), offset=problem.spec.offset.double())
    wide = replace(problem, module=problem.module.double(), box=box, spec=spec, point=problem.point.double())
    assert not list(provers(wide, model, timeout=0.2))
    assert refutation(wide, model, 5.0) is bl.Verdict.FALSIFIED


def test_what_rounding_breaks_is_falsified():
    problem = planted(Place.ROUNDED, Architecture.POOLED, seed=1)
    assert refutation(problem, model_of(problem), 5.0) is bl.Verdict.FALSIFIED


@pytest.mark.parametrize("place", BY_ROUNDING)
@pytest.mark.parametrize("seed", range(3))
def test_tricks_of_float32_are_not_proven_of_what_runs_in_float32(place, seed):
    problem = planted(place, Architecture.DENSE, seed=seed)
    result, = bl.verify(bl.Original(model_of(problem), deaf), problem.box, problem.spec, timeout=2, rigour=bl.Rigour.FLOAT32)
    assert result.verdict is not bl.Verdict.VERIFIED


@pytest.mark.parametrize("seed", range(4))
def test_what_rounding_hides_is_proven_in_floating_point_only(seed):
    problem = planted(Place.LOST, Architecture.DENSE, seed=seed)
    model = model_of(problem)
    for stages in (bl.LADDER, *LADDER_ALONE.values()):
        result, = bl.verify(bl.Original(model, deaf), problem.box, problem.spec, stages=stages, timeout=2)
        assert result.verdict is not bl.Verdict.VERIFIED
        believed, = bl.verify(bl.Original(model, deaf), problem.box, problem.spec, stages=stages, timeout=2,
                              rigour=bl.Rigour.FLOAT)
        assert (believed.verdict is bl.Verdict.VERIFIED) == (result.verdict is bl.Verdict.FLOAT_ONLY)
    assert believed.verdict is bl.Verdict.VERIFIED  # so that the test says something
