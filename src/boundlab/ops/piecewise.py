"""ReLU and its kin: affine between a few breaks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from boundlab.affine import LinearBound, lines, where3
from boundlab.interval import Interval
from boundlab.ops.op import Free, elementwise_op, monotone, register


def steeper_side(x: Interval) -> Tensor:
    """The lower slope with the smaller area: 1 where the interval reaches farther up than down, else 0."""
    return (x.row_upper > -x.row_lower).to(x.lower.dtype)


def relax_relu(x: Interval, alpha: Mapping[str, Tensor] | None = None) -> LinearBound:
    """Triangle relaxation; the lower slope is free in [0, 1].

    Zhang et al. 2018 (CROWN), Sec. 3.2; Xu et al. 2021 (alpha-CROWN).
    """
    l, u = x.row_lower, x.row_upper
    active, dead = l >= 0, u <= 0
    crossing = ~(active | dead)
    chord = where3(active, 1.0, dead, 0.0, u / torch.where(crossing, u - l, 1.0))
    slope = steeper_side(x) if alpha is None else alpha["slope"]
    low = where3(active, 1.0, dead, 0.0, slope)
    return lines((low, None), (chord, torch.where(crossing, -chord * l, 0.0)))


relu = register(elementwise_op(
    "relu", evaluate=torch.relu, interval=monotone(torch.relu), relax=relax_relu,
    alpha={"slope": Free(0.0, 1.0, steeper_side)},
    derivative=lambda x: Interval((x.lower > 0).to(x.lower), (x.upper > 0).to(x.upper)),
    breaks=(0.0,), piecewise=True, sources=("aten.relu.default", "onnx:Relu"),
))
