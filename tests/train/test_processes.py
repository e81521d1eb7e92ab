"""Several processes train as one: their parts add up, and a run by torchrun has the history and weights of a single process."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import boundlab as bl
from boundlab.errors import SpecError
from boundlab.train.adversary import Ascent
from boundlab.train.averaging import Averaging
from boundlab.train.fit import fit
from boundlab.train.methods import SABR, CrownIBP, RobustIBP
from boundlab.train.plan import SGD, Keep, Statistics, TrainingPlan, Validation
from boundlab.train.processes import Processes
from boundlab.train.regularisers import L1, Calm
from boundlab.train.schedule import Ramp, Rate
from boundlab.train.step import objective, with_statistics_of
from tests.train.problems import clouds, network
from tests.train.test_methods import problem

ROOT = Path(__file__).resolve().parents[2]
PLAN = TrainingPlan(epochs=4, batch=32, rate=Rate(1e-2, (3,)), ramp=Ramp(1, 3), regularisers=(Calm(), L1(1e-4)),
                    gradient_norm=5.0, optimiser=SGD(0.9), averaging=Averaging(2.0), clip=(0.0, 1.0),
                    validation=Validation(best=True))
CASES = {"ibp": (RobustIBP((1.0, 0.5)), None), "sabr": (SABR(attack=Ascent(1, 10.0)), 5)}


@pytest.mark.parametrize("count", [2, 20])
@pytest.mark.parametrize("micro", [None, 3])
@pytest.mark.parametrize("method", [RobustIBP(), CrownIBP((1, 1)), SABR()], ids=repr)
def test_losses_and_gradients_of_all_processes_add_up(method, micro, count):
    plan, found = TrainingPlan(regularisers=(L1(1e-3), Calm()), micro=micro), []
    for processes in (Processes(), *(Processes(number, count) for number in range(count))):
        net, batch = problem(norm=True)
        loss = objective(with_statistics_of(batch, Statistics.CLEAN), method, replace(plan, processes=processes),
                         torch.Generator().manual_seed(1))
        if loss.requires_grad:
            loss.backward()
        slopes = [torch.zeros_like(one) if one.grad is None else one.grad for one in net.parameters()]
        found.append(torch.cat([loss.detach()[None], *(slope.flatten() for slope in slopes)]))
    whole, *parts = found
    assert torch.allclose(torch.stack(parts).sum(0), whole, rtol=1e-8, atol=1e-12)


def carried_out(folder, case, processes):
    """What every process does; the first one writes."""
    method, micro = CASES[case]
    torch.set_num_threads(1)
    told = []
    plan = replace(PLAN, micro=micro, processes=processes, keep=Keep(folder, every=2), tell=lambda epoch: told.append(epoch))
    found = fit(network(norm=True), clouds(), method, eps=0.05, plan=plan)
    return found, len(told)


RUN = """
import json, pathlib, sys
import torch, torch.distributed as dist
from boundlab import Processes
from tests.train.test_processes import carried_out
dist.init_process_group("gloo")
here = Processes.running()
found, told = carried_out(pathlib.Path(sys.argv[1]), sys.argv[2], here)
pathlib.Path(sys.argv[1], f"told-{here.number}.json").write_text(json.dumps(
    [told, found.chosen, [float(value.double().sum()) for value in found.module.state_dict().values()]]))
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_of_torchrun_train_as_one(tmp_path, case):
    script = tmp_path / "run.py"
    script.write_text(RUN)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run([*command, str(tmp_path / "two"), case], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    one, _ = carried_out(tmp_path / "one", case, Processes())
    told = [json.loads((tmp_path / "two" / f"told-{number}.json").read_text()) for number in range(2)]
    assert [one_told[0] for one_told in told] == [PLAN.epochs, 0] and told[0][1:] == told[1][1:]
    assert told[0][1] == one.chosen
    ours, theirs = (load_file(tmp_path / part / "checkpoint.safetensors") for part in ("one", "two"))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.allclose(value.double(), theirs[name].double(), rtol=1e-3, atol=1e-4), name
    rows = [(tmp_path / part / "history.csv").read_text().splitlines()[1:] for part in ("one", "two")]
    for first, second in zip(*rows, strict=True):
        first, second = ([float(cell) for cell in row.split(",")] for row in (first, second))
        assert first[1] == pytest.approx(second[1], rel=1e-4) and first[5:] == pytest.approx(second[5:], abs=1e-9)


RECIPE = """
title = "a test"
source = "boundlab"
network = "mlp-b"
data = "digits"
eps = 0.05
epochs = 3
batch = 64
rate = { first = 5e-2 }
ramp = { start = 1, end = 2 }
[optimiser.sgd]
[method.ibp]
"""


@pytest.mark.slow
def test_a_recipe_is_carried_out_by_two_processes(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    results = {}
    for name, begin, more in (("one", [sys.executable], []), ("two", launch, ["--torchrun"])):
        out = tmp_path / name
        command = [*begin, "-m", "boundlab", "train", str(tmp_path / "recipe.toml"), "--out", str(out), "--limit", "50"]
        done = subprocess.run([*command, "--threads", "1", *more], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("verified, IBP") == 1
        results[name] = json.loads((out / "result.json").read_text())
    assert results["one"]["errors"] == results["two"]["errors"]
    for first, second in zip(results["one"]["history"], results["two"]["history"], strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-4)


DIFFERENT = """
import torch.distributed as dist
from boundlab import BoundlabError, Processes
from boundlab.train.fit import fit
from boundlab.train.methods import RobustIBP
from boundlab.train.plan import TrainingPlan
from tests.train.problems import clouds, network
dist.init_process_group("gloo")
here = Processes.running()
try:
    fit(network(seed=here.number), clouds(), RobustIBP(), eps=0.05, plan=TrainingPlan(epochs=1, processes=here))
except BoundlabError as problem:
    print(problem)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_processes_that_differ_are_refused(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(DIFFERENT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.count("they differ in") == 2, done.stderr[-2000:]


def test_bad_requests_are_refused():
    with pytest.raises(SpecError, match="torchrun"):
        Processes.running()
    for make in (lambda: Processes(2, 2), lambda: Processes(-1, 2), lambda: Processes(0, 0)):
        with pytest.raises(SpecError, match="numbered"):
            make()
    assert Processes().own([1, 2]) == [1, 2] and bl.Processes(1, 2).own([1, 2, 3]) == [2]
