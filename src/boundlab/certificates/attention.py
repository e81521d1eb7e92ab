"""Products of two varying matrices and softmax, as steps that are known: products, sums, exponentials, log-sum-exp.

softmax_j(x) = exp(x_j - log sum over k of exp(x_k)).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.sparse import csr_array

from boundlab.certificates.builder import Builder, Operator, Value, Varying, entries
from boundlab.certificates.curves import EXP
from boundlab.certificates.joint import Product
from boundlab.certificates.linear import Rule, gemm, matmul
from boundlab.certificates.logsumexp import LogShares, LogSumExp
from boundlab.certificates.network import matrix_of

MOST_PRODUCTS = 2**24
"""Products that one matrix product, and pairs of entries that one softmax, may have."""
MANY = 8
"""Entries compared at a time, from which on a softmax has no intervals of its shares but those that its entries leave."""


def matrices(builder: Builder, operator: Operator) -> Value:
    """MatMul: linear if a factor is constant; else products, which are the step `NAME:product`, and their sums."""
    first, second = operator.inputs
    if not isinstance(first, Varying) or not isinstance(second, Varying):
        return matmul(builder, operator)
    one, two = (np.arange(value.size).reshape(value.shape) for value in (first, second))
    lone = one.ndim == 1, two.ndim == 1
    one, two = one[None, :] if lone[0] else one, two[:, None] if lone[1] else two
    if one.shape[-1] != two.shape[-2]:
        operator.refuse(f"of shapes {one.shape} and {two.shape}")
    shape = (*np.broadcast_shapes(one.shape[:-2], two.shape[:-2]), one.shape[-2], two.shape[-1])
    out = shape[:-2] + (() if lone[0] else shape[-2:-1]) + (() if lone[1] else shape[-1:])
    wide = (*shape, one.shape[-1])
    return summed_products(builder, operator, (first, np.broadcast_to(one[..., :, None, :], wide)),
                           (second, np.broadcast_to(two.swapaxes(-1, -2)[..., None, :, :], wide)), out)


def general(builder: Builder, operator: Operator) -> Value:
    """Gemm, of two varying matrices only without factors and offset."""
    first, second = operator.inputs[:2]
    if not isinstance(first, Varying) or not isinstance(second, Varying):
        return gemm(builder, operator)
    take = operator.attributes
    if take.get("alpha", 1.0) != 1 or (len(operator.inputs) > 2 and operator.inputs[2] is not None):
        operator.refuse("of two tensors that depend on the network's inputs, with a factor or an offset")
    one, two = (np.arange(value.size).reshape(value.shape) for value in (first, second))
    one, two = one.T if take.get("transA", 0) else one, two.T if take.get("transB", 0) else two
    if one.shape[1] != two.shape[0]:
        operator.refuse(f"of shapes {one.shape} and {two.shape}")
    shape = (one.shape[0], two.shape[1])
    wide = (*shape, one.shape[1])
    return summed_products(builder, operator, (first, np.broadcast_to(one[:, None, :], wide)),
                           (second, np.broadcast_to(two.T[None, :, :], wide)), shape)


def summed_products(builder: Builder, operator: Operator, left: tuple[Varying, np.ndarray], right: tuple[Varying, np.ndarray],
                    shape: tuple[int, ...]) -> Value:
    """Sums over the last axis of products of entries, whose flat places stand in arrays of one shape."""
    places = left[1]
    if places.size > MOST_PRODUCTS or places.size == 0:
        operator.refuse(f"with {places.size} products")
    name, sides = operator.name, []
    for side, (value, chosen) in (("left", left), ("right", right)):
        matrix = matrix_of(entries(chosen, np.array(1.0), value.size))
        sides.append(builder.affine(f"{name}:{side}", [(value, matrix)], 0.0, places.shape))
    asks = [side for side, (value, _) in zip(sides, (left, right), strict=True) if value.step not in builder.close]
    products = builder.nonlinear(f"{name}:product", sides, Product(anchored=True), places.shape,
                                 asks if len(asks) < len(sides) else None)
    start = np.arange(0, places.size + 1, places.shape[-1])
    sums = csr_array((np.ones(places.size), np.arange(places.size), start), shape=(math.prod(shape), places.size))
    return builder.affine(name, [(products, matrix_of(sums))], 0.0, shape)


def compared(operator: Operator, opset: int) -> np.ndarray:
    """Which entries of its argument a softmax compares with each other, as a number for each flat entry."""
    shape, flat = operator.varying(0).shape, opset < 13
    axis = operator.attributes.get("axis", 1 if flat else -1) % len(shape)
    rest = shape[:axis] if flat else (*shape[:axis], 1, *shape[axis + 1:])
    numbers = np.arange(math.prod(rest)).reshape(*rest, *(1,) * (len(shape) - len(rest)))
    return np.broadcast_to(numbers, shape).reshape(-1)


def softmax(logarithm: bool) -> Rule:
    """Softmax or its logarithm: steps `NAME:logsumexp`, whose k-th argument is the k-th entry of each group, and `NAME:exp`."""
    def rule(builder: Builder, operator: Operator) -> Value:
        value, name = operator.varying(0), operator.name
        groups = compared(operator, builder.opsets.get("", builder.opsets.get("ai.onnx", 1)))
        members = np.argsort(groups, kind="stable").reshape(int(groups.max()) + 1, -1)
        count = members.shape[1]
        if count == 1:
            return np.full(value.shape, 0.0 if logarithm else 1.0)
        if value.size * count > MOST_PRODUCTS:
            operator.refuse(f"of {value.size} entries, {count} at a time")
        terms = [builder.affine(f"{name}:{k}", [(value, matrix_of(entries(members[:, k], np.array(1.0), value.size)))], 0.0,
                                (len(members),)) for k in range(count)]
        total = builder.nonlinear(f"{name}:logsumexp", terms, LogSumExp(count), (len(members),), [value])
        same = matrix_of(entries(np.arange(value.size), np.array(1.0), value.size))
        spread = matrix_of(entries(groups, np.array(-1.0), len(members)))
        shares = builder.affine(name if logarithm else f"{name}:log", [(value, same), (total, spread)], 0.0, value.shape)
        builder.narrow(shares, LogShares(members))
        if logarithm:
            return shares
        found = builder.nonlinear(f"{name}:exp", [shares], EXP, value.shape, [value])
        whole = builder.affine(name, [(found, same)], 0.0, value.shape)
        if count > MANY:
            builder.close.add(whole.step)
        return whole
    return rule


ATTENTION: dict[str, Rule] = {"MatMul": matrices, "Gemm": general, "Softmax": softmax(False), "LogSoftmax": softmax(True)}
