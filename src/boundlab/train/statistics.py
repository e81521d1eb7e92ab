"""Batch norm by statistics of a batch, for training: those of a clean pass, or of the centers of a batch of intervals.

Captured networks normalise by the running statistics. Here the mean and the variance of a batch take their place. They are
functions of the parameters, and gradients pass through them; but bounds are about the network with these numbers in it, since
a network that mixes the examples of a batch is no function of one. Three policies:

* clean: `clean_pass(model, x).model` normalises by the statistics at x itself (Shi et al. 2021, Sec. 4.2, code);
* center: `CenterStatistics()` is interval propagation that takes them from the intervals it has reached, without a clean pass;
* population: the captured model as it is, after `update_running`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from boundlab.bounds.backward import Env
from boundlab.bounds.intermediate import Evaluator, by_operator, fill, relaxer, source_environment
from boundlab.bounds.methods import first_layer, interval_rows, pulling_of, refiner
from boundlab.bounds.problem import Bounds, Problem
from boundlab.graph import BatchNorm, Graph, Model, Node
from boundlab.interval import Interval, around
from boundlab.ops import lookup
from boundlab.train.channels import Moments, ScaleAndShift


@dataclass(frozen=True)
class CenterStatistics:
    """IBP that normalises by the mean and variance of the batch's interval centers; a method like any other.

    The intervals of an example depend on the others of its batch through these numbers alone. `statistics_in` reads them.
    """

    memory: str | int | None = None

    def environment(self, problem: Problem) -> Env:
        """Intervals of every node, with the statistics in place of the captured ones."""
        model, env = problem.model, source_environment(problem.model, problem.sets, problem.inputs)
        pulling = pulling_of(problem.within(self.memory), env, relaxer(env))
        return fill(model.graph, env, refiner(problem, first_layer(problem, pulling)), problem.observe, by_batch(model.graph))

    def run(self, problem: Problem) -> Bounds:
        """Bounds of the output or of the specification's rows."""
        return interval_rows(problem, self.environment(problem))


@dataclass(frozen=True)
class CleanPass:
    """What a batch gives without perturbation: the network's output (b, *out), and the model with the batch's statistics."""

    output: Tensor
    model: Model


def clean_pass(model: Model, inputs: Mapping[str, Tensor] | Tensor) -> CleanPass:
    """The network in training mode at `inputs` (b, *shape): each batch norm by the mean and variance over this batch."""
    named = {model.graph.inputs[0].name: inputs} if isinstance(inputs, Tensor) else inputs
    env = fill(model.graph, source_environment(model, {}, named), lambda node, env: None, None, by_batch(model.graph))
    output = env[model.graph.output.index]
    assert isinstance(output, Tensor)
    return CleanPass(output, with_statistics(model, env))


def with_statistics(model: Model, env: Env) -> Model:
    """The model that normalises by the statistics in `env`, of `CenterStatistics` or another pass; gradients stay."""
    found = {model.graph[index].name: env[index] for norm in model.graph.norms for index in (norm.mean, norm.variance)}
    params = {name: value.squeeze(0) for name, value in found.items() if isinstance(value, Tensor)}
    return model.with_params(params)


def update_running(model: Model, measured: Model, problems: int, momentum: float = 0.1) -> None:
    """Move the running statistics of `model`, in place, toward those of `measured`, taken from a batch of `problems`.

    As torch does it: the variance is that of a sample. With momentum 1 / k at the k-th of several batches the running
    statistics become the mean over all of them.
    """
    graph = model.graph
    for norm in graph.norms:
        count = problems * math.prod(norm.value.shape[1:])
        for index, factor in ((norm.mean, 1.0), (norm.variance, count / max(1, count - 1))):
            name = graph[index].name
            with torch.no_grad():
                model.params[name].lerp_(measured.params[name] * factor, momentum)


def by_batch(graph: Graph) -> Evaluator:
    """Values and intervals as usual, but batch norms use the statistics of the batch: of values, or of intervals' centers."""
    readers = {index: norm for norm in graph.norms for index in (norm.mean, norm.variance)}
    layers = {norm.folded: norm for norm in graph.norms if norm.folded is not None}
    before: dict[int, Before] = {}

    def evaluate(node: Node, env: dict[int, Any]) -> Tensor | Interval:
        for norm in (readers[arg] for arg in node.args if arg in readers):
            if norm.mean not in before:
                before[norm.mean] = value_before(norm, env)
                mean, variance = Moments.apply(before[norm.mean].center)
                env[norm.mean], env[norm.variance] = mean.unsqueeze(0), variance.unsqueeze(0)
        if node.index in layers:
            return with_layer(layers[node.index], node, env, before[layers[node.index].mean])
        return by_operator(node, env)

    return evaluate


class Before(NamedTuple):
    """What a batch norm normalises: the value or the center of its interval, and the radius of what its layer reads."""

    center: Tensor
    radius: Tensor | None = None


def value_before(norm: BatchNorm, env: Env) -> Before:
    """The value from the graph; of a batch norm that is a part of a layer, that layer without it."""
    if norm.folded is None and norm.value.index >= 0:
        return Before(center_of(env[norm.value.index]))
    source, *constants = (env[arg] for arg in norm.value.args)
    center, radius = (source, None) if isinstance(source, Tensor) else source.center_and_radius()
    value = lookup(norm.value.op).evaluate(center, *map(center_of, constants), **norm.value.attrs)
    return Before(value, radius)


def center_of(value: Tensor | Interval) -> Tensor:
    """A constant itself, the middle of an interval."""
    return value if isinstance(value, Tensor) else value.center


def with_layer(norm: BatchNorm, node: Node, env: Env, before: Before) -> Tensor | Interval:
    """The layer that a batch norm is a part of, without convolving its center once more."""
    center = ScaleAndShift.apply(before.center, *(center_of(env[index]).squeeze(0) for index in (norm.scale, norm.shift)))
    if before.radius is None:
        return center
    relax = lookup(node.op).relax
    assert relax is not None
    (layer,) = relax(*(env[arg] for arg in node.args), **node.attrs).lower.maps
    return around(center, layer.abs().apply(before.radius))
