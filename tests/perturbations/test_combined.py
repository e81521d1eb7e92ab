"""Sets made of sets: unions, blocks of one tensor, and several inputs that vary at once."""

import functools

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.maps import Dense
from tests.perturbations import brute

F64 = torch.float64
METHODS = {"IBP": bl.IBP(), "Forward": bl.Forward(), "CROWN": bl.CROWN(), "CROWN-IBP": bl.CROWN(intermediate=bl.IBP())}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def uniform(*shape, seed=0):
    return torch.rand(shape, generator=seeded(seed), dtype=F64)


X = uniform(2, 5)
BALL, FEW, BOX = bl.LpBall(X, 0.3, 2), bl.L0Ball(X, torch.tensor([1, 2]), -1.0, 2.0), bl.Box(X - 0.1, X + 0.2)
ROWS = Dense((5,), None, torch.randn(2, 6, 5, generator=seeded(1), dtype=F64))


class Two(nn.Module):
    """A network of two inputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(3, 6), nn.Linear(2, 6), nn.Linear(6, 2)

    def forward(self, x, y):
        return self.out(torch.relu(self.first(x) + self.second(y)))


class One(nn.Module):
    """The same of one input that holds both."""

    def __init__(self, two):
        super().__init__()
        self.two = two

    def forward(self, z):
        return self.two(z[:, :3], z[:, 3:])


@functools.cache
def networks():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        two = Two().double()
        net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    models = bl.capture(two, X[:, :3].clone(), X[:, 3:].clone()), bl.capture(One(two), X), bl.capture(net, X)
    return two, net, *(model.detached() for model in models)


def test_a_union_is_the_smaller_of_its_members():
    union = bl.Union((BALL, FEW, BOX))
    low = torch.stack([member.concretize(ROWS) for member in (BALL, FEW, BOX)]).amin(0)
    assert torch.equal(union.concretize(ROWS), low)
    boxes = [member.box() for member in (BALL, FEW, BOX)]
    assert torch.equal(union.box().lower, torch.stack([box.lower for box in boxes]).amin(0))
    assert torch.equal(union.box().upper, torch.stack([box.upper for box in boxes]).amax(0))


def test_a_union_of_points_equals_exhaustive_search():
    points = uniform(7, 2, 5, seed=3)
    union = bl.Union(tuple(points))
    for problem in range(2):
        torch.testing.assert_close(union.concretize(ROWS)[problem],
                                   brute.minimum(points[:, problem], ROWS.coefficients[problem]))
    assert torch.equal(union.project(points), points)
    assert set(union.sample(70, seeded(1))[:, 0, 0].tolist()) == set(points[:, 0, 0].tolist())


def test_points_of_a_union_are_points_of_a_member():
    union = bl.Union((bl.Box(X - 0.1, X), bl.Box(X + 3, X + 3.1)))
    for points in (union.sample(100, seeded(1)), union.project(4 * torch.randn(100, 2, 5, generator=seeded(2), dtype=F64))):
        below, above = (points <= X).all(2), (points >= X + 3).all(2)
        assert (below ^ above).all() and below.any() and above.any()
        assert torch.equal(union.project(points), points)
    gradient = torch.ones(3, 2, 5, dtype=F64)
    assert (union.ascent(gradient) > 0).all() and (union.ascent(-gradient) < 0).all()


def test_members_that_all_problems_share():
    shared = bl.Box(torch.zeros(1, 5, dtype=F64), torch.ones(1, 5, dtype=F64))
    union = bl.Union((BALL, shared))
    torch.testing.assert_close(union.concretize(ROWS)[1], torch.minimum(BALL.concretize(ROWS), shared.concretize(ROWS))[1])
    assert union.take(torch.tensor([1, 0, 1])).box().shape == (3, 5)


@pytest.mark.parametrize("method", METHODS)
def test_bounds_on_a_union_hold_for_all_members(method):
    _, net, _, _, model = networks()
    union = bl.Union((BALL, FEW, BOX))
    bounds = bl.bound(model, union, method=METHODS[method])
    for member in (BALL, FEW, BOX):
        y = net(member.sample(200, seeded(4))).detach()
        assert (bounds.lower <= y + 1e-9).all() and (y <= bounds.upper + 1e-9).all()


def test_verdicts_on_a_union_are_those_of_the_worst_member():
    _, _, _, _, model = networks()
    spec = bl.at_least(torch.tensor([[[1.0, -1.0]]], dtype=F64).expand(2, 1, 2))
    small = [bl.LpBall(X, eps, 2) for eps in (0.01, 0.02)]
    lower = bl.bound(model, bl.Union((*small, bl.L0Ball(X, 1, -0.5, 1.5))), spec=spec).lower[:, 0]
    for gap, wanted in ((1e-6, bl.Verdict.VERIFIED), (-10.0, bl.Verdict.FALSIFIED)):
        moved = bl.at_least(spec.rows, (gap - lower)[:, None])
        results = bl.verify(model, bl.Union((*small, bl.L0Ball(X, 1, -0.5, 1.5))), moved, rigour=bl.Rigour.FLOAT)
        assert [result.verdict for result in results] == [wanted] * 2


def test_blocks_add_up():
    first, last = X[:, :3].clone(), X[:, 3:].clone()
    parts = (bl.LpBall(first, 0.3, 1), bl.L0Ball(last, 1, 0.0, 1.0))
    blocks = bl.Blocks(parts)
    expected = sum(part.concretize(Dense((size,), None, ROWS.coefficients[..., place]))
                   for part, size, place in zip(parts, (3, 2), (slice(0, 3), slice(3, 5)), strict=True))
    torch.testing.assert_close(blocks.concretize(ROWS), expected)
    points = blocks.project(4 * torch.randn(50, 2, 5, generator=seeded(5), dtype=F64))
    assert torch.equal(parts[1].project(points[..., 3:]), points[..., 3:])
    assert ((points[..., :3] - first).abs().sum(2) <= 0.3 + 1e-12).all()


def test_blocks_of_boxes_are_a_box():
    blocks = bl.Blocks((bl.Box(X[:, :2], X[:, :2] + 1), X[:, 2:4], bl.Box(X[:, 4:], X[:, 4:] + 2)))
    assert blocks.independent and not bl.Blocks((BALL, X)).independent
    torch.testing.assert_close(blocks.concretize(ROWS), bl.Box(blocks.box().lower, blocks.box().upper).concretize(ROWS))


def test_blocks_of_channels_and_of_lines():
    image = uniform(2, 3, 4, 4)
    rows = Dense((3, 4, 4), None, torch.randn(2, 3, 3, 4, 4, generator=seeded(6), dtype=F64))
    for dim in range(3):
        whole, half = image.shape[dim + 1], image.narrow(dim + 1, 0, 1).contiguous()
        rest = image.narrow(dim + 1, 1, whole - 1).contiguous()
        blocks = bl.Blocks((bl.L0Ball(half, 2, 0.0, 1.0), rest), dim)
        own = rows.coefficients.narrow(dim + 2, 0, 1)
        expected = bl.L0Ball(half, 2, 0.0, 1.0).concretize(Dense(tuple(half.shape[1:]), None, own))
        expected = expected + (rows.coefficients.narrow(dim + 2, 1, whole - 1) * rest[:, None]).flatten(2).sum(2)
        torch.testing.assert_close(blocks.concretize(rows), expected)


@pytest.mark.parametrize("method", METHODS)
def test_several_inputs_are_like_blocks_of_one(method):
    """A mapping from inputs to sets means every combination, and so do blocks; bounds hold at combined samples."""
    net, _, two, one, _ = networks()
    parts = (bl.LpBall(X[:, :3].clone(), 0.2, 2), bl.L0Ball(X[:, 3:].clone(), 1, 0.0, 1.0))
    names = [node.name for node in two.graph.inputs]
    several = bl.bound(two, dict(zip(names, parts, strict=True)), method=METHODS[method])
    joined = bl.bound(one, bl.Blocks(parts), method=METHODS[method])
    y = net(parts[0].sample(300, seeded(7)).flatten(0, 1), parts[1].sample(300, seeded(8)).flatten(0, 1)).detach()
    y = y.reshape(300, 2, 2)
    for bounds in (several, joined):
        assert (bounds.lower <= y + 1e-9).all() and (y <= bounds.upper + 1e-9).all()
    if method in ("CROWN", "Forward"):
        torch.testing.assert_close(several.lower, joined.lower)


def test_several_inputs_are_attacked_and_verified():
    net, _, two, one, _ = networks()
    parts = (bl.L0Ball(X[:, :3].clone(), 1, 0.0, 1.0), bl.Union((X[:, 3:].clone(), bl.Box(X[:, 3:] - 0.2, X[:, 3:] - 0.1))))
    names = [node.name for node in two.graph.inputs]
    spec = bl.at_least(torch.tensor([[[1.0, -1.0]]], dtype=F64).expand(2, 1, 2))
    lower = bl.bound(one, bl.Blocks(parts), spec=spec).lower[:, 0]
    for gap, wanted in ((1e-6, bl.Verdict.VERIFIED), (-5.0, bl.Verdict.FALSIFIED)):
        moved = bl.at_least(spec.rows, (gap - lower)[:, None])
        for model, sets in ((two, dict(zip(names, parts, strict=True))), (one, bl.Blocks(parts))):
            results = bl.verify(model, sets, moved, rigour=bl.Rigour.FLOAT)
            assert [result.verdict for result in results] == [wanted] * 2
            for result in results:
                if result.witness is not None and model is two:
                    assert float(net(*(result.witness.inputs[name] for name in names)).detach() @ spec.rows[0, 0] +
                                 moved.offset[results.index(result), 0]) <= 0


def test_one_input_may_vary_while_another_is_constant():
    _, _, two, _, _ = networks()
    names = [node.name for node in two.graph.inputs]
    still = X[:, 3:].clone()
    sets = bl.Blocks((bl.L0Ball(X[:, :3].clone(), 1, 0.0, 1.0), still))
    bounds = bl.bound(two, {names[0]: bl.L0Ball(X[:, :3].clone(), 1, 0.0, 1.0), names[1]: still})
    torch.testing.assert_close(bounds.lower, bl.bound(networks()[3], sets).lower)


WRONG = {
    "a union of nothing": (lambda: bl.Union(()), "a union of no set is empty"),
    "a union of shapes": (lambda: bl.Union((BALL, bl.Box(X[:, :2], X[:, :2]))), "needs sets of one shape"),
    "a union of types": (lambda: bl.Union((BALL, bl.LpBall(X.float(), 0.1))), "one floating type"),
    "a union of batches": (lambda: bl.Union((BALL, bl.LpBall(uniform(3, 5), 0.1))), r"\[2, 3\] problems"),
    "a union of numbers": (lambda: bl.Union((BALL, 3.0)), "made of perturbation sets, got float"),
    "a union of one set": (lambda: bl.Union(BALL), "several sets in a tuple, got one LpBall"),
    "blocks of nothing": (lambda: bl.Blocks(()), "blocks of no set"),
    "blocks that do not fit": (lambda: bl.Blocks((uniform(2, 3, 4), uniform(2, 2, 5))), "must agree in all others"),
    "blocks along no axis": (lambda: bl.Blocks((BALL, X), dim=1), "no common axis 1"),
}


@pytest.mark.parametrize("call", WRONG)
def test_impossible_combinations_are_refused_in_words(call):
    wrong, words = WRONG[call]
    with pytest.raises(bl.SpecError, match=words) as caught:
        wrong()
    assert str(caught.value).count("\n") == 0
