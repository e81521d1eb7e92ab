"""What is cut off a box is shown by lines, what is left holds every point at which a clause may fail, and proofs say so."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import boundlab as bl
from boundlab.question.vnnlib import parse_vnnlib
from boundlab.spec import Specification
from boundlab.verify import probing, splitting, trimming
from boundlab.verify.boxes import Boxes
from boundlab.verify.mixing import Lines, mixed
from boundlab.verify.splitting import bisection
from boundlab.verify.task import task_of_sets
from boundlab.verify.trimming import trimmed
from boundlab.verify.verdict import Verdict
from tests.verify.questions import files_of

N, D, CLAUSES = 60, 3, 3
INEXACT = {torch.float32: 1e-5, torch.float64: 1e-12}


def question(rows, dtype):
    """Boxes with random lines that can fall short, of which some clauses are shown elsewhere."""
    torch.manual_seed(rows)
    lower = torch.randn(N, D, dtype=dtype)
    boxes = Boxes(torch.zeros(N, dtype=torch.long), lower, lower + torch.rand(N, D, dtype=dtype), lower[:, 0],
                  torch.arange(N), torch.rand(N, CLAUSES) < 0.6)
    slope = torch.randn(N, CLAUSES * rows, D, dtype=dtype)
    lines = Lines(0.4 * torch.rand(N, CLAUSES * rows, dtype=dtype), slope, (boxes.upper - boxes.lower) / 2)
    spec = Specification(torch.ones(1, CLAUSES * rows, 1, dtype=dtype), torch.zeros(1, CLAUSES * rows, dtype=dtype),
                         torch.arange(CLAUSES * rows) % CLAUSES)
    low = lines.middle - torch.linalg.vecdot(slope.abs(), lines.radius[:, None])
    return spec, boxes, lines, mixed(spec, low, lines)


def values_of(spec, lines, clauses, box, boxes, points):
    """The lines of each clause, and the sum that is best, at points (p, d) of one box: (p, c, a + 1), in float64."""
    middle = (boxes.lower[box].double() + boxes.upper[box].double()) / 2
    every = lines.middle[box].double() + (points - middle) @ lines.slope[box].double().T
    own = torch.stack([every[:, spec.clause == clause] for clause in range(CLAUSES)], 1)
    return torch.cat([own, (own * clauses.weights[box].double()).sum(2, keepdim=True)], 2)


def pieces(found, boxes, box):
    """The ends of what each cut takes away, and of what is left after it."""
    lower, upper = boxes.lower[box].clone(), boxes.upper[box].clone()
    for step in range(int((found.side[box] != 0).sum())):
        coordinate, point = int(found.coordinate[box, step]), found.point[box, step]
        off_lower, off_upper = lower.clone(), upper.clone()
        over = found.side[box, step] > 0
        (off_lower if over else off_upper)[coordinate] = point
        (upper if over else lower)[coordinate] = point
        yield step, (off_lower, off_upper), (lower.clone(), upper.clone())


def corners(ends):
    return torch.cartesian_prod(*torch.stack(ends, 1).double())


@pytest.mark.parametrize("dtype", list(INEXACT))
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_what_is_cut_off_is_shown_and_nothing_else_is_lost(rows, dtype):
    spec, boxes, lines, clauses = question(rows, dtype)
    found = trimmed(spec, boxes, lines, clauses)
    open_now = ~boxes.shown & ~(clauses.lower > 0)
    assert int(found.cut.sum()) > N // 4
    assert int((found.end > 0).sum()) >= (5 if rows > 2 else 0), "of two rows the best sum is known"
    for box in range(N):
        still, last = open_now[box].clone(), (boxes.lower[box], boxes.upper[box])
        for step, off, last in pieces(found, boxes, box):
            width = boxes.upper[box] - boxes.lower[box]
            assert bool((off[0] < off[1]).all()) and bool((last[0] < last[1]).all()) and bool((width > 0).all())
            assert torch.equal(found.row[box, step] >= 0, still), "each open clause, and no other, is shown"
            at = values_of(spec, lines, clauses, box, boxes, corners(off))
            rest = values_of(spec, lines, clauses, box, boxes, corners(last))
            for clause in still.nonzero().flatten().tolist():
                shown = at[:, clause, found.row[box, step, clause]].min()
                assert float(shown) > INEXACT[dtype] / 10, "with room for rounding"
                own = found.floor[box, spec.clause == clause].double()
                assert bool((own <= at[:, clause, :-1].amin(0) + INEXACT[dtype]).all())
                if found.end[box, clause] == step + 1:
                    assert float(rest[:, clause, found.last[box, clause]].min()) > INEXACT[dtype] / 10
            still &= found.end[box] != step + 1
        assert torch.equal(last[0], found.lower[box]) and torch.equal(last[1], found.upper[box])
        assert bool((found.end[box][~open_now[box]] == 0).all())
        assert bool(found.floor[box].isinf().all()) or bool(found.cut[box])
        if rows == 1:
            assert bool((found.floor[box] > 0).all())


def test_a_box_without_lines_and_one_with_numbers_that_are_none_stay_whole():
    spec, boxes, lines, clauses = question(2, torch.float64)
    assert not trimmed(spec, boxes, None, clauses).cut.any()
    for broken in (math.nan, math.inf, -math.inf):
        for bad in (replace(lines, middle=torch.full_like(lines.middle, broken)),
                    replace(lines, slope=torch.full_like(lines.slope, broken))):
            found = trimmed(spec, boxes, bad, clauses)
            assert not found.cut.any() and torch.equal(found.lower, boxes.lower) and not found.end.any()


def searched(seed, clauses, slack, keep=True):
    """The end of a search: a small network, and clauses of two rows that hold by `slack`, or do not."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2 * clauses)).double()
    model, x = bl.capture(net, torch.zeros(1, 3, dtype=torch.float64)).detached(), torch.zeros(1, 3, dtype=torch.float64)
    box, clause = bl.Box(x - 1, x + 1), torch.arange(2 * clauses) // 2
    values = bl.evaluate(model, box.sample(20000).flatten(0, 1)).reshape(-1, clauses, 2)
    lack = -values.amax(2).amin(0) + slack
    spec = Specification(torch.eye(2 * clauses, dtype=torch.float64)[None], lack.repeat_interleave(2)[None], clause)
    task = replace(task_of_sets(model, {model.graph.inputs[0].name: box}, spec, None), keep=keep)
    return bisection(task, torch.tensor([0]), bl.Bisection(boxes=512))


