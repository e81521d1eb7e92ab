"""Points that are tried on boxes: random ones find what no slope leads to, and cost a problem without any a turn at most."""

import math
import time

import torch

import boundlab as bl
from boundlab.verify.options import Bisection
from boundlab.verify.probing import sampled
from boundlab.verify.splitting import bisection
from boundlab.verify.task import task_of_sets


class Cell(torch.nn.Module):
    """Negative on a small square of the plane, and flat everywhere."""

    def forward(self, x):
        inside = (torch.sign(x - 0.3) * torch.sign(0.37 - x)).sum(1, keepdim=True)
        return 1 - inside


def searched():
    """Two problems: a box that holds the square, and one beside it."""
    model = bl.capture(Cell(), torch.zeros(1, 2)).detached()
    box = bl.Box(torch.tensor([[0.0, 0.0], [0.5, 0.5]]), torch.tensor([[1.0, 1.0], [1.0, 1.0]]))
    return model, box, bl.at_least(torch.tensor([[[1.0]]]))


def test_random_points_find_what_is_flat_and_small():
    model, box, spec = searched()
    task = task_of_sets(model, {model.graph.inputs[0].name: box}, spec, None)
    state = bisection(task, torch.tensor([0, 1]), Bisection())
    found = sampled(task, state.boxes.worst(8)[0], math.inf)
    assert found.keys() == {0}
    point, = found[0].inputs.values()
    assert bool(((point > 0.3) & (point < 0.37)).all())
    after = state.step(time.perf_counter() + 20)
    assert after.witnesses.keys() == {0}
    assert after.boxes.worst(8)[0].owner.unique().tolist() == [1]


def test_nothing_is_drawn_when_time_is_over():
    model, box, spec = searched()
    task = task_of_sets(model, {model.graph.inputs[0].name: box}, spec, None)
    state = bisection(task, torch.tensor([0, 1]), Bisection())
    assert sampled(task, state.boxes.worst(8)[0], time.perf_counter() - 1) == {}
