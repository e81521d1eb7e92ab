"""Verdicts: against exhaustive answers on tiny nets; ties, NaN and narrow misses are never verified; witnesses are exact."""

from __future__ import annotations

import functools
import itertools
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import boundlab as bl
from boundlab.attack.pgd import PGD
from boundlab.bounds.methods import CROWN, IBP
from boundlab.bounds.observe import watch
from boundlab.question.vnnlib import parse_vnnlib
from boundlab.verify.options import Bisection
from boundlab.verify.sound import Original
from boundlab.verify.splitting import bisection
from boundlab.verify.task import task_of_sets, violates
from boundlab.verify.verdict import Verdict
from boundlab.verify.verify import LADDER, verify
from tests.question.test_vnnlib import boxed, declared, identity

BOUNDS_ONLY = (IBP(), CROWN(IBP()), CROWN())


@functools.cache
def captured(inputs: int) -> bl.Model:
    """One capture for each shape: exporting takes much longer than verifying."""
    net = nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    return bl.capture(net, torch.zeros(2, inputs)).detached()


def network(seed: int, inputs: int = 2) -> bl.Model:
    """A small ReLU network with 3 outputs and weights drawn from `seed`."""
    generator, model = torch.Generator().manual_seed(seed), captured(inputs)
    return replace(model, params={name: torch.randn(value.shape, generator=generator) / value.shape[-1] ** 0.5
                                  for name, value in model.params.items()})


def cells_minimum(model: bl.Model, box: bl.Box, spec: bl.Specification) -> Tensor:
    """The true minimum of the worst clause over 2-dimensional boxes, to within the grid's error, (b,)."""
    steps = torch.linspace(0, 1, 201)
    grid = torch.cartesian_prod(steps, steps)
    found = []
    for i in range(len(box.lower)):
        points = box.lower[i] + (box.upper[i] - box.lower[i]) * grid
        found.append(spec.worst(spec.take(torch.tensor([i])).values(bl.evaluate(model, points))).min())
    return torch.stack(found)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000))
def test_verdicts_against_a_fine_grid(seed: int) -> None:
    model = network(seed)
    center = torch.rand(4, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    box = bl.Box(center - 0.3, center + 0.3)
    spec = bl.margins(bl.evaluate(model, center).argmax(1), 3)
    truth = cells_minimum(model, box, spec)
    results = verify(model, box, spec, timeout=20)
    for result, lowest in zip(results, truth.tolist(), strict=True):
        assert result.verdict in (Verdict.VERIFIED, Verdict.FALSIFIED) or abs(lowest) < 1e-3
        if result.verdict is Verdict.VERIFIED:
            assert lowest > 0
            assert spec.worst(result.lower[None]) <= lowest + 1e-4
        if lowest < -1e-5:
            assert result.verdict is Verdict.FALSIFIED


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_a_batch_gets_the_verdicts_of_its_problems_alone(seed: int) -> None:
    model = network(seed)
    center = torch.rand(3, 2, generator=torch.Generator().manual_seed(seed))
    box, spec = bl.Box(center - 0.2, center + 0.2), bl.margins(torch.tensor([0, 1, 2]), 3)
    together = verify(model, box, spec, timeout=20)
    for i, result in enumerate(together):
        index = torch.tensor([i])
        alone, = verify(model, box.take(index), spec.take(index), timeout=20)
        assert alone.verdict is result.verdict


def test_witnesses_lie_in_the_set_and_violate_exactly() -> None:
    model = network(3)
    box = bl.Box(torch.full((3, 2), -2.0), torch.full((3, 2), 2.0))
    spec = bl.margins(torch.tensor([0, 1, 2]), 3)
    results = verify(model, box, spec)
    assert any(result.verdict is Verdict.FALSIFIED for result in results)
    for i, result in enumerate(results):
        if result.witness is not None:
            x, = result.witness.inputs.values()
            assert bool(box.take(torch.tensor([i])).box().contains(x).all())
            assert torch.equal(bl.evaluate(model, x), result.witness.output)
            assert violates(spec.take(torch.tensor([i])), result.witness.output)


def test_a_replay_that_disagrees_makes_no_witness() -> None:
    box, spec = bl.Box(torch.zeros(1, 2), torch.ones(1, 2)), bl.at_least(torch.tensor([[[1.0, -1.0]]]))
    honest, = verify(identity(2), box, spec)
    other, = verify(Original(identity(2), lambda inputs: torch.tensor([[1.0, 0.0]])), box, spec, timeout=1)
    assert honest.verdict is Verdict.FALSIFIED
    assert other.verdict in (Verdict.UNKNOWN, Verdict.TIMEOUT) and other.witness is None


@pytest.mark.parametrize("stages", [BOUNDS_ONLY, (Bisection(),), LADDER])
def test_ties_are_never_verified(stages: tuple[object, ...]) -> None:
    box = bl.Box(torch.zeros(1, 2), torch.ones(1, 2))
    always_zero = bl.at_least(torch.zeros(1, 1, 2))
    touches_zero = bl.at_least(torch.tensor([[[1.0, 0.0]]]))
    for spec in (always_zero, touches_zero):
        result, = verify(identity(2), box, spec, stages=stages, timeout=2)  # type: ignore[arg-type]
        assert result.verdict is not Verdict.VERIFIED
    shifted = replace(touches_zero, offset=torch.full((1, 1), 1e-3))
    assert verify(identity(2), box, shifted, stages=stages, timeout=5)[0].verdict is Verdict.VERIFIED  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_networks_are_never_verified(value: float) -> None:
    model = network(0)
    name = next(name for name, tensor in model.params.items() if tensor.dim() == 1)
    broken = replace(model, params={**model.params, name: torch.full_like(model.params[name], value)})
    box = bl.Box(torch.zeros(2, 2), torch.ones(2, 2))
    for result in verify(broken, box, bl.at_least(torch.ones(1, 1, 3)), timeout=1):
        assert not result.verdict.decided
        assert any("IBP" in note for note in result.notes)


def test_one_bad_problem_spoils_no_other() -> None:
    far = torch.tensor([[0.5, 0.5], [3e38, 3e38], [0.5, 0.6]])
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.fill_(10.0)
        layer.bias.fill_(1.0)
    model = bl.capture(layer, torch.zeros(2, 2))
    first, bad, last = verify(model, bl.Box(far, far), bl.at_least(torch.ones(1, 1, 1)), stages=BOUNDS_ONLY)
    assert (first.verdict, bad.verdict, last.verdict) == (Verdict.VERIFIED, Verdict.UNKNOWN, Verdict.VERIFIED)
    assert bad.notes and not first.notes


def test_a_clause_needs_only_one_row() -> None:
    box = bl.Box(torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0, 1.0]]))
    rows, offset = torch.eye(2)[None], torch.zeros(1, 2)
    either = bl.Specification(rows, offset, torch.tensor([0, 0]))
    each = bl.Specification(rows, offset, torch.tensor([0, 1]))
    assert verify(identity(2), box, either)[0].verdict is Verdict.VERIFIED
    assert verify(identity(2), box, each)[0].verdict is Verdict.FALSIFIED


