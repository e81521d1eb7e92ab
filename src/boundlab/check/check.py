"""check: every node of a network with how it will be bounded and what is missing, and the expected time and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from boundlab.bounds.intermediate import is_affine
from boundlab.capture.missing import Missing
from boundlab.capture.onnx import load_onnx, survey_onnx
from boundlab.capture.survey import survey
from boundlab.capture.torch import capture
from boundlab.check.dry import DryRun
from boundlab.check.report import Bounding, Cost, NodeReport, Report
from boundlab.check.tally import Work, measure_speed
from boundlab.errors import BoundlabError, CaptureError, MissingRule, UnsupportedOperator
from boundlab.graph import INPUT, PARAMETER, Model, Node
from boundlab.interval import Interval
from boundlab.ops import lookup

Network = nn.Module | Model | str | Path
REGISTER = ("register an operator for it; with bl.interval_op a value and an interval are enough (docs: add an operator). Or "
            "rewrite that place with operators that `boundlab ops` lists")
REWRITE = "do as the sentence before says"
RELAX = "bounds hold but are loose; give the operator a `relax` (docs: add an operator)"
CONSTANT = "let it be constant, or give the operator a rule for it (docs: add an operator)"


@dataclass(frozen=True)
class Found:
    """What capture gave: a graph, whose nodes may stand for missing operators, and what is missing."""

    model: Model
    missing: tuple[Missing, ...] = ()


def check(net: Network, *example: Tensor, batch: int | None = None, rows: int | None = None,
          varying: Sequence[str] | None = None, device: torch.device | None = None) -> Report:
    """How a network will be bounded, what is missing, and what to expect, before anything is bounded.

    `net` is a module (with example inputs as for `capture`), a Model, or the path of an ONNX file. `varying` names the
    inputs and parameters that are assumed to vary (None: all inputs), `batch` the problems (None: as in the example, else
    1), `rows` those of a specification for each problem (None: one fewer than the output has coordinates).

    A network that cannot be captured raises nothing: the report lists everything that is missing, with its place and what to
    do. Times are those of `device` (None: where the network lies) with the threads that torch uses now, good to a factor of
    about 3.
    """
    name = net if isinstance(net, (str, Path)) else type(net).__name__
    count = batch if batch is not None else len(example[0]) if example else 1
    try:
        found = look(net, example)
    except BoundlabError as problem:
        return Report(str(name), (), batch=count, problem=str(problem), remedy=REWRITE)
    graph = found.model.graph
    sources = [graph.source_named(name) for name in varying] if varying is not None else graph.inputs
    run = DryRun(found.model, {node.index for node in sources}, count)
    nodes, notes, work = rehearsed(run, found.missing, rows)
    costs = () if work is None else costs_of(work, found.model, device or found.model.device)
    return Report(str(name), nodes, costs, count, notes=notes)


def look(net: Network, example: tuple[Tensor, ...]) -> Found:
    """The graph of a network, with stand-ins where operators are missing; CaptureError if there is no graph at all."""
    if isinstance(net, Model):
        return Found(net)
    if not isinstance(net, (nn.Module, str, Path)):
        raise CaptureError(f"check takes a torch.nn.Module, a Model or the path of an ONNX file, got {type(net).__name__}.")
    try:
        return Found(capture(net, *example) if isinstance(net, nn.Module) else load_onnx(net))
    except (UnsupportedOperator, CaptureError) as problem:
        try:
            model, missing = survey(net, *example) if isinstance(net, nn.Module) else survey_onnx(net)
        except CaptureError:
            raise problem from None
        if not missing:  # every call could be captured, and yet the whole is refused
            raise
        return Found(model, missing)


@dataclass(frozen=True)
class Expected:
    """What three methods will do, each with its bytes at the peak: IBP, CROWN-IBP, and CROWN with all neurons open."""

    plain: tuple[Work, int]
    pulled: tuple[Work, int]
    full: tuple[Work, int]
    rows: int
    neurons: int


def rehearsed(run: DryRun, missing: Sequence[Missing],
              rows: int | None) -> tuple[tuple[NodeReport, ...], tuple[str, ...], Expected | None]:
    """A report of every node, notes, and the work that methods will have, if nothing stands in the way."""
    problems = run.intervals()
    plain = run.tally.work, run.tally.peak
    problems = {**run.relaxations(), **problems}
    relaxed = run.tally.work
    graph, lacking, further = run.model.graph, *standing_in(missing, {node.name for node in run.model.graph})
    nodes = tuple(node_report(run, node, problems.get(node.index), lacking.get(node.name))
                  for node in graph if node.name not in further)
    nodes += tuple(NodeReport(entry.name, entry.operator, None, (), entry.origin, False, Bounding.MISSING, problem=entry.reason,
                              remedy=REGISTER if entry.blind else REWRITE)
                   for entry in missing if entry not in lacking.values())
    odd = [f"Time and memory are not known: the rules of {graph[index].describe()} need data ({type(problem).__name__})."
           for index, problem in problems.items() if not isinstance(problem, BoundlabError)]
    if any(node.bounding is Bounding.MISSING for node in nodes):
        return nodes, (*odd, "Time and memory are not known while something is missing."), None
    if odd:
        return nodes, tuple(odd), None
    sizes = [math.prod(graph[index].shape) for index in graph.outputs]
    count = max(1, max(sizes) - 1) if rows is None else rows
    plain = plain[0].then(run.output_rows(count, merged=True)), plain[1]
    pulled = relaxed.then(run.output_rows(count)), run.tally.peak
    inner, neurons = run.inner_rows()
    full = pulled[0].then(inner), run.tally.peak
    return nodes, (), Expected(plain, pulled, full, count * run.batch, neurons)


def standing_in(missing: Sequence[Missing], names: set[str]) -> tuple[dict[str, Missing], set[str]]:
    """What is missing by the first of its nodes that a graph holds, and those that hold a call's further results."""
    kept = [(entry, [name for name in (entry.name, *entry.others) if name in names]) for entry in missing]
    return {held[0]: entry for entry, held in kept if held}, {name for _, held in kept for name in held[1:]}


