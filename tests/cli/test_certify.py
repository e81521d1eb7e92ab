"""boundlab certify: what it prints and keeps, what it answers to bad input, and that it goes on where it was."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

import boundlab as bl
from boundlab.capture.normalised import Normalisation, normalised_onnx
from boundlab.certify.certification import Shares
from boundlab.cli import certify as command
from boundlab.cli.certify import numbers
from boundlab.reports.certified.tables import between
from boundlab.table import percent, radius
from boundlab.whole_file import write_whole
from tests.certify.cases import EPS, examples, model

ROOT = Path(__file__).parents[2]
DATA = os.environ.get("BOUNDLAB_DATA")
SAFE = ("--data", "labelled.npz", "--clip", "-1", "1", "--out", "out", "--engine", "serial")
ANY = ("--data", "labelled.npz", "--clip", "-inf", "inf", "--out", "out", "--engine", "serial")


def test_it_prints_shares_and_keeps_records(folder, run, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["boundlab", "certify", "my net.onnx"])
    result = run("certify", "net.onnx", *ANY, "--eps", "0.1,10")
    assert result.exit_code == 0 and result.stderr == "", result.output
    lines = result.stdout.splitlines()
    assert lines[0].split("  ")[0].strip() == "eps" and "100.0 %" in lines[1] and "0.0 %" in lines[2]
    assert "At eps 10 between 0.0 % and 0.0 % of 1 inputs keep their label (all rounding counted in)" in result.stdout
    assert "Counterexamples most often turn 0 into 1 (1)." in result.stdout
    rows = list(csv.DictReader((folder / "out/records.csv").read_text().splitlines()))
    assert [(row["eps"], row["status"], row["rigour"]) for row in rows] == [("0.1", "certified", "checked"),
                                                                          ("10.0", "falsified", "")]
    kept = json.loads((folder / "out/certification.json").read_text())
    assert kept["format"] == "boundlab certification 1" and kept["settings"]["command"] == "boundlab certify 'my net.onnx'"
    assert [row["status"] for row in kept["records"]] == ["certified", "falsified"] and kept["settings"]["clip"] is None
    with np.load(folder / "out/counterexamples.npz") as points:
        assert points["x"].shape == (1, 2) and points["index"].tolist() == [0] and points["eps"].tolist() == [10.0]


def test_json_is_all_that_is_printed(folder, run):
    result = run("certify", "net.onnx", *SAFE, "--eps", "0.1", "--json", "--fail-under", "1")
    found = json.loads(result.stdout)
    assert result.exit_code == 0 and result.stderr == "" and found["shares"][0]["certified"] == 1
    assert found["files"] == [f"out/{name}" for name in ("records.csv", "counterexamples.npz", "extremes.npz",
                                                       "certification.json", "report.html", "report.md")]


@pytest.mark.parametrize(("options", "code", "words"), [
    ((*SAFE, "--eps", "0.1", "--fail-under", "1"), 0, "is certified"),
    ((*ANY, "--eps", "0.1,10", "--fail-under", "0.5"), 10, "is refuted"),
    ((*ANY, "--eps", "0.1,10", "--method", "ibp", "--fail-under", "0.5"), 20, "is not decided"),
    ((*ANY, "--eps", "10", "--method", "ibp"), 0, "1 inputs keep"),
])
def test_exit_codes(folder, run, options, code, words):
    result = run("certify", "net.onnx", *options)
    assert result.exit_code == code and words in result.stdout, result.output


@pytest.mark.parametrize("options", [("--method", "ibp", "--method", "attack", "--method", "crown"), ("--method", "ladder"),
                                     ("--norm", "2"), ("--rigour", "float"), ("--memory", "8GB"), ("--limit", "1")])
def test_options_reach_the_library(folder, run, options):
    assert "100.0 %" in run("certify", "net.onnx", *SAFE, "--eps", "0.1", *options).stdout.splitlines()[1]


def test_a_module_and_a_network_of_the_zoo(folder, run):
    shape = ("--input-shape", "2")
    assert run("certify", "factory_of_test:make", *shape, *SAFE, "--eps", "0.01").exit_code == 0
    np.savez("digits.npz", x=np.zeros((1, 28, 28), np.uint8), y=np.array([3]))
    result = run("certify", "zoo:mlp-b", "--data", "digits.npz", "--eps", "0.001", "--out", "zoo", "--engine", "serial")
    assert result.exit_code == 0, result.output


def test_a_normalisation_becomes_a_part_of_the_network(folder, run):
    plain = ("--clip", "-inf", "inf", "--engine", "serial", "--json", "--method", "attack", "--method", "crown")
    np.savez("raw.npz", x=np.array([[0.75, 0.25]], np.float32), y=np.array([0]))  # normalised: those of labelled.npz
    for net in (("net.onnx",), ("factory_of_test:make", "--input-shape", "2")):
        # 4.5 and 9 in normalised inputs are 2.25 and 4.5 in raw ones
        one, other = (json.loads(run("certify", *net, *plain, *options).stdout) for options in (
            ("--data", "labelled.npz", "--eps", "2.25,4.5", "--out", "one"),
            ("--data", "raw.npz", "--eps", "1.125,2.25", "--mean", "0.5", "--std", "0.5", "--out", "other")))
        assert [row["status"] for row in one["records"]] == [row["status"] for row in other["records"]]
        margins = [[row["margin"] or 0.0 for row in found["records"]] for found in (one, other)]
        assert margins[0] == pytest.approx(margins[1], rel=1e-5)
    normalised = bl.load_onnx(folder / "other/normalised.onnx")
    x = torch.rand(3, 2)
    assert torch.allclose(bl.evaluate(normalised, x), bl.evaluate(bl.load_onnx(folder / "net.onnx"), (x - 0.5) / 0.5))


def test_two_runs_in_one_folder_do_not_mix_their_normalisations(folder, run, monkeypatch):
    def late(path, content):
        if path.suffix == ".onnx":  # another run writes its own right after
            content = normalised_onnx(folder / "net.onnx", Normalisation((9.0,), (1.0,)))
        return write_whole(path, content)

    monkeypatch.setattr(command, "write_whole", late)
    options = ("--eps", "0.001", "--mean", "0", "--std", "1", "--json")
    one, other = (json.loads(run("certify", "net.onnx", *ANY, *more).stdout) for more in (options, options[:2] + options[-1:]))
    assert [row["margin"] for row in one["records"]] == [row["margin"] for row in other["records"]]


def test_radii_may_be_quotients(folder, run):
    assert numbers("--eps", "2/255, 8 / 255,0.5") == (2 / 255, 8 / 255, 0.5)
    one, other = (json.loads(run("bound", "net.onnx", "--data", "x.npy", "--eps", eps, "--json").stdout)
                  for eps in ("1/50", "0.02"))
    assert one["eps"] == other["eps"] == 0.02 and one["lower"] == other["lower"]
    for verb in ("bound", "verify"):
        result = run(verb, "net.onnx", "--data", "x.npy", "--eps", "1/0")
        assert result.exit_code == 2 and "'1/0' divides by 0" in result.stderr


def test_percentages_say_none_and_all_only_where_it_is_so():
    assert [percent(share) for share in (0.0, 1e-5, 0.25, 0.9996, 1.0)] == ["0.0 %", "0.1 %", "25.0 %", "99.9 %", "100.0 %"]
    assert [radius(eps) for eps in (0.1, 8 / 255, 0.12345678)] == ["0.1", "8/255", "0.12345678"]

    def share(certified, attacked, count=1000):
        return Shares(0.1, count, 1.0, attacked / count, certified / count, 0.0, 0.0, 0.0, {})
    cases = ((0, 0), (1, 1), (290, 290), (999, 999), (1000, 1000), (996, 1000), (290, 291), (4, 5))
    assert [between(share(*case)) for case in cases] == ["0 %", "1 %", "29 %", "99 %", "100 %", "99 to 100 %", "29 to 30 %",
                                                        "0 to 1 %"]


def test_nothing_certified_reaches_no_radius(folder, run):
    np.savez("wrong.npz", x=np.array([[0.5, -0.5]], np.float32), y=np.array([1]))
    assert "; 0.0 % go as far as 0." in run("certify", "net.onnx", *ANY, "--eps", "0", "--data", "wrong.npz").stdout


def test_other_verbs_read_the_same_data(folder, run):
    (folder / "t.csv").write_text("a,b,label\n0.5,-0.5,0\n")
    np.savez("bytes.npz", x=np.array([[255, 51]], np.uint8), y=np.array([0]))
    for data in ("t.csv", "bytes.npz"):
        assert run("verify", "net.onnx", "--data", data, "--eps", "0.1").exit_code == 0
    found = json.loads(run("bound", "net.onnx", "--data", "bytes.npz", "--eps", "0", "--json").stdout)
    assert found["lower"][0] == pytest.approx([3.8]), "bytes are pixels: 1 and 0.2"
    result = run("bound", "net.onnx", "--data", "wide.npy", "--eps", "0")
    assert result.exit_code == 2 and "takes (batch, 2)" in result.stderr


BAD = {
    "no data": (("--data", "none"), "does not exist"),
    "no labels": (("--data", "x.npy"), "no labels"),
    "another shape": (("--data", "wide.npz"), "the network takes [2]"),
    "labels of another length": (("--data", "long.npz"), "2 examples and 3 labels"),
    "a label of no class": (("--data", "class.npz"), "classes 0 to 1"),
    "outside the domain": (("--clip", "0", "1"), "outside 0 to 1"),
    "an empty domain": (("--clip", "1", "0"), "from a low to a high"),
    "radii in words": (("--eps", "small"), "--eps 'small'"),
    "a negative radius": (("--eps", "-1"), "got -1"),
    "no radius": (("--eps", "0.1,,"), "--eps '0.1,,'"),
    "a quotient by 0": (("--eps", "8/0"), "--eps '8/0'"),
    "two quotients in one": (("--eps", "8/255/2"), "--eps '8/255/2'"),
    "norm 0": (("--norm", "0"), "norm from 1 on"),
    "no norm": (("--norm", "big"), "not a norm"),
    "no method": (("--method", "magic"), "there is no method 'magic'"),
    "a deviation of 0": (("--std", "0"), "standard deviations above 0"),
    "a mean in words": (("--mean", "grey"), "--mean 'grey'"),
    "a mean of other channels": (("--mean", "1,2,3"), "3 channels does not fit inputs of shape [2]"),
    "a deviation of 0 in float32": (("--std", "1e-50"), "standard deviations above 0"),
    "no time": (("--timeout", "0"), "time limit above 0"),
    "memory in words": (("--memory", "much"), "such as '4GB'"),
    "a file as folder": (("--out", "net.onnx"), "net.onnx"),
    "no folder can be there": (("--out", "/proc/boundlab"), "/proc/boundlab"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(folder, run, name):
    np.savez("wide.npz", x=np.zeros((1, 5), np.float32), y=np.array([0]))
    np.savez("long.npz", x=np.zeros((2, 2), np.float32), y=np.array([0, 1, 0]))
    np.savez("class.npz", x=np.zeros((1, 2), np.float32), y=np.array([2]))
    options, words = BAD[name]
    result = run("certify", "net.onnx", *SAFE, "--eps", "0.1", *options)
    assert result.exit_code == 2 and result.stdout == "" and words in result.stderr, result.output
    assert result.stderr.startswith("boundlab: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["ledger.sqlite", "records.csv.PROCESS.part"])
def test_a_full_disk_is_a_sentence_and_loses_nothing(folder, run, name):
    name = name.replace("PROCESS", str(os.getpid()))
    (folder / "out").mkdir()
    (folder / "out" / name).symlink_to("/dev/full")
    result = run("certify", "net.onnx", *SAFE, "--eps", "0.1")
    assert result.exit_code == 2 and "Traceback" not in result.stderr and name.split(".")[0] in result.stderr, result.output
    (folder / "out" / name).unlink(missing_ok=True)
    assert name == "ledger.sqlite" or not list((folder / "out").glob("*.part"))
    assert run("certify", "net.onnx", *SAFE, "--eps", "0.1").exit_code == 0


def rows_of(path):
    """The records without their seconds."""
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def done(ledger):
    """Results in a ledger."""
    if not ledger.exists():
        return 0
    with closing(sqlite3.connect(ledger)) as connection:
        try:
            return connection.execute("SELECT count(*) FROM results").fetchone()[0]
        except sqlite3.OperationalError:  # it is being made
            return 0


def begun(options, folder, more):
    """A process that has put so many results into the ledger, or has ended; and how many there are."""
    ledger, process = folder / "ledger.sqlite", subprocess.Popen(
        [sys.executable, "-m", "boundlab", "certify", *map(str, options), "--out", str(folder)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    before = done(ledger)
    while process.poll() is None and done(ledger) < before + more:
        time.sleep(0.02)
    return process


def planted(folder, count):
    """The options of a data set that takes some seconds."""
    found = examples(count)
    np.savez(folder / "d.npz", x=found.x.numpy(), y=found.labels.numpy())
    bl.save_onnx(model(), folder / "net.onnx")
    return (folder / "net.onnx", "--data", folder / "d.npz", "--eps", ",".join(map(str, EPS)), "--method", "ibp", "--method",
            "attack", "--method", "crown")


INTERRUPTED = """
import os, signal, sys
from boundlab.cli import main
from boundlab.engines.ledger import Ledger
left, write = int(sys.argv.pop(1)), Ledger.write

