"""The picture of tightness against time: one panel a network, one mark a method, tighter higher and cheaper to the left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boundlab.reports.figure import GRID, INK, MUTED, empty_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = {"IBP": ("#8f9bb3", "o"), "CROWN-IBP": ("#8f9bb3", "s"), "Forward": ("#2a9d8f", "^"),
         "Forward+Backward": ("#2a9d8f", "v"), "CROWN": ("#1d4e89", "D"), "Optimised": ("#e07a1f", "o"),
         "FROWN": ("#e07a1f", "s"), "Dual": ("#b5651d", "P"), "LP-LAST": ("#8a2d5b", "^"), "LP-ALL": ("#8a2d5b", "v")}


def figure_of(entries: Sequence[Mapping[str, Any]], caption: str) -> Figure:
    """Panels side by side with logarithmic axes; the grey line joins the methods that none beats in both time and tightness."""
    figure = empty_figure(3.9 * len(entries), 4.6)
    panels = figure.subplots(1, len(entries), squeeze=False)[0]
    for panel, entry in zip(panels, entries, strict=True):
        draw(panel, entry)
    panels[0].set_ylabel("mean margin proven, how far below an attack's", color=INK, fontsize=9.5)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, frameon=False, fontsize=9.5, labelcolor=INK,
                  bbox_to_anchor=(0.5, 0.035))
    figure.text(0.5, 0.012, caption, ha="center", color=MUTED, fontsize=8)
    figure.subplots_adjust(left=0.072, right=0.985, top=0.87, bottom=0.27, wspace=0.2)
    return figure


def draw(panel: Axes, entry: Mapping[str, Any]) -> None:
    """The marks of one network."""
    from matplotlib.ticker import LogLocator

    places = {point["method"]: (point["seconds"], entry["attacked"] - point["margin"]) for point in entry["points"]}
    best = frontier(list(places.values()))
    panel.plot([x for x, _ in best], [y for _, y in best], color=GRID, linewidth=5, zorder=1, solid_capstyle="round")
    for name, (seconds, gap) in places.items():
        color, marker = LOOKS.get(name, (INK, "X"))
        panel.scatter([seconds], [gap], color=color, marker=marker, s=62, zorder=3, edgecolors="white", label=name)
    panel.set_title(f"{entry['network']}\nl_inf balls of {entry['eps']:g}; an attack finds {entry['attacked']:.1f}", color=INK,
                    fontsize=9.5)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.invert_yaxis()
    panel.set_xlabel("CPU time an image", color=INK, fontsize=9.5)
    panel.margins(0.12)
    panel.grid(color=GRID, linewidth=0.8)
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_major_formatter(lambda x, _: f"{x:g} s" if x >= 0.1 else f"{1000 * x:g} ms")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_minor_formatter("")
    panel.tick_params(which="both", colors=MUTED, length=0, labelsize=8.5)
    for spine in panel.spines.values():
        spine.set_color(GRID)


def frontier(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The places that no other beats in both coordinates, from the left."""
    def beaten(place: tuple[float, float]) -> bool:
        return any(x <= place[0] and y <= place[1] and (x, y) != place for x, y in places)

    return [place for place in sorted(places) if not beaten(place)]


def save_scatter(entries: Sequence[Mapping[str, Any]], caption: str, path: Path) -> None:
    """The figure as a file; its ending says of which kind."""
    save(figure_of(entries, caption), path)
