"""What the checker derives holds: intervals and leaves against samples, and in exact arithmetic where rounding matters."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from onnx import helper

from boundlab.certificates.batches import batch_of
from boundlab.certificates.certificate import Argument, CaseProof
from boundlab.certificates.checker import case_bounds, derive_frames
from boundlab.certificates.known import Slopes, derive
from boundlab.certificates.leaves import places_of
from boundlab.certificates.network import Affine, Input, Network, Part, matrix_of
from boundlab.certificates.reading import read_network
from boundlab.certificates.rounding import above, below
from boundlab.question.exact import Query
from boundlab.question.vnnlib import parse_vnnlib
from tests.certificates.models import FUNCTIONS, inner_values, model, perceptron, query_text
from tests.certificates.search import Leaf, Split, arguments, proof_of
from tests.certificates.test_reading import replay

UNSAFE = "(or (and (<= Y_0 0.3) (>= Y_1 1.1)) (<= (- Y_0 (* 2.5 Y_1)) 0.7))"
LEAVES = 20


def tensor_name(argument: Argument) -> str:
    """The argument of h0 is a0, that of the input x itself."""
    return argument.step.replace("h", "a")


def slopes(rng: np.random.Generator, *shape: int) -> np.ndarray:
    found = rng.normal(size=shape) * rng.choice([0.1, 1])
    found[rng.uniform(size=shape) < 0.3] = np.nan
    return found.astype(rng.choice([np.float32, np.float64]))


def random_leaves(rng: np.random.Generator, named: tuple[Argument, ...], values: dict[str, np.ndarray]) -> list[Leaf]:
    """Leaves with constraints that some sample satisfies, at points that other samples attain, or 0."""
    leaves = []
    for _ in range(LEAVES):
        here, splits = rng.integers(len(values["x"])), []
        for _ in range(rng.integers(0, 5)):
            step = int(rng.integers(len(named)))
            tensor = values[tensor_name(named[step])]
            neuron = int(rng.integers(tensor.shape[1]))
            point = float(rng.choice([0, tensor[rng.integers(len(tensor)), neuron]]))
            side = 1 if tensor[here, neuron] >= point else -1
            splits.append(Split(step, neuron, side, point, float(rng.choice([0, rng.exponential()]))))
        leaves.append(Leaf(int(rng.integers(2)), tuple(splits)))
    return leaves


def random_proof(rng: np.random.Generator, content: bytes, query: Query, leaves: list[Leaf]) -> CaseProof:
    """A proof with random weights, multipliers and slopes, in frames of boxes or all in one."""
    network, case = read_network(content), query.cases[0]
    weights = rng.uniform(0, 1, (LEAVES, 2))
    weights[[leaf.clause == 1 for leaf in leaves], 1] = 0
    proof, places = proof_of(network, case, leaves, weights), places_of(network)
    if rng.uniform() < 0.5:
        proof = dataclasses.replace(proof, frame=np.zeros(LEAVES, dtype=np.int64))
    free = [one for one in arguments(network) if places.bends(one)]
    size = {one: places.size(one) for one in free}
    lines = {one: (slopes(rng, LEAVES, size[one]), slopes(rng, 1, size[one])) for one in free if rng.uniform() < 0.6}
    inner = {(target, one): (slopes(rng, proof.frames, 2, size[target], size[one]), slopes(rng, 1, 1, 1, size[one]))
             for target in free for one in free if one < target and rng.uniform() < 0.5}
    return dataclasses.replace(proof, lines=lines, inner=inner)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_leaves_with_any_numbers_hold_at_samples(function: str) -> None:
    said: list[bool] = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        content = perceptron((3, 6, 5, 2), seed, function, scale=0.3 if function == "Exp" else float(rng.choice([0.5, 1.0])))
        middle, radius = rng.normal(size=3), float(rng.choice([0.01, 0.3, 1.0]))
        query = parse_vnnlib(query_text(middle - radius, middle + radius, 2, UNSAFE))
        x = middle + radius * np.concatenate([rng.uniform(-1, 1, (3000, 3)), rng.choice([-1, 1], (50, 3))])
        values = inner_values(content, function, x)
        leaves = random_leaves(rng, arguments(read_network(content)), values)
        proof = random_proof(rng, content, query, leaves)
        bounds = case_bounds(read_network(content), query.cases[0], proof, places_of(read_network(content)))
        y = values["y"]
        atoms = [np.stack([y[:, 0] - 0.3, 1.1 - y[:, 1]]), np.stack([y[:, 0] - 2.5 * y[:, 1] - 0.7, 0 * y[:, 0]])]
        for leaf, bound, weights in zip(leaves, bounds, proof.weights, strict=True):
            inside = np.ones(len(x), dtype=bool)
            for split in leaf.splits:
                named = tensor_name(proof.steps[split.step])
                inside &= split.side * (values[named][:, split.neuron] - split.point) >= 0
            assert inside.any()
            least = (weights @ atoms[leaf.clause])[inside].min()
            assert not bound > least + 1e-10 * (1 + abs(least))
            said.append(np.isfinite(bound))
    assert np.mean(said) > 0.8


def test_multipliers_prove_what_intervals_alone_do_not() -> None:
    """relu(x) - relu(-x) = x on a leaf x >= 0 that the interval of x hides: here y = x - 2 * relu(z) where z = x."""
    weights = {"w": np.array([[1.0]], np.float32), "v": np.array([[-2.0]], np.float32)}
    nodes = [helper.make_node("Gemm", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["h"]),
             helper.make_node("Gemm", ["h", "v"], ["g"]), helper.make_node("Sub", ["x", "g"], ["y"])]
    network = read_network(model(nodes, (1, 1), weights))
    query = parse_vnnlib(query_text([-1], [1], 1, "(<= Y_0 -1.25)"))
    place = arguments(network).index(Argument("h"))
    margins = [case_bounds(network, query.cases[0], proof_of(network, query.cases[0], [
        Leaf(0, (Split(place, 0, 1, 0.0, factor),))]), places_of(network))[0] for factor in (0.0, 2.0, 3.0)]
    # On x >= 0 the network is 3 x: with the multiplier 3 the row is 0 there, which is the exact minimum.
    assert margins[0] < margins[1] < margins[2] and abs(margins[2] - 1.25) < 1e-12


def exact_values(network: Network, x: np.ndarray) -> list[list[Fraction]]:
    """The values of all steps of a ReLU network at one point, in rational arithmetic."""
    found: list[list[Fraction]] = []
    for step in network.steps:
        if isinstance(step, Input):
            found.append([Fraction(float(one)) for one in x])
        elif isinstance(step, Affine):
            rows, source = np.asarray(step.matrices[0].forward), found[step.arguments[0]]
            found.append([sum((Fraction(float(w)) * value for w, value in zip(row, source, strict=True)), Fraction(float(b)))
                          for row, b in zip(rows, step.bias, strict=True)])
        else:
            found.append([max(value, Fraction(0)) for value in found[step.arguments[0]]])
    return found


def cancelling(seed: int) -> bytes:
    """Linear layers in float64 with terms up to 1e8 times as large as their sums; odd seeds have a ReLU before the last."""
    rng = np.random.default_rng(seed)
    large = 10 ** rng.uniform(2, 8)
    constants, nodes, last = {}, [], "x"
    for k, (inner, outer) in enumerate(((8, 12), (12, 6), (6, 1))):
        weight = rng.normal(size=(inner, outer)) * (large if k < 2 else 1)
        if k or seed % 3:
            weight[inner // 2:] = -weight[:inner // 2] * (1 + 1e-7 * rng.normal(size=(inner // 2, outer)))
        else:  # what cancels are rows on their way back
            weight[:, outer // 2:] = weight[:, :outer // 2] * (1 + 1e-7 * rng.normal(size=(inner, outer // 2)))
        constants |= {f"w{k}": weight, f"b{k}": rng.normal(size=outer)}
        nodes.append(helper.make_node("Gemm", [last, f"w{k}", f"b{k}"], ["y" if k == 2 else f"a{k}"]))
        last = f"a{k}"
        if k == 1 and seed % 2:
            nodes.append(helper.make_node("Relu", ["a1"], ["h1"]))
            last = "h1"
    return model(nodes, (1, 8), constants, dtype=np.float64)


@pytest.mark.parametrize("width", [0.0, 1e-9, 0.01, 1.0])
def test_intervals_and_leaves_hold_in_exact_arithmetic(width: float) -> None:
    """Where terms of 1e16 cancel, rounding alone is larger than what is left; the ends have to hold all the same."""
    for seed in range(12):
        rng, network = np.random.default_rng(seed), read_network(cancelling(seed))
        middle = np.tile(rng.normal(size=4), 2)
        lower, upper = middle - width, middle + width
        query = parse_vnnlib(query_text(lower, upper, 1, "(<= Y_0 0)"))
        case, places = query.cases[0], places_of(network)
        proof = proof_of(network, case, [Leaf(0)])
        bound = case_bounds(network, case, proof, places)[0]
        known = derive(network, [(lower[:, None], upper[:, None])], Slopes())
        points = [middle, lower, upper, *(np.clip(rng.uniform(lower, upper), lower, upper) for _ in range(4))]
        for x in points:
            values = exact_values(network, x)
            assert len(values) == len(known.ends)
            for tensor, (low, high) in zip(values, known.ends, strict=True):
                assert all(Fraction(float(l)) <= value <= Fraction(float(u))
                           for value, l, u in zip(tensor, low[:, 0], high[:, 0], strict=True))
            assert Fraction(float(bound)) <= values[-1][0]


def test_the_box_holds_decimals_and_their_rounding() -> None:
    """0.1 as float32 lies above 0.1: y = x - 0.1 is not proven to be <= 0 on [0, 0.1], nor >= 0 on [0.1, 1]."""
    nodes = [helper.make_node("Identity", ["x"], ["z"]), helper.make_node("Neg", ["z"], ["y"])]
    network = read_network(model(nodes, (1, 1), {}))
    for text, proven in (("(<= Y_0 -0.1)", False), ("(<= Y_0 -0.100000002)", True)):
        query = parse_vnnlib(query_text([0], [0.1], 1, text))
        bound = case_bounds(network, query.cases[0], proof_of(network, query.cases[0], [Leaf(0)]), places_of(network))[0]
        assert bool(bound > 0) is proven


def test_a_leaf_of_contradicting_constraints_is_empty_and_proven() -> None:
    content = perceptron((2, 4, 1))
    network, query = read_network(content), parse_vnnlib(query_text([-1, -1], [1, 1], 1, "(>= Y_0 -100)"))
    place = {one.step: k for k, one in enumerate(arguments(network))}
    value = float(inner_values(content, "Relu", np.zeros((1, 2)))["a0"][0, 0])
    for splits, empty in (((Split(place["x"], 0, 1, 0.5), Split(place["x"], 0, -1, 0.25)), True),
                          ((Split(place["h0"], 0, 1, 1e3),), True), ((Split(place["x"], 0, 1, 0.5),), False),
                          ((Split(place["h0"], 0, 1, value), Split(place["h0"], 0, -1, value)), False)):
        proof = proof_of(network, query.cases[0], [Leaf(0, splits)])
        assert (case_bounds(network, query.cases[0], proof, places_of(network))[0] == np.inf) == empty


def test_inner_slopes_move_the_ends_that_they_are_for() -> None:
    content = perceptron((3, 6, 5, 2), 3)
    network, query = read_network(content), parse_vnnlib(query_text([-1] * 3, [1] * 3, 2, "(<= Y_0 -9)"))
    case, places, rng = query.cases[0], places_of(network), np.random.default_rng(0)
    proof, pair = proof_of(network, case, [Leaf(0)]), (Argument("h1"), Argument("h0"))
    tensor, chosen = places.tensor(Argument("h1")), np.arange(1)

    def ends(lower: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        changed = dataclasses.replace(proof, inner={pair: (lower, np.full((1, 1, 1, 6), np.nan))})
        return derive_frames(network, batch_of(network, [case], [changed]), places, (chosen, chosen), False).ends[tensor]

    nothing = ends(np.full((1, 1, 1, 6), np.nan))
    for side in (0, 1):
        slopes = np.full((1, 2, 5, 6), np.nan)
        slopes[:, side, 2] = rng.uniform(size=6)
        found = ends(slopes)
        changed = np.stack([a[:, 0] != b[:, 0] for a, b in zip(found, nothing, strict=True)])
        assert changed[side, 2] and changed.sum() == 1


def test_overflow_proves_nothing() -> None:
    """y = relu(x + 1) + relu(x + 1) is not above 100. The multipliers' terms sum up to infinity here, the rest does not."""
    assert np.isnan(below(np.array([np.inf, -np.inf, np.nan]))).all() and np.isnan(above(np.array([np.inf, -np.inf]))).all()
    constants = {"w": np.ones((1, 2), np.float32), "b": np.ones(2, np.float32), "v": np.ones((2, 1), np.float32)}
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["a"]), helper.make_node("Relu", ["a"], ["h"]),
             helper.make_node("Gemm", ["h", "v"], ["y"])]
    network = read_network(model(nodes, (1, 1), constants))
    case, places = parse_vnnlib(query_text([0.875], [1.125], 1, "(<= Y_0 100)")).cases[0], places_of(network)
    place = arguments(network).index(Argument("h"))
    for factor in (1e300, 0.79e308, 1.7e308):
        leaf = Leaf(0, tuple(Split(place, neuron, 1, 2.0, factor) for neuron in (0, 1)))
        assert not case_bounds(network, case, proof_of(network, case, [leaf]), places)[0] > 0
    for scale in (1e300, 1.7e308):
        steep = {Argument("h"): (np.full((1, 2), scale), np.full((1, 2), -scale))}
        proof = dataclasses.replace(proof_of(network, case, [Leaf(0)]), lines=steep)
        assert not case_bounds(network, case, proof, places)[0] > 0


