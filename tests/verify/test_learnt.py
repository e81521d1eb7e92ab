"""Intervals are handed on: a search begins with those that a stage has found, and with no others."""

from __future__ import annotations

import functools
import importlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor, nn

import boundlab as bl
from boundlab.bounds.problem import problem_of
from boundlab.graph import Node
from boundlab.interval import Interval
from boundlab.verify.base import FIRST
from boundlab.verify.branching import branching
from boundlab.verify.fixed import fixed
from boundlab.verify.learnt import recalled
from boundlab.verify.standing import Clock, Standing
from boundlab.verify.task import Task, task_of_sets
from boundlab.verify.verify import awaited, bounded

VERIFY = importlib.import_module("boundlab.verify.verify")
CLOCK = Clock(0.0, math.inf)


@dataclass(frozen=True)
class Counted:
    """An observer that notes what is done."""

    seen: list[str] = field(default_factory=list)

    @contextmanager
    def __call__(self, node: Node, work: str, rows: int = 0) -> Iterator[None]:
        self.seen.append(work)
        yield


class Table(nn.Module):
    """Two rows of a table through layers of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(3, 8), nn.Linear(3, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.second(torch.relu(self.first(x[:, 0])).reshape(-1, 8)[:, :3] + x[:, 1])))


@functools.cache
def captured() -> bl.Model:
    """The network, captured once."""
    torch.manual_seed(0)
    return bl.capture(Table(), torch.zeros(2, 2, 3)).detached()


def task_of(rows: list[int], offset: float = 0.0) -> Task:
    """Problems in each of which one row of the table varies; the first is easy."""
    model, generator = captured(), torch.Generator().manual_seed(0)
    center, radius = torch.randn(len(rows), 2, 3, generator=generator), torch.zeros(len(rows), 2, 3)
    radius[torch.arange(len(rows)), rows] = 1.0
    offsets = torch.full((len(rows), 1), offset)
    offsets[0] = 100.0
    spec = bl.Specification(torch.ones(len(rows), 1, 1), offsets, torch.tensor([0]))
    return task_of_sets(model, {model.graph.inputs[0].name: bl.Box(center - radius, center + radius)}, spec, None)


def after_bounds(task: Task) -> Standing:
    return bounded(task, Standing(torch.full((task.count, 1), -torch.inf)), FIRST, CLOCK, keep=True)


@pytest.mark.parametrize("chunk", [1, VERIFY.CHUNK])
def test_the_search_begins_with_the_same_intervals_and_makes_none(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VERIFY, "CHUNK", chunk)
    task = task_of([0, 0, 1, 0], -100.0) if chunk > 1 else task_of([0, 0, 0, 0], -100.0)
    standing, counted, deadline = after_bounds(task), Counted(), 0.0
    index = standing.open
    assert index.tolist() == [1, 2, 3] and len(standing.learnt) == (1 if chunk > 1 else 3)
    anew = branching(task, index, bl.Branching(), deadline)
    again = branching(replace(task, observe=counted), index, bl.Branching(), deadline, standing.learnt)
    assert counted.seen == []
    first, second = anew.expansion.ground.env, again.expansion.ground.env
    assert first.keys() == second.keys()
    for node, value in first.items():
        other = second[node]
        if isinstance(value, Interval):
            assert isinstance(other, Interval)
            torch.testing.assert_close(value.lower, other.lower)
            torch.testing.assert_close(value.upper, other.upper)
        else:
            torch.testing.assert_close(value, other)


def test_intervals_that_are_not_known_of_all_problems_are_made_anew() -> None:
    task = task_of([0, 0, 0], -100.0)
    known, every = after_bounds(task).learnt, torch.arange(3)
    problem = problem_of(*fixed(task.model, task.sets), task.spec)
    assert recalled(known, problem, every) is None and recalled((), problem, every) is None
    counted = Counted()
    state = branching(replace(task, observe=counted), every, bl.Branching(), 0.0, known)
    assert "interval" in counted.seen and len(state.waiting.goal) == 3


def test_problems_in_which_other_pieces_vary_are_bounded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VERIFY, "CHUNK", 1)
    task = task_of([0, 0, 1], -100.0)
    standing = after_bounds(task)
    problem = problem_of(*fixed(task.model, task.take(standing.open)[0]), task.spec.take(standing.open))
    assert len(standing.learnt) == 2 and recalled(standing.learnt, problem, standing.open) is None
    results = bl.verify(task.model, task.sets, task.spec, stages=(bl.CROWN(), bl.Branching()), timeout=10)
    assert [result.verdict.name for result in results] == ["VERIFIED", "FALSIFIED", "FALSIFIED"]


def test_the_seconds_are_those_of_the_problems_that_are_left() -> None:
    known, = after_bounds(task_of([0, 0, 0, 0], -100.0)).learnt
    assert known.on(torch.tensor([2])).seconds == pytest.approx(known.seconds / 3)
    assert len(known.on(torch.tensor([0])).index) == 0


def test_intervals_are_kept_for_searches_that_begin_with_them_alone() -> None:
    race = bl.Race()
    assert awaited(bl.CROWN(), (bl.PGD(), race)) and awaited(bl.CROWN(), (bl.Branching(),))
    assert not awaited(bl.CROWN(bl.IBP()), (race,)) and not awaited(bl.CROWN(filter=None), (race,))
    assert not awaited(bl.CROWN(), (bl.Branching(base=bl.CROWN()),)) and not awaited(bl.CROWN(), (bl.PGD(), bl.Bisection()))


@pytest.mark.parametrize(("inputs", "most"), [(2, 0.05), (40, 1.0)])
def test_attacks_have_a_share_of_the_time_where_boxes_are_halved(inputs: int, most: float,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    model = bl.capture(nn.Linear(inputs, 1), torch.zeros(2, inputs)).detached()
    box, spec = bl.Box(-torch.ones(1, inputs), torch.ones(1, inputs)), bl.Specification(
        torch.ones(1, 1, 1), torch.full((1, 1), 100.0), torch.tensor([0]))
    shares: list[float] = []

    def attack(*given: object) -> bl.AttackResult:
        shares.append((float(given[-1]) - time.perf_counter()) / 1000)  # type: ignore[arg-type]
        return bl.attack(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(VERIFY, "attack", attack)
    result, = bl.verify(model, box, spec, stages=(bl.PGD(), bl.Race()), timeout=1000)
    assert result.verdict is bl.Verdict.VERIFIED and most - 0.01 < shares[0] <= most
