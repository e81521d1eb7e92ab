"""VNN-LIB 2.0: the same questions as in 1.0, several networks, values inside, and refusals in one sentence."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import boundlab as bl
from boundlab.question.exact import Query
from boundlab.question.vnnlib import parse_vnnlib
from boundlab.question.vnnlib2 import parse_statement
from boundlab.verify.networks import model_of

VERSION = "(vnnlib-version <2.0>)\n"
ONE = VERSION + "(declare-network f (declare-input X float32 [1,2]) (declare-output Y float32 [3]))\n"
TWO = ONE + "(declare-network g {relation} (declare-input A float32 [1,2]) (declare-output B float32 [3]))\n"
OLD = "".join(f"(declare-const X_{i} Real)\n" for i in range(2)) + "".join(f"(declare-const Y_{i} Real)\n" for i in range(3))
BOX = "".join(f"(assert (>= X[0,{i}] -0.1))\n(assert (<= X[0,{i}] 0.30000000000000000001))\n" for i in range(2))
SAME = "".join(f"(assert (== X[0,{i}] A[0,{i}]))\n" for i in range(2))
PAIRS = {
    "largest": "(assert (or (and (>= Y_1 Y_0)) (and (>= Y_2 Y_0))))",
    "all smaller": "(assert (<= Y_0 Y_1))\n(assert (< Y_0 Y_2))",
    "threshold": "(assert (>= Y_0 3.991125645861615))",
    "interval": "(assert (or (<= Y_0 -3.0) (>= Y_0 0.5)))\n(assert (or (<= Y_1 0.1) (<= Y_2 0.1)))",
    "boxes with outputs": "(assert (or (and (<= X_0 0.1) (>= Y_0 1.0)) (and (>= X_0 0.1) (>= Y_1 1.0))))",
    "linear": "(assert (<= (+ (* 1.5 Y_0) (* -1.0 Y_1) (- Y_2)) (- 2.5 Y_0)))",
    "input relation": "(assert (<= (- X_0 X_1) 0.05))\n(assert (>= Y_0 0.0))",
    "inputs and outputs": "(assert (>= (+ Y_0 X_1) (- Y_2 0.5)))",
}


def newer(text: str) -> str:
    """The 2.0 form of 1.0 constraints."""
    for place in range(3):
        text = text.replace(f"X_{place}", f"X[0,{place}]").replace(f"Y_{place}", f"Y[{place}]")
    return text


def older(text: str) -> str:
    for place in range(2):
        text = text.replace(f"X[0,{place}]", f"X_{place}")
    return text


def same(one: Query, other: Query) -> bool:
    return (one.inputs, one.outputs) == (other.inputs, other.outputs) and all(
        a.unsafe == b.unsafe and a.relations == b.relations and all(
            (x.nearest == y.nearest).all() and (x.excess == y.excess).all()
            for x, y in ((a.lower, b.lower), (a.upper, b.upper)))
        for a, b in zip(one.cases, other.cases, strict=True))


@pytest.mark.parametrize("body", PAIRS.values(), ids=list(PAIRS))
def test_both_versions_of_a_property_are_the_same_query(body: str) -> None:
    old = parse_vnnlib(OLD + older(BOX) + body)
    new = parse_vnnlib(ONE + BOX + newer(body))
    assert same(old, new)
    assert new.cases[0].lower.excess.tolist() == [1, 1], "decimals keep their exact value"


def test_the_real_acas_xu_network_s_property_in_both_versions() -> None:
    """Property 3 of ACAS Xu (Katz et al. 2017): clear of conflict is not the least of five scores."""
    ends = ((-0.303531156, -0.298552812), (-0.009549297, 0.009549297), (0.493380324, 0.5), (0.3, 0.5), (0.3, 0.5))
    old = "".join(f"(declare-const {letter}_{i} Real)\n" for letter in "XY" for i in range(5))
    new = VERSION + "(declare-network acas (declare-input X Real [5]) (declare-output Y Real [5]))\n"
    for place, (low, high) in enumerate(ends):
        old += f"(assert (<= X_{place} {high}))\n(assert (>= X_{place} {low}))\n"
        new += f"(assert (<= X[{place}] {high}))\n(assert (>= X[{place}] {low}))\n"
    old += "".join(f"(assert (<= Y_0 Y_{i}))\n" for i in range(1, 5))
    new += "".join(f"(assert (<= Y[0] Y[{i}]))\n" for i in range(1, 5))
    assert same(parse_vnnlib(old), parse_vnnlib(new))


def test_equations_and_inequations_are_what_they_say() -> None:
    query = parse_vnnlib(ONE + BOX + "(assert (!= Y[0] Y[1]))\n(assert (== Y[2] 0.5))")
    for y in ([0.0, 0.0, 0.5], [0.0, 1.0, 0.5], [1.0, 0.0, 0.5], [0.0, 1.0, 0.25]):
        assert query.accepts(np.zeros(2), np.array(y), np.float32) is (y[0] != y[1] and y[2] == 0.5)


def network(seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))


def captured(net: nn.Module) -> bl.Model:
    return bl.capture(net, torch.zeros(2, 2)).detached()


@pytest.mark.parametrize("relation", ["", "(isomorphic-to f)", "(equal-to f)"])
def test_networks_with_equal_inputs_share_them(relation: str) -> None:
    statement = parse_statement(TWO.format(relation=relation) + BOX + SAME + "(assert (>= (- Y[0] B[0]) 0.5))")
    assert (dict(statement.shared), statement.query.inputs, statement.query.outputs) == ({"A": "X"}, 2, 6)
    assert not statement.query.cases[0].relations
    f, g = network(0), network(0 if "equal" in relation else 1)
    models = {"f": captured(f)} | ({} if "equal" in relation else {"g": captured(g)})
    model = model_of(statement, models)
    assert [node.name for node in model.graph.inputs] == ["X"]
    result, = bl.verify(model, statement.query, timeout=20)
    x = torch.rand(500, 2) * 0.4 - 0.1
    with torch.no_grad():
        apart = float((f(x) - g(x))[:, 0].max())
    assert result.verdict is (bl.Verdict.FALSIFIED if apart > 0.5 else bl.Verdict.VERIFIED)


def test_inputs_of_one_s_own_and_relations_between_them() -> None:
    said = "(assert (== X[0,0] A[0,0]))\n(assert (>= B[0] Y[1]))"
    text = TWO.format(relation="(equal-to f)") + BOX + BOX.replace("X", "A") + said
    statement = parse_statement(text)
    assert (statement.shared, statement.query.inputs) == ({}, 4), "one entry alone is not the whole input"
    case, = statement.query.cases
    assert len(case.relations) == 2
    model = model_of(statement, {"f": captured(network(0))})
    assert [node.name for node in model.graph.inputs] == ["X", "A"]
    x, y = np.array([0.1, 0.2, 0.1, 0.0]), np.array([0.0, 0.5, 0.0, 0.5, 0.0, 0.0])
    assert statement.query.accepts(x, y, np.float32)
    assert not statement.query.accepts(np.array([0.1, 0.2, 0.2, 0.0]), y, np.float32)


REFUSED = {
    "a product": ("(assert (<= (* X[0,0] Y[0]) 1.0))", "not linear"),
    "an index": ("(assert (<= Y[7] 1.0))", "line 7: 'Y\\[7\\]'.*out of bounds"),
    "a name": ("(assert (<= Z[0] 1.0))", "'Z': Undeclared"),
    "a word": ("(assert (not (<= Y[0] 1.0)))", "line 7"),
    "a bracket": ("(assert (<= Y[0] 1.0)", "syntax error"),
    "old variables": ("(assert (<= Y_0 1.0))", "'Y_0'"),
    "depth": ("(assert " + "(or " * 5000 + "(<= Y[0] 1.0)" + ")" * 5001, "lie in each other"),
    "digits": (f"(assert (<= Y[0] 1{'0' * 5000}.0))", "does not read the text"),
    "nothing inside": ("(assert (<= X[0,0] -2.0))\n(assert (<= Y[0] 1.0))", "no point at all"),
}


@pytest.mark.parametrize("body, said", REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_read_is_refused_in_one_sentence(body: str, said: str) -> None:
    with pytest.raises(bl.SpecError, match=said) as problem:
        parse_vnnlib(ONE + BOX + body)
    assert "\n" not in str(problem.value)


def test_what_is_about_more_than_one_network_is_no_plain_query() -> None:
    hidden = ONE.replace("(declare-output", '(declare-hidden H float32 [4] "h") (declare-output')
    for text in (TWO.format(relation="") + BOX + SAME + "(assert (<= Y[0] B[0]))", hidden + BOX + "(assert (<= H[0] 0.0))"):
        with pytest.raises(bl.SpecError, match="several networks, or values inside one"):
            parse_vnnlib(text)
    whole = ONE.replace("float32 [3]", "float16 [3]")
    with pytest.raises(bl.SpecError, match="'Y' has the element type F16"):
        parse_vnnlib(whole + BOX)
    with pytest.raises(bl.SpecError, match="X_1 has no"):
        parse_vnnlib(ONE + BOX.split("\n", 2)[0] + "\n(assert (<= X[0,0] 1.0))\n(assert (<= Y[0] 1.0))")


def test_networks_that_are_missing_unknown_or_do_not_fit_are_refused() -> None:
    statement = parse_statement(TWO.format(relation="") + BOX + SAME + "(assert (<= Y[0] B[0]))")
    f = captured(network(0))
    wide = bl.capture(nn.Linear(3, 3), torch.zeros(2, 3)).detached()
    for models, said in (({"f": f}, "'g', which is not given"), ({"f": f, "g": f, "h": f}, "no network 'h'"),
                         ({"f": f, "g": wide}, r"inputs of shapes \[3\]"), ({"f": f, "g": f.to(torch.float64)}, "float64")):
        with pytest.raises(bl.SpecError, match=said):
            model_of(statement, models)


def test_values_inside_an_onnx_file_are_outputs_in_the_graph_and_in_its_runtime(tmp_path: Path) -> None:
    net, path = network(0), tmp_path / "net.onnx"
    arrays = {"w0": net[0].weight, "b0": net[0].bias, "w1": net[2].weight, "b1": net[2].bias}
    nodes = [helper.make_node("Gemm", ["x", "w0", "b0"], ["h"], transB=1), helper.make_node("Relu", ["h"], ["r"]),
             helper.make_node("Gemm", ["r", "w1", "b1"], ["y"], transB=1)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in (("x", 2), ("y", 3))]
    held = [numpy_helper.from_array(value.detach().numpy(), name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    model, reference = bl.load_onnx(path, also=("h", "r")), bl.onnx_reference(path, also=("h", "r"))
    x = torch.rand(5, 2)
    found = reference.replay_all(x.numpy())
    from boundlab.evaluate import evaluate_all
    values = evaluate_all(model, {"x": x})
    for name, node in model.outputs.items():
        assert np.allclose(found[name], values[node.index].detach().numpy(), atol=1e-6)
    assert np.allclose(found["h"], net[0](x).detach().numpy(), atol=1e-6)
    for name in ("nothing", "y"):
        with pytest.raises(bl.CaptureError, match=f"'{name}'"):
            bl.load_onnx(path, also=(name,))


def test_exactness_of_decimals() -> None:
    query = parse_vnnlib(ONE + BOX + "(assert (<= Y[0] 0.1))")
    atom, = query.cases[0].unsafe[0]
    assert atom.constant == -Fraction(1, 10)
