"""Inner layers of the convex outer polytope, estimated with random vectors: for training alone, nothing here is a bound.

With lines of one slope a network is affine in its input and in one more number for each ReLU that may be open. How far a neuron
moves is a norm of its coefficients. A sum of numbers times Cauchy variables is their l_1 norm times one, a sum of numbers times
normal variables their l_2 norm times one; so a few random columns, pushed through the layers once, stand for all coordinates
(Wong et al. 2018, Sec. 3.2; Li, Hastie and Church 2007). All ReLUs share the columns of one draw, as their shares add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import Affine, LinearBound
from boundlab.bounds.backward import backward, concretize
from boundlab.bounds.intermediate import is_affine, relaxer, source_environment
from boundlab.bounds.problem import Problem, finite_rows, problem_of
from boundlab.bounds.slopes import parallel
from boundlab.errors import MissingRule, SpecError
from boundlab.graph import Model, Node
from boundlab.interval import Interval, around
from boundlab.maps import Dense, LinearMap
from boundlab.ops import lookup
from boundlab.perturbations.ball import LpBall
from boundlab.spec import margins


@dataclass(frozen=True)
class Sketch:
    """A node's middle (b, *shape), and random columns (b, k, *shape) of what moves it: Cauchy ones, and normal ones."""

    center: Tensor
    cauchy: Tensor
    normal: Tensor

    def through(self, layer: LinearMap) -> Sketch:
        """After a linear map."""
        return Sketch(layer.apply(self.center), layer.push(self.cauchy), layer.push(self.normal))

    def plus(self, other: Sketch) -> Sketch:
        """The sum of two."""
        return Sketch(self.center + other.center, self.cauchy + other.cauchy, self.normal + other.normal)

    def interval(self) -> Interval:
        """The middle, give or take the estimated norms."""
        length = torch.linalg.vector_norm(self.normal, dim=1) / math.sqrt(self.normal.shape[1])
        return around(self.center, self.cauchy.abs().median(dim=1).values + length)


def projected_margins(model: Model, ball: LpBall, labels: Tensor, count: int) -> Tensor:
    """Margins (b, classes - 1) on balls, by lines around estimated intervals; rows of the margins themselves are exact.

    The random numbers are fixed by the inputs, so equal batches have equal losses. SpecError for norms other than 2 and inf,
    MissingRule for nonlinear operators without a free slope.
    """
    if ball.p not in (2.0, math.inf):
        raise SpecError(f"random projections estimate norms for balls in l_inf and l_2, got norm {ball.p:g}.")
    problem = problem_of(model, ball, margins(labels, model.graph.output.shape[0], model.dtype))
    assert problem.spec is not None
    seed = int(ball.center.detach().double().sum().abs().mul(1e6)) % 2**31
    env = estimated(problem, ball, count, torch.Generator().manual_seed(seed))
    target = problem.target
    rows = backward(model.graph, env, relaxer(env, parallel), target.index, Dense(target.shape, None, problem.spec.rows))
    return finite_rows(concretize(rows, env, problem.sets), problem)


def estimated(problem: Problem, ball: LpBall, count: int, generator: torch.Generator) -> dict[int, Any]:
    """An estimated interval of every perturbed node, and the values of the others."""
    env: dict[int, Any] = source_environment(problem.model, problem.sets, problem.inputs)
    relax = relaxer(env, parallel)
    sketches = {index: begun(ball, count, generator) for index in problem.sets}
    for node in problem.model.graph:
        if node.source:
            continue
        places = [arg for arg in node.args if isinstance(env[arg], Interval)]
        if not places:
            env[node.index] = lookup(node.op).evaluate(*(env[arg] for arg in node.args), **node.attrs)
            continue
        bound = relax(node)
        found = moved(bound.lower, [sketches[arg] for arg in places])
        if not is_affine(node, env):
            found = opened(node, bound, found, generator)
        sketches[node.index] = found
        env[node.index] = found.interval()
    return env


def begun(ball: LpBall, count: int, generator: torch.Generator) -> Sketch:
    """The columns of a ball: Cauchy ones of a box, normal ones of a ball in l_2."""
    shape = (1, count, *ball.center.shape[1:])
    box, radius = ball.box(), ball.radius.unsqueeze(1)
    none = torch.zeros(shape).to(ball.center)
    if ball.independent:
        return Sketch(box.center, cauchy(shape, generator, none) * box.radius.unsqueeze(1), none)
    return Sketch(ball.center, none, torch.randn(shape, generator=generator).to(none) * radius)


def moved(affine: Affine, before: list[Sketch]) -> Sketch:
    """After an affine function of several arguments."""
    parts = [sketch.through(layer) for layer, sketch in zip(affine.maps, before, strict=True)]
    total = parts[0]
    for part in parts[1:]:
        total = total.plus(part)
    if affine.bias is None:
        return total
    return Sketch(total.center + affine.bias.squeeze(1), total.cauchy, total.normal)


def opened(node: Node, bound: LinearBound, below: Sketch, generator: torch.Generator) -> Sketch:
    """After a nonlinear operator: its lower line, and a number of its own up to the upper one for each coordinate."""
    if "slope" not in lookup(node.op).alpha:
        raise MissingRule(f"{node.describe()} has no free slope, so its lines are not parallel; random projections are for "
                          "networks of ReLUs, CAP(projections=None) for others.")
    low, high = bound.lower.bias, bound.upper.bias
    gap = (0.0 if high is None else high) - (0.0 if low is None else low)
    assert isinstance(gap, Tensor)
    shape = (1, *below.cauchy.shape[1:])
    return Sketch(below.center + gap.squeeze(1) / 2, below.cauchy + cauchy(shape, generator, gap) * gap / 2, below.normal)


def cauchy(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard Cauchy variables, whose absolute value has the median 1."""
    return torch.tan(math.pi * (torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5)).to(like)