def ended(state):
    while not state.over:
        state = state.step(math.inf)
    return state


@pytest.mark.parametrize(("clauses", "slack"), [(1, 0.1), (3, 0.1), (3, -0.02)])
def test_the_verdicts_are_those_without_and_boxes_are_fewer(clauses, slack, monkeypatch):
    monkeypatch.setattr(probing, "SAMPLES", 0)
    found = [ended(searched(seed, clauses, slack)).found() for seed in range(2)]
    monkeypatch.setattr(trimming, "MOST", 0)
    plain = [ended(searched(seed, clauses, slack)).found() for seed in range(2)]
    for one, other in zip(found, plain, strict=True):
        assert one.proven.keys() == other.proven.keys() and one.witnesses.keys() == other.witnesses.keys()
        assert bool(one.proven) == (slack > 0)
    assert slack < 0 or sum(one.parts for one in found) < 0.9 * sum(one.parts for one in plain)


@pytest.mark.parametrize("clauses", [1, 3])
def test_leaves_of_each_clause_fill_the_whole_box(clauses):
    """Volumes of the leaves' boxes, which lie beside each other, add up."""
    proof = ended(searched(0, clauses, 0.02)).proof(0)
    assert len(proof.frame.unique()) < len(proof.frame), "parts of one box lie in one frame"
    splits, total = proof.splits, torch.zeros(clauses, dtype=torch.float64)
    for leaf, clause in enumerate(proof.clause.tolist()):
        lower, upper = -torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        for neuron, side, point in zip(splits.neuron[leaf], splits.side[leaf], splits.point[leaf], strict=True):
            if side > 0:
                lower[neuron] = point
            elif side < 0:
                upper[neuron] = point
        assert bool((lower < upper).all())
        total[clause] += (upper - lower).prod()
    assert np.allclose(total.numpy(), 8, rtol=1e-12)


@pytest.mark.parametrize("function", ["Relu", "Tanh"])
def test_the_checker_accepts_what_is_cut_off(function, tmp_path, monkeypatch):
    """In single precision, without halving a leaf; and it does not, where more is cut off than lines show."""
    network, spec = files_of(function, 1, 0.05, tmp_path)
    original, query = bl.load_original(network), parse_vnnlib(spec)
    monkeypatch.setattr("boundlab.certificates.mend.MOST_ROUNDS", 0)
    result, = bl.verify(original, query, stages=(bl.Bisection(),), timeout=60)
    proof, = result.proofs
    assert result.verdict is Verdict.VERIFIED and result.rigour is bl.Rigour.CHECKED
    assert len(proof.frame.unique()) < len(proof.frame)
    honest = splitting.bound_boxes
    calls = []

    def greedy(*arguments):
        found = honest(*arguments)
        calls.append(found)
        return replace(found, trims=replace(found.trims, lower=boxes_end(arguments[1]), upper=boxes_end(arguments[1]),
                                            end=torch.ones_like(found.trims.end)))

    def boxes_end(boxes):
        return (boxes.lower + boxes.upper) / 2

    monkeypatch.setattr(splitting, "bound_boxes", greedy)
    broken, = bl.verify(original, query, stages=(bl.Bisection(),), timeout=60)
    assert calls and broken.rigour is not bl.Rigour.CHECKED
