"""One set for several sources together: a set of vectors, in which the sources lie flattened, one after the other.

Such a set stands under a tuple of names, for example {("first.weight", "second.weight"): joint_ball((w, v), eps)}.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from boundlab.errors import SpecError
from boundlab.interval import Ball, Interval
from boundlab.maps import EndToEnd, Rows, Shape, flat
from boundlab.perturbations.ball import LpBall
from boundlab.perturbations.sets import PerturbationSet

Key = str | tuple[str, ...]
"""What a set stands for: the name of one source, or the names of several that share it."""
Regions = Mapping[str, PerturbationSet | Tensor] | Mapping[Key, PerturbationSet | Tensor]
"""Sets (varying) and tensors (constant) of the sources."""


def names_of(key: Key) -> tuple[str, ...]:
    """The sources of a set."""
    return (key,) if isinstance(key, str) else key


def joint_ball(centers: Sequence[Tensor], eps: Tensor | float, p: float = 2.0) -> LpBall:
    """All vectors within `eps` of the centers (b or 1, *shape each), flattened and laid end to end, in the l_p norm.

    SpecError if there is no center, or their batches do not fit.
    """
    if isinstance(centers, Tensor) or not centers:
        raise SpecError("a joint ball needs a tuple of centers, one tensor (b or 1, *shape) for each source.")
    return LpBall(end_to_end(centers, 1), eps, p)


def end_to_end(values: Sequence[Tensor], axes: int) -> Tensor:
    """Tensors (..., b or 1, *shape) as vectors (..., b, d), where `axes` axes come before each *shape."""
    flattened = [flat(value, axes) for value in values]
    sizes = {part.shape[axes - 1] for part in flattened}
    if len(sizes - {1}) > 1:
        raise SpecError(f"the sources of a joint set speak of {sorted(sizes)} problems; all must agree or be 1.")
    lead = np.broadcast_shapes(*(part.shape[:axes] for part in flattened))
    return torch.cat([part.expand(*lead, part.shape[-1]) for part in flattened], -1)


def apart(vectors: Tensor, shapes: Sequence[Shape]) -> Iterator[Tensor]:
    """Vectors (..., d) as the tensors (..., *shape) that lie in them one after the other."""
    parts = vectors.split([math.prod(shape) for shape in shapes], -1)
    return (part.reshape(*part.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True))


@dataclass(frozen=True)
class Member(PerturbationSet):
    """What one source has of a joint set: the coordinates of `whole` from `start` on, as tensors of `shape`.

    `sources` are the nodes that share the set. Rows over several of them are to be minimised `together`: the minima of each
    on its own are sound, but add up to less.
    """

    whole: PerturbationSet
    sources: tuple[int, ...]
    start: int
    shape: Shape

    @property
    def independent(self) -> bool:
        return self.whole.independent

    def own(self, vectors: Tensor) -> Tensor:
        """This member's part of vectors (..., d), as tensors (..., *shape)."""
        part = vectors[..., self.start:self.start + math.prod(self.shape)]
        return part.reshape(*part.shape[:-1], *self.shape)

    def within(self, part: Tensor, rest: Tensor) -> Tensor:
        """Vectors (..., b, d) with this member's `part` (..., b, *shape), elsewhere those of `rest` (b, d)."""
        part = part.flatten(part.dim() - len(self.shape)) if self.shape else part.unsqueeze(-1)
        before, after = rest[..., :self.start], rest[..., self.start + part.shape[-1]:]
        lead = part.shape[:-1]
        return torch.cat([before.expand(*lead, before.shape[-1]), part, after.expand(*lead, after.shape[-1])], -1)

    def box(self) -> Interval:
        box = self.whole.box()
        if isinstance(box, Ball):
            eps = box.eps.reshape(-1, *[1] * len(self.shape))
            return replace(box, lower=self.own(box.lower), upper=self.own(box.upper), eps=eps)
        return box.map(self.own)

    def concretize(self, rows: Rows) -> Tensor:
        return self.whole.concretize(together([(self, rows)]))

    def project(self, point: Tensor) -> Tensor:
        return self.own(self.whole.project(self.within(point, self.whole.box().center)))

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return self.own(self.whole.sample(count, generator))

    def ascent(self, gradient: Tensor) -> Tensor:
        return self.own(self.whole.ascent(self.within(gradient, torch.zeros_like(self.whole.box().center))))

    def take(self, index: Tensor) -> Member:
        return replace(self, whole=self.whole.take(index))


def members(whole: PerturbationSet, sources: Sequence[int], shapes: Sequence[Shape]) -> list[Member]:
    """The members of a joint set of `sources`, in order."""
    starts = [sum(math.prod(shape) for shape in shapes[:place]) for place in range(len(shapes))]
    return [Member(whole, tuple(sources), start, shape) for start, shape in zip(starts, shapes, strict=True)]


def together(parts: Sequence[tuple[Member, Rows]]) -> EndToEnd:
    """Rows over members of one joint set as rows over its vectors; members that are left out have none."""
    laid = tuple((member.start, rows) for member, rows in parts)
    return EndToEnd((parts[0][0].whole.box().shape[1],), parts[0][1].owner, laid)
