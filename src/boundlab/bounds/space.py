"""Search spaces: which numbers of a node's lines may move, from where and how far, and the lines that they give."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from boundlab.affine import LinearBound
from boundlab.bounds.backward import Env
from boundlab.bounds.intermediate import fitting, is_affine
from boundlab.graph import Node
from boundlab.interval import Interval
from boundlab.maps import Diagonal, at_owner, flat
from boundlab.ops import lookup
from boundlab.ops.op import Choice, number_of
from boundlab.ops.support import Support

LEAST_TURN, LEAST_SIZE = 0.05, 0.2
"""Multipliers move at least by such a share of their slope, and as if their row had such a share of the row's mean size."""
Named = Mapping[str, Tensor]
Variables = Mapping[int, Named]
"""Free variables (n, 1, *shape) by node and name."""


def taken(variables: Variables, index: Tensor) -> Variables:
    """The variables of some problems: at the places `index` (m,), or where a mask is true."""
    return {node: {name: value[index] for name, value in named.items()} for node, named in variables.items()}


def one_after_another(parts: Sequence[Variables]) -> Variables:
    """The variables of all parts, which are free at the same nodes, one list after the other."""
    return {node: {name: torch.cat([part[node][name] for part in parts]) for name in named}
            for node, named in parts[0].items()}


@dataclass(frozen=True)
class Range:
    """Where a free variable starts, the ends that it stays between, and the size of a step of length 1; (n or 1, 1, *shape)."""

    start: Tensor
    low: Tensor
    high: Tensor
    scale: Tensor | float = 1.0

    def inside(self, value: Tensor) -> Tensor:
        """A value, or the end that it lies beyond."""
        return torch.minimum(torch.maximum(value, self.low), self.high)

    def take(self, index: Tensor) -> Range:
        """The ranges of the problems `index` (m,) alone."""
        start, low, high = (at_owner(part, index) for part in (self.start, self.low, self.high))
        return Range(start, low, high, at_owner(self.scale, index) if isinstance(self.scale, Tensor) else self.scale)


@dataclass(frozen=True)
class Lines:
    """Lines around a node as a function of free variables, whose ranges are in `free`."""

    free: Mapping[str, Range]
    at: Callable[[Named], LinearBound]


@dataclass(frozen=True)
class Multipliers:
    """The row of a node's argument as a function of the node's row a (n, g, *shape) and of free variables."""

    free: Mapping[str, Range]
    at: Callable[[Tensor, Named], Tensor]
    support: Support


Family = Lines | Multipliers
Prepare = Callable[[Node, Env], tuple[Tensor, ...]]


class View(Protocol):
    """What a space sees of groups of rows."""

    @property
    def env(self) -> Env:
        """The intervals that relaxations read, by group."""
        ...

    def arrived(self, node: Node) -> Tensor:
        """The rows (n, g, *shape) that reach a node where all lines are plain."""
        ...

    def prepared(self, node: Node, prepare: Prepare) -> tuple[Tensor, ...]:
        """What a function makes of a node, made once for each example and laid beside the groups."""
        ...


class Space(Protocol):
    """A choice of free variables for nonlinear nodes."""

    def family(self, node: Node, view: View) -> Family | None:
        """What is free at a node; None where nothing is."""
        ...


def free_node(node: Node, env: Env) -> bool:
    """Whether a node has a relaxation that is not exact."""
    return not node.source and any(isinstance(env[arg], Interval) for arg in node.args) and not is_affine(node, env)


@dataclass(frozen=True)
class Own:
    """What operators declare to be free (`Op.alpha`): slopes of lines through kinks, touching points of tangents.

    Lyu et al. 2020 (FROWN), Sec. 3; Xu et al. 2021 (alpha-CROWN), Sec. 3.1.
    """

    def family(self, node: Node, view: View) -> Family | None:
        env = view.env
        if not free_node(node, env) or not lookup(node.op).alpha:
            return None
        op = lookup(node.op)
        found = support_of(node, env)
        if op.prepared is not None and found is not None:
            return spanned(node, view, found[1])
        arguments = [env[arg] for arg in node.args]
        around = op.lines_around(*arguments, **node.attrs)
        ranges = {name: Range(*(number(end, node, env) for end in (free.start, free.low, free.high)))
                  for name, free in op.alpha.items()}
        return Lines(ranges, lambda named: fitting(node, around(named)))


def number(choice: Choice, node: Node, env: Env) -> Tensor:
    """A number of `Free` for a node, (n or 1, 1, *shape)."""
    return number_of(choice, [env[arg] for arg in node.args], node.attrs, node.shape).detach()


@torch.no_grad()
def span_of(node: Node, env: Env) -> tuple[Tensor, ...]:
    """Of the lower line and then of the upper one: its plain slope, and those where all free variables are at an end."""
    op = lookup(node.op)
    around = op.lines_around(*(env[arg] for arg in node.args), **node.attrs)
    lows = {name: number(free.low, node, env) for name, free in op.alpha.items()}
    highs = {name: number(free.high, node, env) for name, free in op.alpha.items()}
    plain, first, last = (slopes_of(fitting(node, around(alpha))) for alpha in (None, lows, highs))
    return tuple(part[side] for side in (0, 1) for part in (plain, first, last))


