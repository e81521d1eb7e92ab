"""Branch and bound on neurons: the verdicts of exhaustive search, at no time more than is proven."""

import math
import sys
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.bounds.climb import beginning
from boundlab.verify.branching import branching
from boundlab.verify.options import Bisection, Branching
from boundlab.verify.standing import Clock
from boundlab.verify.task import task_of_sets
from boundlab.verify.verdict import Verdict
from boundlab.verify.verify import run, verify
from tests.programs.test_milp import minimum_by_patterns
from tests.verify.questions import both_sides_of_the_minimum
from tests.verify.test_verify import cells_minimum, network

D = torch.float64
ONLY = (Branching(base=bl.CROWN(), candidates=4, first_steps=10),)


def later(seconds=20.0):
    return time.perf_counter() + seconds


@pytest.mark.parametrize("seed", range(4))
def test_it_decides_on_both_sides_of_the_true_minimum(seed):
    for model, box, spec, verdict, _ in both_sides_of_the_minimum(seed):
        result, = verify(model, box, spec, stages=ONLY, timeout=30)
        assert result.verdict is verdict
        if verdict is Verdict.VERIFIED:
            assert 0 < float(result.lower) <= 1e-3 + 1e-7


class Bent(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.first, self.middle, self.last, self.function = nn.Linear(2, 5), nn.Linear(5, 5), nn.Linear(5, 3), function

    def forward(self, x):
        return self.last(self.function(self.middle(self.function(self.first(x)))))


FUNCTIONS = {"leaky": lambda x: nn.functional.leaky_relu(x, 0.1), "clip": lambda x: x.clamp(-0.3, 0.4), "abs": torch.abs,
             "tanh": torch.tanh, "sigmoid": torch.sigmoid, "sine": torch.sin, "silu": nn.functional.silu}
OF_SEVERAL = {"product": lambda x: x * x.roll(1, -1), "quotient": lambda x: x / (1 + x.roll(1, -1).square()),
              "maximum": lambda x: torch.maximum(x, -x.roll(1, -1)),
              "pool": lambda x: torch.cat([nn.functional.max_pool1d(x[:, None], 2, 1)[:, 0], -x[:, :1]], 1)}


def on_both_sides(function, radius, rigour, stages=ONLY):
    """Three boxes around a small network, with rows that hold by a little (True) or fail by a little."""
    torch.manual_seed(3)
    model = bl.capture(Bent(function), torch.zeros(2, 2)).detached()
    center = torch.rand(3, 2) * 2 - 1
    box = bl.Box(center - radius, center + radius)
    rows = torch.randn(1, 2, 3).expand(3, -1, -1)
    low = torch.stack([cells_minimum(model, box, bl.at_least(rows[:, place:place + 1])) for place in range(2)], 1)
    for slack, verdict in ((0.05, Verdict.VERIFIED), (-0.01, Verdict.FALSIFIED)):
        results = verify(model, box, bl.at_least(rows, slack - low), stages=stages, timeout=30, rigour=rigour)
        assert [result.verdict for result in results] == [verdict] * 3
        if verdict is Verdict.VERIFIED:
            assert all(bool((result.lower > 0).all() and (result.lower <= slack + 1e-5).all()) for result in results)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operators_of_all_kinds_are_split(name):
    on_both_sides(FUNCTIONS[name], 0.8, bl.Rigour.SOUND)


@pytest.mark.parametrize("name", OF_SEVERAL)
def test_numbers_that_functions_of_several_read_are_split(name):
    on_both_sides(OF_SEVERAL[name], 0.5, bl.Rigour.FLOAT, (bl.PGD(), *ONLY))


def test_an_operator_may_read_one_node_twice():
    torch.manual_seed(3)
    model = bl.capture(Bent(lambda x: torch.maximum(x, x) * x.roll(1, -1)), torch.zeros(1, 2)).detached()
    box, rows = bl.Box(-torch.ones(1, 2), torch.ones(1, 2)), torch.randn(1, 1, 3)
    low = cells_minimum(model, box, bl.at_least(rows))
    result, = verify(model, box, bl.at_least(rows, 0.5 - low[:, None]), stages=ONLY, timeout=0.7, rigour=bl.Rigour.FLOAT)
    assert result.verdict in (Verdict.VERIFIED, Verdict.TIMEOUT) and "branching" in (result.method or result.notes[0])


def test_a_clause_of_two_rows_is_proven_where_neither_row_holds_everywhere():
    model, box = network(2), bl.Box(torch.full((1, 2), -0.2), torch.full((1, 2), 0.2))
    grid = torch.cartesian_prod(*[torch.linspace(-0.2, 0.2, 201)] * 2)
    first = bl.evaluate(model, grid) @ torch.tensor([1.0, -1.0, 0.0])
    middle = (first.min() + first.max()) / 2
    rows = torch.tensor([[[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]])
    either = bl.Specification(rows, torch.stack([-middle, middle])[None] + 0.05, torch.tensor([0, 0]))
    each = bl.Specification(rows, either.offset, torch.tensor([0, 1]))
    assert verify(model, box, either, stages=ONLY, timeout=30)[0].verdict is Verdict.VERIFIED
    assert verify(model, box, each, stages=ONLY, timeout=30)[0].verdict is Verdict.FALSIFIED


def test_programs_of_a_batch_are_about_their_own_problem():
    """No neuron can be split here, so that a linear program decides at once; it is the minimum of the second problem.

    There only the second and the third number move what they are clipped to, and the relaxation is exact for these signs.
    """
    torch.manual_seed(0)
    last = nn.Linear(4, 2)
    with torch.no_grad():
        last.weight[:, 1] = -last.weight[:, 1].abs()
        last.weight[:, 2] = last.weight[:, 2].abs()
    model = bl.capture(nn.Sequential(nn.Hardtanh(-0.7, 0.9), last), torch.zeros(2, 4)).detached()
    center = torch.tensor([[0.0, 0.1, 0.2, 0.3], [2.0, 0.9, -0.7, -2.0]])
    ball = bl.LpBall(center, 0.5, 1.0)
    rows = torch.eye(2)[None].expand(2, -1, -1)
    values = bl.evaluate(model, center[1] + torch.cat([torch.eye(4), -torch.eye(4)]) / 2).amin(0)
    spec = bl.at_least(rows, torch.stack([torch.full((2,), -100.0), 0.05 - values]))
    first, second = verify(model, ball, spec, stages=ONLY, timeout=20, rigour=bl.Rigour.FLOAT)
    assert first.verdict is not Verdict.VERIFIED and second.verdict is Verdict.VERIFIED
    assert bool((second.lower <= 0.05 + 1e-6).all())


def test_nothing_is_proven_when_the_time_is_over():
    model, box = network(1), bl.Box(torch.full((2, 2), -0.1), torch.full((2, 2), 0.1))
    easy = bl.at_least(torch.ones(1, 1, 3), torch.full((1, 1), 100.0))
    task = task_of_sets(model, {model.graph.inputs[0].name: box}, easy, None)
    found = run(task, ONLY, Clock(later(-2.0), later(-1.0)), first=False)
    assert not found.decided
    assert set(run(task, ONLY, Clock(later(0.0), later()), first=False).decided) == {0, 1}


@pytest.mark.parametrize("seed", range(3))
def test_halves_of_relus_begin_no_lower_than_their_parent_ended(seed):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 2)).double()
    model, x = bl.capture(module, torch.zeros(1, 6, dtype=D)).detached(), torch.randn(1, 6, dtype=D)
    spec = bl.at_least(torch.randn(1, 1, 2, dtype=D), torch.full((1, 1), -50.0, dtype=D))
    task = task_of_sets(model, {model.graph.inputs[0].name: bl.Box(x - 1, x + 1)}, spec, None)
    with torch.no_grad():
        search = branching(task, torch.tensor([0]), Branching(base=bl.CROWN(), steps=5), later()).expansion
        parts = search.bounded(search.roots(), math.inf)
        for _ in range(4):
            fresh, stuck = search.split(parts)
            assert len(stuck.goal) == 0 and len(fresh.goal) == 2 * len(parts.goal)
            forgetful = replace(fresh, lower=torch.full_like(fresh.lower, -torch.inf))
            begun = replace(search, options=replace(search.options, steps=0)).bounded(forgetful, math.inf)
            assert bool((begun.lower >= fresh.lower - 1e-9).all())
            parts = search.bounded(fresh, math.inf)


