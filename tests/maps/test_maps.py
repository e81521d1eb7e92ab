"""Every map and every kind of rows obeys the laws of matrices."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from boundlab import maps as bm
from boundlab.maps import conv_out_space, transposed
from boundlab.testing import check_map, check_rows
from boundlab.testing.maps import check_add, sample_rows

F64 = torch.float64


def randn(*shape, dtype=F64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(hash(shape) % 2**31))


def conv(space, kernel, stride, padding, dilation, groups, channels=(4, 6), dtype=F64):
    inner, outer = channels
    out = conv_out_space(space, kernel, stride, padding, dilation)
    weight = randn(outer, inner // groups, *kernel, dtype=dtype)
    return bm.Conv((inner, *space), (outer, *out), weight, stride, padding, dilation, groups)


def own_conv(space, kernel, *how):
    """A convolution with kernels of its own for each of three problems."""
    like = conv(space, kernel, *how)
    return bm.OwnConv(like.in_shape, like.out_shape, randn(3, *like.weight.shape), *how)


def convolutions():
    """All strides, paddings, dilations and groups that fit a map of odd and even sides."""
    for stride, padding, dilation, groups in itertools.product((1, 2, 3), (0, 1, 2), (1, 2), (1, 2)):
        name = f"conv2d s{stride} p{padding} d{dilation} g{groups}"
        yield name, conv((7, 6), (3, 2), (stride, stride), (padding, padding), (dilation, dilation), groups)
    yield "conv2d uneven", conv((5, 8), (2, 3), (2, 1), (0, 2), (1, 2), 2)
    yield "conv2d kernel as large as the map", conv((4, 4), (4, 4), (1, 1), (0, 0), (1, 1), 1)
    yield "conv2d 1x1", conv((4, 3), (1, 1), (1, 1), (0, 0), (1, 1), 1)
    yield "conv2d 1x1 padded", conv((1, 1), (1, 1), (1, 1), (1, 1), (1, 1), 1)
    yield "conv2d depthwise", conv((5, 5), (3, 3), (1, 1), (1, 1), (1, 1), 4, (4, 4))
    yield "conv1d", conv((9,), (3,), (2,), (1,), (2,), 2)
    yield "conv3d", conv((4, 3, 5), (2, 2, 3), (2, 1, 1), (1, 0, 1), (1, 1, 1), 2)


def others():
    """The other maps, shared and with tensors of their own for each of three problems."""
    image = (2, 4, 5)
    yield "identity", bm.identity(image)
    yield "zero", bm.Zero(image, (3, 2))
    yield "matrix", bm.Matrix((4,), (3,), randn(3, 4))
    yield "matrix over tokens", bm.Matrix((2, 3, 4), (2, 3, 5), randn(5, 4))
    for problems in (1, 3):
        yield f"diagonal of images {problems}", bm.diagonal(randn(problems, 1, *image), image)
        yield f"diagonal of channels {problems}", bm.diagonal(randn(problems, 1, 2, 1, 1), image)
        yield f"diagonal of places {problems}", bm.diagonal(randn(problems, 1, 1, 4, 5), image)
        yield f"diagonal of vectors {problems}", bm.diagonal(randn(problems, 1, 6), (6,))
        yield f"matmul right {problems}", bm.MatmulRight((2, 3, 4), (2, 3, 5), randn(problems, 1, 2, 4, 5))
        yield f"matmul right shared lead {problems}", bm.MatmulRight((2, 3, 4), (2, 3, 5), randn(problems, 1, 1, 4, 5))
        yield f"matmul right of a vector {problems}", bm.MatmulRight((3, 4), (3, 1), randn(problems, 1, 4, 1))
        yield f"matmul left {problems}", bm.MatmulLeft((2, 4, 3), (2, 5, 3), randn(problems, 1, 2, 5, 4))
        yield f"outer {problems}", bm.Outer((3, 4), (3, 4), randn(problems, 1, 3, 4), randn(problems, 1, 3, 4), 1)
        yield f"reduce {problems}", bm.Reduce(image, (2, 5), randn(problems, 1, *image), (1,))
        terms = (bm.diagonal(randn(problems, 1, 3, 4), (3, 4)), bm.Matrix((3, 4), (3, 4), randn(4, 4)))
        yield f"sum {problems}", bm.Sum((3, 4), (3, 4), terms)
        yield f"chain {problems}", bm.chain(bm.Reshape((12,), (3, 4)), bm.MatmulRight((3, 4), (3, 2), randn(problems, 1, 4, 2)),
                                            bm.Permute((3, 2), (2, 3), (1, 0)))
        yield f"chain from weights to images {problems}", bm.chain(
            bm.Reshape((4, 1, 3), (2, 2, 3)), bm.MatmulRight((2, 2, 3), (2, 2, 6), randn(problems, 1, 2, 3, 6)),
            bm.Reshape((2, 2, 6), (4, 2, 3)))
    yield "own conv2d", own_conv((5, 4), (3, 2), (2, 1), (1, 0), (1, 2), 2)
    yield "own conv1d", own_conv((7,), (3,), (2,), (1,), (1,), 1)
    yield "own conv transposed", transposed(own_conv((5, 4), (3, 2), (2, 2), (1, 1), (1, 1), 2))
    yield "reshape to vector", bm.Reshape(image, (40,))
    yield "reshape to image", bm.Reshape((40,), image)
    yield "reshape between images", bm.Reshape((2, 4, 4), (8, 2, 2))
    yield "permute", bm.Permute(image, (5, 2, 4), (2, 0, 1))
    yield "slice", bm.Slice(image, (1, 2, 2), (slice(1, 2, 1), slice(0, 4, 2), slice(1, 5, 3)))
    yield "slice of places", bm.Slice(image, (2, 2, 3), (slice(0, 2, 1), slice(1, 3, 1), slice(1, 4, 1)))
    yield "gather", bm.Gather(image, (2, 3), torch.tensor([0, 7, 7, 39, 12, 0]))
    yield "gather to image", bm.Gather((7,), (1, 2, 3), torch.tensor([6, 0, 1, 1, 3, 5]))
    yield "mean kept", bm.Reduce(image, (2, 1, 1), torch.tensor(1 / 20, dtype=F64), (1, 2))
    yield "expansion", transposed(bm.Reduce((3, 4), (3, 1), torch.ones((), dtype=F64), (1,)))
    yield "padding", transposed(bm.Slice((2, 6, 6), (2, 3, 4), (slice(0, 2, 1), slice(1, 4, 1), slice(2, 6, 1))))
    yield "transposed convolution", transposed(conv((7, 6), (3, 2), (2, 2), (1, 1), (1, 1), 2))
    uncovered = bm.Conv((4, 8, 10), (6, 3, 4), randn(6, 2, 2, 3), (1, 2), (0, 1), (3, 2), 2)
    yield "transposed convolution with padded output", transposed(uncovered)


MAPS = dict([*convolutions(), *others()])


@pytest.mark.parametrize("name", MAPS)
def test_laws_of_maps(name):
    check_map(MAPS[name])


@pytest.mark.parametrize("name", ["conv2d s2 p1 d1 g2", "diagonal of images 3", "matmul right 3", "sum 1", "gather"])
def test_laws_of_maps_in_single_precision(name):
    layer = MAPS[name]
    single = {key: value.float() if torch.is_tensor(value) and value.is_floating_point() else value
              for key, value in vars(layer).items()}
    if isinstance(layer, bm.Sum):
        first, second = layer.terms
        single["terms"] = (bm.diagonal(first.scale.float(), (3, 4)), bm.Matrix((3, 4), (3, 4), second.weight.float()))
    check_map(type(layer)(**single), dtype=torch.float32)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 1, 1), (1, 3, 1), (7,), (2, 3)], ids=str)
@pytest.mark.parametrize("problems", [1, 3])
def test_laws_of_rows(shape, problems):
    for rows in sample_rows(shape, problems, F64, torch.Generator().manual_seed(1)):
        check_rows(rows, problems)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 1, 1), (7,)], ids=str)
def test_rows_of_one_owner_add_like_matrices(shape):
    families = {}
    for rows in sample_rows(shape, 2, F64, torch.Generator().manual_seed(2)):
        families.setdefault(id(rows.owner), []).append(rows)
    pairs = [pair for family in families.values() for pair in itertools.product(family, repeat=2)]
    for first, second in pairs:
        check_add(first, second)


def test_coordinates_that_all_problems_share_are_rows_of_both_signs():
    rows = bm.Common((5,), None, torch.tensor([3, 0, 4]), torch.tensor([1.0, -1.0], dtype=F64))
    unit = torch.eye(5, dtype=F64)[[3, 0, 4]]
    assert torch.equal(rows.dense(), torch.cat([unit, -unit])[None])
    check_rows(rows, 2)
    layer = bm.Matrix((4,), (5,), randn(5, 4))
    pulled = bm.compose(rows, layer)
    assert torch.equal(pulled.dense()[0], torch.cat([layer.weight[[3, 0, 4]], -layer.weight[[3, 0, 4]]]))
    check_add(rows, rows)


def test_windows_that_began_at_different_nodes_are_not_added_by_offset():
    """One path goes through a crop before it reaches a convolution, the other meets the convolution at once."""
    rows = bm.Select((3, 4, 4), None, torch.arange(48), torch.tensor([[1.0, -1.0]], dtype=F64))
    crop = bm.Slice((3, 6, 6), (3, 4, 4), (slice(0, 3, 1), slice(1, 5, 1), slice(1, 5, 1)))
    straight = bm.compose(rows, conv((6, 6), (3, 3), (1, 1), (0, 0), (1, 1), 1, (2, 3)))
    cropped = bm.compose(bm.compose(rows, crop), conv((6, 6), (1, 1), (1, 1), (0, 0), (1, 1), 1, (2, 3)))
    assert isinstance(straight, bm.Windows) and isinstance(cropped, bm.Windows)
    check_add(straight, cropped)


def test_windows_that_began_after_different_reshapes_are_not_added_by_offset():
    rows = bm.Select((4, 4, 4), None, torch.arange(64), torch.tensor([[1.0]], dtype=F64))
    layer = conv((8, 8), (1, 1), (1, 1), (0, 0), (1, 1), 1, (1, 1))
    other = bm.compose(bm.compose(rows, bm.Reshape((1, 8, 8), (4, 4, 4))), layer)
    small = conv((8, 8), (2, 2), (2, 2), (0, 0), (1, 1), 1, (1, 4))
    straight = bm.compose(rows, small)
    check_add(straight, other)


def chain(rows, layers):
    for layer in layers:
        rows = bm.compose(rows, layer)
    return rows


def test_windows_grow_until_they_are_dense_and_stay_right():
    """Ten convolutions deep: windows at every border, then larger than the map."""
    layers = [conv((6, 6), (3, 3), (1, 1), (1, 1), (1, 1), 1, (2, 2)) for _ in range(5)]
    start = bm.Select((2, 6, 6), None, torch.arange(72), torch.tensor([[1.0]], dtype=F64))
    rows, want = start, start.dense()
    kinds = []
    for layer in layers:
        rows, want = bm.compose(rows, layer), layer.pull(want)
        kinds.append(type(rows).__name__)
        size = want.abs().amax()
        assert (rows.dense() - want).abs().amax() <= 200 * torch.finfo(F64).eps * size
    assert kinds[0] == "Windows" and kinds[-1] == "Dense"


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_residual_paths_with_other_offsets_add(stride):
    """A 3x3 and a 1x1 path of one stride (a ResNet block), then a common convolution below."""
    wide = conv((7, 7), (3, 3), (stride, stride), (1, 1), (1, 1), 1, (3, 2))
    narrow = conv((7, 7), (1, 1), (stride, stride), (0, 0), (1, 1), 1, (3, 2))
    below = conv((9, 9), (3, 3), (1, 1), (0, 0), (1, 1), 1, (2, 3))
    assert wide.out_shape == narrow.out_shape
    count = math.prod(wide.out_shape)
    rows = bm.Select(wide.out_shape, None, torch.arange(count), torch.tensor([[1.0, -1.0]], dtype=F64))
    met = bm.add(bm.compose(rows, wide), bm.compose(rows, narrow))
    assert isinstance(met, bm.Windows)
    want = below.pull(wide.pull(rows.dense()) + narrow.pull(rows.dense()))
    got = bm.compose(met, below).dense()
    assert (got - want).abs().amax() <= 200 * torch.finfo(F64).eps * want.abs().amax()


def test_factors_that_differ_between_rows():
    """A diagonal with its own factors for each row scales each row by its own."""
    scale = randn(2, 3, 2, 4, 5)
    layer = bm.diagonal(scale, (2, 4, 5))
    for rows in sample_rows((2, 4, 5), 2, F64, torch.Generator().manual_seed(3)):
        if rows.dense().shape[1] == 1 or (rows.owner is None and len(rows.dense()) == 1):
            continue
        own = bm.diagonal(scale[:, :2], (2, 4, 5))
        want = rows.dense() * bm.at_owner(scale[:, :2], rows.owner)
        assert torch.equal(bm.compose(rows, own).dense(), want)
    x = randn(2, 3, 2, 4, 5)
    assert torch.equal(layer.push(x), x * scale)


@pytest.mark.parametrize("stride,padding,kernel", [
    option for option in itertools.product([(1, 2), (2, 2), (3, 2)], [(0, 0), (1, 1), (2, 0)], [(1, 1), (3, 3), (2, 3), (5, 4)])
])
def test_pulls_by_phase_are_transposed_convolutions(stride, padding, kernel):
    for space in ((5, 6), (8, 9)):
        layer = conv(space, kernel, stride, padding, (1, 1), 1, (3, 5))
        rows = randn(2, 3, *layer.out_shape)
        more = layer.output_padding()
        expected = F.conv_transpose2d(rows.flatten(0, 1), layer.weight, None, stride, padding, more)
        assert torch.allclose(layer.pull(rows).flatten(0, 1), expected, atol=1e-12)
        whole = F.conv_transpose2d(rows.flatten(0, 1), layer.weight, None, stride)
        assert torch.allclose(layer.pull_images(rows.flatten(0, 1), (0, 0), (0, 0)), whole, atol=1e-12)
