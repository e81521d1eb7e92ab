"""The picture of the scaling laws: time above, memory below, one column for each axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.laws import fit, series, unsettled
from benchmarks.scaling import AXES
from benchmarks.tables import MEGABYTE
from boundlab.reports.figure import save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2933", "#616e7c", "#e4e7eb"
LOOKS = {("mlp", "few"): ("#8fb8de", "o"), ("mlp", "nearly all"): ("#1d4e89", "o"), ("cnn", "few"): ("#f2c14e", "s"),
         ("cnn", "nearly all"): ("#b5651d", "s")}
TITLES = {"depth": "depth (hidden layers)", "width": "width (neurons, channels)", "batch": "batch (inputs)",
          "rows": "rows of the output (CROWN-IBP)"}


def figure_of(points: Sequence[Mapping[str, Any]]) -> Figure:
    """Two rows of panels with logarithmic axes; the exponent stands at the end of each line."""
    from matplotlib.figure import Figure as Canvas

    axes = [axis for axis in AXES if any(point["axis"] == axis for point in points)]
    figure = Canvas(figsize=(3.4 * max(len(axes), 2), 6.2), dpi=120, facecolor="white")
    panels = figure.subplots(2, len(axes), sharex="col", sharey="row", squeeze=False)
    for column, axis in enumerate(axes):
        for row, (key, unit) in enumerate((("seconds", 1.0), ("memory", MEGABYTE))):
            draw(panels[row][column], axis, points, key, unit)
        panels[1][column].set_xlabel(TITLES[axis], color=INK)
    panels[0][0].set_ylabel("seconds", color=INK)
    panels[1][0].set_ylabel("extra peak memory, MB", color=INK)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(labels), frameon=False, fontsize=9.5, labelcolor=INK)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.91, bottom=0.09, wspace=0.08, hspace=0.08)
    return figure


def draw(panel: Axes, axis: str, points: Sequence[Mapping[str, Any]], key: str, unit: float) -> None:
    """The lines of one panel."""
    for (along, family, eps), measured in series(points).items():
        if along != axis:
            continue
        sizes, costs = [point["size"] for point in measured], [(point[key] or 0) / unit for point in measured]
        color, marker = LOOKS[family, unsettled(eps)]
        panel.plot(sizes, costs, color=color, marker=marker, markersize=4, linewidth=1.6,
                   label=f"{family}, {unsettled(eps)} unsettled")
        law = fit(sizes, costs)
        if law is not None:
            panel.annotate(f"{law.exponent:.1f}", (sizes[-1], costs[-1]), xytext=(5, -3), textcoords="offset points",
                           color=color, fontsize=8.5)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.margins(x=0.14)
    panel.grid(color=GRID, linewidth=0.8)
    panel.tick_params(colors=MUTED, length=0)
    for side in ("top", "right", "left", "bottom"):
        panel.spines[side].set_color(GRID)


def save_figure(points: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The figure as a file; its ending says of which kind."""
    save(figure_of(points), path)
