import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import boundlab as bl
from boundlab.bounds.problem import problem_of
from boundlab.train.losses import fused_crown_ibp_loss, ibp_loss
from boundlab.train.statistics import CenterStatistics, clean_pass, update_running, with_statistics
from tests.train.directional import along_directions


class Before(nn.Module):
    """Batch norms before activations, one of them on a value with two readers, and one on a value that no layer made."""

    def __init__(self):
        super().__init__()
        self.first, self.inner = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.one, self.two, self.three = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.BatchNorm2d(2)
        self.last = nn.Linear(48, 3)

    def forward(self, x):
        h = self.first(self.three(x))
        h = h + torch.relu(self.two(self.inner(torch.relu(self.one(h)))))
        return self.last(h.flatten(1))


NETWORKS = {
    "folded": lambda: nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(),
                                    nn.Linear(12, 6, bias=False), nn.BatchNorm1d(6, affine=False), nn.ReLU(), nn.Linear(6, 3)),
    "twice": lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(),
                                   nn.Linear(12, 3)),
    "apart": Before,
}


def network(kind, seed=0):
    torch.manual_seed(seed)
    module = NETWORKS[kind]().double()
    for norm in module.modules():
        if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)) and norm.affine:
            nn.init.uniform_(norm.weight, -1.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    x, labels = torch.randn(6, 2, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 2, 1, 0])
    return module, bl.capture(module.eval(), x), x, labels


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_clean_pass_is_the_module_in_training_mode(kind):
    module, model, x, labels = network(kind)
    trained = copy.deepcopy(module).train()
    expected, found = trained(x), clean_pass(model, x)
    assert torch.allclose(found.output, expected, rtol=1e-9)
    cross_entropy(expected, labels).backward()
    cross_entropy(found.output, labels).backward()
    for ours, theirs in zip(module.parameters(), trained.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-8, atol=1e-12)
    update_running(model, found.model, len(x))
    buffers = dict(trained.named_buffers())
    for name, running in module.named_buffers():
        if "running" in name:
            assert torch.allclose(running, buffers[name], rtol=1e-12)
    assert torch.allclose(bl.evaluate(found.model, x), expected, rtol=1e-9), "the statistics are numbers of the model"


@pytest.mark.parametrize("kind", NETWORKS)
def test_intervals_by_center_statistics_are_those_of_the_network_with_these_numbers(kind):
    _, model, x, _ = network(kind)
    region = bl.Box(x - 0.1, x + 0.2)
    bounds = CenterStatistics().run(problem_of(model, region))
    fixed = with_statistics(model, bounds.env)
    plain = bl.bound(fixed, region, method=bl.IBP())
    assert torch.allclose(bounds.lower, plain.lower, rtol=1e-9) and torch.allclose(bounds.upper, plain.upper, rtol=1e-9)
    for point in region.sample(50, torch.Generator().manual_seed(0)):
        output = bl.evaluate(fixed, point)
        assert (output >= bounds.lower - 1e-9).all() and (output <= bounds.upper + 1e-9).all()
    assert any((fixed.params[name] != value).any() for name, value in model.params.items() if "running" in name)


@pytest.mark.parametrize("kind", NETWORKS)
def test_center_statistics_of_points_are_those_of_a_clean_pass(kind):
    _, model, x, _ = network(kind)
    env = CenterStatistics().environment(problem_of(model, bl.Box(x, x)))
    clean = clean_pass(model, x).model
    for name, value in with_statistics(model, env).params.items():
        assert torch.allclose(value, clean.params[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", [
    lambda model, box, labels: ibp_loss(model, box, labels, CenterStatistics()),
    lambda model, box, labels: fused_crown_ibp_loss(model, box, labels, 0.5, CenterStatistics(), problems=4),
    lambda model, box, labels: ibp_loss(clean_pass(model, box.box().center).model, box, labels),
], ids=["IBP", "fused", "clean"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_gradients_pass_through_the_statistics(loss, kind):
    module, model, x, labels = network(kind)
    box = bl.Box(x - 0.05, x + 0.05)
    loss(model, box, labels).backward()
    for name, slopes, measured in along_directions(module, model, lambda moved: loss(moved, box, labels)):
        assert abs(float(slopes.sum()) - measured) <= 1e-5 * (1e-3 + float(slopes.abs().sum())), name


def test_a_ball_and_perturbed_weights():
    module, model, x, _ = network("folded")
    bounds = CenterStatistics().run(problem_of(model, bl.LpBall(x, 0.3, 2.0)))
    box = CenterStatistics().run(problem_of(model, bl.Box(x - 0.3, x + 0.3)))
    assert (bounds.upper - bounds.lower).sum() < (box.upper - box.lower).sum()
    weight = module[0].weight.detach().unsqueeze(0)
    sets = {model.graph.inputs[0].name: bl.Box(x, x), "0.weight": bl.Box(weight - 0.01, weight + 0.01)}
    varied = CenterStatistics().run(problem_of(model, sets))
    fixed = with_statistics(model, CenterStatistics().environment(problem_of(model, bl.Box(x, x))))
    assert (varied.lower <= bl.evaluate(fixed, x)).all() and (bl.evaluate(fixed, x) <= varied.upper).all()


def test_the_running_statistics_of_several_batches_are_their_mean():
    module, model, x, _ = network("folded")
    means = []
    for place, part in enumerate(x.split(2)):
        measured = clean_pass(model, part).model
        means.append(measured.params["1.running_mean"])
        update_running(model, measured, len(part), 1 / (place + 1))
    assert torch.allclose(module[1].running_mean, torch.stack(means).mean(0), rtol=1e-12)


def test_parts_of_a_network_keep_their_batch_norms():
    _, model, x, _ = network("folded")
    first = model.up_to(model.graph[model.graph.norms[0].folded].name)
    assert len(first.graph.norms) == 1 and len(model.graph.norms) == 2
    output = clean_pass(first, x).output
    assert torch.allclose(output.mean((0, 2, 3)), model.params["1.bias"], atol=1e-9)
