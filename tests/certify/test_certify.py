"""Laws of a certified data set: it says what `verify` says of each example, and whatever goes wrong is a row of its own."""

from __future__ import annotations

import csv
import importlib
import io
import math
import os
import subprocess
import sys
from collections import deque
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

import boundlab as bl
from boundlab.certify import export
from boundlab.certify import task as task_module
from boundlab.certify.board import Board
from boundlab.certify.carried import arrived, parcel_of
from boundlab.certify.certification import UNASKED
from boundlab.certify.certify import State
from boundlab.certify.export import csv_of, save_records
from boundlab.certify.record import Finding, Status
from boundlab.engines.engine import Serial
from boundlab.errors import BoundlabError, MissingPackage
from boundlab.verify import sound
from boundlab.whole_file import write_whole
from tests.certify import cases
from tests.certify.cases import COUNT, EPS, MARK, Trap, examples, model, module, statuses, table

ROOT = Path(__file__).parents[2]
OPEN = bl.Plan(stages=(bl.IBP(), bl.PGD(steps=10), bl.CROWN()))
"""Leaves some questions open."""


@pytest.fixture(scope="module")
def data():
    return examples()


@pytest.fixture(scope="module")
def whole(data):
    return bl.certify(model(), data, EPS)


def test_the_cases_are_of_all_kinds(whole, data):
    found = set(statuses(whole).values()) | set(statuses(bl.certify(model(), data, EPS, OPEN)).values())
    assert found == set(Status) - {Status.FAILED}
    assert any(record.finding.nested for record in whole.records)


@pytest.mark.parametrize("p", [math.inf, pytest.param(2.0, marks=pytest.mark.slow)])
def test_each_record_is_what_verify_says_of_the_example_alone(data, p):
    data = data.take(range(8))
    network, found = model(), bl.certify(model(), data, EPS, bl.Plan(p=p))
    words = {bl.Verdict.VERIFIED: Status.CERTIFIED, bl.Verdict.FALSIFIED: Status.FALSIFIED}
    for record in found.records:
        place = slice(record.index, record.index + 1)
        ball = bl.LpBall(data.x[place], record.eps, p, (0, 1))
        (alone,) = bl.verify(network, ball, bl.margins(data.labels[place], 3))
        if record.status is Status.MISCLASSIFIED:
            assert alone.verdict is bl.Verdict.FALSIFIED
        else:
            assert record.status is words.get(alone.verdict, Status.UNKNOWN)
        if record.status is Status.CERTIFIED:
            assert record.finding.rigour is bl.Rigour.SOUND and record.finding.margin > 0


def test_no_grid_point_of_a_certified_ball_has_another_label(whole, data):
    steps = torch.linspace(-1, 1, 41)
    grid, net = torch.cartesian_prod(steps, steps), module()
    for record in whole.records:
        points = (data.x[record.index] + record.eps * grid).clamp(0, 1)
        same = net(points).argmax(1) == record.label
        assert bool(same.all()) or record.status in (Status.FALSIFIED, Status.MISCLASSIFIED)


def test_counterexamples_are_in_their_balls_and_have_another_label(whole, data):
    net, seen = module(), 0
    for record in whole.records:
        adversary = record.finding.adversary
        assert (adversary is not None) == (record.status is Status.FALSIFIED)
        if adversary is not None:
            point = torch.from_numpy(adversary.x)
            assert float((point - data.x[record.index]).abs().max()) <= record.eps * (1 + 1e-6)
            assert float(point.min()) >= 0 and float(point.max()) <= 1
            scores = net(point[None])[0].tolist()
            assert scores[record.label] <= scores[adversary.label] and adversary.label != record.label
            seen += 1
    points = whole.counterexamples()
    assert seen > len(points["x"]) == len(set(zip(points["index"].tolist(), points["eps"].tolist(), strict=True))) > 0
    assert torch.equal(net(torch.from_numpy(points["x"])).argmax(1), torch.from_numpy(points["scores"].argmax(1)))


