import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import boundlab as bl
from boundlab.train.losses import (
    classification,
    crown_ibp_loss,
    fused_crown_ibp_loss,
    fused_sum,
    ibp_loss,
    natural_loss,
    robust_cross_entropy,
)
from boundlab.train.margins import margin_interval
from tests.train.directional import along_directions
from tests.train.test_losses import problem

WEIGHTS = [0.0, 0.3, 1.0]


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("problems", [None, 2])
def test_gradients_agree_with_finite_differences(weight, problems):
    net, model, _, box, labels = problem()
    fused_crown_ibp_loss(model, box, labels, weight, problems=problems).backward()
    for name, slopes, numeric in along_directions(net, model, lambda moved: fused_crown_ibp_loss(moved, box, labels, weight)):
        assert float(slopes.sum()) == pytest.approx(numeric, rel=1e-5, abs=1e-8), name


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_of_each_example_is_above_the_cross_entropy_everywhere_in_its_set(weight, seed):
    net, model, _, box, labels = problem(seed, eps=0.1)
    asked = classification(model, box, labels, None)
    fused = fused_sum(asked.problem, asked.env, labels, weight)
    above = fused.total.log() + fused.shift
    points = box.sample(200, torch.Generator().manual_seed(seed))
    losses = torch.stack([cross_entropy(net(point), labels, reduction="none") for point in points])
    assert (losses <= above + 1e-12).all()


@pytest.mark.parametrize("seed", range(4))
def test_theorem_3_the_fused_bound_is_at_most_the_loss_of_the_margin_bounds(seed):
    # Xu et al. 2020, Theorem 3, where backward bounds of the margins and their sum are exact: networks that are affine.
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 7)).double()
    x, labels = torch.randn(4, 6, dtype=torch.float64), torch.randint(7, (4,))
    model, box = bl.capture(net, x), bl.Box(x - 0.3, x + 0.3)
    spec = bl.margins(labels, 7, torch.float64)
    margins = bl.bound(model, box, spec=spec, method=bl.CROWN(intermediate=bl.IBP())).lower
    separate = torch.stack([robust_cross_entropy(row[None]) for row in margins])
    asked = classification(model, box, labels, None)
    fused = fused_sum(asked.problem, asked.env, labels, 1.0)
    assert (fused.total.log() + fused.shift <= separate + 1e-9).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_chords_never_exceed_the_exponentials_of_the_margin_bounds(seed):
    # The step of Theorem 3 that holds for any network: the sum of the chords at the margin bounds is the IBP bound of the sum.
    _, model, _, box, labels = problem(seed, eps=0.2)
    asked = classification(model, box, labels, None)
    margin = margin_interval(asked.problem, asked.env, labels)
    plain = fused_sum(asked.problem, asked.env, labels, 0.0)
    assert torch.allclose(plain.total.log() + plain.shift, cross_entropy(-margin.lower, labels, reduction="none"), rtol=1e-12)


def test_weight_0_is_the_ibp_loss_and_a_set_of_one_point_gives_the_natural_loss():
    net, model, x, box, labels = problem()
    assert torch.allclose(fused_crown_ibp_loss(model, box, labels, 0.0), ibp_loss(model, box, labels), rtol=1e-12)
    for weight in WEIGHTS:
        loss = fused_crown_ibp_loss(model, bl.Box(x, x), labels, weight)
        assert torch.allclose(loss, natural_loss(net, x, labels), rtol=1e-9)


def test_sums_are_mixed_before_the_logarithm():
    _, model, _, box, labels = problem(eps=0.1)
    asked = classification(model, box, labels, None)
    sums = [fused_sum(asked.problem, asked.env, labels, weight) for weight in (0.0, 1.0)]
    mixed = (0.25 * sums[1].total + 0.75 * sums[0].total).log() + sums[0].shift
    assert torch.allclose(fused_crown_ibp_loss(model, box, labels, 0.25), mixed.mean(), rtol=1e-12)
    assert (sums[0].total != sums[1].total).any()


@pytest.mark.parametrize("eps", [30.0, 1e4])
def test_huge_bounds_neither_overflow_nor_lose_the_gradient(eps):
    net, model, x, _, labels = problem(dtype=torch.float32)
    loss = fused_crown_ibp_loss(model, bl.Box(x - eps, x + eps), labels, 0.5)
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in net.parameters())
    assert any((p.grad != 0).any() for p in net.parameters())


@pytest.mark.parametrize("loss", [crown_ibp_loss, fused_crown_ibp_loss])
def test_groups_of_examples_change_nothing(loss):
    net, model, _, box, labels = problem()
    found = []
    for problems in (5, 4, 2, 1):
        net.zero_grad()
        value = loss(model, box, labels, 0.4, problems=problems)
        (0.5 * value).backward()
        found.append([value.detach(), *(p.grad.clone() for p in net.parameters())])
    for other in found[1:]:
        assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(found[0], other, strict=True))


def test_balls_and_gradients_to_the_set():
    _, model, x, _, labels = problem()
    ball = bl.LpBall(x.clone().requires_grad_(), 0.1, 2.0)
    fused_crown_ibp_loss(model, ball, labels, 0.5).backward()
    assert (ball.center.grad != 0).any()
    box = x.clone().requires_grad_()
    fused_crown_ibp_loss(model, bl.LpBall(box, 0.1), labels, 0.5, problems=2).backward()
    assert (box.grad != 0).any()


def numbers_kept(loss, classes):
    """Numbers that autograd keeps for the loss of a network with so many classes, without those of the weights."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 30), nn.ReLU(), nn.Linear(30, classes)]
    net, x, labels = nn.Sequential(*layers), torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.long)
    model, weights, kept = bl.capture(net, x), {p.data_ptr() for p in net.parameters()}, {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss(model, bl.Box(x - 0.01, x + 0.01), labels, 0.5)
    value.backward()
    return sum(count for place, count in kept.items() if place not in weights)


def test_no_row_for_each_class_is_kept():
    # What may grow: the rows of the last layers (classes x classes, shared), a few numbers for each margin, a few weights.
    few, many = numbers_kept(fused_crown_ibp_loss, 10), numbers_kept(fused_crown_ibp_loss, 200)
    assert many - few <= 200**2 + 190 * (40 * 8 + 2 * 31)
    assert numbers_kept(crown_ibp_loss, 200) - many > 190 * 8 * 256


def test_bad_requests_are_refused():
    _, model, _, box, labels = problem()
    with pytest.raises(bl.SpecError, match="between 0 and 1"):
        fused_crown_ibp_loss(model, box, labels, -0.1)
    with pytest.raises(bl.SpecError, match="classes 0 to 2"):
        fused_crown_ibp_loss(model, box, labels + 2, 0.5)
    with pytest.raises(bl.ShapeError, match="3 labels for 5 problems"):
        fused_crown_ibp_loss(model, box, labels[:3], 0.5)
