"""Search spaces: which numbers of a node's lines may move, from where and how far, and the lines that they give."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from boundlab.affine import LinearBound
from boundlab.bounds.backward import Env
from boundlab.bounds.intermediate import fitting, is_affine
from boundlab.graph import Node
from boundlab.interval import Interval
from boundlab.ops import lookup
from boundlab.ops.op import Choice

Named = Mapping[str, Tensor]
Variables = Mapping[int, Named]
"""Free variables (n, 1, *shape) by node and name."""


@dataclass(frozen=True)
class Range:
    """Where a free variable starts, the ends that it stays between, and the size of a step of length 1; (n or 1, 1, *shape)."""

    start: Tensor
    low: Tensor
    high: Tensor
    scale: Tensor | float = 1.0


@dataclass(frozen=True)
class Family:
    """All lines around one node that a space has: the ranges of their free variables, and the lines at given ones."""

    free: Mapping[str, Range]
    lines: Callable[[Named], LinearBound]


class Space(Protocol):
    """A choice of free variables for nonlinear nodes."""

    def family(self, node: Node, env: Env) -> Family | None:
        """The node's lines on the intervals `env`; None where nothing is free."""
        ...


def free_node(node: Node, env: Env) -> bool:
    """Whether a node has a relaxation that is not exact."""
    return not node.source and any(isinstance(env[arg], Interval) for arg in node.args) and not is_affine(node, env)


@dataclass(frozen=True)
class Own:
    """What operators declare to be free (`Op.alpha`): slopes of lines through kinks, touching points of tangents.

    Lyu et al. 2020 (FROWN), Sec. 3; Xu et al. 2021 (alpha-CROWN), Sec. 3.1.
    """

    def family(self, node: Node, env: Env) -> Family | None:
        if not free_node(node, env) or not lookup(node.op).alpha:
            return None
        op, arguments = lookup(node.op), [env[arg] for arg in node.args]
        like = next(argument.lower for argument in arguments if isinstance(argument, Interval))

        def number(choice: Choice) -> Tensor:
            if callable(choice):
                return choice(*arguments, **node.attrs).detach()
            return like.new_full((1, 1, *node.shape), choice)

        around = op.lines_around(*arguments, **node.attrs)
        ranges = {name: Range(number(free.start), number(free.low), number(free.high)) for name, free in op.alpha.items()}
        return Family(ranges, lambda named: fitting(node, around(named)))
