"""l_p balls, alone or cut by a box of valid values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from boundlab.errors import SpecError
from boundlab.interval import Ball, Interval, dual_order
from boundlab.maps import Rows, at_owner, flat
from boundlab.perturbations.reach import Reach
from boundlab.perturbations.sets import (
    Box,
    PerturbationSet,
    all_finite,
    as_batch,
    as_like,
    box_fall,
    box_minimum,
    farthest,
    uniform,
)

TOP_SHARE = 0.01
"""Share of the coordinates that one l_1 ascent step moves (Tramèr and Boneh 2019, sparse l_1 descent)."""


@dataclass(frozen=True)
class LpBall(PerturbationSet):
    """All x with |x - center|_p <= eps, and low <= x <= high if `clip` is (low, high).

    `center` is (b, *shape) and may lie outside the clip box; `eps` is a number or (b,); `p` is any real >= 1 or inf; low
    and high are numbers or tensors that broadcast to (b, *shape). SpecError if a set is empty or a number is not valid.
    """

    center: Tensor
    eps: Tensor | float
    p: float = math.inf
    clip: tuple[Tensor | float, Tensor | float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.center, Tensor) or self.center.dim() == 0:
            raise SpecError(f"the center of a ball must be a tensor with a batch axis, got {self.center!r:.60}.")
        if not self.center.is_floating_point() or not all_finite(self.center):
            raise SpecError(f"the center of a ball must be a finite floating tensor, got {self.center.dtype} with "
                            f"{int((~torch.isfinite(self.center)).sum())} entries that are NaN or infinite.")
        if isinstance(self.p, str) or not self.p >= 1:
            raise SpecError(f"a ball needs a norm of order p >= 1 (or inf), got p = {self.p}.")
        if self.radius.shape[0] not in (1, self.center.shape[0]):
            raise SpecError(f"eps must be one number or one for each of {self.center.shape[0]} problems, "
                            f"got {self.radius.shape[0]}.")
        wrong = self.radius[~((self.radius >= 0) & torch.isfinite(self.radius))]
        if len(wrong):
            raise SpecError(f"eps must be finite and not negative, got {float(wrong[0]):.6g}.")
        self.check_reached()

    def check_reached(self) -> None:
        """SpecError unless every ball meets its clip box (up to rounding of the center)."""
        if self.clip is None:
            return
        low, high = self.limits
        if not bool((low <= high).all()):
            raise SpecError("the clip box is empty: its low end exceeds its high end (or is NaN) somewhere.")
        rounding = 4 * torch.finfo(self.center.dtype).eps * flat(self.center.abs(), 1).amax(1)
        distance = torch.linalg.vector_norm(flat(self.nearest - self.center, 1), self.p, dim=1)
        empty = ~(distance <= self.radius.flatten() + rounding)
        if bool(empty.any()):
            first = int(empty.nonzero()[0])
            eps = float(self.radius.flatten().expand_as(distance)[first])
            raise SpecError(f"{int(empty.sum())} of {len(empty)} balls do not reach the clip box; number {first} is "
                            f"{float(distance[first]):g} away with eps {eps:g}.")

    @property
    def independent(self) -> bool:
        return math.isinf(self.p)

    @cached_property
    def radius(self) -> Tensor:
        """`eps` as (b or 1, 1, ..., 1)."""
        return as_batch(self.eps, self.center)

    @cached_property
    def limits(self) -> tuple[Tensor, Tensor]:
        """The ends of the clip box, broadcastable to (b, *shape); infinite without one."""
        low, high = self.clip or (-math.inf, math.inf)
        return as_like(low, self.center), as_like(high, self.center)

    @cached_property
    def nearest(self) -> Tensor:
        """The point of the clip box nearest to the center, (b, *shape)."""
        if self.clip is None:
            return self.center
        return torch.minimum(torch.maximum(self.center, self.limits[0]), self.limits[1])

    @cached_property
    def left(self) -> Tensor:
        """What a center outside the clip box leaves over of eps^p, as a share, (b, 1, ..., 1); 1 if it is inside.

        It is rounded up by more than the sums that are compared with it err, so that near contact stays sound.
        """
        spent = flat(self.spent, 1).sum(1).reshape(-1, *[1] * (self.center.dim() - 1))
        slack = 32 * torch.finfo(spent.dtype).eps
        return torch.where(spent > 0, (1 - spent).clamp(min=0) + slack, 1.0)

    @property
    def spent(self) -> Tensor:
        """The share of eps^p that each coordinate spends on the way to the clip box, (b, *shape); p is finite here."""
        return ((self.nearest - self.center).abs() / torch.where(self.radius > 0, self.radius, 1.0)) ** self.p

    @cached_property
    def span(self) -> Interval:
        """The range of every coordinate: what the others are not forced to spend, cut by the clip box."""
        room = self.radius
        if self.clip is None:
            lower, upper = self.center - room, self.center + room
            return Interval(lower, upper) if self.independent else Ball(lower, upper, room, self.p)
        if not self.independent:
            room = self.radius * (self.left + self.spent) ** (1 / self.p)
        low, high = self.limits
        lower, upper = torch.maximum(self.center - room, low), torch.minimum(self.center + room, high)
        return Interval(torch.minimum(lower, self.nearest), torch.maximum(upper, self.nearest))

    def box(self) -> Interval:
        return self.span

    def l2_ball(self) -> tuple[Tensor, Tensor]:
        """The point of the clip box nearest to the center, from which no point of the ball is farther than from the center.

        An l_p ball in N coordinates lies in the l_2 ball of N^(1/2 - 1/p) times the radius, of the radius itself for p <= 2.
        """
        center, count = self.nearest, self.center[0].numel()
        wide = self.radius.flatten() * count ** (0.5 - 1 / max(self.p, 2.0))
        return center, torch.minimum(wide, farthest(center, self.span))

    def within(self) -> Reach:
        """Ball and box around the center, (b, 1, k), drawn in by more than rounding so that projections are feasible."""
        lower, upper = (flat(end - self.center, 1)[:, None] for end in (self.span.lower, self.span.upper))
        left = flat((self.left - 64 * torch.finfo(self.left.dtype).eps).clamp(min=0), 1)
        return Reach(self.p, lower, upper, flat(self.radius, 1), left)

    def concretize(self, rows: Rows) -> Tensor:
        """The minimum of each row, (n, s): center and dual norm; with a clip box the dual of `Reach`.

        The worst case of an l_2 ball within a box is used for training by Lee et al. 2020 (BCP), Sec. 3.
        """
        if self.independent:
            return box_minimum(self.span, rows)
        middle = rows.dot(self.center.unsqueeze(1))
        if self.clip is None:
            return middle + self.fall(rows)
        spread = rows.spread().masked()
        coefficients = spread.coefficients

        def beside(end: Tensor) -> Tensor:
            aligned = spread.aligned((end - self.center).unsqueeze(1))
            return flat(aligned.expand(*aligned.shape[:2], *coefficients.shape[2:]), 2)

        radius, left = (at_owner(flat(value, 1), rows.owner) for value in (self.radius, self.left))
        reach = Reach(self.p, beside(self.span.lower), beside(self.span.upper), radius, left)
        return middle + reach.minimum(flat(coefficients, 2))

    def fall(self, rows: Rows) -> Tensor:
        """The minimum of each row minus the row at the center of the box, (n, s)."""
        if self.independent:
            return box_fall(self.span, rows)
        if self.clip is None:
            return -at_owner(flat(self.radius, 1), rows.owner) * rows.norm(dual_order(self.p))
        return self.concretize(rows) - rows.dot(self.span.center.unsqueeze(1))

    def project(self, point: Tensor) -> Tensor:
        box = Box(self.span.lower, self.span.upper)
        if self.independent:
            return box.project(point)
        away = flat((point - self.center).reshape(-1, *self.center.shape), 2).transpose(0, 1)
        near = self.within().project(away).transpose(0, 1).reshape(point.shape)
        return box.project(self.center + near)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        if self.independent:
            return Box(self.span.lower, self.span.upper).sample(count, generator)
        shape = (count, 1, *self.center.shape[1:])
        noise = flat(torch.erfinv(uniform(shape, self.center, generator) * 1.999 - 0.9995), 2)
        length = uniform((count, 1, 1), self.center, generator)
        kind = torch.arange(count, device=noise.device).reshape(-1, 1, 1) % 4
        top = noise * (noise.abs() == noise.abs().amax(-1, keepdim=True))
        noise = torch.where(kind == 2, top, torch.where(kind == 3, noise.sign(), noise))
        tiny = torch.finfo(noise.dtype).tiny
        ray = noise / torch.linalg.vector_norm(noise, self.p, dim=-1, keepdim=True).clamp(min=tiny)
        ray = (ray * torch.where(kind == 0, length, 1 + length)).reshape(shape)
        return self.project(self.center + self.radius * ray)

    def ascent(self, gradient: Tensor) -> Tensor:
        if self.independent:
            return gradient.sign() * self.span.radius
        flat = gradient.flatten(gradient.dim() - self.center.dim() + 1)
        return self.radius * steepest(flat, self.p).reshape(gradient.shape)

    def take(self, index: Tensor) -> LpBall:
        def taken(end: Tensor | float) -> Tensor | float:
            own = isinstance(end, Tensor) and end.dim() == self.center.dim() and end.shape[0] > 1
            return end[index] if isinstance(end, Tensor) and own else end

        eps = self.eps if self.radius.shape[0] == 1 else self.radius.flatten()[index]
        return LpBall(self.center[index], eps, self.p, self.clip and (taken(self.clip[0]), taken(self.clip[1])))


def steepest(gradient: Tensor, p: float) -> Tensor:
    """The direction of unit l_p norm along which a function with `gradient` (..., k) grows fastest; p is finite.

    For p = 1 it is spread over the largest few coordinates, a single one would take too many steps.
    """
    if p == 1:
        count = math.ceil(TOP_SHARE * gradient.shape[-1])
        largest = gradient.abs().topk(count, dim=-1).indices
        return torch.zeros_like(gradient).scatter(-1, largest, gradient.gather(-1, largest).sign() / count)
    size = gradient.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(gradient.dtype).tiny)
    move = gradient.sign() * (gradient.abs() / size) ** (1 / (p - 1))
    return move / torch.linalg.vector_norm(move, p, dim=-1, keepdim=True).clamp(min=torch.finfo(move.dtype).tiny)
