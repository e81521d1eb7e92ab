"""The benchmark runner on networks of a few neurons: what it writes, in which order it measures, and when it gives up."""

from __future__ import annotations

import json
import math
import sys
import time

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import memory, ours, peer, worker
from benchmarks.__main__ import app, peer_here
from benchmarks.cases import OURS, PEER, Job, Limits, Line
from benchmarks.figure import save_figure
from benchmarks.generated import Generated
from benchmarks.laws import fit, laws_table
from benchmarks.limits import fastest
from benchmarks.networks import Small, networks_of
from benchmarks.record import bounds_entry
from benchmarks.scaling import FEW, QUICK, points, rows_pulled
from benchmarks.suite import Effort, Plan, measure_bounds, measure_steps
from benchmarks.tables import bounds_table, markdown, merged, steps_table
from benchmarks.targets import NETWORKS, STEP_TARGETS, TARGETS, Target, held, target_lines, targets_table
from benchmarks.turns import Measured, take_turns
from benchmarks.worker import Failure, Run, local
from boundlab.check.tally import Speed

HERE = Plan((OURS,), Effort(Limits(), patience=0.0), enter=local)
JOB = Job(OURS, Small("small_mlp"), "CROWN", 2)


@pytest.fixture(scope="module")
def results():
    lines = [Line("small_cnn", method, (2,)) for method in ours.METHODS]
    bounds = list(measure_bounds(lines, networks_of(None), HERE))
    training = measure_steps(Small("small_cnn"), (*ours.STEPS, *peer.STEPS), 4, HERE)
    return {"bounds": bounds, "training": training}


def test_every_method_gives_figures_and_no_ratios_without_a_peer(results):
    assert len(results["bounds"]) == len(ours.METHODS)
    for entry in results["bounds"]:
        assert set(entry) == {"network", "method", "batch", OURS}, "no ratio, no peer"
        side = entry[OURS]
        assert side["state"] == "done" and side["seconds"] > 0 and len(side["runs"]) >= 1
        assert math.isfinite(side["mean"]) and side["mean"] <= mean_margin() + 1e-5, "a lower bound, on average"


def test_limits_explain_the_time_of_a_call():
    command = ["limits", "--networks", "small_cnn", "--methods", "CROWN,IBP", "--batches", "2"]
    outcome = CliRunner().invoke(app, command, env={"BOUNDLAB_DATA": None})
    assert outcome.exit_code == 0, outcome.output
    rows = [line.split() for line in outcome.output.splitlines() if line.startswith("small_cnn")]
    assert [row[1] for row in rows] == ["CROWN", "IBP"] and all(float(value) >= 0 for row in rows for value in row[2:])
    assert int(rows[0][6]) > int(rows[1][6]) > 10  # torch calls


def test_the_speed_of_a_machine_is_the_best_that_was_seen():
    best = fastest([Speed(1, 2, 3, 9, 5, 0.2), Speed(2, 1, 4, 8, 6, 0.1)])
    assert best == Speed(2, 2, 4, 9, 6, 0.1)


