"""The training loop: equal seeds give equal runs, a killed run goes on as if nothing had been, validation is held out."""

import csv
import errno
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import boundlab as bl
from boundlab.data.examples import Examples
from boundlab.errors import BoundError, CheckpointError, DataError, ShapeError, SpecError
from boundlab.train.adversary import Ascent
from boundlab.train.augmentation import Augmentation
from boundlab.train.batch import Threat
from boundlab.train.fit import divided, fit
from boundlab.train.measure import measure
from boundlab.train.methods import SABR, CrownIBP, Natural, RobustIBP
from boundlab.train.plan import SGD, Adam, HeldOut, Keep, OnTestSet, Statistics, TrainingPlan, Validation
from boundlab.train.regularisers import L1, Calm
from boundlab.train.schedule import Ramp, Rate
from boundlab.whole_file import write_whole
from tests.train.problems import clouds, network

ROOT = Path(__file__).resolve().parents[2]
SHORT = TrainingPlan(epochs=6, batch=32, rate=Rate(1e-2, (5,)), ramp=Ramp(1, 4), clip=(0.0, 1.0))
FIRST = replace(SHORT, epochs=1, ramp=Ramp(0, 1))
METHODS = {"IBP": bl.IBP(), "CROWN-IBP": bl.CROWN(intermediate=bl.IBP()), "CROWN": bl.CROWN()}
SEARCH = bl.PGD(steps=5, restarts=1, targets=1)


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def timeless(history):
    return [replace(epoch, seconds=0.0) for epoch in history]


def test_training_by_bounds_proves_what_natural_training_does_not():
    test = clouds(80, seed=1)
    verified = {}
    for name, method in (("natural", Natural()), ("crown", CrownIBP())):
        found = fit(network(), clouds(300), method, eps=0.2, plan=replace(SHORT, epochs=10, validation=None))
        measured = measure(found.model, test, Threat(0.2, clip=(0.0, 1.0)), METHODS, SEARCH)
        for proven in measured.proven.values():
            assert not (proven & ~measured.survived).any() and not (measured.survived & ~measured.correct).any()
        verified[name] = measured.verified
        assert measured.clean > 0.9
    assert verified["crown"]["IBP"] > verified["natural"]["IBP"] + 0.3


@pytest.mark.parametrize("optimiser", [Adam(decay=1e-4), SGD(0.9)], ids=repr)
def test_a_run_that_was_interrupted_goes_on_as_if_nothing_had_been(tmp_path, optimiser):
    plan = replace(SHORT, optimiser=optimiser, regularisers=(Calm(), L1(1e-5)), gradient_norm=5.0,
                   statistics=Statistics.POPULATION, augmentation=Augmentation(shift=1),
                   validation=Validation(HeldOut(0.2), best=True))
    method = SABR(attack=Ascent(1, 10.0))
    whole = fit(network(norm=True), clouds(), method, eps=0.05, plan=plan)

    def interrupt(epoch):
        if epoch.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(network(norm=True), clouds(), method, eps=0.05, plan=replace(plan, keep=Keep(tmp_path), tell=interrupt))
    resumed = fit(network(seed=5, norm=True), clouds(), method, eps=0.05, plan=replace(plan, keep=Keep(tmp_path, resume=True)))
    assert same(weights(whole.module), weights(resumed.module)) and whole.chosen == resumed.chosen
    assert timeless(whole.history) == timeless(resumed.history) and len(whole.history) == 6
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [float(row["loss"]) for row in rows] == [epoch.loss for epoch in whole.history]


def killed(folder, epochs):
    """A run that is kept, and goes on with what it finds: what a process does until it is killed, and after."""
    return fit(network(norm=True), clouds(300), CrownIBP(), eps=0.05,
               plan=replace(SHORT, epochs=epochs, keep=Keep(folder, resume=True)))