def test_radii_are_nested(whole):
    for index in range(COUNT):
        own = [record.status for record in whole.records if record.index == index]
        certified = [status is Status.CERTIFIED for status in own]
        falsified = [status is Status.FALSIFIED for status in own]
        assert certified == sorted(certified, reverse=True) and falsified == sorted(falsified)
        reach = whole.reach[index]
        assert reach.certified == max((eps for eps, yes in zip(EPS, certified, strict=True) if yes), default=None)
        assert reach.falsified == min((eps for eps, yes in zip(EPS, falsified, strict=True) if yes), default=None)


def test_shares_are_bounds_of_one_another(whole):
    assert [one.eps for one in whole.shares] == list(EPS)
    for one in whole.shares:
        assert 0 <= one.certified <= one.attacked <= one.clean == (COUNT - 2) / COUNT
        assert one.attacked - one.certified == pytest.approx(one.unknown + one.failed)
        assert sum(one.methods.values()) == pytest.approx(one.certified)
        classes = whole.by_class(one.eps)
        assert sum(part.examples for part in classes.values()) == COUNT
        assert sum(part.certified * part.examples for part in classes.values()) == pytest.approx(COUNT * one.certified)
    assert all(a.certified >= b.certified and a.attacked >= b.attacked
               for a, b in zip(whole.shares, whole.shares[1:], strict=False))


def test_one_radius_alone_agrees_with_many(whole, data):
    for eps in EPS[1:2]:
        alone = bl.certify(model(), data, eps)
        assert statuses(alone) == {key: status for key, status in statuses(whole).items() if key[1] == eps}


def test_batches_and_processes_change_nothing(whole, data, crew):
    small = bl.certify(model(), data.take(range(6)), EPS, bl.Plan(batch=1))
    assert statuses(small) == {key: status for key, status in statuses(whole).items() if key[0] < 6}
    assert table(bl.certify(model(), data, EPS, jobs=bl.Jobs(crew))) == table(whole)


@pytest.mark.slow
def test_a_cluster_changes_nothing(whole, data, ray_engine, tmp_path):
    assert table(bl.certify(model(), data, EPS, jobs=bl.Jobs(ray_engine, tmp_path / "ledger"))) == table(whole)


def test_float64_does_not_contradict_float32(whole, data):
    found, both = bl.certify(model(torch.float64), data.take(range(8)), EPS), {Status.CERTIFIED, Status.FALSIFIED}
    assert all({one, statuses(whole)[key]} != both for key, one in statuses(found).items())


def test_a_tie_is_no_right_answer_and_nan_no_answer():
    weight = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    net = torch.nn.Linear(2, 3, bias=False)
    net.weight.data.copy_(weight)
    tied = bl.capture(net, torch.zeros(2, 2)).detached()
    found = bl.certify(tied, bl.Examples(torch.tensor([[0.5, 0.0], [0.0, 0.5]]), torch.tensor([0, 2])), 0.0)
    assert [record.status for record in found.records] == [Status.MISCLASSIFIED, Status.CERTIFIED]
    name, = tied.params
    broken = tied.with_params({name: torch.full_like(weight, math.nan)})
    found = bl.certify(broken, bl.Examples(torch.tensor([[0.5, 0.5]]), torch.tensor([0])), 0.1)
    assert found.records[0].status is Status.MISCLASSIFIED and found.records[0].finding.reason == "a score is NaN or infinite"
    assert (found.shares[0].certified, found.shares[0].clean) == (0, 0)


def test_a_counterexample_that_ties_leads_to_another_class(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU(), torch.nn.Linear(1, 2, bias=False))
    for parameter, value in zip(net.parameters(), ([[1.0]], [-0.4], [[1.0], [0.0]]), strict=True):
        parameter.data.copy_(torch.tensor(value))
    one = bl.Examples(torch.tensor([[0.5]], requires_grad=True), torch.tensor([0]))
    found = bl.certify(bl.capture(net, torch.zeros(2, 1)).detached(), one, 0.3, bl.Plan(clip=(-math.inf, 1)))
    (record,) = found.records
    assert record.status is Status.FALSIFIED and record.finding.adversary.scores.tolist() == [0, 0]
    bl.save_certification(found, tmp_path)
    again = bl.read_certification(tmp_path)
    assert found.confusions(0.3) == again.confusions(0.3) == {(0, 1): 1} and again.settings == found.settings


