"""The network as it runs in float32: evaluations in any order lie within what is derived; no trick with rounding is proven."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from typer.testing import CliRunner

import boundlab as bl
from boundlab.certificates.certificate import CaseProof, Certificate, Semantics
from boundlab.certificates.check import fingerprint
from boundlab.certificates.checker import case_bounds, check_proofs
from boundlab.certificates.file import save
from boundlab.certificates.known import Slopes, derive
from boundlab.certificates.leaves import places_of
from boundlab.certificates.network import Network
from boundlab.certificates.reading import read_network
from boundlab.certificates.single import copied, gamma32, running
from boundlab.cli.app import app
from boundlab.question.vnnlib import parse_vnnlib
from boundlab.testing.hideouts import Architecture
from boundlab.testing.planted import Place, Planted, planted
from tests.certificates.models import model, perceptron, query_text
from tests.certificates.search import Leaf, proof_of
from tests.certificates.test_bounds import image_network
from tests.certificates.test_reading import replay

F = np.float32


def summed(rng: np.random.Generator, terms: np.ndarray, factors: np.ndarray, start: np.float32) -> np.float32:
    """A dot product in float32 in a random order, with or without fused multiply-adds, in one chain or as a tree of chains."""
    order, fused = rng.permutation(len(terms)), bool(rng.integers(2))
    chains = np.zeros(rng.integers(1, 5), dtype=F)
    place = rng.integers(len(chains) + 1)
    if place < len(chains):
        chains[place] = start
    for number, k in enumerate(order):
        chain, term = number % len(chains), (terms[k], factors[k])
        once = F(float(term[0]) * float(term[1]) + float(chains[chain]))
        chains[chain] = once if fused else F(chains[chain] + F(term[0] * term[1]))
    total = chains[0]
    for other in chains[1:]:
        total = F(total + other)
    return total if place < len(chains) else F(total + start)


def affine(rng: np.random.Generator, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return np.array([summed(rng, x, column, start) for column, start in zip(weight.T, bias, strict=True)], dtype=F)


NORMS = ("s", "b", "m", "v")


def normalised(seed: int, large: float) -> tuple[bytes, dict[str, np.ndarray]]:
    """Gemm, BatchNormalization, a function, Gemm; means as large as the values that they leave nothing of."""
    rng = np.random.default_rng(seed)
    held = {"w0": rng.normal(size=(5, 7)), "c0": large * rng.normal(size=7), "s": rng.normal(size=7),
            "b": large * rng.normal(size=7), "m": large * rng.normal(size=7), "v": rng.uniform(0.1, 2, 7),
            "w1": rng.normal(size=(7, 3)), "c1": rng.normal(size=3)}
    held = {name: value.astype(F) for name, value in held.items()}
    nodes = [helper.make_node("Gemm", ["x", "w0", "c0"], ["a"]), helper.make_node("BatchNormalization", ["a", *NORMS], ["n"]),
             helper.make_node("Relu", ["n"], ["h"]), helper.make_node("Gemm", ["h", "w1", "c1"], ["y"])]
    return model(nodes, (1, 5), held), held


def run_normalised(rng: np.random.Generator, held: dict[str, np.ndarray], x: np.ndarray) -> dict[str, np.ndarray]:
    """Tensors by name, with the normalisation as it stands, as a factor and an offset, or folded into the layer before."""
    scale, offset, mean, variance = (held[name] for name in NORMS)
    spread = np.sqrt((variance + F(1e-5)).astype(F))
    factor = (scale / spread).astype(F) if rng.integers(2) else (scale * (F(1) / spread)).astype(F)
    way, found = rng.integers(3), {"x": x}
    if way == 2:
        bias = ((held["c0"] - mean) * factor + offset) if rng.integers(2) else (held["c0"] * factor + (offset - mean * factor))
        found["n"] = affine(rng, x, (held["w0"] * factor).astype(F), bias.astype(F))
    else:
        found["a"] = value = affine(rng, x, held["w0"], held["c0"])
        found["n"] = (value - mean) * factor + offset if way else value * factor + (offset - mean * factor)
    found["h"] = np.maximum(found["n"], 0)
    return found | {"y": affine(rng, found["h"], held["w1"], held["c1"])}


def widths(network: Network, lower: np.ndarray, upper: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    known = derive(network, [(lower[:, None].astype(np.float64), upper[:, None].astype(np.float64))], Slopes())
    return {step.name: (low[:, 0], high[:, 0]) for step, (low, high) in zip(network.steps, known.ends, strict=True)}


@pytest.mark.parametrize("large", [1.0, 1e5])
@pytest.mark.parametrize("radius", [0.0, 0.1])
def test_any_order_and_any_folding_lies_within_the_ends(large: float, radius: float) -> None:
    outside, shares = 0, []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        content, held = normalised(seed, large)
        plain = read_network(content)
        middle = rng.normal(size=5).astype(F)
        lower, upper = (middle - F(radius)).astype(F), (middle + F(radius)).astype(F)
        real, runs = widths(plain, lower, upper), widths(running(plain, Semantics.FLOAT32), lower, upper)
        values = []
        for _ in range(40):
            step = F(radius) * rng.choice([rng.uniform(-1, 1, 5), rng.choice([-1, 1], 5)])
            x = np.clip((middle + step).astype(F), lower, upper)
            found = run_normalised(rng, held, x)
            values.append(found["y"])
            for name, value in found.items():
                low, high = runs[name]
                assert (low <= value).all() and (value <= high).all(), (seed, name)
            outside += int(((found["y"] < real["y"][0]) | (found["y"] > real["y"][1])).any())
        if radius == 0:
            seen = np.ptp(np.array(values, dtype=np.float64), axis=0)
            shares.append(np.median((runs["y"][1] - runs["y"][0]) / np.maximum(seen, 1e-30)))
    assert radius > 0 or outside > 100  # the real network's ends do not hold what runs
    assert radius > 0 or np.median(shares) < 100  # and those that do are not much wider than what is seen


@pytest.mark.parametrize("function", ["Relu", "Tanh", "Sigmoid", "Exp", "Sin", "LeakyRelu", "Softplus"])
def test_the_runtime_lies_within_the_ends(function: str) -> None:
    for seed in range(4):
        content, rng = perceptron((6, 20, 20, 3), seed, function, scale=0.5), np.random.default_rng(seed)
        network = running(read_network(content), Semantics.FLOAT32)
        for _ in range(10):
            x = rng.normal(size=6).astype(F)
            low, high = widths(network, x, x)["y"]
            y = replay(content, x)
            assert (low <= y).all() and (y <= high).all() and (high - low <= 1e-3 * (1 + np.abs(y))).all()


def test_many_operators_as_they_run() -> None:
    for seed in range(3):
        content, rng = image_network(seed), np.random.default_rng(seed)
        network = running(read_network(content), Semantics.FLOAT32)
        x = rng.normal(size=50).astype(F)
        low, high = widths(network, x, x)["y"]
        y = replay(content, x)
        assert (low <= y).all() and (y <= high).all() and (high - low <= 1e-2 * (1 + np.abs(y))).all()


def test_leaves_hold_for_what_runs() -> None:
    """Rows with the checker's slopes on boxes, where rounding is as large as what is asked: y = (x + 2^22) - 2^22."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        content, held = normalised(seed, 1e6)
        network, middle = read_network(content), rng.normal(size=5).astype(F)
        query = parse_vnnlib(query_text(middle - 0.01, middle + 0.01, 3, "(or (<= Y_0 0) (<= (- Y_1 Y_2) 0))"))
        case, proof = query.cases[0], proof_of(network, query.cases[0], [Leaf(0), Leaf(1)])
        real, runs = (case_bounds(running(network, semantics), case, proof, places_of(network)) for semantics in Semantics)
        assert (runs <= real).all()
        for _ in range(40):
            x = np.clip(middle + 0.01 * rng.uniform(-1, 1, 5), case.lower.nearest, case.upper.nearest).astype(F)
            y = run_normalised(rng, held, x)["y"].astype(np.float64)
            assert runs[0] <= y[0] and runs[1] <= y[1] - y[2]