def unknown(node: Node) -> bool:
    """Whether nobody registered the node's operator."""
    try:
        lookup(node.op)
    except UnsupportedOperator:
        return True
    return False


def reason_of(node: Node, entry: Missing | None) -> str:
    """Why a node that stands for a call is there."""
    if entry is None:
        return f"{node.describe()} follows something that could not be captured."
    return f"{node.describe()} has no operator here." if entry.blind else entry.reason


def node_report(run: DryRun, node: Node, error: Exception | None, entry: Missing | None) -> NodeReport:
    """What is said of one node."""
    bounding, problem, remedy = bounding_of(node, run.env), "", ""
    if isinstance(error, BoundlabError) or entry is not None:
        bounding = Bounding.MISSING
        if entry is None and isinstance(error, BoundlabError) and not isinstance(error, UnsupportedOperator):
            problem, remedy = str(error), CONSTANT if isinstance(error, MissingRule) else REWRITE
        else:
            problem, remedy = reason_of(node, entry), REGISTER if entry is None or entry.blind else REWRITE
    elif bounding is Bounding.INTERVAL:
        problem, remedy = f"{node.describe()} is bounded by its interval alone: its operator has no relaxation.", RELAX
    free = tuple(lookup(node.op).alpha) if bounding is Bounding.RELAXED else ()
    reads = tuple(run.model.graph[arg].name for arg in node.args)
    return NodeReport(node.name, node.op, node.shape, reads, node.origin, node.index in run.model.graph.outputs, bounding,
                      free, run.multiply_adds(node), problem, remedy)


def bounding_of(node: Node, env: Mapping[int, Any]) -> Bounding:
    """How a node that has all its rules is bounded."""
    if node.op in (INPUT, PARAMETER):
        varies = isinstance(env[node.index], Interval)
        return Bounding.VARIES if varies else Bounding.PARAMETER if node.op == PARAMETER else Bounding.CONSTANT
    if not isinstance(env[node.index], Interval):
        return Bounding.CONSTANT
    if unknown(node):
        return Bounding.MISSING
    if lookup(node.op).relax is None:
        return Bounding.INTERVAL
    return Bounding.EXACT if is_affine(node, env) else Bounding.RELAXED


def costs_of(work: Expected, model: Model, device: torch.device) -> tuple[Cost, ...]:
    """What IBP, CROWN-IBP and CROWN are expected to take on a device."""
    speed = measure_speed(device, model.dtype)
    held = sum(tensor.numel() * tensor.element_size() for tensor in model.params.values())

    def cost(method: str, rows: int, done: tuple[Work, int], assumes: str = "") -> Cost:
        return Cost(method, rows, speed.seconds(done[0]), done[1] + held, done[0], assumes)

    return (cost("IBP", work.rows, work.plain), cost("CROWN-IBP", work.rows, work.pulled),
            cost("CROWN, at most", work.rows + work.neurons, work.full,
                 "every neuron stays open; at least what CROWN-IBP takes"))
