"""Proofs that searches keep become certificates that the checker accepts; what is not proven gets none."""

import dataclasses
import functools
import math
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

import boundlab as bl
from boundlab.certificates.batches import joined
from boundlab.certificates.certificate import CaseProof, Certificate
from boundlab.certificates.checker import case_bounds, check_proofs, each_case
from boundlab.certificates.curves import EXP
from boundlab.certificates.file import save
from boundlab.certificates.functions import lines_of
from boundlab.certificates.leaves import places_of
from boundlab.certificates.logsumexp import LogShares, LogSumExp
from boundlab.certificates.mend import boxes, halved, mended, taken
from boundlab.certificates.reading import read_network
from boundlab.cli.app import app
from boundlab.interval import Interval
from boundlab.ops import lookup
from boundlab.question.vnnlib import parse_vnnlib
from boundlab.verify.branching import branching
from boundlab.verify.proof import planes
from boundlab.verify.recording import Names, case_proof, certificate_of
from boundlab.verify.splitting import bisection
from boundlab.verify.task import task_of_sets
from boundlab.verify.verdict import Verdict
from tests.certificates.models import model, query_text
from tests.verify.questions import files_of

STAGES = {"bisection": (bl.Bisection(boxes=16),), "branching": (bl.Branching(base=bl.CROWN(), candidates=4),),
          "branching on optimised intervals": (bl.Branching(candidates=4),), "crown": (bl.CROWN(),), "all": bl.LADDER}
SLACK = {"crown": 1.0}
"""How far above its sampled minimum a network has to stay, as a share of its range; other stages split."""


def ask(tmp_path_factory, function, seed, share):
    network, spec = files_of(function, seed, share, tmp_path_factory.getbasetemp())
    return network, spec, bl.load_original(network), parse_vnnlib(spec)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("function", ["Relu", "Tanh"])
def test_what_is_proven_is_accepted(name, function, tmp_path_factory, tmp_path):
    network, spec, original, query = ask(tmp_path_factory, function, 1, SLACK.get(name, 0.05))
    result, = bl.verify(original, query, stages=STAGES[name], timeout=60)
    assert result.verdict is Verdict.VERIFIED and result.rigour is bl.Rigour.CHECKED
    save(certificate_of(result, network, spec), tmp_path / "proof.zip")
    found = bl.check_certificate(tmp_path / "proof.zip", network, spec)
    assert found.accepted and found.margin > 0 and (found.leaves > 2 or name in ("crown", "all"))


@pytest.mark.parametrize("name", STAGES)
def test_what_is_proven_of_a_graph_is_derived_again(name, tmp_path_factory):
    """Without the file the checker reads what the graph is written as."""
    _, _, original, query = ask(tmp_path_factory, "Relu", 1, SLACK.get(name, 0.05))
    result, = bl.verify(original.model, query, stages=STAGES[name], timeout=60)
    assert result.verdict is Verdict.VERIFIED and result.rigour is bl.Rigour.SOUND


@pytest.mark.parametrize("function", ["Relu", "Tanh"])
def test_slopes_that_a_search_did_not_keep_are_made_again(function, monkeypatch, tmp_path_factory):
    network, spec, original, query = ask(tmp_path_factory, function, 1, 0.05)
    kept, = bl.verify(original, query, stages=(bl.Bisection(),), timeout=60)
    monkeypatch.setattr(sys.modules["boundlab.verify.splitting"], "HELD", 0)
    again, = bl.verify(original, query, stages=(bl.Bisection(),), timeout=60)
    assert again.verdict is Verdict.VERIFIED and again.rigour is bl.Rigour.CHECKED
    (first,), (second,) = (certificate_of(result, network, spec).cases for result in (kept, again))
    assert len(first.clause) == len(second.clause) > 2 and set(first.plain) == set(second.plain) != set()