def lossy(seed: int, architecture: Architecture, place: Place) -> tuple[bytes, Planted]:
    """A planted problem of fully connected layers as an ONNX file."""
    found, nodes, held, last = planted(place, architecture, seed=seed), [], {}, "x"
    modules = [one for one in found.module.modules() if not list(one.children())]
    for k, one in enumerate(modules):
        final = "y" if k == len(modules) - 1 else f"t{k}"
        kind = type(one).__name__
        if kind == "Linear":
            held |= {f"w{k}": one.weight.detach().numpy(), f"b{k}": one.bias.detach().numpy()}
            nodes.append(helper.make_node("Gemm", [last, f"w{k}", f"b{k}"], [final], transB=1))
        else:
            nodes.append(helper.make_node({"ReLU": "Relu", "Tanh": "Tanh", "Sigmoid": "Sigmoid"}[kind], [last], [final]))
        last = final
    return model(nodes, (1, found.box.lower.numel()), held), found


def plain_architectures() -> list[Architecture]:
    """Those that are layers, one after the other, of kinds that `lossy` writes."""
    kinds = {"Linear", "ReLU", "Tanh", "Sigmoid", "Sequential"}
    return [one for one in Architecture if {type(part).__name__ for part in planted(Place.LOST, one).module.modules()} <= kinds]


