"""Polytopes: boxes cut by linear constraints."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from boundlab.errors import MissingRule, SpecError
from boundlab.interval import Interval
from boundlab.maps import Rows, flat
from boundlab.perturbations.programs import HalfSpaces, Simplex, Solver
from boundlab.perturbations.sets import LONG, Box, PerturbationSet

ROUNDS = 3
"""How often every constraint tightens the box."""
CORRECTIONS = 20
"""Steps towards violated half-spaces before a point is drawn to the inside."""


@dataclass(frozen=True)
class Polytope(PerturbationSet):
    """All x with lower <= x <= upper and matrix x <= limit.

    `lower` and `upper` are (b, *shape), `matrix` (b, m, *shape) or (m, *shape), `limit` (b, m) or (m,). Minima come from
    linear programs: `solver` finds multipliers, and the bound is their dual value in float64, so it holds whatever the
    solver did. `inner` (b, *shape) are points inside; left out, the solver finds them. SpecError if a set is empty, a
    number is not finite, or shapes do not fit. MissingPackage if the solver is not installed.

    Equations may be written as two inequalities; such a set can be bounded and proven, but not attacked, since no float
    is known to solve them exactly.
    """

    lower: Tensor
    upper: Tensor
    matrix: Tensor
    limit: Tensor
    solver: Solver = field(default_factory=Simplex)
    inner: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        Box(self.lower, self.upper)
        shape, fits = tuple(self.lower.shape), isinstance(self.matrix, Tensor) and isinstance(self.limit, Tensor)
        wanted = f"matrix (m, {', '.join(map(str, shape[1:]))}) and limit (m,), or both with a batch axis of {shape[0]} before"
        if not fits or self.matrix.dim() not in (len(shape), len(shape) + 1) or self.limit.dim() not in (1, 2):
            raise SpecError(f"a polytope of shape {shape} needs tensors {wanted}.")
        m = self.matrix.shape[-len(shape)]
        sizes = (tuple(self.matrix.shape) in ((m, *shape[1:]), (1, m, *shape[1:]), (shape[0], m, *shape[1:]))
                 and tuple(self.limit.shape) in ((m,), (1, m), (shape[0], m)) and m > 0)
        if not sizes:
            raise SpecError(f"a polytope of shape {shape} needs {wanted}; got matrix {tuple(self.matrix.shape)} and limit "
                            f"{tuple(self.limit.shape)}.")
        for name, numbers in (("bounds", self.lower), ("bounds", self.upper), ("matrix", self.matrix), ("limit", self.limit)):
            if not numbers.is_floating_point() or not bool(torch.isfinite(numbers).all()):
                raise SpecError(f"the {name} of a polytope must be finite floating numbers.")
        self.check_reached()

    def check_reached(self) -> None:
        """SpecError if a polytope is empty: if a dual value proves that its constraints cannot hold together."""
        if self.inner is None:
            margin, slack = self.deepest[1], 64 * torch.finfo(self.lower.dtype).eps
            empty = margin < -slack * (1 + self.region.limit.abs().amax(-1))
            if bool(empty.any()):
                first = int(empty.nonzero()[0])
                raise SpecError(f"{int(empty.sum())} of {len(empty)} polytopes are empty: within number {first}'s box its "
                                f"{self.region.limit.shape[1]} constraints contradict each other.")

    @cached_property
    def region(self) -> HalfSpaces:
        """The numbers in float64 with one flat axis of coordinates, batches of b."""
        b, lead = len(self.lower), len(self.lower.shape)
        lower, upper = flat(self.lower, 1).double(), flat(self.upper, 1).double()
        matrix = flat(self.matrix.to(lower), self.matrix.dim() - lead + 1)
        matrix, limit = matrix.expand(b, *matrix.shape[-2:]), self.limit.to(lower)
        return HalfSpaces(matrix, limit.expand(b, limit.shape[-1]), lower, upper)

    @cached_property
    def deepest(self) -> tuple[Tensor, Tensor]:
        """The points (b, d) farthest inside all constraints, and above how far (b,) none can be, as a share of their range.

        One more linear program: the largest t with matrix x + t range <= limit.
        """
        region = self.region
        reach = torch.linalg.vecdot(region.matrix.abs(), ((region.upper - region.lower) / 2)[:, None])
        reach = torch.where(reach > 0, reach, 1.0)
        highest = torch.maximum(region.matrix * region.lower[:, None], region.matrix * region.upper[:, None]).sum(-1)
        least = ((region.limit - highest) / reach).amin(-1, keepdim=True).clamp(max=0)
        wider = HalfSpaces(torch.cat([region.matrix, reach[..., None]], -1), region.limit,
                           torch.cat([region.lower, least], -1), torch.cat([region.upper, torch.ones_like(least)], -1))
        c = torch.zeros_like(wider.lower)[:, None]
        c[..., -1] = -1
        multipliers, points = self.solver.solve(wider, c, torch.arange(len(c), device=c.device))
        return points[:, 0, :-1], -wider.dual(c, multipliers)[:, 0]

    @cached_property
    def inside(self) -> Tensor:
        """A point of each polytope that keeps its constraints beyond rounding, (b, d); NaN where none is known."""
        found = self.deepest[0].detach() if self.inner is None else flat(self.inner, 1)
        found = self.within_box(found.to(self.lower))
        return torch.where(self.holds(found)[..., None], found, torch.nan)

    @cached_property
    def hull(self) -> Interval:
        """The box, tightened by each constraint for itself while the others' parts are at their smallest."""
        region, eps = self.region, torch.finfo(self.lower.dtype).eps
        lower, upper, matrix = region.lower, region.upper, region.matrix
        slope = torch.where(matrix != 0, matrix, 1.0)
        for _ in range(ROUNDS):
            parts = torch.minimum(matrix * lower[:, None], matrix * upper[:, None])
            size = parts.abs().sum(-1) + region.limit.abs()
            room = (region.limit + (len(lower[0]) + 8) * eps * size - parts.sum(-1))[..., None] + parts
            end = room / slope
            upper = torch.minimum(upper, torch.where(matrix > 0, end, torch.inf).amin(1))
            lower = torch.maximum(lower, torch.where(matrix < 0, end, -torch.inf).amax(1))
        ends = (torch.minimum(lower, upper), torch.maximum(lower, upper))
        outward = [end + sign * 2 * eps * end.abs() for end, sign in zip(ends, (-1, 1), strict=True)]
        low, high = (end.to(self.lower).reshape(self.lower.shape) for end in outward)
        return Interval(torch.maximum(low, self.lower), torch.minimum(high, self.upper))

    def box(self) -> Interval:
        return self.hull

    def concretize(self, rows: Rows) -> Tensor:
        c, b = flat(rows.dense(), 2).double(), len(self.lower)
        if rows.owner is None and len(c) != b:
            c = c.expand(b, *c.shape[1:])
        owner = torch.arange(b, device=c.device) if rows.owner is None else rows.owner
        owner = owner if b > 1 else torch.zeros(len(c), dtype=torch.long, device=c.device)
        own = self.region.take(owner)
        with torch.no_grad():
            multipliers, points = self.solver.solve(self.region, c.detach(), owner)
            found, plain = own.dual(c, multipliers), own.dual(c, torch.zeros_like(multipliers))
            better = (found > plain)[..., None]
            multipliers, points = torch.where(better, multipliers, 0.0), torch.where(better, points, own.corner(c))
            value = torch.maximum(found, plain)
        slope = own.lagrangian(c, multipliers, points)
        return (value + (slope - slope.detach())).to(self.lower.dtype)

    def holds(self, point: Tensor) -> Tensor:
        """Whether flat points (..., b, d) keep every constraint whatever rounding does, (..., b) booleans."""
        x, region = point.double(), self.region
        value = torch.einsum("...bd,bmd->...bm", x, region.matrix)
        size = torch.einsum("...bd,bmd->...bm", x.abs(), region.matrix.abs()) + region.limit.abs()
        kept = value + (4 + x.shape[-1]) * torch.finfo(x.dtype).eps * size <= region.limit
        return kept.all(-1) & (self.within_box(point) == point).all(-1)

    def within_box(self, point: Tensor) -> Tensor:
        """Flat points (..., b, d) brought into the box."""
        return torch.minimum(torch.maximum(point, flat(self.lower, 1)), flat(self.upper, 1))

    @torch.no_grad()
    def project(self, point: Tensor) -> Tensor:
        """Points of the set as they are; others moved towards violated half-spaces, then as far to the inside as needed."""
        start, region, inside = flat(point, point.dim() - self.lower.dim() + 1), self.region, self.inside
        if bool(inside.isnan().any()):
            raise MissingRule(f"{int(inside.isnan().any(-1).sum())} of {len(inside)} polytopes have no inner points (an "
                              "equation, perhaps): they can be bounded and proven, but not attacked or sampled.")
        square = (region.matrix**2).sum(-1).clamp(min=torch.finfo(torch.float64).tiny)
        x = self.within_box(start).double()
        for _ in range(CORRECTIONS):
            excess = (torch.einsum("...bd,bmd->...bm", x, region.matrix) - region.limit).clamp(min=0)
            step = torch.einsum("...bm,bmd->...bd", excess / square, region.matrix)
            x = self.within_box(x - step / (excess > 0).sum(-1, keepdim=True).clamp(min=1))
        near = self.drawn_in(x, inside)
        return torch.where(self.holds(start)[..., None], start, near).reshape(point.shape)

    def drawn_in(self, x: Tensor, inside: Tensor) -> Tensor:
        """Flat points of the box on their way to `inside`, as far as it takes to keep all constraints."""
        region, way = self.region, x - inside
        room = region.limit - torch.linalg.vecdot(inside.double()[:, None], region.matrix)
        speed = torch.einsum("...bd,bmd->...bm", way, region.matrix)
        share = torch.where(speed > 0, room / speed.clamp(min=torch.finfo(torch.float64).tiny), torch.inf)
        share = share.amin(-1, keepdim=True).clamp(max=1)
        near = inside.expand(x.shape)
        for less in (0.5, 1e-2, 1e-4, 1e-6, 0.0):
            tried = self.within_box((inside + share * (1 - less) * way).to(inside))
            near = torch.where(self.holds(tried)[..., None], tried, near)
        return near

    def farthest(self, gradient: Tensor) -> Tensor:
        """Where gradient . x is largest over each polytope, as the solver has it, for `gradient` (..., b, *shape)."""
        axes = self.lower.dim() - 1
        c = flat(-gradient, gradient.dim() - axes).reshape(-1, len(self.lower), self.lower[0].numel()).double()
        points = self.solver.solve(self.region, c.transpose(0, 1), torch.arange(len(self.lower), device=c.device))[1]
        return self.within_box(points.transpose(0, 1).to(gradient)).reshape(gradient.shape)

    @torch.no_grad()
    def ascent(self, gradient: Tensor) -> Tensor:
        """The way from the inside to the best point for the gradient."""
        return self.farthest(gradient) - self.inside.reshape(self.lower.shape)

    @torch.no_grad()
    def climb(self, point: Tensor, gradient: Tensor, length: float) -> Tensor:
        """A share of the way to the best point for the gradient, all of it for long steps (Frank and Wolfe 1956)."""
        return self.project(point + min(1.0, length / LONG) * (self.farthest(gradient) - point))

    def take(self, index: Tensor) -> Polytope:
        def own(tensor: Tensor, shared: int) -> Tensor:
            return tensor[index] if tensor.dim() > shared and len(tensor) > 1 else tensor

        axes = self.lower.dim()
        return Polytope(self.lower[index], self.upper[index], own(self.matrix, axes), own(self.limit, 1), self.solver,
                        self.inside.reshape(self.lower.shape)[index])
