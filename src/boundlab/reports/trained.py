"""Tables and pictures of networks that were trained by bounds, beside the published figures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from boundlab.reports.figure import GRID, INK, MUTED, empty_figure
from boundlab.reports.tables import Bars, Reproduction
from boundlab.reproduce.fusion import METHODS, StepRow
from boundlab.reproduce.outer import Curve, Plane
from boundlab.reproduce.trained import Line, TrainedTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#1d4e89", "#2a9d8f", "#d1495b", "#8f9bb3", "#f2c14e", "#6a4c93")
MEGABYTE = 2**20


def of_trained(table: TrainedTable, lines: Sequence[Line]) -> Reproduction:
    """A table of trained networks: figures in percent, the published ones in brackets."""
    names = list(lines[0].ours) if lines else []
    text, panels, data = [], [], []
    for line in lines:
        cells = [f"{line.ours[name]:.2f}" + bracket(line.published.get(name)) for name in names]
        text.append((*line.labels, str(line.run.epochs), str(line.run.examples), *cells, line.about or "-"))
        middle = {name: values[len(values) // 2] for name, values in line.published.items()}
        panels.append(Bars(", ".join(line.labels[1:4]), "%", {name: (line.ours[name], middle.get(name)) for name in names}))
        data.append({"labels": line.labels, "run": line.run.name, "epochs": line.run.epochs, "test examples": line.run.examples,
                     "seconds an epoch": line.run.seconds_an_epoch, "errors": line.run.errors, "ours, %": line.ours,
                     "published, %": line.published, "published of": line.about})
    columns = (*table.labels, "epochs", "tested on", *(f"{name}, %" for name in names), "published of")
    return Reproduction(columns, text, panels, data)


def bracket(values: tuple[float, ...] | None) -> str:
    """Published figures behind ours; nothing where there are none."""
    return "" if not values else f" ({' / '.join(f'{value:.2f}' for value in values)})"


def of_steps(rows: Sequence[StepRow]) -> Reproduction:
    """Time and memory of a step, in multiples of the natural one; the published multiples in brackets."""
    text, panels = [], []
    names = [f"{what}, {name}" for what in ("time", "memory") for name in METHODS if name != "natural"]
    for row in rows:
        pairs = [pair for held, place in ((row.seconds, 0), (row.memory, 1)) for pair in multiples(row, held, place)]
        known = row.published is not None
        first, most = row.seconds["natural"], row.memory["natural"]
        text.append((row.network, str(row.batch), "-" if first is None else f"{first:.3f}",
                     "-" if most is None else f"{most / MEGABYTE:.0f}",
                     *(times(own) + (f" ({times(theirs)})" if known else "") for own, theirs in pairs)))
        panels.append(Bars(row.network, "times natural", {name.replace(", ", "\n"): (own, theirs) for name, (own, theirs)
                                                          in zip(names, pairs, strict=True) if own is not None}))
    columns = ("network", "batch", "s, natural", "MB, natural", *names)
    return Reproduction(columns, text, panels, [asdict(row) for row in rows])


def multiples(row: StepRow, ours: Mapping[str, float | None], place: int) -> list[tuple[float | None, float | None]]:
    """Our multiples of the natural cost and the published ones, of time (place 0) or memory (1), by method."""
    costs = [None] * len(METHODS) if row.published is None else [
        row.published.natural, row.published.ibp, row.published.fused, row.published.unfused]
    first, known = ours["natural"], costs[0]
    found = []
    for name, cost in list(zip(METHODS, costs, strict=True))[1:]:
        own = ours[name]
        theirs = None if cost is None or known is None else cost[place] / known[place]
        found.append((None if own is None or not first else own / first, theirs))
    return found


def times(value: float | None) -> str:
    """A multiple; OOM where memory did not suffice."""
    return "OOM" if value is None else f"{value:.2f}"


def of_lengths(lines: Sequence[Line]) -> Reproduction:
    """Verified error by length of the eps ramp: Zhang et al. 2020 (CROWN-IBP), Figures 3 and 4."""
    found: dict[str, dict[str, dict[float, list[float]]]] = {}
    for line in lines:
        data, eps, _, method = line.labels
        ramp = line.run.recipe.ramp
        lengths = found.setdefault(f"{data}, eps {eps}", {}).setdefault(method, {})
        lengths.setdefault(ramp.end - ramp.start, []).append(line.ours["verified"])
    rows = [(title, method, f"{length:g}", str(len(own)), f"{min(own):.2f}", f"{statistics.median(own):.2f}", f"{max(own):.2f}")
            for title, methods in found.items() for method, lengths in methods.items()
            for length, own in sorted(lengths.items())]
    data_rows = [dict(zip(("about", "method", "epochs of the ramp", "networks", "best", "median", "worst"), row, strict=True))
                 for row in rows]
    columns = ("about", "method", "epochs of the ramp", "networks", "best, %", "median, %", "worst, %")
    return Reproduction(columns, rows, (), data_rows, {"": length_figure(found)})


def length_figure(found: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]]) -> Figure:
    """A panel for each radius: from the best to the worst verified error at each length of the ramp, lines through medians."""
    figure = empty_figure(4.6 * len(found), 3.8, "constrained")
    for panel, (title, methods) in zip(figure.subplots(1, len(found), squeeze=False).flat, found.items(), strict=True):
        lengths = sorted({length for own in methods.values() for length in own})
        for place, (method, own) in enumerate(methods.items()):
            color, aside = COLORS[place % len(COLORS)], 0.12 * (place - (len(methods) - 1) / 2)
            at = [lengths.index(length) + aside for length in sorted(own)]
            errors = [own[length] for length in sorted(own)]
            panel.vlines(at, list(map(min, errors)), list(map(max, errors)), color=color, linewidth=4, alpha=0.45)
            panel.plot(at, [statistics.median(some) for some in errors], color=color, marker="o", markersize=5, label=method,
                       linestyle=":", linewidth=1.4)
        panel.set_xticks(range(len(lengths)), [f"{length:g}" for length in lengths])
        framed(panel, title, "epochs in which eps grows", "verified error, %")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8.5, labelcolor=INK)
    return figure


def framed(panel: Axes, title: str, across: str, up: str) -> None:
    """Titles and a quiet frame."""
    panel.set_title(title, loc="left", fontsize=10.5, color=INK)
    panel.set_xlabel(across, color=INK, fontsize=9)
    panel.set_ylabel(up, color=INK, fontsize=9)
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(colors=MUTED, labelsize=8.5, length=0)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def of_tightness(found: Mapping[str, tuple[Tensor, Tensor]]) -> Reproduction:
    """Translations by run, with the box and by the ball alone: Lee et al. 2020 (BCP), Figure 3."""
    rows, data = [], []
    for title, (both, ball) in found.items():
        shares = 100 * (1 - both / ball)
        rows.append((title, str(len(both)), f"{float(ball.mean()):.3f}", f"{float(both.mean()):.3f}",
                     f"{float(shares.mean()):.1f}", f"{float(shares.min()):.1f}", f"{float(shares.max()):.1f}"))
        data.append({"run": title, "ball alone": ball.tolist(), "ball and box": both.tolist()})
    columns = ("run", "images", "ball alone", "ball and box", "tighter by, %", "least, %", "most, %")
    return Reproduction(columns, rows, (), data, {"": violin_figure(found)})


def violin_figure(found: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """A panel with a violin for each run, and dotted what the ball alone gives."""
    figure = empty_figure(2.6 * max(2, len(found)), 4.0, "constrained")
    for panel, (title, (both, ball)) in zip(figure.subplots(1, len(found), squeeze=False).flat, found.items(), strict=True):
        shapes = panel.violinplot([both.tolist()], showmeans=True, widths=0.7)
        bodies: Any = shapes["bodies"]  # a list, which matplotlib types as one of them
        for part in (*bodies, *(shapes[name] for name in ("cmeans", "cbars", "cmins", "cmaxes"))):
            part.set_color(COLORS[0])
        panel.axhline(float(ball.mean()), color=COLORS[2], linestyle=":", linewidth=2, label="the ball alone")
        panel.set_xticks([])
        panel.set_ylim(bottom=0)
        framed(panel, title, f"{len(both)} images", "mean translation of a margin")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize=8.5, labelcolor=INK)
    return figure


def of_planes(found: Mapping[str, Plane]) -> Reproduction:
    """Outer bounds in the plane of two logits: Lee et al. 2020 (BCP), Figure 2."""
    rows, data = [], []
    for title, one in found.items():
        margin, attacked = (float(logits[0] - logits[1]) for logits in (one.center, one.found))
        rows.append((title, str(one.image), f"{one.classes[0]} against {one.classes[1]}", f"{margin:.3f}", f"{attacked:.3f}",
                     *(f"{value:.3f}" for value in one.margins.values())))
        data.append({"about": title, "image": one.image, "classes": one.classes, "margins": one.margins, "attacked": attacked})
    names = list(next(iter(found.values())).margins) if found else []
    columns = ("run", "image", "classes", "margin", "attacked", *(f"proven by {name}" for name in names))
    return Reproduction(columns, rows, (), data, {"": plane_figure(found)})


def plane_figure(found: Mapping[str, Plane]) -> Figure:
    """A panel for each plane: outer regions, the lines behind which no logits are, random points and an attack."""
    across = min(3, max(1, len(found)))
    figure = empty_figure(4.6 * across, 4.6 * -(-len(found) // across), "constrained")
    panels = figure.subplots(-(-len(found) // across), across, squeeze=False).flat
    for panel, (title, one) in zip(panels, found.items(), strict=False):
        draw_plane(panel, one)
        label, other = one.classes
        framed(panel, title, f"logit of {other}, the runner-up", f"logit of {label}, the label")
    for panel in list(figure.axes)[len(found):]:
        panel.set_axis_off()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8.5, labelcolor=INK)
    return figure


def draw_plane(panel: Axes, one: Plane) -> None:
    """One plane; the label's logit goes up, so what is above the dashed line is classified right."""
    whole = torch.cat(list(one.regions.values()))
    low, high = whole[:, 1].min().item(), whole[:, 1].max().item()
    for place, (name, corners) in enumerate(one.regions.items()):
        label, other = corners.unbind(1)
        panel.fill(other.tolist(), label.tolist(), facecolor=COLORS[(0, 2)[place]], alpha=(0.16, 0.3)[place],
                   edgecolor=COLORS[(0, 2)[place]], linewidth=1.2, label=f"outer bounds, {name}")
        panel.plot([low, high], [low + one.margins[name], high + one.margins[name]], color=COLORS[(0, 2)[place]], linewidth=1.4,
                   label=f"least margin, {name}")
    panel.plot([low, high], [low, high], color=INK, linestyle=(0, (5, 4)), linewidth=1, label="decision boundary")
    panel.scatter(one.samples[:, 1].tolist(), one.samples[:, 0].tolist(), s=3, color=MUTED, label="random points", zorder=3)
    panel.scatter([one.center[1].item()], [one.center[0].item()], s=26, color=INK, marker="o", label="the image", zorder=4)
    panel.scatter([one.found[1].item()], [one.found[0].item()], s=40, color=INK, marker="x", label="attack", zorder=4)
    bottom, top = whole[:, 0].min().item(), whole[:, 0].max().item()
    panel.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    panel.set_ylim(bottom - 0.05 * (top - bottom), top + 0.05 * (top - bottom))