def image_network(seed: int) -> bytes:
    """Convolutions with a residual path, normalisation, both poolings, a gate, a quotient and a concatenation."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "s", "b", "m", "v"], ["n1"]),
        helper.make_node("Add", ["n1", "r0"], ["a1"]),
        helper.make_node("LeakyRelu", ["a1"], ["r1"], alpha=0.2),
        helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2]),
        helper.make_node("Sigmoid", ["p1"], ["g"]), helper.make_node("Mul", ["p1", "g"], ["q"]),
        helper.make_node("AveragePool", ["q"], ["p2"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Exp", ["p2"], ["e"]), helper.make_node("Div", ["p2", "e"], ["d"]),
        helper.make_node("Concat", ["d", "p2"], ["k"], axis=1), helper.make_node("Flatten", ["k"], ["f"]),
        helper.make_node("Gemm", ["f", "w2"], ["y"])]
    shapes = {"w0": (3, 2, 3, 3), "w1": (3, 3, 3, 3), "s": (3,), "b": (3,), "m": (3,), "w2": (24, 2)}
    constants = {name: (0.4 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    return model(nodes, (1, 2, 5, 5), constants | {"v": rng.uniform(0.5, 2, 3).astype(np.float32)})


@pytest.mark.parametrize("radius", [0.0, 0.02, 0.3])
def test_networks_of_many_operators_hold_at_samples_of_the_runtime(radius: float) -> None:
    for seed in range(3):
        rng, content = np.random.default_rng(seed), image_network(seed)
        network, middle = read_network(content), rng.normal(size=50)
        query = parse_vnnlib(query_text(middle - radius, middle + radius, 2, "(or (<= Y_0 0) (<= (- Y_1 Y_0) 0))"))
        case, places = query.cases[0], places_of(network)
        proof = proof_of(network, case, [Leaf(0), Leaf(1)])
        size = {one: places.size(one) for one in arguments(network) if places.bends(one)}
        given = {one: (slopes(rng, 2, count), slopes(rng, 2, count)) for one, count in size.items()}
        bounds = [case_bounds(network, case, one, places) for one in (proof, dataclasses.replace(proof, lines=given))]
        for _ in range(30):
            x = middle + radius * rng.choice([rng.uniform(-1, 1, 50), rng.choice([-1, 1], 50)])
            y = replay(content, np.clip(x, middle - radius, middle + radius).astype(np.float32))
            for bound in bounds:
                assert bound[0] <= y[0] + 1e-4 and bound[1] <= y[1] - y[0] + 1e-4
        assert radius > 0 or abs(bounds[0][0] - y[0]) < 1e-4


@pytest.mark.parametrize("dense", [True, False])
def test_an_array_with_few_entries_is_kept_sparse_and_pulls_the_same(dense: bool) -> None:
    rng = np.random.default_rng(3)
    table = rng.normal(size=(20, 30)) * (dense or rng.uniform(size=(20, 30)) < 0.05)
    matrix, values = matrix_of(table), np.zeros((20, 4))
    values[:3] = rng.normal(size=(3, 4))
    part = matrix.pulled(Part(None, values))
    assert isinstance(matrix.forward, np.ndarray) is dense
    assert (part.read is None) is dense  # rows that read few entries stay short
    exact = np.array([[sum(Fraction(w) * Fraction(v) for w, v in zip(column, value, strict=True)) for value in values.T]
                      for column in table.T])
    size = abs(table).T @ abs(values)
    assert (abs(part.of(30) - exact.astype(float)) <= 1.01 * matrix.error * size + 1e-300).all()
