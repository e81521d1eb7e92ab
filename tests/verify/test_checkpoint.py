"""Searches that are put into a file and taken out again go on as if nothing had happened."""

import math
import os
import pickle
import random
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.errors import CheckpointError
from boundlab.verify.branching import branching
from boundlab.verify.checkpoint import FORMAT, Checkpoint
from boundlab.verify.race import race
from boundlab.verify.splitting import bisection
from boundlab.verify.standing import Clock, Standing
from boundlab.verify.task import task_of_sets
from boundlab.verify.verdict import Witness

RACE = sys.modules["boundlab.verify.race"]


def task_of(seed=0, offset=0.0):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 1))
    model, x = bl.capture(module, torch.zeros(2, 3)).detached(), torch.randn(2, 3)
    box = bl.Box(x - 0.8, x + 0.8)
    low = bl.evaluate(model, box.sample(20000).flatten(0, 1)).reshape(2, -1, 1).amin(1)
    spec = bl.at_least(torch.ones(2, 1, 1), 0.002 + offset - low)
    return replace(task_of_sets(model, {model.graph.inputs[0].name: box}, spec, None), keep=True)


def searches(task):
    every = torch.arange(2)
    return {"bisection": bisection(task, every, bl.Bisection(boxes=4)),
            "branching": branching(task, every, bl.Branching(base=bl.CROWN(), parts=4, candidates=2), math.inf)}


def ended(state, turns=10_000):
    for _ in range(turns):
        if state.over:
            break
        state = state.step(math.inf)
    return state


@pytest.mark.parametrize("name", ["bisection", "branching"])
@pytest.mark.parametrize("turns", [0, 1, 3])
def test_a_state_from_a_file_ends_as_it_would_have(name, turns, tmp_path):
    task = task_of()
    state = ended(searches(task)[name], turns)
    Checkpoint(tmp_path / "file", task).save(state)
    again = Checkpoint(tmp_path / "file", task).load()
    assert type(again) is type(state) and again.task is task and again.done == state.done
    first, second = ended(state), ended(again)
    assert first.done == second.done > (2 if name == "branching" else 4)
    assert first.found().proven.keys() == second.found().proven.keys()
    for problem, rows in first.found().proven.items():
        assert torch.equal(rows, second.found().proven[problem])
        for one, other in ((first.proof(problem), second.proof(problem)),):
            assert torch.equal(one.clause, other.clause) and torch.equal(one.splits.point, other.splits.point)


def test_other_questions_begin_anew_and_other_networks_are_refused(tmp_path):
    path, task = tmp_path / "file", task_of()
    checkpoint = Checkpoint(path, task)
    assert checkpoint.load() is None
    checkpoint.save({"a": 1})
    assert Checkpoint(path, task).load() == {"a": 1}
    other = Checkpoint(path, replace(task, spec=task_of(offset=0.1).spec))
    assert other.load() is None and Checkpoint(path, task, about=1).load() is None
    other.save({"b": 2})
    assert checkpoint.load() == {"a": 1} and other.load() == {"b": 2}
    for use in (Checkpoint(path, task_of(seed=1)).load, lambda: Checkpoint(path, task_of(seed=1)).save(1)):
        with pytest.raises(CheckpointError, match="no checkpoint about this network"):
            use()


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_what_is_cut_off_is_refused(keep, tmp_path):
    path, task = tmp_path / "file", task_of()
    Checkpoint(path, task).save(searches(task)["bisection"])
    content = path.read_bytes()
    path.write_bytes(content[:int(keep * len(content))])
    with pytest.raises(CheckpointError, match="damaged"):
        Checkpoint(path, task).load()


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize("what", [Evil(), eval, bl.verify, bl.save_onnx, torch.load])
def test_a_file_of_a_stranger_runs_no_code(what, tmp_path):
    path, task = tmp_path / "file", task_of()
    checkpoint = Checkpoint(path, task)
    checkpoint.save(1)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[f"{checkpoint.question}.pickle"] = pickle.dumps(what)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert FORMAT in members
    with pytest.raises(CheckpointError, match="names"):
        checkpoint.load()


