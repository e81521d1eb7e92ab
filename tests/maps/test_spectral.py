"""Spectral norms: from above whatever the map, exact where maps are small, and an estimate from below."""

import math

import pytest
import torch

from boundlab.maps import (
    Chain,
    Conv,
    Diagonal,
    Gather,
    Identity,
    MatmulLeft,
    MatmulRight,
    Matrix,
    Outer,
    Permute,
    Reduce,
    Reshape,
    Slice,
    Sum,
    disjoint,
    flat,
    lengths,
    power_estimate,
    row_norms,
    spectral_bound,
    trainable_bound,
    transposed,
)
from boundlab.maps.conv import conv_out_space
from boundlab.maps.spectral import by_sums, on_torus

CONVOLUTIONS = [(2, 3, 3, 1, 1, 1, 1, 6), (2, 4, 4, 2, 1, 1, 1, 7), (4, 4, 3, 2, 0, 1, 2, 8), (3, 2, 3, 1, 2, 2, 1, 7),
                (2, 3, 5, 3, 2, 1, 1, 8), (1, 3, 2, 3, 0, 1, 1, 8)]
"""Channels in and out, kernel, stride, padding, dilation, groups, size."""


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def convolution(channels, out, kernel, stride, padding, dilation, groups, size):
    weight = numbers(out, channels // groups, kernel, kernel)
    how = ((stride,) * 2, (padding,) * 2, (dilation,) * 2)
    space = conv_out_space((size, size), (kernel, kernel), *how)
    return Conv((channels, size, size), (out, *space), weight, *how, groups)


def along_one_axis():
    return Conv((2, 9), (3, *conv_out_space((9,), (3,), (2,), (1,), (1,))), numbers(3, 2, 3), (2,), (1,), (1,), 1)


SMALL = Matrix((4,), (3,), numbers(3, 4))
MAPS = [
    *(convolution(*how) for how in CONVOLUTIONS), along_one_axis(), SMALL, Matrix((2, 4), (2, 3), numbers(3, 4)),
    Matrix((5,), (3,), numbers(3, 2), torch.tensor([1, 4])), Identity((3,), (3,)), Diagonal((3,), (3,), numbers(1, 1, 3)),
    Reshape((2, 3), (6,)), Permute((2, 3), (3, 2), (1, 0)), Slice((4,), (2,), (slice(0, 4, 2),)),
    Gather((3,), (4,), torch.tensor([0, 2, 2, 2])), Reduce((2, 3), (2,), numbers(1, 1, 2, 3), (1,)),
    transposed(Slice((5,), (3,), (slice(1, 4, 1),))), transposed(convolution(*CONVOLUTIONS[1])),
    MatmulRight((2, 3), (2, 4), numbers(1, 1, 3, 4)), MatmulLeft((3, 2), (4, 2), numbers(1, 1, 4, 3)),
    Outer((3,), (3,), numbers(1, 1, 3), numbers(1, 1, 3, seed=1), 0),
    Sum((3,), (3,), (Identity((3,), (3,)), Diagonal((3,), (3,), numbers(1, 1, 3)))),
    Chain((2, 2), (3,), (Reshape((2, 2), (4,)), SMALL)), Chain((4,), (4,), (SMALL, transposed(SMALL))),
]
LIKE = torch.zeros(1, dtype=torch.float64)


def matrix(layer):
    """Columns of the map as rows, (in, out)."""
    count = math.prod(layer.in_shape)
    return flat(layer.push(torch.eye(count, dtype=torch.float64).reshape(1, count, *layer.in_shape)), 2)[0]


@pytest.mark.parametrize("layer", MAPS, ids=lambda layer: type(layer).__name__)
def test_bounds_are_above_and_estimates_below(layer):
    exact = torch.linalg.matrix_norm(matrix(layer), 2)
    assert exact <= spectral_bound(layer, LIKE) and exact <= by_sums(layer, LIKE) * (1 + 1e-12)
    assert power_estimate(layer, LIKE, 50) <= exact * (1 + 1e-12)
    assert power_estimate(layer, LIKE, 300) == pytest.approx(float(exact), rel=1e-3)
    rows = matrix(layer).norm(dim=0)
    assert (row_norms(layer, LIKE).flatten() >= rows * (1 - 1e-12)).all()
    if not isinstance(layer, Sum | Chain):
        assert spectral_bound(layer, LIKE) == pytest.approx(float(exact), rel=1e-5)
        assert torch.allclose(row_norms(layer, LIKE).flatten(), rows)


@pytest.mark.parametrize("how", CONVOLUTIONS)
@pytest.mark.parametrize("size", [12, 15])
def test_a_torus_that_holds_the_map_is_above_and_near(how, size):
    layer = convolution(*how[:-1], size)
    exact = torch.linalg.matrix_norm(matrix(layer), 2)
    assert exact * (1 - 1e-12) <= on_torus(layer) <= 1.25 * exact


def test_a_layer_is_the_layer_on_the_torus_where_nothing_is_padded_and_the_kernel_is_one_cell():
    layer = convolution(3, 4, 1, 1, 0, 1, 1, 5)
    assert on_torus(layer) == pytest.approx(float(torch.linalg.matrix_norm(layer.weight[:, :, 0, 0], 2)))


def test_single_precision_is_rounded_outward():
    layer = Matrix((60,), (50,), numbers(50, 60).float())
    exact = torch.linalg.matrix_norm(layer.weight.double(), 2)
    found = spectral_bound(layer, LIKE.float())
    assert found.dtype is torch.float32 and exact <= found.double() <= exact * (1 + 1e-5)


def test_what_is_no_number_has_an_infinite_norm():
    weight = numbers(3, 4)
    weight[1, 2] = math.nan
    assert spectral_bound(Matrix((4,), (3,), weight), LIKE).isinf().all()
    broken = convolution(*CONVOLUTIONS[0])
    broken.weight[0, 0, 0, 0] = math.inf
    assert spectral_bound(broken, LIKE).isinf().all()


@pytest.mark.parametrize("make", [
    lambda weight: Matrix((4,), (3,), weight.reshape(3, 4)),
    lambda weight: Conv((1, 5, 5), (3, 2, 2), weight.reshape(3, 1, 2, 2), (2, 2), (0, 0), (1, 1), 1)])
def test_the_gradient_of_the_bound_that_is_trained_with_is_that_of_the_norm(make):
    weight = numbers(12).requires_grad_()
    trainable_bound(make(weight), LIKE, 200).sum().backward()

    def norm(value):
        return torch.linalg.matrix_norm(matrix(make(value)), 2)

    direction = numbers(12, seed=3)
    change = (norm(weight.detach() + 1e-6 * direction) - norm(weight.detach() - 1e-6 * direction)) / 2e-6
    assert float(weight.grad @ direction) == pytest.approx(float(change), rel=1e-4)


def test_parts_of_a_concatenation_have_no_coordinate_in_common():
    first, second = (transposed(Slice((5,), (size,), (slice(start, start + size, 1),))) for start, size in ((0, 2), (2, 3)))
    assert disjoint([first, second], LIKE) and not disjoint([first, first], LIKE)


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170])
def test_norms_of_numbers_whose_squares_are_none(scale):
    layer, like = Matrix((4,), (3,), numbers(3, 4) * scale), numbers(1)
    wide = Conv((2, 5), (3, 2), numbers(3, 2, 3) * scale, (2,), (0,), (1,), 1)
    for one in (layer, wide, transposed(wide)):
        exact = scale * torch.linalg.matrix_norm(matrix(one) / scale, 2)
        assert exact * (1 - 1e-12) <= spectral_bound(one, like) <= 1.3 * exact
        assert trainable_bound(one, like) == spectral_bound(one, like)
    assert on_torus(wide) >= spectral_bound(wide, like) * (1 - 1e-5) > 0


def test_what_is_trained_is_the_bound_where_the_estimate_vanishes():
    layer = Matrix((4,), (3,), numbers(3, 4) * 1e-310)
    assert trainable_bound(layer, LIKE) == spectral_bound(layer, LIKE) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lengths_of_numbers_whose_squares_are_none(dtype):
    for size in (0.0, float(torch.finfo(dtype).tiny), 1.0, float(torch.finfo(dtype).max) / 8):
        steps = torch.tensor([[3.0, -4.0]], dtype=dtype, requires_grad=True)
        found = lengths(steps * size, 1)
        assert torch.allclose(found / (size or 1.0), torch.tensor([5.0 if size else 0.0], dtype=dtype))
        found.sum().backward()
        assert torch.isfinite(steps.grad).all()
