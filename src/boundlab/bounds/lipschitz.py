"""Bounds by Lipschitz constants in l_2: a ball around the value at one input is carried through the network, alone or with a box.

The ball is scaled by the spectral norm of each affine operator and by the steepest slope of each nonlinear one. `LMT` knows
nothing else (Tsuzuku et al. 2018). `BCP` carries a box as well, which is met with the box around the image of the ball, and asks
for the least value of a specification on ball and box together (Lee et al. 2020, box constraint propagation).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import Affine
from boundlab.bounds.backward import Env, Relaxer, backward, concretize
from boundlab.bounds.intermediate import Refine, bending, is_affine, propagate, relaxer
from boundlab.bounds.methods import refiner
from boundlab.bounds.observe import watch
from boundlab.bounds.problem import Bounds, Problem, finite_rows
from boundlab.errors import BoundError
from boundlab.graph import Node
from boundlab.interval import Interval, around, point
from boundlab.maps import Dense, LinearMap, disjoint, flat, row_norms, spectral_bound
from boundlab.ops import lookup
from boundlab.perturbations.ball import LpBall
from boundlab.perturbations.sets import PerturbationSet, farthest

Norm = Callable[[LinearMap, Tensor], Tensor]
"""A spectral norm, (b or 1,), of a map with numbers of a tensor's type: `spectral_bound`, or `trainable_bound` with a gradient."""


@dataclass(frozen=True)
class Around:
    """A value at one input, (b or 1, *shape), and how far in l_2 the values at all others are from it at most, (b or 1,)."""

    center: Tensor
    radius: Tensor

    @property
    def wide(self) -> Tensor:
        """The radius beside the center."""
        return self.radius.reshape(-1, *[1] * (self.center.dim() - 1))

    def box(self) -> Interval:
        """The box around the ball."""
        return around(self.center, self.wide.expand_as(self.center) if len(self.radius) == 1 else self.wide)


Balls = dict[int, Around]


@dataclass(frozen=True)
class LMT:
    """Balls alone, scaled by Lipschitz constants (Tsuzuku et al. 2018, Lipschitz-margin training); a specification is merged
    into the last affine layers, and is lowest at the radius times the l_2 norm of its rows there.

    Intervals are the boxes around the balls. `norm` bounds the spectral norm of a layer.
    """

    norm: Norm = spectral_bound

    def environment(self, problem: Problem) -> Env:
        """Intervals of every node."""
        return caught(problem, self.norm, boxes=False)[0]

    def run(self, problem: Problem) -> Bounds:
        """Bounds of the output or of the specification's rows."""
        env, balls = caught(problem, self.norm, boxes=False)
        return worst_rows(problem, env, {index: LpBall(ball.center, ball.radius, 2.0) for index, ball in balls.items()})


@dataclass(frozen=True)
class BCP:
    """Box constraint propagation (Lee et al. 2020): balls as in `LMT`, and boxes, met with what each layer makes of the ball.

    A specification is merged into the last affine layers, and minimised on ball and box of the layer before them. Never looser
    than `LMT` with the same `norm`, nor than intervals of the box around the set, up to rounding.
    """

    norm: Norm = spectral_bound

    def environment(self, problem: Problem) -> Env:
        """Intervals of every node."""
        return caught(problem, self.norm, boxes=True)[0]

    def run(self, problem: Problem) -> Bounds:
        """Bounds of the output or of the specification's rows."""
        env, balls = caught(problem, self.norm, boxes=True)
        return worst_rows(problem, env, {index: cut_ball(ball, env[index]) for index, ball in balls.items()})


def cut_ball(ball: Around, box: Tensor | Interval) -> LpBall:
    """The part of a ball within a box, which is widened where rounding left the ball's center outside."""
    assert isinstance(box, Interval)
    held = box.hull(point(ball.center))
    return LpBall(ball.center.expand(held.shape), ball.radius, 2.0, (held.lower, held.upper))