def test_a_proof_for_which_there_was_no_time_is_put_together_by_who_goes_on(tmp_path, monkeypatch):
    task, stage = task_of(), bl.Race((bl.Bisection(boxes=512),), file=tmp_path / "file")
    with monkeypatch.context() as late:
        late.setattr(RACE, "proof_in_time", lambda state, problem: None)
        first = race(task, Standing(torch.full((2, 1), -torch.inf)), stage, Clock(0.0, math.inf), first=False)
    assert set(first.decided) == {0, 1} and not first.proofs
    again = race(task, Standing(torch.full((2, 1), -torch.inf)), stage, Clock(0.0, math.inf), first=False)
    assert again.decided.keys() == first.decided.keys() and again.proofs and again.proofs.keys() <= {0, 1}
    other = race(replace(task, keep=False), first, stage, Clock(0.0, math.inf), first=False)
    assert not other.proofs


def test_a_witness_from_a_file_is_judged_again(tmp_path):
    """A standing that says falsified, with a point outside the box."""
    path, task = tmp_path / "file", task_of()
    stage = bl.Race((bl.Bisection(boxes=4),), file=path)
    first = race(task, Standing(torch.full((2, 1), -torch.inf)), stage, Clock(0.0, math.inf), first=False)
    assert set(first.decided) == {0, 1} and not first.witnesses
    checkpoint = Checkpoint(path, task, stage.searches)
    standing, runners = checkpoint.load()
    false = Witness({"input": torch.full((1, 3), 50.0)}, torch.full((1, 1), -99.0))
    checkpoint.save((replace(standing, witnesses={0: false}), runners))
    again = race(task, Standing(torch.full((2, 1), -torch.inf)), stage, Clock(0.0, math.inf), first=False)
    assert not again.witnesses


SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
import boundlab as bl
from boundlab.verify.checkpoint import Checkpoint
from tests.verify.test_checkpoint import question
torch.set_num_threads(1)
sys.modules["boundlab.verify.race"].EVERY = 0.05
seed, saves, save = int(sys.argv[1]), int(sys.argv[3]), Checkpoint.save

def save_and_die(self, state):
    global saves
    save(self, state)
    saves -= 1
    if saves == 0:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoint.save = save_and_die
model, box, spec = question(seed)
stages = (bl.Race((bl.Bisection(boxes=4), bl.Branching(base=bl.CROWN(), parts=4, candidates=2)), file=Path(sys.argv[2])),)
print("ready", flush=True)
print([result.verdict.name for result in bl.verify(model, box, spec, stages=stages)], flush=True)
"""
NEVER = -1


def question(seed):
    """Two problems that take some seconds: true, and false, by a little."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(6, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1))
    model, x = bl.capture(module, torch.zeros(2, 6)).detached(), torch.randn(2, 6)
    box = bl.Box(x - 1.5, x + 1.5)
    low = bl.evaluate(model, box.sample(60000).flatten(0, 1)).reshape(-1, 2).amin(0)
    return model, box, bl.at_least(torch.ones(2, 1, 1), torch.tensor([[0.6], [-0.01]]) - low[:, None])


def started(seed, path, saves):
    """A process that verifies, and kills itself after so many saves."""
    command = [sys.executable, "-c", SCRIPT, str(seed), str(path), str(saves)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def survived(seed, path, generator, longest):
    """The verdicts of a process that is killed again and again, ever later, and how often it was."""
    kills = 0
    while True:
        process = started(seed, path, NEVER)
        try:
            output, _ = process.communicate(timeout=generator.uniform(0.0, longest))
            return output, kills
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills, longest = kills + 1, 3 * longest


def uninterrupted(seed):
    model, box, spec = question(seed)
    return f"{[result.verdict.name for result in bl.verify(model, box, spec)]}\n"


def test_a_killed_verification_goes_on(tmp_path):
    """Kills by the count of saves, not by the clock: a fast machine is done before a clock's first kill."""
    path = tmp_path / "file"
    output, _ = (process := started(3, path, saves=2)).communicate()
    assert output == "" and process.returncode == -signal.SIGKILL and path.exists()
    assert started(3, path, NEVER).communicate()[0] == uninterrupted(3)


@pytest.mark.slow
def test_fifty_kills_change_no_verdict(tmp_path):
    generator, kills, seed = random.Random(1), 0, 0
    while kills < 50:
        seed += 1
        output, more = survived(seed, tmp_path / f"{seed}", generator, 1.0)
        assert output == uninterrupted(seed), seed
        kills += more
