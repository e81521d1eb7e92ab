"""Bounds by Lipschitz constants in l_2: a ball around the value at one input is carried through the network.

The ball is scaled by the spectral norm of each affine operator and by the steepest slope of each nonlinear one. `LMT` knows
nothing else (Tsuzuku et al. 2018). `BCP` carries a box as well, met with the box around the ball's image, and asks for the
least value of a specification on ball and box together (Lee et al. 2020, box constraint propagation).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from boundlab.bounds.around import Around, Norm, box_after, radius_after, through_slopes
from boundlab.bounds.backward import Env
from boundlab.bounds.intermediate import Evaluator, by_operator, checked, fill, is_affine, relaxer, source_environment
from boundlab.bounds.methods import interval_rows, refiner
from boundlab.bounds.problem import Bounds, Problem
from boundlab.errors import BoundError, SpecError
from boundlab.graph import Node
from boundlab.interval import Interval, point
from boundlab.maps import spectral_bound
from boundlab.ops import lookup
from boundlab.perturbations.ball import LpBall
from boundlab.perturbations.sets import farthest

Balls = dict[int, Around]


@dataclass(frozen=True)
class LMT:
    """Balls alone, scaled by Lipschitz constants (Tsuzuku et al. 2018, Lipschitz-margin training); a specification is merged
    into the last affine layers, and is lowest at the radius times the l_2 norm of its rows there.

    Intervals are the boxes around the balls. `norm` bounds the spectral norm of a layer.
    """

    norm: Norm = field(default=spectral_bound, repr=False)

    def environment(self, problem: Problem) -> Env:
        """Intervals of every node."""
        return caught(problem, self.norm, boxes=False)[0]

    def run(self, problem: Problem) -> Bounds:
        """Bounds of the output or of the specification's rows."""
        env, balls = caught(problem, self.norm, boxes=False)
        return interval_rows(problem, env, lambda index: LpBall(balls[index].center, balls[index].radius, 2.0))


@dataclass(frozen=True)
class BCP:
    """Box constraint propagation (Lee et al. 2020): balls as in `LMT`, and boxes, met with what each layer makes of the ball.

    A specification is merged into the last affine layers, and minimised on ball and box of the layer before them. Never looser
    than `LMT` with the same `norm`, nor than intervals of the box around the set, up to rounding.
    """

    norm: Norm = field(default=spectral_bound, repr=False)

    def environment(self, problem: Problem) -> Env:
        """Intervals of every node."""
        return caught(problem, self.norm, boxes=True)[0]

    def run(self, problem: Problem) -> Bounds:
        """Bounds of the output or of the specification's rows."""
        env, balls = caught(problem, self.norm, boxes=True)
        return interval_rows(problem, env, lambda index: cut_ball(balls[index], env[index]))


def cut_ball(ball: Around, box: Tensor | Interval) -> LpBall:
    """The part of a ball within a box, which is widened where rounding left the ball's center outside."""
    assert isinstance(box, Interval)
    held = box.hull(point(ball.center))
    return LpBall(ball.center.expand(held.shape), ball.radius, 2.0, (held.lower, held.upper))


def caught(problem: Problem, norm: Norm, *, boxes: bool) -> tuple[Env, Balls]:
    """The interval of every node, and a ball of every perturbed one. BoundError if one is NaN or infinite.

    SpecError for a norm that is no function of a layer, such as an order of a norm.
    """
    if not callable(norm):
        raise SpecError(f"`norm` is a function that bounds the spectral norm of a layer, got {norm!r:.60}; leave it out for "
                        "one that proves.")
    env: dict[int, Any] = source_environment(problem.model, problem.sets, problem.inputs)
    balls = {index: Around(*region.l2_ball()) for index, region in problem.sets.items()}
    fill(problem.model.graph, env, refiner(problem), problem.observe, carrier(balls, env, norm, boxes))
    for index, ball in balls.items():
        if not bool(torch.isfinite(ball.radius).all()):
            raise BoundError(f"the ball around {problem.model.graph[index].describe()} has a radius that is NaN or infinite; "
                             "the set is too large for this method, or an operator is outside its domain there.")
    return env, balls


def carrier(balls: Balls, env: dict[int, Any], norm: Norm, boxes: bool) -> Evaluator:
    """A node's interval, beside which its ball is put among the others.

    With `boxes` it is the operator's own, met with the box around the ball's image under a layer; else the box around the ball.
    An operator without a Lipschitz constant has the ball around the operator's interval.
    """
    relax = relaxer(env)

    def evaluate(node: Node, env: dict[int, Any]) -> Tensor | Interval:
        places = [arg for arg in node.args if isinstance(env[arg], Interval)]
        if not places:
            return by_operator(node, env)
        before = [balls[arg] for arg in places]
        arguments = [balls[arg].center if arg in places else env[arg] for arg in node.args]
        center = lookup(node.op).evaluate(*arguments, **node.attrs)
        layer = relax(node).lower if is_affine(node, env) else None
        radius = through_slopes(node, env, before) if layer is None else radius_after(layer, before, norm)
        interval = by_operator(node, env) if boxes or layer is None else None
        if radius is None:
            assert isinstance(interval, Interval)
            radius = farthest(center, interval.hull(point(center)))
        balls[node.index] = Around(center, radius)
        if not boxes:
            if isinstance(interval, Interval):
                checked(node, interval)  # slopes beyond an operator's domain are finite
            return balls[node.index].box()
        assert isinstance(interval, Interval)
        better = None if layer is None else box_after(layer, before, center)
        return interval if better is None else interval.meet(better)

    return evaluate
