"""How searches share the time."""

import math
from dataclasses import dataclass

import pytest
import torch

from boundlab.verify.options import Bisection, Branching
from boundlab.verify.race import LEAD, Runner, behind
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
