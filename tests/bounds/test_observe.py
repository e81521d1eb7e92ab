"""Watching changes nothing, and sees every node once and the rows that were pulled."""

import math
import time
from collections import Counter

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.bounds.intermediate import perturbed_nodes
from boundlab.bounds.observe import Deadline, Recorder, watched

METHODS = {
    "ibp": (bl.IBP(), set()), "crown": (bl.CROWN(), {"zonotope"}), "forward": (bl.Forward(), {"forms"}),
    "crown-ibp": (bl.CROWN(intermediate=bl.IBP()), set()), "one by one": (bl.CROWN(problems=1), {"zonotope"}),
}


@pytest.fixture(scope="module")
def question():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 3, stride=2), nn.ReLU(), nn.Flatten(),
                        nn.Linear(12, 4))
    x = torch.rand(3, 1, 6, 6)
    return bl.capture(net, x[:2]).detached(), bl.LpBall(x, 0.05)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("margins", [False, True])
def test_watching_changes_nothing_and_sees_every_node(question, name, margins):
    (model, ball), (method, own) = question, METHODS[name]
    spec = bl.margins(torch.tensor([0, 1, 2]), 4) if margins else None
    recorder, started = Recorder(), time.perf_counter()
    bounds = bl.bound(model, ball, method=method, spec=spec, observe=recorder)
    wall = time.perf_counter() - started
    plain = bl.bound(model, ball, method=method, spec=spec)
    assert torch.equal(bounds.lower, plain.lower)
    passes = 3 if method == bl.CROWN(problems=1) else 1
    varied = perturbed_nodes(model.graph, {model.graph.inputs[0].index: ball})
    inner = {node.index for node in model.graph if node.index in varied and not node.source}
    seen = Counter(step.node.index for step in recorder.steps if step.work == "interval")
    assert seen == dict.fromkeys(inner, passes)
    kinds = {step.work for step in recorder.steps}
    assert own <= kinds <= own | {"interval", "rows"}
    assert 0 < sum(step.seconds for step in recorder.steps) <= wall, "pieces of work do not overlap"
    assert all(step.memory is None or step.memory >= 0 for step in recorder.steps)
    at_output = sum(step.rows for step in recorder.steps if step.node == model.graph.output)
    assert at_output == (9 if margins else 24 if isinstance(method, bl.CROWN) else 0)


def test_rows_are_two_for_each_neuron_that_intervals_leave_open(question):
    model, ball = question
    recorder = Recorder()
    bl.bound(model, ball, method=bl.CROWN(filter=None), observe=recorder)
    first, second = [model.graph[node.args[0]] for node in model.graph if node.op == "relu"]
    interval = bl.bound(model, ball, method=bl.IBP()).intermediate[second.name]
    pulled = {step.node.index: step.rows for step in recorder.steps if step.work == "rows"}
    assert first.index not in pulled, "the box gives the first layer exactly"
    assert pulled[second.index] == 2 * int(((interval.lower < 0) & (interval.upper > 0)).sum()) > 0


def test_without_an_observer_a_step_is_the_function_itself():
    assert watched(None, "rows", max) is max


@pytest.mark.parametrize("name", METHODS)
def test_a_pass_ends_at_its_deadline(question, name):
    (model, ball), (method, _) = question, METHODS[name]
    with pytest.raises(bl.OutOfTime, match="before the interval of"):
        bl.bound(model, ball, method=method, observe=Deadline(time.perf_counter()))
    kept = bl.bound(model, ball, method=method, observe=Deadline(math.inf))
    assert torch.equal(kept.lower, bl.bound(model, ball, method=method).lower)


def test_rows_are_pulled_a_chunk_at_a_time_under_the_eyes_of_the_observer(question):
    """A deadline is looked at between chunks, however many neurons a layer has."""
    model, ball = question
    recorder = Recorder()
    bl.bound(model, ball, method=bl.CROWN(filter=None, max_rows=4), observe=recorder)
    rows = [step.rows for step in recorder.steps if step.work == "rows"]
    assert len(rows) > 4 and max(rows) <= 8


def test_no_rows_are_pulled_where_intervals_are_exact():
    """A bias or a scale after a linear function of the box loses nothing, however the network spells it."""
    class Spelled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias, self.last = nn.Parameter(torch.randn(9, 4)), nn.Parameter(torch.randn(9)), nn.Linear(9, 3)

        def forward(self, x):
            return self.last(torch.relu(-(x @ self.weight.T * 3.0 + self.bias).reshape(-1, 3, 3)).flatten(1))

    torch.manual_seed(3)
    x = torch.rand(2, 4)
    model, recorder = bl.capture(Spelled(), x).detached(), Recorder()
    found = bl.bound(model, bl.LpBall(x, 0.3), method=bl.CROWN(filter=None), observe=recorder)
    assert {step.node.index for step in recorder.steps if step.work == "rows"} == {model.graph.output.index}
    corners = (x[None] + 0.3 * (2 * torch.cartesian_prod(*[torch.arange(2)] * 4)[:, None] - 1)).flatten(0, 1)
    inner = model.graph[next(node for node in model.graph if node.op == "relu").args[0]]
    values = bl.evaluate(model.up_to(inner.name), corners).reshape(16, 2, *inner.shape)
    torch.testing.assert_close(found.intermediate[inner.name].lower, values.amin(0))
    torch.testing.assert_close(found.intermediate[inner.name].upper, values.amax(0))
