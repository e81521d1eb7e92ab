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


def weighted(x: Shape, weight: Shape, bias: int, **attributes: Any) -> tuple[Case, ...]:
    """A layer with its weight perturbed: alone, beside its input, and all three arguments; and its bias alone."""
    varied, fixed = (Vary(x), Vary(weight), Vary((bias,))), (numbers(*x), numbers(*weight), numbers(bias))
    chosen = ((False, True, False), (True, True, True), (True, True, False), (False, True, True), (True, False, True),
              (False, False, True))
    return tuple(Case(tuple(vary if yes else constant for yes, vary, constant in zip(which, varied, fixed, strict=True)),
                      attributes) for which in chosen)


def pooled(size: Shape, **attributes: Any) -> Case:
    """One perturbed image."""
    return Case((Vary(size),), attributes)


POSITIVE = Vary(low=0.01)
UNIT = Vary(low=-1.0, high=1.0)
CASES: dict[str, tuple[Case, ...]] = {
    "add": binary(((3, 4), (1, 4))),
    "sub": binary(((3, 4), (1, 4))),
    "mul": binary(((3, 4), (1, 4))),
    "linear": (
        Case((Vary((4,)), numbers(3, 4), numbers(3))), Case((Vary((2, 4)), numbers(3, 4))),
        *weighted((4,), (3, 4), 3), *weighted((2, 4), (3, 4), 3),
    ),
    "matmul": (
        Case((Vary((2, 3, 4)), Vary((2, 4, 2)))), Case((Vary((2, 3, 4)), numbers(2, 4, 2))),
        Case((numbers(2, 3, 4), Vary((2, 4, 2)))),
    ),
    "conv": (
        Case((Vary((2, 5, 4)), numbers(4, 1, 3, 2), numbers(4)),
             {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}),
        Case((Vary((2, 6)), numbers(3, 2, 3)), {"stride": (1,), "padding": (1,), "dilation": (1,), "groups": 1}),
        *weighted((2, 5, 4), (4, 1, 3, 2), 4, stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
        *weighted((2, 5), (3, 2, 3), 3, stride=(2,), padding=(1,), dilation=(1,), groups=1)[:2],
        *weighted((2, 3, 2, 3), (2, 1, 2, 1, 2), 2, stride=(1, 1, 2), padding=(0, 1, 0), dilation=(2, 1, 1), groups=2)[:2],
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
    "conv_transpose": (
        Case((Vary((4, 3, 4)), numbers(4, 1, 3, 2), numbers(2)), {
            "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "output_padding": (1, 0), "groups": 2}),
        *weighted((4, 3, 4), (4, 1, 3, 2), 2, stride=(2, 1), padding=(1, 0), dilation=(1, 2), output_padding=(1, 0), groups=2),
        *weighted((3, 4), (3, 2, 2), 2, stride=(3,), padding=(2,), dilation=(1,), output_padding=(0,), groups=1)[:2],
    ),
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
        (Vary(low=0.05), -2), (POSITIVE, -0.5), (Vary(), 3), (Vary(), 5), (Vary(low=0.0), 2.5), (POSITIVE, -3))),
    "log2": (Case((POSITIVE,)),),
    "log10": (Case((POSITIVE,)),),
    "log1p": (Case((Vary(low=-0.99),)),),
    "acosh": (Case((Vary(low=1.0),)), Case((Vary(low=1.1),))),
    "asin": (Case((UNIT,)),),
    "acos": (Case((UNIT,)),),
    "tan": (Case((Vary(low=-1.5, high=1.5),)), Case((Vary(low=7.9, high=10.9),))),
    "sec": (Case((Vary(low=-1.5, high=1.5),)), Case((Vary(low=1.6, high=4.7),))),
    "atanh": (Case((Vary(low=-0.99, high=0.99),)),),
    "elu": (Case(), Case(attributes={"scale": 0.4}), Case(attributes={"scale": 1.6732632423543772}),
            Case(attributes={"scale": 2.0, "rate": 0.5}), Case(attributes={"scale": 0.0})),
    "leaky_relu": (Case(), Case(attributes={"negative_slope": 0.3}), Case(attributes={"negative_slope": -0.5}),
                   Case(attributes={"negative_slope": 1.7})),
    "prelu": (Case((Vary((3, 4)), numbers(3, 1))), Case((Vary((3, 4)), 2 * numbers(3, 4)))),
    "clip": (Case(attributes={"min": -1.0, "max": 1.5}), Case(attributes={"min": 0.0, "max": 6.0}),
             Case(attributes={"min": -0.5}), Case(attributes={"max": 0.5})),
    "norm": (pooled((3, 4), dim=1), pooled((3, 2), dim=0, keepdim=True), pooled((2, 1), dim=1)),
    "select": (Case((Vary(), Vary(), Vary())), Case((Vary(), numbers(3, 4), Vary()), {"at_zero": True}),
               Case((Vary(), Vary(), numbers(1, 4))), Case((Vary(), numbers(3, 4), numbers(1, 4))),
               Case((numbers(3, 4), Vary(), Vary())), Case((numbers(1, 4), numbers(3, 4), Vary()))),
    "softplus": (Case(), Case(attributes={"threshold": 20.0}), Case(attributes={"threshold": 0.5}),
                 Case(attributes={"threshold": -1.0})),
    "heaviside": (Case(), Case(attributes={"at_zero": 0.5}), Case(attributes={"at_zero": 2.0})),
    "threshold": (Case(attributes={"threshold": 0.5, "value": -1.0}), Case(attributes={"threshold": -0.7, "value": 2.0}),
                  Case(attributes={"threshold": 0.0, "value": 0.0})),
    "hard_shrink": (Case(), Case(attributes={"lambd": 2.0}), Case(attributes={"lambd": 0.0})),
    "soft_shrink": (Case(), Case(attributes={"lambd": 2.0}), Case(attributes={"lambd": 0.0})),
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
