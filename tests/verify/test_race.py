"""How searches share the time."""

import math
from dataclasses import dataclass

import pytest
import torch

import boundlab as bl
from boundlab.verify.options import SMALL, Bisection, Branching, Race
from boundlab.verify.race import LEAD, Runner, behind, distinct
from boundlab.verify.search import Found


@dataclass(frozen=True)
class Stands:
    """A state that is where it is."""

    bound: float

    def found(self):
        return Found({}, {}, 1, 1, self.bound)


def runners(first, second):
    def state(bound):
        return None if bound is None else Stands(bound)
    return [Runner(Bisection(), torch.tensor([0]), state(first), 1.0, lead=LEAD),
            Runner(Branching(), torch.tensor([0]), state(second), 1.0)]


@pytest.mark.parametrize(("first", "second", "dear"), [
    (-3000.0, -0.01, (LEAD * LEAD, 1.0)),
    (-0.01, -0.2, (1.0, LEAD)),
    (-0.05, -0.01, (1.0, 1.0)),
    (-math.inf, -0.01, (1.0, 1.0)),
    (-0.01, None, (1.0, 1.0)),
    (-3000.0, math.inf, (1.0, 1.0)),
])
def test_a_search_whose_bounds_are_far_behind_gets_little_of_the_time(first, second, dear):
    both = runners(first, second)
    assert tuple(behind(both, place) for place in range(2)) == dear


def test_inputs_are_halved_once_by_each_method():
    small, wide = (bl.capture(torch.nn.Sequential(torch.nn.Linear(2, size), torch.nn.ReLU(), torch.nn.Linear(size, 1)),
                              torch.zeros(1, 2)) for size in (4, SMALL))
    assert distinct(Race().searches, small) == [Bisection(), Branching()]
    assert distinct(Race().searches, wide) == [Bisection(), Bisection(tight=True), Branching()]
    assert [one.chosen(wide).intermediate for one in distinct(Race().searches, wide)[:2]] == [bl.IBP(), None]