def test_the_best_bound_of_each_row_is_kept() -> None:
    model, box = network(5), bl.Box(torch.full((1, 2), -1.0), torch.full((1, 2), 1.0))
    spec = bl.margins(torch.tensor([0]), 3)
    results = [verify(model, box, spec, stages=BOUNDS_ONLY[:count])[0].lower for count in (1, 2, 3)]
    for fewer, more in itertools.pairwise(results):
        assert bool((more >= fewer).all())


def test_time_limits_are_kept() -> None:
    model = network(7, inputs=6)
    box = bl.Box(torch.full((1, 6), -3.0), torch.full((1, 6), 3.0))
    hardly = bl.at_least(torch.zeros(1, 1, 3))
    start = time.perf_counter()
    deaf = lambda inputs: torch.full((1, 3), torch.nan)  # noqa: E731 - a replay that never confirms a witness
    result, = verify(Original(model, deaf), box, hardly, stages=(Bisection(boxes=64),), timeout=0.5)
    assert time.perf_counter() - start < 5.0
    assert result.verdict is Verdict.TIMEOUT
    now, = verify(model, box, hardly, timeout=0.0)
    assert now.verdict is Verdict.TIMEOUT and bool((now.lower == -torch.inf).all())


def test_bisection_covers_the_box_and_reports_rows_that_hold() -> None:
    model = network(11)
    box = bl.Box(torch.full((1, 2), -1.0), torch.full((1, 2), 1.0))
    grid = torch.cartesian_prod(*[torch.linspace(-1, 1, 301)] * 2)
    outputs = bl.evaluate(model, grid)
    spec = bl.at_least(torch.eye(3)[None], -outputs.amin(0)[None] + 0.02)
    task = task_of_sets(model, {model.graph.inputs[0].name: box}, spec, None)
    state = bisection(task, torch.tensor([0]), Bisection())
    while not state.over:
        state = state.step(math.inf)
    found = state.found()
    assert set(found.proven) == {0} and found.parts > 1 and found.left == 0
    assert bool((found.proven[0] <= spec.values(outputs).amin(0) + 1e-5).all())


