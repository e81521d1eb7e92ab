"""boundlab show: the graph of a network, how each node is bounded, what is missing, and what bounds will take."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Annotated, Any

import torch
import typer

from boundlab.check.check import check
from boundlab.check.report import Bounding, NodeReport, Report, cost_cells, moving, node_cells
from boundlab.cli.answer import MISUSE, OK, Answer, Table
from boundlab.cli.loading import NetworkChoice, find_network
from boundlab.cli.verb import Misuse, Session

Parameters = Annotated[bool, typer.Option("--parameters", help="List parameters and constants too.")]
Batch = Annotated[int, typer.Option(min=1, help="Problems at a time, for the time and memory to expect.")]
Rows = Annotated[int | None, typer.Option(min=1, help="Rows of a specification for each problem; default: as for a label.")]
NODES = ("node", "operator", "shape", "bounded", "multiply-adds", "reads", "from")
COSTS = ("method", "rows", "seconds", "memory", "if")


def described(node: NodeReport) -> dict[str, Any]:
    """One node as JSON holds it."""
    return {"node": node.name, "operator": node.operator, "shape": node.shape and list(node.shape), "reads": list(node.reads),
            "from": node.origin, "output": node.output, "bounded": node.bounding.value, "free variables": list(node.free),
            "multiply-adds": node.multiply_adds, "problem": node.problem, "remedy": node.remedy}


def show(session: Session, network: NetworkChoice, batch: Batch = 1, rows: Rows = None,
         parameters: Parameters = False) -> Answer:
    """Show a network: how each node is bounded, what is missing and what to do, and the time and memory to expect.

    Exit code 2 if something is missing.
    """
    found = find_network(network)
    with session.working("looking at the network"):
        report = check(found.net, *found.example, batch=batch, rows=rows, device=torch.device(session.device))
    if report.problem:
        raise Misuse(report.problem)
    nodes = [described(node) for node in report.nodes]
    data = {"network": network.net, "ok": report.ok, "nodes": nodes, "batch": batch,
            "costs": [asdict(cost) for cost in report.costs], "notes": list(report.notes)}
    said = (*report.findings(), *report.notes, sentence_of(report))
    shown = Table(NODES, lines(report, parameters), numbers=frozenset({"multiply-adds"}))
    costs = Table(COSTS, [cost_cells(cost) for cost in report.costs], f"To expect at batch {batch}, to a factor of about 3",
                  frozenset({"rows", "seconds", "memory"}))
    return Answer(data, (shown, costs) if report.costs else (shown,), said, OK if report.ok else MISUSE)


def lines(report: Report, parameters: bool) -> list[tuple[str, ...]]:
    """A line a node; parameters, and what is computed from them alone, only if they are asked for."""
    nodes = report.nodes if parameters else moving(report.nodes)
    cells = [(node_cells(node), ", ".join(node.reads) or "-") for node in nodes]
    return [(*front, reads, place) for (*front, place), reads in cells]


def sentence_of(report: Report) -> str:
    """How many nodes of each kind, and how many numbers the parameters and constants are."""
    kinds = {kind: sum(node.bounding is kind for node in report.nodes) for kind in Bounding}
    numbers = sum(math.prod(node.shape) for node in report.nodes if node.bounding is Bounding.PARAMETER and node.shape)
    counts = ", ".join(f"{count} {kind.value}" for kind, count in kinds.items() if count)
    return f"{len(report.nodes)} nodes: {counts}; {numbers} numbers in parameters and constants."
