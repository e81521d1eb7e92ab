"""Linear layers and matrix products."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from boundlab.affine import Affine, LinearBound, exact
from boundlab.errors import MissingRule
from boundlab.interval import Interval
from boundlab.maps import LinearMap, MatmulLeft, MatmulRight, Matrix
from boundlab.ops.op import Argument, Op, affine_interval, affine_op, at_most_one, intervals_of, register
from boundlab.ops.shape import shape_of


def shared(weight: Argument, name: str) -> Tensor:
    """A layer's parameter without its batch axis; MissingRule unless it is one constant for all problems."""
    if isinstance(weight, Interval) or weight.shape[0] != 1:
        raise MissingRule(f"a parameter of '{name}' is perturbed or differs between problems, and '{name}' has no rule for "
                          "that yet; write the layer as a matmul of two values and a sum.")
    return weight[0]


def linear_values(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x times the transposed weight, plus bias; weights (b, out, in) may differ between problems."""
    if len(weight) == 1 and (bias is None or len(bias) == 1):
        return F.linear(x, weight[0], None if bias is None else bias[0])
    result = torch.einsum("b...i,boi->b...o", x, weight)
    return result if bias is None else result + bias.reshape(len(bias), *[1] * (result.dim() - 2), -1)


def linear_maps(x: Argument, weight: Argument, bias: Argument | None = None) -> tuple[LinearMap, ...]:
    """The weight itself, over the last axis of x."""
    matrix = shared(weight, "linear")
    if bias is not None:
        shared(bias, "linear")
    return (Matrix(shape_of(x), (*shape_of(x)[:-1], matrix.shape[0]), matrix),)


linear = register(affine_op(
    "linear", linear_values, linear_maps,
    bias=lambda x, weight, bias=None: None if bias is None else
        bias[0].expand(*shape_of(x)[:-1], bias.shape[1])[None, None],
))


def product_shape(x: Argument, y: Argument) -> tuple[int, ...]:
    """Shape of x @ y."""
    return (*torch.broadcast_shapes(shape_of(x)[:-2], shape_of(y)[:-2]), shape_of(x)[-2], shape_of(y)[-1])


def matmul_interval(x: Argument, y: Argument) -> Interval:
    """Center and radius of a product of two matrices whose entries vary independently.

    |xy - x_c y_c| <= |x_c| y_r + x_r |y_c| + x_r y_r, summed over the inner axis.
    """
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return affine_interval(relax_matmul(x, y), intervals_of((x, y)))
    corners = [x.lower.unsqueeze(-1) * y.lower.unsqueeze(-3)]
    corners += [a.unsqueeze(-1) * b.unsqueeze(-3) for a, b in ((x.lower, y.upper), (x.upper, y.lower), (x.upper, y.upper))]
    low, high = torch.stack(corners).amin(0), torch.stack(corners).amax(0)
    return Interval(low.sum(-2), high.sum(-2))


def relax_matmul(x: Argument, y: Argument, alpha: Mapping[str, Tensor] | None = None) -> LinearBound:
    """The constant factor where there is one; else the sum over the inner axis of McCormick's planes.

    The free shares mix the two planes of each inner index of x: (b, s, *x) numbers would be exact per pair; one a row of
    the product is used, (b, s, *lead, m, 1).
    """
    out = product_shape(x, y)
    if isinstance(y, Tensor) and isinstance(x, Interval):
        return exact(MatmulRight(shape_of(x), out, y.unsqueeze(1)))
    if isinstance(x, Tensor) and isinstance(y, Interval):
        return exact(MatmulLeft(shape_of(y), out, x.unsqueeze(1)))
    assert isinstance(x, Interval) and isinstance(y, Interval)

    def plane(y_end: Tensor) -> Affine:
        maps = (MatmulRight(shape_of(x), out, y_end), MatmulLeft(shape_of(y), out, x.row_lower))
        return Affine(maps, -(x.row_lower @ y_end))

    return LinearBound(plane(y.row_lower), plane(y.row_upper))


matmul = register(Op(
    "matmul", torch.matmul, matmul_interval, relax_matmul, at_most_one, breaks=(),
    meaning="product of two matrices", sources=("onnx:MatMul",),
))
