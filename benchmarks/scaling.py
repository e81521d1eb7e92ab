"""How CROWN's time and memory grow with depth, width, batch and number of rows, on generated networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

import boundlab as bl
from benchmarks.cases import OURS, Job
from benchmarks.generated import Generated
from benchmarks.ours import METHODS
from benchmarks.suite import Plan, compete
from boundlab.bounds.observe import Recorder

FEW, MANY = 0.002, 0.1
"""Radii at which few neurons of the generated networks are unsettled, and nearly all: the pleasant case and the worst one."""
AXES = ("depth", "width", "batch", "rows")


@dataclass(frozen=True)
class Point:
    """One measurement: a network, a batch, and the method (rows alone are measured with inner bounds by intervals)."""

    axis: str
    size: int
    network: Generated
    batch: int
    method: str = "CROWN"


@dataclass(frozen=True)
class Ladder:
    """Where the sizes of a family begin and how they grow: the network in the middle, and the values along each axis."""

    middle: Generated
    depth: tuple[int, ...]
    width: tuple[int, ...]
    batch: tuple[int, ...] = (1, 2, 4, 8, 16)
    rows: tuple[int, ...] = (64, 256, 1024, 4096)


LADDERS = (
    Ladder(Generated("mlp", 4, 256, 9, FEW), depth=(2, 4, 8, 16), width=(128, 256, 512, 1024, 2048)),
    Ladder(Generated("cnn", 4, 16, 9, FEW), depth=(2, 4, 8, 16), width=(4, 8, 16, 32, 64)),
)
QUICK = (Ladder(Generated("mlp", 2, 8, 3, FEW), depth=(1, 2, 4), width=(4, 8, 16), batch=(1, 2, 4), rows=(2, 4, 8)),)
"""Points that take no time, to see that the code runs."""


def points(ladder: Ladder, eps: float, axes: Sequence[str]) -> Iterator[Point]:
    """The measurements of one family at one radius."""
    middle = replace(ladder.middle, eps=eps)
    if "depth" in axes:
        yield from (Point("depth", size, replace(middle, depth=size), 1) for size in ladder.depth)
    if "width" in axes:
        yield from (Point("width", size, replace(middle, width=size), 1) for size in ladder.width)
    if "batch" in axes:
        yield from (Point("batch", size, middle, size) for size in ladder.batch)
    if "rows" in axes:
        yield from (Point("rows", size, replace(middle, rows=size), 1, "CROWN-IBP") for size in ladder.rows)


def rows_pulled(point: Point) -> int:
    """How many rows the method pulls back, inner ones and the output's."""
    loaded, recorder = point.network.load(), Recorder()
    model, x = bl.capture(loaded.module, loaded.x[:2]).detached(), loaded.x[:point.batch]
    with torch.no_grad():
        bl.bound(model, bl.LpBall(x, loaded.eps), method=METHODS[point.method], spec=bl.at_least(loaded.rows[:point.batch]),
                 observe=recorder)
    return sum(step.rows for step in recorder.steps)


def measure(point: Point, plan: Plan) -> dict[str, Any]:
    """One point's figures."""
    found = compete({OURS: Job(OURS, point.network, point.method, point.batch, plan.device)}, plan)[OURS]
    network = point.network
    return {"axis": point.axis, "size": point.size, "family": network.family, "eps": network.eps, "depth": network.depth,
            "width": network.width, "batch": point.batch, "output_rows": network.rows, "method": point.method,
            "rows_pulled": rows_pulled(point) if found.state == "done" else None, "state": found.state, "note": found.note,
            "seconds": found.seconds, "memory": found.memory}


def measure_all(ladders: Sequence[Ladder], axes: Sequence[str], plan: Plan) -> Iterator[dict[str, Any]]:
    """All points of all families at both radii, as they come."""
    for ladder in ladders:
        for eps in (FEW, MANY):
            for point in points(ladder, eps, axes):
                yield measure(point, plan)
