"""Verdicts against brute force: networks of one to three inputs around every operator, true or false by a margin."""

from __future__ import annotations

import collections
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import boundlab as bl
from boundlab.ops.op import REGISTRY
from boundlab.testing import cases_of
from boundlab.testing.planted import worst
from tests.verify.brute import (
    BENT,
    D,
    bent_network,
    boxed,
    brute_force,
    exact_minimum,
    operator_network,
    random,
    random_layers,
    specification,
)

CALLS = [(name, case) for name in sorted(REGISTRY) for case in cases_of(name)]
MARGINS = (0.3, -0.3, 0.03, -0.03, 0.003, -0.003)
"""How far the least margin is from zero, in standard deviations of a point's margin."""
STRIDE, BLIND = 61, 0.2


def deaf(inputs):
    """A replay that confirms no witness, so that the search goes on trying to prove."""
    return torch.full((1, 2), torch.nan)


def real(model, box, spec, witness):
    """Whether a witness lies in the box and violates the specification, by an evaluation of its own and exact sums."""
    x, = witness.inputs.values()
    return bool(box.box().contains(x).all()) and worst(spec, bl.evaluate(model, x)[0].tolist()) <= 0


def verdict_on_an_operator(number, timeout):
    """The verdict on problem `number`, held against brute force."""
    name, case = CALLS[number * STRIDE % len(CALLS)]
    box = boxed(1 + number % 3, number)
    model, spec = operator_network(name, case, box, number), specification(number)
    found = brute_force(model, box, spec)
    margin = MARGINS[number % 6] * max(found.spread, 0.01)
    spec = replace(spec, offset=torch.full_like(spec.offset, margin - found.least))
    said = f"problem {number}, {name}{dict(case.attributes)}"
    result, = bl.verify(model, box, spec, timeout=timeout, rigour=bl.Rigour.FLOAT)
    if margin < 0:
        assert result.verdict is not bl.Verdict.VERIFIED, f"{said} is false by {margin:.2g} at {found.point}: {result}"
        blind, = bl.verify(bl.Original(model, deaf), box, spec, timeout=BLIND, rigour=bl.Rigour.FLOAT)
        assert not blind.verdict.decided, f"{said} is false by {margin:.2g} at {found.point}: {blind}"
    if result.witness is not None:
        assert real(model, box, spec, result.witness), f"{said} has a witness that is none"
        assert margin < 0 or worst(spec, bl.evaluate(model, *result.witness.inputs.values())[0].tolist()) > -margin - 0.05, \
            f"{said}: brute force missed what a witness shows"
    return name, margin > 0, result.verdict


def some_operators(numbers, timeout):
    """Verdicts by truth."""
    found = [verdict_on_an_operator(number, timeout) for number in numbers]
    return collections.Counter((truth, verdict.name) for _, truth, verdict in found)


def test_verdicts_on_every_sort_of_operator():
    wide = [number for number in range(27) if abs(MARGINS[number % 6]) > 0.01]
    verdicts = some_operators(wide, timeout=2.0)
    assert verdicts[True, "VERIFIED"] >= 5 and verdicts[False, "FALSIFIED"] >= 5


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 1000, 50))
def test_verdicts_on_1000_networks(start, capsys):
    verdicts = some_operators(range(start, start + 50), timeout=0.5)
    with capsys.disabled():
        sys.stdout.write(f"\nnetworks from {start}: {dict(sorted(verdicts.items()))}\n")


def test_every_operator_has_its_turn():
    reached = {CALLS[number * STRIDE % len(CALLS)][0] for number in range(1000)}
    assert reached == {name for name, _ in CALLS} and len(reached) > 50


def verdict_is_exact(number):
    """The verdict on a piecewise linear network is the one that its exact minimum gives."""
    bent, inputs = BENT[number % len(BENT)], 1 + number // 2 % 3
    layers = random_layers((inputs, 4, 2) if number % 2 or len(bent.pieces) > 2 else (inputs, 3, 3, 2), number)
    box, rows = boxed(inputs, number), random(torch.Generator().manual_seed(number), 1 + number % 2, 2)
    least = exact_minimum(bent, layers, rows.numpy(), box)
    margin = MARGINS[number // 3 % 6]
    clause = torch.zeros(len(rows), dtype=torch.long)
    spec = bl.Specification(rows[None], torch.full((1, len(rows)), margin - least, dtype=D), clause)
    model = bent_network(bent, layers)
    result, = bl.verify(model, box, spec, timeout=60)
    expected = bl.Verdict.VERIFIED if margin > 0 else bl.Verdict.FALSIFIED
    assert result.verdict is expected, f"network {number} of {bent.op} has the least margin {margin}: {result}, {result.notes}"
    assert result.witness is None or real(model, box, spec, result.witness)


@pytest.mark.parametrize("number", range(12))
def test_where_brute_force_is_exact_the_verdict_is_the_same(number):
    verdict_is_exact(number)


@pytest.mark.slow
def test_the_verdict_is_the_same_on_300_networks():
    for number in range(12, 312):
        verdict_is_exact(number)


@pytest.mark.parametrize("bent", BENT, ids=lambda bent: bent.op)
def test_the_exact_minimum_is_below_samples_and_near_them(bent):
    layers, box = random_layers((2, 4, 2), 3), boxed(2, 3)
    rows = np.array([[1.0, -0.5], [0.3, 0.7]])
    y = bl.evaluate(bent_network(bent, layers), box.sample(20_000, torch.Generator().manual_seed(0)).flatten(0, 1)).numpy()
    sampled = (y @ rows.T).max(1).min()
    assert -1e-7 <= sampled - exact_minimum(bent, layers, rows, box) < 0.05
