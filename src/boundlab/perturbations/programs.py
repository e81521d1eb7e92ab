"""Linear programs over boxes with constraints, many at once: their dual values, and two ways to find good multipliers.

Whatever multipliers >= 0 are found, their dual value is a lower bound, so a solver that errs makes bounds looser, not wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from boundlab.errors import MissingPackage

TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class HalfSpaces:
    """All x with matrix x <= limit and lower <= x <= upper, for each of b problems: (b, m, d), (b, m), (b, d), (b, d)."""

    matrix: Tensor
    limit: Tensor
    lower: Tensor
    upper: Tensor

    def take(self, index: Tensor) -> HalfSpaces:
        """Those of the problems `index` (n,); shared ones stay shared."""
        if len(self.matrix) == 1:
            return self
        return HalfSpaces(*(tensor.index_select(0, index) for tensor in (self.matrix, self.limit, self.lower, self.upper)))

    def dual(self, c: Tensor, multipliers: Tensor) -> Tensor:
        """The minimum over the box of c . x + multipliers . (matrix x - limit): at most that of c . x over the set, (n, s)."""
        reduced = c + multipliers @ self.matrix
        ends = torch.minimum(reduced * self.lower[:, None], reduced * self.upper[:, None]).sum(-1)
        return ends - torch.linalg.vecdot(multipliers, self.limit[:, None])

    def corner(self, c: Tensor) -> Tensor:
        """Where c . x is smallest over the box, (n, s, d)."""
        return torch.where(c > 0, self.lower[:, None], self.upper[:, None])

    def lagrangian(self, c: Tensor, multipliers: Tensor, point: Tensor) -> Tensor:
        """c . x + multipliers . (matrix x - limit) at points (n, s, d) whose coordinates follow the box where they meet it.

        At a minimiser and its multipliers this has the gradients that the minimum has, in c, limits, matrix and box.
        """
        lower, upper = self.lower[:, None], self.upper[:, None]
        tied = torch.where(point <= lower, lower, torch.where(point >= upper, upper, point))
        excess = tied @ self.matrix.mT - self.limit[:, None]
        return torch.linalg.vecdot(c, tied) + torch.linalg.vecdot(multipliers, excess)


class Solver(Protocol):
    """A way to minimise linear functions over half-spaces."""

    def solve(self, region: HalfSpaces, c: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Multipliers >= 0 (n, s, m) and minimisers (n, s, d), as good as they come, for c (n, s, d) of problems `owner` (n,).

        All in float64, without gradients.
        """
        ...


