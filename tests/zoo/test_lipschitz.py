"""Layers that are 1-Lipschitz whatever their weights: by singular values, by pairs of points, and by the methods' bounds."""

import onnx
import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab import zoo
from boundlab.errors import ShapeError

SIZES = [(3, 8), (8, 3), (5, 5)]


def drawn(shape, kind, seed=0):
    """Weights of several kinds; what a rescaling may stumble over among them."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(shape, generator=generator, dtype=torch.float64)
    if kind == "sparse":
        weights[0] = 0.0
        weights[:, 0] = 0.0
    return {"alike": weights[:1].expand(shape) + 0.01 * weights, "tiny": 1e-9 * weights, "huge": 1e9 * weights,
            "positive": weights.abs()}.get(kind, weights).clone()


def norm_of(layer, shape):
    """The largest singular value of a module's matrix on inputs of a shape, without its bias."""
    zero = torch.zeros(1, *shape, dtype=torch.float64)
    eye = torch.eye(zero.numel(), dtype=torch.float64).reshape(-1, *shape)
    with torch.no_grad():
        return float(torch.linalg.matrix_norm((layer(eye) - layer(zero)).flatten(1), 2))


@pytest.mark.parametrize("kind", ["normal", "sparse", "alike", "tiny", "huge", "positive"])
@pytest.mark.parametrize("size", SIZES)
def test_no_weights_make_a_layer_longer_than_one(size, kind):
    dense, conv = zoo.AOLLinear(*size).double(), zoo.AOLConv2d(*size).double()
    with torch.no_grad():
        for layer in (dense, conv):
            layer.weight.copy_(drawn(layer.weight.shape, kind))
    assert norm_of(dense, size[:1]) <= 1 + 1e-12
    assert norm_of(conv, (size[0], 5, 4)) <= 1 + 1e-12
    for layer, shape in ((dense, size[:1]), (conv, (size[0], 5, 4))):
        layer(torch.ones(1, *shape, dtype=torch.float64)).sum().backward()
        assert torch.isfinite(layer.weight.grad).all()


@pytest.mark.parametrize("size", SIZES)
def test_first_weights_lose_nothing(size):
    torch.manual_seed(0)
    for layer, shape in ((zoo.AOLLinear(*size), size[:1]), (zoo.AOLConv2d(*size), (size[0], 4, 4))):
        assert norm_of(layer.double(), shape) == pytest.approx(1, abs=1e-5)


def test_a_narrow_and_a_wide_layer_are_rescaled_on_the_side_that_keeps_orthogonal_rows():
    rows = nn.init.orthogonal_(torch.empty(3, 8))
    layer = zoo.AOLLinear(8, 3)
    with torch.no_grad():
        layer.weight.copy_(rows)
    assert torch.allclose(layer.rescaled, rows, atol=1e-5)


@pytest.mark.parametrize("shape", [(4,), (4, 3, 2)])
def test_pairs_are_sorted_and_keep_their_distance(shape):
    x = torch.randn(50, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sort = zoo.MaxMin(4).double()
    first, second = x.chunk(2, 1)
    expected = torch.cat([torch.maximum(first, second), torch.minimum(first, second)], 1)
    assert torch.allclose(sort(x), expected, atol=1e-6)
    lengths = (x[:25] - x[25:]).flatten(1).norm(dim=1)
    assert ((sort(x[:25]) - sort(x[25:])).flatten(1).norm(dim=1) <= lengths * (1 + 1e-6)).all()


@pytest.fixture(scope="module")
def network():
    """A small network with other weights than the first, and inputs."""
    torch.manual_seed(0)
    net = zoo.build("aol-small-mnist", (1, 8, 8), 3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.rand(4, 1, 8, 8)
    return net, bl.capture(net, x).detached(), x


def test_lipschitz_constants_of_the_whole_are_found_by_the_methods(network):
    _, model, x = network
    bounds = bl.bound(model, bl.LpBall(x, 0.3, 2.0), method=bl.LMT())
    assert ((bounds.upper - bounds.lower) <= 0.6 * (1 + 1e-4)).all()


@pytest.mark.parametrize("method", [bl.LMT(), bl.BCP(), bl.IBP(), bl.CROWN()], ids=repr)
def test_bounds_of_every_method_hold(network, method):
    net, model, x = network
    ball = bl.LpBall(x, 0.2, 2.0)
    bounds = bl.bound(model, ball, method=method)
    with torch.no_grad():
        for point in ball.sample(40, torch.Generator().manual_seed(0)):
            assert (bounds.lower - 1e-5 <= net(point)).all() and (net(point) <= bounds.upper + 1e-5).all()


def test_a_file_has_ordinary_layers(network, tmp_path):
    net, model, x = network
    bl.save_onnx(model, tmp_path / "network.onnx")
    kinds = {node.op_type for node in onnx.load(str(tmp_path / "network.onnx")).graph.node}
    assert not kinds & {"Abs", "Sqrt", "Reciprocal", "ReduceSum", "Pad"} and {"Conv", "PRelu"} <= kinds
    again = bl.load_onnx(tmp_path / "network.onnx")
    with torch.no_grad():
        assert torch.allclose(bl.evaluate(again, x), net(x), atol=1e-5)


def test_bad_requests_are_refused():
    with pytest.raises(ShapeError, match="even"):
        zoo.MaxMin(3)
    with pytest.raises(ShapeError, match="odd"):
        zoo.AOLConv2d(2, 2, 4)