RUN = """
import pathlib, sys, torch
from boundlab.train.fit import fit
from tests.train.test_fit import killed
torch.set_num_threads(int(sys.argv[3]))
print("begun", flush=True)
killed(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(tmp_path):
    epochs = 60
    for _ in range(6):
        command = [sys.executable, "-c", RUN, str(tmp_path), str(epochs), str(torch.get_num_threads())]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout.readline() == b"begun\n"
            time.sleep(random.uniform(0.0, 8.0))  # any moment will do: no seed is wanted
            process.kill()
    found = killed(tmp_path, epochs)
    whole = fit(network(norm=True), clouds(300), CrownIBP(), eps=0.05, plan=replace(SHORT, epochs=epochs))
    assert same(weights(found.module), weights(whole.module)) and timeless(found.history) == timeless(whole.history)


def test_a_checkpoint_is_for_its_run_only_and_damage_is_found(tmp_path):
    plan = replace(FIRST, epochs=2, keep=Keep(tmp_path, resume=True))
    fit(network(), clouds(), RobustIBP(), eps=0.05, plan=plan)
    for changed in (lambda: fit(network(), clouds(), RobustIBP(), eps=0.06, plan=plan),
                    lambda: fit(network(), clouds(seed=1), RobustIBP(), eps=0.05, plan=plan),
                    lambda: fit(network(), clouds(), CrownIBP(), eps=0.05, plan=plan),
                    lambda: fit(network(), clouds(), RobustIBP(), eps=0.05, plan=replace(plan, batch=16))):
        with pytest.raises(CheckpointError, match="another network"):
            changed()
    path = tmp_path / "checkpoint.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[:len(whole) // 2], b"", b"\0" * 100):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged"):
            fit(network(), clouds(), RobustIBP(), eps=0.05, plan=plan)
    save_file({"module.0.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError):
        fit(network(), clouds(), RobustIBP(), eps=0.05, plan=plan)


def test_a_run_is_never_replaced_by_another(tmp_path):
    plan = replace(FIRST, epochs=1, validation=None, keep=Keep(tmp_path))
    fit(network(), clouds(), RobustIBP(), eps=0.05, plan=plan)
    path = tmp_path / "checkpoint.safetensors"
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="resume=True"):
        fit(network(), clouds(), RobustIBP(), eps=0.05, plan=plan)
    assert path.read_bytes() == before

    def other(epoch):
        if epoch.epoch == 1:
            path.write_bytes(before)

    path.unlink()
    with pytest.raises(CheckpointError, match="another run"):
        fit(network(), clouds(), RobustIBP(), eps=0.05, plan=replace(plan, epochs=3, tell=other))
    assert path.read_bytes() == before


def test_a_full_disk_leaves_the_file_that_is_there(tmp_path, monkeypatch):
    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "kept"
    write_whole(path, b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left.*kept"):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_is_for_its_network_only(tmp_path):
    # These networks have tensors of the same names and shapes.
    def net(mean=0.3, layer=None):
        return nn.Sequential(bl.Normalise((mean,), (0.2,)), network()[:1], layer or nn.ReLU(), *network()[2:])

    plan = replace(FIRST, epochs=1, validation=None, keep=Keep(tmp_path, resume=True))
    fit(net(), clouds(), RobustIBP(), eps=0.05, plan=plan)
    fit(net(), clouds(), RobustIBP(), eps=0.05, plan=plan)
    for other, keep in ((net(0.4), plan.keep), (net(layer=nn.Tanh()), plan.keep), (net(), replace(plan.keep, about="other"))):
        with pytest.raises(CheckpointError, match="another network"):
            fit(other, clouds(), RobustIBP(), eps=0.05, plan=replace(plan, keep=keep))


def test_the_seed_fixes_everything_and_the_caller_s_random_numbers_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    found = []
    for seed in (0, 0, 1):
        net = network()
        torch.manual_seed(3)
        fit(net, clouds(), SABR(attack=Ascent(1)), eps=0.05, plan=replace(FIRST, epochs=2, seed=seed, validation=None))
        assert torch.equal(torch.rand(1), expected)
        found.append(weights(net))
    assert same(found[0], found[1]) and not same(found[0], found[2])


def test_parts_of_a_batch_give_the_same_run():
    found = [fit(network(norm=True).double(), clouds(), CrownIBP(), eps=0.05, plan=replace(FIRST, epochs=3, micro=micro))
             for micro in (None, 7)]
    for one, other in zip(found[0].module.state_dict().values(), found[1].module.state_dict().values(), strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-9)


def test_validation_is_held_out_of_the_training_data_unless_a_test_set_is_named():
    data, test = clouds(100), clouds(30, seed=9)
    training, validation = divided(data, replace(SHORT, validation=Validation(HeldOut(0.2))))
    assert len(training) == 80 and len(validation) == 20
    rows = {tuple(row) for row in torch.cat([training.x, validation.x]).flatten(1).tolist()}
    assert rows == {tuple(row) for row in data.x.flatten(1).tolist()} and len(rows) == 100
    again = divided(data, replace(SHORT, validation=Validation(HeldOut(0.2))))
    assert torch.equal(again[1].x, validation.x)
    named = divided(data, replace(SHORT, validation=Validation(OnTestSet(test))))
    assert named[0] is data and named[1] is test
    assert divided(data, replace(SHORT, validation=None)) == (data, None)
    with pytest.raises(SpecError, match="leaves none"):
        divided(data, replace(SHORT, validation=Validation(HeldOut(0.001))))


def test_the_best_weights_are_those_of_the_best_epoch_after_the_ramp():
    kept = {}
    net = network()
    plan = replace(SHORT, epochs=10, rate=Rate(0.05), validation=Validation(HeldOut(0.4), best=True),
                   tell=lambda epoch: kept.update({epoch.epoch: weights(net)}))
    found = fit(net, clouds(60), RobustIBP(), eps=0.15, plan=plan)
    after = [epoch for epoch in found.history if epoch.epoch >= 4]
    best = max(after, key=lambda epoch: epoch.verified)
    assert found.chosen == best.epoch and same(weights(found.module), kept[best.epoch])
    assert all(epoch.clean >= epoch.attacked >= epoch.verified for epoch in found.history)


def test_policies_of_batch_norm():
    data, moved = clouds(64), {}
    for policy in Statistics:
        net = network(norm=True)
        before = net[1].running_mean.clone()
        fit(net, data, RobustIBP(), eps=0.05, plan=replace(FIRST, epochs=1, batch=64, statistics=policy, validation=None))
        moved[policy] = not torch.equal(before, net[1].running_mean)
        if policy is Statistics.POPULATION:
            values = net[0](data.x)
            assert torch.allclose(net[1].running_mean, values.mean((0, 2, 3)), atol=1e-6)
            assert torch.allclose(net[1].running_var, values.var((0, 2, 3)), rtol=1e-4)
    assert moved == {Statistics.CLEAN: True, Statistics.POPULATION: True, Statistics.FROZEN: False}


def test_a_batch_norm_of_one_number_is_refused():
    # Its variance is 0, so that intervals would grow by 1 / sqrt(1e-5).
    flat = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    for batch in (1, 32):
        with pytest.raises(SpecError, match="alone in its batch"):
            fit(flat, clouds(33), RobustIBP(), eps=0.05, plan=replace(SHORT, batch=batch, validation=None))
    fit(network(norm=True), clouds(33), RobustIBP(), eps=0.05, plan=replace(FIRST, epochs=1, validation=None))


def test_nan_ties_and_examples_beyond_bounds_are_not_proven():
    data = clouds(40)
    tied = network()
    with torch.no_grad():
        tied[-1].weight.zero_()
        tied[-1].bias.zero_()
    found = measure(bl.capture(tied, data.x[:2]), data, Threat(0.01), METHODS, SEARCH)
    assert not any(proven.any() for proven in found.proven.values()) and not found.survived.any()
    huge = network()
    with torch.no_grad():
        huge[0].weight.mul_(1e38)
    found = measure(bl.capture(huge, data.x[:2]), data, Threat(0.3), METHODS, SEARCH)
    assert not any(proven.any() for proven in found.proven.values())


def test_logits_that_are_no_numbers_are_neither_correct_nor_robust():
    data = clouds(12)
    steep = network()
    with torch.no_grad():
        steep[0].weight.mul_(1e3)
    model = bl.capture(steep, data.x[:2])
    beyond = Examples(data.x * 3e38, torch.zeros(12, dtype=torch.long))
    assert not torch.isfinite(bl.evaluate(model, beyond.x)).all(1).any()
    found = measure(model, beyond, Threat(0.01), METHODS, SEARCH)
    assert found.clean == found.attacked == found.by_any == 0


def test_what_cannot_be_measured_is_refused_and_no_method_proves_nothing():
    data = clouds(12)
    model, large = bl.capture(network(), data.x[:2]), torch.rand(12, 1, 7, 7)
    assert measure(model, data, Threat(0.01), {}, SEARCH).by_any == 0
    single = bl.capture(nn.Sequential(nn.Flatten(), nn.Linear(36, 1)), data.x[:2])
    image = bl.capture(nn.Conv2d(1, 3, 3), data.x[:2])
    zeros = torch.zeros(12, dtype=torch.long)
    for error, match, ask in (
        (ShapeError, "2 classes", lambda: measure(single, Examples(data.x, zeros), Threat(0.01), METHODS, SEARCH)),
        (ShapeError, "logits", lambda: measure(image, data, Threat(0.01), METHODS, SEARCH)),
        (ShapeError, "inputs of shape", lambda: measure(model, Examples(large, zeros), Threat(0.01), {}, SEARCH)),
        (DataError, "label 3", lambda: measure(model, Examples(data.x, zeros + 3), Threat(0.01), METHODS, SEARCH)),
        (DataError, "outside", lambda: measure(model, Examples(data.x * 255, zeros), Threat(0.01, clip=(0, 1)), {}, SEARCH)),
    ):
        with pytest.raises(error, match=match):
            ask()


def test_what_a_method_cannot_do_is_said_before_the_first_epoch():
    def told(epoch):
        raise AssertionError(epoch)

    data, plan = clouds(), replace(SHORT, tell=told)
    with pytest.raises(SpecError, match="norm inf"):
        fit(network(), data, SABR(), eps=0.1, norm=2.0, plan=plan)
    with pytest.raises(DataError, match="outside"):
        fit(network(), Examples(data.x + 1, data.labels), RobustIBP(), eps=0.1, plan=plan)


def test_one_example_that_cannot_be_bounded_spoils_no_other(monkeypatch):
    net, data = network(), clouds(60)
    fit(net, data, RobustIBP(), eps=0.05, plan=replace(SHORT, epochs=12, validation=None))
    model = bl.capture(net, data.x[:2])
    found = measure(model, data, Threat(0.02), METHODS, SEARCH)
    bad = int(found.proven["IBP"].nonzero()[20])
    others = torch.arange(60) != bad

    def failing(model, region, method, spec):
        if (region.center == data.x[bad]).flatten(1).all(1).any():
            raise BoundError("not this one")
        return bl.bound(model, region, method=method, spec=spec)

    monkeypatch.setattr("boundlab.train.measure.bound", failing)
    spoiled = measure(model, data, Threat(0.02), METHODS, SEARCH)
    for name in METHODS:
        assert torch.equal(found.proven[name][others], spoiled.proven[name][others]) and found.proven[name][bad]
        assert not spoiled.proven[name][bad]


def test_changed_images_are_windows_of_the_padded_image():
    x = torch.rand(40, 2, 5, 5)
    found = Augmentation(shift=2).applied(x, torch.Generator().manual_seed(0))
    wide = nn.functional.pad(x, (2, 2, 2, 2))
    places = set()
    for one, padded in zip(found, wide, strict=True):
        matches = [(mirrored, row, column) for mirrored in (False, True) for row in range(5) for column in range(5)
                   if torch.equal(one, (padded.flip(2) if mirrored else padded)[:, row:row + 5, column:column + 5])]
        assert matches
        places |= set(matches)
    assert len(places) > 15
    assert torch.equal(Augmentation(mirror=False, shift=0).applied(x, torch.Generator()), x)
    with pytest.raises(ShapeError, match="images"):
        Augmentation().applied(x.flatten(1), torch.Generator())


def test_bad_requests_are_refused():
    data = clouds()
    for error, match, ask in (
        (DataError, "label 2", lambda: fit(network(classes=2), data, RobustIBP(), eps=0.1)),
        (SpecError, "eps must be", lambda: fit(network(), data, RobustIBP(), eps=-0.1)),
        (ShapeError, "logits", lambda: fit(network()[:2], data, RobustIBP(), eps=0.1)),
        (DataError, "no labels", lambda: fit(network(), Examples(data.x), RobustIBP(), eps=0.1)),
        (SpecError, "nothing to train", lambda: fit(nn.Flatten(), data, RobustIBP(), eps=0.1)),
        (SpecError, "after the last of 5", lambda: TrainingPlan(epochs=5, ramp=Ramp(1, 5.5))),
        (SpecError, "epochs", lambda: TrainingPlan(epochs=0)), (SpecError, "micro", lambda: TrainingPlan(micro=0)),
        (SpecError, "gradient_norm", lambda: TrainingPlan(gradient_norm=0.0)), (SpecError, "share", lambda: HeldOut(1.0)),
        (SpecError, "whole", lambda: TrainingPlan(epochs=1.5)), (SpecError, "every", lambda: Validation(every=0)),
        (SpecError, "every", lambda: Keep(Path("x"), every=0)), (SpecError, "decay", lambda: Adam(decay=-1.0)),
        (SpecError, "betas", lambda: Adam((0.9, 1.0))), (SpecError, "momentum", lambda: SGD(-0.1)),
        (SpecError, "pixels", lambda: Augmentation(shift=-1)), (SpecError, "clip", lambda: Threat(0.1, clip=(1.0, 0.0))),
        (SpecError, "middle", lambda: bl.Smooth(middle=1.5)), (SpecError, "power", lambda: bl.Smooth(power=0)),
    ):
        with pytest.raises(error, match=match):
            ask()
    with pytest.raises(BoundError):
        fit(network(), data, RobustIBP(), eps=0.1, plan=replace(SHORT, rate=Rate(1e30)))
