import itertools

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.train.losses import crown_ibp_loss, ibp_loss, natural_loss, robust_cross_entropy
from tests.train.directional import along_directions


def network(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3)).to(dtype)


def problem(seed=0, dtype=torch.float64, eps=0.05, count=5):
    net = network(seed, dtype)
    generator = torch.Generator().manual_seed(seed + 1)
    x = torch.rand(count, 16, generator=generator, dtype=dtype)
    labels = torch.randint(3, (count,), generator=generator)
    return net, bl.capture(net, x[:2]), x, bl.Box(x - eps, x + eps), labels


WEIGHTS = [0.0, 0.3, 1.0]


@pytest.mark.parametrize("weight", WEIGHTS)
def test_gradients_agree_with_finite_differences(weight):
    net, model, _, box, labels = problem()
    loss = crown_ibp_loss(model, box, labels, weight)
    loss.backward()
    for name, slopes, numeric in along_directions(net, model, lambda moved: crown_ibp_loss(moved, box, labels, weight)):
        assert float(slopes.sum()) == pytest.approx(numeric, rel=1e-5, abs=1e-8), name


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_loss_is_above_the_cross_entropy_everywhere_in_the_set(weight):
    net, model, x, box, labels = problem(eps=0.1)
    robust = crown_ibp_loss(model, box, labels, weight)
    for seed in range(50):
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype) * 2 - 1
        assert natural_loss(net, x + 0.1 * noise.sign(), labels) <= robust + 1e-12
        assert natural_loss(net, x + 0.1 * noise, labels) <= robust + 1e-12


def test_weight_0_is_the_ibp_loss_and_margins_are_mixed_before_the_loss():
    _, model, _, box, labels = problem()
    spec = bl.margins(labels, 3, torch.float64)
    plain = bl.bound(model, box, spec=spec, method=bl.IBP()).lower
    backward = bl.bound(model, box, spec=spec, method=bl.CROWN(intermediate=bl.IBP())).lower
    assert torch.equal(crown_ibp_loss(model, box, labels, 0.0), ibp_loss(model, box, labels))
    for weight in WEIGHTS:
        expected = robust_cross_entropy(weight * backward + (1 - weight) * plain)
        assert torch.allclose(crown_ibp_loss(model, box, labels, weight), expected, rtol=1e-12)


def test_a_set_of_one_point_gives_the_natural_loss():
    net, model, x, _, labels = problem()
    for weight in WEIGHTS:
        assert torch.allclose(crown_ibp_loss(model, bl.Box(x, x), labels, weight), natural_loss(net, x, labels), rtol=1e-9)


def test_a_larger_set_never_lowers_the_ibp_loss():
    # A theorem for IBP (inclusion isotonicity); CROWN-IBP margins may rise when the set grows.
    _, model, x, _, labels = problem()
    losses = [ibp_loss(model, bl.Box(x - eps, x + eps), labels) for eps in (0.0, 0.01, 0.05, 0.2)]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(losses))


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_loss_falls_in_training_and_one_capture_serves_all_steps(weight):
    net, model, _, box, labels = problem(dtype=torch.float32)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = crown_ibp_loss(model, box, labels, weight)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_bad_requests_are_refused():
    _, model, _, box, labels = problem()
    with pytest.raises(bl.SpecError, match="between 0 and 1"):
        crown_ibp_loss(model, box, labels, 1.5)
    with pytest.raises(bl.SpecError, match="classes 0 to 2"):
        ibp_loss(model, box, labels + 2)
    images = nn.Conv2d(1, 1, 3)
    x = torch.rand(2, 1, 4, 4)
    with pytest.raises(bl.ShapeError, match="logits"):
        ibp_loss(bl.capture(images, x), bl.Box(x, x), torch.zeros(2, dtype=torch.long))
