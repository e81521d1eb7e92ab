"""Recipes: those that come with boundlab are valid and can be built; whatever is wrong with one is said in a sentence."""

import math

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.data.examples import Examples
from boundlab.data.lexicon import lexicon_of
from boundlab.errors import DataError, RecipeError, SpecError
from boundlab.train.fit import fit_against
from boundlab.train.normalise import Normalise
from boundlab.train.recipe import RampTable, names, parsed, recipe
from boundlab.train.run import carried_out
from boundlab.train.sources import apart, digits, training_and_test

SHAPES = {"mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28), "cifar10": (3, 32, 32), "digits": (1, 8, 8)}
SMALL = """
title = "a test"
source = "boundlab"
network = "mlp-b"
data = "digits"
eps = 0.05
epochs = 4
batch = 32
examples = 400
rate = { first = 5e-3 }
ramp = { start = 1, end = 3 }
[method.ibp]
natural_weight = [1.0, 0.5]
"""


WORDS = lexicon_of([("a", "good", "film")], {}, least=1)


@pytest.mark.parametrize("name", names())
def test_a_recipe_is_valid_and_its_network_takes_its_data(name):
    held = recipe(name)
    if held.words is None:
        x = torch.rand(2, *SHAPES[held.data])
        assert held.built(Examples(x)).eval()(x).shape == (2, 10)
    else:
        x = torch.randint(len(WORDS.words), (2, held.words.length))
        assert held.built(Examples(x, lexicon=WORDS)).eval()(x, (x > 0).float()).shape == (2, 2)
    ramp = held.plan().ramp
    assert ramp.end < held.epochs and all(drop < held.epochs for drop in held.rate.drops)
    assert held.eps >= held.radius > 0 and held.source
    for known in held.published:
        assert known.source and (known.clean_error is not None or known.verified_error is not None)
        assert known.verified_error is None or known.clean_error is None or known.clean_error < known.verified_error


def test_a_recipe_says_all_that_a_plan_holds():
    held = parsed(SMALL + """
[optimiser.sgd]
momentum = 0.5
[regularisers]
l1 = { weight = 1e-5 }
calm = { weight = 0.2 }
[augmentation]
shift = 1
""", "test")
    plan = held.plan()
    assert plan.optimiser == bl.SGD(0.5) and plan.regularisers == (bl.L1(1e-5), bl.Calm(0.2))
    assert plan.augmentation == bl.Augmentation(shift=1) and plan.clip == (0.0, 1.0) and math.isinf(held.norm)
    assert held.training_method == bl.RobustIBP((1.0, 0.5)) and plan.ramp == bl.Ramp(1, 3)
    smooth = parsed(SMALL.replace("end = 3 }", "end = 3, smooth = { middle = 0.4 } }"), "test").plan().ramp
    assert smooth == bl.Ramp(1, 3, bl.Smooth(0.4))


@pytest.mark.parametrize(("change", "match"), [
    (("eps = 0.05", "eps = -0.05"), "'eps': .* greater than or equal to 0, got -0.05"),
    (("eps = 0.05", "eps = nan"), "'eps'"),
    (("epochs = 4", "epoch = 4"), "'epoch' is no key"),
    (("epochs = 4", "epochs = 4\nspeed = 3"), "'speed' is no key"),
    (("natural_weight =", "kappa ="), "'method.ibp.kappa' is no key"),
    (("[method.ibp]", "[method.ibp2]"), "'method.ibp2' is no key"),
    (("[method.ibp]", "[method.natural]\n[method.ibp]"), "one method, of natural, pgd, ibp, crown-ibp.*; found 2"),
    (("[1.0, 0.5]", "[1.0, 1.5]"), "between 0 and 1"),
    (("[1.0, 0.5]", "0.5"), "'method.ibp.natural_weight"),
    (("mlp-b", "resnet-1000"), "no network 'resnet-1000'"),
    (("end = 3", "end = 5"), "the ramp of eps ends at epoch 5, after the last of 4"),
    (("end = 3", "end = 0"), "does not end before its start"),
    (('"digits"', '"imagenet"'), "'data'"),
    (("batch = 32", "batch = 0"), "'batch'"),
    (("batch = 32", "batch = "), "is no TOML"),
])
def test_what_is_wrong_is_said_in_a_sentence(change, match):
    assert change[0] in SMALL
    with pytest.raises(bl.BoundlabError, match=match) as raised:
        parsed(SMALL.replace(*change), "test")
    assert "\n" not in str(raised.value)


def test_there_must_be_a_recipe(tmp_path):
    with pytest.raises(RecipeError, match="digits-smoke"):
        recipe("none")
    (tmp_path / "binary.toml").write_bytes(bytes(range(128, 256)))
    with pytest.raises(RecipeError, match="not a text file"):
        recipe(tmp_path / "binary.toml")


def test_a_recipe_is_carried_out():
    held = parsed(SMALL, "test")
    training, test = training_and_test(None, "digits", 0)
    test = test.take(range(60))
    outcome = carried_out(held, training, test)
    measured = outcome.measured
    assert measured.clean > 0.5 and len(outcome.fitted.history) == 4 and outcome.seconds_an_epoch > 0
    assert all(measured.clean >= measured.attacked >= share for share in measured.verified.values())
    assert measured.by_any >= max(measured.verified.values()) > 0
    with pytest.raises(DataError, match="label 10"):
        carried_out(held, Examples(training.x, training.labels + 3), test)


@pytest.mark.parametrize(("error", "test"), [
    (bl.ShapeError, Examples(torch.rand(4, 1, 9, 9), torch.zeros(4, dtype=torch.long))),
    (DataError, Examples(torch.rand(4, 1, 8, 8), torch.full((4,), 10))),
    (DataError, Examples(torch.full((4, 1, 8, 8), 16.0), torch.zeros(4, dtype=torch.long))),
], ids=["size", "label", "scale"])
def test_a_test_set_that_does_not_fit_is_found_before_training(error, test):
    with pytest.raises(error):
        carried_out(parsed(SMALL, "test"), training_and_test(None, "digits", 0)[0], test, tell=pytest.fail)


def test_training_and_test_examples_share_none(tmp_path):
    whole = digits()
    training, test = apart(whole, 0)
    assert len(training) + len(test) == len(whole)
    order = torch.cat([training.x, test.x]).flatten(1)
    assert torch.equal(order.sum(0), whole.x.flatten(1).sum(0))
    torch.save({}, tmp_path / "none")  # not a data file
    with pytest.raises(DataError):
        training_and_test(tmp_path / "none", "mnist", 0)
    with pytest.raises(DataError, match="--data"):
        training_and_test(None, "mnist", 0)
    with pytest.raises(DataError, match="too few"):
        apart(Examples(whole.x[:1], whole.labels[:1]), 0)


def test_a_file_without_a_test_set_is_divided(tmp_path):
    import numpy as np

    whole = digits()
    np.savez(tmp_path / "all.npz", x=whole.x.numpy(), y=whole.labels.numpy())
    training, test = training_and_test(tmp_path / "all.npz", "mnist", 0)
    assert (len(training), len(test)) == (1438, 359)


def test_normalisation_is_a_layer_and_bounds_go_through_it():
    net = nn.Sequential(Normalise((0.2, 0.5), (0.5, 2.0)), nn.Flatten(), nn.Linear(8, 3))
    x = torch.rand(3, 2, 2, 2)
    expected = (x - torch.tensor([0.2, 0.5])[:, None, None]) / torch.tensor([0.5, 2.0])[:, None, None]
    assert torch.allclose(net[0](x), expected)
    bounds = bl.bound(bl.capture(net, x), bl.LpBall(x, 0.1), method=bl.IBP())
    for point in bl.LpBall(x, 0.1).sample(30, torch.Generator().manual_seed(0)):
        assert (net(point) >= bounds.lower - 1e-5).all() and (net(point) <= bounds.upper + 1e-5).all()
    with pytest.raises(SpecError):
        Normalise((0.0,), (0.0,))


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_a_recipe_takes_a_step(name):
    held, generator = recipe(name), torch.Generator().manual_seed(0)
    if held.words is None:
        few = Examples(torch.rand(3, *SHAPES[held.data], generator=generator), torch.tensor([0, 1, 9]))
    else:
        few = Examples(torch.randint(len(WORDS.words), (3, held.words.length), generator=generator), torch.tensor([0, 1, 1]),
                       lexicon=WORDS)
    short = held.model_copy(update={"epochs": 1, "batch": 3, "validation": 0.0, "micro": 2, "ramp": RampTable(start=0, end=0)})
    net = short.built(few)
    before = nn.utils.parameters_to_vector(net.parameters()).detach().clone()
    fit_against(net, few, short.training_method, short.threat(short.eps, few), short.plan())
    assert (nn.utils.parameters_to_vector(net.parameters()) != before).double().mean() > 0.2


@pytest.mark.slow
def test_the_smoke_recipe_proves_most_digits():
    outcome = carried_out(recipe("digits-smoke"), *training_and_test(None, "digits", 0))
    assert outcome.measured.clean > 0.9 and outcome.measured.verified["IBP"] > 0.65
