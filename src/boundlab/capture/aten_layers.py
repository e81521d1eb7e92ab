"""Lowerings of torch layers: linear maps, convolutions, normalisation, pooling, attention."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from boundlab.capture import composed
from boundlab.capture.einsum import einsum
from boundlab.capture.lowering import Lowering
from boundlab.capture.table import argument, lowers, operands, per_axis, plain, unsupported, without_batch

# -- products ------------------------------------------------------------------------------------------------------------

@lowers("linear.default")
def linear(low: Lowering, node: fx.Node) -> int:
    """A linear layer over the last axis."""
    return low.builder.add("linear", *(low.index(part) for part in node.args if part is not None))


@lowers("matmul.default", "mm.default", "bmm.default")
def matmul(low: Lowering, node: fx.Node) -> int:
    """x @ y; a vector on either side is a matrix of one row or column."""
    return product(low, node, node.args[0], node.args[1])


def product(low: Lowering, node: fx.Node, x: Any, y: Any) -> int:
    """x @ y of program values, with torch's rules for vectors and for a batch on either side."""
    first, second = operands(low, x, y)
    columns, rows = low.rank(x) == 1, low.rank(y) == 1
    contracted = any(low.varies(side) and low.batch(side).place >= low.rank(side) - last for side, last in ((x, 1), (y, 2)))
    if contracted or (low.varies(x) and low.varies(y) and low.batch(x).place == low.rank(x) - 2):
        raise unsupported(node, "multiplies along the batch axis; examples of a batch must not be mixed")
    build = low.builder
    first = build.add("reshape", first, shape=(1, *build.shape(first))) if columns else first
    second = build.add("reshape", second, shape=(*build.shape(second), 1)) if rows else second
    found = composed.product(build, first, second)
    return build.add("reshape", found, shape=low.result_shape()) if columns or rows else found


@lowers("mv.default", "dot.default", "vdot.default", "inner.default")
def dot(low: Lowering, node: fx.Node) -> int:
    """Sums of products along the last axes; one side must be a vector."""
    return product(low, node, node.args[0], node.args[1])


@lowers("einsum.default")
def named_axes(low: Lowering, node: fx.Node) -> int:
    """Sums of products over named axes, of which one is the batch: its letter is left out where a value has a batch."""
    equation, parts = node.args[:2]
    left, _, right = str(equation).replace(" ", "").partition("->")
    terms, found = left.split(","), set[str]()
    for place, part in enumerate(parts):  # type: ignore[arg-type]
        if plain(low, part):
            terms[place], letter = without_letter(terms[place], low.batch(part).place, low.rank(part))
            found.add(letter)
    batch = "".join(found)
    if len(batch) != 1 or batch in "".join(terms) or right.count(batch) != 1:
        raise unsupported(node, f"sums over the batch, or multiplies along it ('{equation}'); examples of a batch must not mix")
    equation = f"{','.join(terms)}->{right.replace(batch, '')}"
    return einsum(low.builder, equation, [low.index(part) for part in parts])  # type: ignore[union-attr]


def without_letter(term: str, place: int, rank: int) -> tuple[str, str]:
    """A term of an equation without its letter at a place among `rank` axes, and that letter; "." is under an ellipsis."""
    hidden = rank - len(term.replace("...", ""))
    letters = list(term.replace("...", "\0"))
    spread = [part for letter in letters for part in ("\0" * hidden if letter == "\0" else letter)]
    letter = spread.pop(place)
    if letter == "\0":
        return term, "."
    return term.replace(letter, "", 1), letter


@lowers("bilinear.default")
def bilinear(low: Lowering, node: fx.Node) -> int:
    """x' W_k y + b_k for each k: a linear layer of x, times y, summed."""
    build, (first, second) = low.builder, operands(low, node.args[0], node.args[1])
    weight = low.index(node.args[2])
    count, left, right = build.shape(weight)
    flat = build.add("reshape", build.add("permute", weight, dims=(0, 2, 1)), shape=(count * right, left))
    lead = build.shape(first)[:-1]
    rows = build.add("reshape", build.add("linear", first, flat), shape=(*lead, count, right))
    wide = build.add("reshape", second, shape=(*lead, 1, right))
    total = build.add("sum", build.broadcast("mul", rows, wide), dims=(len(lead) + 1,))
    bias = optional(low, argument(node, 3, "bias"))
    return total if bias is None else build.broadcast("add", total, bias)


