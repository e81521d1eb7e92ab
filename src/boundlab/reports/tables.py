"""The papers' tables beside ours, as rows of text and as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from boundlab.reports.figure import empty_figure
from boundlab.reports.landscape import landscape_figure
from boundlab.reproduce.barrier import DistortionRow, ErrorRow
from boundlab.reproduce.flatness import FlatRow
from boundlab.reproduce.frown import RadiusRow
from boundlab.reproduce.sentences import WordRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OURS, THEIRS, INK = "#1d4e89", "#f2c14e", "#1f2933"


@dataclass(frozen=True)
class Bars:
    """One panel of a figure: a title, and by label our value and the published one (None: there is none)."""

    title: str
    unit: str
    values: Mapping[str, tuple[float, float | None]]


@dataclass(frozen=True)
class Reproduction:
    """A table run again: columns and rows of text, panels of a figure, everything as plain data, and more figures by name."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    panels: Sequence[Bars]
    data: Sequence[Mapping[str, Any]]
    figures: Mapping[str, Figure] = field(default_factory=dict)


def beside(value: float, published: float | None, form: str = ".2f") -> str:
    """Our figure, and the published one in brackets."""
    return f"{value:{form}}" if published is None else f"{value:{form}} ({published:{form}})"


def of_errors(rows: Sequence[ErrorRow]) -> Reproduction:
    """Table 1 of Salman et al. 2019: errors in percent, the published ones in brackets."""
    names = list(rows[0].error) if rows else []
    text, panels = [], []
    for row in rows:
        known = row.published
        theirs = {} if known is None else {"LP-GREEDY": known.greedy, "LP-ALL": known.everywhere, "MILP": known.milp_upper}
        attacked = None if known is None else known.milp_lower if "MILP" in names else known.attacked
        text.append((row.network, f"{row.eps:g}", beside(row.test, None if known is None else known.test),
                     beside(row.attacked, attacked),
                     *(beside(row.error[name], theirs.get(name)) for name in names),
                     *(f"{row.seconds[name]:.3f}" for name in names)))
        ours = {"attacked": (row.attacked, attacked), **{name: (row.error[name], theirs.get(name)) for name in names}}
        panels.append(Bars(f"{row.network}, eps {row.eps:g}", "error, %", ours))
    columns = ("network", "eps", "test", "attacked", *names, *(f"s, {name}" for name in names))
    return Reproduction(columns, text, panels, [asdict(row) for row in rows])


def of_distortions(rows: Sequence[DistortionRow]) -> Reproduction:
    """Table 2 of Salman et al. 2019: mean radii, the published ones in brackets."""
    names = list(rows[0].proven) if rows else []
    text, panels = [], []
    for row in rows:
        known = row.published
        theirs = {} if known is None else {"LP-GREEDY": known.greedy, "LP-LAST": known.last, "LP-ALL": known.everywhere}
        attacked = beside(row.attacked, None if known is None else known.attacked, ".5f")
        text.append((row.network, *(beside(row.proven[name], theirs.get(name), ".5f") for name in names), attacked,
                     *(f"{row.seconds[name]:.1f}" for name in names)))
        panels.append(Bars(row.network, "mean radius", {name: (row.proven[name], theirs.get(name)) for name in names}))
    columns = ("network", *names, "attacked", *(f"s, {name}" for name in names))
    return Reproduction(columns, text, panels, [asdict(row) for row in rows])


def of_radii(rows: Sequence[RadiusRow]) -> Reproduction:
    """FROWN's table: mean radii by method, gains over published CROWN lines in percent, the paper's gain in brackets."""
    names = list(rows[0].mean) if rows else []
    better = [name for name in names if name not in ("CROWN", "least area")]
    text, panels = [], []
    for row in rows:
        known = None if row.published is None else row.published.percent
        gains = {name: row.gain(name, "CROWN") for name in better}
        text.append((row.network, f"{row.p:g}", *(f"{row.mean[name]:.4g}" for name in names),
                     *(beside(gains[name], known if name == "FROWN" else None, ".1f") for name in better),
                     *(f"{row.least_gain(name, 'least area'):.2g}" for name in better),
                     *(f"{row.seconds[name]:.3f}" for name in names)))
        panels.append(Bars(f"{row.network}, p = {row.p:g}", "gain over CROWN, %",
                           {name: (gains[name], known if name == "FROWN" else None) for name in better}))
    columns = ("network", "p", *names, *(f"gain {name}" for name in better), *(f"least {name}" for name in better),
               *(f"s, {name}" for name in names))
    return Reproduction(columns, text, panels, [asdict(row) for row in rows])


