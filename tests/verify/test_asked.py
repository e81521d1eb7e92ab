"""Specifications in Python on networks: verdicts, relations, several networks, and formulas that stay nested."""

from __future__ import annotations

import functools
import operator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import boundlab as bl
from boundlab.question.exact import Nested, Query
from boundlab.question.vnnlib import parse_vnnlib, write_vnnlib
from boundlab.verify.query import NUMPY, flat_values, problems


def network(inputs: int, outputs: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(inputs, 6), nn.ReLU(), nn.Linear(6, outputs)).to(dtype)
        net[2].weight.data *= 2
        return net


def captured(net: nn.Module, inputs: int = 2) -> bl.Model:
    dtype = next(net.parameters()).dtype
    return bl.capture(net, torch.zeros(2, inputs, dtype=dtype)).detached()


def flat_outputs(model: bl.Model, inputs: dict[str, Tensor]) -> np.ndarray:
    from boundlab.evaluate import evaluate_all
    values = evaluate_all(model, inputs)
    return torch.cat([values[index].flatten(1) for index in model.graph.outputs], 1).numpy()


def samples(query: Query, model: bl.Model, count: int = 300) -> int:
    """How many of random inputs of the query's boxes are counterexamples."""
    found, generator = 0, np.random.default_rng(0)
    for case in query.cases:
        low, high = case.lower.rounded(NUMPY[model.dtype]), case.upper.rounded(NUMPY[model.dtype])
        points = generator.uniform(low, high, (count, len(low))).astype(low.dtype)
        sizes = [int(np.prod(node.shape)) for node in model.graph.inputs]
        parts = torch.from_numpy(points).split(sizes, 1)
        fed = {node.name: part.reshape(-1, *node.shape) for node, part in zip(model.graph.inputs, parts, strict=True)}
        outputs = flat_outputs(model, fed)
        found += sum(query.accepts(x, y, NUMPY[model.dtype]) for x, y in zip(points, outputs, strict=True))
    return found


SAID = {
    "and": lambda x, y: (y[0] > y[1] - 1) & (y[2] <= 1),
    "or": lambda x, y: (y[0] > 0.8) | (y[1] > 0.6) | (y[2] < -0.5),
    "not": lambda x, y: ~((y[0] > 0.2) & (y[1] > 0.2)),
    "input": lambda x, y: (y[0] > x[0] - 0.2) | (y[1] - x.sum() < 0),
    "absolute": lambda x, y: abs(y - x[0]) <= 1,
    "largest": lambda x, y: y.max() < 0.7,
    "nested": lambda x, y: functools.reduce(operator.or_, [(y[i % 3] > i / 9) & (y[(i + 1) % 3] < 0.1 * i) for i in range(9)]),
    "nested twice": lambda x, y: functools.reduce(operator.or_, [
        (y[i % 3] > i / 9 - 0.5) & ((y[0] < 0.1 * i - 1) | ((x[0] < 0.1 * i) & (y[2] > y[1]))) for i in range(9)]),
}


@pytest.mark.parametrize("says", SAID.values(), ids=list(SAID))
@pytest.mark.parametrize("seed", range(3))
def test_verdicts_agree_with_samples_and_witnesses_with_the_query(says, seed: int) -> None:
    model = captured(network(2, 3, seed))
    query = bl.spec(model, says, box=(-0.5, 0.5))
    result, = bl.verify(model, query, timeout=10)
    bad = samples(query, model)
    assert result.verdict is not bl.Verdict.VERIFIED or bad == 0
    assert result.verdict.decided, result.notes
    assert (result.verdict is bl.Verdict.FALSIFIED) is (result.witness is not None)
    if result.witness is not None:
        assert result.witness.output.shape == (1, 3), "a witness has the network's own outputs"
        assert query.accepts(flat_values(result.witness.inputs, model), result.witness.output.numpy().reshape(-1), np.float32)


