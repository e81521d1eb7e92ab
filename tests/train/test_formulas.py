"""The losses are those of the papers: each is written here a second time, in plain torch, for one small network."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import conv2d, cross_entropy, relu

import boundlab as bl
from boundlab.train.adversary import Ascent
from boundlab.train.batch import Batch, Threat
from boundlab.train.methods import CCIBP, MTLIBP, SABR, CrownIBP, ExpIBP, RobustIBP
from boundlab.train.regularisers import Calm
from tests.train.problems import clouds, network

SHARE = 0.5
EPS = 0.1
LARGE = 6.0


class Written:
    """A normalisation, a convolution and two linear layers with intervals, and CROWN-IBP, by hand."""

    def __init__(self, scale=1.0):
        data = clouds(9)
        self.x, self.labels = data.x.double(), data.labels
        self.first = bl.Normalise((0.3,), (0.2,)).double()
        self.net = torch.nn.Sequential(self.first, network()).double().eval()
        self.conv, self.hidden, self.last = (self.net[1][place] for place in (0, 3, 5))
        with torch.no_grad():
            self.conv.weight.mul_(scale)
        self.batch = Batch(bl.capture(self.net, self.x[:2]), self.x, self.labels, Threat(EPS, clip=(0.0, 1.0)), SHARE)
        eye = torch.eye(3, dtype=torch.double)
        self.rows = eye[self.labels][:, None] - eye

    def box(self):
        return (self.x - EPS * SHARE).clamp(0, 1), (self.x + EPS * SHARE).clamp(0, 1)

    def layers(self, lower, upper):
        """Intervals before both ReLUs, and margins."""
        lower, upper = self.first(lower), self.first(upper)
        center, radius = self.conv((lower + upper) / 2), conv2d((upper - lower) / 2, self.conv.weight.abs(), None, 2, 1)
        one = center - radius, center + radius
        lower, upper = (relu(end).flatten(1) for end in one)
        center, radius = self.hidden((lower + upper) / 2), (upper - lower) / 2 @ self.hidden.weight.abs().T
        two = center - radius, center + radius
        lower, upper = map(relu, two)
        rows = self.rows @ self.last.weight
        lowest = self.at(rows, (lower + upper) / 2) - self.at(rows.abs(), (upper - lower) / 2)
        return one, two, lowest + self.rows @ self.last.bias

    @staticmethod
    def at(rows, values):
        return (rows @ values.flatten(1)[..., None])[..., 0]

    def crown(self):
        """Margins pulled back to the input once; lower lines of slope 1 where u > -l, else 0 (Zhang et al. 2020)."""
        one, two, _ = self.layers(*self.box())
        rows, bias = self.rows @ self.last.weight, self.rows @ self.last.bias
        for (lower, upper), layer in ((two, self.hidden), (one, None)):
            lower, upper = lower.flatten(1), upper.flatten(1)
            open_ones = (lower < 0) & (upper > 0)
            above = torch.where(open_ones, upper / (upper - lower), (lower >= 0).double())
            below = torch.where(open_ones, (upper > -lower).double(), (lower >= 0).double())
            bias = bias + self.at(rows.clamp(max=0), torch.where(open_ones, -upper * lower / (upper - lower), 0.0))
            rows = rows.clamp(min=0) * below[:, None] + rows.clamp(max=0) * above[:, None]
            if layer is not None:
                bias, rows = bias + rows @ layer.bias, rows @ layer.weight
        affine = torch.func.jacrev(lambda x: self.conv(self.first(x)).flatten())(self.x[:1]).reshape(-1, 36)
        shift = self.conv(self.first(torch.zeros_like(self.x[:1]))).flatten()
        bias, rows = bias + rows @ shift, rows @ affine
        lower, upper = self.box()
        return self.at(rows, (lower + upper) / 2) - self.at(rows.abs(), (upper - lower) / 2) + bias

    def robust(self, margins):
        return cross_entropy(-margins, self.labels)

    def searched(self, method):
        return replace(self.batch, points=method.search(self.batch, torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def written():
    return Written()


def test_the_losses_without_attack(written):
    interval, crown = written.layers(*written.box())[2], written.crown()
    natural = cross_entropy(written.net(written.x), written.labels)
    assert torch.allclose(RobustIBP().loss(written.batch), written.robust(interval))
    assert torch.allclose(RobustIBP((1.0, 0.5)).loss(written.batch), 0.75 * natural + 0.25 * written.robust(interval))
    for start, end in ((1.0, 0.0), (1.0, 1.0), (0.8, 0.2)):
        weight = start + (end - start) * SHARE
        expected = written.robust(weight * crown + (1 - weight) * interval)
        assert torch.allclose(CrownIBP((start, end)).loss(written.batch), expected)


@pytest.mark.parametrize("attack", [Ascent(1, 10.0), Ascent(4, 0.5)], ids=repr)
def test_the_losses_with_an_attack(written, attack):
    lower, upper = written.box()
    interval = written.layers(lower, upper)[2]
    for part in (0.1, 0.9):
        batch, radius = written.searched(SABR(part, attack=attack)), part * (upper - lower) / 2
        center = torch.minimum(torch.maximum(batch.points, lower + radius), upper - radius)
        expected = written.robust(written.layers(center - radius, center + radius)[2])
        assert torch.allclose(SABR(part, attack=attack).loss(batch), expected)
    weight = 0.3
    batch = written.searched(MTLIBP(weight, 1.0, attack))
    logits = written.net(batch.points)
    margins = logits.gather(1, written.labels[:, None]) - logits
    assert torch.allclose(MTLIBP(weight).loss(batch),
                          weight * written.robust(interval) + (1 - weight) * cross_entropy(logits, written.labels))
    assert torch.allclose(CCIBP(weight).loss(batch), written.robust(weight * interval + (1 - weight) * margins))
    single = [cross_entropy(-value, written.labels, reduction="none") for value in (interval, margins)]
    assert torch.allclose(ExpIBP(weight).loss(batch), (single[0] ** weight * single[1] ** (1 - weight)).mean())
    reach = (written.searched(MTLIBP(weight, 1.5, Ascent(1, 10.0))).points - written.x).abs().max()
    assert float(reach) == pytest.approx(1.5 * EPS * SHARE)


def test_what_keeps_intervals_calm():
    # Shi et al. 2021, Sec. 4.3, and their code: the input is the normalised one.
    written, charged = Written(LARGE), 0
    lower, upper = written.box()
    entering = (written.first(upper) - written.first(lower)).mean() / 2
    expected = torch.zeros((), dtype=torch.double)
    for low, high in written.layers(lower, upper)[:2]:
        center, active, inactive = (low + high) / 2, low > 0, high < 0
        spread = (center - center.mean()) ** 2
        expected = expected + relu(0.5 - entering / ((high - low) / 2).mean()) / 0.5
        for one, other in ((center[active].sum(), -center[inactive].sum()), (spread[active].sum(), spread[inactive].sum())):
            expected = expected + relu(0.5 - torch.minimum(one / other, other / one)) / 0.5
        charged += int(active.any() and inactive.any())
    assert charged and float(expected.detach()) > 0.1
    assert torch.allclose(Calm(0.4).term(written.batch), 0.4 * (1 - SHARE) * expected / 2)