def test_what_holds_in_floating_point_alone_is_unknown(data, monkeypatch):
    loose = bl.certify(model(), data, 0.01, bl.Plan(rigour=bl.Rigour.FLOAT))
    certified = [record for record in loose.records if record.status is Status.CERTIFIED]
    assert certified and all(record.finding.rigour is bl.Rigour.FLOAT for record in certified)
    monkeypatch.setattr(sound, "onnx_of", lambda *_: (_ for _ in ()).throw(bl.CaptureError("no file")))
    found = bl.certify(model(), data, 0.01)
    assert found.shares[0].certified == 0
    assert all("rounding is not accounted for: no file" in found.records[record.index].finding.reason for record in certified)


def test_an_onnx_file_is_certified_as_it_is(tmp_path, whole, data):
    bl.save_onnx(model(), tmp_path / "net.onnx")
    found = bl.certify(bl.load_original(tmp_path / "net.onnx"), data, EPS)
    assert statuses(found) == statuses(whole)
    assert {record.finding.rigour for record in found.records if record.status is Status.CERTIFIED} == {bl.Rigour.CHECKED}


def marked(data):
    """The examples, one of them marked."""
    x = data.x.clone()
    x[5, 0] = MARK
    with torch.no_grad():
        return bl.Examples(x, module()(x).argmax(1))


FAULTS = {"raise": "ZeroDivisionError: a trap", "torch memory": "more than 100000000 bytes",
          "numpy memory": "more than 100000000 bytes"}


@pytest.mark.parametrize("way", FAULTS)
def test_what_fails_is_a_row(data, way):
    memory = "100MB" if "memory" in way else None
    found = bl.certify(model(), marked(data), EPS[:2], bl.Plan(stages=(Trap(way), bl.CROWN()), memory=memory))
    right = bl.certify(model(), marked(data), EPS[:2], bl.Plan(stages=(bl.IBP(), bl.CROWN())))
    for record, other in zip(found.records, right.records, strict=True):
        if record.index == 5:
            assert record.status is Status.FAILED and FAULTS[way] in record.finding.reason and "\n" not in record.finding.reason
        else:
            assert record.status is other.status
    assert sum(found.failures.values()) == 2 and found.shares[0].failed == 1 / COUNT


def test_what_hangs_is_a_row(data, monkeypatch):
    monkeypatch.setattr(task_module, "GRACE", 0.3)
    plan = bl.Plan(stages=(Trap("hang"),), timeout=0.1, batch=4)
    found = bl.certify(model(), marked(data).take(range(4, 8)), 0.01, plan)
    assert [record.status is Status.FAILED for record in found.records] == [False, True, False, False]
    assert "did not end by itself" in found.records[1].finding.reason


@pytest.mark.parametrize(("way", "again"), [("full disk", True), ("raise", False)])
def test_what_surroundings_make_fail_is_asked_again(data, tmp_path, monkeypatch, way, again):
    few, plan = marked(data).take(range(4, 7)), bl.Plan(stages=(Trap(way), bl.CROWN()))
    jobs = bl.Jobs(ledger=tmp_path / "ledger")
    assert bl.certify(model(), few, 0.01, plan, jobs).records[1].status is Status.FAILED
    monkeypatch.setattr(cases, "spring", lambda way: None)
    assert (bl.certify(model(), few, 0.01, plan, jobs).records[1].status is not Status.FAILED) == again


def test_what_failed_is_tried_again_if_that_is_asked_for(data, tmp_path, monkeypatch):
    few, plan = marked(data).take(range(4, 7)), bl.Plan(stages=(Trap(), bl.CROWN()))
    assert bl.certify(model(), few, 0.01, plan, bl.Jobs(ledger=tmp_path / "ledger")).failures
    monkeypatch.setattr(cases, "spring", lambda way: None)
    assert bl.certify(model(), few, 0.01, plan, bl.Jobs(ledger=tmp_path / "ledger")).failures
    again = Counting()
    assert not bl.certify(model(), few, 0.01, plan, bl.Jobs(again, tmp_path / "ledger", retry_failed=True)).failures
    assert 0 < again.done < 3, "what was answered is not asked again"
    assert not bl.certify(model(), few, 0.01, plan, bl.Jobs(ledger=tmp_path / "ledger")).failures, "the new answer is kept"


