"""l_0 balls and patches: exact minima against exhaustive search, through networks, under attack, and wrong calls."""

import functools
import itertools
import math

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.maps import Dense, Select
from tests.perturbations import brute

F64 = torch.float64
METHODS = {"IBP": bl.IBP(), "Forward": bl.Forward(), "CROWN": bl.CROWN(), "CROWN-IBP": bl.CROWN(intermediate=bl.IBP())}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def uniform(*shape, seed=0, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(shape, generator=seeded(seed), dtype=F64)


IMAGES = uniform(3, 2, 2, 3, seed=1, low=-0.4, high=1.4)
L0_BALLS = {
    "one for all": bl.L0Ball(uniform(3, 5), 2, 0.0, 1.0),
    "own budgets": bl.L0Ball(uniform(3, 5, seed=2, low=-1, high=2), torch.tensor([0, 1, 3]), 0.0, 1.0),
    "more than there are": bl.L0Ball(uniform(2, 3, seed=3), 7, -1.0, 1.0),
    "own domains": bl.L0Ball(uniform(3, 5, seed=4), 2, uniform(3, 1, seed=5, low=-1, high=0), uniform(5, seed=6, low=1)),
    "around the center": bl.L0Ball(uniform(3, 5, seed=7), 2, uniform(3, 5, seed=7) - 0.1, uniform(3, 5, seed=7) + 0.2),
    "one number": bl.L0Ball(uniform(2, 4, seed=8), 1, 0.5, 0.5),
    "entries of images": bl.L0Ball(IMAGES, torch.tensor([1, 2, 0]), 0.0, 1.0),
    "pixels": bl.L0Ball(IMAGES, torch.tensor([2, 1, 0]), uniform(2, 1, 1, seed=9, low=-0.5, high=0), 1.0, pixels=True),
}
PATCHES = {
    "2 x 1": bl.Patches(IMAGES, (2, 1), 0.0, 1.0),
    "1 x 2": bl.Patches(IMAGES, (1, 2), IMAGES - 0.3, 0.2 + IMAGES),
    "one pixel": bl.Patches(IMAGES[:, :1].clone(), (1, 1), 0.0, 1.0),
    "the whole image": bl.Patches(IMAGES[:2, :1].clone(), (2, 3), 0.0, 1.0),
}
SETS = {f"l0 {name}": (region, brute.l0_points) for name, region in L0_BALLS.items()} | {
    f"patch {name}": (region, brute.patch_points) for name, region in PATCHES.items()}


def alone(region, problem):
    return region.take(torch.tensor([problem]))


def problems(region):
    return range(len(region.center))


@functools.cache
def network(shape, seed=5):
    """A small network over inputs of a shape, and its model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(math.prod(shape), 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)]
        if len(shape) == 3:
            layers = [nn.Conv2d(shape[0], 4, 2, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 2), nn.ReLU(), nn.Flatten(),
                      nn.Linear(3 * shape[1] * shape[2], 3)]
        net = nn.Sequential(*layers).double().eval()
    return net, bl.capture(net, torch.zeros(2, *shape, dtype=F64))


@functools.cache
def affine(shape, merged):
    """An affine network and its model; `merged` leaves out the last layer of two, which intervals do not merge."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(math.prod(shape), 3)]
        if len(shape) == 3:
            layers = [nn.Conv2d(shape[0], 2, 2), nn.Flatten(), nn.Linear(2 * (shape[1] - 1) * (shape[2] - 1), 3)]
        net = nn.Sequential(*layers[:2 if merged else 3]).double().eval()
    return net, bl.capture(net, torch.zeros(2, *shape, dtype=F64))


@pytest.mark.parametrize("name", SETS)
def test_minima_equal_exhaustive_search(name):
    region, points_of = SETS[name]
    shape = tuple(region.center.shape[1:])
    rows = torch.randn(len(region.center), 6, *shape, generator=seeded(11), dtype=F64)
    found, box = region.concretize(Dense(shape, None, rows)), region.box()
    for problem in problems(region):
        points = points_of(alone(region, problem))
        torch.testing.assert_close(found[problem], brute.minimum(points, rows[problem]), rtol=0, atol=1e-12)
        torch.testing.assert_close(box.lower[problem], points.amin(0))
        torch.testing.assert_close(box.upper[problem], points.amax(0))


@pytest.mark.parametrize("name", SETS)
def test_projection_knows_every_point_of_the_set_exactly(name):
    region, points_of = SETS[name]
    for problem in problems(region):
        own = alone(region, problem)
        points = points_of(own)
        assert torch.equal(own.project(points[:, None])[:, 0], points)
        samples = own.sample(50, seeded(1))
        assert torch.equal(own.project(samples), samples)
        wild = own.project(torch.randn(200, *own.center.shape, generator=seeded(2), dtype=F64) * 2)
        assert torch.equal(own.project(wild), wild)
        assert torch.unique(wild.flatten(1), dim=0).shape[0] > 1 or len(torch.unique(points.flatten(1), dim=0)) == 1


@pytest.mark.parametrize("name", SETS)
def test_samples_and_projections_alter_no_more_than_they_may(name):
    region, _ = SETS[name]
    samples = region.sample(200, seeded(3))
    wild = region.project(torch.randn(200, *region.center.shape, generator=seeded(4), dtype=F64) * 3)
    for points in (samples, wild):
        moved = points != region.center
        inside = (points >= region.domain.lower) & (points <= region.domain.upper)
        assert (inside | ~moved).all()
        if isinstance(region, bl.L0Ball):
            cells = moved.any(2) if region.pixels else moved
            assert (cells.flatten(2).sum(2) <= region.count).all()
        else:
            rows, columns = moved.any(2).any(3), moved.any(2).any(2)
            for side, lines in zip(region.size, (rows, columns), strict=True):
                place = torch.arange(lines.shape[2])
                first = torch.where(lines, place, 99).amin(2)
                last = torch.where(lines, place, -1).amax(2)
                assert (last - first < side).all()
    assert (samples != region.center).any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SETS)