@lowers("addmm.default", "baddbmm.default", "addmv.default", "addbmm.default")
def sum_and_product(low: Lowering, node: fx.Node) -> int:
    """beta * term + alpha * (x @ y)."""
    build = low.builder
    if str(node.target).startswith("aten.addbmm"):
        raise unsupported(node, "sums over the batch; examples of a batch must not be mixed")
    parts = []
    for index, factor in ((product(low, node, node.args[1], node.args[2]), node.kwargs.get("alpha", 1)),
                          (low.index(node.args[0]), node.kwargs.get("beta", 1))):
        parts.append(index if factor == 1 else build.broadcast("mul", index, build.constant(float(factor))))  # type: ignore[arg-type]
    term = parts[1] if parts[1] in build.varying else without_batch(low, parts[1], len(build.shape(parts[0])) + 1)
    return build.broadcast("add", parts[0], term)


# -- convolutions --------------------------------------------------------------------------------------------------------

@lowers("conv1d.default", "conv2d.default", "conv3d.default", "conv1d.padding", "conv2d.padding", "conv3d.padding")
def conv(low: Lowering, node: fx.Node) -> int:
    """A convolution; the paddings "valid" and "same" become numbers, an uneven one a padding of its own."""
    parts = [low.index(part) for part in node.args[:3] if part is not None]
    kernel = low.builder.shape(parts[1])[2:]
    axes = len(kernel)
    stride, dilation = per_axis(argument(node, 3, "stride", 1), axes), per_axis(argument(node, 5, "dilation", 1), axes)
    padding = argument(node, 4, "padding", 0)
    if isinstance(padding, str):
        whole = [0] * axes if padding == "valid" else [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        padding = [size // 2 for size in whole]
        if any(size % 2 for size in whole):
            shape = low.builder.shape(parts[0])
            wider = (shape[0], *(size + odd % 2 for size, odd in zip(shape[1:], whole, strict=True)))
            parts[0] = low.builder.add("pad", parts[0], before=(0,) * len(shape), shape=wider)
    return low.builder.add("conv", *parts, stride=stride, padding=per_axis(padding, axes), dilation=dilation,
                           groups=argument(node, 6, "groups", 1))


@lowers("conv_transpose1d.default", "conv_transpose2d.input", "conv_transpose3d.input")
def conv_transpose(low: Lowering, node: fx.Node) -> int:
    """A transposed convolution."""
    parts = [low.index(part) for part in node.args[:3] if part is not None]
    axes = len(low.builder.shape(parts[1])) - 2
    stride, dilation = per_axis(argument(node, 3, "stride", 1), axes), per_axis(argument(node, 7, "dilation", 1), axes)
    padding, more = (per_axis(argument(node, place, name, 0), axes) for place, name in ((4, "padding"), (5, "output_padding")))
    return low.builder.add("conv_transpose", *parts, stride=stride, padding=padding, dilation=dilation, output_padding=more,
                           groups=argument(node, 6, "groups", 1))


# -- normalisation -------------------------------------------------------------------------------------------------------

def optional(low: Lowering, value: Any) -> int | None:
    """The node of a value, or None for a missing one."""
    return None if value is None else low.index(value)


@lowers("_native_batch_norm_legit_functional.default", "_native_batch_norm_legit.default",
        "_native_batch_norm_legit.no_stats", "_batch_norm_with_update_functional.default")
def batch_statistics(low: Lowering, node: fx.Node) -> Any:
    """Batch norm in training mode, refused: examples of a batch would depend on each other."""
    raise unsupported(node, BATCH_STATISTICS)


BATCH_STATISTICS = ("is batch norm in training mode, where examples of a batch depend on each other; call module.eval() first, "
                    "and see boundlab.train.statistics for bounds by the statistics of a batch")


@lowers("native_dropout.default", "rrelu_with_noise_functional.default")
def noise(low: Lowering, node: fx.Node) -> Any:
    """Layers that draw random numbers while they train, refused."""
    raise unsupported(node, "draws random numbers, as dropout does in training mode; call module.eval() first")


@lowers("batch_norm.default", "_native_batch_norm_legit_no_training.default", "cudnn_batch_norm.default",
        "native_batch_norm.default")
def batch_norm(low: Lowering, node: fx.Node) -> Any:
    """Frozen statistics: a scale and a shift for each channel, folded into the layer before it if nothing else reads that."""
    x, weight, bias, mean, variance = node.args[:5]
    legit = "no_training" in str(node.target)
    if not legit and node.args[5]:
        raise unsupported(node, BATCH_STATISTICS)
    eps = float(node.args[6 if legit else 7])  # type: ignore[arg-type]
    statistics, affine = (low.index(mean), low.index(variance)), (optional(low, weight), optional(low, bias))
    found = composed.batch_norm(low.builder, low.index(x), statistics, affine, eps, fold=len(x.users) == 1)  # type: ignore[union-attr]
    return found if str(node.target) == "aten.batch_norm.default" else [found, None, None]


@lowers("layer_norm.default", "native_layer_norm.default")
def layer_norm(low: Lowering, node: fx.Node) -> Any:
    """Normalised over the last axes, then scaled and shifted."""
    build, x = low.builder, low.index(node.args[0])
    count, rank = len(node.args[1]), len(build.shape(x))  # type: ignore[arg-type]
    native = "native" in str(node.target)
    eps = node.args[4] if native else argument(node, 4, "eps", 1e-5)
    found, *moments = composed.centred_and_scaled(build, x, range(rank - count, rank), eps)  # type: ignore[arg-type]
    found = composed.scaled(build, found, optional(low, argument(node, 2, "weight")), optional(low, argument(node, 3, "bias")))
    return [found, *moments] if native else found


@lowers("rms_norm.default")
def rms_norm(low: Lowering, node: fx.Node) -> int:
    """Divided by the root mean square over the last axes, then scaled."""
    build, x = low.builder, low.index(node.args[0])
    count, rank = len(node.args[1]), len(build.shape(x))  # type: ignore[arg-type]
    eps = argument(node, 3, "eps", torch.finfo(build.dtype).eps)
    found = composed.normalised(build, x, range(rank - count, rank), eps, centred=False)
    return composed.scaled(build, found, optional(low, argument(node, 2, "weight")), None)


def norm_of_groups(low: Lowering, x: int, groups: int, weight: int | None, bias: int | None, eps: float) -> int:
    """Normalised over each of `groups` blocks of channels, then scaled and shifted for each channel."""
    build, shape = low.builder, low.builder.shape(x)
    blocks = build.add("reshape", x, shape=(groups, math.prod(shape) // groups))
    found = build.add("reshape", composed.normalised(build, blocks, (1,), eps), shape=shape)
    wide = (shape[0], *[1] * (len(shape) - 1))
    parts = [None if part is None else build.add("reshape", part, shape=wide) for part in (weight, bias)]
    return composed.scaled(build, found, *parts)


@lowers("group_norm.default", "native_group_norm.default")
def group_norm(low: Lowering, node: fx.Node) -> Any:
    """Group norm; torch's native form names sizes before the number of groups."""
    if "native" in str(node.target):
        x, weight, bias, *_, groups, eps = node.args
    else:
        x, groups = node.args[:2]
        weight, bias, eps = argument(node, 2, "weight"), argument(node, 3, "bias"), argument(node, 4, "eps", 1e-5)
    found = norm_of_groups(low, low.index(x), int(groups), optional(low, weight), optional(low, bias), float(eps))  # type: ignore[arg-type]
    return [found, None, None] if "native" in str(node.target) else found


@lowers("instance_norm.default")
def instance_norm(low: Lowering, node: fx.Node) -> int:
    """Each channel normalised over its own cells; running statistics are those of a batch norm."""
    x, weight, bias, mean, variance, own, _, eps = node.args[:8]
    index, parts = low.index(x), (optional(low, weight), optional(low, bias))
    if own:
        return norm_of_groups(low, index, low.builder.shape(index)[0], *parts, float(eps))  # type: ignore[arg-type]
    scale, shift = composed.frozen_batch_norm(low.builder, low.index(mean), low.index(variance), *parts, float(eps))  # type: ignore[arg-type]
    return composed.affine_channels(low.builder, index, scale, shift, fold=len(x.users) == 1)  # type: ignore[union-attr]


# -- attention -----------------------------------------------------------------------------------------------------------

@lowers("scaled_dot_product_attention.default")
def attention(low: Lowering, node: fx.Node) -> int:
    """softmax(scale * Q K' + mask) V; Vaswani et al. 2017, Sec. 3.2.1."""
    query, key, value, *_ = node.args
    parts = operands(low, query, key, value)
    if argument(node, 4, "dropout_p", 0.0):
        raise unsupported(node, "is attention with dropout; call module.eval() or set dropout_p to 0")
    if node.kwargs.get("enable_gqa", False):
        parts[1:] = (composed.repeated(low.builder, part, len(low.builder.shape(part)) - 3, low.builder.shape(parts[0])[-3])
                     for part in parts[1:])
    given, scale = argument(node, 3, "attn_mask"), node.kwargs.get("scale")
    shape = low.builder.shape(parts[0])
    factor = 1 / math.sqrt(shape[-1]) if scale is None else float(scale)  # type: ignore[arg-type]
    mask = None if given is None else operands(low, query, given)[1]
    if argument(node, 5, "is_causal", False):
        mask = low.builder.constant(torch.ones(shape[-2], low.builder.shape(parts[1])[-2], dtype=torch.bool).tril())
    return composed.attention(low.builder, parts[0], parts[1], parts[2], factor, mask)
