"""Networks that were once read as something else, each with a false property that must not be accepted."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import boundlab as bl
from boundlab.certificates.checker import check_proofs
from boundlab.certificates.reading import read_network
from boundlab.errors import CertificateError
from boundlab.question.vnnlib import parse_vnnlib
from tests.certificates.models import model, query_text

node = helper.make_node


def whole(**more):
    """One leaf for one clause: the whole box, with the checker's own lines."""
    none = np.zeros((1, 0), dtype=np.int64)
    return bl.CaseProof(clause=np.array([0]), weights=np.ones((1, 1)), step=none, neuron=none, side=none, point=none * 0.0,
                        multiplier=none * 0.0, frame=np.array([0]), steps=(), **({"lines": {}, "inner": {}} | more))


def shown(content, lower, upper, unsafe, outputs=1, **more):
    """Whether the checker accepts that the unsafe outputs are never reached; CertificateError if it cannot read the file."""
    query = parse_vnnlib(query_text(lower, upper, outputs, unsafe))
    return check_proofs(read_network(content), query, (whole(**more),)).accepted


ONE = {"w": np.ones((1, 1), np.float32)}
DOUBLED = {
    "a linear step twice": ([node("MatMul", ["x", "w"], ["a"]), node("Add", ["a", "a"], ["y"])], ONE),
    "a sum of it": ([node("Neg", ["x"], ["b"]), node("Neg", ["b"], ["a"]), node("Sum", ["a", "a"], ["y"])], {}),
    "the same reshaped": ([node("MatMul", ["x", "w"], ["a"]), node("Reshape", ["a", "s"], ["b"]),
                           node("Add", ["b", "a"], ["y"])], ONE | {"s": np.array([1, 1])}),
    "three squares": ([node("Pow", ["x", "p"], ["a"]), node("ReduceSum", ["a"], ["y"], keepdims=1)],
                      {"p": np.full(3, 2.0, np.float32)}),
    "a power of three": ([node("Pow", ["x", "p"], ["a"]), node("ReduceSum", ["a"], ["y"], keepdims=1)],
                         {"p": np.full(3, 3.0, np.float32)}),
}


@pytest.mark.parametrize("name", DOUBLED)
def test_what_is_two_is_not_read_as_one(name):
    """At x = 1 each of them is 2 or 3, so that 1.5 or more is reached."""
    nodes, constants = DOUBLED[name]
    content = model(nodes, (1, 1), constants)
    try:
        accepted = shown(content, [1], [1], "(>= Y_0 1.5)")
    except CertificateError as problem:
        assert "does not know" in str(problem)
    else:
        assert not accepted and shown(content, [1], [1], "(>= Y_0 3.5)")


@pytest.mark.parametrize("reduction", ["add", "mul", "max", "min"])
def test_reductions_are_not_moves(reduction):
    nodes = [node("ScatterElements", ["x", "i", "u"], ["y"], axis=1, reduction=reduction)]
    content = model(nodes, (1, 4), {"i": np.array([[0]]), "u": np.ones((1, 1), np.float32)}, opset=18)
    with pytest.raises(CertificateError, match="reduction"):
        shown(content, [1, 0, 0, 0], [1, 0, 0, 0], "(>= Y_0 0.5)", outputs=4)


def test_two_steps_of_one_name_are_refused():
    """A quotient 1 / x, whose step is called "r:reciprocal", beside a tensor of that name and of another size."""
    kind = TensorProto.FLOAT
    nodes = [node("Div", ["one", "x"], ["r"]), node("Relu", ["v"], ["r:reciprocal"]),
             node("ReduceSum", ["r:reciprocal"], ["z"], keepdims=1), node("Mul", ["z", "zero"], ["z0"]),
             node("Add", ["r", "z0"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(name, kind, [1, size]) for name, size in (("x", 1), ("v", 2))],
        [helper.make_tensor_value_info("y", kind, [1, 1])],
        [numpy_helper.from_array(np.full((1, 1), value, np.float32), name) for name, value in (("zero", 0.0), ("one", 1.0))])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9).SerializeToString()
    slopes = np.full((1, 2), -1.0)
    with pytest.raises(CertificateError, match="called 'r:reciprocal'"):
        shown(content, [1, -1, -1], [1.001, 1, 1], "(<= Y_0 1.5)", plain={bl.Argument("r:reciprocal"): (slopes, slopes)})


def test_ends_at_infinity_and_random_numbers_are_refused():
    low = model([node("Clip", ["x", "low"], ["y"])], (1, 1), {"low": np.array(np.inf, np.float32)})
    drawn = model([node("RandomNormal", [], ["k"], shape=[1, 1]), node("Add", ["x", "k"], ["y"])], (1, 1), {})
    for content, unsafe in ((low, "(>= Y_0 2)"), (drawn, "(>= Y_0 4)")):
        with pytest.raises(CertificateError):
            shown(content, [0], [1], unsafe)
    open_ended = model([node("Clip", ["x", "low"], ["y"])], (1, 1), {"low": np.array(-np.inf, np.float32)})
    assert shown(open_ended, [0], [1], "(>= Y_0 2)")


def test_a_softmax_of_another_domain_is_none():
    kind = TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, kind, [1, 2]) for name in "xy"]
    graph = helper.make_graph([node("Softmax", ["x"], ["y"], domain="other")], "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("other", 1)]
    content = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    with pytest.raises(CertificateError, match="domain"):
        shown(content, [1, 0], [1, 0], "(<= Y_0 Y_1)", outputs=2)


def test_slopes_broader_than_the_input_are_refused():
    content = model([node("PRelu", ["x", "s"], ["a"]), node("ReduceSum", ["a"], ["y"], keepdims=1)], (1, 1),
                    {"s": np.full(3, 0.1, np.float32)})
    with pytest.raises(CertificateError, match="PRelu"):
        shown(content, [1], [1], "(>= Y_0 1.5)")
