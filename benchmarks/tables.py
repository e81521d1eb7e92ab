"""The tables of a results file, for a terminal and for a page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cases import OURS, PEER
from benchmarks.targets import targets_table
from boundlab.cli.answer import Table

MEGABYTE = 2**20


def figure(value: Any, form: str = "{:.3g}", missing: str = "") -> str:
    """A number for people; text as it is."""
    if value is None:
        return missing
    return value if isinstance(value, str) else form.format(value)


def seconds(side: Mapping[str, Any] | None) -> str:
    """How long a library took, or why there is no figure."""
    if side is None:
        return ""
    if side["state"] == "done":
        return figure(side["seconds"])
    return "refused" if side["state"] == "refused" else str(side["note"])


def megabytes(side: Mapping[str, Any] | None) -> str:
    """Extra memory at the peak."""
    held = None if side is None else side["memory"]
    return "" if held is None else f"{held / MEGABYTE:.0f}"


def mean(side: Mapping[str, Any] | None) -> str:
    """The mean lower bound."""
    return "" if side is None else figure(side["mean"], "{:.6g}")


def faster(entry: Mapping[str, Any]) -> str:
    """The ratio of times; at least so much where the peer was stopped."""
    if "times_faster_at_least" in entry:
        return figure(entry["times_faster_at_least"], "over {:.3g}x")
    return figure(entry.get("times_faster"), "{:.3g}x")


def bounds_table(results: Mapping[str, Any]) -> Table:
    """One line for each network, method and batch."""
    peer = any(PEER in entry for entry in results["bounds"])
    columns = ["network", "method", "batch", "s", "MB", "mean lower"]
    columns += ["peer s", "peer MB", "peer mean lower", "faster", "smaller", "gain, mean", "gain, worst"] if peer else []
    rows = []
    for entry in results["bounds"]:
        own, other = entry.get(OURS), entry.get(PEER)
        row = [entry["network"], entry["method"], str(entry["batch"]), seconds(own), megabytes(own), mean(own)]
        if peer:
            row += [seconds(other), megabytes(other), mean(other), faster(entry), figure(entry.get("times_smaller"), "{:.3g}x"),
                    figure(entry.get("mean_gain"), "{:+.2g}"), figure(entry.get("least_gain"), "{:+.2g}")]
        rows.append(row)
    return Table(tuple(columns), rows, "Lower bounds of the margins", frozenset(columns[2:]))


def steps_table(results: Mapping[str, Any]) -> Table:
    """One line for each training step."""
    peer = any(PEER in entry for entry in results["training"])
    columns = ["network", "step", "batch", "s", "x natural", "MB"] + (["peer s", "peer x natural", "peer MB"] if peer else [])
    rows = []
    for entry in results["training"]:
        row = [entry["network"], entry["step"], str(entry["batch"])]
        for side in [entry.get(OURS), *([entry.get(PEER)] if peer else [])]:
            row += [seconds(side), "" if side is None else figure(side["times_natural"], "{:.2f}"), megabytes(side)]
        rows.append(row)
    return Table(tuple(columns), rows, "Training steps", frozenset(columns[2:]))


def building_table(results: Mapping[str, Any]) -> Table:
    """One line for each network: the median of what its capture took, over all its cases; no other figure counts it."""
    libraries = [library for library in (OURS, PEER) if any(library in entry for entry in results["bounds"])]
    names = dict.fromkeys(entry["network"] for entry in results["bounds"])
    builds = {(name, library): [entry[library]["build"] for entry in results["bounds"] if entry["network"] == name
                                and library in entry and entry[library].get("build") is not None]
              for name in names for library in libraries}
    rows = [[name, *(figure(statistics.median(found)) if (found := builds[name, library]) else "" for library in libraries)]
            for name in names if any(builds[name, library] for library in libraries)]
    columns = ("network", *(f"{library} s" for library in libraries))
    return Table(columns, rows, "Capture (not counted above)", frozenset(columns[1:]))


def provenance(machine: Mapping[str, Any]) -> str:
    """When, where and by which command figures were measured."""
    return (f"{machine['date']}, `{machine['command']}`, commit {machine['commit']}: {machine['processor']}, "
            f"{machine['cores']} cores, {machine['threads']} thread, torch {machine['torch']}, {machine['clock']}; "
            f"cuda: {machine['cuda']}.")


def sentences(results: Mapping[str, Any]) -> list[str]:
    """Where the figures come from, and who took part."""
    return [provenance(results["machine"]), f"Peer: {results['peer']['note']}."]


def tables_of(results: Mapping[str, Any]) -> list[Table]:
    """The tables that a results file fills."""
    made = [bounds_table(results), steps_table(results), targets_table(results), building_table(results)]
    return [table for table in made if table.rows]


def markdown(table: Table) -> str:
    """A table as a page holds it."""
    rule = ["---:" if name in table.numbers else "---" for name in table.columns]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [table.columns, rule, *table.rows])


def page(results: Mapping[str, Any]) -> str:
    """The whole file as Markdown."""
    return "\n\n".join([*sentences(results), *(markdown(table) for table in tables_of(results))])


def merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several results files as one: the first one's machine, everyone's cases; a later one replaces the same case."""
    def key(entry: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(entry[name] for name in ("network", "method", "step", "batch") if name in entry)

    together = {kind: list({key(entry): entry for part in parts for entry in part[kind]}.values())
                for kind in ("bounds", "training")}
    return {**parts[0], **together}
