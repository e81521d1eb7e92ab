"""Sets of several sources at once, and balls of parameters by name."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab import CROWN, IBP, Box, Forward, LpBall, SpecError, bound
from boundlab.maps import Dense
from boundlab.perturbations.joint import Member, apart, end_to_end, joint_ball, members, together
from boundlab.testing import check_perturbation

F64 = torch.float64
SHAPES = ((2, 3), (), (4,))


def vectors(batch=3, seed=0):
    return torch.randn(batch, 11, generator=torch.Generator().manual_seed(seed), dtype=F64)


WHOLES = {"l1": LpBall(vectors(), 0.5, 1), "l2": LpBall(vectors(), torch.tensor([0.5, 0.1, 1.0]), 2),
          "linf": LpBall(vectors(), 0.3), "clipped": LpBall(vectors().clamp(-1, 1), 0.5, 2, (-1.0, 1.2)),
          "box": Box(vectors() - 0.5, vectors() + 0.2)}


@pytest.mark.parametrize("kind", ["l1", "l2", "linf", "box"])
def test_what_a_member_has_of_a_joint_set_is_a_set(kind):
    for member in members(WHOLES[kind], (4, 7, 9), SHAPES)[::2]:
        check_perturbation(member, points=40)


@pytest.mark.parametrize("kind", WHOLES)
def test_rows_of_all_members_are_minimised_together(kind):
    whole = WHOLES[kind]
    parts = members(whole, (4, 7, 9), SHAPES)
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn((3, 2, *shape), generator=generator, dtype=F64) for shape in SHAPES]
    pairs = [(member, Dense(shape, None, row)) for member, shape, row in zip(parts, SHAPES, rows, strict=True)]
    laid = torch.cat([row.flatten(2) if row.dim() > 2 else row.unsqueeze(2) for row in rows], 2)
    assert torch.allclose(whole.concretize(together(pairs)), whole.concretize(Dense((11,), None, laid)), rtol=1e-9)
    some = laid.clone()
    some[..., 6] = 0
    assert torch.allclose(whole.concretize(together(pairs[::2])), whole.concretize(Dense((11,), None, some)), rtol=1e-9)


def test_vectors_come_apart_as_they_were_laid():
    values = [torch.randn(2, 3, *shape) for shape in SHAPES]
    laid = end_to_end(values, 2)
    assert laid.shape == (2, 3, 11)
    assert all(torch.equal(one, other) for one, other in zip(apart(laid, SHAPES), values, strict=True))
    shared = end_to_end([torch.zeros(1, 2), torch.ones(3, 1)], 1)
    assert torch.equal(shared, torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3))


def test_a_joint_ball_that_holds_inputs_and_weights():
    """(x, w, b) within eps: w . x + b is bilinear, its bound holds for points of the ball; with w and b alone it is exact."""
    module = nn.Sequential(nn.Linear(3, 1)).double()
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    model = bl.capture(module, x).detached()
    w, b = model.params["0.weight"][None], model.params["0.bias"][None]
    ball = joint_ball((x, w, b), torch.tensor([0.0, 0.01, 0.1, 0.5]))
    points = ball.sample(300, torch.Generator().manual_seed(1))
    own = list(apart(points, [(3,), (1, 3), (1,)]))
    values = torch.einsum("nbi,nboi->nbo", own[0], own[1]) + own[2]
    for method in (IBP(), Forward(), CROWN(), CROWN(problems=3), CROWN(filter=None)):
        result = bound(model, {("input", "0.weight", "0.bias"): ball}, method=method)
        assert result.lower.shape == (4, 1)
        assert bool((result.lower - 1e-9 <= values).all() and (values <= result.upper + 1e-9).all())
        assert torch.allclose(result.lower[0], module(x[:1])[0]) and torch.allclose(result.upper[0], module(x[:1])[0])


def test_a_constant_that_problems_share_beside_sets_that_they_do_not():
    """relu(x + c w) - c w, with one c for all problems, a box of their own for x, and a ball for w."""

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0, -2.0]))

        def forward(self, x, c):
            moved = c * self.weight
            return torch.relu(x + moved) - moved

    model = bl.capture(Both().double(), torch.zeros(2, 2, dtype=F64), torch.zeros(2, 2, dtype=F64)).detached()
    x = torch.tensor([[0.5, 0.5], [-1.35, 1.4], [-1.2, 0.7]], dtype=F64)
    c = torch.tensor([[1.0, 0.5]], dtype=F64)
    sets = {"x": Box(x - 0.3, x + 0.3), "c": c, **bl.weight_ball(model, "weight", eps=0.3, relative=False)}
    weights = sets["weight"].sample(200, torch.Generator().manual_seed(0))[:, 0]
    points = sets["x"].sample(200, torch.Generator().manual_seed(1))
    moved = (c * weights)[:, None]
    values = torch.relu(points + moved) - moved
    for method in (IBP(), Forward(), CROWN(), CROWN(problems=2), CROWN(filter=None)):
        result = bound(model, sets, method=method)
        inner = result.intermediate[next(node.name for node in model.graph if node.op == "add")]
        for found, point in ((result, values), (inner, points + moved)):
            assert bool((found.lower - 1e-9 <= point).all() and (point <= found.upper + 1e-9).all())
        for problem in range(3):
            alone = {**sets, "x": sets["x"].take(torch.tensor([problem]))}
            assert torch.allclose(bound(model, alone, method=method).lower[0], result.lower[problem], atol=1e-9)


# -- balls by name -------------------------------------------------------------------------------------------------------

NET = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
MODEL = bl.capture(NET, torch.zeros(1, 3))


def test_radii_are_shares_of_each_norm_or_plain_numbers():
    for p in (1.0, 2.0, math.inf):
        own = bl.weight_ball(MODEL, "*.weight", eps=0.1, norm=p)
        assert list(own) == ["0.weight", "2.weight"]
        for name, ball in own.items():
            assert torch.equal(ball.center[0], MODEL.params[name]) and ball.p == p
            assert torch.allclose(ball.radius.flatten(), 0.1 * torch.linalg.vector_norm(MODEL.params[name].flatten(), p))
    plain = bl.weight_ball(MODEL, ["2.bias", "0.weight"], eps=0.1, relative=False)
    assert [(name, float(ball.radius)) for name, ball in plain.items()] == [("0.weight", pytest.approx(0.1)),
                                                                           ("2.bias", pytest.approx(0.1))]


def test_a_joint_ball_is_as_wide_as_the_norm_of_all():
    (key, ball), = bl.weight_ball(MODEL, "*", eps=0.1, joint=True).items()
    assert set(key) == set(MODEL.params)
    laid = torch.cat([MODEL.params[name].flatten() for name in key])
    assert torch.equal(ball.center[0], laid)
    assert torch.allclose(ball.radius.flatten(), 0.1 * torch.linalg.vector_norm(laid))


def test_centers_and_relative_radii_follow_the_live_parameters():
    ball = bl.weight_ball(MODEL, "0.weight", eps=0.1)["0.weight"]
    gradient, = torch.autograd.grad(ball.radius.sum() + ball.center.sum(), NET[0].weight)
    weight = NET[0].weight.detach()
    assert torch.allclose(gradient, 1 + 0.1 * weight / torch.linalg.vector_norm(weight))


WRONG = {
    "a name that no parameter has": (lambda: bl.weight_ball(MODEL, "fc9.weight", eps=0.1), "'fc9.weight'; it has '0.w"),
    "a pattern that none matches": (lambda: bl.weight_ball(MODEL, "conv*", eps=0.1), "no parameter 'conv"),
    "an input": (lambda: bl.weight_ball(MODEL, "input", eps=0.1), "no parameter 'input'"),
    "no name": (lambda: bl.weight_ball(MODEL, [], eps=0.1), "at least one parameter"),
    "a negative radius": (lambda: bl.weight_ball(MODEL, "*", eps=-0.1), "not negative, got eps = -0.1"),
    "an infinite radius": (lambda: bl.weight_ball(MODEL, "*", eps=math.inf), "must be finite"),
    "a radius that is NaN": (lambda: bl.weight_ball(MODEL, "*", eps=math.nan), "not negative"),
    "a radius in words": (lambda: bl.weight_ball(MODEL, "*", eps="0.1"), "must be finite and not negative"),
    "a norm below one": (lambda: bl.weight_ball(MODEL, "*", eps=0.1, norm=0.5), "p >= 1"),
    "one center": (lambda: joint_ball(torch.zeros(1, 2), 0.1), "tuple of centers"),
    "centers of other batches": (lambda: joint_ball((torch.zeros(2, 2), torch.zeros(3, 1)), 0.1), r"\[2, 3\] problems"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_balls_are_refused_in_words(what):
    call, words = WRONG[what]
    with pytest.raises(SpecError, match=words):
        call()


def test_only_numbers_of_floating_type_can_vary():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.count = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))

        def forward(self, x):
            return x * self.weight + self.count

    model = bl.capture(Counting(), torch.zeros(1, 2))
    model = replace(model, params={**model.params, "count": torch.tensor([1, 2])})
    assert list(bl.weight_ball(model, "*", eps=0.1)) == ["weight"]
    with pytest.raises(SpecError, match=r"'count' holds torch.int64; only parameters of floating type"):
        bl.weight_ball(model, "count", eps=0.1)


X = torch.zeros(2, 3)
BAD = {
    "a name of nothing": ({"input": X, "0.wait": Box(X, X)}, "no input or parameter '0.wait'"),
    "a source in two sets": ({"input": X, "0.bias": LpBall(torch.zeros(1, 4), 0.1),
                              ("0.bias", "2.bias"): LpBall(torch.zeros(1, 6), 0.1)}, "'0.bias' is in two sets"),
    "a source twice in one": ({"input": X, ("0.bias", "0.bias"): LpBall(torch.zeros(1, 8), 0.1)}, "'0.bias' is in two sets"),
    "vectors of another length": ({"input": X, ("0.bias", "2.bias"): LpBall(torch.zeros(1, 5), 0.1)},
                                  r"'0.bias' and '2.bias' holds tensors of shape \(1, 5\).*\(batch, 6\).*end to end"),
    "a tensor for several": ({"input": X, ("0.bias", "2.bias"): torch.zeros(1, 6)}, "needs a perturbation set"),
    "a set for a weight of another shape": ({"input": X, "0.weight": LpBall(torch.zeros(1, 3, 4), 0.1)}, r"\(1, 3, 4\)"),
    "batches that do not meet": ({"input": X, "0.bias": LpBall(torch.zeros(3, 4), 0.1)}, r"\[2, 3\] problems"),
}


@pytest.mark.parametrize("what", BAD)
def test_wrong_sets_are_refused_in_words(what):
    sets, words = BAD[what]
    with pytest.raises(bl.ShapeError, match=words):
        bound(MODEL, sets)


def test_numbers_written_in_the_network_cannot_vary_unseen():
    """A number that broadcasts has no place of its own to be bounded at."""
    class Scaled(nn.Module):
        def forward(self, x):
            return torch.relu(0.5 * x)

    model = bl.capture(Scaled(), torch.zeros(1, 3))
    name, = model.params
    for method in (CROWN(), Forward()):
        with pytest.raises(bl.ShapeError, match="a number written in the network"):
            bound(model, {model.graph.inputs[0].name: X, name: LpBall(torch.tensor([0.5]), 0.1)}, method=method)


def test_forward_refuses_more_columns_than_fit():
    """Here weights of two layers, so that no layer of fewer coordinates can stand for them."""
    model = bl.capture(nn.Sequential(nn.Linear(3, 200), nn.ReLU(), nn.Linear(200, 300)), torch.zeros(1, 3))
    sets = {"input": torch.zeros(1, 3), **bl.weight_ball(model, "*.weight", eps=0.1)}
    with pytest.raises(bl.BoundError, match=r"60000 perturbed coordinates.*CROWN"):
        bound(model, sets, method=Forward())


def test_members_are_taken_with_their_set():
    member = members(WHOLES["l2"], (4, 7, 9), SHAPES)[2]
    assert isinstance(member, Member)
    index = torch.tensor([2, 0])
    assert torch.equal(member.take(index).box().lower, member.box().lower[index])