def test_floating_point_alone_makes_no_certificate(tmp_path_factory):
    network, spec, original, query = ask(tmp_path_factory, "Relu", 1, 0.05)
    result, = bl.verify(original, query, timeout=60, rigour=bl.Rigour.FLOAT)
    assert result.verdict is Verdict.VERIFIED and result.rigour is bl.Rigour.FLOAT and result.proofs == ()
    with pytest.raises(bl.CertificateError, match="rounding is not counted"):
        certificate_of(result, network, spec)


def test_a_proof_of_another_property_is_not_verified(tmp_path_factory):
    """The proof of an easy property, put before a false one: the checker sees that it does not hold there."""
    network, _, original, query = ask(tmp_path_factory, "Relu", 1, 0.05)
    result, = bl.verify(original, query, stages=(bl.Bisection(),), timeout=60)
    _, _, _, false_query = ask(tmp_path_factory, "Relu", 1, -0.3)
    read = read_network(network.read_bytes())
    assert check_proofs(read, query, result.certified).accepted
    found = check_proofs(read, false_query, result.certified)
    assert not found.accepted and "shows clause" in found.reason


def test_weights_at_places_that_fill_short_clauses_are_those_of_their_first_row(tmp_path_factory):
    """Rows there are the first one again, and which of two equal rows is the best one is nobody's to say."""
    network, _, original, query = ask(tmp_path_factory, "Relu", 1, 1.0)
    result, = bl.verify(original, query, stages=(bl.CROWN(),), timeout=60)
    (proof,), (case,) = result.proofs, query.cases
    sizes = torch.tensor([len(one) for one in case.unsafe])[proof.clause]
    assert int(sizes.amin()) == 1 < int(sizes.amax()) == proof.weights.shape[1]
    moved = torch.where((sizes == 1)[:, None], proof.weights.roll(1, dims=1), proof.weights)
    read = read_network(Path(network).read_bytes())
    names = Names(original.model.graph, places_of(read))
    honest, other = (case_proof(one, case, names).whole() for one in (proof, dataclasses.replace(proof, weights=moved)))
    assert not torch.equal(moved, proof.weights) and (honest.weights == other.weights).all()
    assert check_proofs(read, query, [other]).accepted


@pytest.mark.parametrize("seed", range(3))
def test_planes_around_a_softmax_are_those_of_the_checker(seed):
    """With the slopes of a search's planes the checker's lines, put together, are these planes; shares lie between."""
    torch.manual_seed(seed)
    low, share = 2 * torch.randn(1, 2, 4, dtype=torch.float64), torch.rand(2, 1, 1, 2, 4, dtype=torch.float64)
    x = Interval(low, low + torch.rand_like(low))
    graph = bl.capture(torch.nn.Softmax(-1), low).graph
    node = next(one for one in graph if one.op == "softmax")
    free = {"lower": 0.05 + 0.9 * share[0], "upper": share[1]}
    bound = lookup("softmax").lines(x, alpha=free, **node.attrs)
    pairs = [[part.numpy().reshape(2, 4) for part in pair] for pair in
             planes(node, {node.args[0]: x}, free, torch.zeros(1, dtype=torch.long))]
    ends = [(x.lower[0, :, k:k + 1].numpy(), x.upper[0, :, k:k + 1].numpy()) for k in range(4)]
    mixing = lines_of(LogSumExp(4), ends, [(pairs[1][0][:, k:k + 1], pairs[1][1][:, k:k + 1]) for k in range(4)])
    flat = [end.numpy().reshape(8, 1) for end in (x.lower, x.upper)]
    share_ends = LogShares(np.arange(8).reshape(2, 4)).within((flat[0], flat[1]))
    powers = lines_of(EXP, [share_ends], [(pairs[0][0].reshape(8, 1), pairs[0][1].reshape(8, 1))])
    for point in x.lower + torch.rand(20, 2, 4, dtype=torch.float64) * x.width:
        z = point.numpy()
        above, below = (sum(slopes[k] * z[:, k:k + 1] for k in range(4)) + rest for slopes, rest in
                        ((mixing.upper, mixing.high), (mixing.lower, mixing.low)))
        found = [(slopes[0] * (z - level).reshape(8, 1) + rest).reshape(2, 4) for slopes, level, rest in
                 ((powers.lower, above, powers.low), (powers.upper, below, powers.high))]
        for own, side in zip(found, (bound.lower, bound.upper), strict=True):
            columns = point.reshape(1, 1, 2, 4)
            exact = (side.maps[0].push(columns) + side.bias)[0, 0].numpy()
            assert np.abs(own - exact).max() < 1e-9
        assert (found[0] <= torch.softmax(point, -1).numpy() + 1e-12).all() and (
            torch.softmax(point, -1).numpy() <= found[1] + 1e-12).all()


