"""Wrong calls from Python end in one of boundlab's own errors, which says what was found and what to do."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import boundlab as bl


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


NET = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
X = torch.linspace(0, 1, 24).reshape(3, 8)
BALL = bl.LpBall(X, 0.1)
MODEL = bl.capture(NET, X).detached()
CALLS = {
    "center that is no tensor": (lambda: bl.LpBall(X.numpy(), 0.1), "must be a tensor"),
    "center without axes": (lambda: bl.LpBall(torch.tensor(0.5), 0.1), "batch axis"),
    "eps in words": (lambda: bl.LpBall(X, "0.1"), "a radius must be a number"),
    "p in words": (lambda: bl.LpBall(X, 0.1, p="inf"), "p >= 1"),
    "box of numbers": (lambda: bl.Box(0.0, 1.0), "must be tensors"),
    "labels that are not whole": (lambda: bl.margins(torch.tensor([0.0, 1.0]), 3), "whole numbers"),
    "module for a model": (lambda: bl.bound(NET, BALL), "bl.capture"),
    "tuple for a set": (lambda: bl.bound(MODEL, (X, X)), "perturbation set"),
    "set without a batch axis": (lambda: bl.bound(MODEL, bl.LpBall(X[0], 0.1)), r"shape \(8,\), .* takes \(batch, 8\)"),
    "method by name": (lambda: bl.bound(MODEL, BALL, method="crown"), "got 'crown'"),
    "method as a class": (lambda: bl.bound(MODEL, BALL, method=bl.CROWN), "a method is a value"),
    "inner method by name": (lambda: bl.CROWN(intermediate="ibp"), "got 'ibp'"),
    "engine by name": (lambda: bl.LP(engine="pool"), "an engine is a value"),
    "engine as a class": (lambda: bl.MILP(engine=bl.Pool), "an engine is a value"),
    "slopes by name": (lambda: bl.CROWN(alpha="parallel"), "got 'parallel'"),
    "specification of another type": (
        lambda: bl.bound(MODEL, BALL, spec=bl.margins([0, 1, 2], 3, torch.float64)), "float64, the network torch.float32"),
    "known bounds of no node": (lambda: bl.bound(MODEL, BALL, known={"nope": bl.Interval(X, X)}), "'nope', which is no node"),
    "known bounds of another shape": (
        lambda: bl.bound(MODEL, BALL, known={"1": bl.Interval(X, X)}), r"an Interval of shape \(batch, 4\)"),
    "known bounds of another kind": (lambda: bl.bound(MODEL, BALL, known={"0": (X, X)}), "an Interval"),
    "a shape for an example": (lambda: bl.capture(NET, (8,)), "example tensor"),
    "an example without a batch axis": (lambda: bl.capture(NET, X[0]), "batch axis first"),
    "a branch on values": (lambda: bl.capture(Branching(), X), r"test_bad_calls.py:\d+.*must be rewritten"),
}

SPEC, DATA, HEAVY = bl.margins([0, 1, 2], 3), bl.Examples(X, torch.tensor([0, 1, 2])), bl.WeightThreat(0.1)
MODULES = {
    "verify": lambda: bl.verify(NET, BALL, SPEC),
    "radius": lambda: bl.radius(NET, X, SPEC),
    "certify": lambda: bl.certify(NET, DATA, 0.1),
    "flatness": lambda: bl.flatness(NET, DATA, HEAVY),
    "landscape": lambda: bl.landscape(NET, DATA, HEAVY),
    "evaluate": lambda: bl.evaluate(NET, X),
    "renamed": lambda: bl.renamed(NET, {"input": "x"}),
    "moved": lambda: bl.moved(NET, "d"),
    "spec": lambda: bl.spec(NET, lambda x, y: y[0] > y[1], box=(X[0], X[0])),
    "weight_ball": lambda: bl.weight_ball(NET, "*", eps=0.1),
    "save_onnx": lambda: bl.save_onnx(NET, "net.onnx"),
    "save_vnnlib": lambda: bl.save_vnnlib(NET, BALL, SPEC, "net.vnnlib"),
}
CALLS |= {f"module for a model: {name}": (call, "got Sequential; bl.capture") for name, call in MODULES.items()}
CALLS |= {
    "certify a tuple": (lambda: bl.certify(MODEL, (X, [0, 1, 2]), 0.1), r"bl.Examples\(x, labels\), got tuple"),
    "fit a tuple": (lambda: bl.fit(NET, (X, [0, 1, 2]), bl.RobustIBP(), eps=0.1), "got tuple"),
    "flatness of a tuple": (lambda: bl.flatness(MODEL, (X, [0, 1, 2]), HEAVY), "got tuple"),
    "flatness of inputs": (lambda: bl.flatness(MODEL, DATA, bl.Threat(0.1)), "bl.WeightThreat"),
}


PLAN = bl.TrainingPlan(epochs=1, batch=3, ramp=bl.Ramp(0, 1), validation=None)
CALLS |= {
    "method of training as a class": (lambda: bl.fit(NET, DATA, bl.TAPS, eps=0.1), "such as bl.CrownIBP"),
    "a true number of layers": (lambda: bl.TAPS(layers=True), "layers must be a whole number"),
    "weight in words": (lambda: bl.TAPS(attack_weight="5"), "attack_weight must be a number, got '5'"),
    "one weight of two": (lambda: bl.TAPS(natural_weight=0.5), "natural_weight is a pair"),
    "attack of another kind": (lambda: bl.TAPS(inner=bl.PGD()), r"inner is a value such as Ascent\(steps=8\), got PGD"),
    "attack by name": (lambda: bl.STAPS(attack="pgd"), "attack is a value such as"),
    "part in words": (lambda: bl.STAPS(part="half"), "part is a pair of numbers"),
    "no scale": (lambda: bl.ByMargin(scale=None), "scale must be a number, got None"),
    "averaging in words": (lambda: bl.Averaging("now"), "start must be a number, got 'now'"),
    "averaging as a class": (lambda: replace(PLAN, averaging=bl.Averaging), "averaging is a value such as"),
    "processes as a number": (lambda: replace(PLAN, processes=2), r"such as Processes.running\(\), got 2"),
    "processes in words": (lambda: bl.Processes("0", 2), "number must be a number, got '0'"),
    "processes without a group": (
        lambda: bl.fit(NET, DATA, bl.RobustIBP(), eps=0.1, plan=replace(PLAN, processes=bl.Processes(0, 2))), "by torchrun"),
    "what is assumed, in words": (lambda: bl.Branching(negation="yes"), "negation is True or False, got 'yes'"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_call_is_refused_in_words(call, capfd):
    wrong, words = CALLS[call]
    with pytest.raises(bl.BoundlabError, match=words):
        wrong()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("labels", [[2, 0, 1], torch.tensor([2, 0, 1], dtype=torch.uint8)])
def test_labels_of_any_whole_type(labels):
    assert torch.equal(bl.margins(labels, 3).rows, bl.margins(torch.tensor([2, 0, 1]), 3).rows)


def test_bounds_print_as_bounds_only():
    assert len(repr(bl.bound(MODEL, BALL))) < 600