def test_problems_with_varying_weights_are_left_alone():
    model = network(4)
    weight = next(name for name, value in model.params.items() if value.dim() == 2)
    box = bl.Box(model.params[weight][None] - 0.1, model.params[weight][None] + 0.1)
    sets = {model.graph.inputs[0].name: torch.zeros(1, 2), weight: box}
    result, = verify(model, sets, bl.at_least(torch.zeros(1, 1, 3)), stages=ONLY, timeout=5)
    assert not result.verdict.decided


def test_without_the_solver_what_splits_prove_is_kept_and_the_rest_says_what_to_install(monkeypatch):
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    model, x = bl.capture(module, torch.zeros(1, 2, dtype=D)).detached(), torch.randn(1, 2, dtype=D)
    box, row = bl.Box(x - 1, x + 1), torch.randn(2, dtype=D)
    exact = minimum_by_patterns(module, row, box.lower[0], box.upper[0])
    spec = bl.at_least(row.expand(2, 1, 2), torch.tensor([[1.0], [1e-6]], dtype=D) - exact)
    assert [result.verdict for result in verify(model, box, spec, stages=ONLY, timeout=20)] == [Verdict.VERIFIED] * 2
    monkeypatch.delattr("boundlab.programs.solvers", raising=False)
    monkeypatch.setitem(sys.modules, "boundlab.programs.solvers", None)
    first, second = verify(model, box, spec, stages=ONLY, timeout=20)
    assert (first.verdict, second.verdict) == (Verdict.VERIFIED, Verdict.UNKNOWN)
    assert any("boundlab[lp]" in note for note in second.notes) and not first.notes


