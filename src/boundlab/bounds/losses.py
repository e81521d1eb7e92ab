"""Where a bound is lost: what the lines of each nonlinear node cost one row, at the point where they make it least."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from boundlab.bounds.backward import Env
from boundlab.bounds.groups import Groups, Lower, ground_of
from boundlab.bounds.methods import CROWN
from boundlab.bounds.problem import Method, Problem, problem_of
from boundlab.bounds.space import Own, free_node
from boundlab.errors import ShapeError
from boundlab.graph import Model, Node
from boundlab.interval import Interval
from boundlab.maps import Dense
from boundlab.ops import lookup
from boundlab.perturbations.sets import PerturbationSet
from boundlab.spec import Specification


@dataclass(frozen=True)
class LayerLoss:
    """A nonlinear node: its name and operator, how many numbers it has and at how many its lines are not exact, the mean width
    of the intervals that it reads, and what its lines cost the row."""

    name: str
    operator: str
    numbers: int
    inexact: int
    width: float
    loss: float


@dataclass(frozen=True)
class Losses:
    """The lower bound of a row, the row's own value at the input where the lines make it least, and what each node cost."""

    bound: float
    value: float
    layers: tuple[LayerLoss, ...]


def losses(model: Model, ball: PerturbationSet, spec: Specification, method: Method | None = None) -> Losses:
    """Where the lower bound of one row (spec.rows (1, 1, *out)) on one set is lost, by intervals of `method` (default: CROWN).

    Linear relaxations bound a row by a point z: a value of every node, such that each nonlinear node's is on its line. With a
    the row as it arrives at node k, and f that node's function, node k costs a (f(z) - z_k) >= 0: what the bound gains there if
    this node alone had no lines. Where there is one nonlinear node, bound plus loss is the value. ShapeError for several rows.
    """
    if spec.rows.shape[:2] != (1, 1):
        raise ShapeError(f"losses are of one row of one problem, got rows of shape {list(spec.rows.shape)}.")
    problem = problem_of(model, ball, spec)
    env = (method or CROWN()).environment(problem)
    target, rows = problem.target, Dense(problem.target.shape, None, spec.rows)
    owner = torch.zeros(1, dtype=torch.long, device=spec.rows.device)
    objective = Lower(ground_of(problem, env, Own()), Groups(target.index, 1, owner, lambda _: replace(rows, owner=owner)))
    arrived, least = objective.meeting({})
    bound, value = (float((spec.rows[0, 0] * y).sum() + spec.offset[0, 0])
                    for y in (least[target.index][0, 0], without_lines(objective, least)[0]))
    return Losses(bound, value, tuple(by_layer(problem, objective, arrived, least)))


def by_layer(problem: Problem, objective: Lower, arrived: Mapping[int, Tensor], least: Mapping[int, Tensor]
             ) -> Iterator[LayerLoss]:
    """What each nonlinear node costs, in the order of the network."""
    env = objective.env
    for node in problem.model.graph:
        if not free_node(node, env) or node.index not in arrived:
            continue
        read = [interval for arg in node.args if isinstance(interval := env[arg], Interval)]
        inexact = torch.stack([lookup(node.op).unsettled(x, node.attrs).expand(1, *node.shape) for x in read]).any(0)
        width = float(torch.cat([x.width.flatten() for x in read]).mean())
        there = {arg: least[arg][:, 0] for arg in node.args if isinstance(env[arg], Interval)}
        cost = arrived[node.index][:, 0] * (function(node, env, there) - least[node.index][:, 0])
        yield LayerLoss(node.name, node.op, inexact.numel(), int(inexact.sum()), width, float(cost.sum()))


def function(node: Node, env: Env, values: Mapping[int, Tensor]) -> Tensor:
    """A node's function at values (1, *shape) of its perturbed arguments."""
    arguments = (values[arg] if isinstance(env[arg], Interval) else env[arg] for arg in node.args)
    return lookup(node.op).evaluate(*arguments, **node.attrs)


def without_lines(objective: Lower, least: Mapping[int, Tensor]) -> Tensor:
    """The output (1, *out) at the input where the row is least: what reads the input alone has its value, the rest follows."""
    env, values = objective.env, dict[int, Tensor]()
    for node in objective.ground.problem.model.graph:
        perturbed = [arg for arg in node.args if isinstance(env[arg], Interval)]
        if node.source or node.index not in least:
            continue
        known = all(arg in values for arg in perturbed)
        values[node.index] = function(node, env, values) if known else least[node.index][:, 0]
    return values[objective.groups.target]
