"""Linear operators of ONNX as matrices: products, sums and means, normalisation; windows are in `windows`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from boundlab.certificates.builder import (
    Builder,
    Operator,
    Value,
    Varying,
    computed,
    entries,
    exact,
    places,
    slack_of,
)
from boundlab.certificates.network import Matrix, matrix_of
from boundlab.errors import CertificateError

Rule = Callable[[Builder, Operator], Value]
MOST_ENTRIES = 2**27
"""Coefficients that one matrix may hold."""


def gemm(builder: Builder, operator: Operator) -> Value:
    """alpha A B + beta C, with a constant B or A."""
    take = operator.attributes
    alpha, beta = float(take.get("alpha", 1.0)), float(take.get("beta", 1.0))
    sides = []
    for place, flag in ((0, "transA"), (1, "transB")):
        value = operator.inputs[place]
        assert value is not None
        order = np.arange(value.size).reshape(value.shape) if isinstance(value, Varying) else exact(value)
        sides.append((value, order.T if take.get(flag, 0) else order))
    part, shape = product(operator, sides[0], sides[1], alpha)
    offset = operator.inputs[2] if len(operator.inputs) > 2 else None
    parts, bias, slack = [part], np.zeros(shape), np.zeros(shape)
    if isinstance(offset, Varying):
        scale = computed(operator, np.array(beta))
        parts.append((offset, matrix_of(entries(places(offset, shape), scale, offset.size))))
    elif offset is not None:
        bias = np.broadcast_to(beta * exact(offset), shape)
        slack = slack_of(np.abs(bias), 1) if beta != 1 else slack
    return builder.affine(operator.name, parts, bias.reshape(-1), shape, slack.reshape(-1))


def matmul(builder: Builder, operator: Operator) -> Value:
    """A B with one constant factor, and with axes of a batch before the last two."""
    sides = []
    for value in operator.inputs:
        assert value is not None
        sides.append((value, np.arange(value.size).reshape(value.shape) if isinstance(value, Varying) else exact(value)))
    part, shape = product(operator, sides[0], sides[1], 1.0)
    return builder.affine(operator.name, [part], 0.0, shape)


Side = tuple[Value, np.ndarray]


def product(operator: Operator, left: Side, right: Side, alpha: float) -> tuple[tuple[Varying, Matrix], tuple[int, ...]]:
    """alpha times a matrix product: the varying factor with its matrix, and the shape.

    A side is a value and its entries, which are flat indices where it varies.
    """
    (first, one), (second, two) = left, right
    if isinstance(first, Varying) == isinstance(second, Varying):
        operator.refuse("of two tensors that depend on the network's inputs")
    lone = one.ndim == 1, two.ndim == 1
    one = one[None, :] if lone[0] else one
    two = two[:, None] if lone[1] else two
    if one.shape[-1] != two.shape[-2]:
        operator.refuse(f"of shapes {one.shape} and {two.shape}")
    if isinstance(first, Varying):
        value, (rows, operations, shape) = first, coefficients(one, two, alpha)
    else:
        assert isinstance(second, Varying)
        value, (rows, operations, shape) = second, coefficients(two.swapaxes(-1, -2), one.swapaxes(-1, -2), alpha)
        shape = (*shape[:-2], shape[-1], shape[-2])
        order = np.arange(math.prod(shape)).reshape(shape).swapaxes(-1, -2).reshape(-1)
        rows = rows[np.argsort(order)]
    if operations:
        computed(operator, rows if isinstance(rows, np.ndarray) else rows.data)
    shape = shape[:-2] + (() if lone[0] else shape[-2:-1]) + (() if lone[1] else shape[-1:])
    return (value, matrix_of(rows, operations)), shape


def coefficients(chosen: np.ndarray, factor: np.ndarray, alpha: float) -> tuple[np.ndarray | csr_array, int, tuple[int, ...]]:
    """Matrix of the product of x[chosen] (..., m, k) and a constant (..., k, n), operations in an entry, and the shape."""
    scaled, operations = (factor, 0) if alpha == 1 else (alpha * factor, 1)
    size = int(chosen.max()) + 1
    batch = np.broadcast_shapes(chosen.shape[:-2], scaled.shape[:-2])
    m, n = chosen.shape[-2], scaled.shape[-1]
    shape = (*batch, m, n)
    if math.prod(batch) * m == 1 and scaled.ndim == 2 and (chosen.reshape(-1) == np.arange(size)).all():
        return np.ascontiguousarray(scaled.T), operations, shape
    count = math.prod(shape) * chosen.shape[-1]
    if count > MOST_ENTRIES:
        raise CertificateError(f"a matrix product of the network has {count} coefficients, more than the checker takes.")
    columns = np.broadcast_to(chosen[..., :, None, :], (*batch, m, n, chosen.shape[-1]))
    data = np.broadcast_to(scaled.swapaxes(-1, -2)[..., None, :, :], columns.shape)
    start = np.arange(math.prod(shape) + 1) * chosen.shape[-1]
    matrix = csr_array((data.reshape(-1).copy(), columns.reshape(-1).copy(), start), shape=(math.prod(shape), size))
    matrix.eliminate_zeros()
    return matrix, operations, shape


def normalised(builder: Builder, operator: Operator) -> Value:
    """Batch normalisation with fixed statistics: (x - mean) scale / sqrt(variance + epsilon) + offset, by channel."""
    value = operator.varying(0)
    scale, offset, mean, variance = (exact(operator.needed(place)) for place in range(1, 5))
    if operator.attributes.get("training_mode", 0):
        operator.refuse("in training mode")
    factor = computed(operator, scale / np.sqrt(variance + float(operator.attributes.get("epsilon", np.float32(1e-5)))))
    shift = mean * factor
    layout = (1, -1, *(1,) * (len(value.shape) - 2))
    bias, slack = offset - shift, slack_of(np.abs(shift), 6) + slack_of(np.abs(offset - shift), 1)
    scale_ = np.abs(shift) + np.abs(offset) + slack
    spread = [np.broadcast_to(part.reshape(layout), value.shape) for part in (factor, bias, slack, scale_)]
    matrix = matrix_of(entries(places(value, value.shape), spread[0], value.size), 4)
    bias, slack, terms = (part.reshape(-1) for part in spread[1:])
    return builder.affine(operator.name, [(value, matrix)], bias, value.shape, slack, terms)


def reduced(mean: bool) -> Rule:
    """Sums or means over axes."""
    def rule(builder: Builder, operator: Operator) -> Value:
        value, given = operator.varying(0), operator.constant(1)
        axes = operator.attributes.get("axes") if given is None else given.tolist()
        if axes is None or not len(axes):
            if operator.attributes.get("noop_with_empty_axes", 0):
                return value
            axes = range(len(value.shape))
        reduced_axes = {axis % len(value.shape) for axis in axes}
        kept = tuple(1 if axis in reduced_axes else size for axis, size in enumerate(value.shape))
        shape = kept if operator.attributes.get("keepdims", 1) else tuple(
            size for axis, size in enumerate(value.shape) if axis not in reduced_axes)
        rows = np.broadcast_to(np.arange(math.prod(kept)).reshape(kept), value.shape).reshape(-1)
        count = value.size // math.prod(kept)
        factor = 1 / count if mean else 1.0
        matrix = csr_array((np.full(value.size, factor), (rows, np.arange(value.size))), shape=(math.prod(kept), value.size))
        return builder.affine(operator.name, [(value, matrix_of(matrix, int(mean)))], 0.0, shape)
    return rule


def added(builder: Builder, operator: Operator) -> Value:
    """Add and Sum."""
    return builder.total(operator.name, [(value if isinstance(value, Varying) else exact(value), 1.0)
                                         for value in operator.inputs if value is not None])


def subtracted(builder: Builder, operator: Operator) -> Value:
    """Sub."""
    first, second = (value if isinstance(value, Varying) else exact(value) for value in operator.inputs if value is not None)
    return builder.total(operator.name, [(first, 1.0), (second, -1.0)])


def negated(builder: Builder, operator: Operator) -> Value:
    """Neg."""
    return builder.total(operator.name, [(operator.varying(0), -1.0)])


def quotient(builder: Builder, operator: Operator, value: Varying, divisor: np.ndarray) -> Value:
    """A tensor divided by a constant."""
    with np.errstate(divide="ignore"):
        factor = computed(operator, 1 / exact(divisor))
    powers = bool((np.frexp(exact(divisor))[0] == 0.5).all())
    return builder.scaled(operator.name, value, factor, 0.0, 0 if powers else 1)


LINEAR: dict[str, Rule] = {
    "BatchNormalization": normalised, "ReduceSum": reduced(False), "ReduceMean": reduced(True),
    "Add": added, "Sum": added, "Sub": subtracted, "Neg": negated,
}
