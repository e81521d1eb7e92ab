"""Policies for free lower slopes: what `CROWN(alpha=...)` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from boundlab.bounds.intermediate import Policy
from boundlab.ops.op import number_of


def parallel(op: Any, *arguments: Any, **attributes: Any) -> Mapping[str, Tensor] | None:
    """Fast-Lin and CAP slopes: a free lower slope is set to the upper line's (Weng et al. 2018; Wong and Kolter 2018).

    A `Policy`: `CROWN(alpha=parallel)`.
    """
    if "slope" not in op.alpha:
        return None
    return {"slope": op.lines(*arguments, **attributes).upper.maps[0].scale}


def constant_slope(value: float) -> Policy:
    """Every free lower slope at its low end (0) or high end (1)."""

    def policy(op: Any, *arguments: Any, **attributes: Any) -> Mapping[str, Tensor] | None:
        if "slope" not in op.alpha:
            return None
        free = op.alpha["slope"]
        ends = [number_of(end, arguments, attributes, arguments[0].shape[1:]) for end in (free.low, free.high)]
        return {"slope": ends[0] + value * (ends[1] - ends[0])}

    return policy


zero_slope = constant_slope(0.0)
"""Every free lower slope at its low end: the line 0 below an unstable ReLU. A `Policy`: `CROWN(alpha=zero_slope)`."""
one_slope = constant_slope(1.0)
"""Every free lower slope at its high end: the line x below an unstable ReLU. A `Policy`: `CROWN(alpha=one_slope)`."""