def without_help(proof: CaseProof) -> CaseProof:
    """The whole box with the checker's own lines."""
    whole = taken(proof, np.array([int(np.flatnonzero(proof.clause == clause)[0]) for clause in (0, 1)]), fresh=True)
    none = whole.step[:, :0]
    return dataclasses.replace(whole, step=none, neuron=none, side=none, point=none * 0.0, multiplier=none * 0.0, lines={},
                               inner={}, plain={})


def test_proofs_that_fall_short_are_mended(tmp_path_factory):
    network, spec, original, query = ask(tmp_path_factory, "Relu", 1, 0.05)
    result, = bl.verify(original, query, stages=(bl.Bisection(),), timeout=60)
    certificate = certificate_of(result, network, spec)
    read = read_network(network.read_bytes())
    short = without_help(certificate.cases[0])
    (_, said), = each_case(read, query.cases, (short,))
    assert not said.accepted and said.short
    whole = mended(read, query.cases[0], short, places_of(read), said.short)
    found = bl.check_certificate(Certificate(certificate.network, certificate.spec, (whole,)), network, spec)
    assert found.accepted and found.leaves > short.leaves


def test_halves_cover_their_leaf_and_joining_loses_nothing(tmp_path_factory):
    network, _, original, query = ask(tmp_path_factory, "Relu", 1, 0.05)
    result, = bl.verify(original, query, stages=(bl.Branching(base=bl.CROWN(), candidates=4),), timeout=60)
    proof = result.certified[0]
    read = read_network(network.read_bytes())
    case, places = query.cases[0], places_of(read)
    both = halved(proof, case, read)
    lower, upper = boxes(proof, case, read)
    low, high = (end.reshape(-1, 2, 3) for end in boxes(both, case, read))
    assert np.array_equal(low.min(1), lower) and np.array_equal(high.max(1), upper)
    assert np.isclose((high - low).prod(2).sum(1), (upper - lower).prod(1)).all()
    assert check_proofs(read, query, (both,)).accepted
    middle = proof.leaves // 2
    parts = [taken(proof, np.arange(middle), fresh=False), taken(proof, np.arange(middle, proof.leaves), fresh=True)]
    whole = joined(parts, [0] * len(parts))
    np.testing.assert_allclose(case_bounds(read, case, whole, places), case_bounds(read, case, proof, places))


def test_searches_side_by_side_decide_what_either_can():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 12), torch.nn.ReLU(), torch.nn.Linear(12, 12), torch.nn.ReLU(),
                                 torch.nn.Linear(12, 2))
    model, x = bl.capture(module, torch.zeros(2, 3)).detached(), torch.randn(4, 3)
    box = bl.Box(x - 0.5, x + 0.5)
    low = bl.evaluate(model, box.sample(20000).flatten(0, 1)).reshape(4, -1, 2).amin(1)
    spec = bl.at_least(torch.eye(2).expand(4, 2, 2), 0.05 - low)
    searches = (bl.Bisection(), bl.Branching(base=bl.CROWN()))
    for stages in ((bl.Race(searches),), (bl.Race(searches[::-1]),), *((search,) for search in searches)):
        assert all(result.verdict is Verdict.VERIFIED for result in bl.verify(model, box, spec, stages=stages, timeout=60))


