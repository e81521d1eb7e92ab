"""Affine forms: a node's value between two affine functions of a few coordinates, kept as their middle and half the gap.

An affine layer takes the middle through its map and the gap through the map's absolute value, so the two sides cost two
pushes and not four. Columns are windows or dense, as `maps.push` has them; explicit ones are laid out as (b, d, *shape).
Xu et al. 2020 (auto_LiRPA), Sec. 3.1 and App. A, with center and radius in place of lower and upper.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from boundlab.affine import Affine, LinearBound
from boundlab.interval import Interval
from boundlab.maps import Conv, Dense, Diagonal, Identity, LinearMap, Matrix, Reshape, Windows, diagonal, flat
from boundlab.maps.push import Columns, Reshaped, Single, absolute_sum, add_columns, dense, owners, push, take

STRUCTURED = (Identity, Reshape, Diagonal, Conv, Matrix)
"""Maps that `push` takes single coordinates and windows through; others see explicit columns."""
CELLS = 2**18
"""Numbers of explicit columns that are summed at once: they stay in the cache between two operations."""


@dataclass(frozen=True)
class Side:
    """value + columns . moves: an affine function of how far each coordinate is from its center.

    `value` is (b, *shape); `columns` are by basis node, d of them for each problem: `Dense` (b or 1, d, *shape), or single
    coordinates or windows (b * d of them, problem by problem).
    """

    value: Tensor
    columns: Mapping[int, Columns]


@dataclass(frozen=True)
class Form:
    """A node between `middle` - `gap` and `middle` + `gap`; None while everything was affine."""

    middle: Side
    gap: Side | None = None


Factor = Tensor | float


def regular(columns: Columns, batch: int) -> Columns:
    """Explicit columns as (b, d, *shape); others as they are."""
    if not isinstance(columns, Dense) or columns.owner is None:
        return columns
    return Dense(columns.shape, None, columns.coefficients.squeeze(1).unflatten(0, (batch, -1)))


def explicit(columns: Columns, batch: int) -> Tensor:
    """All coefficients, (b or 1, d, *shape)."""
    return columns.coefficients if isinstance(columns, Dense) else dense(columns).squeeze(1).unflatten(0, (batch, -1))


def pushed(columns: Columns, layer: LinearMap, batch: int) -> Columns:
    """Columns through a map."""
    if isinstance(columns, Dense) or not isinstance(layer, STRUCTURED):
        return Dense(layer.out_shape, None, layer.push(explicit(columns, batch)))
    return regular(push(columns, layer), batch)


def image(layer: LinearMap, side: Side) -> Side:
    """A side through a map."""
    batch = len(side.value)
    return Side(layer.apply(side.value), {basis: pushed(columns, layer, batch) for basis, columns in side.columns.items()})


# -- sums ------------------------------------------------------------------------------------------------------------------

def accumulated(terms: Sequence[tuple[Tensor, Factor]]) -> Tensor:
    """Sum of tensors times factors that broadcast to them; in place on what was made here."""
    (total, factor), own = terms[0], True
    if not isinstance(factor, float):
        total = total * beside(factor, total)
    elif factor != 1:
        total = total * factor
    else:
        own = False
    for tensor, factor in terms[1:]:
        if isinstance(factor, float):
            inside = own and fits(tensor, total)
            total = total.add_(tensor, alpha=factor) if inside else torch.add(total, tensor, alpha=factor)
        else:
            scale = beside(factor, tensor)
            inside = own and fits(tensor, total) and fits(scale, total)
            total = total.addcmul_(tensor, scale) if inside else torch.addcmul(total, tensor, scale)
        own = True
    return total


def fits(tensor: Tensor, total: Tensor) -> bool:
    """Whether a tensor broadcasts to another's shape."""
    pairs = zip(reversed(tensor.shape), reversed(total.shape), strict=False)
    return tensor.dim() <= total.dim() and all(size in (1, whole) for size, whole in pairs)


