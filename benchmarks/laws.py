"""Power laws through measured points: cost = c * size ** exponent, fitted to the larger sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.scaling import AXES, FEW
from benchmarks.tables import MEGABYTE
from boundlab.cli.answer import Table

FITTED = 3
"""The law goes through this many of the largest sizes: at small ones the fixed cost of a call hides it."""
TENFOLD = 10


@dataclass(frozen=True)
class Law:
    """cost = factor * size ** exponent; `largest` is the largest size that was measured, `worst` the worst misfit, a factor."""

    factor: float
    exponent: float
    largest: float
    worst: float

    def at(self, size: float) -> float:
        """The cost that the law expects."""
        return float(self.factor * size**self.exponent)


def fit(sizes: Sequence[float], costs: Sequence[float]) -> Law | None:
    """Least squares in logarithms through the largest FITTED sizes; None if there are fewer than two positive costs."""
    pairs = sorted((size, cost) for size, cost in zip(sizes, costs, strict=True) if cost > 0)[-FITTED:]
    if len(pairs) < 2:
        return None
    xs, ys = [math.log(size) for size, _ in pairs], [math.log(cost) for _, cost in pairs]
    middle, height = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = (sum((x - middle) * (y - height) for x, y in zip(xs, ys, strict=True)) / sum((x - middle) ** 2 for x in xs))
    law = Law(math.exp(height - slope * middle), slope, pairs[-1][0], 1.0)
    return Law(law.factor, slope, law.largest, max(math.exp(abs(math.log(cost / law.at(size)))) for size, cost in pairs))


def series(points: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, float], list[Mapping[str, Any]]]:
    """The measured points of each axis, family and radius, by size."""
    found: dict[tuple[str, str, float], list[Mapping[str, Any]]] = {}
    for point in sorted(points, key=lambda point: (AXES.index(point["axis"]), point["size"])):
        if point["state"] == "done":
            found.setdefault((point["axis"], point["family"], point["eps"]), []).append(point)
    return found


def unsettled(eps: float) -> str:
    """What a radius means for the generated networks."""
    return "few" if eps == FEW else "nearly all"


def laws_table(points: Sequence[Mapping[str, Any]]) -> Table:
    """Exponents of time and memory, and what a network (batch, specification) ten times the largest measured would need."""
    rows = []
    for (axis, family, eps), along in series(points).items():
        sizes, last = [point["size"] for point in along], along[-1]
        time = fit(sizes, [point["seconds"] for point in along])
        memory = fit(sizes, [(point["memory"] or 0) / MEGABYTE for point in along])
        if time is not None:
            rows.append((axis, family, unsettled(eps), f"{sizes[0]} to {sizes[-1]}", str(last["rows_pulled"]),
                         f"{time.exponent:.2f}", "-" if memory is None else f"{memory.exponent:.2f}", f"{last['seconds']:.3g}",
                         f"{(last['memory'] or 0) / MEGABYTE:.0f}", f"{time.at(TENFOLD * time.largest):.3g}",
                         "-" if memory is None else f"{memory.at(TENFOLD * memory.largest):.0f}"))
    columns = ("along", "network", "unsettled", "sizes", "rows pulled", "time ~", "memory ~", "s", "MB", "s at 10 times",
               "MB at 10 times")
    return Table(columns, rows, "Scaling of CROWN", frozenset(columns[4:]))
