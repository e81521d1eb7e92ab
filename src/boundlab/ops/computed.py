"""Values of parameters alone, by an operator of torch that has no rules here: what parametrizations make of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from boundlab.errors import MissingRule
from boundlab.interval import Interval
from boundlab.ops.op import Argument, interval_op, register

Place = tuple[bool, Any]


def computed_values(*arguments: Tensor, function: Callable[..., Any], call: tuple[Place, ...], result: int | None) -> Tensor:
    """What `function` gives for tensors (b, *shape) without their batch; one of several results by number.

    `call` lays out its arguments: (True, number of a tensor), or (False, a plain value).
    """

    def alone(problem: int) -> Tensor:
        own = [part[min(problem, len(part) - 1)] for part in arguments]
        found: Any = function(*(own[value] if tensor else value for tensor, value in call))
        return found if result is None else found[result]

    return torch.stack([alone(problem) for problem in range(max(map(len, arguments)))])


def no_interval(*arguments: Argument, function: Callable[..., Any], **attributes: Any) -> Interval:
    """MissingRule: such operators are for constants."""
    raise MissingRule(f"a parameter is perturbed that enters {function}, which is known for constants only; perturb what it "
                      "gives (the weight that a parametrization makes), or register an operator for it.")


computed = register(interval_op("computed", computed_values, no_interval,
                                meaning="a function of parameters alone, computed by torch"))
