"""Columns pushed forward in their structure equal the map applied to explicit columns."""

from __future__ import annotations

import itertools

import pytest
import torch

from boundlab.maps import Conv, Dense, LinearMap, Matrix, Reshape, Select, channels_last, conv_out_space, diagonal
from boundlab.maps.push import CACHED, Columns, Single, absolute_sum, add_columns, dense, owners, push, take, without_zeros

SHAPE = (3, 7, 6)
BATCH = 2


def unit_columns(shape: tuple[int, ...] = SHAPE) -> Columns:
    """One column for every third coordinate of each problem, with its own size."""
    places = torch.arange(0, BATCH * torch.Size(shape).numel(), 3)
    size = torch.Size(shape).numel()
    columns = Select(shape, places // size, places % size, torch.ones(1, 1, dtype=torch.float64)).spread()
    scale = torch.rand(len(places), *[1] * (columns.coefficients.dim() - 1), dtype=torch.float64) - 0.5
    return columns.with_coefficients(columns.coefficients * scale)


def convolution(stride: int, padding: int, dilation: int, kernel: int, shape: tuple[int, ...] = SHAPE) -> Conv:
    weight = torch.randn(4, shape[0], kernel, kernel, dtype=torch.float64)
    pairs = [(value, value) for value in (stride, padding, dilation)]
    out = (4, *conv_out_space(shape[1:], (kernel, kernel), *pairs))
    return Conv(shape, out, weight, *pairs, 1)


def image(columns: Columns, layer: LinearMap) -> torch.Tensor:
    """What the map makes of explicit columns."""
    return layer.at(owners(columns)).push(dense(columns))


def agree(found: Columns, want: torch.Tensor) -> None:
    assert torch.allclose(dense(found), want, rtol=0, atol=1e-12)
    batch = absolute_sum(found, BATCH)
    total = torch.zeros(BATCH, *want.shape[2:], dtype=want.dtype).index_add(0, owners(found), want[:, 0].abs())
    assert torch.allclose(batch, total, rtol=0, atol=1e-12)


OPTIONS = [option for option in itertools.product((1, 2, 3), (0, 1, 2), (1, 2), (1, 2, 3)) if option[2] * (option[3] - 1) < 5]


@pytest.mark.parametrize("stride,padding,dilation,kernel", OPTIONS)
def test_convolutions_of_windows(stride: int, padding: int, dilation: int, kernel: int) -> None:
    torch.manual_seed(0)
    layer = convolution(stride, padding, dilation, kernel)
    columns = unit_columns()
    once = push(columns, layer)
    agree(once, image(columns, layer))
    second = convolution(2, 1, 1, 3, layer.out_shape)
    agree(push(once, second), image(once, second))


@pytest.mark.parametrize("shape", [SHAPE, (18,)])
def test_no_columns(shape: tuple[int, ...]) -> None:
    """A node that varies for no problem has none."""
    nothing = torch.zeros(0, dtype=torch.long)
    columns = Single(shape, nothing, nothing, torch.zeros(0, dtype=torch.float64))
    layer = convolution(1, 1, 1, 3) if len(shape) == 3 else Matrix(shape, (5,), torch.rand(5, 18, dtype=torch.float64))
    pushed = push(columns, layer)
    assert tuple(dense(pushed).shape) == (0, 1, *layer.out_shape)
    assert not absolute_sum(pushed, BATCH).any()


def test_diagonals_and_flattening() -> None:
    torch.manual_seed(1)
    columns = unit_columns()
    scale = torch.randn(BATCH, 1, *SHAPE, dtype=torch.float64)
    agree(push(columns, diagonal(scale, SHAPE)), image(columns, diagonal(scale, SHAPE)))
    flat = Reshape(SHAPE, (126,))
    reshaped = push(columns, flat)
    agree(reshaped, image(columns, flat))
    factors = diagonal(scale.reshape(BATCH, 1, 126), (126,))
    agree(push(reshaped, factors), image(reshaped, factors))
    matrix = Matrix((126,), (5,), torch.randn(5, 126, dtype=torch.float64))
    agree(push(reshaped, matrix), image(reshaped, matrix))
    agree(push(reshaped, Reshape((126,), SHAPE)), dense(columns))


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_flattened_windows_through_a_matrix(padding: int) -> None:
    torch.manual_seed(4)
    columns = push(unit_columns(), convolution(1, padding, 1, 3))
    size = torch.Size(columns.shape).numel()
    flattened = push(columns, Reshape(columns.shape, (size,)))
    matrix = Matrix((size,), (5,), torch.randn(5, size, dtype=torch.float64))
    agree(push(flattened, matrix), image(flattened, matrix))
    agree(push(take(flattened, torch.tensor([], dtype=torch.long)), matrix), torch.zeros(0, 1, 5, dtype=torch.float64))


@pytest.mark.parametrize("stride", [1, 2])
def test_columns_that_meet(stride: int) -> None:
    torch.manual_seed(2)
    wide, narrow = convolution(stride, 1, 1, 3), convolution(stride, 0, 1, 1)
    columns = unit_columns()
    first, second = push(columns, wide), push(columns, narrow)
    agree(add_columns(first, second), dense(first) + dense(second))
    explicit = Dense(first.shape, owners(first), dense(first))
    agree(add_columns(explicit, second), dense(first) + dense(second))


def test_choosing_columns() -> None:
    torch.manual_seed(3)
    columns = push(unit_columns(), convolution(2, 1, 1, 3))
    index = torch.tensor([0, 5, 2])
    agree(take(columns, index), dense(columns)[index])
    still = take(columns, torch.tensor([], dtype=torch.long))
    assert dense(still).shape[0] == 0 and not absolute_sum(still, BATCH).any()
    half = columns.with_coefficients(columns.coefficients * (torch.arange(len(owners(columns))) % 2)[:, None, None, None, None])
    agree(without_zeros(half), dense(half)[dense(half).flatten(1).any(1)])


@pytest.mark.parametrize("shape", [(40, 6, 5), (1200,)])
@pytest.mark.parametrize("order", ["together", "mixed"])
def test_many_explicit_columns_go_problem_by_problem(shape: tuple[int, ...], order: str) -> None:
    """More numbers than are summed at once, of three problems, the second of which has none."""
    torch.manual_seed(0)
    owner = 2 * torch.randint(2, (700,))
    owner = owner.sort().values if order == "together" else owner
    held = channels_last(torch.randn(700, 1, *shape)) if len(shape) == 3 else torch.randn(700, 1, *shape)
    total = absolute_sum(Dense(shape, owner, held), 3)
    want = torch.zeros(3, *shape, dtype=torch.float64).index_add(0, owner, held[:, 0].double().abs())
    assert held.numel() > 3 * CACHED and torch.allclose(total.double(), want, rtol=1e-5, atol=0)
    scale = torch.randn(3, 1, *shape)
    assert torch.equal(dense(push(Dense(shape, owner, held), diagonal(scale, shape))), held * scale[owner])
    scale.requires_grad_()
    pushed = dense(push(Dense(shape, owner, held), diagonal(scale, shape)))
    assert torch.autograd.grad(pushed.sum(), scale)[0][1].eq(0).all() and torch.equal(pushed, held * scale[owner])