@torch.no_grad()
def test_rows_have_their_least_value_where_the_lines_meet():
    model, box, spec = small_problem()
    search = branching(task_of_sets(model, {"input": box}, spec, None), torch.arange(3), ONLY[0], later())
    parts = search.expansion.bounded(search.waiting, later())
    objective = search.expansion.objective(parts)
    variables = beginning(objective, len(parts.goal), parts.variables)
    rows, least = objective.meeting(variables)
    output, source = model.graph.output.index, model.graph.inputs[0].index
    torch.testing.assert_close((rows[output] * least[output]).sum(2), objective.at(variables))
    arrived = objective.arriving(variables)
    assert all(torch.equal(rows[index], arrived[index].expand_as(rows[index])) for index in rows)
    reader = next(node for node in model.graph if node.op == "relu")
    corner = search.expansion.points(parts)["input"]
    layer = model.graph[reader.args[0]]
    weight, bias = (model.params[model.graph[index].name] for index in layer.args[1:])
    torch.testing.assert_close(least[layer.index][:, 0], torch.nn.functional.linear(corner, weight, bias))
    assert source not in rows


def small_problem():
    torch.manual_seed(5)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    model, x = bl.capture(module, torch.zeros(1, 4, dtype=D)).detached(), torch.randn(3, 4, dtype=D)
    return model, bl.Box(x - 0.5, x + 0.5), bl.at_least(torch.randn(3, 1, 3, dtype=D), torch.zeros(3, 1, dtype=D))


