"""Optimised bounding lines: the free variables of relaxations, moved to raise the lower bounds of a specification's rows.

Lines are sound whatever their free variables are, so every step gives bounds, and each row keeps the best that it has met. The
plain lines are the first step, so no row ends below plain CROWN. Each row has variables of its own. Bounds of inner nodes stay
as the method `base` found them. Lyu et al. 2020 (FROWN), Sec. 3; Xu et al. 2021 (alpha-CROWN), Sec. 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from boundlab.bounds.backward import Env, Relaxer, concretize
from boundlab.bounds.intermediate import checked, fitting, is_affine, relaxer
from boundlab.bounds.methods import CROWN, check_memory, method_value
from boundlab.bounds.problem import Bounds, Method, Problem, finite_rows
from boundlab.bounds.reference import pull, reference
from boundlab.errors import SpecError
from boundlab.graph import Node
from boundlab.interval import Interval
from boundlab.maps import Dense
from boundlab.ops import lookup
from boundlab.ops.op import Choice
from boundlab.spec import Specification, at_least

DECAY = 0.98
"""Factor on the step size after each step."""
COPIES = 8
"""Tensors as large as the free variables that are alive at once: they, their gradients, Adam's means, lines made of them."""
MOST_NUMBERS = 2**24
"""Free variables of the problems that are optimised together: more do not make a step faster."""
Variables = Mapping[int, Mapping[str, Tensor]]
"""Free variables (b, s, *shape) by node and name."""


@dataclass(frozen=True)
class Optimised:
    """CROWN with optimised lines: `steps` of projected Adam of size `rate`, on bounds of inner nodes by `base`.

    Never looser than plain CROWN on the same inner bounds; without gradients of their own. `memory` ("4GB", or bytes) may be
    held at once, by `base` too.
    """

    base: Method = field(default_factory=CROWN)
    steps: int = 20
    rate: float = 0.1
    memory: str | int | None = None

    def __post_init__(self) -> None:
        method_value(self.base)
        check_memory(self.memory)
        if self.steps < 0 or not 0 < self.rate < math.inf:
            raise SpecError(f"steps must be at least 0 and rate a positive number, got {self.steps!r} and {self.rate!r}.")

    def environment(self, problem: Problem) -> Env:
        return self.base.environment(problem.within(self.memory))

    def run(self, problem: Problem) -> Bounds:
        problem = problem.within(self.memory)
        env = detached(self.environment(problem))
        if problem.spec is not None:
            return Bounds(finite_rows(self.raised(problem, env), problem), None, problem.model.graph, env)
        low, negated = self.raised(replace(problem, spec=both_sides(problem)), env).chunk(2, dim=1)
        interval, shape = env[problem.target.index], problem.target.shape
        assert isinstance(interval, Interval)
        found = Interval(low.reshape(len(low), *shape), -negated.reshape(len(low), *shape))
        found = checked(problem.target, interval.meet(found))
        return Bounds(found.lower, found.upper, problem.model.graph, {**env, problem.target.index: found})

    def raised(self, problem: Problem, env: Env) -> Tensor:
        """Lower bounds of the specification's rows (b, s), in groups of problems that memory has room for."""
        assert problem.spec is not None
        free = sum(math.prod(node.shape) * len(lookup(node.op).alpha) for node in free_nodes(problem, env))
        each = COPIES * max(1, problem.spec.rows.shape[1] * free)
        size = max(1, problem.budget.share(MOST_NUMBERS * COPIES) // each)
        if problem.batch <= size:
            return self.climbed(problem, env)
        groups = torch.arange(problem.batch).split(size)
        return torch.cat([self.climbed(problem.take(group), taken(env, group, problem.batch)) for group in groups])

    def climbed(self, problem: Problem, env: Env) -> Tensor:
        """The best bound of each row (b, s) over all steps."""
        plain, variables = relaxer(env), variables_of(problem, env)
        best = rows_below(problem, env, plain)
        moved = [value for named in variables.values() for value in named.values()]
        if not moved or self.steps == 0:
            return best
        optimiser, ends = torch.optim.Adam(moved, lr=self.rate), list(ends_of(problem, env))
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, DECAY)
        for _ in range(self.steps):
            with torch.enable_grad():
                lower = rows_below(problem, env, with_variables(env, plain, variables))
                optimiser.zero_grad()
                (-lower.sum()).backward(inputs=moved)
            best = better(best, lower.detach())
            optimiser.step()
            schedule.step()
            project(moved, ends)
        with torch.no_grad():
            return better(best, rows_below(problem, env, with_variables(env, plain, variables)))


