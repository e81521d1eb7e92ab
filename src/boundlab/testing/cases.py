"""Example calls of operators for `check_operator`: which arguments vary, over which domain, with which attributes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from boundlab.maps import Shape


@dataclass(frozen=True)
class Vary:
    """A perturbed argument of `shape` (without batch) with entries between `low` and `high`, the operator's domain."""

    shape: Shape = (3, 4)
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Case:
    """One way to call an operator: perturbed arguments and constant ones (1, *shape), in order, and its attributes."""

    arguments: tuple[Vary | Tensor, ...] = (Vary(),)
    attributes: Mapping[str, Any] = field(default_factory=dict)


def numbers(*shape: int) -> Tensor:
    """Fixed irregular constants of both signs, (1, *shape), in double precision."""
    return torch.sin(torch.arange(1.0, math.prod(shape) + 1, dtype=torch.float64) * 7.3).reshape(1, *shape)


def binary(*shapes: tuple[Shape, Shape]) -> tuple[Case, ...]:
    """Both arguments perturbed, then each alone against a constant of the second shape."""
    first, small = shapes[0]
    return (Case((Vary(first), Vary(first))), Case((Vary(first), numbers(*small))), Case((numbers(*small), Vary(first))))


def pooled(size: Shape, **attributes: Any) -> Case:
    """One perturbed image."""
    return Case((Vary(size),), attributes)


POSITIVE = Vary(low=0.01)
CASES: dict[str, tuple[Case, ...]] = {
    "add": binary(((3, 4), (1, 4))),
    "sub": binary(((3, 4), (1, 4))),
    "mul": binary(((3, 4), (1, 4))),
    "linear": (Case((Vary((4,)), numbers(3, 4), numbers(3))), Case((Vary((2, 4)), numbers(3, 4)))),
    "matmul": (
        Case((Vary((2, 3, 4)), Vary((2, 4, 2)))), Case((Vary((2, 3, 4)), numbers(2, 4, 2))),
        Case((numbers(2, 3, 4), Vary((2, 4, 2)))),
    ),
    "conv": (
        Case((Vary((2, 5, 4)), numbers(4, 1, 3, 2), numbers(4)),
             {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}),
        Case((Vary((2, 6)), numbers(3, 2, 3)), {"stride": (1,), "padding": (1,), "dilation": (1,), "groups": 1}),
    ),
    "reshape": (pooled((2, 3, 4), shape=(6, 4)),),
    "permute": (pooled((2, 3, 4), dims=(2, 0, 1)),),
    "slice": (pooled((2, 3, 4), slices=(slice(1, 2, 1), slice(0, 3, 2), slice(1, 4, 1))),),
    "gather": (pooled((2, 3), index=torch.tensor([5, 0, 0, 3]), shape=(2, 2)),),
    "expand": (pooled((3, 1, 2), shape=(3, 4, 2)),),
    "pad": (pooled((2, 3), before=(1, 0), shape=(4, 5), value=0.5), pooled((2, 3), before=(0, 2), shape=(2, 6))),
    "concat": (Case((Vary((2, 3)), numbers(1, 3), Vary((2, 3))), {"dim": 0}), Case((Vary((2, 3)), Vary((2, 1))), {"dim": 1})),
    "sum": (pooled((2, 3, 4), dims=(0, 2), keepdim=False), pooled((2, 3), dims=(1,), keepdim=True)),
    "mean": (pooled((2, 3, 4), dims=(1, 2), keepdim=True), pooled((2, 3), dims=(0,))),
    "conv_transpose": (Case((Vary((4, 3, 4)), numbers(4, 1, 3, 2), numbers(2)), {
        "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "output_padding": (1, 0), "groups": 2}),),
    "argmax": (pooled((3, 4), dim=1), pooled((3, 2), dim=0, keepdim=True)),
    "pick": (
        Case((Vary((4, 3)), torch.tensor([[2, 0, -1]])), {"dim": 0}), Case((numbers(2, 4, 2), Vary((3,), 0, 3)), {"dim": 1}),
        Case((Vary((4, 3)), Vary((2, 2), -4, 3)), {"dim": 0}),
    ),
    "places": (Case((Vary((2, 3)),), {"size": 5, "length": 3}), Case((Vary((1,), 0, 9),), {"size": 4, "length": 1})),
    "put": (Case((Vary((3, 2)), Vary((2, 1)), Vary((2, 2)))),
            Case((Vary((3, 2)), torch.tensor([[[0, 1], [5, 0]]]), Vary((2,)))),
            Case((numbers(3, 2), Vary((1, 2), 0, 2), numbers(1)))),
    "computed": (),  # its arguments never vary
    "log": (Case((POSITIVE,)),),
    "pow": tuple(Case((vary,), {"exponent": float(exponent)}) for vary, exponent in (
        (Vary(), 2), (Vary(), 4), (Vary(low=0.0), 0.5), (POSITIVE, 1.5), (POSITIVE, -1), (Vary(high=-0.05), -3),
        (Vary(low=0.05), -2), (POSITIVE, -0.5))),
    "odd_pow": (Case(attributes={"exponent": 3.0}), Case(attributes={"exponent": 5.0})),
    "leaky_relu": (Case(), Case(attributes={"negative_slope": 0.3}), Case(attributes={"negative_slope": -0.5}),
                   Case(attributes={"negative_slope": 1.7})),
    "prelu": (Case((Vary((3, 4)), numbers(3, 1))), Case((Vary((3, 4)), 2 * numbers(3, 4)))),
    "clip": (Case(attributes={"min": -1.0, "max": 1.5}), Case(attributes={"min": 0.0, "max": 6.0}),
             Case(attributes={"min": -0.5}), Case(attributes={"max": 0.5})),
    "maximum": binary(((3, 4), (1, 4))),
    "reduce_max": (pooled((3, 4), dim=1), pooled((3, 4), dim=0, keepdim=True), pooled((3, 1), dim=1),
                   pooled((2, 4), dim=1, absent=torch.tensor([[False, True, False, False], [True, True, True, False]]))),
    "softmax": (pooled((2, 4), dim=1), pooled((3, 2), dim=0), pooled((2, 1), dim=1)),
    "log_softmax": (pooled((2, 4), dim=1), pooled((3, 2), dim=0)),
    "logsumexp": (pooled((2, 4), dim=1), pooled((3, 2), dim=0, keepdim=True)),
    "sqrt": (Case((POSITIVE,)), Case((Vary(low=0.0),))),
    "rsqrt": (Case((POSITIVE,)),),
    "reciprocal": (Case((POSITIVE,)), Case((Vary(high=-0.01),))),
}
"""Cases of the operators that are not functions of one coordinate anywhere on the real line, by name."""


def cases_of(name: str) -> tuple[Case, ...]:
    """The example calls of an operator: those in the table, else one perturbed argument anywhere and no attributes."""
    return CASES.get(name, (Case(),))
