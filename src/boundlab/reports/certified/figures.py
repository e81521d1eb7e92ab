"""Figures of a certified data set as SVG whose colours are those of the page that it stands in."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from boundlab.certify.certification import Certification
from boundlab.reports.certified.tables import ends
from boundlab.reports.figure import empty_figure, reproducible
from boundlab.table import percent, radius

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {name: f"#0{place}0{place}0{place}"
          for place, name in enumerate(("ink", "muted", "line", "proven", "broken", "open"), 1)}
"""Stand for the page's own colours, which are put in at the end."""
ACROSS = 60
"""Characters that have room along an axis."""


def accuracy_figure(found: Certification) -> str:
    """Certified and possibly robust accuracy against the radius, what is open between them, and clean accuracy."""
    figure = empty_figure(5.6, 3.7, "constrained")
    panel = figure.subplots()
    eps = list(found.settings.eps)
    certified, attacked = [one.certified for one in found.shares], [one.attacked for one in found.shares]
    panel.axhline(found.shares[0].clean, color=COLORS["muted"], linestyle=(0, (4, 3)), linewidth=1.3, label="without a change")
    panel.plot(eps, attacked, color=COLORS["broken"], linewidth=2, marker="s", markersize=5, clip_on=False, zorder=4,
               label="robust, at most")
    panel.fill_between(eps, certified, attacked, color=COLORS["open"], alpha=0.45, linewidth=0, label="open", zorder=2)
    panel.plot(eps, certified, color=COLORS["proven"], linewidth=2.4, marker="o", markersize=5, clip_on=False, zorder=5,
               label="certified, at least")
    if len(eps) == 1:
        panel.vlines(eps, certified, attacked, color=COLORS["open"], linewidth=6, alpha=0.45, zorder=2)
    panel.set_ylim(0, 1)
    panel.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    panel.set_xticks(*thinned(eps))
    panel.set_xlabel("eps, the radius of the change")
    panel.set_ylabel("share of inputs")
    figure.legend(loc="outside upper left", ncols=2, columnspacing=1.6, handlelength=1.8, handletextpad=0.6, frameon=False,
                  fontsize=10, labelcolor=COLORS["ink"])
    quiet(panel)
    told = "; ".join(f"at {radius(one.eps)} between {percent(one.certified)} and {percent(one.attacked)}"
                     for one in found.shares)
    return inline(figure, "accuracy", f"Robust accuracy against eps: {told}; "
                  f"{percent(found.shares[0].clean)} without a change.")


def thinned(eps: Sequence[float]) -> tuple[list[float], list[str]]:
    """The radii that have room for a label on an axis, the last one in any case."""
    kept, apart = [eps[-1]], (eps[-1] - eps[0]) / room([radius(one) for one in eps])
    for one in reversed(eps[:-1]):
        if kept[-1] - one >= apart:
            kept.append(one)
    return kept[::-1], [radius(one) for one in kept[::-1]]


def room(labels: Sequence[str]) -> int:
    """How many of some labels have room along an axis."""
    return max(1, ACROSS // (max(map(len, labels)) + 2))


def reach_figure(found: Certification) -> str:
    """How many rightly classified examples end at each radius: the largest certified one, the smallest known counterexample."""
    figure = empty_figure(5.6, 4.5, "constrained")
    proven, broken = ends(found)
    eps: list[float | None] = [*found.settings.eps]
    first, second = figure.subplots(2, 1, gridspec_kw={"hspace": 0.12})
    columns(first, [None, *eps], [proven[one] for one in (None, *eps)])
    columns(second, [*eps, None], [broken[one] for one in (*eps, None)])
    for panel, title in ((first, "Largest eps that is proven"), (second, "Smallest eps with a known counterexample")):
        panel.set_title(title, loc="left", fontsize=10.5, pad=12, color=COLORS["ink"])
    for bar in first.patches:
        bar.set_facecolor(COLORS["proven"])
    for bar in second.patches:
        bar.set_facecolor(COLORS["broken"])
    told = "; ".join(f"{radius(one)}: {proven[one]} end here, {broken[one]} break here" for one in found.settings.eps)
    return inline(figure, "reach", f"How far inputs go. Proven at no eps: {proven[None]}; {told}; "
                  f"no counterexample: {broken[None]}.")


def columns(panel: Axes, eps: Sequence[float | None], heights: Sequence[int]) -> None:
    """A column for each radius, with its height above it where there is room."""
    places, labels = range(len(eps)), ["none" if one is None else radius(one) for one in eps]
    panel.bar(places, heights, 0.72)
    step = -(-len(eps) // room(labels))
    panel.set_xticks(list(places)[::step], labels[::step])
    panel.set_ylim(0, max(1, *heights) * 1.2)
    panel.set_yticks([])
    if len(eps) <= room([f"{height:,}" for height in heights]):
        for place, height in zip(places, heights, strict=True):
            panel.annotate(f"{height:,}", (place, height), xytext=(0, 2), textcoords="offset points", ha="center", va="bottom",
                           fontsize=10, color=COLORS["ink"])
    quiet(panel)


def quiet(panel: Axes) -> None:
    """Thin axes in the page's colours."""
    panel.grid(axis="y", color=COLORS["line"], linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(colors=COLORS["ink"], length=0, labelsize=10)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color(COLORS["muted"])
    for label in (panel.xaxis.label, panel.yaxis.label):
        label.set_color(COLORS["ink"])
        label.set_fontsize(10)


def inline(figure: Figure, name: str, told: str) -> str:
    """A figure as an SVG element in the page's colours and font, with identifiers of its own, and what it shows as text."""
    held = io.StringIO()
    with reproducible():
        figure.savefig(held, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = held.getvalue()[held.getvalue().index("<svg"):]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<style.*?</style>\s*|<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace('xlink:href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    for color, code in COLORS.items():
        text = text.replace(code, f"var(--{color})")
    text = re.sub(r"font-family: [^;]*; ", "", text)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None, "matplotlib writes a viewBox"
    opening = (f'<svg {box[0]} role="img" aria-labelledby="{name}-title">'
               f'<title id="{name}-title">{html.escape(told)}</title>')
    return opening + text[text.index(">") + 1:].strip()