@pytest.mark.slow
def test_what_kills_its_process_is_a_row(data, tmp_path):
    plan = bl.Plan(stages=(Trap("die"), bl.CROWN()), batch=8)
    found = bl.certify(model(), marked(data), 0.01, plan, bl.Jobs(bl.Pool(2, retries=0), tmp_path / "ledger"))
    assert [record.index for record in found.records if record.status is Status.FAILED] == [5]
    assert "worker processes died" in found.records[5].finding.reason


def test_a_question_out_of_time_is_unknown(data):
    found = bl.certify(model(), data, 0.2, bl.Plan(timeout=1e-9))
    assert {record.status for record in found.records} == {Status.UNKNOWN, Status.MISCLASSIFIED}
    assert all("time was over" in record.finding.reason for record in found.records if record.status is Status.UNKNOWN)


class Counting:
    """Tasks one after the other, counted; an interruption after some."""

    def __init__(self, most=10**9):
        self.most, self.done = most, 0

    def stream(self, function, tasks):
        for pair in Serial().stream(function, tasks):
            if self.done == self.most:
                raise KeyboardInterrupt
            self.done += 1
            yield pair


def test_an_interrupted_run_goes_on_and_gives_the_same_table(whole, data, tmp_path):
    data, straight = data.take(range(8)), Counting()
    whole_of_eight = [record for record in whole.records if record.index < 8]
    bl.certify(model(), data, EPS, bl.Plan(batch=2), bl.Jobs(straight))
    spent, rounds = 0, 0
    while True:
        engine, rounds = Counting(most=3), rounds + 1
        try:
            found = bl.certify(model(), data, EPS, bl.Plan(batch=2), bl.Jobs(engine, tmp_path / "ledger"))
            break
        except KeyboardInterrupt as stop:
            spent += engine.done
            sofar = stop.found
            for record, other in zip(sofar.records, whole_of_eight, strict=True):
                assert record.status is other.status or record.finding.reason == UNASKED
            assert 0 < sofar.unasked < len(sofar.records) and sofar.explained is None
            bl.save_certification(sofar, tmp_path)
            assert bl.read_certification(tmp_path).unasked == sofar.unasked
    assert rounds > 2 and spent + engine.done == straight.done, "nothing that was finished is computed again"
    assert statuses(found) == {key: status for key, status in statuses(whole).items() if key[0] < 8}
    again = Counting()
    assert table(bl.certify(model(), data, EPS, bl.Plan(batch=2), bl.Jobs(again, tmp_path / "ledger"))) == table(found)
    assert again.done == 0


def test_other_settings_find_nothing_in_the_ledger(data, tmp_path):
    few = data.take(range(4))

    def done(*arguments):
        engine = Counting()
        bl.certify(*arguments, jobs=bl.Jobs(engine, tmp_path / "ledger"))
        return engine.done

    assert done(model(), few, 0.01) > 0 == done(model(), few, 0.01)
    other = model().with_params({"0.weight": model().params["0.weight"] + 1e-7})
    for arguments in ((other, few, 0.01), (model(), few, 0.011), (model(), few, 0.01, bl.Plan(clip=None)),
                      (model(), few, 0.01, bl.Plan(rigour=bl.Rigour.FLOAT)), (model(), few, 0.01, OPEN)):
        assert done(*arguments) > 0 == done(*arguments)


@pytest.mark.slow
def test_a_network_is_the_same_bytes_in_every_process(data):
    code = ("import hashlib; from tests.certify.cases import model; from boundlab.certify.carried import carried, packed; "
            "from boundlab import Original, LADDER; "
            "print(hashlib.sha256(carried(Original(model())).tobytes() + packed(LADDER).tobytes()).hexdigest())")
    told = {subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
                           env={**os.environ, "PYTHONHASHSEED": seed}).stdout for seed in ("1", "2")}
    assert len(told) == 1
    own = arrived(parcel_of(bl.Original(model())), "cpu")
    assert torch.equal(bl.evaluate(own.model, data.x), bl.evaluate(model(), data.x))


