"""What a search takes inner intervals to be, the checker derives from what the proof keeps of them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.bounds import climb
from boundlab.bounds.groups import ground_of
from boundlab.bounds.optimise import Optimised
from boundlab.bounds.problem import problem_of
from boundlab.bounds.space import Own
from boundlab.certificates.batches import batch_of
from boundlab.certificates.checker import derive_frames
from boundlab.certificates.leaves import places_of
from boundlab.certificates.network import Nonlinear
from boundlab.certificates.reading import read_network
from boundlab.exchange.onnx_file import onnx_of
from boundlab.verify import branching
from boundlab.verify.exactly import queries_of
from boundlab.verify.proof import inner_of, plain_of, whole
from boundlab.verify.recording import Names, case_proof


def question(seed):
    """A network of which some neurons are open on a box, and a specification that is about its output."""
    torch.manual_seed(seed)
    layers = [nn.Linear(6, 40), *(nn.Linear(40, 40) for _ in range(3))]
    net = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())), nn.Linear(40, 1)).double()
    x = torch.rand(1, 6, dtype=torch.float64)
    model = bl.capture(net, x).detached()
    radius = 0.3 * float(10 ** (-1.5 * torch.rand(1)))
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    return model, {model.graph.inputs[0].name: bl.Box(x - radius, x + radius)}, bl.Specification(one, one[0], torch.tensor([0]))


@pytest.mark.parametrize("looks", [6, 15, 10**6])  # at the clock, after which nothing climbs
@pytest.mark.parametrize("seed", [0, 1, 158, 253])  # in the last two the base settles neurons that later plain lines do not
def test_the_checker_derives_the_intervals_that_a_search_begins_with(seed, looks, monkeypatch):
    left = iter(range(looks))
    monkeypatch.setattr(climb, "time", SimpleNamespace(perf_counter=lambda: float(next(left, None) is None)))
    model, sets, spec = question(seed)
    problem = problem_of(model, sets, spec)
    envs, kept = Optimised(bl.CROWN(), inner=True, keep=True, steps=10, deadline=0.5).stages(problem)
    ground = ground_of(problem, envs[-1], Own())
    leaf = whole(torch.ones(1, 1, dtype=torch.float64), plain_of(model.graph, ground.env, torch.zeros(1, dtype=torch.long)))
    query, network = queries_of(model, sets, spec, torch.arange(1))[0], read_network(onnx_of(model, torch.float64))
    places = places_of(network)
    proof = case_proof(replace(leaf, inner=inner_of(ground, kept, 0)), query.cases[0], Names(model.graph, places)).whole()
    known = derive_frames(network, batch_of(network, [query.cases[0]], [proof]), places, (np.arange(1), np.arange(1)), False)
    steps = [step.arguments[0] for step in network.steps if isinstance(step, Nonlinear)]
    count = 0
    for step, node in zip(steps, [node.args[0] for node in model.graph if node.op == "relu"], strict=True):
        low, high = (end[:, 0] for end in known.ends[step])
        lower, upper = (end[0].numpy() for end in (envs[-1][node].lower, envs[-1][node].upper))
        open_ = (lower < 0) & (upper > 0)
        assert (((low < 0) & (high > 0)) == open_).all()
        assert (lower - low)[open_].max(initial=0) < 1e-6 and (high - upper)[open_].max(initial=0) < 1e-6
        count += open_.sum()
    assert count > 4


@pytest.mark.parametrize("negation", [False, True])
def test_problems_that_share_a_box_share_what_is_kept_of_it(negation, monkeypatch):
    """One set and two specifications: the intervals are those of both, and so is what proofs need of them."""
    monkeypatch.setattr(branching, "EASY", 0)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)).double()
    model, x = bl.capture(net, torch.zeros(1, 4, dtype=torch.float64)).detached(), torch.zeros(1, 4, dtype=torch.float64)
    box, rows = bl.Box(x - 1, x + 1), torch.eye(2, dtype=torch.float64)[:, None]
    loose, tight = (bl.bound(model, box, method=method).lower[0] for method in (bl.CROWN(), bl.Optimised()))
    spec = bl.Specification(rows, -(loose + tight)[:, None] / 2, torch.tensor([0]))
    results = bl.verify(model, box, spec, stages=(bl.Branching(negation=negation),), timeout=60)
    assert [(result.verdict, result.rigour) for result in results] == [(bl.Verdict.VERIFIED, bl.Rigour.SOUND)] * 2
    assert all(result.proofs[0].inner for result in results)
