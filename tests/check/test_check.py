"""check names every node with how it is bounded, and everything that is missing at once, and raises nothing."""

from pathlib import Path

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab import Bounding, zoo
from boundlab.capture.builder import Builder
from boundlab.ops.op import REGISTRY
from tests.check import networks
from tests.check.networks import Branching, Mixing, Parts, Strange, strange_file


@pytest.fixture
def own_operators():
    kept = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(kept)


def line_of(text):
    """The place of a line of this folder's networks, as origins give it."""
    lines = Path(networks.__file__).read_text().splitlines()
    return f"{networks.__file__}:{next(number for number, line in enumerate(lines, 1) if text in line)}"


def kinds(report):
    return {node.operator: node.bounding for node in report.nodes}


def test_every_node_of_a_network_and_how_it_is_bounded():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(8, 6), nn.Sigmoid(), nn.Linear(6, 3))
    model = bl.capture(module, torch.rand(2, 1, 4, 4))
    report = bl.check(module, torch.rand(2, 1, 4, 4))
    assert report.ok and not report.missing and not report.loose and report.batch == 2
    assert [(node.name, node.operator, node.shape, node.origin) for node in report.nodes] == [
        (node.name, node.op, node.shape, node.origin) for node in model.graph]
    assert kinds(report) == {"input": Bounding.VARIES, "parameter": Bounding.PARAMETER, "conv": Bounding.EXACT,
                             "leaky_relu": Bounding.RELAXED, "reshape": Bounding.EXACT, "linear": Bounding.EXACT,
                             "sigmoid": Bounding.RELAXED}
    by_name = {node.name: node for node in report.nodes}
    assert by_name["1"].free == ("slope",) and by_name["0"].free == ()
    assert [node.name for node in report.nodes if node.output] == ["5"]
    assert by_name["0"].multiply_adds == 2 * (2 * 2 * 2) * 9 and by_name["3"].multiply_adds == 2 * 8 * 6  # batch 2, by hand
    assert [cost.method for cost in report.costs] == ["IBP", "CROWN-IBP", "CROWN, at most"]


def test_what_is_assumed_to_vary_decides():
    """A product of two values is exact while one is constant, and a parameter may vary instead of the input."""
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.rand(4))

        def forward(self, x):
            return x * self.scale

    model = bl.capture(Product(), torch.rand(2, 4))
    assert kinds(bl.check(model))["mul"] is Bounding.EXACT
    assert kinds(bl.check(model, varying=["scale"]))["mul"] is Bounding.EXACT
    assert kinds(bl.check(model, varying=["x", "scale"]))["mul"] is Bounding.RELAXED
    assert kinds(bl.check(model, varying=[]))["mul"] is Bounding.CONSTANT
    with pytest.raises(bl.ShapeError, match="no input or parameter 'y'"):
        bl.check(model, varying=["y"])


def test_all_unknown_calls_are_listed_with_their_lines_and_the_rest_is_shown():
    report = bl.check(Strange(), torch.zeros(2, 4))
    assert not report.ok and not report.problem and report.costs == ()
    assert [(node.operator, node.origin) for node in report.missing] == [
        ("aten.special_i0.default", line_of("# first place")), ("aten.special_i1.default", line_of("# second place")),
        ("aten.special_bessel_j0.default", line_of("# third place"))]
    assert all("interval_op" in node.remedy and "[4]" in node.problem for node in report.missing)
    assert kinds(report)["relu"] is Bounding.RELAXED and kinds(report)["linear"] is Bounding.EXACT
    printed = repr(report)
    assert "NOT ok" in printed and printed.count("To do:") == 1 and all(node.problem in printed for node in report.missing)
    assert "not known while something is missing" in printed


def test_registering_them_makes_the_network_ok(own_operators):
    bl.register(bl.interval_op("i0", torch.special.i0, lambda x: bl.Interval(
        torch.where((x.lower < 0) & (x.upper > 0), 1.0, torch.minimum(torch.special.i0(x.lower), torch.special.i0(x.upper))),
        torch.maximum(torch.special.i0(x.lower), torch.special.i0(x.upper))), sources=("aten.special_i0.default",)))
    bl.register(bl.interval_op("i1", torch.special.i1, bl.monotone(torch.special.i1), sources=("aten.special_i1.default",)))
    bl.register(bl.interval_op("j0", torch.special.bessel_j0, lambda x: bl.Interval(
        torch.full_like(x.lower, -0.403), torch.ones_like(x.upper)), sources=("aten.special_bessel_j0.default",)))
    torch.manual_seed(0)
    net, x = Strange(), torch.rand(3, 4)
    report = bl.check(net, x)
    assert report.ok and [node.operator for node in report.loose] == ["i0", "i1", "j0"] and report.costs
    assert all("interval alone" in node.problem and "relax" in node.remedy for node in report.loose)
    found = bl.bound(bl.capture(net, x).detached(), bl.Box(x - 0.1, x + 0.1))
    assert len(found.notes) == 3
    for _ in range(100):
        y = net(x + 0.2 * torch.rand_like(x) - 0.1)
        assert (found.lower <= y + 1e-4).all() and (y <= found.upper + 1e-4).all()