def test_what_one_search_has_decided_the_other_leaves_alone():
    """A state without some problems says nothing of them, and what it says of the others is what it says of all."""
    torch.manual_seed(1)
    module = torch.nn.Sequential(torch.nn.Linear(3, 12), torch.nn.ReLU(), torch.nn.Linear(12, 1))
    model, x = bl.capture(module, torch.zeros(2, 3)).detached(), torch.randn(2, 3)
    box = bl.Box(x - 0.5, x + 0.5)
    easy = bl.at_least(torch.ones(2, 1, 1), torch.full((2, 1), 50.0))
    task = task_of_sets(model, {model.graph.inputs[0].name: box}, easy, None)
    for state in (bisection(task, torch.arange(2), bl.Bisection()),
                  branching(task, torch.arange(2), bl.Branching(base=bl.CROWN()), math.inf)):
        assert state.without({0, 1}).over and not state.without({0}).over
        assert set(state.without({0}).step(math.inf).found().proven) == {1}
        assert set(state.step(math.inf).found().proven) == {0, 1}


def test_the_command_line_writes_what_check_accepts(tmp_path_factory, tmp_path):
    network, spec, _, _ = ask(tmp_path_factory, "Relu", 1, 0.05)
    proof, run = str(tmp_path / "proof.zip"), functools.partial(CliRunner().invoke, app)
    written = run(["verify", str(network), str(spec), "--timeout", "60", "--certificate", proof])
    assert written.exit_code == 0 and "verified (checked)" in written.output
    checked = run(["check", proof, str(network), str(spec)])
    assert checked.exit_code == 0 and "checked:" in checked.output
    refused = run(["verify", str(network), "--data", "x.npy", "--eps", "0.1", "--label", "0", "--certificate", proof])
    assert refused.exit_code == 2 and "VNN-LIB" in refused.output


def test_a_quotient_is_two_steps_of_the_file_and_a_proof_names_both(tmp_path):
    """One operator of the file, of which the graph makes a reciprocal and a product."""
    node, rng = onnx.helper.make_node, np.random.default_rng(0)
    sizes = {"w": (2, 2), "b": (2,), "v": (2, 2), "c": (2,), "last": (2, 2), "end": (2,)}
    constants = {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    nodes = [node("Gemm", ["x", "w", "b"], ["top"]), node("Gemm", ["x", "v", "c"], ["z"]), node("Mul", ["z", "z"], ["square"]),
             node("Add", ["square", "one"], ["bottom"]), node("Div", ["top", "bottom"], ["share"]),
             node("Gemm", ["share", "last", "end"], ["y"])]
    (tmp_path / "net.onnx").write_bytes(model(nodes, (1, 2), {**constants, "one": np.ones(1, dtype=np.float32)}))
    original, points = bl.load_original(tmp_path / "net.onnx"), torch.rand(2000, 2) * 1.2 - 0.6
    least = float(bl.evaluate(original.model, points).reshape(2000, 2)[:, 0].min())
    text = query_text([-0.6, -0.6], [0.6, 0.6], 2, f"(<= Y_0 {least - 0.05})")
    (tmp_path / "spec.vnnlib").write_text(text, encoding="utf-8")
    result, = bl.verify(original, parse_vnnlib(tmp_path / "spec.vnnlib"), stages=(bl.Bisection(),), timeout=30)
    assert result.verdict is Verdict.VERIFIED and result.rigour is bl.Rigour.CHECKED
    proof, = certificate_of(result, tmp_path / "net.onnx", tmp_path / "spec.vnnlib").cases
    assert {argument.step for argument in proof.plain} == {"square", "share", "share:reciprocal"}
