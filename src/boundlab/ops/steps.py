"""Functions that are constant between jumps: floor."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from boundlab.affine import LinearBound, lines
from boundlab.interval import Interval
from boundlab.ops.op import Free, elementwise_op, monotone, register


def start_floor_lower(x: Interval) -> Tensor:
    """Slope 1 or 0 of the line below, whichever is higher in the middle."""
    return (x.center.unsqueeze(1) - 1 > torch.floor(x.row_lower)).to(x.lower.dtype)


def start_floor_upper(x: Interval) -> Tensor:
    """Slope 1 or 0 of the line above, whichever is lower in the middle."""
    return (x.center.unsqueeze(1) < torch.floor(x.row_upper)).to(x.lower.dtype)


def relax_floor(x: Interval, alpha: Mapping[str, Tensor] | None = None) -> LinearBound:
    """The value where no jump lies inside; else a line below through the foot of the first jump (k + 1, k), and one above
    through the head of the last (k, k), with free slopes between 0 and 1."""
    first, last = torch.floor(x.row_lower), torch.floor(x.row_upper)
    settled = first == last
    shares = {"lower": start_floor_lower(x), "upper": start_floor_upper(x)} if alpha is None else alpha
    low, high = torch.where(settled, 0.0, shares["lower"]), torch.where(settled, 0.0, shares["upper"])
    return lines((low, first - low * (first + 1)), (high, last - high * last))


floor = register(elementwise_op(
    "floor", torch.floor, monotone(torch.floor), relax_floor, breaks=(),
    alpha={"lower": Free(0.0, 1.0, start_floor_lower), "upper": Free(0.0, 1.0, start_floor_upper)},
    sources=("aten.floor.default", "onnx:Floor"),
))