def caught(problem: Problem, norm: Norm, *, boxes: bool) -> tuple[Env, Balls]:
    """The interval of every node, and a ball of every perturbed one. BoundError if one is NaN or infinite."""
    env: dict[int, Any] = {}
    balls = {index: Around(*region.l2_ball()) for index, region in problem.sets.items()}
    carry = carrier(problem, balls, relaxer(env), norm)

    def refine(node: Node, env: dict[int, Any]) -> Interval | None:
        balls[node.index], box = carry(node, env)
        if not boxes:
            env[node.index] = balls[node.index].box()
        return box if boxes else None

    propagate(problem.model, problem.sets, problem.inputs, env, refiner(problem, refine), problem.observe)
    for index, ball in balls.items():
        if not bool(torch.isfinite(ball.radius).all()):
            raise BoundError(f"the ball around {problem.model.graph[index].describe()} has a radius that is NaN or infinite; "
                             "the set is too large for this method, or an operator is outside its domain there.")
    return env, balls


Carrier = Callable[[Node, Env], tuple[Around, Interval | None]]


def carrier(problem: Problem, balls: Balls, relax: Relaxer, norm: Norm) -> Carrier:
    """The ball of a node, and a box from the balls of its arguments where there is one that its own box may be wider than."""

    def carry(node: Node, env: Env) -> tuple[Around, Interval | None]:
        op, places = lookup(node.op), [arg for arg in node.args if isinstance(env[arg], Interval)]
        center = op.evaluate(*(balls[arg].center if arg in places else env[arg] for arg in node.args), **node.attrs)
        before = [balls[arg] for arg in places]
        if is_affine(node, env):
            return through_affine(relax(node).lower, before, center, norm)
        radius = through_slopes(node, env, before)
        if radius is None:
            interval = env[node.index]
            assert isinstance(interval, Interval)
            radius = farthest(center, interval.hull(point(center)))
        return Around(center, radius), None

    return carry


def through_affine(affine: Affine, before: list[Around], center: Tensor, norm: Norm) -> tuple[Around, Interval]:
    """The ball after an affine operator, and the box around the image of the balls before it.

    Of a residual sum the radii add; parts of a concatenation stand at right angles.
    """
    like = before[0].center
    parts = [norm(layer, like) * ball.radius for layer, ball in zip(affine.maps, before, strict=True)]
    apart = len(parts) > 1 and disjoint(list(affine.maps), like)
    whole = torch.stack(torch.broadcast_tensors(*parts))
    radius = torch.linalg.vector_norm(whole, dim=0) if apart else whole.sum(0)
    spread = [row_norms(layer, like) * ball.radius.reshape(-1, *[1] * (center.dim() - 1))
              for layer, ball in zip(affine.maps, before, strict=True)]
    reach = torch.stack(torch.broadcast_tensors(*spread)).sum(0)
    return Around(center, radius), around(*torch.broadcast_tensors(center, reach))


def through_slopes(node: Node, env: Env, before: list[Around]) -> Tensor | None:
    """The radius after a nonlinear operator with a known Lipschitz constant, (b or 1,); None for others.

    A function of each coordinate lengthens a step by its steepest slope on the interval at most, which holds both ends of it.
    """
    op = lookup(node.op)
    if op.lipschitz is not None:
        whole = torch.stack(torch.broadcast_tensors(*(ball.radius for ball in before)))
        return op.lipschitz * torch.linalg.vector_norm(whole, dim=0)
    if op.derivative is None or len(node.args) > 1:
        return None
    interval = env[node.args[0]]
    assert isinstance(interval, Interval)
    slope = op.derivative(interval.hull(point(before[0].center)), **node.attrs)
    steepest = torch.maximum(-slope.lower, slope.upper)
    return before[0].radius * flat(steepest, 1).amax(1)


def worst_rows(problem: Problem, env: Env, regions: dict[int, LpBall]) -> Bounds:
    """The output's interval, or a specification's rows pulled through affine nodes and minimised on `regions` where they end."""
    graph, spec = problem.model.graph, problem.spec
    if spec is None:
        interval = env[problem.target.index]
        assert isinstance(interval, Interval)
        return Bounds(interval.lower, interval.upper, graph, env)
    rows = Dense(problem.target.shape, None, spec.rows)
    sets: dict[int, PerturbationSet] = {**regions, **problem.sets}
    with watch(problem.observe, problem.target, "rows", spec.rows.shape[0] * spec.rows.shape[1]):
        pulled = backward(graph, env, relaxer(env), problem.target.index, rows, stop=bending(graph, problem.sets))
        lower = concretize(pulled, env, sets) + spec.offset
    return Bounds(finite_rows(lower, problem), None, graph, env, pulled)
