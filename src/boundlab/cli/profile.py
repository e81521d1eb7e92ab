"""Where time and memory went, by node: the table and the JSON of --profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from boundlab.bounds.observe import Step
from boundlab.cli.answer import Table

WORKS = ("interval", "zonotope", "forms", "rows")
MEGABYTE = 2**20


def described(steps: Sequence[Step]) -> dict[str, Any]:
    """One node as JSON holds it: totals, and for each kind of work its seconds, rows and memory."""
    node = steps[0].node
    kinds = {work: total([step for step in steps if step.work == work]) for work in WORKS
             if any(step.work == work for step in steps)}
    return {"node": node.name, "operator": node.op, "shape": list(node.shape), **total(steps), "work": kinds}


def total(steps: Sequence[Step]) -> dict[str, Any]:
    """Seconds, rows and memory of several pieces of work."""
    memory = [step.memory for step in steps if step.memory is not None]
    return {"seconds": sum(step.seconds for step in steps), "rows": sum(step.rows for step in steps),
            "memory": sum(memory) if memory else None}


def profile_data(steps: Sequence[Step], seconds: float) -> dict[str, Any]:
    """The whole profile as JSON holds it, nodes in the network's order; `seconds` is what the whole call took."""
    nodes = {step.node.index: step.node for step in steps}
    groups = [described([step for step in steps if step.node.index == index]) for index in sorted(nodes)]
    return {"seconds": seconds, "elsewhere": seconds - sum(step.seconds for step in steps), "nodes": groups}


def profile_table(profile: dict[str, Any]) -> Table:
    """One line a node: seconds for each kind of work that was done, their share of the call, rows, memory."""
    nodes, whole = profile["nodes"], profile["seconds"]
    works = [work for work in WORKS if any(work in node["work"] for node in nodes)]
    rows = [line(node["node"], node["operator"], [node["work"].get(work) for work in works], node, whole) for node in nodes]
    elsewhere = {"seconds": profile["elsewhere"], "rows": 0, "memory": None}
    rows.append(line("(elsewhere)", "-", [None] * len(works), elsewhere, whole))
    columns = ("node", "operator", *(f"{work} s" for work in works), "all s", "share", "rows", "memory MB")
    return Table(columns, rows, "Where time and memory went", frozenset(columns[2:]))


def line(name: str, operator: str, kinds: Sequence[dict[str, Any] | None], sums: dict[str, Any],
         whole: float) -> tuple[str, ...]:
    """The cells of one line."""
    memory = "-" if sums["memory"] is None else f"{sums['memory'] / MEGABYTE:.1f}"
    return (name, operator, *("-" if kind is None else f"{kind['seconds']:.4f}" for kind in kinds), f"{sums['seconds']:.4f}",
            f"{sums['seconds'] / whole:.1%}", str(sums["rows"] or "-"), memory)
