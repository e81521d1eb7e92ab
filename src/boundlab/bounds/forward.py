"""Forward LiRPA: every node between two affine functions of the sources, pushed on from its arguments.

Xu et al. 2020 (auto_LiRPA), Sec. 3.1 and App. A.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from boundlab.affine import LinearBound
from boundlab.bounds.backward import Env, Pulled, Relaxer, Sets, concretize, plus
from boundlab.errors import BoundError
from boundlab.graph import Node
from boundlab.interval import Interval
from boundlab.maps import Dense, LinearMap, Rows, flat


@dataclass(frozen=True)
class Columns:
    """One side of a node's affine bound: coefficients (b, d, *shape) of the d source coordinates, and bias (b, *shape)."""

    coefficients: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Form:
    """A node between two affine functions of the sources; `lower is upper` while everything was affine."""

    lower: Columns
    upper: Columns


def layout(sets: Sets, env: Env) -> Mapping[int, slice]:
    """Which columns belong to which source."""
    places, start = {}, 0
    for index in sorted(sets):
        box = env[index]
        assert isinstance(box, Interval)
        size = math.prod(box.shape[1:])
        places[index] = slice(start, start + size)
        start += size
    return places


MOST_COLUMNS = 2**31
"""Numbers that the columns of one perturbed source may hold; more would not fit most memories."""


def source_form(index: int, box: Interval, places: Mapping[int, slice]) -> Form:
    """The coordinates themselves."""
    count = max(place.stop for place in places.values())
    shape = box.shape[1:]
    if count * math.prod(shape) > MOST_COLUMNS:
        raise BoundError(f"forward bounds keep a column for each of {count} perturbed coordinates, too many here; use "
                         "CROWN(intermediate=IBP()) or IBP().")
    eye = box.lower.new_zeros(1, count, math.prod(shape))
    eye[0, places[index]] = torch.eye(math.prod(shape), dtype=box.lower.dtype, device=box.lower.device)
    columns = Columns(eye.reshape(1, count, *shape), box.lower.new_zeros(1, *shape))
    return Form(columns, columns)


def source_forms(sets: Sets, env: Env, places: Mapping[int, slice]) -> dict[int, Form]:
    """The forms of all perturbed sources."""
    return {index: source_form(index, box, places) for index in sets if isinstance(box := env[index], Interval)}


def push_both(layer: LinearMap, form: Form) -> Form:
    """A map applied to both sides of a form: center minus and plus |map| times half the gap."""
    low, high = form.lower, form.upper
    if low is high:
        image = Columns(layer.push(low.coefficients), layer.apply(low.bias))
        return Form(image, image)
    size = layer.abs()
    center = layer.push((low.coefficients + high.coefficients) / 2)
    gap = size.push((high.coefficients - low.coefficients) / 2)
    middle, half = layer.apply((low.bias + high.bias) / 2), size.apply((high.bias - low.bias) / 2)
    return Form(Columns(center - gap, middle - half), Columns(center + gap, middle + half))


def added(columns: list[Columns], bias: Tensor | None) -> Columns:
    """The sum of several columns and an operator's bias (b, 1, *out)."""
    total = columns[0]
    for more in columns[1:]:
        total = Columns(total.coefficients + more.coefficients, total.bias + more.bias)
    return total if bias is None else Columns(total.coefficients, total.bias + bias.squeeze(1))


def push_form(bound: LinearBound, forms: list[Form]) -> Form:
    """A relaxation applied to its arguments' forms."""
    images = [push_both(layer, form) for layer, form in zip(bound.lower.maps, forms, strict=True)]
    lower = added([image.lower for image in images], bound.lower.bias)
    if bound.exact and all(image.lower is image.upper for image in images):
        return Form(lower, lower)
    if not bound.exact:
        images = [push_both(layer, form) for layer, form in zip(bound.upper.maps, forms, strict=True)]
    return Form(lower, added([image.upper for image in images], bound.upper.bias))


def concretize_form(form: Form, sets: Sets, env: Env, places: Mapping[int, slice]) -> Interval:
    """The interval that a form proves: its columns, read as rows, concretized on each set."""

    def side(columns: Columns, sign: float) -> Tensor:
        rows: dict[int, Rows] = {}
        for index, place in places.items():
            shape = tuple(env[index].shape[1:])
            part = sign * flat(columns.coefficients[:, place], 2).mT
            rows[index] = Dense(shape, None, part.reshape(*part.shape[:2], *shape))
        low = concretize(Pulled(rows, None), env, sets)
        return columns.bias + sign * low.reshape(-1, *columns.bias.shape[1:])

    return Interval(side(form.lower, 1.0), side(form.upper, -1.0))


def forward_step(node: Node, env: Env, relax: Relaxer, forms: Mapping[int, Form]) -> Form:
    """The form of `node` from the forms of its perturbed arguments."""
    perturbed = [forms[arg] for arg in node.args if isinstance(env[arg], Interval)]
    return push_form(relax(node), perturbed)


def rows_of_forms(pulled: Pulled, forms: Mapping[int, Form], sets: Sets, env: Env) -> Pulled:
    """Rows over inner nodes as rows over the sources: positive coefficients take the lower forms, negative the upper."""
    bias, total = pulled.bias, None
    for index, rows in pulled.coefficients.items():
        coefficients, form = flat(rows.dense(), 2), forms[index]
        for part, side in ((coefficients.clamp(min=0), form.lower), (coefficients.clamp(max=0), form.upper)):
            total = plus(total, part @ flat(side.coefficients, 2).mT)
            bias = plus(bias, torch.linalg.vecdot(part, flat(side.bias, 1)[:, None]))
    assert total is not None
    linear = {}
    for index, place in layout(sets, env).items():
        shape = tuple(env[index].shape[1:])
        linear[index] = Dense(shape, None, total[..., place].reshape(*total.shape[:2], *shape))
    return Pulled(linear, bias)
