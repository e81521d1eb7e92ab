"""Sums of products of two factors, either of which may be perturbed: matrix products, and layers with their weights.

Where one factor is constant the operator is affine in the other. Where both vary, x = a + (x - a) around an anchor a gives

    x w = a w + (x - a) w_c + (x - a) (w - w_c),        w_c the center of w's interval,

and only the last term has to be relaxed: |(x - a) (w - w_c)| <= |x - a| w_r, with |x - a| below its chord. McCormick's
planes (1976) are those with an anchor at an end of x. If w lies in an l_p ball, Hoelder's inequality bounds the sum of
all last terms by eps |x - a|_q at once, which is far less than the box around the ball allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import Affine, LinearBound, above_ends, exact
from boundlab.interval import Ball, Interval
from boundlab.maps import LinearMap, Reshape, Shape, Sum, chain, diagonal
from boundlab.ops.op import Argument, Op, affine_interval, intervals_of, push_interval
from boundlab.ops.shape import expand_map, shape_of


@dataclass(frozen=True)
class Product:
    """A sum of products x_i w_j in which no output reads an entry of w twice, and its map in each factor.

    `values` (b, *x), (b or 1, *w) to (b, *out); `along_x` (shape of x, w) and `along_w` (shape of w, x) give the maps of
    one factor while the other is a constant with a batch axis.
    """

    values: Callable[[Tensor, Tensor], Tensor]
    along_x: Callable[[Shape, Tensor], LinearMap]
    along_w: Callable[[Shape, Tensor], LinearMap]


Planes = Callable[[Product, Interval, Interval], LinearBound]


def relax_product(product: Product, x: Argument, w: Argument, planes: Planes | None = None) -> LinearBound:
    """The constant factor where there is one; else `planes`, by default those that suit w's interval."""
    if isinstance(w, Tensor):
        return exact(product.along_x(shape_of(x), w))
    if isinstance(x, Tensor):
        return exact(product.along_w(shape_of(w), x))
    if planes is not None:
        return planes(product, x, w)
    return ball_planes(product, x, w) if isinstance(w, Ball) else box_planes(product, x, w)


def end_planes(product: Product, x: Interval, w: Interval) -> LinearBound:
    """Planes around the lower end of x: one map in each factor, so that they keep their shape in forward mode."""
    along_w = product.along_w(shape_of(w), x.lower)

    def plane(end: Tensor) -> Affine:
        return Affine((product.along_x(shape_of(x), end), along_w), -product.values(x.lower, end).unsqueeze(1))

    return LinearBound(plane(w.lower), plane(w.upper))


def ball_planes(product: Product, x: Interval, w: Ball) -> LinearBound:
    """Parallel planes around the center of x: the last term costs eps times the norm of x's radius."""
    maps = (product.along_x(shape_of(x), w.center), product.along_w(shape_of(w), x.center))
    middle, gap = -product.values(x.center, w.center).unsqueeze(1), reach(product, x.radius, w).unsqueeze(1)
    return LinearBound(Affine(maps, middle - gap), Affine(maps, middle + gap))


def box_planes(product: Product, x: Interval, w: Interval) -> LinearBound:
    """Planes around the point of x's interval that is nearest to 0.

    There w has the smallest coefficient, and eliminating a w that varies on its own gives the chord of -|x - a| w_r: the
    tightest plane in x alone.
    """
    anchor = x.lower.clamp(min=0) + x.upper.clamp(max=0)
    slope = torch.where(x.width > 0, (x.lower + x.upper - 2 * anchor) / torch.where(x.width > 0, x.width, 1.0), 0.0)
    offset = above_ends(lambda end: (end - anchor.unsqueeze(1)).abs(), slope.unsqueeze(1), x).squeeze(1)
    center, spread = product.along_x(shape_of(x), w.center), product.along_x(shape_of(x), w.radius)
    along_w = product.along_w(shape_of(w), anchor)
    middle, gap = -product.values(anchor, w.center), product.values(offset, w.radius)

    def plane(sign: float) -> Affine:
        bent = chain(diagonal(sign * slope.unsqueeze(1), shape_of(x)), spread)
        return Affine((Sum(center.in_shape, center.out_shape, (center, bent)), along_w), (middle + sign * gap).unsqueeze(1))

    return LinearBound(plane(-1.0), plane(1.0))


def product_interval(product: Product, x: Argument, w: Argument) -> Interval:
    """The image of a constant factor; else x w_c, give or take what w may differ from w_c, met with products of ends."""
    if isinstance(w, Tensor):
        return affine_interval(relax_product(product, x, w), intervals_of((x,)))
    if isinstance(x, Tensor):
        value, gap = product.values(x, w.center), reach(product, x.abs(), w)
        return Interval(value - gap, value + gap)
    middle = push_interval(product.along_x(shape_of(x), w.center), x)
    gap = reach(product, torch.maximum(x.lower.abs(), x.upper.abs()), w)
    return Interval(middle.lower - gap, middle.upper + gap).meet(by_signs(product, x, w))