@torch.no_grad()
def project(moved: list[Tensor], ends: list[tuple[Tensor, Tensor]]) -> None:
    """Each variable moved back into its range, in place."""
    for value, (low, high) in zip(moved, ends, strict=True):
        value.copy_(torch.minimum(torch.maximum(value, low), high))


def better(best: Tensor, found: Tensor) -> Tensor:
    """The larger bound of each row; what is no number does not count."""
    return torch.maximum(best, torch.where(torch.isfinite(found), found, -math.inf))


def detached(env: Env) -> dict[int, Any]:
    """The same intervals and values without a way back for autograd: inner bounds are constants here."""
    return {index: value.map(Tensor.detach) if isinstance(value, Interval) else value.detach() for index, value in env.items()}


def taken(env: Env, group: Tensor, batch: int) -> dict[int, Any]:
    """The intervals of some of `batch` problems; what all share stays shared."""
    def some(value: Tensor) -> Tensor:
        return value[group] if len(value) == batch else value

    return {index: value.map(some) if isinstance(value, Interval) else some(value) for index, value in env.items()}


def both_sides(problem: Problem) -> Specification:
    """Rows for every output and for its negative, which together bound it from both sides."""
    interval = problem.sets[min(problem.sets)].box().lower
    size = math.prod(problem.target.shape)
    eye = torch.eye(size, dtype=interval.dtype, device=interval.device).reshape(1, size, *problem.target.shape)
    return at_least(torch.cat([eye, -eye], dim=1))


def free_nodes(problem: Problem, env: Env) -> list[Node]:
    """The nodes whose relaxations have free variables here, up to the output."""
    return [node for node in problem.model.graph if not node.source and node.index <= problem.target.index
            and any(isinstance(env[arg], Interval) for arg in node.args) and lookup(node.op).alpha and not is_affine(node, env)]


def chosen(choice: Choice, node: Node, env: Env, like: Tensor) -> Tensor:
    """A number of `Free`, or what its function gives for a node's arguments, (b or 1, 1, *shape)."""
    if callable(choice):
        return choice(*(env[arg] for arg in node.args), **node.attrs).detach()
    return like.new_full((1, 1, *node.shape), choice)


def variables_of(problem: Problem, env: Env) -> Variables:
    """Every free variable at its start, its own for each problem and row."""
    assert problem.spec is not None
    count, batch = problem.spec.rows.shape[1], problem.batch

    def started(choice: Choice, node: Node) -> Tensor:
        start = chosen(choice, node, env, problem.spec.rows)  # type: ignore[union-attr]
        return start.expand(batch, count, *node.shape).clone().requires_grad_()

    return {node.index: {name: started(free.start, node) for name, free in lookup(node.op).alpha.items()}
            for node in free_nodes(problem, env)}


def ends_of(problem: Problem, env: Env) -> Iterator[tuple[Tensor, Tensor]]:
    """The range of each free variable, in the order of `variables_of`."""
    assert problem.spec is not None
    for node in free_nodes(problem, env):
        for free in lookup(node.op).alpha.values():
            yield chosen(free.low, node, env, problem.spec.rows), chosen(free.high, node, env, problem.spec.rows)


def with_variables(env: Env, plain: Relaxer, variables: Variables) -> Relaxer:
    """Relaxations at the free variables; `plain` ones where a node has none."""
    def relax(node: Node) -> Any:
        if node.index not in variables:
            return plain(node)
        arguments = [env[arg] for arg in node.args]
        return fitting(node, lookup(node.op).lines(*arguments, alpha=variables[node.index], **node.attrs))

    return relax


def rows_below(problem: Problem, env: Env, relax: Relaxer) -> Tensor:
    """Lower bounds of the specification's rows with these relaxations, (b, s)."""
    assert problem.spec is not None
    graph, target = problem.model.graph, problem.target
    pulled = pull(graph, env, reference(graph, env, relax), target.index, Dense(target.shape, None, problem.spec.rows))
    return concretize(pulled, env, problem.sets) + problem.spec.offset