def of_curves(found: Sequence[Curve]) -> Reproduction:
    """Verified accuracy by radius: Lee et al. 2020 (BCP), Figure 4."""
    rows = [(one.title, one.proof, f"{eps:.4g}", f"{100 * attacked:.2f}", f"{100 * verified:.2f}") for one in found
            for eps, attacked, verified in zip(one.eps, one.attacked, one.verified, strict=True)]
    columns = ("run", "proven by", "eps", "attacked, %", "verified, %")
    return Reproduction(columns, rows, (), [asdict(one) for one in found], {"": curve_figure(found)})


def curve_figure(found: Sequence[Curve]) -> Figure:
    """One panel: what is proven of each network, thin what an attack leaves, and the radii that were trained at."""
    figure = empty_figure(6.4, 4.2, "constrained")
    panel = figure.subplots()
    for place, one in enumerate(found):
        color = COLORS[place % len(COLORS)]
        panel.plot(one.eps, [100 * share for share in one.verified], color=color, marker="o", markersize=3.5, linewidth=2,
                   label=f"{one.title}, proven by {one.proof}")
        panel.plot(one.eps, [100 * share for share in one.attacked], color=color, linewidth=0.9, linestyle=(0, (2, 2)))
    for eps in {one.trained_at for one in found}:
        panel.axvline(eps, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    panel.set_ylim(0, 101)
    framed(panel, "Proven (thick) and not broken by an attack (dotted)", "eps; dashed: in training", "accuracy, %")
    panel.legend(frameon=False, fontsize=8.5, labelcolor=INK)
    return figure
