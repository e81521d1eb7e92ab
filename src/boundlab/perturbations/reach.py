"""What an l_p ball (1 <= p < inf) reaches inside a box: linear minima over it and projections onto it, batched.

Coordinates are centred at the ball: v = x - center, |v|_p <= radius and lower <= v <= upper. The centre may lie outside
the box; then `forced`, the box's point nearest to it, spends a part of the radius before anything can be gained.
Minima are values of the Lagrange dual, which is a lower bound at any multiplier, so a search that stops early or rounds
makes a bound looser and never wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_STEPS = 40
"""Steps of `budget_root` at most; 3 to 8 are usual."""
MOST_CELLS = 2**23
"""Coefficients that are worked on at once; more rows or problems than that are taken in halves."""

KEPT = 32
"""Shares, in units of rounding, that a point may spend above `left` and stays where it is; `LpBall.within` draws in by more."""


@dataclass(frozen=True)
class Reach:
    """Ball and box in centred coordinates: `lower`, `upper` (m, 1, k), `radius` and `left` (m, 1), m = 1 if shared.

    `left` is the share of radius^p that the forced part leaves over. The box lies within +-radius.
    """

    p: float
    lower: Tensor
    upper: Tensor
    radius: Tensor
    left: Tensor

    @property
    def unit(self) -> Tensor:
        """The radius beside coordinates, (m, 1, 1); 1 where it is 0."""
        return torch.where(self.radius > 0, self.radius, 1.0).unsqueeze(-1)

    @property
    def forced(self) -> Tensor:
        """The point of the box nearest to the ball's centre, (m, 1, k); 0 if the centre lies in the box."""
        return self.lower.clamp(min=0) + self.upper.clamp(max=0)

    def share(self, v: Tensor) -> Tensor:
        """What each coordinate of v spends of the ball: (|v| / radius)^p."""
        return (v.abs() / self.unit) ** self.p

    def corner(self, c: Tensor) -> Tensor:
        """The corner of the box where c . v is smallest, and the forced part where c is 0."""
        return torch.where(c > 0, self.lower, torch.where(c < 0, self.upper, self.forced))

    def overspent(self, v: Tensor) -> Tensor:
        """By which share of radius^p each v spends more than is left, (n, s); negative inside the ball."""
        return (self.share(v) - self.share(self.forced)).sum(-1) - self.left

    def clip(self, v: Tensor) -> Tensor:
        """Into the box."""
        return torch.minimum(torch.maximum(v, self.lower), self.upper)

    def part(self, place: slice) -> Reach:
        """Some of the problems."""
        if self.lower.shape[0] == 1:
            return self
        return Reach(self.p, self.lower[place], self.upper[place], self.radius[place], self.left[place])

    def minimum(self, c: Tensor) -> Tensor:
        """The minimum of c . v, or a lower bound equal to it up to rounding, (n, s) for c (n or 1, s, k)."""
        batch, rows = max(c.shape[0], self.lower.shape[0]), c.shape[1]
        if batch * rows * c.shape[2] <= MOST_CELLS or batch == rows == 1:
            return minimum_l1(c, self) if self.p == 1 else minimum_between(c, self)
        if rows > 1:
            return torch.cat([self.minimum(half) for half in c.chunk(2, 1)], 1)
        halves = slice(0, batch // 2), slice(batch // 2, batch)
        return torch.cat([self.part(half).minimum(c if c.shape[0] == 1 else c[half]) for half in halves])

    def project(self, z: Tensor) -> Tensor:
        """A feasible v near z (m, r, k): the nearest for p of 1 and 2, else z shrunk towards the centre and clipped.

        What spends hardly more than is left stays where it is. Where the box leaves coordinates little room, a share of
        rounding's size is a long way, so that a projected point would move each time it is projected again.
        """
        clipped = self.clip(z)
        kept = self.overspent(clipped) <= KEPT * torch.finfo(z.dtype).eps
        return torch.where(kept.unsqueeze(-1), clipped, project_l1(z, self) if self.p == 1 else project_radially(z, self))


@torch.no_grad()
def budget_root(gain: Tensor, spent: Tensor, limit: Tensor, left: Tensor) -> Tensor:
    """The s >= 0 where clip(s gain, spent, limit) - spent sums to `left` over coordinates, (n, s, 1); inf if none does.

    Newton's method on a piecewise linear function, inside a bracket that is halved (in logarithms) where a step leaves
    it. While nothing is forced (spent = 0) the function is concave and the steps rise to the exact root in finitely many.
    """
    tiny, huge, rounding = torch.finfo(gain.dtype).tiny, torch.finfo(gain.dtype).max / 16, 4 * torch.finfo(gain.dtype).eps
    active = (limit - spent).sum(-1, keepdim=True) > left
    low = (left / gain.sum(-1, keepdim=True).clamp(min=tiny)).clamp(tiny, huge)
    high = torch.where(gain > 0, limit / gain.clamp(min=tiny), 0.0).amax(-1, keepdim=True).clamp(max=huge)
    high, s = torch.where(active, torch.maximum(high, low), low), low
    for _ in range(MOST_STEPS):
        grown = s * gain
        excess = (torch.minimum(torch.maximum(grown, spent), limit) - spent).sum(-1, keepdim=True) - left
        low, high = torch.where(excess <= 0, s, low), torch.where(excess >= 0, s, high)
        slope = (gain * ((grown >= spent) & (grown < limit))).sum(-1, keepdim=True)
        newton = s - excess / slope.clamp(min=tiny)
        inside = (low < newton) & (newton < high)
        found = excess.abs() <= rounding * left  # a root is an end of its bracket, which Newton's step may not leave
        previous, s = s, torch.where(found, s, torch.where(inside, newton, low.sqrt() * high.sqrt()))
        near = (s - previous).abs() <= rounding * s
        if bool(near[active].all()):
            break
    return torch.where(active, torch.where(near, s, low), torch.inf)


def minimum_between(c: Tensor, reach: Reach) -> Tensor:
    """Minimum of c . v for 1 < p < inf, (n, s): the Lagrangian at its minimiser for the multiplier that was found.

    Stationarity gives v = clip(-sign(c) t |c|^(q-1), lower, upper) with 1/p + 1/q = 1 and |v|_p = radius; in shares of
    the ball the unknown is s = t^p. Multiplier and free coordinates are constants for autograd (envelope theorem).
    """
    p, q = reach.p, reach.p / (reach.p - 1)
    corner, unit = reach.corner(c), reach.unit
    with torch.no_grad():
        size = c.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(c.dtype).tiny)
        gain = (c.abs() / size) ** q
        s = budget_root(gain, reach.share(reach.forced), reach.share(corner), reach.left.unsqueeze(-1))
        beyond = corner - c.sign() * unit  # at the corner itself gradients would be shared between it and the point
        stationary = torch.where(s.isinf(), beyond, -c.sign() * unit * (s * gain) ** (1 / p))
        multiplier = size * unit / (p * s ** (1 / q))
    v = reach.clip(stationary)
    return torch.linalg.vecdot(c, v) + multiplier.squeeze(-1) * reach.overspent(v)