def by_signs(product: Product, x: Interval, w: Interval) -> Interval:
    """Products of ends, chosen by their signs; exact unless both intervals hold 0, where it counts two products for one."""
    low, high = (x.lower.clamp(min=0), x.lower.clamp(max=0)), (x.upper.clamp(min=0), x.upper.clamp(max=0))
    below, above = (w.lower.clamp(min=0), w.lower.clamp(max=0)), (w.upper.clamp(min=0), w.upper.clamp(max=0))

    def total(*pairs: tuple[Tensor, Tensor]) -> Tensor:
        return torch.stack([product.values(*pair) for pair in pairs]).sum(0)

    return Interval(total((low[0], below[0]), (low[1], above[0]), (high[0], below[1]), (high[1], above[1])),
                    total((high[0], above[0]), (high[1], below[0]), (low[0], above[1]), (low[1], below[1])))


def reach(product: Product, size: Tensor, w: Interval) -> Tensor:
    """The most that each output may gain from w - w_c where |x| <= size (b, *x), (b, *out); exact for one x on a box.

    On a ball it is eps times a norm of the entries that the output reads: their powers, summed by the product itself.
    Powers that vanish are counted as the smallest number, so that the norm is never too small.
    """
    on_box = product.values(size, w.radius)
    if not isinstance(w, Ball):
        return on_box
    order, tiny = w.order, torch.finfo(size.dtype).tiny
    top = size.flatten(1).amax(1)
    unit = top.detach().clamp(min=tiny)
    share = (size / unit.reshape(-1, *[1] * (size.dim() - 1))) ** order
    vanished = tiny * math.prod(w.shape[1:])
    total = product.values(share, torch.ones_like(w.lower[:1])) + vanished
    wide = (-1, *[1] * (total.dim() - 1))
    norm = unit.reshape(wide) * total ** (1 / order)
    if w.p == 1:  # the maximum norm; that of any finite order is larger
        norm = torch.minimum(norm, top.reshape(wide))
    return torch.minimum(on_box, w.eps.reshape(wide) * norm)


def layer_op(name: str, values: Callable[..., Tensor], product: Callable[..., Product], channel: int,
             sources: tuple[str, ...] = ()) -> Op:
    """A layer: a product of x and a weight, and a bias along axis `channel` of the output, any of which may be perturbed.

    `values(x, weight, bias, **attributes)` is the layer on constants, `product(**attributes)` its product with the maps.
    """

    def wide(out: Shape) -> Shape:
        """The bias beside the output: its numbers along the channel axis, every other axis of size 1."""
        return tuple(size if axis == channel % len(out) else 1 for axis, size in enumerate(out))

    def relax(x: Argument, weight: Argument, bias: Argument | None = None, alpha: None = None,
              **attributes: Any) -> LinearBound:
        varies = isinstance(x, Interval) or isinstance(weight, Interval)
        if varies:
            bound = relax_product(product(**attributes), x, weight)
        else:
            assert isinstance(x, Tensor) and isinstance(weight, Tensor)
            bound = exact(bias=product(**attributes).values(x, weight).unsqueeze(1))
        if bias is None:
            return bound
        out = bound.lower.maps[0].out_shape if varies else tuple(bound.lower.bias.shape[2:])  # type: ignore[union-attr]
        lower = with_bias(bound.lower, bias, wide(out), out)
        return LinearBound(lower, lower if bound.exact else with_bias(bound.upper, bias, wide(out), out))

    def interval(x: Argument, weight: Argument, bias: Argument | None = None, **attributes: Any) -> Interval:
        if isinstance(x, Tensor) and isinstance(weight, Tensor):
            return affine_interval(relax(x, weight, bias, **attributes), intervals_of((bias,)))  # type: ignore[arg-type]
        found = product_interval(product(**attributes), x, weight)
        shape = wide(shape_of(found))
        if bias is None:
            return found
        ends = (bias.lower, bias.upper) if isinstance(bias, Interval) else (bias, bias)
        return Interval(found.lower + ends[0].reshape(-1, *shape), found.upper + ends[1].reshape(-1, *shape))

    return Op(name, values, interval, relax, lambda perturbed: not (perturbed[0] and perturbed[1]), breaks=(), balls=True,
              sources=sources)


def with_bias(affine: Affine, bias: Argument, wide: Shape, out: Shape) -> Affine:
    """An affine function and a bias, laid out as `wide` beside the output: a number to add, or one more argument."""
    if isinstance(bias, Interval):
        return Affine((*affine.maps, chain(Reshape(shape_of(bias), wide), expand_map(wide, out))), affine.bias)
    offset = bias.reshape(-1, 1, *wide)
    return Affine(affine.maps, offset if affine.bias is None else affine.bias + offset)
