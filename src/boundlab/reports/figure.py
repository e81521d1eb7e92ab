"""The demonstration's figure: what an attack leaves standing, what is proven, and the gap between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from boundlab.errors import MissingPackage
from boundlab.reports.digits import CERTIFIED, METHODS, ORDINARY, Point, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2933", "#616e7c", "#e4e7eb"
ATTACKED, GAP = "#1f2933", "#f2c14e"
PROVEN = {"IBP": ("#8f9bb3", "o", 1.4), "CROWN-IBP": ("#2a9d8f", "s", 1.6), "CROWN": ("#1d4e89", "D", 2.2)}
TITLES = {ORDINARY: "Trained ordinarily", CERTIFIED: "Trained with the CROWN-IBP loss"}
BEST = "CROWN"


def empty_figure(width: float, height: float, layout: Literal["constrained"] | None = None) -> Figure:
    """A white figure, sizes in inches; MissingPackage without matplotlib."""
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError as problem:
        raise MissingPackage("figures need matplotlib: pip install 'boundlab[report]'.") from problem
    return Canvas(figsize=(width, height), dpi=150, facecolor="white", layout=layout)


@contextmanager
def reproducible() -> Iterator[None]:
    """A context in which the same figure gives the same file, and SVG keeps text as text."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "boundlab", "svg.fonttype": "none", "font.family": "DejaVu Sans"}):
        yield


def save(figure: Figure, path: Path) -> None:
    """A figure as a file, whose ending says of which kind; the same figure gives the same file."""
    with reproducible():
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def figure_of(study: Study) -> Figure:
    """Two panels with one vertical axis: the network trained ordinarily, and the one trained with bounds."""
    figure = empty_figure(10.4, 5.0)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, name in zip(panels, (ORDINARY, CERTIFIED), strict=True):
        draw(panel, [point for point in study.points if point.network == name], name)
    panels[0].set_ylabel("accuracy on test images", color=INK)
    panels[1].axvline(study.settings.train_eps, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    panels[1].annotate("eps in training", (study.settings.train_eps, 1.0), xytext=(4, -2), textcoords="offset points",
                       color=MUTED, fontsize=8.5, va="top")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False, fontsize=9.5, labelcolor=INK,
                  bbox_to_anchor=(0.5, 0.005))
    figure.suptitle("Handwritten digits: what an attack leaves standing, and what is proven", x=0.078, y=0.975, ha="left",
                    fontsize=14, fontweight="bold", color=INK)
    figure.text(0.078, 0.895, f"{study.sizes['test']} test images; every pixel in [0, 1] may change by eps. "
                f"Bounds in ordinary floating point ({study.rigour}).", fontsize=9.5, color=MUTED)
    figure.subplots_adjust(left=0.078, right=0.985, top=0.81, bottom=0.2, wspace=0.08)
    return figure


def draw(panel: Axes, points: Sequence[Point], name: str) -> None:
    """One network: accuracy under attack, certified accuracy by method, and the undecided gap."""
    eps = [point.eps for point in points]
    attacked = [point.attacked for point in points]
    best = [point.certified[BEST] for point in points]
    panel.fill_between(eps, best, attacked, color=GAP, alpha=0.32, linewidth=0, label=f"undecided (attack to {BEST})", zorder=2)
    panel.plot(eps, attacked, color=ATTACKED, linewidth=2.2, marker="o", markersize=4.5, label="under attack (PGD)", zorder=5,
               clip_on=False)
    for title in METHODS:
        color, marker, width = PROVEN[title]
        panel.plot(eps, [point.certified[title] for point in points], color=color, linewidth=width, marker=marker, markersize=4,
                   label=f"certified, {title}", zorder=4)
    panel.set_title(TITLES[name], loc="left", fontsize=11.5, color=INK, pad=8)
    panel.set_xlabel("eps (largest change of a pixel)", color=INK)
    panel.set_ylim(-0.02, 1.03)
    panel.set_xlim(0, max(eps) * 1.015)
    panel.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0], ["0", "20 %", "40 %", "60 %", "80 %", "100 %"])
    panel.grid(axis="y", color=GRID, linewidth=0.9)
    panel.set_axisbelow(True)
    panel.tick_params(colors=MUTED, length=0)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color(MUTED)


def save_figure(study: Study, folder: Path) -> list[Path]:
    """The figure as PNG and SVG in `folder`; the files' names."""
    figure, paths = figure_of(study), [folder / "digits.png", folder / "digits.svg"]
    for path in paths:
        save(figure, path)
    return paths