def test_progress_ends_with_everything_answered(data):
    seen = []
    found = bl.certify(model(), data, EPS, jobs=bl.Jobs(watch=seen.append))
    last = seen[-1]
    assert (last.answered, last.waiting, last.questions) == (4 * COUNT, 0, 4 * COUNT)
    assert last.certified == tuple(one.certified for one in found.shares)
    assert last.attacked == pytest.approx(tuple(one.attacked for one in found.shares))


def test_the_rate_is_that_of_late():
    """A ledger gives a thousand answers at once; then there is one in two seconds."""
    state = State(Board(1, (1.0,), {}), marks=deque([(0.0, 0)]))
    state.done = 1000
    assert state.rate(0.5) == 2000
    for now in range(2, 100, 2):
        state.done += 1
        rate = state.rate(now)
    assert rate == pytest.approx(0.5, rel=0.1)
    assert 0 < state.rate(1000) < 0.1, "no news for long is slow"


def test_an_answer_says_what_it_implies():
    board = Board(1, (1.0, 2.0, 3.0), {})
    assert board.wave(set()) == [(0, 1)]
    proven = board.with_findings({(0, 1): Finding(Status.CERTIFIED, "m", margin=0.5, seconds=2.0)})
    assert proven.found[0, 0].nested == 2.0 and proven.found[0, 0].seconds == 0 and proven.wave(set()) == [(0, 2)]
    unknown = proven.with_findings({(0, 2): Finding(Status.UNKNOWN, margin=-1.0, seconds=1.0)})
    assert unknown.wave({(0, 2)}) == [] and unknown.wave(set()) == [(0, 2)]
    broken = unknown.with_findings({(0, 2): Finding(Status.FALSIFIED, "attack", seconds=1.0)})
    assert broken.found[0, 2].seconds == 2.0 and broken.found[0, 2].margin == -1.0 and broken.wave(set()) == []
    failed = board.with_findings({(0, 0): Finding(Status.FAILED, reason="r")}).with_findings(
        {(0, 2): Finding(Status.CERTIFIED, "m")})
    assert failed.found[0, 0].status is Status.CERTIFIED, "what failed is proven by a larger ball"


