"""Rows of a specification that reach a part of a network only: the rest needs no bounds, and the rows' are the same."""

import numpy as np
import pytest
import torch
from onnx import helper
from torch import nn

import boundlab as bl
import boundlab.bounds.reach as reach
from boundlab.bounds.observe import Recorder
from boundlab.bounds.problem import problem_of
from boundlab.spec import Specification
from tests.capture.onnx_nets import save


class Residual(nn.Module):
    """Convolutions along two paths, and a map of outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = (nn.Conv2d(i, o, 3, padding=1) for i, o in ((1, 3), (3, 3), (3, 2)))

    def forward(self, x):
        h = self.first(x).relu()
        return self.last((h + self.second(h)).relu())


@pytest.fixture(scope="module")
def question():
    torch.manual_seed(0)
    x = torch.rand(2, 1, 12, 12)
    model = bl.capture(Residual(), x).detached()
    rows = torch.zeros(2, 3, 2, 12, 12)
    rows[0, 0, 0, 5, 5], rows[0, 1, 1, 5, 5], rows[0, 2, 0, 5, 6] = 1, -1, 1  # the problems ask at different places
    rows[1, :, 0, 0, 0] = 1
    return model, bl.LpBall(x, 0.05), Specification(rows, torch.zeros(2, 3), torch.arange(3))


def test_places_grow_by_a_cell_at_each_convolution(question, monkeypatch):
    model, ball, spec = question
    monkeypatch.setattr(reach, "FEWEST", 0)
    found = reach.reached(problem_of(model, ball, spec))
    second = next(node for node in model.graph if node.op == "add")
    places = found[second.index].any(1)  # of some channel
    assert places[0].nonzero().amin(0).tolist() == [4, 4] and places[0].nonzero().amax(0).tolist() == [6, 7]
    assert places[1].nonzero().amax(0).tolist() == [1, 1]
    assert reach.reached(problem_of(model, ball)) is None, "the whole output is asked about"


@pytest.mark.parametrize("method", [bl.CROWN(), bl.CROWN(filter=None), bl.Optimised(steps=2, inner=True)])
def test_rows_have_the_same_bounds_from_fewer_rows(question, monkeypatch, method):
    model, ball, spec = question
    found = []
    for fewest in (10**9, 0):
        monkeypatch.setattr(reach, "FEWEST", fewest)
        recorder = Recorder()
        bounds = bl.bound(model, ball, method=method, spec=spec, observe=recorder)
        found.append((bounds.lower, sum(step.rows for step in recorder.steps if step.work == "rows")))
    (every, many), (some, few) = found
    torch.testing.assert_close(every, some)
    assert few < many / 2


def test_all_is_read_of_what_has_no_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(reach, "FEWEST", 0)
    nodes = [helper.make_node("Mul", ["x", "two"], ["double"]), helper.make_node("ArgMax", ["double"], ["y"], axis=1),
             helper.make_node("Cast", ["y"], ["z"], to=1)]
    model = bl.load_onnx(save(tmp_path / "net.onnx", nodes, {"x": (1, 3, 4)}, {"two": np.array(2, np.float32)}, ["z"]))
    rows = torch.zeros(1, 1, *model.graph.output.shape)
    rows[..., 2] = 1
    spec = Specification(rows, torch.zeros(1, 1), torch.zeros(1).long())
    found = reach.reached(problem_of(model, bl.LpBall(torch.rand(1, 3, 4), 0.5), spec))
    (doubled,) = (node for node in model.graph if node.op == "mul")
    assert bool(found[doubled.index].all())


def test_all_is_read_of_a_softmax_whose_lines_underflow(monkeypatch):
    class Shares(nn.Module):
        def forward(self, x):
            return (x * 300).softmax(1)

    monkeypatch.setattr(reach, "FEWEST", 0)
    model = bl.capture(Shares(), torch.rand(2, 3))
    ball = bl.LpBall(torch.tensor([[0.0, 0.5, 5.0]]), 0.1)  # the last share is 1 in float32
    spec = Specification(torch.tensor([[[1.0, -1.0, 0.0]]]), torch.zeros(1, 1), torch.zeros(1).long())
    found = reach.reached(problem_of(model, ball, spec))
    assert bool(found[model.graph.inputs[0].index].all())


def test_intervals_that_are_infinite_tell_nothing(monkeypatch):
    class Quotient(nn.Module):
        def forward(self, x):
            return 1 / (x + 1)

    monkeypatch.setattr(reach, "FEWEST", 0)
    model = bl.capture(Quotient(), torch.rand(2, 3))
    ball = bl.LpBall(torch.zeros(1, 3), 2.0)
    assert reach.reached(problem_of(model, ball, bl.margins(torch.tensor([0]), 3))) is None