def write_and_interrupt(self, key, result):
    global left
    write(self, key, result)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGINT)

Ledger.write = write_and_interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background may ignore it
main()
"""


def test_ctrl_c_is_a_sentence_and_the_same_command_goes_on(tmp_path, run):
    """Ctrl-C by the count of results, not by the clock: a fast machine is done before a clock strikes."""
    options = planted(tmp_path, 64)
    command = [sys.executable, "-c", INTERRUPTED, "2", "certify", *options, "--engine", "serial", "--out", tmp_path / "out"]
    ended = subprocess.run(list(map(str, command)), cwd=ROOT, text=True, capture_output=True, timeout=300)
    assert ended.returncode == 130 and ended.stdout == "" and "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("boundlab: interrupted; ") and "of 256 questions are not decided; what is done is kept in " in last
    kept, found = done(tmp_path / "out/ledger.sqlite"), bl.read_certification(tmp_path / "out")
    assert kept >= 2 and found.unasked > 0 and str(tmp_path / "out/report.html") in last
    assert "The run was interrupted: " in (tmp_path / "out/report.md").read_text()
    assert run("certify", *options, "--engine", "serial", "--out", tmp_path / "out").exit_code == 0
    assert run("certify", *options, "--engine", "serial", "--out", tmp_path / "straight").exit_code == 0
    assert rows_of(tmp_path / "out/records.csv") == rows_of(tmp_path / "straight/records.csv")
    assert done(tmp_path / "out/ledger.sqlite") == done(tmp_path / "straight/ledger.sqlite"), "nothing was computed anew"


def beneath(process):
    """The processes that a process has started, and those of them."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def computing(process):
    """The workers of a driver: of a pool its children, of Ray those that run its tasks."""
    held = [one for one in beneath(process) if one.is_running()]
    names = {one: one.name() for one in held if one.status() != psutil.STATUS_ZOMBIE}
    return [one for one, name in names.items() if name.startswith("ray::answers")] or [
        one for one, name in names.items() if one.ppid() == process.pid and name.startswith("python")]


