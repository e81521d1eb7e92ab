"""Tighter intervals on parts: what was found holds where the constraints do, and proofs that need it are accepted."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import boundlab as bl
from boundlab.certificates.check import check_certificate
from boundlab.evaluate import evaluate, evaluate_all
from boundlab.question.vnnlib import parse_vnnlib
from boundlab.verify.branching import branching
from boundlab.verify.narrowing import gathered
from boundlab.verify.options import Branching
from boundlab.verify.proof import Narrowed
from boundlab.verify.recording import certificate_of
from boundlab.verify.task import task_of_sets
from boundlab.verify.verdict import Verdict

D, INPUTS = torch.float64, 12
BOX = bl.Box(-torch.ones(1, INPUTS, dtype=D), torch.ones(1, INPUTS, dtype=D))


def shallow(seed: int, hidden: int = 32) -> bl.Model:
    """A network with one hidden layer, captured."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(INPUTS, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 2)).double()
    return bl.capture(net, torch.zeros(1, INPUTS, dtype=D)).detached()


def margin(model: bl.Model, seed: int) -> bl.Specification:
    """That one output is above the other, and some more than at any of many points: a little more than holds."""
    points = BOX.sample(5000, torch.Generator().manual_seed(seed))[:, 0]
    y = evaluate(model, {model.graph.inputs[0].name: points})
    return bl.at_least(torch.tensor([[[1.0, -1.0]]], dtype=D), (y[:, 1] - y[:, 0]).max().reshape(1, 1) + 0.25)


@pytest.mark.parametrize("seed", range(3))
def test_intervals_hold_where_the_constraints_do(seed):
    model, found = shallow(seed), 0
    task = replace(task_of_sets(model, {model.graph.inputs[0].name: BOX}, margin(model, seed), None), keep=True)
    state = branching(task, torch.tensor([0]), Branching(), math.inf)
    for _ in range(5):
        state = state.step(math.inf)
    waiting, (node,) = state.waiting, state.waiting.inner
    points = BOX.sample(20000, torch.Generator().manual_seed(seed))[:, 0]
    values = evaluate_all(model, {model.graph.inputs[0].name: points})[node]
    interval, whole = waiting.inner[node], state.expansion.ground.env[node]
    for part in range(len(waiting.goal)):
        splits = waiting.splits.take(torch.tensor([part]))
        inside = (splits.side * (values[:, splits.neuron[0]] - splits.point) >= 0).all(1)
        assert bool((interval.lower[part] <= values[inside] + 1e-9).all())
        assert bool((values[inside] <= interval.upper[part] + 1e-9).all())
        found += int((interval.width[part] < 0.98 * whole.width[0]).sum())
    assert found > 20


def test_proofs_that_need_them_are_accepted(tmp_path: Path):
    model = shallow(1)
    bl.save_onnx(model, tmp_path / "net.onnx")
    bl.save_vnnlib(model, BOX, margin(model, 1), tmp_path / "spec.vnnlib")
    query = parse_vnnlib(tmp_path / "spec.vnnlib")
    result, = bl.verify(bl.load_original(tmp_path / "net.onnx"), query, stages=(Branching(),), timeout=60)
    assert result.verdict is Verdict.VERIFIED
    certificate = certificate_of(result, tmp_path / "net.onnx", tmp_path / "spec.vnnlib")
    proof, = certificate.cases
    assert proof.narrowed is not None
    assert check_certificate(certificate, tmp_path / "net.onnx", tmp_path / "spec.vnnlib").accepted
    without = replace(certificate, cases=(replace(proof, narrowed=None),))
    assert not check_certificate(without, tmp_path / "net.onnx", tmp_path / "spec.vnnlib").accepted


def test_a_leaf_has_the_best_of_what_was_found_on_it_and_on_what_it_was_split_from():
    def ends(rows):
        part, neuron, side, point = zip(*rows, strict=True)
        whole = [torch.tensor(column) for column in (part, [7] * len(rows), neuron, side)]
        return Narrowed(*whole, torch.tensor(point), torch.tensor(point)[:, None])

    log = [ends([(0, 3, 1, -2.0), (0, 3, -1, 2.0), (1, 4, 1, -5.0)]), ends([(2, 3, 1, -1.0), (2, 3, -1, 2.5), (3, 3, 1, -3.0)])]
    found = gathered(log, torch.tensor([[0, 2], [1, -1], [0, 3]]))
    rows = zip(*(column.tolist() for column in (found.part, found.neuron, found.side, found.point)), strict=True)
    assert sorted(rows) == [(0, 3, -1, 2.0), (0, 3, 1, -1.0), (1, 4, 1, -5.0), (2, 3, -1, 2.0), (2, 3, 1, -2.0)]
    assert torch.equal(found.multiplier[:, 0], found.point)
    assert gathered([], torch.zeros(2, 0)) is None
