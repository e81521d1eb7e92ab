"""How searches share the time."""

import math
from dataclasses import dataclass

import pytest
import torch

import boundlab as bl
from boundlab.verify.options import SMALL, Bisection, Branching, Race
from boundlab.verify.race import LEAD, Runner, behind, distinct, searched
from boundlab.verify.search import Found
from boundlab.verify.standing import Standing
from boundlab.verify.task import task_of_sets


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
    assert [type(one) for one in distinct(Race().searches, small)] == [Bisection, Branching]
    assert [type(one) for one in distinct(Race().searches, wide)] == [Bisection, Bisection, Branching]
    assert [one.chosen(wide).intermediate for one in distinct(Race().searches, wide)[:2]] == [bl.IBP(), None]
    assert [one.method.intermediate for one in distinct(Race().searches, wide, [0])[:2]] == [bl.IBP(), None]


def test_what_does_not_vary_makes_a_network_no_larger():
    class Parts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.small, self.large = torch.nn.Linear(2, 4), torch.nn.Linear(2, SMALL)

        def forward(self, x):
            return torch.relu(self.small(x[:, :2])).sum(1, keepdim=True) + torch.relu(self.large(x[:, 2:])).sum(1, keepdim=True)

    model = bl.capture(Parts(), torch.zeros(1, 4))
    spec = bl.Specification(torch.ones(1, 1, 1), torch.zeros(1, 1), torch.tensor([0]))

    def methods(varying):
        upper = torch.zeros(1, 4)
        upper[:, varying] = 1.0
        task = task_of_sets(model, {model.graph.inputs[0].name: bl.Box(torch.zeros(1, 4), upper)}, spec, None)
        return [one.method.intermediate for one in searched(task, Standing(torch.zeros(1, 1)), Race().searches[:2])]

    assert methods(slice(0, 1)) == [None]
    assert methods(slice(2, 3)) == methods(slice(0, 4)) == [bl.IBP(), None]
