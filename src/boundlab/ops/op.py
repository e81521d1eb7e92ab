"""Op: everything boundlab knows about one primitive, in one record; and the constructors that derive most of it.

An affine operator gives its maps, an elementwise one its interval and its two lines; all else follows from these.
Arguments of rules are an `Interval` where perturbed and a tensor (b or 1, *shape) where constant. Constant arguments may
broadcast; perturbed ones have the output's shape (capture sees to both).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import Affine, LinearBound, constants, exact
from boundlab.errors import UnsupportedOperator
from boundlab.interval import Interval, point
from boundlab.maps import LinearMap, Shape
from boundlab.ops.support import Support

Argument = Tensor | Interval
Choice = float | Callable[..., Tensor]
Breaks = tuple[float, ...]
Alpha = Mapping[str, Tensor] | None


@dataclass(frozen=True)
class Free:
    """A number that an optimiser may move between `low` and `high`: one for each coordinate of the output (b, s, *shape).

    Each of the three is a float, or a function of the operator's arguments and attributes that gives (b, 1, *shape).
    `relax` with every variable at `start` equals `relax` with none, so optimised bounds begin at the plain ones.
    """

    low: Choice
    high: Choice
    start: Choice


def number_of(choice: Choice, arguments: Sequence[Argument], attributes: Mapping[str, Any], shape: Shape) -> Tensor:
    """A number of `Free` for a call whose result has `shape`, or what its function gives there, (b or 1, 1, *shape)."""
    if callable(choice):
        return choice(*arguments, **attributes)
    like = next(argument.lower for argument in arguments if isinstance(argument, Interval))
    return like.new_full((1, 1, *shape), choice)


class Guided(torch.autograd.Function):
    """A value with the gradient of another."""

    @staticmethod
    def forward(context: Any, value: Tensor, guide: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


@dataclass(frozen=True)
class Op:
    """One primitive: its meaning, its interval, its relaxation, and what solvers and searches may use.

    Without `relax` (None) bounds fall back to the interval: `lines` is then constant, and results say so in `Bounds.notes`.
    `breaks` are the places where a split of the argument makes the operator simpler: () means anywhere, None nowhere; a
    function of the node's attributes where they depend on them. `piecewise` says that it is affine between them; `balls`
    that its interval is exact where all but the first argument vary in balls. `prepared` gives `relax` around a call as a
    function of `alpha` alone, where much of the work does not depend on that. `support` gives, for a function of one perturbed
    argument, coordinate by coordinate, the least value of a f(z) - m z on its interval (`ops/support.py`). `derivative` gives
    the slopes of a function of each coordinate on an interval of its first argument, `lipschitz` how much longer a function
    that mixes coordinates makes a step in l_2 at most, of all perturbed arguments together. `moves` says that each output is
    one of the entries of the only argument. `integers` gives, for an operator
    that is the largest of affine functions of its arguments, these functions. `meaning` is a formula or a few words for the
    list of operators.
    """

    name: str
    evaluate: Callable[..., Tensor]
    interval: Callable[..., Interval]
    relax: Callable[..., LinearBound] | None
    affine: Callable[[tuple[bool, ...]], bool]
    alpha: Mapping[str, Free] = field(default_factory=dict)
    derivative: Callable[..., Interval] | None = None
    lipschitz: float | None = None
    integers: Callable[..., tuple[Affine, ...]] | None = None
    breaks: Breaks | Callable[..., Breaks] | None = None
    piecewise: bool = False
    balls: bool = False
    prepared: Callable[..., Callable[[Alpha], LinearBound]] | None = None
    support: Callable[..., Support] | None = None
    guide: Callable[..., Tensor] | None = None
    ranks: bool = False
    moves: bool = False
    sources: tuple[str, ...] = ()
    meaning: str = ""

    def guided(self, *arguments: Tensor, **attributes: Any) -> Tensor:
        """`evaluate`, with the slopes of `guide` where there is one (Bengio et al. 2013, the straight-through estimator)."""
        value = self.evaluate(*arguments, **attributes)
        return value if self.guide is None else Guided.apply(value.detach(), self.guide(*arguments, **attributes))

    def lines(self, *arguments: Argument, alpha: Mapping[str, Tensor] | None = None, **attributes: Any) -> LinearBound:
        """The relaxation around a call, with `alpha` for its free variables; without one, the ends of the interval."""
        if self.relax is None:
            return constants(self.interval(*arguments, **attributes), intervals_of(arguments))
        return self.relax(*arguments, alpha=alpha, **attributes)

    def lines_around(self, *arguments: Argument, **attributes: Any) -> Callable[[Alpha], LinearBound]:
        """`lines` around a call as a function of the free variables, for callers that try many."""
        if self.prepared is not None:
            return self.prepared(*arguments, **attributes)
        return lambda alpha: self.lines(*arguments, alpha=alpha, **attributes)

    def breaks_of(self, attributes: Mapping[str, Any]) -> Breaks | None:
        """The breaks of a node with these attributes."""
        return self.breaks(**attributes) if callable(self.breaks) else self.breaks

    def unsettled(self, x: Interval, attributes: Mapping[str, Any]) -> Tensor:
        """Where a tighter interval of an argument would make the relaxation tighter, (b, *shape) booleans.

        An operator that is affine between its breaks gains only where a break lies inside.
        """
        if not self.piecewise:
            return x.width > 0
        inside = torch.zeros_like(x.lower, dtype=torch.bool)
        for place in self.breaks_of(attributes) or ():
            inside = inside | ((x.lower < place) & (place < x.upper))
        return inside


REGISTRY: dict[str, Op] = {}
RULES: dict[tuple[str, str], Callable[..., Any]] = {}


def register(op: Op) -> Op:
    """Make an operator known to capture and to every method; a second one of the same name replaces the first."""
    REGISTRY[op.name] = op
    return op


def lookup(name: str) -> Op:
    """The operator called `name`; UnsupportedOperator if nobody registered it."""
    if name not in REGISTRY:
        raise UnsupportedOperator(f"no operator is called '{name}'; register one (docs: add an operator).")
    return REGISTRY[name]


def by_source() -> dict[str, Op]:
    """Operators by the framework names that lower to them one to one ("aten.relu.default", "onnx:Relu")."""
    return {source: op for op in REGISTRY.values() for source in op.sources}


def register_rule(kind: str, op: str, rule: Callable[..., Any]) -> None:
    """Attach a rule of a new kind (say "zonotope") to an operator, for a method defined elsewhere."""
    RULES[kind, op] = rule


def rule(kind: str, op: str) -> Callable[..., Any] | None:
    """The rule of `kind` for operator `op`, or None."""
    return RULES.get((kind, op))


def always(perturbed: tuple[bool, ...]) -> bool:
    """Affine whatever is perturbed."""
    return True


def never(perturbed: tuple[bool, ...]) -> bool:
    """Nonlinear in every argument."""
    return False


def at_most_one(perturbed: tuple[bool, ...]) -> bool:
    """Affine in each argument while the others are constant: a product."""
    return sum(perturbed) <= 1


def push_interval(layer: LinearMap, x: Interval, offset: Tensor | None = None) -> Interval:
    """The image of an interval, moved by `offset` (b or 1, *out or broadcastable)."""
    return Interval(*layer.image(x.lower, x.upper, offset))


def affine_interval(bound: LinearBound, perturbed: list[Interval]) -> Interval:
    """Interval of an exact relaxation: the sum of the images, plus the bias."""
    bias = None if bound.lower.bias is None else bound.lower.bias.squeeze(1)
    pairs = list(zip(bound.lower.maps, perturbed, strict=True))
    total = push_interval(*pairs[0], bias)
    for pair in pairs[1:]:
        image = push_interval(*pair)
        total = Interval(total.lower + image.lower, total.upper + image.upper)
    return total


def intervals_of(arguments: tuple[Argument, ...]) -> list[Interval]:
    """The perturbed arguments, in order."""
    return [argument for argument in arguments if isinstance(argument, Interval)]


def region_of(argument: Argument) -> Interval:
    """An argument as an interval; a constant is one point."""
    return argument if isinstance(argument, Interval) else point(argument)


def affine_op(
    name: str,
    evaluate: Callable[..., Tensor],
    maps: Callable[..., tuple[LinearMap, ...]],
    *,
    bias: Callable[..., Tensor | None] | None = None,
    sources: tuple[str, ...] = (),
    meaning: str = "",
) -> Op:
    """An operator that is affine in all its perturbed arguments together.

    `maps(*arguments, **attributes)` gives one map for each perturbed argument, in order; `bias` what the constant ones
    add, (b or 1, 1, *out) or None.
    """

    def relax(*arguments: Argument, alpha: None = None, **attributes: Any) -> LinearBound:
        offset = bias(*arguments, **attributes) if bias else None
        return exact(*maps(*arguments, **attributes), bias=offset)

    def interval(*arguments: Argument, **attributes: Any) -> Interval:
        return affine_interval(relax(*arguments, **attributes), intervals_of(arguments))

    return Op(name, evaluate, interval, relax, always, sources=sources, meaning=meaning)


def monotone(f: Callable[[Tensor], Tensor]) -> Callable[[Interval], Interval]:
    """Interval rule of an increasing function."""
    return lambda x: x.map(f)


def antitone(f: Callable[[Tensor], Tensor]) -> Callable[[Interval], Interval]:
    """Interval rule of a decreasing function."""
    return lambda x: Interval(f(x.upper), f(x.lower))


def interval_op(name: str, evaluate: Callable[..., Tensor], interval: Callable[..., Interval], **fields: Any) -> Op:
    """An operator without a relaxation: every method uses its interval there, which is sound and loose.

    It may take several arguments, and mix their coordinates; `fields` are further fields of `Op`.
    """
    return Op(name, evaluate, interval, None, never, **fields)


def elementwise_op(name: str, evaluate: Callable[..., Tensor], interval: Callable[..., Interval],
                   relax: Callable[..., LinearBound], **fields: Any) -> Op:
    """A nonlinear function of each coordinate on its own; `fields` are further fields of `Op`."""
    return Op(name, evaluate, interval, relax, never, **fields)