@pytest.mark.parametrize("name", ["nested", "nested twice"])
def test_what_is_nested_has_the_margin_of_its_formula(name: str) -> None:
    """The extended network's margins are positive exactly where the nested formula fails, in a type that is wide enough."""
    model = captured(network(2, 3, dtype=torch.float64))
    query = bl.spec(model, SAID[name], box=(-4, 4))
    assert any(isinstance(part, Nested) for case in query.cases for conjunct in case.unsafe for part in conjunct)
    batch, = problems(query, model)
    x = torch.rand(500, 2, dtype=torch.float64) * 8 - 4
    values = batch.spec.take(torch.tensor([0])).values(flat_values_of(batch.model, x))
    safe = (batch.spec.worst(values) > 0).tolist()
    outputs = flat_outputs(model, {model.graph.inputs[0].name: x})
    assert safe == [not query.accepts(point, y, np.float64) for point, y in zip(x.numpy(), outputs, strict=True)]
    assert 0 < sum(safe) < 500, "both kinds of points are among them"


def flat_values_of(model: bl.Model, x: Tensor) -> Tensor:
    return bl.evaluate(model, {model.graph.inputs[0].name: x})


@pytest.mark.parametrize("name", ["and", "or", "not", "input"])
def test_text_and_back_is_the_same_question(name: str) -> None:
    query = bl.spec(captured(network(2, 3)), SAID[name], box=(-0.5, 0.25), where=lambda x: x[0] + x[1] <= 0.25)
    again = parse_vnnlib(write_vnnlib(query))
    for one, other in zip(query.cases, again.cases, strict=True):
        assert one.unsafe == other.unsafe
        assert one.relations == other.relations
        assert (one.lower.nearest == other.lower.nearest).all() and (one.upper.nearest == other.upper.nearest).all()


def test_a_relation_among_inputs_helps_a_proof() -> None:
    """y = |x_0 - x_1| - (x_1 - x_0) is 0 where x_0 <= x_1, and up to 2 elsewhere in the box."""
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        net[2].weight.copy_(torch.tensor([[2.0, 0.0]]))
    model = captured(net)
    alone = bl.spec(model, lambda x, y: y[0] <= 0.25, box=(0, 1))
    related = bl.spec(model, lambda x, y: y[0] <= 0.25, box=(0, 1), where=lambda x: x[0] <= x[1])
    assert bl.verify(model, alone, timeout=10)[0].verdict is bl.Verdict.FALSIFIED
    assert bl.verify(model, related, timeout=10)[0].verdict is bl.Verdict.VERIFIED


def rounded(net: nn.Sequential) -> nn.Sequential:
    copy = network(net[0].in_features, net[2].out_features)
    copy.load_state_dict({name: value.half().float() for name, value in net.state_dict().items()})
    return copy


def test_a_network_and_its_rounded_copy_are_equivalent_up_to_what_rounding_does() -> None:
    net = network(2, 2)
    pair = bl.joined(f=captured(net), g=captured(rounded(net)))
    assert (len(pair.graph.inputs), list(pair.outputs)) == (1, ["f", "g"])
    x = torch.rand(2000, 2)
    with torch.no_grad():
        apart = float((net(x) - rounded(net)(x)).abs().max())
    assert apart > 0
    for eps, verdict in ((0.01, bl.Verdict.VERIFIED), (apart / 2, bl.Verdict.FALSIFIED)):
        query = bl.spec(pair, lambda x, f, g, eps=eps: abs(f - g) <= eps, box=(0, 1))
        result, = bl.verify(pair, query, timeout=30)
        assert result.verdict is verdict
        assert verdict is bl.Verdict.FALSIFIED or samples(query, pair) == 0


