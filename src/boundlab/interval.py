"""Interval: elementwise lower and upper bounds of one value."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from boundlab.maps import CenterAndRadius, Ends, at_owner, flat


@dataclass(frozen=True)
class Interval:
    """All tensors between `lower` and `upper`, elementwise; both have shape (b, *shape).

    Rules that work with rows read `row_lower` and `row_upper`, of shape (b, 1, *shape).
    """

    lower: Tensor
    upper: Tensor

    @property
    def shape(self) -> torch.Size:
        """Shape with the batch axis, (b, *shape)."""
        return self.lower.shape

    @property
    def center(self) -> Tensor:
        """Midpoint, (b, *shape)."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width, (b, *shape)."""
        return (self.upper - self.lower) / 2

    @property
    def width(self) -> Tensor:
        """Upper minus lower, (b, *shape)."""
        return self.upper - self.lower

    def center_and_radius(self) -> tuple[Tensor, Tensor]:
        """Both at once, which spares gradients half of the work."""
        center, radius = CenterAndRadius.apply(self.lower, self.upper)
        return center, radius

    @property
    def row_lower(self) -> Tensor:
        """Lower bound with a row axis, (b, 1, *shape)."""
        return self.lower.unsqueeze(1)

    @property
    def row_upper(self) -> Tensor:
        """Upper bound with a row axis, (b, 1, *shape)."""
        return self.upper.unsqueeze(1)

    def map(self, function: Callable[[Tensor], Tensor]) -> Interval:
        """The same tensor function on both ends, for what keeps order (reshape, detach, a monotone function)."""
        return Interval(function(self.lower), function(self.upper))

    def meet(self, other: Interval) -> Interval:
        """The intersection; sound wherever both intervals hold."""
        return Interval(torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper))

    def hull(self, other: Interval) -> Interval:
        """The smallest interval that holds both."""
        return Interval(torch.minimum(self.lower, other.lower), torch.maximum(self.upper, other.upper))

    def at(self, owner: Tensor) -> Interval:
        """The intervals that rows with owners (n,) read; one that all problems share stays shared."""
        return Interval(at_owner(self.lower, owner), at_owner(self.upper, owner))

    def contains(self, value: Tensor) -> Tensor:
        """Whether every entry of `value` (b, *shape) lies inside, (b,) booleans; NaN is never inside."""
        inside = (self.lower <= value) & (value <= self.upper)
        return flat(inside, 1).all(dim=1)


def times(x: Interval, y: Interval) -> Interval:
    """Range of products of entries that vary on their own: the least and the largest of the four products of ends."""
    products = [first * second for first in (x.lower, x.upper) for second in (y.lower, y.upper)]
    return Interval(functools.reduce(torch.minimum, products), functools.reduce(torch.maximum, products))


def around(center: Tensor, radius: Tensor) -> Interval:
    """The interval from center - radius to center + radius, both (b, *shape)."""
    return Interval(*Ends.apply(center, radius))


def point(value: Tensor) -> Interval:
    """The interval that holds one value."""
    return Interval(value, value)


MOST_ORDER = 16.0
"""Norms of a higher order are bounded by this one, so that powers of small numbers do not vanish."""


@dataclass(frozen=True)
class Ball(Interval):
    """The box around an l_p ball, which remembers that all values lie within `eps` (b, 1, ..., 1) of its center in that norm.

    Rules that ask for no more than the ends may treat it as a box, which it is inside of.
    """

    eps: Tensor
    p: float

    def at(self, owner: Tensor) -> Ball:
        lower, upper, eps = (at_owner(part, owner) for part in (self.lower, self.upper, self.eps))
        return replace(self, lower=lower, upper=upper, eps=eps)

    @property
    def order(self) -> float:
        """The order of the norm that bounds linear functions on the ball; of a high one, a lower order that is sound too."""
        return min(dual_order(self.p), MOST_ORDER)

    @property
    def sharp(self) -> bool:
        """Whether that norm is the dual one itself."""
        return dual_order(self.p) <= MOST_ORDER


def dual_order(p: float) -> float:
    """q with 1/p + 1/q = 1: the norm that bounds linear functions on an l_p ball (Hoelder)."""
    return math.inf if p == 1 else 1.0 if math.isinf(p) else p / (p - 1)


def laid_together(parts: Sequence[Interval]) -> Interval:
    """The intervals of several groups of problems as one."""
    lower, upper = torch.cat([part.lower for part in parts]), torch.cat([part.upper for part in parts])
    balls = [part for part in parts if isinstance(part, Ball)]
    if len(balls) < len(parts):
        return Interval(lower, upper)
    eps = torch.cat([ball.eps.expand(len(ball.lower), *ball.eps.shape[1:]) for ball in balls])
    return replace(balls[0], lower=lower, upper=upper, eps=eps)
