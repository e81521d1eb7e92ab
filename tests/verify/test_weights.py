"""Attacks and verdicts where parameters vary: alone, together, and beside the inputs."""

import math

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab import LpBall, Verdict

F64 = torch.float64


def setting(seed=0):
    """A small network with its inputs and a specification that holds at the unperturbed weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 3)).double()
        x = torch.rand(4, 3, dtype=F64)
    return module, bl.capture(module, x).detached(), x, bl.margins(module(x).argmax(1), 3, F64)


def sets_of(model, x, kind, p, eps):
    own = bl.weight_ball(model, "*", eps=eps, norm=p, joint="joint" in kind)
    if kind == "joint with input":
        names = ["input", *model.params]
        return {tuple(names): bl.joint_ball([x, *(model.params[name][None] for name in names[1:])], 2 * eps, p)}
    return {"input": LpBall(x, eps) if kind == "with input" else x, **own}


KINDS = ["apart", "joint", "with input", "joint with input"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_points_of_an_attack_lie_in_their_sets_and_give_their_margins(kind, p):
    module, model, x, spec = setting()
    sets = sets_of(model, x, kind, p, 0.1)
    found = bl.attack(model, sets, spec, bl.PGD(steps=15, restarts=2))
    assert set(found.points) == {name for key in sets if not torch.is_tensor(sets[key])
                                 for name in ((key,) if isinstance(key, str) else key)}
    natural = spec.values(module(x).detach())
    assert bool((found.worst <= spec.worst(natural) + 1e-12).all()) and bool((found.worst < spec.worst(natural)).any())
    for problem in range(4):
        one = {name: value[problem:problem + 1] for name, value in found.points.items()}
        weights = {name: one.get(name, model.params[name][None])[0] for name in model.params}
        y = torch.func.functional_call(module, weights, (one.get("input", x[problem:problem + 1]),))
        assert torch.allclose(spec.take(torch.tensor([problem])).values(y)[0], found.margins[problem], rtol=1e-9)
    for key, region in sets.items():
        if torch.is_tensor(region):
            continue
        point = found.points[key] if isinstance(key, str) else torch.cat([found.points[name].flatten(1) for name in key], 1)
        assert torch.allclose(region.project(point), point, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_verdicts_are_proofs_and_replayed_weights(kind):
    module, model, x, spec = setting()
    small, large = sets_of(model, x, kind, 2.0, 1e-4), sets_of(model, x, kind, 2.0, 1.0)
    assert {result.verdict for result in bl.verify(model, small, spec, rigour=bl.Rigour.FLOAT)} == {Verdict.VERIFIED}
    results = bl.verify(model, large, spec)
    assert {result.verdict for result in results} == {Verdict.FALSIFIED}
    for problem, result in enumerate(results):
        weights = {name: result.witness.inputs[name][0] for name in model.params}
        y = torch.func.functional_call(module, weights, (result.witness.inputs["input"],))
        assert torch.allclose(y, result.witness.output) and bool(spec.take(torch.tensor([problem])).worst(spec.take(
            torch.tensor([problem])).values(y)) <= 0)


def test_verdicts_do_not_depend_on_the_batch():
    _, model, x, spec = setting(1)
    sets = sets_of(model, x, "apart", 2.0, 0.03)
    together = bl.verify(model, sets, spec)
    for problem in range(4):
        one = torch.tensor([problem])
        alone, = bl.verify(model, {**sets, "input": x[one]}, spec.take(one))
        assert alone.verdict == together[problem].verdict
        assert torch.allclose(alone.lower, together[problem].lower, rtol=1e-9, equal_nan=True)


def test_one_network_with_one_set_of_weights_is_one_problem():
    _, model, x, spec = setting()
    result, = bl.verify(model, sets_of(model, x[:1], "apart", 2.0, 1e-4), spec.take(torch.tensor([0])),
                        rigour=bl.Rigour.FLOAT)
    assert result.verdict is Verdict.VERIFIED


def test_convolutions_and_batch_norm_are_attacked_with_weights_of_their_own():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4), nn.ReLU(),
                               nn.ConvTranspose2d(4, 2, 2, stride=2), nn.Flatten(), nn.Linear(128, 3)).double().eval()
        x = torch.rand(2, 2, 4, 4, dtype=F64)
    model, spec = bl.capture(module, x).detached(), bl.margins([0, 1], 3, F64)
    sets = {"input": x, **bl.weight_ball(model, [name for name, _ in module.named_parameters()], eps=0.2)}
    found = bl.attack(model, sets, spec, bl.PGD(steps=5, restarts=2))
    for problem in range(2):
        weights = {name: value[problem] for name, value in found.points.items()}
        y = torch.func.functional_call(module, weights, (x[problem:problem + 1],))
        assert torch.allclose(spec.take(torch.tensor([problem])).values(y)[0], found.margins[problem], rtol=1e-9)