def test_bounds_of_affine_networks_are_exact(name, method):
    region, points_of = SETS[name]
    net, model = affine(tuple(region.center.shape[1:]), method == "IBP")
    bounds = bl.bound(model, region, method=METHODS[method])
    for problem in problems(region):
        values = net(points_of(alone(region, problem))).detach()
        torch.testing.assert_close(bounds.lower[problem], values.amin(0), rtol=0, atol=1e-10)
        torch.testing.assert_close(bounds.upper[problem], values.amax(0), rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SETS)
def test_bounds_hold_at_extreme_and_random_points_of_small_networks(name, method):
    region, points_of = SETS[name]
    net, model = network(tuple(region.center.shape[1:]))
    bounds = bl.bound(model, region, method=METHODS[method])
    samples = region.sample(300, seeded(6))
    for problem in problems(region):
        values = net(torch.cat([points_of(alone(region, problem)), samples[:, problem]])).detach()
        assert (bounds.lower[problem] <= values + 1e-9).all() and (values <= bounds.upper[problem] + 1e-9).all()


@pytest.mark.parametrize("name", ["l0 one for all", "l0 own budgets", "l0 pixels", "patch 2 x 1", "patch 1 x 2"])
def test_verdicts_agree_with_exhaustive_search_on_affine_networks(name):
    """A threshold just below the true minimum is verified, one just above it is falsified by an attack."""
    region, points_of = SETS[name]
    net, model = affine(tuple(region.center.shape[1:]), False)
    rows = torch.tensor([[[1.0, -1.0, 0.5]]], dtype=F64)
    lowest = torch.stack([(net(points_of(alone(region, i))).detach() @ rows[0, 0]).amin() for i in problems(region)])
    for gap, wanted in ((1e-3, bl.Verdict.VERIFIED), (-1e-3, bl.Verdict.FALSIFIED)):
        spec = bl.at_least(rows.expand(len(lowest), 1, 3), (gap - lowest)[:, None])
        results = bl.verify(model, region, spec, timeout=5, rigour=bl.Rigour.FLOAT)
        assert [result.verdict for result in results] == [wanted] * len(lowest)


@pytest.mark.parametrize("name", ["l0 one for all", "l0 own budgets", "l0 pixels", "patch 2 x 1"])
def test_verdicts_never_contradict_points_of_the_set(name):
    region, points_of = SETS[name]
    net, model = network(tuple(region.center.shape[1:]))
    rows = torch.tensor([[[1.0, -1.0, 0.0]]], dtype=F64)
    dense = [torch.cat([points_of(alone(region, i)), region.sample(2000, seeded(9))[:, i]]) for i in problems(region)]
    lowest = torch.stack([(net(points).detach() @ rows[0, 0]).amin() for points in dense])
    decided = 0
    for gap in (-0.05, 0.02, 1.0):
        offset = (gap - lowest)[:, None]
        spec = bl.at_least(rows.expand(len(lowest), 1, 3), offset)
        for i, result in enumerate(bl.verify(model, region, spec, timeout=3, rigour=bl.Rigour.FLOAT)):
            assert result.verdict is not bl.Verdict.VERIFIED or gap > 0
            if result.verdict is bl.Verdict.FALSIFIED:
                point = result.witness.inputs[model.graph.inputs[0].name]
                assert torch.equal(alone(region, i).project(point), point)
                assert float(net(point).detach() @ rows[0, 0] + offset[i]) <= 0
            decided += result.verdict.decided
    assert decided > len(lowest)


def test_zero_changes_are_one_point():
    x = uniform(2, 4)
    ball = bl.L0Ball(x, 0, -5.0, 5.0)
    assert torch.equal(ball.box().lower, x) and torch.equal(ball.sample(9)[4], x)
    row = torch.ones(1, 1, 4, dtype=F64)
    torch.testing.assert_close(ball.concretize(Dense((4,), None, row)), x.sum(1, keepdim=True))


