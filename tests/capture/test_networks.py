"""Networks of many kinds, captured whole: values, gradients, any batch, and bounds that hold."""

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import boundlab as bl
from boundlab.evaluate import evaluate_all
from tests.capture.images import IMAGES, LARGE
from tests.capture.others import OTHERS

NETWORKS = {**{name: (make, [shape]) for name, (make, shape) in IMAGES.items()}, **OTHERS}
RADIUS = 0.02


def prepared(make):
    """A network in evaluation mode, with statistics as after some training."""
    torch.manual_seed(0)
    module = make().eval()
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.running_mean.uniform_(-.5, .5)
            layer.running_var.uniform_(.5, 2)
    return module


def example(entry, batch):
    """Positional and named inputs, by the shapes in the table."""
    positional, named = entry[1], entry[2] if len(entry) > 2 else {}
    generator = torch.Generator().manual_seed(batch)

    def one(shape):
        return torch.randn((batch, *shape), generator=generator)

    return pytree.tree_map(one, (positional, named), is_leaf=lambda part: isinstance(part, tuple) and isinstance(part[0], int))


def run(module, given):
    """The module's tensors, in order."""
    return [leaf for leaf in pytree.tree_leaves(module(*given[0], **given[1])) if isinstance(leaf, torch.Tensor)]


def by_name(model, given):
    return dict(zip([node.name for node in model.graph.inputs], pytree.tree_leaves(given), strict=True))


def batch_first(want, found):
    """An output as the Model gives it: `nn.LSTM` returns its states with the batch second."""
    return want if want.shape == found.shape else want.movedim(1, 0)


def check_values(module, model, entry, batch):
    """Values and gradients of graph and module at a batch size."""
    given = example(entry, batch)
    wanted, values = run(module, given), evaluate_all(model, by_name(model, given))
    found = [values[index] for index in model.graph.outputs]
    assert len(found) == len(wanted) == len(model.outputs)
    for one, want in zip(found, wanted, strict=True):
        assert torch.allclose(one, batch_first(want, one), rtol=1e-3, atol=1e-4)
    parameters = list(module.parameters())
    first, second = (torch.autograd.grad(sum((part**2).sum() for part in parts), parameters, allow_unused=True)
                     for parts in (found, wanted))
    for one, other in zip(first, second, strict=True):
        assert (one is None) == (other is None)
        assert one is None or (one - other).abs().max() <= 2e-3 * (1 + other.abs().max())


def check_bounds(module, model, entry, methods, count=12, radius=RADIUS):
    """Sampled outputs lie inside the bounds of every output."""
    given = example(entry, 2)
    moved = [pytree.tree_map(lambda x: x + radius * (2 * torch.rand_like(x) - 1), given) for _ in range(count)]
    moved += [pytree.tree_map(lambda x: x + radius * torch.randn_like(x).sign(), given) for _ in range(count)]
    with torch.no_grad():
        sampled = [torch.stack(parts) for parts in zip(*(run(module, point) for point in moved), strict=True)]
    sets = {name: bl.LpBall(x, radius) for name, x in by_name(model, given).items()}
    for name, values in zip(model.outputs, sampled, strict=True):
        part = model.select_output(name).detached()
        used = {node.name for node in part.graph.inputs}
        for method in methods:
            bounds = bl.bound(part, {key: region for key, region in sets.items() if key in used}, method=method)
            inside = torch.stack([batch_first(value, bounds.lower) for value in values])
            slack = 1e-4 * (1 + inside.abs().amax(0))
            assert (bounds.lower <= inside + slack).all() and (inside <= bounds.upper + slack).all(), (name, method)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    entry = NETWORKS[name]
    module = prepared(entry[0])
    given = example(entry, 2)
    model = bl.capture(module, *given[0], **given[1])
    for batch in (1, 3):
        check_values(module, model, entry, batch)
    check_bounds(module, model, entry, (bl.IBP(), bl.CROWN()))


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_networks(name):
    make, shape = LARGE[name]
    module = prepared(make)
    model = bl.capture(module, *example((make, [shape]), 1)[0])
    check_values(module, model, (make, [shape]), 2)
    check_bounds(module, model, (make, [shape]), (bl.IBP(), bl.CROWN(intermediate=bl.IBP())), count=3, radius=1e-3)


def test_there_are_many_kinds():
    assert len(NETWORKS) >= 50
