"""Report: what `check` found, as values, and as a table for people."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from boundlab.check.tally import Work
from boundlab.graph import INPUT
from boundlab.table import aligned

MOST_LINES = 60
"""Nodes that a printed report lists; of longer networks it leaves out the middle, but nothing that is wrong."""


class Bounding(enum.Enum):
    """How a node is bounded while what is assumed to vary varies."""

    VARIES = "varies"
    PARAMETER = "parameter"
    CONSTANT = "constant"
    EXACT = "exact"
    RELAXED = "relaxed"
    INTERVAL = "interval only"
    MISSING = "missing"


@dataclass(frozen=True)
class NodeReport:
    """One node: where it stands (`origin`), how it will be bounded, and what is wrong and what to do, if anything is.

    `free` are the free variables of its relaxation; `shape` is None where a file does not say it; `multiply_adds` counts one
    evaluation for the whole batch.
    """

    name: str
    operator: str
    shape: tuple[int, ...] | None
    reads: tuple[str, ...]
    origin: str
    output: bool
    bounding: Bounding
    free: tuple[str, ...] = ()
    multiply_adds: int = 0
    problem: str = ""
    remedy: str = ""

    @property
    def how(self) -> str:
        """How it is bounded, with its free variables."""
        return f"{self.bounding.value} ({', '.join(self.free)})" if self.free else self.bounding.value


@dataclass(frozen=True)
class Cost:
    """What a method is expected to take: rows pulled back (both signs of a neuron count as one), seconds, bytes at the worst.

    `assumes` says what the figures rest on, where they depend on values.
    """

    method: str
    rows: int
    seconds: float
    memory: int
    work: Work
    assumes: str = ""


@dataclass(frozen=True)
class Report:
    """What `check` found: every node, what each method is expected to take, and what concerns the network as a whole.

    `problem` and `remedy` are set where there is no graph at all; `notes` say why figures are missing.
    """

    network: str
    nodes: tuple[NodeReport, ...]
    costs: tuple[Cost, ...] = ()
    batch: int = 1
    problem: str = ""
    remedy: str = ""
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every method can bound the network."""
        return not self.problem and not self.missing

    @property
    def missing(self) -> tuple[NodeReport, ...]:
        """Nodes that cannot be bounded at all."""
        return tuple(node for node in self.nodes if node.bounding is Bounding.MISSING)

    @property
    def loose(self) -> tuple[NodeReport, ...]:
        """Nodes that are bounded by their interval only."""
        return tuple(node for node in self.nodes if node.bounding is Bounding.INTERVAL)

    def __repr__(self) -> str:
        listed = moving(self.nodes)
        parts = [self.summary(), aligned([NODE_COLUMNS, *shortened(listed)]) if listed else "",
                 "\n\n".join(self.findings()), aligned([COST_COLUMNS, *map(cost_cells, self.costs)]) if self.costs else "",
                 "\n".join(self.notes)]
        return "\n\n".join(part for part in parts if part)

    def summary(self) -> str:
        """One sentence."""
        if self.problem:
            return f"{self.network}: cannot be captured."
        counts = {kind: sum(node.bounding is kind for node in self.nodes) for kind in Bounding}
        told = ", ".join(f"{counts[kind]} {kind.value}" for kind in (
            Bounding.EXACT, Bounding.RELAXED, Bounding.INTERVAL, Bounding.MISSING) if counts[kind])
        return f"{self.network}: {'ok' if self.ok else 'NOT ok'}; {told or 'nothing varies'}."

    def findings(self) -> list[str]:
        """What is wrong, a line each, and what to do about it, said once for all that it helps."""
        whole = [f"{self.problem} To do: {self.remedy}."] if self.problem else []
        told: dict[str, list[str]] = {}
        for node in (*self.missing, *self.loose):
            told.setdefault(node.remedy, []).append(node.problem)
        return [*whole, *("\n".join([*problems, f"To do: {remedy}."]) for remedy, problems in told.items())]


NODE_COLUMNS = ("node", "operator", "shape", "bounded", "multiply-adds", "from")
COST_COLUMNS = ("method", "rows", "seconds", "memory", "if")


def moving(nodes: Sequence[NodeReport]) -> list[NodeReport]:
    """The inputs, and what depends on something that varies or is missing: not what is computed from parameters alone."""
    still = (Bounding.PARAMETER, Bounding.CONSTANT)
    return [node for node in nodes if node.operator == INPUT or node.bounding not in still]


def shortened(nodes: Sequence[NodeReport]) -> list[tuple[str, ...]]:
    """The lines of a printed table, without the middle of a long network."""
    ends = MOST_LINES // 2
    kept = [place < ends or place >= len(nodes) - ends or bool(node.problem) for place, node in enumerate(nodes)]
    lines: list[tuple[str, ...]] = []
    for place, node in enumerate(nodes):
        if kept[place]:
            lines.append(node_cells(node))
        elif kept[place - 1]:
            gap = next((at for at in range(place, len(nodes)) if kept[at]), len(nodes)) - place
            lines.append((f"... {gap} more", *[""] * (len(NODE_COLUMNS) - 1)))
    return lines


def node_cells(node: NodeReport) -> tuple[str, ...]:
    """A node's line."""
    shape = "?" if node.shape is None else "x".join(map(str, node.shape)) or "-"
    return node.name, node.operator, shape, node.how, scaled(node.multiply_adds), place(node.origin)


def place(origin: str) -> str:
    """Where a node stands, without the folders of a file."""
    return re.sub(r"^.*[/\\](?=[^/\\]+:\d+$)", "", origin) or "-"


def cost_cells(cost: Cost) -> tuple[str, ...]:
    """A cost's line."""
    return cost.method, str(cost.rows), duration(cost.seconds), f"{scaled(cost.memory)}B", cost.assumes or "-"


def scaled(number: float) -> str:
    """A large number with the letter of its thousands: 1.2M."""
    power = min(4, int(math.log10(number) / 3)) if number >= 1 else 0
    return f"{number / 1000**power:.3g}{('', 'k', 'M', 'G', 'T')[power]}" if number else "-"


def duration(seconds: float) -> str:
    """Seconds with two digits, since they are not known better."""
    return f"{seconds:.2g}" if seconds < 100 else f"{round(seconds, 2 - len(str(int(seconds)))):.0f}"