@pytest.mark.parametrize("place", [Place.LOST, Place.ROUNDED])
def test_no_trick_with_rounding_is_proven(place: Place) -> None:
    proven, tried = {semantics: 0 for semantics in Semantics}, 0
    assert plain_architectures()
    for architecture in plain_architectures():
        for seed in range(4):
            content, found = lossy(seed, architecture, place)
            network, offset = read_network(content), float(found.spec.offset[0, 0])
            lower, upper = found.point.flatten().numpy(), found.point.flatten().numpy()
            query = parse_vnnlib(query_text(lower, upper, 2, f"(<= (- Y_0 Y_1) {-offset!r})"))
            proof: CaseProof = proof_of(network, query.cases[0], [Leaf(0)])
            tried += 1
            for semantics in Semantics:
                proven[semantics] += check_proofs(network, query, [proof], semantics=semantics).accepted
    assert proven[Semantics.FLOAT32] == 0
    assert proven[Semantics.REAL] == (tried if place is Place.ROUNDED else 0)


def test_what_may_overflow_or_is_not_known_is_not_proven() -> None:
    large = model([helper.make_node("Mul", ["x", "c"], ["y"])], (1, 1), {"c": np.array([[1e38]], F)})
    query = parse_vnnlib(query_text([1], [100], 1, "(<= Y_0 0)"))
    network = read_network(large)
    proof = proof_of(network, query.cases[0], [Leaf(0)])
    assert check_proofs(network, query, [proof]).accepted
    assert not check_proofs(network, query, [proof], semantics=Semantics.FLOAT32).accepted
    double = model([helper.make_node("Relu", ["x"], ["y"])], (1, 1), {}, dtype=np.float64)
    softmax = model([helper.make_node("Softmax", ["x"], ["y"])], (1, 2), {})
    inner = model([helper.make_node("Softmax", ["x"], ["z"]), helper.make_node("Neg", ["z"], ["y"])], (1, 2), {})
    cast = model([helper.make_node("Cast", ["x"], ["z"], to=11), helper.make_node("Cast", ["z"], ["y"], to=1)], (1, 2), {})
    for content in (double, softmax, inner, cast):
        with pytest.raises(bl.CertificateError):
            running(read_network(content), Semantics.FLOAT32)
    with pytest.raises(bl.CertificateError, match="too many"):
        gamma32(2**24)


def test_copies_are_exact_and_sums_are_not() -> None:
    nodes = [helper.make_node("Neg", ["x"], ["n"]), helper.make_node("Concat", ["n", "c", "x"], ["k"], axis=1),
             helper.make_node("Add", ["k", "k"], ["s"]), helper.make_node("Sum", ["s", "k", "s"], ["y"])]
    network = read_network(model(nodes, (1, 2), {"c": np.ones((1, 2), F)}))
    steps = {step.name: step for step in network.steps}
    assert copied(steps["n"]).all() and copied(steps["k"]).all()
    assert not copied(steps["s"]).any() and not copied(steps["y"]).any()
    assert sum(argument == steps["y"].arguments[0] for argument in steps["y"].arguments) == 2