def test_a_needle_beside_the_centres_is_found_by_the_attack_on_boxes():
    layer, last = nn.Linear(1, 2).double(), nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():  # |x - 0.3137|, which has to be 0.001 at least
        layer.weight.copy_(torch.tensor([[1.0], [-1.0]])), layer.bias.copy_(torch.tensor([-0.3137, 0.3137]))
        last.weight.fill_(1.0)
    model = bl.capture(nn.Sequential(layer, nn.ReLU(), last), torch.zeros(1, 1, dtype=D)).detached()
    box = bl.Box(-torch.ones(1, 1, dtype=D), torch.ones(1, 1, dtype=D))
    spec = bl.at_least(torch.ones(1, 1, 1, dtype=D), torch.full((1, 1), -1e-3, dtype=D))
    result, = verify(model, box, spec, stages=(Bisection(method=bl.IBP()),), timeout=20)
    assert result.verdict is Verdict.FALSIFIED and "bisection" in result.method


def test_it_gives_up_when_open_parts_hold_more_than_they_may():
    torch.manual_seed(5)
    module = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    model, x = bl.capture(module, torch.zeros(2, 3)).detached(), torch.randn(1, 3)
    box = bl.Box(x - 1, x + 1)
    spec = bl.at_least(torch.ones(1, 1, 1), 1e-3 - bl.evaluate(model, box.sample(20000).flatten(0, 1)).amin(0, keepdim=True))
    narrow, = verify(model, box, spec, stages=(replace(ONLY[0], memory=2000),), timeout=30)
    assert not narrow.verdict.decided and "GB of memory" in narrow.notes[-1]
    assert verify(model, box, spec, stages=(replace(ONLY[0], memory="1 GB"),), timeout=60)[0].verdict.decided


def test_parts_are_split_until_rounding_cannot_spoil_their_proof():
    """A bound that is above 0 by less than what is derived again may lose proves a part in floating point only."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    model = bl.capture(net, torch.zeros(1, 4)).detached()
    box = bl.Box(-torch.ones(1, 4), torch.ones(1, 4))
    y = net(box.sample(4000, torch.Generator().manual_seed(0))[:, 0])
    spec = bl.at_least(torch.tensor([[[1.0, -1.0]]]), (y[:, 1] - y[:, 0]).max().reshape(1, 1).detach() + 0.05)
    task = task_of_sets(model, {model.graph.inputs[0].name: box}, spec, None)
    for keep in (False, True):
        state = branching(replace(task, keep=keep), torch.tensor([0]), Branching(), later())
        margin = float(state.expansion.goals.margin)
        assert margin > 1e-6 if keep else margin == 0
        while not state.over:
            state = state.step(later())
        assert 0 in state.found().proven
        assert margin < float(state.floor) < 0.1


class Lopsided(nn.Module):
    """y0 is a little below 0 on all of [-1, 1], and y1 is 10 there, which only splits of its neurons show."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.around = nn.Linear(1, 2), nn.Linear(2, 2), nn.Linear(1, 2, bias=False)
        with torch.no_grad():
            self.first.weight[:], self.around.weight[:] = torch.tensor([[1.0], [-1.0]]), torch.tensor([[0.0], [100.0]])
            self.last.weight[:], self.last.bias[:] = torch.tensor([[-1e-3, 1e-3], [-100.0, 100.0]]), torch.tensor([-0.01, 10.0])
            self.first.bias.zero_()

    def forward(self, x):
        return self.last(torch.relu(self.first(x))) + self.around(x)


@pytest.mark.parametrize("rigour", [bl.Rigour.FLOAT, bl.Rigour.SOUND])
def test_a_clause_that_linear_programs_show_by_a_row_left_out_says_nothing_of_the_row_that_was_sought(rigour):
    model = bl.capture(Lopsided().double(), torch.zeros(1, 1, dtype=D)).detached()
    box = bl.Box(-torch.ones(1, 1, dtype=D), torch.ones(1, 1, dtype=D))
    spec = bl.Specification(torch.eye(2, dtype=D)[None], torch.zeros(1, 2, dtype=D), torch.zeros(2, dtype=torch.long))
    result, = verify(model, box, spec, stages=(Branching(),), timeout=30, rigour=rigour)
    assert result.verdict is Verdict.VERIFIED
    assert bool((result.lower <= torch.tensor([-0.0105, 10.0])).all())
