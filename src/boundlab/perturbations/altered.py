"""Sets of inputs that are altered in a few places: l_0 balls and adversarial patches.

Every altered coordinate gains on its own, so the minimum of a linear function is that of the unaltered input less the
gains of the best places: the k largest, or those of the best window.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor

from boundlab.errors import SpecError
from boundlab.interval import Interval
from boundlab.maps import Rows, Windows, at_owner, flat
from boundlab.perturbations.sets import (
    LONG,
    Box,
    PerturbationSet,
    as_like,
    check_center,
    top_mask,
    top_sum,
    uniform,
    whole_numbers,
)


class Altered(PerturbationSet):
    """`center` (b, *shape), in some places altered to anything from `low` to `high`; a subclass says in which places.

    `low` and `high` are numbers or tensors that broadcast to (b, *shape); the center may lie outside them.
    """

    center: Tensor
    low: Tensor | float
    high: Tensor | float

    @abstractmethod
    def best(self, scores: Tensor) -> Tensor:
        """Where to alter so that scores >= 0 (..., b, *shape) sum to the most there, as booleans of that shape."""

    @abstractmethod
    def most(self, scores: Tensor, owner: Tensor | None) -> Tensor:
        """That largest sum, (n, s), for scores (n, s, *cells) that belong to rows; cells may be a window of the map."""

    def check(self, name: str) -> None:
        """SpecError unless center and domain are numbers that fit each other; `name` says of what."""
        check_center(self.center, f"center of {name}")
        for end in (self.low, self.high):
            if not isinstance(end, Tensor | Real):
                raise SpecError(f"low and high of {name} must be numbers or tensors, got {end!r:.60}.")
            shape = end.shape if isinstance(end, Tensor) else torch.Size()
            if len(shape) > self.center.dim() or any(size not in (1, whole) for size, whole in zip(
                    reversed(shape), reversed(self.center.shape), strict=False)):
                raise SpecError(f"low and high of {name} must be numbers or tensors that broadcast to "
                                f"{tuple(self.center.shape)}, got {tuple(shape)}.")
        if not bool(torch.isfinite(self.domain.lower).all() and torch.isfinite(self.domain.upper).all()):
            raise SpecError(f"low and high of {name} must be finite: an altered coordinate can be anything between them.")
        if not bool((self.domain.lower <= self.domain.upper).all()):
            raise SpecError(f"the domain of {name} is empty: low exceeds high at "
                            f"{int((self.domain.lower > self.domain.upper).sum())} coordinates.")

    @cached_property
    def domain(self) -> Interval:
        """What an altered coordinate may be, (b, *shape)."""
        low, high = (as_like(end, self.center).expand_as(self.center) for end in (self.low, self.high))
        return Interval(low, high)

    @cached_property
    def hull(self) -> Interval:
        """Altered or not, (b, *shape)."""
        return self.domain.hull(Interval(self.center, self.center))

    def box(self) -> Interval:
        return self.hull

    def concretize(self, rows: Rows) -> Tensor:
        spread = rows.spread().masked()
        c = spread.coefficients
        middle, low, high = (spread.aligned(end.unsqueeze(1)) for end in (self.center, self.domain.lower, self.domain.upper))
        gain = (c * middle - torch.minimum(c * low, c * high)).clamp(min=0)
        if isinstance(spread, Windows):
            gain = gain.movedim(-1, 2)
        return spread.dot(self.center.unsqueeze(1)) - self.most(gain, rows.owner)

    def project(self, point: Tensor) -> Tensor:
        """Where the point differs most from the center it is altered, to the nearest number of the domain."""
        inside = torch.minimum(torch.maximum(point, self.domain.lower), self.domain.upper)
        away = (point - self.center).abs()
        change = torch.where((point - inside).abs() < away, away, 0.0)
        return torch.where(self.best(change) & (change > 0), inside, self.center)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        values = Box(self.domain.lower, self.domain.upper).sample(count, generator)
        scores = uniform((count, 1, *self.center.shape[1:]), self.center, generator).expand_as(values)
        return torch.where(self.best(scores), values, self.center)

    def ascent(self, gradient: Tensor) -> Tensor:
        """The way to the best point for the gradient."""
        move, gain = self.offers(gradient)
        return torch.where(self.best(gain) & (gain > 0), move, 0.0)

    def offers(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """How far each coordinate can go uphill, and what that gains."""
        move = torch.where(gradient > 0, self.domain.upper, self.domain.lower) - self.center
        return move, (gradient * move).clamp(min=0)

    def climb(self, point: Tensor, gradient: Tensor, length: float) -> Tensor:
        """Long steps go to the best point for the gradient; the shorter they are, the more they keep to what is altered."""
        move, gain = self.offers(gradient)
        changed, axes = point != self.center, tuple(range(1 - self.center.dim(), 0))
        loyalty = max(0.0, 1 - length / LONG) * gain.amax(axes, keepdim=True)
        inside = self.best(gain + loyalty * changed)
        kept = point + length / LONG * gradient.sign() * self.hull.width
        fresh = torch.where(gain > 0, self.center + move, self.center)
        return self.project(torch.where(inside, torch.where(changed, kept, fresh), self.center))


@dataclass(frozen=True)
class L0Ball(Altered):
    """`center` (b, *shape) with at most k coordinates altered, each to anything from `low` to `high`.

    With `pixels` the entries along the first axis of *shape (the channels of an image) count as one. `k` is a whole number
    or (b,). The minimum is exact: the k largest gains (Xu et al. 2020, App. C.4, there for [0, 1]). SpecError if a number
    is not valid or the domain is empty.
    """

    center: Tensor
    k: Tensor | int
    low: Tensor | float
    high: Tensor | float
    pixels: bool = False

    def __post_init__(self) -> None:
        self.check("an l_0 ball")
        if self.pixels and self.center.dim() < 3:
            raise SpecError("pixels=True counts the channels of a pixel as one, so it needs inputs of shape (channels, ...), "
                            f"got {tuple(self.center.shape[1:])}.")
        whole_numbers(self.k, "k", len(self.center))

    @cached_property
    def count(self) -> Tensor:
        """`k` as (b or 1,)."""
        return whole_numbers(self.k, "k", len(self.center)).to(self.center.device)

    def cells(self, scores: Tensor) -> Tensor:
        """The scores of what counts as one, flat: (..., *shape) to (..., m)."""
        lead = scores.dim() - self.center.dim() + 1
        return flat(scores.sum(lead) if self.pixels else scores, lead)

    def best(self, scores: Tensor) -> Tensor:
        mask = top_mask(self.cells(scores), self.count)
        shape = (1, *scores.shape[scores.dim() - self.center.dim() + 2:]) if self.pixels else self.center.shape[1:]
        return mask.reshape(*mask.shape[:-1], *shape).expand_as(scores)

    def most(self, scores: Tensor, owner: Tensor | None) -> Tensor:
        return top_sum(self.cells(scores), at_owner(self.count, owner))

    def box(self) -> Interval:
        some = (self.count > 0).reshape(-1, *[1] * (self.center.dim() - 1))
        return self.hull.map(lambda end: torch.where(some, end, self.center))

    def take(self, index: Tensor) -> L0Ball:
        k = self.count[index] if len(self.count) > 1 else self.k
        return L0Ball(self.center[index], k, self.domain.lower[index], self.domain.upper[index], self.pixels)


@dataclass(frozen=True)
class Patches(Altered):
    """Images `center` (b, channels, height, width) in which one rectangle of `size` (h, w), anywhere, is altered.

    Every entry under the patch, in all channels, may become anything from `low` to `high`. The minimum is exact: the
    largest sum of gains under a window (Chiang et al. 2020 bound each place of the patch by itself). SpecError if the
    patch is larger than the image, a number is not valid, or the domain is empty.
    """

    center: Tensor
    size: tuple[int, int]
    low: Tensor | float
    high: Tensor | float

    def __post_init__(self) -> None:
        self.check("a patch")
        if self.center.dim() != 4:
            raise SpecError(f"patches need images (b, channels, height, width), got {tuple(self.center.shape)}.")
        sides = whole_numbers(torch.as_tensor(self.size), "the size of a patch", 2)
        if len(sides) != 2 or bool((sides < 1).any()):
            raise SpecError(f"the size of a patch is its height and width, two whole numbers from 1 on; got {self.size!r}.")
        if self.size[0] > self.center.shape[2] or self.size[1] > self.center.shape[3]:
            raise SpecError(f"a patch of {self.size[0]} x {self.size[1]} is larger than the image of {self.center.shape[2]} x "
                            f"{self.center.shape[3]}.")

    def sums(self, scores: Tensor) -> Tensor:
        """Sums under the patch at every place, (..., channels, height, width) to (..., places down, places across)."""
        cells = scores.sum(-3)
        images = cells.reshape(-1, 1, *cells.shape[-2:])
        for kernel in ((self.size[0], 1), (1, self.size[1])):
            images = F.avg_pool2d(images, kernel, 1, divisor_override=1)
        return images.reshape(*cells.shape[:-2], *images.shape[-2:])

    def best(self, scores: Tensor) -> Tensor:
        total = self.sums(scores)
        place = total.flatten(-2).argmax(-1)[..., None]
        height, width = self.center.shape[2:]

        def under(corner: Tensor, side: int, length: int) -> Tensor:
            cell = torch.arange(length, device=corner.device)
            return (corner <= cell) & (cell < corner + side)

        down = under(place // total.shape[-1], self.size[0], height)
        across = under(place % total.shape[-1], self.size[1], width)
        return (down[..., None] & across[..., None, :]).unsqueeze(-3).expand_as(scores)

    def most(self, scores: Tensor, owner: Tensor | None) -> Tensor:
        # A patch that hangs over the border covers less than one that is pushed back inside, so it may be counted as well;
        # that serves windows, whose own border is not the image's.
        (h, w) = self.size
        return self.sums(F.pad(scores, (w - 1, w - 1, h - 1, h - 1))).flatten(2).amax(2)

    def take(self, index: Tensor) -> Patches:
        return Patches(self.center[index], self.size, self.domain.lower[index], self.domain.upper[index])