@dataclass(frozen=True)
class Simplex:
    """The simplex method of HiGHS (extra `lp`), one program after the other: exact."""

    def solve(self, region: HalfSpaces, c: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        multipliers = c.new_zeros(*c.shape[:2], region.matrix.shape[1])
        points = torch.zeros_like(c)
        for problem in owner.unique().tolist():
            own = (owner == problem).nonzero().flatten()
            found = simplex(region.take(torch.tensor([problem], device=owner.device)), c[own].flatten(0, 1).cpu().numpy())
            for whole, part in zip((multipliers, points), found, strict=True):
                whole[own] = torch.from_numpy(part).to(c).reshape(len(own), *whole.shape[1:])
        return multipliers, points


def simplex(region: HalfSpaces, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers (rows, m) and minimisers (rows, d) of one problem's programs; each starts where the last one ended."""
    matrix, limit, lower, upper = (tensor[0].detach().cpu().numpy() for tensor in
                                   (region.matrix, region.limit, region.lower, region.upper))
    highs = highs_of(matrix, limit, lower, upper)
    multipliers, points = np.zeros((len(costs), len(limit))), np.zeros(costs.shape)
    columns = np.arange(costs.shape[1], dtype=np.int32)
    for place, cost in enumerate(costs):
        size = max(float(np.abs(cost).max()), TINY)
        highs.changeColsCost(len(columns), columns, cost / size)
        highs.run()
        solution = highs.getSolution()
        dual, point = np.array(solution.row_dual).reshape(-1), np.array(solution.col_value).reshape(-1)
        if dual.shape == limit.shape and point.shape == cost.shape and np.isfinite(dual).all() and np.isfinite(point).all():
            multipliers[place], points[place] = size * np.clip(-dual, 0, None), point
    return multipliers, points


def highs_of(matrix: np.ndarray, limit: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> Any:
    """A solver that holds the constraints; MissingPackage without highspy."""
    row, column = matrix.nonzero()
    start = np.concatenate([[0], np.bincount(row, minlength=len(limit)).cumsum()])
    cells, sides = (start, column, matrix[row, column]), (np.full(len(limit), -np.inf), limit)
    hint = "; or give the set solver=PrimalDual(), which needs none and is a little looser"
    return highs_with(cells, sides, (lower, upper), hint=hint)


Cells = tuple[np.ndarray, np.ndarray, np.ndarray]
Ends = tuple[np.ndarray, np.ndarray]


def highs_with(cells: Cells, sides: Ends, ends: Ends, whole: np.ndarray | None = None, hint: str = "") -> Any:
    """HiGHS, silent and on one thread, with rows between `sides` and columns between `ends`, integers where `whole` is true.

    `cells` are the matrix by rows: where each row starts, columns and values. MissingPackage, with a hint, without highspy.
    """
    try:
        import highspy
    except ImportError as problem:
        raise MissingPackage(f"linear programs need a package: pip install 'boundlab[lp]'{hint}.") from problem
    model, count = highspy.HighsLp(), len(ends[0])
    model.num_row_, model.num_col_ = len(sides[0]), count
    model.col_cost_, model.col_lower_, model.col_upper_ = np.zeros(count), *ends
    model.row_lower_, model.row_upper_ = sides
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_, model.a_matrix_.index_ = (part.astype(np.int32) for part in cells[:2])
    model.a_matrix_.value_ = cells[2]
    integers = whole is not None and bool(whole.any())
    if whole is not None and integers:
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        model.integrality_ = [kinds[int(one)] for one in whole]
    highs = highspy.Highs()
    for option, value in (("output_flag", False), ("parallel", "off"), ("threads", 1), ("small_matrix_value", 1e-12)):
        highs.setOptionValue(option, value)
    if not integers:  # of a few hundred rows presolve saves less than it costs (measured: 0.02 to 0.05 s)
        highs.setOptionValue("presolve", "off")
        highs.setOptionValue("solver", "simplex")
    highs.passModel(model)
    return highs


@dataclass(frozen=True)
class PrimalDual:
    """The primal-dual hybrid gradient method (Chambolle and Pock 2011) with restarts from averages (Applegate et al. 2021).

    All programs at once, on any device, without a package; `steps` decide how near to the minimum it comes.
    """

    steps: int = 1000
    restart: int = 40

    @torch.no_grad()
    def solve(self, region: HalfSpaces, c: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        own = region.take(owner)
        radius, middle = (own.upper - own.lower) / 2, (own.upper + own.lower) / 2
        matrix = own.matrix * radius[:, None]
        length = torch.linalg.vector_norm(matrix, dim=-1).clamp(min=TINY)
        size = (c * radius[:, None]).abs().amax(-1, keepdim=True).clamp(min=TINY)
        limit = (own.limit - torch.linalg.vecdot(own.matrix, middle[:, None])) / length
        cube = HalfSpaces(matrix / length[..., None], limit, -torch.ones_like(radius), torch.ones_like(radius))
        multipliers, z = self.over_cube(cube, c * radius[:, None] / size)
        return multipliers * size / length[:, None], middle[:, None] + radius[:, None] * z

    def over_cube(self, cube: HalfSpaces, c: Tensor) -> tuple[Tensor, Tensor]:
        """Multipliers and minimisers where every coordinate is between -1 and 1 and the rows of the matrix have length 1."""
        matrix, limit = cube.matrix, cube.limit[:, None]
        norm = torch.linalg.matrix_norm(matrix, 2)[:, None, None].clamp(min=TINY)
        weight = torch.linalg.vector_norm(c, dim=-1, keepdim=True).clamp(min=TINY)
        x, y = torch.zeros_like(c), c.new_zeros(*c.shape[:2], matrix.shape[1])
        best, value = y, cube.dual(c, y)
        for _ in range(-(-self.steps // self.restart)):
            start, total = (x, y), [torch.zeros_like(x), torch.zeros_like(y)]
            for _ in range(self.restart):
                new = (x - (c + y @ matrix) / (weight * norm)).clamp(-1, 1)
                y = (y + weight / norm * ((2 * new - x) @ matrix.mT - limit)).clamp(min=0)
                x, total = new, [total[0] + new, total[1] + y]
            average = total[0] / self.restart, total[1] / self.restart
            for candidate in (y, average[1]):
                found = cube.dual(c, candidate)
                best, value = torch.where((found > value)[..., None], candidate, best), torch.maximum(found, value)
            x, y = average
            moved = [torch.linalg.vector_norm(new - old, dim=-1, keepdim=True) for new, old in zip((x, y), start, strict=True)]
            clear = (moved[0] > 1e-12) & (moved[1] > 1e-12)
            weight = torch.where(clear, (weight * moved[1] / torch.where(clear, moved[0], 1.0)).sqrt(), weight)
        return best, x