def beside(factor: Tensor, columns: Tensor) -> Tensor:
    """A factor in the memory order of the images (b, d, channels, height, width) beside it."""
    if factor.dim() != 5 or columns.dim() != 5 or columns.stride(2) != 1:
        return factor
    return factor.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


def alike(first: Windows, second: Windows) -> bool:
    """Whether two sets of windows lie at the same places."""
    same = first.size == second.size
    return same and (first.origin is second.origin or torch.equal(first.origin.corner(), second.origin.corner()))


def scaled(columns: Columns, factor: Factor) -> Columns:
    """Columns that are not explicit times a number, or a tensor (b, 1, *shape)."""
    if not isinstance(factor, float):
        return push(columns, diagonal(factor, columns.shape))
    if factor == 1:
        return columns
    if isinstance(columns, Single):
        return replace(columns, size=columns.size * factor)
    windows = windows_of(columns)
    return like(columns, windows.with_coefficients(windows.coefficients * factor, windows.clean))


def windows_of(columns: Columns) -> Windows:
    """The windows that hold columns which are neither explicit nor single coordinates."""
    found = columns.windows if isinstance(columns, Reshaped) else columns
    assert isinstance(found, Windows)
    return found


def like(columns: Columns, windows: Windows) -> Columns:
    """Other windows under the shape of columns."""
    return Reshaped(columns.shape, windows) if isinstance(columns, Reshaped) else windows


def total_of(terms: Sequence[tuple[Columns, Factor]], batch: int) -> Columns:
    """Sum of columns over one basis times factors (b, 1, *shape): in their structure while all have it, else explicit."""
    if any(isinstance(columns, Dense) for columns, _ in terms):
        numbers = [(explicit(columns, batch), factor) for columns, factor in terms]
        return Dense(terms[0][0].shape, None, accumulated(numbers))
    total = scaled(*terms[0])
    for columns, factor in terms[1:]:
        total = added(total, scaled(columns, factor), batch)
    return total


def added(first: Columns, second: Columns, batch: int) -> Columns:
    """The sum of two sets of columns in their common structure, or explicit."""
    if isinstance(first, Dense) or isinstance(second, Dense):
        return Dense(first.shape, None, explicit(first, batch) + explicit(second, batch))
    if isinstance(first, Single) or isinstance(second, Single):
        return regular(add_columns(first, second), batch)
    one, other = windows_of(first), windows_of(second)
    if type(first) is type(second) and one.shape == other.shape and alike(one, other):
        return like(first, one.with_coefficients(one.coefficients + other.coefficients, one.clean and other.clean))
    return regular(add_columns(first, second), batch)


def mixed(terms: Sequence[tuple[Side, Factor]], bias: Tensor | None = None) -> Side:
    """Sum of sides times factors (b, 1, *shape), plus a bias of that shape."""
    batch = len(terms[0][0].value)
    value = accumulated([(side.value.unsqueeze(1), factor) for side, factor in terms])
    value = value if bias is None else value + bias
    bases = dict.fromkeys(basis for side, _ in terms for basis in side.columns)
    columns = {basis: total_of([(side.columns[basis], factor) for side, factor in terms if basis in side.columns], batch)
               for basis in bases}
    return Side(value.squeeze(1), columns)


# -- relaxations -----------------------------------------------------------------------------------------------------------

def through(bound: LinearBound, forms: Sequence[Form]) -> Form:
    """The form of an operator's result from those of its perturbed arguments."""
    if bound.exact:
        return through_affine(bound.lower, forms)
    return through_lines(bound, forms) if bound.elementwise else through_bound(bound, forms)


def through_affine(affine: Affine, forms: Sequence[Form]) -> Form:
    """Middles through the maps, gaps through their absolute values."""
    pairs = list(zip(affine.maps, forms, strict=True))
    gaps = [(image(layer.abs(), form.gap), 1.0) for layer, form in pairs if form.gap is not None]
    middle = mixed([(image(layer, form.middle), 1.0) for layer, form in pairs], affine.bias)
    return Form(middle, mixed(gaps) if gaps else None)


