"""Problems one by one in float64, with the program that each leads to, and inner neurons tightened by programs of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boundlab.bounds.backward import Env
from boundlab.bounds.intermediate import Readers, box_exact, by_operator, checked, consumers, perturbed_nodes
from boundlab.bounds.problem import Problem
from boundlab.engines.engine import Engine
from boundlab.graph import Node
from boundlab.interval import Interval
from boundlab.maps import at_owner
from boundlab.ops import lookup
from boundlab.programs.encode import Encoding
from boundlab.programs.forms import numbers
from boundlab.programs.program import Array, Arrays
from boundlab.programs.regions import doubled
from boundlab.programs.tasks import ends_of_neurons, solved, with_costs
from boundlab.spec import Specification

NEURONS_A_TASK = 64
"""Programs that start from one another's basis, and go to one worker together."""


@dataclass(frozen=True)
class Case:
    """One problem in float64: its sets, its intervals (which grow, node by node, while they are made), and its program."""

    problem: Problem
    env: dict[int, Any]
    encoding: Encoding


def wide(value: Tensor) -> Tensor:
    """Numbers in float64 on the CPU, without gradients."""
    value = value.detach().cpu()
    return value.double() if value.is_floating_point() else value


def sources_at(case: Case, columns: Array) -> dict[int, Tensor]:
    """The sources (k, *shape) by node at points (k, columns) of a program; those that no row depends on are left out."""
    found = {}
    for index in case.problem.sets:
        form = case.encoding.forms.get(index)
        if form is not None:
            value = torch.from_numpy(columns[:, :form.matrix.shape[1]] @ form.matrix.T + form.constant)
            found[index] = value.reshape(-1, *case.problem.model.graph[index].shape)
    return found


def in_double(problem: Problem) -> Problem:
    """The same question in float64 on the CPU: where programs are written and solved."""
    spec = problem.spec
    return replace(
        problem, model=problem.model.detached().to(torch.float64).to(torch.device("cpu")),
        sets={index: doubled(region) for index, region in problem.sets.items()},
        inputs={name: wide(value) for name, value in problem.inputs.items()},
        spec=None if spec is None else Specification(wide(spec.rows), wide(spec.offset), spec.clause.cpu()),
        known={name: interval.map(wide) for name, interval in problem.known.items()})


def cases_of(problem: Problem, known: Env, lines: int, exact: bool = False) -> list[Case]:
    """Every problem (in float64) alone, with intervals `known` of all problems."""
    graph = problem.model.graph

    def one(place: int) -> Case:
        index = torch.tensor([place])
        alone = problem.take(index)
        env = {node: value.at(index).map(Tensor.detach) if isinstance(value, Interval) else at_owner(value, index).detach()
               for node, value in known.items()}
        return Case(alone, env, Encoding(graph, env, alone.sets, lines, exact))

    return [one(place) for place in range(problem.batch)]


def tightened(cases: list[Case], engine: Engine) -> None:
    """Make the intervals of inner neurons as tight as their programs do, node by node, for all cases together.

    A neuron is bounded where a nonlinear operator would use it, and where no cheaper bound is the best possible already.
    """
    first = cases[0].problem
    graph = first.model.graph
    readers = Readers(consumers(graph), perturbed_nodes(graph, first.sets))
    settled = box_exact(graph, first.sets, readers.perturbed)
    for node in graph:
        if node.source or node.index not in readers.perturbed:
            continue
        for case in cases:
            fresh = by_operator(node, case.env)
            assert isinstance(fresh, Interval)
            case.env[node.index] = checked(node, fresh.meet(case.env[node.index]))
        if node.index not in settled and not readers.moved(node) and alone(node, cases[0]):
            tighten_node(node, cases, readers, engine)


def alone(node: Node, case: Case) -> bool:
    """Whether programs may say more of a node than its own interval: unless it bends, coordinate by coordinate."""
    return not case.encoding.stops(node)


def tighten_node(node: Node, cases: list[Case], readers: Readers, engine: Engine) -> None:
    """Programs for all open neurons of one node in all cases."""
    tasks: list[tuple[int, Array, Arrays]] = []
    below, above = break_range(node, readers)
    for number, case in enumerate(cases):
        interval = case.env[node.index]
        mask = readers.unsettled(node, interval)
        open_ones = np.zeros(0, dtype=int) if mask is None else np.flatnonzero(numbers(mask))
        for part in np.array_split(open_ones, -(-len(open_ones) // NEURONS_A_TASK)) if len(open_ones) else ():
            costs = case.encoding.coordinates(node, part)
            tasks.append((number, part, with_costs(case.encoding.draft.program(), costs, **{
                "known lower": numbers(interval.lower)[part], "known upper": numbers(interval.upper)[part],
                "settled below": np.full(len(part), below), "settled above": np.full(len(part), above)})))
    tasks.sort(key=lambda task: -len(task[1]))  # long ones first, so that no worker begins one when the others are done
    found = solved(engine, ends_of_neurons, [task for _, _, task in tasks])
    for (number, part, _), result in zip(tasks, found, strict=True):
        env = cases[number].env
        env[node.index] = checked(node, put(env[node.index], part, result["lower"], result["upper"]))


def put(interval: Interval, places: Array, lower: Array, upper: Array) -> Interval:
    """An interval with other ends at some flat places."""
    def with_ends(end: Tensor, values: Array) -> Tensor:
        flat = end.reshape(-1).clone()
        flat[torch.from_numpy(places)] = torch.from_numpy(values)
        return flat.reshape(end.shape)

    return Interval(with_ends(interval.lower, lower), with_ends(interval.upper, upper))


def break_range(node: Node, readers: Readers) -> tuple[float, float]:
    """The least and the largest break of whatever reads a node: beyond them a tighter end is of no use."""
    breaks: list[float] = []
    for reader in readers.reading[node.index]:
        if readers.moved(reader):
            breaks.extend(break_range(reader, readers))
        elif not readers.linear(reader):
            op = lookup(reader.op)
            breaks.extend((op.breaks_of(reader.attrs) or ()) if op.piecewise else (-np.inf, np.inf))
    return min(breaks, default=-np.inf), max(breaks, default=np.inf)
