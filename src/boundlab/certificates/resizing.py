"""Resize and Upsample by whole factors: nearest neighbours are a choice of entries, interpolation a matrix for each axis."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from scipy.sparse import csr_array

from boundlab.certificates.builder import Builder, Operator, Value, Varying, entries
from boundlab.certificates.linear import Rule
from boundlab.certificates.network import matrix_of

LEGACY = 11
"""The operator set from which on Resize has coordinates to choose from."""
ROUNDINGS = {
    "floor": math.floor, "ceil": math.ceil, "round_prefer_floor": lambda place: math.ceil(place - Fraction(1, 2)),
    "round_prefer_ceil": lambda place: math.floor(place + Fraction(1, 2)),
}


def factors(operator: Operator, new: bool) -> list[int]:
    """By what each axis grows; refused unless all are whole, since others depend on how a runtime rounds coordinates."""
    value, take = operator.varying(0), operator.attributes
    given = take.get("scales") or operator.constant(2 if new else 1)
    sizes = operator.constant(3) if new else None
    if sizes is not None and sizes.size:
        wanted = [Fraction(int(size), old) for size, old in zip(sizes, value.shape, strict=True)]
    elif given is not None and len(given) == len(value.shape):
        wanted = [Fraction(float(scale)) for scale in given]
    else:
        operator.refuse("without a scale for each axis")
    if any(scale.denominator != 1 or scale < 1 for scale in wanted):
        operator.refuse("by other than whole factors")
    return [int(scale) for scale in wanted]


def coordinate(operator: Operator, where: str, size: int, factor: int, place: int) -> Fraction:
    """Where an entry of the result lies in the source."""
    if factor == 1:
        return Fraction(place)
    if where == "asymmetric":
        return Fraction(place, factor)
    if where == "align_corners":
        return Fraction(place * (size - 1), size * factor - 1)
    if where in ("half_pixel", "half_pixel_symmetric") or (where == "pytorch_half_pixel" and size * factor > 1):
        return (place + Fraction(1, 2)) / factor - Fraction(1, 2)
    return operator.refuse(f"with the coordinates '{where}'")


def resized(builder: Builder, operator: Operator) -> Value:
    """Upsample and Resize."""
    take, opset = operator.attributes, builder.opsets.get("", builder.opsets.get("ai.onnx", 1))
    new = operator.proto.op_type == "Resize" and opset >= LEGACY
    where = take.get("coordinate_transformation_mode", "half_pixel" if new else "asymmetric")
    mode = take.get("mode", "nearest")
    if mode not in ("nearest", "linear") or take.get("antialias", 0) or take.get("axes"):
        operator.refuse(f"in mode '{mode}', with antialias or with axes")
    if take.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        operator.refuse("that keeps the aspect ratio")
    value, scales = operator.varying(0), factors(operator, new)
    places = [[coordinate(operator, where, size, factor, place) for place in range(size * factor)]
              for size, factor in zip(value.shape, scales, strict=True)]
    if mode == "linear":
        for axis, own in enumerate(places):
            if scales[axis] > 1:
                value = interpolated(builder, f"{operator.name}:{axis}", value, axis, own)
        return value
    rounding = ROUNDINGS[take.get("nearest_mode", "round_prefer_floor" if new else "floor")]
    cells = [[min(max(rounding(place), 0), size - 1) for place in own] for own, size in zip(places, value.shape, strict=True)]
    chosen = np.arange(value.size).reshape(value.shape)[np.ix_(*cells)]
    return builder.affine(operator.name, [(value, matrix_of(entries(chosen, np.array(1.0), value.size)))], 0.0, chosen.shape)


def interpolated(builder: Builder, name: str, value: Varying, axis: int, places: list[Fraction]) -> Varying:
    """Linear interpolation along one axis; beyond the ends is the value there."""
    size = value.shape[axis]
    inside = [min(max(place, Fraction(0)), Fraction(size - 1)) for place in places]
    first = [min(math.floor(place), size - 1) for place in inside]
    share = np.array([float(place - start) for place, start in zip(inside, first, strict=True)])
    rest = np.array([float(1 - (place - start)) for place, start in zip(inside, first, strict=True)])
    index = np.arange(value.size).reshape(value.shape)
    sides = [np.take(index, np.minimum(np.array(first) + step, size - 1), axis=axis) for step in (0, 1)]
    shape, layout = sides[0].shape, [-1 if k == axis else 1 for k in range(len(value.shape))]
    data = [np.broadcast_to(part.reshape(layout), shape).reshape(-1) for part in (rest, share)]
    rows = np.tile(np.arange(math.prod(shape)), 2)
    columns = np.concatenate([side.reshape(-1) for side in sides])
    matrix = csr_array((np.concatenate(data), (rows, columns)), shape=(math.prod(shape), value.size))
    matrix.eliminate_zeros()
    return builder.affine(name, [(value, matrix_of(matrix, 2))], 0.0, shape)


RESIZED: dict[str, Rule] = {"Resize": resized, "Upsample": resized}