@pytest.mark.parametrize(("device", "told"), [("tpu", "is cpu or cuda"), ("cuda", "sees no CUDA device")])
@pytest.mark.parametrize("command", [["--smoke"], ["limits"], ["scaling", "--quick"]])
def test_a_device_that_is_not_there_is_refused(command, device, told, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    outcome = CliRunner().invoke(app, [*command, "--device", device], env={"BOUNDLAB_DATA": None})
    assert outcome.exit_code == 2 and told in outcome.output


def mean_margin():
    """The mean margin of the first two inputs themselves."""
    loaded = Small("small_cnn").load()
    with torch.no_grad():
        return float((loaded.rows[:2] @ loaded.module(loaded.x[:2]).unsqueeze(2)).mean())


def test_every_step_gives_its_multiple_of_the_natural_one(results):
    assert [entry["step"] for entry in results["training"]] == list(ours.STEPS)
    assert results["training"][0][OURS]["times_natural"] == 1
    assert all(entry[OURS]["state"] == "done" and entry[OURS]["times_natural"] > 0 for entry in results["training"])


def test_tables_have_a_line_for_each_entry(results):
    for table, kind in ((bounds_table(results), "bounds"), (steps_table(results), "training")):
        assert len(table.rows) == len(results[kind])
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert not any("peer" in name for name in table.columns)
        lines = markdown(table).splitlines()
        assert len(lines) == len(table.rows) + 2 and len({line.count("|") for line in lines}) == 1
    assert merged([results, results])["bounds"] == results["bounds"]


class Script:
    """A contender that answers from a list, and writes its name down."""

    def __init__(self, name, answers, diary):
        self.name, self.answers, self.diary, self.build = name, iter(answers), diary, 0.5

    def run(self):
        self.diary.append(self.name)
        return next(self.answers)

    def end(self):
        pass


def test_contenders_take_turns_and_the_first_short_run_does_not_count():
    diary: list[str] = []
    quick = [Run(9.0, 100, (1.0,)), *[Run(seconds, None, (1.0,)) for seconds in (1.0, 3.0, 2.0)]]
    slow = [Run(50.0, 200, (0.5,))]
    late = [Run(9.0, 300, (0.5,)), Failure("over", "over 60 s", 60.0)]
    contenders = {name: Script(name, answers, diary) for name, answers in (("A", quick), ("B", slow), ("C", late))}
    found = take_turns(contenders, patience=10.0)
    assert diary == ["A", "B", "C", "A", "C", "A", "A"]
    assert found["A"].seconds == 2.0 and found["A"].memory == 100 and found["A"].build == 0.5
    assert found["B"].runs == (50.0,), "a long run is not done again"
    assert (found["C"].state, found["C"].at_least, found["C"].seconds) == ("over", 60.0, None)


def test_ratios_compare_time_memory_and_every_row():
    mine, theirs = Measured("done", (2.0,), 10, (1.0, 3.0)), Measured("done", (8.0,), 50, (1.5, 2.0))
    entry = bounds_entry({"network": "n", "method": "CROWN", "batch": 1}, {OURS: mine, PEER: theirs})
    assert (entry["times_faster"], entry["times_smaller"]) == (4.0, 5.0)
    assert (entry["mean_gain"], entry["least_gain"]) == (0.25, -0.5)
    stopped = bounds_entry({}, {OURS: mine, PEER: Measured("over", note="over 60 s", at_least=60.0)})
    assert stopped["times_faster_at_least"] == 30.0 and "times_faster" not in stopped


def test_targets_need_speed_memory_and_tightness():
    def entry(seconds, memory, mean):
        mine = Measured("done", (1.0,), 10, (2.0,))
        return bounds_entry({}, {OURS: mine, PEER: Measured("done", (seconds,), memory, (mean,))})

    target = Target("n", "CROWN", 1, 4.0, 3.0)
    assert held(target, entry(5.0, 40, 2.0)) == "yes"
    assert held(target, entry(3.0, 40, 2.0)) == held(target, entry(5.0, 20, 2.0)) == held(target, entry(5.0, 40, 2.1)) == "no"
    assert held(target, bounds_entry({}, {OURS: Measured("done", (1.0,), 10, (2.0,)), PEER: Measured("refused")})) == "unknown"
    assert {line.network for line in target_lines()} == set(NETWORKS)
    assert all(target.method in ours.METHODS and target.method in peer.METHODS for target in TARGETS)
    assert len(STEP_TARGETS) == 5
    assert targets_table({"bounds": [], "training": []}).rows == []


def test_every_method_of_ours_has_its_counterpart():
    assert set(ours.METHODS) <= set(peer.METHODS)


def test_a_call_that_takes_too_long_or_fails_is_a_failure():
    def busy():
        while True:
            time.process_time()

    started = time.process_time()
    assert worker.guarded(busy, JOB, Limits(seconds=0.05)) == Failure("over", "over 0.05 s", 0.05)
    assert 0.05 <= time.process_time() - started < 1

    def refuses():
        raise ValueError("not this one")

    assert worker.guarded(refuses, JOB, Limits()) == Failure("refused", "ValueError: not this one")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be forgotten on Linux only")
def test_memory_is_what_a_call_held_at_the_most():
    size = 2**26
    before = memory.start("cpu")
    held = bytearray(size)
    held[::4096] = b"x" * len(held[::4096])
    del held
    assert 0.95 * size <= memory.most_since("cpu", before) <= 1.3 * size


def test_the_command_writes_json_and_the_table_reads_it(tmp_path):
    out = tmp_path / "results.json"
    options = ["--smoke", "--networks", "small_mlp", "--methods", "crown", "--batches", "1", "--steps", "none", "--no-peer"]
    ran = CliRunner().invoke(app, [*options, "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    written = json.loads(out.read_text())
    assert set(written) == {"machine", "peer", "effort", "bounds", "training"}
    assert written["machine"]["threads"] == 1 and written["machine"]["torch"] == torch.__version__
    assert written["machine"]["cuda"] if torch.cuda.is_available() else written["machine"]["cuda"] == "not available, not tried"
    assert written["peer"] == {"used": False, "note": "not asked for"}
    side = written["bounds"][0][OURS]
    assert side["state"] == "done" and side["memory"] > 0 and len(side["runs"]) >= 3
    shown = CliRunner().invoke(app, ["table", str(out)])
    assert shown.exit_code == 0 and "| small_mlp | CROWN | 1 |" in shown.stdout
    assert written["machine"]["processor"] in shown.stdout
    strange = CliRunner().invoke(app, ["--methods", "crwn"])
    assert strange.exit_code == 2 and "crwn" in strange.output


def test_a_run_says_when_there_is_no_peer(monkeypatch):
    monkeypatch.setattr(peer, "installed", lambda: False)
    assert peer_here(True) == {"used": False, "note": "auto_LiRPA is not importable"}


def test_laws_are_found_through_the_largest_sizes():
    law = fit([1, 2, 4, 8], [5.0, 3 * 2**1.5, 3 * 4**1.5, 3 * 8**1.5])
    assert law is not None
    assert law.exponent == pytest.approx(1.5) and law.at(80) == pytest.approx(3 * 80**1.5) and law.worst == pytest.approx(1)
    assert fit([1, 2], [0.0, 1.0]) is None


def test_scaling_points_and_their_picture(tmp_path):
    asked = list(points(QUICK[0], FEW, ("depth", "width", "batch", "rows")))
    assert [(point.axis, point.size) for point in asked][:3] == [("depth", 1), ("depth", 2), ("depth", 4)]
    assert len(asked) == 12
    most = Generated("cnn", 2, 4, 5, 0.1)
    loaded = most.load()
    assert loaded.rows.shape[1:] == (5, 10) and torch.equal(loaded.x, most.load().x)
    assert rows_pulled(asked[-1]) == asked[-1].size, "only the output's rows are pulled on top of intervals"
    measured = [{"axis": point.axis, "size": point.size, "family": "mlp", "eps": FEW, "state": "done", "rows_pulled": 3,
                 "seconds": 0.1 * point.size, "memory": 2**20 * point.size} for point in asked]
    assert [row[5] for row in laws_table(measured).rows] == ["1.00"] * 4
    save_figure(measured, tmp_path / "laws.svg")
    assert (tmp_path / "laws.svg").read_text().startswith("<?xml")