def test_terms_that_cancel_in_a_sum_count() -> None:
    """x + c - x in float32 loses what c has below x's last digit: Sum(x, c, -x) is not c."""
    nodes = [helper.make_node("Mul", ["x", "f"], ["b"]), helper.make_node("Sub", ["b", "d"], ["m"]),
             helper.make_node("Sum", ["b", "m", "c"], ["y"])]
    held = {"f": np.array([[1]], F), "c": np.array([[1.25]], F), "d": np.array([[0]], F)}
    network = running(read_network(model(nodes, (1, 1), held)), Semantics.FLOAT32)
    low, high = widths(network, np.array([2.0**24], F), np.array([2.0**24], F))["y"]
    assert low[0] <= 2.0**25 <= high[0] and high[0] - low[0] >= 2


def test_the_verb_knows_both_meanings(tmp_path: Path) -> None:
    net, spec = tmp_path / "net.onnx", tmp_path / "q.vnnlib"
    net.write_bytes(model([helper.make_node("Add", ["x", "c"], ["a"]), helper.make_node("Sub", ["a", "c"], ["y"])], (1, 1),
                          {"c": np.array([[2.0**26]], F)}))
    spec.write_text(query_text([0.5], [1], 1, "(<= Y_0 0.25)"))
    network = read_network(net.read_bytes())
    proof = proof_of(network, parse_vnnlib(spec.read_text()).cases[0], [Leaf(0)])
    save(Certificate(fingerprint(net), fingerprint(spec), (proof,)), tmp_path / "proof.zip")
    for more, code in (((), 0), (("--semantics", "real"), 0), (("--semantics", "float32"), 20), (("--semantics", "half"), 2)):
        result = CliRunner().invoke(app, ["check", str(tmp_path / "proof.zip"), str(net), str(spec), *more])
        assert result.exit_code == code, result.output


@pytest.mark.parametrize("function", ["Relu", "Sigmoid", "Clip", "MaxPool"])
@pytest.mark.parametrize("kind", ["MatMul", "Conv"])
def test_nothing_is_proven_of_what_is_multiplied_by_zero_after_it_may_overflow(kind: str, function: str) -> None:
    """What runs multiplies infinity by 0, and a maximum may make a number of the NaN that this is."""
    size, bent = 20, {"kernel_shape": [2]} if function == "MaxPool" else {}
    first, second = np.ones((1, size), dtype=F), np.eye(size, dtype=F)
    first[0, 0], second[0, 0] = 3e38, 0
    tail = [helper.make_node(function, ["r"], ["z"], **bent), helper.make_node("Flatten", ["z"], ["y"])]
    if kind == "MatMul":
        nodes = [helper.make_node("MatMul", ["x", "w1"], ["a"]), helper.make_node("MatMul", ["a", "w2"], ["b"]),
                 helper.make_node("Reshape", ["b", "shape"], ["r"])]
        content = model([*nodes, *tail], (1, 1), {"w1": first, "w2": second, "shape": np.array([1, 4, 5])})
    else:
        nodes = [helper.make_node("Conv", ["x", "w1"], ["a"]), helper.make_node("Conv", ["a", "w2"], ["r"])]
        weights = {"w1": first.reshape(size, 1, 1), "w2": second[:, :, None]}
        content = model([*nodes, *tail], (1, 1, 3), weights)
    network = read_network(content)
    count = network.inputs[0].size
    query = parse_vnnlib(query_text([2] * count, [4] * count, network.steps[network.output].size, "(<= Y_1 -1)"))
    proof = proof_of(network, query.cases[0], [Leaf(0)])
    assert check_proofs(network, query, [proof]).accepted
    assert not check_proofs(network, query, [proof], semantics=Semantics.FLOAT32).accepted
