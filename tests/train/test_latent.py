"""Laws of TAPS and STAPS: what they are at the ends, what they are below, and whose gradients they carry."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.errors import SpecError
from boundlab.interval import Interval
from boundlab.train.adversary import Ascent
from boundlab.train.batch import Threat
from boundlab.train.latent import STAPS, TAPS, connected, inner_margins
from boundlab.train.losses import interval_margins
from boundlab.train.methods import RobustIBP, entropies, margins_at
from boundlab.train.step import objective
from tests.train.test_methods import number, problem, searched

LAYERS = [1, 2, 3]


def question_of(batch):
    return TAPS().question(batch)


def inner(batch, layers, steps=8):
    return inner_margins(question_of(batch), layers, Ascent(steps), 0.5)


def proven(batch):
    question = question_of(batch)
    return interval_margins(question.problem, question.env, question.labels)


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch norm"])
@pytest.mark.parametrize("count", LAYERS)
def test_an_inner_attack_finds_no_less_than_intervals_allow_and_no_more_than_the_center_has(count, norm):
    _, batch = problem(norm, eps=0.1, share=1.0)
    assert (inner(batch, count) >= proven(batch) - 1e-9).all()
    batch = replace(batch, share=0.0)
    assert torch.allclose(inner(batch, count), margins_at(batch.logits, batch.labels))


def test_with_the_last_layer_alone_it_is_ibp_to_the_gradient():
    net, batch = problem(eps=0.1, share=1.0)
    found = []
    for margins in (inner(batch, 1), proven(batch)):
        net.zero_grad()
        entropies(margins).sum().backward()
        found.append((margins.detach(), [parameter.grad.clone() for parameter in net.parameters()]))
    assert torch.allclose(found[0][0], found[1][0])
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(ours, theirs, atol=1e-10)


@pytest.mark.parametrize("norm", [float("inf"), 2.0])
def test_with_every_layer_it_is_an_attack_in_the_set(norm):
    net, batch = problem(share=1.0, threat=Threat(0.15, norm, (0.0, 1.0)))
    margins = inner(batch, 3, steps=20)
    assert (margins < margins_at(batch.logits, batch.labels)).all()
    for point in batch.sets.sample(100, torch.Generator().manual_seed(0)):
        assert (margins_at(net(point), batch.labels) >= margins - 1e-3).all()  # 20 steps against 100 draws
    entropies(margins).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() and parameter.grad.any() for parameter in net.parameters())


@pytest.mark.parametrize("count", LAYERS)
def test_small_boxes_lie_between_the_attack_and_the_whole_box(count):
    _, batch = problem(eps=0.1, share=1.0)
    batch = searched(STAPS(count), batch)
    values = [number(STAPS(count, part=part).loss(batch)) for part in (0.0, 0.5, 1.0)]
    assert values[0] <= values[1] <= values[2]
    assert values[2] == pytest.approx(number(TAPS(count).loss(batch)))
    at_points = entropies(margins_at(batch.attacked, batch.labels))
    assert values[0] == pytest.approx(number(at_points.square().mean()))


@pytest.mark.parametrize("method", [TAPS(2), TAPS(1, 2.0), STAPS(2)], ids=repr)
def test_the_loss_is_below_the_square_of_ibp_and_its_gradient_reaches_both_parts(method):
    net, batch = problem(eps=0.1, share=1.0)
    batch = searched(method, batch)
    loss = method.loss(batch)
    assert 0 < number(loss) <= number(entropies(proven(batch)).square().mean()) + 1e-9
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() and parameter.grad.any() for parameter in net.parameters())


def test_the_gradient_of_the_attack_counts_as_often_as_its_weight_says():
    net, batch = problem(eps=0.1, share=1.0)

    def slopes(weight):
        net.zero_grad()
        TAPS(2, attack_weight=weight).loss(batch).backward()
        return torch.cat([parameter.grad.flatten() for parameter in net.parameters()])

    one, two, four = map(slopes, (1.0, 2.0, 4.0))
    assert torch.allclose(four - two, 2 * (two - one)) and (two - one).norm() > 1e-6


def test_gradients_of_points_go_to_near_ends():
    low, high = (torch.full((1, 5), value, requires_grad=True) for value in (0.0, 2.0))
    point = connected(torch.tensor([[0.0, 0.25, 1.0, 1.75, 2.0]]), Interval(low, high), 0.5)
    point.sum().backward()
    assert torch.allclose(low.grad, torch.tensor([[1.0, 0.75, 0.0, 0.0, 0.0]]))
    assert torch.allclose(high.grad, torch.tensor([[0.0, 0.0, 0.0, 0.75, 1.0]]))
    same = torch.zeros(1, 1, requires_grad=True)
    connected(torch.zeros(1, 1), Interval(same, same * 1), 0.5).sum().backward()
    assert same.grad.item() == 1


def test_until_the_ramp_ends_it_is_ibp():
    _, batch = problem(share=0.7)
    assert number(TAPS().loss(batch)) == pytest.approx(number(RobustIBP().loss(batch)))


@pytest.mark.parametrize("method", [TAPS(2), STAPS(3, natural_weight=(0.0, 0.3))], ids=repr)
def test_parts_of_a_batch_lose_nothing(method):
    found = []
    for micro in (None, 4):
        net, batch = problem(share=1.0)
        loss = objective(batch, method, bl.TrainingPlan(micro=micro), torch.Generator().manual_seed(1))
        loss.backward()
        found.append(torch.cat([loss.detach()[None], *(parameter.grad.flatten() for parameter in net.parameters())]))
    assert torch.allclose(found[0], found[1], rtol=1e-8, atol=1e-12)


def test_a_loss_is_the_mean_of_those_of_examples_alone():
    _, batch = problem(share=1.0)
    alone = [TAPS(2).loss(replace(batch, x=batch.x[place:place + 1], labels=batch.labels[place:place + 1]))
             for place in range(len(batch.x))]
    assert torch.allclose(torch.stack(alone).mean(), TAPS(2).loss(batch))


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        inner = torch.relu(self.first(x))
        return self.last(inner + torch.relu(self.second(inner)))


class Late(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        inner = self.first(x)
        return self.last(inner + self.second(torch.relu(inner)))


def test_bad_requests_are_refused():
    _, batch = problem(share=1.0)
    with pytest.raises(SpecError, match="has 3; ask for fewer"):
        TAPS(4).loss(batch)
    with pytest.raises(SpecError, match="norm inf"):
        ball = replace(batch, threat=Threat(0.1, 2.0))
        STAPS().loss(searched(STAPS(), ball))
    net, x = Around(), torch.rand(3, 4)
    skipping = bl.Batch(bl.capture(net, x), x, torch.zeros(3, dtype=torch.long), Threat(0.1), 1.0)
    assert torch.isfinite(TAPS(2).loss(skipping))
    split = bl.Batch(bl.capture(Late(), x), x, torch.zeros(3, dtype=torch.long), Threat(0.1), 1.0)
    with pytest.raises(SpecError, match="a path leads around"):
        TAPS(2).loss(split)
    for make in (lambda: TAPS(0), lambda: TAPS(reach=0.0), lambda: TAPS(attack_weight=-1.0), lambda: STAPS(part=2.0),
                 lambda: TAPS(natural_weight=(0.0, 2.0))):
        with pytest.raises(SpecError):
            make()