def of_flatness(rows: Sequence[FlatRow]) -> Reproduction:
    """Figure 3 of Xu et al. 2020, whose text has no figures to compare: losses in and around the weights, and accuracies."""
    columns = ("trained", "test accuracy, %", "training loss", "found", "certified", "test loss", "found", "certified")
    text, panels, data = [], [], []
    for row in rows:
        losses = [f"{value:.3f}" for own in (row.training, row.test) for value in (own.loss, own.reached, own.certified)]
        text.append((row.method, f"{100 * row.test.accuracy:.2f}", *losses))
        shown = {"at the weights": row.training.loss, "found": row.training.reached, "certified": row.training.certified}
        panels.append(Bars(f"{row.method}: training loss", "mean cross-entropy", {
            name: (own, None) for name, own in shown.items()}))
        data.append({"method": row.method, "epochs": row.epochs, "training": asdict(row.training), "test": asdict(row.test),
                     "steps": row.around.steps.tolist(), "landscape": row.around.loss.tolist()})
    picture = landscape_figure({f"trained: {row.method}": row.around for row in rows})
    return Reproduction(columns, text, panels, data, {"landscape": picture})


def of_sentences(rows: Sequence[WordRow]) -> Reproduction:
    """Table 5 of Xu et al. 2020: accuracies in percent, the published ones in brackets."""
    text, panels, budgets = [], [], list(next(iter(rows[0].found.verified.values()))) if rows else []
    for row in rows:
        for method, shares in row.found.verified.items():
            known = row.published.get(method)
            theirs = dict(zip(budgets, known.by_budget if known else [None] * len(budgets), strict=True))
            ours = {budget: 100 * share for budget, share in shares.items()}
            text.append((row.network, row.trained, method, beside(100 * row.found.clean, known.clean if known else None, ".1f"),
                         *(beside(ours[budget], theirs[budget], ".1f") for budget in budgets)))
            panels.append(Bars(f"{row.network}, {row.trained}: {method}", "verified accuracy, %",
                               {str(budget): (ours[budget], theirs[budget]) for budget in budgets}))
    columns = ("network", "trained", "proven by", "accuracy", *(f"{budget} words" for budget in budgets))
    return Reproduction(columns, text, panels, [asdict(row) for row in rows])


def figure_of(panels: Sequence[Bars]) -> Figure:
    """Bars of ours, and of the published figures where there are any; one panel a row of the table."""
    across = min(3, max(1, len(panels)))
    down = -(-max(1, len(panels)) // across)
    figure = empty_figure(4.4 * across, 3.4 * down, "constrained")
    for panel, bars in zip(figure.subplots(down, across, squeeze=False).flat, panels, strict=False):
        places = range(len(bars.values))
        pairs = zip(places, bars.values.values(), strict=True)
        published = [(place, theirs) for place, (_, theirs) in pairs if theirs is not None]
        panel.bar([place - 0.2 for place in places], [own for own, _ in bars.values.values()], 0.38, color=OURS)
        panel.bar([place + 0.2 for place, _ in published], [value for _, value in published], 0.38, color=THEIRS)
        panel.set_xticks(list(places), list(bars.values), fontsize=8)
        panel.set_title(bars.title, loc="left", fontsize=10, color=INK)
        panel.set_ylabel(bars.unit, color=INK)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    for panel in list(figure.axes)[len(panels):]:
        panel.set_axis_off()
    from matplotlib.patches import Patch

    looks = [Patch(color=color, label=label) for color, label in ((OURS, "ours"), (THEIRS, "published"))]
    figure.legend(handles=looks, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure
