"""check_map and check_rows: the laws of linear maps, and of rows that are pulled through them, against plain matrices.

Two computations of one number may differ by rounding only: n roundings of terms whose sizes sum to S differ by at most
n eps S (Higham 2002, Sec. 3.1), with n the number of terms of the longest sum on the way.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from boundlab.errors import ConformanceError
from boundlab.maps import (
    Common,
    Dense,
    EndToEnd,
    LinearMap,
    Local,
    Origin,
    Partial,
    Pieces,
    RankOne,
    Rows,
    Select,
    Shape,
    Sum,
    Windows,
    add,
    at_owner,
    compose,
    flat,
)


def check_map(layer: LinearMap, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
    """Raise ConformanceError unless `layer` is a linear map whose push, pull, abs, at and apply agree, for all kinds of rows.

    The map may hold tensors of its own for each problem (b > 1), but not for each row.
    """
    generator = torch.Generator().manual_seed(seed)
    title = f"{type(layer).__name__} {list(layer.in_shape)} -> {list(layer.out_shape)}"
    matrix = matrix_of(layer, dtype)
    size = matrix_of(layer.abs(), dtype)
    terms = 8 + matrix.shape[1] + matrix.shape[2]
    low = matrix.abs() if isinstance(layer, Sum) else size
    unequal(f"{title}: abs() is not the map of absolute values", low, matrix.abs(), terms, size)
    if bool((size + terms * torch.finfo(dtype).eps * size < matrix.abs()).any()):
        raise ConformanceError(f"{title}: abs() is smaller than |map| at some entry.")

    x = random_like((max(2, len(matrix)), 3, *layer.in_shape), dtype, generator)
    expected, scale = x.flatten(2) @ matrix, x.flatten(2).abs() @ size
    unequal(f"{title}: push is not linear", layer.push(x).flatten(2), expected, terms, scale)
    unequal(f"{title}: apply disagrees with push", layer.apply(x[:, 0]).flatten(1), expected[:, 0], terms, scale[:, 0])
    r = random_like((max(2, len(matrix)), 3, *layer.out_shape), dtype, generator)
    unequal(f"{title}: pull is not the adjoint of push, <push(x), r> = <x, pull(r)>",
            layer.pull(r).flatten(2), r.flatten(2) @ matrix.mT, terms, r.flatten(2).abs() @ size.mT)
    for rows in sample_rows(layer.out_shape, len(matrix), dtype, generator):
        check_compose(f"{title}: compose({type(rows).__name__} {'with' if rows.owner is not None else 'without'} owner, map)",
                      rows, layer, matrix)


def check_compose(title: str, rows: Rows, layer: LinearMap, matrix: Tensor) -> None:
    """Rows through a map are the product of their matrices."""
    pulled, own = compose(rows, layer), at_owner(matrix, rows.owner)
    if tuple(pulled.shape) != tuple(layer.in_shape):
        raise ConformanceError(f"{title} gives rows over {list(pulled.shape)}, not {list(layer.in_shape)}.")
    before = rows.dense().flatten(2)
    unequal(title, pulled.dense().flatten(2), before @ own.mT, 8 + sum(own.shape[1:]), before.abs() @ own.abs().mT)


def check_rows(rows: Rows, problems: int = 1, *, seed: int = 0) -> None:
    """Raise ConformanceError unless `spread`, `dense`, `dot`, `absolute` and `norm` of rows tell the same numbers.

    `problems` is how many examples the rows' owners count (or how many rows there are, without owner).
    """
    dense = rows.dense()
    generator, title = torch.Generator().manual_seed(seed), f"{type(rows).__name__} over {list(rows.shape)}"
    unequal(f"{title}: spread() changes the rows", rows.spread().dense(), dense, 1, dense.abs())
    unequal(f"{title}: absolute() is not the rows of absolute values", rows.absolute().dense(), dense.abs(), 1, dense.abs())
    parts = [part.spread() for part in rows.split()]
    unequal(f"{title}: the positive part of split()", parts[0].dense(), dense.clamp(min=0), 1, dense.abs())
    unequal(f"{title}: the negative part of split()", parts[1].dense(), dense.clamp(max=0), 1, dense.abs())
    for order in (1.0, 2.0, 3.5, math.inf):
        size = torch.linalg.vector_norm(flat(dense, 2), order, dim=-1)
        unequal(f"{title}: the norm of order {order}", rows.norm(order), size, 16 + math.prod(rows.shape), size)
    shapes: set[Shape] = {tuple(rows.shape)}
    if len(rows.shape) == 3:
        shapes |= {(rows.shape[0], 1, 1), (1, *rows.shape[1:]), (1, 1, 1)}
    for batch, shape in itertools.product({1, problems}, shapes):
        value = random_like((batch, 1, *shape), dense.dtype, generator)
        kinds = (("", rows, dense), ("spread rows, ", rows.spread(), dense), ("absolute rows, ", rows.absolute(), dense.abs()),
                 ("positive part, ", parts[0], dense.clamp(min=0)))
        for kind, alike, numbers in kinds:
            terms = at_owner(value, rows.owner) * numbers
            unequal(f"{title}: {kind}dot with values of shape {[batch, 1, *shape]}", alike.dot(value), terms.flatten(2).sum(2),
                    8 + math.prod(rows.shape), terms.abs().flatten(2).sum(2))


def check_add(first: Rows, second: Rows) -> None:
    """Raise ConformanceError unless the sum of two sets of rows is the sum of their matrices."""
    one, other = first.dense(), second.dense()
    unequal(f"add({type(first).__name__}, {type(second).__name__}) over {list(first.shape)}",
            add(first, second).dense(), one + other, 2, one.abs() + other.abs())


def matrix_of(layer: LinearMap, dtype: torch.dtype) -> Tensor:
    """The map as matrices (b, numel of in, numel of out), by pushing the unit vectors."""
    count = math.prod(layer.in_shape)
    units = torch.eye(count, dtype=dtype).reshape(1, count, *layer.in_shape)
    return layer.push(units).flatten(2)


def sample_rows(shape: Shape, problems: int, dtype: torch.dtype, generator: torch.Generator) -> list[Rows]:
    """Rows of every kind over a node of `shape`: two a problem, with owners (ragged) and without."""
    count = math.prod(shape)
    ragged = torch.randint(problems, (2 * problems + 3,), generator=generator)
    signs = torch.tensor([[1.0, -1.0]], dtype=dtype)
    found: list[Rows] = [Dense(shape, None, random_like((1, 2, *shape), dtype, generator))]
    if len(shape) == 1:
        found.append(Common(shape, None, torch.randint(count, (1,), generator=generator), signs[0]))
    for owner in (None, ragged):
        rows = problems if owner is None else len(ragged)
        index = torch.randint(count, (rows,), generator=generator)
        select = Select(shape, owner, index, signs)
        found += [Dense(shape, owner, random_like((rows, 2, *shape), dtype, generator)), select]
        if shape and shape[-1] > 1:
            found.append(sample_pieces(shape, owner, rows, dtype, generator))
        if len(shape) == 1:
            some = torch.randperm(count, generator=generator)[:count // 2 + 1]
            found.append(Partial(shape, owner, random_like((rows, 2, len(some)), dtype, generator), some))
        found += [select.with_values(random_like((rows, 2), dtype, generator)), *sample_local(select, dtype, generator)]
        if len(shape) == 3:
            found += sample_windows(shape, owner, index, dtype, generator)
        found.append(sample_product(shape, owner, rows, dtype, generator))
        if len(shape) == 1 and count > 1:
            first = Dense((count // 2,), owner, random_like((rows, 2, count // 2), dtype, generator))
            parts = ((0, first), (count // 2, sample_product((count - count // 2,), owner, rows, dtype, generator)))
            found += [EndToEnd(shape, owner, parts), EndToEnd(shape, owner, parts[1:])]
    return found


def sample_pieces(shape: Shape, owner: Tensor | None, rows: int, dtype: torch.dtype, generator: torch.Generator) -> Rows:
    """Rows on two stretches of the last axis, one at its end."""
    axis, half = len(shape) - 1, shape[-1] // 2
    parts = ((half - 1, 1), (shape[-1] - 1, 1)) if half else ((0, 1),)
    held = tuple((start, random_like((rows, 2, *shape[:-1], length), dtype, generator)) for start, length in parts)
    return Pieces(shape, owner, axis, held)


def sample_local(select: Select, dtype: torch.dtype, generator: torch.Generator) -> list[Rows]:
    """Rows that are fixed along some of the axes, each choice of axes once."""
    found: list[Rows] = []
    whole = select.local()
    for count in range(1, len(select.shape) + 1):
        for axes in itertools.combinations(range(len(select.shape)), count):
            sizes = [1 if axis in axes else size for axis, size in enumerate(select.shape)]
            fixed = {axis: whole.fixed[axis] for axis in axes}
            coefficients = random_like((len(select.index), 2, *sizes), dtype, generator)
            found.append(Local(select.shape, select.owner, coefficients, fixed))
    return found


def sample_product(shape: Shape, owner: Tensor | None, rows: int, dtype: torch.dtype, generator: torch.Generator) -> RankOne:
    """Two rows a problem that are products of two vectors."""
    first = shape[0] if len(shape) > 1 else 1
    left, right = ((rows, 2, first), (rows, 1, math.prod(shape) // first))
    return RankOne(shape, owner, random_like(left, dtype, generator), random_like(right, dtype, generator))


def sample_windows(shape: Shape, owner: Tensor | None, index: Tensor, dtype: torch.dtype,
                   generator: torch.Generator) -> list[Rows]:
    """Windows of several sizes and steps, some over the border, some off the map: what lies outside counts as zero."""
    found: list[Rows] = []
    for (height, width), scale, offset in (((1, 1), (1, 1), (0, 0)), ((3, 2), (1, 1), (-1, -1)), ((2, 3), (1, 1), (0, 1)),
                                           ((3, 3), (2, 2), (-2, -1)), ((4, 5), (2, 1), (-5, 2))):
        coefficients = random_like((len(index), 2, height, width, shape[0]), dtype, generator)
        found.append(Windows(shape, owner, coefficients, Origin(index, shape[1:], scale, offset), clean=False))  # type: ignore[arg-type]
    return found


def random_like(shape: Shape, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Normal numbers."""
    return torch.randn(shape, dtype=dtype, generator=generator)


def unequal(title: str, found: Tensor, expected: Tensor, terms: int, scale: Tensor) -> None:
    """ConformanceError where two tensors differ by more than `terms` roundings of numbers of size `scale`."""
    if found.shape != expected.shape:
        found, expected = torch.broadcast_tensors(found, expected)
    excess = (found - expected).abs() - terms * torch.finfo(expected.dtype).eps * scale
    if not bool((excess <= 0).all()):
        place = torch.unravel_index(excess.nan_to_num(nan=torch.inf).argmax(), excess.shape)
        near = terms * torch.finfo(expected.dtype).eps * float(scale.broadcast_to(excess.shape)[place])
        raise ConformanceError(f"{title}: at {[int(i) for i in place]} found {float(found[place]):.9g}, expected "
                               f"{float(expected[place]):.9g}; rounding explains {near:.2g}.")