def test_a_pixel_costs_once_whatever_its_channels():
    x = torch.zeros(1, 3, 2, 2)
    rows = Dense((3, 2, 2), None, torch.full((1, 1, 3, 2, 2), -1.0))
    assert bl.L0Ball(x, 1, 0.0, 1.0).concretize(rows).item() == -1
    assert bl.L0Ball(x, 1, 0.0, 1.0, pixels=True).concretize(rows).item() == -3
    assert bl.Patches(x, (1, 2), 0.0, 1.0).concretize(rows).item() == -6


def test_a_patch_of_the_image_is_a_box_and_patches_grow():
    x = uniform(2, 2, 4, 4)
    rows = Dense((2, 4, 4), None, torch.randn(2, 5, 2, 4, 4, generator=seeded(1), dtype=F64))
    low = [bl.Patches(x, (side, side), 0.0, 1.0).concretize(rows) for side in (1, 2, 3, 4)]
    assert all((larger <= smaller + 1e-12).all() for smaller, larger in itertools.pairwise(low))
    torch.testing.assert_close(low[3], bl.Box(torch.zeros_like(x), torch.ones_like(x)).concretize(rows))


def test_a_tiny_change_still_counts():
    """Differences whose squares vanish are changes all the same: a point with one too many is not in the set."""
    x = torch.zeros(1, 3)
    point = torch.tensor([[1e-30, 1e-30, 0.0]])
    assert torch.equal(bl.L0Ball(x, 2, -1.0, 1.0).project(point), point)
    assert int((bl.L0Ball(x, 1, -1.0, 1.0).project(point) != 0).sum()) == 1


def test_single_coordinates_of_many_problems():
    region = L0_BALLS["own budgets"]
    select = Select((5,), torch.tensor([2, 0, 1, 1]), torch.tensor([0, 3, 4, 4]), torch.tensor([1.0, -1.0], dtype=F64))
    box = region.box()
    expected = torch.stack([box.lower[[2, 0, 1, 1], [0, 3, 4, 4]], -box.upper[[2, 0, 1, 1], [0, 3, 4, 4]]], 1)
    torch.testing.assert_close(region.concretize(select), expected)


X, IMAGE = torch.full((2, 3), 0.5), torch.full((2, 1, 4, 4), 0.5)
WRONG = {
    "negative k": (lambda: bl.L0Ball(X, -1, 0.0, 1.0), "k must not be negative"),
    "k of no whole number": (lambda: bl.L0Ball(X, 1.5, 0.0, 1.0), "k must be a whole number"),
    "k in words": (lambda: bl.L0Ball(X, "2", 0.0, 1.0), "k must be a whole number"),
    "k for other problems": (lambda: bl.L0Ball(X, torch.tensor([1, 2, 3]), 0.0, 1.0), "one for each of 2 problems"),
    "empty domain": (lambda: bl.L0Ball(X, 1, 1.0, 0.0), "domain of an l_0 ball is empty"),
    "domain without end": (lambda: bl.L0Ball(X, 1, 0.0, math.inf), "must be finite"),
    "a domain in words": (lambda: bl.L0Ball(X, 1, "0", 1.0), "must be numbers or tensors, got '0'"),
    "NaN in the domain": (lambda: bl.L0Ball(X, 1, math.nan, 1.0), "must be finite"),
    "domain of another shape": (lambda: bl.L0Ball(X, 1, torch.zeros(4), 1.0), r"broadcast to \(2, 3\)"),
    "NaN in the center": (lambda: bl.L0Ball(X * math.nan, 1, 0.0, 1.0), "6 entries that are NaN"),
    "center of whole numbers": (lambda: bl.L0Ball(X.long(), 1, 0.0, 1.0), "finite floating tensor"),
    "center that is no tensor": (lambda: bl.L0Ball([[0.5]], 1, 0.0, 1.0), "tensor with a batch axis"),
    "pixels of vectors": (lambda: bl.L0Ball(X, 1, 0.0, 1.0, pixels=True), "needs inputs of shape"),
    "a patch larger than the image": (lambda: bl.Patches(IMAGE, (5, 2), 0.0, 1.0), "5 x 2 is larger than the image of 4 x 4"),
    "a patch of nothing": (lambda: bl.Patches(IMAGE, (0, 2), 0.0, 1.0), "whole numbers from 1 on"),
    "a negative patch": (lambda: bl.Patches(IMAGE, (2, -1), 0.0, 1.0), "must not be negative"),
    "a patch of half a pixel": (lambda: bl.Patches(IMAGE, (1.5, 1), 0.0, 1.0), "size of a patch must be a whole number"),
    "a patch with one side": (lambda: bl.Patches(IMAGE, 3, 0.0, 1.0), "height and width"),
    "a patch on a vector": (lambda: bl.Patches(X, (1, 1), 0.0, 1.0), "need images"),
    "a patch of no value": (lambda: bl.Patches(IMAGE, (1, 1), 0.7, 0.2), "domain of a patch is empty"),
}


@pytest.mark.parametrize("call", WRONG)
def test_impossible_sets_are_refused_in_words(call):
    wrong, words = WRONG[call]
    with pytest.raises(bl.SpecError, match=words) as caught:
        wrong()
    assert str(caught.value).count("\n") == 0
