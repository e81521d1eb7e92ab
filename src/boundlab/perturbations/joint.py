"""One set for several sources together: a set of vectors, in which the sources lie flattened, one after the other.

Such a set stands under a tuple of names, for example {("first.weight", "second.weight"): joint_ball((w, v), eps)}.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from boundlab.errors import SpecError
from boundlab.interval import Ball, Interval
from boundlab.maps import EndToEnd, Rows, Shape, flat
from boundlab.perturbations.ball import LpBall
from boundlab.perturbations.sets import PerturbationSet


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
    lead = torch.broadcast_shapes(*(part.shape[:axes] for part in flattened))
    return torch.cat([part.expand(*lead, part.shape[-1]) for part in flattened], -1)


def apart(vectors: Tensor, shapes: Sequence[Shape]) -> Iterator[Tensor]:
    """Vectors (..., d) as the tensors (..., *shape) that lie in them one after the other."""
    parts = vectors.split([math.prod(shape) for shape in shapes], -1)
    return (part.reshape(*part.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True))


@dataclass(frozen=True)
class Member(PerturbationSet):
    """What one source has of a joint set: the coordinates of `whole` from `start` on, as tensors of `shape`.

    `sources` are the nodes that share the set. Rows of several of them are bounded together by `minimum_together`; each on
    its own is bounded as if the others had none.
    """

    whole: PerturbationSet
    sources: tuple[int, ...]
    start: int
    shape: Shape

    @property
    def independent(self) -> bool:
        return self.whole.independent

    def box(self) -> Interval:
        box = self.whole.box()

        def own(end: Tensor) -> Tensor:
            return end[:, self.start:self.start + math.prod(self.shape)].reshape(-1, *self.shape)

        if isinstance(box, Ball):
            eps = box.eps.reshape(-1, *[1] * len(self.shape))
            return replace(box, lower=own(box.lower), upper=own(box.upper), eps=eps)
        return box.map(own)

    def concretize(self, rows: Rows) -> Tensor:
        return minimum_together([(self, rows)])

    def take(self, index: Tensor) -> Member:
        return replace(self, whole=self.whole.take(index))


def members(whole: PerturbationSet, sources: Sequence[int], shapes: Sequence[Shape]) -> list[Member]:
    """The members of a joint set of `sources`, in order."""
    starts = [sum(math.prod(shape) for shape in shapes[:place]) for place in range(len(shapes))]
    return [Member(whole, tuple(sources), start, shape) for start, shape in zip(starts, shapes, strict=True)]


def minimum_together(parts: Sequence[tuple[Member, Rows]]) -> Tensor:
    """The minimum over a joint set of the sum of its members' rows, (n, s); members that are left out have no row."""
    whole = parts[0][0].whole
    laid = tuple((member.start, rows) for member, rows in parts)
    return whole.concretize(EndToEnd((whole.box().shape[1],), parts[0][1].owner, laid))
