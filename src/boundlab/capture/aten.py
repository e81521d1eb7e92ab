"""Lowerings of torch operators: values that pass unchanged, and reductions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from boundlab.capture import composed, functions
from boundlab.capture.lowering import Lowering
from boundlab.capture.table import argument, lowers, unsupported

# -- values that pass unchanged ------------------------------------------------------------------------------------------

@lowers("_to_copy.default", "to.dtype", "to.device", "to.dtype_layout", "to.other", "type_as.default")
def cast(low: Lowering, node: fx.Node) -> Any:
    """No change from one floating type to another at least as fine as the network's; other casts of constants are done now."""
    x: Any = node.args[0]
    kind, held = node.meta["val"].dtype, x.meta["val"].dtype
    finer = kind.is_floating_point and torch.promote_types(kind, low.builder.dtype) == kind
    truth = held == torch.bool and kind.is_floating_point  # 0 or 1 in any type
    if kind == held or (finer and held.is_floating_point) or ((finer or truth) and low.varies(x)):
        return low.values[x]
    if low.varies(x):
        raise unsupported(node, f"casts a value that depends on an input to {kind}, which rounds it; bounds would not see that")
    return low.builder.constant(low.builder.known(low.index(x))[0].to(kind))


@lowers("clone.default", "contiguous.default", "alias.default", "detach.default", "lift_fresh_copy.default", "dropout.default",
        "detach_.default", "_conj.default")
def same(low: Lowering, node: fx.Node) -> Any:
    """No change of value; dropout is only captured as nothing when it is off."""
    if "dropout" in str(node.target) and argument(node, 2, "train", False) and argument(node, 1, "p", 0.0) > 0:
        raise unsupported(node, "is dropout in training mode; call module.eval() first")
    return low.values[node.args[0]]  # type: ignore[index]


@lowers("sym_size.int", "_assert_tensor_metadata.default", "_assert_scalar.default", "sym_constrain_range_for_size.default")
def nothing(low: Lowering, node: fx.Node) -> Any:
    """Bookkeeping of shapes, which we take from the program's own shape inference."""
    return None


FILLS = {"zeros": 0.0, "ones": 1.0, "zeros_like": 0.0, "ones_like": 1.0, "new_zeros": 0.0, "new_ones": 1.0,
         "empty": 0.0, "empty_like": 0.0, "new_empty": 0.0, "full_like": None, "new_full": None}
"""Operators that take a shape from their argument and nothing else; with None, the number is an argument of its own."""


@lowers("zeros.default", "ones.default", "full.default", "zeros_like.default", "ones_like.default", "full_like.default",
        "new_zeros.default", "new_ones.default", "new_full.default", "scalar_tensor.default", "empty.memory_format",
        "empty_like.default", "new_empty.default")
def filled(low: Lowering, node: fx.Node) -> int:
    """A tensor of one number for every example (memory that is still to be written counts as zeros); the batch axis goes."""
    kind = str(node.target).removeprefix("aten.").split(".")[0]
    place = {"full": 1, "full_like": 1, "new_full": 2, "scalar_tensor": 0}.get(kind)
    value: Any = FILLS.get(kind) if place is None else node.args[place]
    return low.builder.constant(torch.full(low.result_shape(), value, dtype=node.meta["val"].dtype))


# -- reductions ----------------------------------------------------------------------------------------------------------

@lowers("mean.dim", "sum.dim_IntList", "mean.default", "sum.default", "sum.dim")
def reduce(low: Lowering, node: fx.Node) -> int:
    """Mean or sum over axes."""
    x: Any = node.args[0]
    dims = low.axes(x, argument(node, 1, "dim"))
    return low.builder.add("mean" if "mean" in str(node.target) else "sum", low.index(x), dims=dims,
                           keepdim=bool(argument(node, 2, "keepdim", False)))


@lowers("amax.default", "amin.default", "max.dim", "min.dim", "max.default", "min.default", "aminmax.default")
def extremum(low: Lowering, node: fx.Node) -> Any:
    """The largest or smallest entry over axes; where torch gives its place too, that is unknown."""
    x, kind = node.args[0], str(node.target)
    dims: Any = argument(node, 1, "dim", []) if "aminmax" not in kind else node.kwargs.get("dim", [])
    dims = low.axes(x, [dims] if isinstance(dims, int) else dims)  # type: ignore[arg-type]
    keepdim = bool(node.kwargs.get("keepdim", False) if "aminmax" in kind else argument(node, 2, "keepdim", False))
    index = low.index(x)
    if "aminmax" in kind:
        return [rule(low.builder, index, dims, keepdim) for rule in (composed.smallest, composed.largest)]
    rule = composed.largest if "max" in kind else composed.smallest
    found = rule(low.builder, index, dims, keepdim)
    return [found, None] if kind.endswith(".dim") else found


@lowers("logsumexp.default")
def logsumexp(low: Lowering, node: fx.Node) -> int:
    """log sum exp over axes."""
    x: Any = node.args[0]
    dims = low.axes(x, argument(node, 1, "dim"))
    return composed.along(low.builder, "logsumexp", low.index(x), dims, bool(argument(node, 2, "keepdim", False)))


@lowers("linalg_vector_norm.default", "norm.ScalarOpt_dim", "norm.Scalar")
def norm(low: Lowering, node: fx.Node) -> int:
    """The 1, 2 or maximum norm over axes, or another one from 1 on: (sum |x|^p)^(1/p)."""
    x: Any = node.args[0]
    build, index = low.builder, low.index(x)
    given = argument(node, 1, "ord" if "vector" in str(node.target) else "p", 2)
    order = 2.0 if given is None else float(given)
    dims, keepdim = low.axes(x, argument(node, 2, "dim")), bool(argument(node, 3, "keepdim", False))
    if order == 2:
        return composed.along(build, "norm", index, dims, keepdim)
    size = build.add("abs", index)
    if order == 1:
        return build.add("sum", size, dims=dims, keepdim=keepdim)
    if order == math.inf:
        return composed.largest(build, size, dims, keepdim)
    if order < 1:
        raise unsupported(node, f"is a norm of order {order}; orders from 1 on are supported")
    total = build.add("sum", functions.power(build, size, order), dims=dims, keepdim=keepdim)
    return functions.power(build, total, 1 / order)


@lowers("var.correction", "var.dim", "std.correction", "std.dim", "var_mean.correction")
def variance(low: Lowering, node: fx.Node) -> Any:
    """The mean square distance from the mean over axes, with torch's correction of the count, or its root; and the mean."""
    x: Any = node.args[0]
    build, dims, keepdim = low.builder, low.axes(x, argument(node, 1, "dim")), bool(node.kwargs.get("keepdim", False))
    if str(node.target).endswith(".dim"):
        correction, keepdim = int(argument(node, 2, "unbiased", True)), bool(argument(node, 3, "keepdim", False))
    else:
        given = node.kwargs.get("correction")
        correction = 1 if given is None else given  # type: ignore[assignment]
    index = low.index(x)
    centred = build.broadcast("sub", index, build.add("mean", index, dims=dims, keepdim=True))
    total = build.add("sum", build.add("square", centred), dims=dims, keepdim=keepdim)
    count = math.prod(build.shape(index)[d] for d in dims)
    found = build.broadcast("mul", total, build.constant(1 / (count - correction)))
    if "var_mean" in str(node.target):
        return [found, build.add("mean", index, dims=dims, keepdim=keepdim)]
    return build.add("sqrt", found) if "std" in str(node.target) else found