def kill_all(processes):
    """The end of them, as on a machine that goes down."""
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            one.kill()


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="BOUNDLAB_DATA names no folder with networks and digits")
def test_kills_of_a_cluster_lose_nothing(tmp_path, ray):
    """As below, with two workers of Ray: a driver takes its Ray along, a worker does not."""
    network = Path(DATA) / "vnncomp/mnist_fc/onnx/mnist-net_256x2.onnx.gz"
    options = (network, "--data", Path(DATA) / "datasets/mnist", "--limit", "200", "--eps", "0.01,0.02", "--timeout", "60",
               "--batch", "4", "--workers", "2")
    kills, draw, kept = Counter(), random.Random(0), 0
    for _ in range(10):
        process = begun((*options, "--engine", "ray"), tmp_path / "out", 1 + draw.randrange(4))
        everyone = beneath(process)
        workers = computing(process) if draw.random() < 0.5 else []
        if workers:
            kill_all([draw.choice(workers)])
            kills["worker"] += 1
            time.sleep(2 * draw.random())
        if process.poll() is not None:
            process.communicate()
            break
        process.kill()
        kill_all({*everyone, *beneath(process)})
        kills["driver"] += 1
        process.communicate()
        now = done(tmp_path / "out/ledger.sqlite")
        assert now >= kept, "nothing that was kept is lost"
        kept = now
    for folder, engine in (("out", "ray"), ("straight", "serial")):
        ended = begun((*options, "--engine", engine), tmp_path / folder, 10**9)
        output, complaint = ended.communicate()
        assert ended.returncode == 0, output + complaint
    assert kills["driver"] > 5 and kills["worker"] > 1, kills
    ours, straight = rows_of(tmp_path / "out/records.csv"), rows_of(tmp_path / "straight/records.csv")
    assert [(row["index"], row["eps"], row["status"]) for row in ours] == [
        (row["index"], row["eps"], row["status"]) for row in straight]


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="BOUNDLAB_DATA names no folder with networks and digits")
def test_twenty_kills_lose_nothing(tmp_path):
    """Drivers and workers die in turn, over digits and a network of the competition."""
    network = Path(DATA) / "vnncomp/mnist_fc/onnx/mnist-net_256x2.onnx.gz"
    options = (network, "--data", Path(DATA) / "datasets/mnist", "--limit", "200", "--eps", "0.01,0.02", "--timeout", "60",
               "--workers", "2")
    kept, kills = 0, 0
    while kills < 20:
        process = begun(options, tmp_path / "out", 1)
        if process.poll() is not None:
            process.communicate()
            break
        kills += 1
        if kills % 2:
            process.kill()
        else:  # a worker: the run goes on
            workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
            os.kill(int(workers[-1]), signal.SIGKILL)
            time.sleep(0.5)
            process.kill()
        process.communicate()
        now = done(tmp_path / "out/ledger.sqlite")
        assert now > kept, "every run keeps what it has finished"
        kept = now
    assert kills > 10
    for folder in ("out", "straight"):
        ended = begun(options, tmp_path / folder, 10**9)
        output, complaint = ended.communicate()
        assert ended.returncode == 0, output + complaint
    ours, straight = rows_of(tmp_path / "out/records.csv"), rows_of(tmp_path / "straight/records.csv")
    assert [(row["index"], row["eps"], row["status"]) for row in ours] == [
        (row["index"], row["eps"], row["status"]) for row in straight]