def minimum_l1(c: Tensor, reach: Reach) -> Tensor:
    """Minimum of c . v for p = 1, (n, s): a fractional knapsack, the largest |c| first (Dantzig 1957).

    As a dual value: c . forced - rate left - sum of room (|c| - rate)_+, a lower bound for every rate >= 0. The rate is
    the |c| of the coordinate at which the radius is used up, 0 if the box ends first.
    """
    c, corner = torch.broadcast_tensors(c, reach.corner(c))
    room, size, left = (corner - reach.forced).abs(), c.abs(), reach.left * reach.radius
    with torch.no_grad():
        order = size.argsort(-1, descending=True)
        place = (room.gather(-1, order).cumsum(-1) < left.unsqueeze(-1)).sum(-1, keepdim=True)
        used_up, last = place < c.shape[-1], place.clamp(max=c.shape[-1] - 1)
    rate = torch.where(used_up, size.gather(-1, order.gather(-1, last)), 0.0)
    gained = torch.linalg.vecdot(room, (size - rate).clamp(min=0))
    return torch.linalg.vecdot(c, reach.forced) - rate.squeeze(-1) * left - gained


@torch.no_grad()
def project_radially(z: Tensor, reach: Reach) -> Tensor:
    """clip(theta z) with the largest theta <= 1 that stays in the ball; the Euclidean projection where p = 2."""
    size = z.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(z.dtype).tiny)
    gain, left = (z.abs() / size) ** reach.p, reach.left.unsqueeze(-1)
    s = budget_root(gain, reach.share(reach.forced), reach.share(reach.corner(-z)), left)
    theta = (s ** (1 / reach.p) * reach.unit / size).clamp(max=1)
    return reach.clip(theta * z)


@torch.no_grad()
def project_l1(z: Tensor, reach: Reach) -> Tensor:
    """The Euclidean projection for p = 1: every entry shortened by one threshold, then clipped; found by halving."""
    def shortened(threshold: Tensor) -> Tensor:
        return reach.clip(z.sign() * (z.abs() - threshold).clamp(min=0))

    def outside(v: Tensor) -> Tensor:
        return (reach.overspent(v) > 0).unsqueeze(-1)

    high = torch.where(outside(reach.clip(z)), z.abs().amax(-1, keepdim=True), 0.0)
    low = torch.zeros_like(high)
    for _ in range(math.ceil(-math.log2(torch.finfo(z.dtype).eps)) + 2):
        middle = (low + high) / 2
        over = outside(shortened(middle))
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    return shortened(high)