def spanned(node: Node, view: View, support: Support) -> Multipliers:
    """The lines whose slopes lie between those at the ends of an operator's own free variables, with the best intercepts.

    Free is the share of the way: much less work where lines come from a search.
    """
    low, first, last, high, begin, end = view.prepared(node, span_of)

    def share(slope: Tensor, start: Tensor, stop: Tensor) -> Range:
        apart = stop != start
        way = torch.where(apart, (slope - start) / torch.where(apart, stop - start, 1.0), 0.0)
        none = slope.new_zeros((1,) * slope.dim())
        return Range(way.clamp(0, 1), none, none + 1)

    def pulled(a: Tensor, named: Named) -> Tensor:
        lower = torch.addcmul(first, named["lower"], last - first)
        upper = torch.addcmul(begin, named["upper"], end - begin)
        return by_sign(a, lower, upper)

    return Multipliers({"lower": share(low, first, last), "upper": share(high, begin, end)}, pulled, support)


def support_of(node: Node, env: Env) -> tuple[Interval, Support] | None:
    """The interval of a node's only perturbed argument and what the operator's `support` gives there; None if it has none."""
    if not free_node(node, env):
        return None
    op, arguments = lookup(node.op), [env[arg] for arg in node.args]
    perturbed = [argument for argument in arguments if isinstance(argument, Interval)]
    if op.support is None or len(perturbed) != 1:
        return None
    return perturbed[0], op.support(*arguments, **node.attrs)


def slopes_of(bound: LinearBound) -> tuple[Tensor, Tensor]:
    """The slopes of the lower and the upper line around a function of one argument, (n or 1, 1, *shape)."""
    low, high = bound.lower.maps[0], bound.upper.maps[0]
    assert isinstance(low, Diagonal) and isinstance(high, Diagonal)
    return low.scale, high.scale


@torch.no_grad()
def plain_slopes(node: Node, env: Env) -> tuple[Tensor, ...]:
    """The slopes of the plain lower and upper line of a node."""
    return slopes_of(fitting(node, lookup(node.op).lines(*(env[arg] for arg in node.args), **node.attrs)))


def size_of_steps(x: Interval, low: Tensor, high: Tensor, support: Support) -> Tensor:
    """By how much slopes differ in earnest: the gap between the best lines of two slopes, over the width of the interval."""
    one = torch.ones_like(x.row_lower)
    below, above = support(one, low.expand_as(one)).value, -support(-one, -high.expand_as(one)).value
    gap = torch.maximum(*((high - low) * end + above - below for end in (x.row_lower, x.row_upper)))
    wide = x.width.unsqueeze(1) > 0
    return torch.where(wide, 2 * gap.clamp(min=0) / torch.where(wide, x.width.unsqueeze(1), 1.0), 0.0)


def endless(like: Tensor) -> Tensor:
    """No end, in the type of other tensors."""
    return like.new_full((1,) * like.dim(), math.inf)


def plain_of(node: Node, view: View) -> tuple[tuple[Tensor, ...], Tensor, Support] | None:
    """The slopes of a node's plain lines, by how much they differ in earnest, and its support; None if it has none."""
    found = support_of(node, view.env)
    if found is None:
        return None
    low, high = view.prepared(node, plain_slopes)
    return (low, high), size_of_steps(found[0], low, high, found[1]), found[1]


def by_sign(a: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """A row times the lower slope where it is positive, times the upper one where it is negative."""
    return a.clamp(min=0) * lower + a.clamp(max=0) * upper


@dataclass(frozen=True)
class Full:
    """Any slope of both lines of every function of one argument that has a `support`, with the best intercept.

    Others keep their own variables. Lyu et al. 2020 (FROWN), App. A.8.
    """

    def family(self, node: Node, view: View) -> Family | None:
        found = plain_of(node, view)
        if found is None:
            return Own().family(node, view)
        (low, high), scale, support = found
        end = endless(low)
        free = {name: Range(slope, -end, end, scale) for name, slope in (("lower", low), ("upper", high))}
        return Multipliers(free, lambda a, slopes: by_sign(a, slopes["lower"], slopes["upper"]), support)


@dataclass(frozen=True)
class Lagrangian:
    """Any row for the argument of each function of one argument that has a `support`: multipliers in a Lagrangian dual.

    Other operators keep their own variables. The bound is concave in all multipliers together, and its largest value is the
    optimum of the layer-wise relaxation by hulls on the same intervals: Salman et al. 2019, Eq. 11; Dvijotham et al. 2018.
    Row by row `Full` comes to the same: a multiplier is a slope times the row that arrives. What moves is its excess over that
    of the plain line, so that earlier rows follow later ones. Rows never share multipliers.
    """

    def family(self, node: Node, view: View) -> Family | None:
        found = plain_of(node, view)
        if found is None:
            return Own().family(node, view)
        (low, high), turn, support = found
        a = view.arrived(node)
        size = a.abs()
        typical = flat(size, 2).mean(2).reshape(*size.shape[:2], *[1] * (size.dim() - 2))
        slope = torch.maximum(turn, LEAST_TURN * torch.maximum(low.abs(), high.abs()))
        end, none = endless(size), torch.zeros_like(size)
        free = {"excess": Range(none, -end, end, slope * torch.maximum(size, LEAST_SIZE * typical))}
        return Multipliers(free, lambda a, named: by_sign(a, low, high) + named["excess"], support)