TWO = bl.Examples(torch.tensor([[0.5, 0.5]]), torch.tensor([0]))
BAD = {
    "no radius": (lambda: bl.certify(model(), TWO, []), "at least one; got none"),
    "a negative radius": (lambda: bl.certify(model(), TWO, [0.1, -0.1]), "got -0.1"),
    "NaN": (lambda: bl.certify(model(), TWO, math.nan), "got nan"),
    "a radius in words": (lambda: bl.certify(model(), TWO, ["0.1"]), "got 0.1"),
    "no labels": (lambda: bl.certify(model(), bl.Examples(TWO.x), 0.1), "no labels"),
    "a label of no class": (lambda: bl.certify(model(), bl.Examples(TWO.x, torch.tensor([3])), 0.1), "classes 0 to 2"),
    "outside the domain": (lambda: bl.certify(model(), bl.Examples(TWO.x + 1, TWO.labels), 0.1), "outside 0 to 1"),
    "another shape": (lambda: bl.certify(model(), bl.Examples(torch.rand(1, 5), TWO.labels), 0.1), r"takes \[2\]"),
    "no scores": (lambda: bl.certify(bl.capture(torch.nn.Linear(2, 1), TWO.x.repeat(2, 1)), TWO, 0.1), "vector of scores"),
    "norm 0": (lambda: bl.Plan(p=0), "order p >= 1"),
    "an empty domain": (lambda: bl.Plan(clip=(1, 0)), "from a low to a high"),
    "no stage": (lambda: bl.Plan(stages=()), "at least one stage"),
    "no time": (lambda: bl.Plan(timeout=0), "time limit above 0"),
    "a stage in words": (lambda: bl.Plan(stages=("crown",)), "a method is a value"),
    "a stage that does not travel": (
        lambda: bl.certify(model(), examples(3), 0.1, bl.Plan(stages=(bl.CROWN(alpha=lambda *_: None),))), "hold no lambda"),
    "another type": (lambda: bl.certify(model(torch.bfloat16), TWO, 0.1), "computes in torch.bfloat16"),
    "no radius at all": (lambda: bl.certify(model(), TWO, None), "got None"),
    "memory in words": (lambda: bl.Plan(memory="much"), "such as '4GB'"),
    "a class of engines": (lambda: bl.Jobs(bl.Serial), "an engine is a value"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_calls_are_one_sentence(name):
    call, words = BAD[name]
    with pytest.raises(BoundlabError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_files_hold_everything(whole, tmp_path):
    written = bl.save_certification(whole, tmp_path)
    assert {path.name for path in written} == {path.name for path in tmp_path.iterdir()}
    again = bl.read_certification(tmp_path)
    assert again.settings == whole.settings and again.record() == whole.record() and again.shares == whole.shares
    for one, other in zip(again.records, whole.records, strict=True):
        assert (one.finding.adversary is None) == (other.finding.adversary is None)
        if one.finding.adversary is not None:
            assert np.array_equal(one.finding.adversary.x, other.finding.adversary.x)
    lines = list(csv.DictReader((tmp_path / "records.csv").read_text().splitlines()))
    assert [(int(row["index"]), float(row["eps"]), row["status"]) for row in lines] == [
        (record.index, record.eps, record.status.name.lower()) for record in whole.records]


@pytest.mark.parametrize("damage", ["certification.json", "counterexamples.npz"])
def test_damaged_files_are_a_sentence(whole, tmp_path, damage):
    bl.save_certification(whole, tmp_path)
    content = (tmp_path / damage).read_bytes()
    for size in (0, 10, len(content) // 2):
        (tmp_path / damage).write_bytes(content[:size])
        with pytest.raises(bl.DataError, match="no whole certification"):
            bl.read_certification(tmp_path)


@pytest.mark.parametrize("most", range(1, 5))
def test_a_kill_between_two_files_leaves_no_pair_that_does_not_fit(whole, data, tmp_path, monkeypatch, most):
    other = bl.certify(model(), data, EPS[1:], OPEN)
    bl.save_certification(other, tmp_path)
    written = []

    def dying(path, content):
        if len(written) == most:
            raise KeyboardInterrupt
        written.append(path)
        return write_whole(path, content)

    monkeypatch.setattr(export, "write_whole", dying)
    with pytest.raises(KeyboardInterrupt) if most < 4 else nullcontext():
        bl.save_certification(whole, tmp_path)
    monkeypatch.undo()
    try:
        found = bl.read_certification(tmp_path)
    except bl.DataError as problem:
        assert "of another run" in str(problem) and 1 < most < 4
    else:
        assert found.record() == (whole if most == 4 else other).record()
    bl.save_certification(whole, tmp_path)
    assert bl.read_certification(tmp_path).record() == whole.record()


def test_tables_are_csv_or_parquet(whole, tmp_path):
    assert save_records(whole, tmp_path / "r.csv").read_text().count("\n") == len(whole.records) + 1
    with pytest.raises(bl.BoundlabError, match=r"as \.csv or \.parquet"):
        save_records(whole, tmp_path / "r.xlsx")
    try:
        table = importlib.import_module("pyarrow.parquet").read_table
    except ImportError:
        with pytest.raises(MissingPackage, match="pip install pyarrow"):
            save_records(whole, tmp_path / "r.parquet")
    else:
        assert table(save_records(whole, tmp_path / "r.parquet")).num_rows == len(whole.records)


def test_names_of_examples_are_kept():
    names = ("a.png", 'b,"c"\nd\re')
    found = bl.certify(model(), bl.Examples(x := torch.full((2, 2), 0.5), module()(x).argmax(1), names), 0.0)
    assert [record.row()["name"] for record in found.records] == list(names) and np.isfinite(found.seconds)
    rows = list(csv.DictReader(io.StringIO(csv_of(found), newline="")))
    assert [row["name"] for row in rows] == [names[0], names[1].replace("\r", " ")] and None not in rows[1]