def test_other_refusals_are_told_beside_unknown_calls():
    report = bl.check(Mixing(), torch.zeros(2, 4))
    assert [node.operator for node in report.missing] == ["aten.mean.dim", "aten.special_i0.default"]
    assert "batch" in report.missing[0].problem and "do as" in report.missing[0].remedy


def test_batch_norm_in_training_mode_is_one_finding_that_says_what_to_do():
    report = bl.check(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU()), torch.rand(2, 4))
    assert len(report.missing) == 1 and "module.eval()" in report.missing[0].problem
    assert repr(report).count("To do:") == 1 and "register" not in repr(report)


def test_what_is_computed_from_parameters_alone_is_not_printed():
    report = bl.check(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval(), torch.rand(1, 1, 4, 4))
    assert any(node.bounding is Bounding.CONSTANT for node in report.nodes)
    assert [line.split()[1] for line in repr(report).split("\n\n")[1].splitlines()[1:]] == ["input", "conv"]


def test_a_call_with_several_results_is_missing_once():
    report = bl.check(Parts(), torch.rand(2, 4))
    assert [node.operator for node in report.missing] == ["aten.linalg_slogdet.default"]
    assert "follows" not in repr(report) and repr(report).count("has no operator here") == 1
    assert kinds(report)["relu"] is Bounding.RELAXED


@pytest.mark.parametrize(("net", "example", "said"), [
    (Branching(), (torch.zeros(2, 4),), "Branches"), (nn.Linear(3, 2), (), "example"), 
    (nn.Linear(3, 2), (torch.zeros(2, 5),), "Linear"),
    (nn.Sequential(nn.Linear(3, 2), nn.Dropout()).train(), (torch.zeros(2, 3),), ""), (lambda x: x, (), "torch.nn.Module"),
])
def test_no_graph_is_one_problem_and_no_exception(net, example, said):
    report = bl.check(net, *example)
    assert not report.ok and said in (report.problem or repr(report)) and "To do" in repr(report)


def test_a_parameter_without_a_rule_is_missing_where_it_varies():
    """Found by asking the operators' own rules, without data."""
    build = Builder(torch.float64)
    x, slope = build.input("x", (3,)), build.parameter("slope", torch.rand(3, dtype=torch.float64))
    model = build.model([build.add("prelu", x, slope)])
    assert bl.check(model).ok
    report = bl.check(model, varying=["slope"])
    assert [node.operator for node in report.missing] == ["prelu"]
    assert "slope" in report.missing[0].problem and "constant" in report.missing[0].remedy


def test_rules_that_look_at_values_cost_the_estimate_only(own_operators):
    def branching(x):
        return x if bool((x.lower > 0).all()) else bl.Interval(x.lower, x.upper)

    bl.register(bl.interval_op("looks", lambda x: x, branching))
    build = Builder(torch.float32)
    model = build.model([build.add("relu", build.add("looks", build.input("x", (3,))))])
    report = bl.check(model)
    assert report.ok and report.costs == () and "'looks'" in report.notes[0] and "need data" in report.notes[0]
    assert kinds(report)["looks"] is Bounding.INTERVAL


def test_onnx_files_are_looked_at_beyond_the_first_unknown_node(tmp_path):
    path = strange_file(tmp_path / "strange.onnx")
    with pytest.raises(bl.UnsupportedOperator, match="odd"):
        bl.load_onnx(path)
    report = bl.check(path)
    assert not report.ok and [node.operator for node in report.missing] == ["Hardmax", "mine.Twist"]
    assert all("ONNX node" in node.origin for node in report.missing)
    assert kinds(report)["linear"] is Bounding.EXACT and kinds(report)["relu"] is Bounding.RELAXED
    assert "nothing.onnx" in bl.check(tmp_path / "nothing.onnx").problem


def test_long_networks_are_printed_without_their_middle():
    layers = [layer for _ in range(32) for layer in (nn.Linear(4, 4, bias=False), nn.ReLU())]
    printed = repr(bl.check(nn.Sequential(*layers), torch.zeros(1, 4)))
    assert "... 5 more" in printed and len(printed.splitlines()) < 80


def test_the_zoo_is_ok():
    for name in ("mlp-b", "crown-ibp-c-mnist"):
        report = bl.check(zoo.build(name).eval(), torch.zeros(1, *zoo.record(name).shape), batch=3)
        assert report.ok and report.batch == 3 and "ok;" in repr(report)
