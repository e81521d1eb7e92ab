"""Searches shared by processes find what one process finds, whatever becomes of the others."""

import math
import multiprocessing
import os
import time

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.errors import BoundError, OutOfTime
from boundlab.verify.branching import branching
from boundlab.verify.splitting import bisection
from boundlab.verify.task import task_of_sets
from boundlab.verify.team import Team

PROBLEMS = 8
ELSEWHERE = multiprocessing.parent_process() is not None


def question(bisected):
    """PROBLEMS problems that hold and need several parts each."""
    torch.manual_seed(3)
    width = 24 if bisected else 12
    first = nn.Linear(2 if bisected else 4, width)
    net = nn.Sequential(first, nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)).double().eval()
    x = 0.2 * torch.rand(PROBLEMS, first.in_features, dtype=torch.float64)
    model = bl.capture(net, x).detached()
    with torch.no_grad():
        low = net(3 * torch.rand(20_000, x.shape[1], dtype=torch.float64) - 1.5).min()
    box = bl.Box(x - 1, x + 1)
    rows, slack = torch.ones(1, 1, 1, dtype=torch.float64), 0.02
    return task_of_sets(model, {model.graph.inputs[0].name: box},
                        bl.Specification(rows, (slack - low).reshape(1, 1), torch.tensor([0])), None)


def begun(task, bisected):
    every = torch.arange(PROBLEMS)
    with torch.no_grad():
        if bisected:
            return bisection(task, every, bl.Bisection())
        return branching(task, every, bl.Branching(bl.CROWN(), steps=2), time.perf_counter() + 60)


def ended(state, *team):
    while not state.over:
        state = state.step(time.perf_counter() + 60, *team)
    return state.found()


@pytest.mark.parametrize("bisected", [True, False])
def test_two_processes_find_what_one_finds(team, bisected):
    task = question(bisected)
    alone, both = ended(begun(task, bisected)), ended(begun(task, bisected), team)
    assert alone.parts > 20 and set(alone.proven) == set(both.proven) == set(range(PROBLEMS))
    assert team.members and team.members[0].shares > 0, "the other process took part"
    if bisected:  # a tree of boxes is the same, whatever the order
        assert both.parts == alone.parts
        assert all(torch.allclose(both.proven[place], alone.proven[place], rtol=1e-12) for place in range(PROBLEMS))


def place(common, value):
    """Which process has done a share, with what it was given."""
    return torch.tensor([os.getpid()]), common + value


def test_each_share_has_its_answer_from_its_process(team):
    shares, common = team.shares(8), torch.ones(3)
    assert [share.tolist() for share in shares] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    for turn in range(3):
        each = [(torch.tensor([turn + half]),) for half in (0.0, 0.5)]
        answers = team.run(place, common, each, math.inf, torch.device("cpu"))
        assert [int(who) == os.getpid() for who, _ in answers] == [True, False]
        assert [value.tolist() for _, value in answers] == [[turn + 1.0] * 3, [turn + 1.5] * 3]


def refused(common, value):
    raise BoundError(f"nothing is known of {float(value)}")


def slow(common, value):
    if ELSEWHERE:
        time.sleep(float(value))
    return value + common


def late(common, value):
    raise OutOfTime("it is over")


def dead(common, value):
    if ELSEWHERE:
        os._exit(1)
    return value + common


def test_what_fails_elsewhere_is_done_here(team):
    one, two = (torch.tensor([1.0]),), (torch.tensor([2.0]),)
    with pytest.raises(BoundError, match=r"of 1\.0"):
        team.run(refused, torch.zeros(1), [one, two], math.inf, torch.device("cpu"))
    with pytest.raises(OutOfTime):
        team.run(late, torch.zeros(1), [one, two], math.inf, torch.device("cpu"))
    # Answers of shares for which nobody has waited are not taken for others.
    answers = team.run(slow, torch.zeros(1), [one, (torch.tensor([0.01]),)], math.inf, torch.device("cpu"))
    assert [round(float(answer), 2) for answer in answers] == [1.0, 0.01]


def test_a_process_that_dies_is_left_out():
    with Team(("cpu",)) as own:
        own.start(wait=True)
        common, each = torch.zeros(1), [(torch.tensor([1.0]),), (torch.tensor([2.0]),)]
        assert [float(answer) for answer in own.run(dead, common, each, math.inf, torch.device("cpu"))] == [1.0, 2.0]
        assert own.members == [] and len(own.shares(8)) == 1
        own.start(wait=True)
        assert len(own.shares(8)) == 2
    assert not own.members