def halves(lower: Tensor | None, upper: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Middle and half the difference of two intercepts; None counts as zero."""
    if lower is None or upper is None:
        half = lower if upper is None else upper
        return (None, None) if half is None else (half / 2, half / 2 if lower is None else -half / 2)
    return (lower + upper) / 2, (upper - lower) / 2


def through_lines(bound: LinearBound, forms: Sequence[Form]) -> Form:
    """Lines of slope s below and t above.

    Middle m and gap g become (s + t) / 2 m + (|t| - |s|) / 2 g and (t - s) / 2 m + (|s| + |t|) / 2 g.
    """
    middle: list[tuple[Side, Factor]] = []
    gap: list[tuple[Side, Factor]] = []
    for low, high, form in zip(bound.lower.maps, bound.upper.maps, forms, strict=True):
        assert isinstance(low, Diagonal) and isinstance(high, Diagonal)
        below, above = low.scale / 2, high.scale / 2
        middle.append((form.middle, above + below))
        gap.append((form.middle, above - below))
        if form.gap is not None:
            middle.append((form.gap, above.abs() - below.abs()))
            gap.append((form.gap, above.abs() + below.abs()))
    shift, half = halves(bound.lower.bias, bound.upper.bias)
    return Form(mixed(middle, shift), mixed(gap, half))


def through_bound(bound: LinearBound, forms: Sequence[Form]) -> Form:
    """Any maps below and above: both sides are pushed, then their middle and half their difference taken."""
    middle: list[tuple[Side, Factor]] = []
    gap: list[tuple[Side, Factor]] = []
    for low, high, form in zip(bound.lower.maps, bound.upper.maps, forms, strict=True):
        if low is high:
            middle.append((image(low, form.middle), 1.0))
            gap += [] if form.gap is None else [(image(low.abs(), form.gap), 1.0)]
            continue
        for layer, sign in ((low, -1), (high, 1)):
            along = image(layer, form.middle)
            middle.append((along, 0.5))
            gap.append((along, sign * 0.5))
            if form.gap is not None:
                across = image(layer.abs(), form.gap)
                middle.append((across, sign * 0.5))
                gap.append((across, 0.5))
    shift, half = halves(bound.lower.bias, bound.upper.bias)
    center = mixed(middle, shift)
    if gap:
        return Form(center, mixed(gap, half))
    return Form(center, None if half is None else Side(half.squeeze(1).expand(center.value.shape), {}))


# -- readings --------------------------------------------------------------------------------------------------------------

def reach(form: Form, radius: Mapping[int, Tensor]) -> Interval:
    """The interval of a form when each coordinate moves by at most `radius` (b, d), by basis, on its own."""
    middle, gap = form.middle, form.gap
    below, above = (middle.value, middle.value) if gap is None else (middle.value - gap.value, middle.value + gap.value)
    for basis, columns in middle.columns.items():
        slack = gap.columns.get(basis) if gap is not None else None
        down, up = spans(columns, slack, radius[basis], len(middle.value))
        below, above = below - down, above + up
    return Interval(below, above)


def spans(middle: Columns, gap: Columns | None, radius: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Sums of the absolute columns of middle - gap and middle + gap, times `radius` (b, d), (b, *shape) each."""
    if gap is None:
        down = span(middle, radius, batch)
        return down, down
    if not (isinstance(middle, Dense) and isinstance(gap, Dense)):
        return (span(total_of([(middle, 1.0), (gap, -1.0)], batch), radius, batch),
                span(total_of([(middle, 1.0), (gap, 1.0)], batch), radius, batch))
    down, up = radius.new_zeros(()), radius.new_zeros(())
    for place in pieces(middle):
        one, other, part = middle.coefficients[:, place], gap.coefficients[:, place], radius[:, place]
        down, up = down + weighed(one - other, part), up + weighed(one + other, part)
    return down, up


def span(columns: Columns, radius: Tensor, batch: int) -> Tensor:
    """Sum of absolute columns times `radius` (b, d), (b, *shape)."""
    if isinstance(columns, Dense):
        total = radius.new_zeros(())
        for place in pieces(columns):
            total = total + weighed(columns.coefficients[:, place], radius[:, place])
        return total
    moves = radius.flatten()
    if isinstance(columns, Single):
        return absolute_sum(replace(columns, size=columns.size * moves), batch)
    windows = windows_of(columns)
    size = windows.coefficients * moves.reshape(-1, 1, 1, 1, 1)
    return absolute_sum(like(columns, windows.with_coefficients(size)), batch)


def weighed(coefficients: Tensor, radius: Tensor) -> Tensor:
    """Sum over d of radius (b, d) times absolute coefficients (b or 1, d, *shape), (b, *shape)."""
    shape = coefficients.shape[2:]
    if len(shape) == 3:  # the order in which images lie in memory
        height, width = shape[1:]
        return weighed(coefficients.permute(0, 1, 3, 4, 2).flatten(2), radius).unflatten(1, (height, width, -1)).movedim(3, 1)
    size = flat(coefficients.abs(), 2)
    total = radius @ size[0] if len(size) == 1 else (radius.unsqueeze(1) @ size).squeeze(1)
    return total.reshape(len(radius), *shape)


def pieces(columns: Dense) -> Iterator[slice]:
    """Columns a few at a time."""
    batch, count = columns.coefficients.shape[:2]
    step = max(1, CELLS // max(1, batch * math.prod(columns.shape)))
    return (slice(start, start + step) for start in range(0, count, step))


def entries(columns: Columns, batch: int, owner: Tensor, index: Tensor) -> Tensor:
    """What the columns hold at the flat coordinates `index` (n,) of the problems `owner` (n,), (n, d)."""
    if isinstance(columns, Dense):
        return dense_entries(columns, batch, owner, index)
    if isinstance(columns, Single):
        place, size = (part.reshape(batch, -1)[owner] for part in (columns.index, columns.size))
        return size * (place == index[:, None])
    windows = windows_of(columns)
    channels, (rows, wide) = windows.shape[0], windows.size
    channel, *cell = torch.unravel_index(index, windows.shape)
    corner = windows.origin.corner().unflatten(0, (batch, -1))[owner]
    y, x = cell[0][:, None] - corner[..., 0], cell[1][:, None] - corner[..., 1]
    inside = (y >= 0) & (y < rows) & (x >= 0) & (x < wide)
    place = (y.clamp(0, rows - 1) * wide + x.clamp(0, wide - 1)) * channels + channel[:, None]
    numbers = flat(windows.coefficients, 1).unflatten(0, (batch, -1))
    return numbers[owner[:, None], torch.arange(numbers.shape[1], device=owner.device), place] * inside


def dense_entries(columns: Dense, batch: int, owner: Tensor, index: Tensor) -> Tensor:
    """`entries` of explicit columns, a problem at a time, in the order in which they lie in memory; `owner` is sorted."""
    numbers = columns.coefficients
    if len(columns.shape) == 3:
        channel, y, x = torch.unravel_index(index, columns.shape)
        numbers, index = numbers.permute(0, 1, 3, 4, 2), (y * columns.shape[2] + x) * columns.shape[0] + channel
    lists = flat(numbers, 2).expand(batch, -1, -1).unbind(0)
    parts = index.split(owner.bincount(minlength=batch).tolist())
    return torch.cat([whole.index_select(1, part).mT for whole, part in zip(lists, parts, strict=True)])


def applied(rows: Tensor, columns: Columns, batch: int) -> Tensor:
    """Rows (b or 1, s, *shape) applied to columns, (b, s, d); windows are made explicit a few at a time."""
    if isinstance(columns, Dense):
        return flat(rows, 2) @ flat(columns.coefficients, 2).mT
    places = torch.arange(len(owners(columns)), device=rows.device).reshape(batch, -1)
    step = max(1, 16 * CELLS // max(1, batch * math.prod(columns.shape)))
    return torch.cat([flat(rows, 2) @ flat(explicit(take(columns, part.flatten()), batch), 2).mT
                      for part in places.split(step, 1)], 2)