class Counting(IBP):
    """IBP that counts its passes."""

    def __init__(self, passes: list[int]) -> None:
        object.__setattr__(self, "passes", passes)

    def run(self, problem: bl.Problem) -> bl.Bounds:
        self.passes.append(1)  # type: ignore[attr-defined]
        return super().run(problem)


class Quotient(nn.Module):
    """4 - 1 / d, where d is at least 0.3 and its interval holds 0 on wide boxes."""

    def forward(self, x: Tensor) -> Tensor:
        return 4 - 1 / (0.3 + x - 0.95 * torch.relu(x))


def test_boxes_without_bounds_cost_the_others_of_their_turn_one_more_pass() -> None:
    model, box, passes, turns = bl.capture(Quotient(), torch.ones(1, 1)), bl.Box(torch.zeros(1, 1), torch.ones(1, 1)), [], 0
    task = task_of_sets(model, {"x": box}, bl.at_least(torch.ones(1, 1, 1)), None)
    state = bisection(task, torch.tensor([0]), Bisection(Counting(passes)))
    while not state.over:
        state, turns = state.step(math.inf), turns + 1
    assert set(state.found().proven) == {0} and 0 < float(state.found().proven[0]) <= 1
    assert len(passes) <= 2 * turns < state.found().parts


def test_a_query_is_falsified_by_one_case_and_verified_by_all() -> None:
    boxes = """(assert (or (and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1))
                           (and (>= X_0 2) (<= X_0 3) (>= X_1 0) (<= X_1 1))))"""
    def verdict(unsafe: str) -> Verdict:
        return verify(identity(2), parse_vnnlib(declared(2, 2) + boxes + unsafe), timeout=20)[0].verdict

    assert verdict("(assert (>= Y_0 3.5))") is Verdict.VERIFIED
    assert verdict("(assert (>= Y_0 2.5))") is Verdict.FALSIFIED
    assert verdict("(assert (or (and (>= Y_0 1.5) (<= Y_0 1.9)) (<= Y_1 -0.1)))") is Verdict.VERIFIED


def test_proofs_of_queries_cover_the_decimal_box() -> None:
    """y = x - float32(0.7) is 0 at the largest float32 input and 1.2e-8 at the decimal end: both ends have to be safe."""
    near = np.float32(0.7)
    assert float(near) < 0.7
    shifted = replace(identity(1), params={name: torch.tensor([-float(near)]) if value.dim() == 1 else value
                                           for name, value in identity(1).params.items()})
    for limit, verdict in (("1e-8", Verdict.UNKNOWN), ("1e-6", Verdict.VERIFIED)):
        query = parse_vnnlib(declared(1, 1) + boxed(1, "0", "0.7") + f"(assert (>= Y_0 {limit}))")
        assert verify(shifted, query, stages=BOUNDS_ONLY)[0].verdict is verdict


def test_requests_that_make_no_sense_are_refused() -> None:
    box = bl.Box(torch.zeros(1, 2), torch.ones(1, 2))
    with pytest.raises(bl.SpecError, match="give a specification"):
        verify(identity(2), box)
    query = parse_vnnlib(declared(2, 2) + boxed(2) + "(assert (<= Y_0 0))")
    with pytest.raises(bl.SpecError, match="its own specification"):
        verify(identity(2), query, bl.at_least(torch.ones(1, 1, 2)))


def test_a_result_says_how_firm_it_is() -> None:
    box = bl.Box(torch.ones(1, 2), torch.ones(1, 2) * 2)
    spec, stages = bl.at_least(torch.tensor([[[1.0, 0.0]]])), (PGD(steps=2), IBP())
    for rigour in (bl.Rigour.SOUND, bl.Rigour.FLOAT):
        result, = verify(identity(2), box, spec, stages=stages, rigour=rigour)
        assert str(result).startswith(f"verified ({rigour.name.lower()}) by IBP")
        assert result.rigour is rigour


class Dawdling(bl.CROWN):
    """A method that takes ten seconds, in small pieces."""

    def prepared(self, problem):
        for _ in range(1000):
            with watch(problem.observe, problem.target, "rows"):
                time.sleep(0.01)
        return super().prepared(problem)


@pytest.mark.parametrize("stage", [Dawdling(), bl.Bisection(Dawdling()), bl.Branching(base=Dawdling())])
def test_a_pass_of_bounds_ends_at_the_time_limit(stage):
    box, spec = bl.Box(torch.full((1, 2), -1.0), torch.ones(1, 2)), bl.at_least(torch.eye(3)[None], torch.full((1, 3), 1e6))
    started = time.perf_counter()
    result, = verify(network(0), box, spec, stages=(stage,), timeout=0.2)
    assert result.verdict is Verdict.TIMEOUT and time.perf_counter() - started < 5