@pytest.mark.parametrize("sign, verdict", [(1, bl.Verdict.VERIFIED), (-1, bl.Verdict.FALSIFIED)])
def test_weights_that_are_not_negative_make_a_network_monotone(sign: float, verdict: bl.Verdict) -> None:
    net = network(2, 1)
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight.abs_()
        net[0].weight[:, 0] *= sign
    f = captured(net)
    name = f.graph.inputs[0].name
    pair = bl.joined(before=f, after=bl.moved(f, by="d"))
    query = bl.spec(pair, lambda x, d, before, after: after >= before - 1e-3, box={name: (-1, 1), "d": (0, 0.5)})
    result, = bl.verify(pair, query, timeout=30)
    assert result.verdict is verdict
    if result.witness is not None:
        x, d = (result.witness.inputs[key] for key in (name, "d"))
        with torch.no_grad():
            assert net(x + d) < net(x)


def test_joined_networks_compute_what_they_compute_alone() -> None:
    one, other = network(2, 3), network(2, 1, seed=1)
    f, g = captured(one), captured(other)
    name = f.graph.inputs[0].name
    x, z = torch.rand(5, 2), torch.rand(5, 2)
    with torch.no_grad():
        shared = flat_outputs(bl.joined(f=f, g=g), {name: x})
        apart = flat_outputs(bl.joined(f=f, g=bl.renamed(g, {name: "z"})), {name: x, "z": z})
        shifted = flat_outputs(bl.moved(f, by="d"), {name: x, "d": z})
        assert np.allclose(shared, torch.cat([one(x), other(x)], 1))
        assert np.allclose(apart, torch.cat([one(x), other(z)], 1))
        assert np.allclose(shifted, one(x + z))
    nested = bl.joined(p=bl.joined(f=f, g=g), q=f)
    assert list(nested.outputs) == ["p.f", "p.g", "q"]
    assert len(nested.params) == len(f.params) + len(g.params), "the same tensor is one parameter"


def test_bad_calls_are_refused() -> None:
    f = captured(network(2, 3))
    name = f.graph.inputs[0].name
    wide = captured(network(3, 3), 3)
    for call, error, message in (
            (lambda: bl.joined(), bl.ShapeError, "no network"),
            (lambda: bl.joined(f=f, g=wide), bl.ShapeError, "shapes"),
            (lambda: bl.joined(f=f, g=f.to(torch.float64)), bl.ShapeError, "torch.float64"),
            (lambda: bl.renamed(f, {"nothing": "x"}), bl.ShapeError, "no input 'nothing'"),
            (lambda: bl.renamed(f, {name: f.graph.output.name}), bl.ShapeError, "already"),
            (lambda: bl.moved(f, by=name), bl.ShapeError, "already"),
            (lambda: bl.moved(bl.moved(f, by="d"), by="e"), bl.ShapeError, "which input is moved"),
            (lambda: bl.spec(f, lambda x, y: y > 0, box=0.5), bl.SpecError, "got a float"),
            (lambda: bl.spec(f, lambda x, y: y > 0, box=(torch.zeros(1, 3), 1)), bl.SpecError, "do not fit"),
            (lambda: bl.spec(bl.moved(f, by="d"), lambda x, d, y: y > 0, box=(0, 1)), bl.SpecError, "boxes by name"),
            (lambda: bl.spec(f, lambda x, y: y > torch.zeros(3, requires_grad=True), box=(0, 1)), bl.SpecError, "gradients")):
        with pytest.raises(error, match=message):
            call()


def test_tensors_and_arrays_may_stand_on_either_side() -> None:
    f = captured(network(2, 3))
    low, matrix = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, -2.0]])
    ways = [bl.spec(f, says, box=(torch.zeros(2), np.ones(2))) for says in (
        lambda x, y: y - low >= 0, lambda x, y: low <= y, lambda x, y: low - y <= 0, lambda x, y: -y <= -low.numpy())]
    assert all(query.cases[0].unsafe == ways[0].cases[0].unsafe for query in ways)
    rows = bl.spec(f, lambda x, y: (matrix @ y > 0).all(), box=(0, 1)).cases[0].unsafe
    one = bl.spec(f, lambda x, y: (y[0] - y[1] > 0) & (y[1] - 2 * y[2] > 0), box=(0, 1)).cases[0].unsafe
    assert rows == one
