"""Inner bounds where a goal fails: they hold there, verdicts are those of exhaustive search, and certificates carry them."""

import dataclasses
import math
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.bounds.problem import problem_of
from boundlab.certificates.certificate import Certificate, Semantics
from boundlab.certificates.checker import check_proofs
from boundlab.certificates.file import load, save
from boundlab.certificates.reading import read_network
from boundlab.interval import Interval
from boundlab.question.vnnlib import parse_vnnlib
from boundlab.verify.branching import branching
from boundlab.verify.negation import Clauses, negated, objective_of
from boundlab.verify.options import Branching
from boundlab.verify.packing import packed, unpacked
from boundlab.verify.task import task_of_sets
from boundlab.verify.verdict import Verdict
from boundlab.verify.verify import verify
from tests.verify.questions import both_sides_of_the_minimum, files_of

D = torch.float64
ONLY = (Branching(base=bl.CROWN(), candidates=4, first_steps=10, negation=True),)


@pytest.fixture
def soon(monkeypatch):
    """Goals are assumed to fail from the beginning."""
    monkeypatch.setattr(sys.modules["boundlab.verify.branching"], "EASY", 0)


def problem(seed, rows=1, act=nn.ReLU):
    """A network on a box, and rows of which not all hold and not all fail."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, 8), act(), nn.Linear(8, 8), act(), nn.Linear(8, 2)).double()
    model, x = bl.capture(module, torch.zeros(1, 3, dtype=D)).detached(), torch.randn(2, 3, dtype=D)
    box = bl.Box(x - 0.8, x + 0.8)
    chosen = torch.randn(2, rows, 2, dtype=D)
    points = box.sample(4000, generator=torch.Generator().manual_seed(seed))
    values = torch.einsum("nbo,bro->nbr", bl.evaluate(model, points.flatten(0, 1)).unflatten(0, (-1, 2)), chosen)
    offset = -values.quantile(0.6, 0)
    return module, model, box, bl.Specification(chosen, offset, torch.zeros(rows, dtype=torch.long)), points


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_they_hold_where_the_clause_fails_whatever_the_multipliers(seed, rows, act):
    _, model, box, spec, points = problem(seed, rows, act)
    whole = problem_of(model, box, spec)
    env = bl.CROWN().environment(whole)
    clauses = Clauses(spec.rows, spec.offset, torch.arange(2))
    found = negated(whole, env, clauses, {}, math.inf)
    fails = torch.stack([~(spec.values(bl.evaluate(model, point)) > 0).any(1) for point in points])
    assert bool(fails.any(0).all()) and not bool(fails.all()) and not bool(found.empty.any())
    gained = 0.0
    for node, sides in found.sides.items():
        part = model.up_to(model.graph[node].name)
        values = bl.evaluate(part, points.flatten(0, 1)).unflatten(0, (-1, 2))
        for own in (found.env[node], multiplied(sides, clauses)):
            inside = (own.lower - 1e-9 <= values) & (values <= own.upper + 1e-9)
            assert bool(inside.flatten(2).all(2)[fails].all())
        gained += float((env[node].width - found.env[node].width).sum())
        assert bool((found.env[node].lower >= env[node].lower).all() and (found.env[node].upper <= env[node].upper).all())
    assert gained > 1e-3


def multiplied(sides, clauses):
    """Intervals by random multipliers and lines."""
    objective = objective_of(sides, clauses)
    variables = {}
    for (index, name), free in objective.ranges.items():
        shape = torch.broadcast_shapes(free.start.shape, free.low.shape, (len(objective.groups.owner), *free.start.shape[1:]))
        low, high = (end.expand(shape).clamp(-3, 3) for end in (free.low, free.high))
        variables.setdefault(index, {})[name] = low + (high - low) * torch.rand(shape, dtype=D)
    lower, known = objective.at(variables)[:, 0], sides.ground.env[sides.neurons.node.index]
    place = sides.neurons.owner, sides.neurons.index
    low, high = (end.flatten(1).clone() for end in (known.lower, known.upper))
    low[place], high[place] = lower[::2], -lower[1::2]
    return Interval(low.reshape(known.shape), high.reshape(known.shape))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))])
def test_verdicts_are_those_on_both_sides_of_the_true_minimum(seed, soon):
    for model, box, spec, verdict, least in both_sides_of_the_minimum(seed):
        result, = verify(model, box, spec, stages=ONLY, timeout=30)
        assert result.verdict is verdict
        assert float(result.lower) <= least + 1e-7  # what holds only where the goal fails is no bound


def test_goals_of_several_problems_keep_their_own_intervals(soon):
    _, model, box, spec, _ = problem(1, 2)
    each = bl.Specification(spec.rows, spec.offset + 1.5, torch.tensor([0, 1]))
    task = task_of_sets(model, {"input": box}, each, None)
    with torch.no_grad():
        state = branching(task, torch.arange(2), ONLY[0], time.perf_counter() + 60).step(time.perf_counter() + 60)
    expansion = state.expansion
    assert expansion.open.tolist() == [0, 1, 2, 3] and expansion.goals.problem.tolist() == [0, 0, 1, 1]
    again = unpacked(*packed(state, task), task)  # as a checkpoint holds it
    assert torch.equal(again.step(math.inf).waiting.lower, state.step(math.inf).waiting.lower)
    own = list(expansion.negated.sides)
    for goal in range(4):
        alone = negated(expansion.first.problem.take(torch.tensor([goal // 2])), {
            index: value.at(torch.tensor([goal // 2])) if isinstance(value, Interval) else value
            for index, value in expansion.first.env.items()}, expansion.clauses(torch.tensor([goal])), {}, math.inf)
        for node in own:
            torch.testing.assert_close(alone.env[node].lower[0], expansion.ground.env[node].lower[goal])
            torch.testing.assert_close(alone.env[node].upper[0], expansion.ground.env[node].upper[goal])


def test_certificates_carry_them(soon, tmp_path):
    network, spec = files_of("Relu", 1, 0.05, tmp_path)
    result, = bl.verify(bl.load_original(network), parse_vnnlib(spec), stages=ONLY, timeout=60)
    assert result.verdict is Verdict.VERIFIED and result.rigour is bl.Rigour.CHECKED
    case, = result.certified
    assert case.assumed and all((one.multipliers > 0).any() for one in case.assumed.values())
    save(Certificate("0" * 64, "0" * 64, (case,)), tmp_path / "proof.zip")
    again, = load(tmp_path / "proof.zip").cases
    read, query = read_network(network.read_bytes()), parse_vnnlib(spec)
    for semantics in Semantics:
        assert check_proofs(read, query, [again], semantics=semantics).accepted
    _, false = files_of("Relu", 1, -0.3, tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(5):
        wild = {target: dataclasses.replace(one, multipliers=one.multipliers * 20 * rng.random(one.multipliers.shape))
                for target, one in again.assumed.items()}
        mutated = dataclasses.replace(again, assumed=wild)
        assert not check_proofs(read, parse_vnnlib(false), [mutated]).accepted
    with pytest.raises(bl.CertificateError, match="about several"):
        dataclasses.replace(again, frame=np.roll(again.frame, 1))
