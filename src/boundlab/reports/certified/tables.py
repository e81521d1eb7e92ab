"""What a certified data set says, as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from boundlab.certify.certification import Certification, Shares
from boundlab.certify.explained import Explained
from boundlab.certify.record import Record, Status
from boundlab.reports.certified.words import Names, called, counted, domain, one_line, reasons, statuses
from boundlab.table import Table, percent, radius

MOST_CLASSES, MOST_PAIRS, MOST_OPEN, MOST_REASONS = 40, 20, 12, 10
"""Rows at most, of many; what is left out is said."""
MATRIX = 12
"""Up to so many classes, confusions are a square."""
LONGEST = 240
"""Characters of a reason that are shown."""
OUTCOMES = {Status.CERTIFIED: "proven", Status.UNKNOWN: "open", Status.FAILED: "failed", Status.FALSIFIED: "counterexample",
            Status.MISCLASSIFIED: "misclassified"}
"""The statuses in the order of a bar, with what the page calls them."""


@dataclass(frozen=True)
class Bar:
    """What became of all examples at a radius: (name, number, share) of each outcome that there is anywhere."""

    eps: str
    parts: tuple[tuple[str, int, float], ...]


def bars(found: Certification) -> list[Bar]:
    """A bar for each radius."""
    present = {record.status for record in found.records} | {Status.CERTIFIED, Status.FALSIFIED}
    held = []
    for eps, records in found.by_eps.items():
        number = statuses(found, eps)
        held.append(Bar(radius(eps), tuple((name, number[status], number[status] / len(records))
                                          for status, name in OUTCOMES.items() if status in present)))
    return held


def outcomes(found: Certification) -> Table:
    """How many examples have each outcome, at each radius."""
    held = bars(found)
    columns = ("eps", *(name for name, _, _ in held[0].parts))
    count = len(found.by_eps[found.settings.eps[0]])
    rows = [(bar.eps, *(counted(number, count) for _, number, _ in bar.parts)) for bar in held]
    return Table(columns, rows, f"What became of {count:,} inputs", frozenset(columns))


def lines(found: Certification) -> Table:
    """The lines of the figure of accuracies as numbers."""
    columns = ("eps", "certified, at least", "robust, at most", "open between", "without a change")
    rows = [(radius(one.eps), *map(percent, (one.certified, one.attacked, one.unknown + one.failed, one.clean)))
            for one in found.shares]
    return Table(columns, rows, f"Accuracy on {found.shares[0].examples:,} inputs", frozenset(columns))


def by_method(found: Certification) -> Table:
    """What share each method has certified, at each radius."""
    methods = list(dict.fromkeys(method for one in found.shares for method in one.methods))
    columns = ("certified by", *(radius(one.eps) for one in found.shares))
    rows = [(method, *(percent(one.methods.get(method, 0.0)) for one in found.shares)) for method in methods]
    return Table(columns, rows or [("nothing", *("-" for _ in found.shares))], "", frozenset(columns[1:]))


def by_class(found: Certification, most: int, names: Names) -> Table:
    """Certified and possibly robust shares of each class, the worst classes if there are more than `most`."""
    tables = [found.by_class(eps) for eps in found.settings.eps]
    labels = sorted(tables[0], key=lambda label: sum(table[label].certified for table in tables))[:most]
    columns = ("class", "examples", "clean", *(radius(eps) for eps in found.settings.eps))
    rows = [(names.of(label), str(tables[0][label].examples), percent(tables[0][label].clean),
             *(between(table[label]) for table in tables)) for label in sorted(labels)]
    left = len(tables[0]) - len(rows)
    title = "Robust accuracy by class and eps" + (f": the {len(rows)} with the least, {left} more are left out" if left else "")
    return Table(columns, rows, title, frozenset(columns if not names.classes else columns[1:]))


def between(share: Shares) -> str:
    """Between which whole percentages the robust accuracy lies; rounded outwards where they differ."""
    low, high = (round(part * share.examples) for part in (share.certified, share.attacked))  # numbers of examples
    if low == high:
        near = round(100 * share.certified)
        return f"{near if low in (0, share.examples) else min(max(near, 1), 99)} %"
    return f"{100 * low // share.examples} to {-(-100 * high // share.examples)} %"


def reach(found: Certification) -> Table:
    """How far the rightly classified examples go: how many end at each radius."""
    proven, broken = ends(found)
    columns = ("eps", "inputs proven as far as this", "inputs broken from here on")
    rows = [("none", str(proven[None]), str(broken[None])),
            *((radius(eps), str(proven[eps]), str(broken[eps])) for eps in found.settings.eps)]
    return Table(columns, rows, f"How far the {len(found.ranking):,} rightly classified inputs go", frozenset(columns))


def ends(found: Certification) -> tuple[Counter[float | None], Counter[float | None]]:
    """How many rightly classified examples have each largest certified radius, and each smallest falsified one."""
    ranked = set(found.ranking)
    right = [one for one in found.reach if one.index in ranked]
    return Counter(one.certified for one in right), Counter(one.falsified for one in right)


def widest(found: Certification) -> str:
    """The largest radius."""
    return radius(found.settings.eps[-1])


@dataclass(frozen=True)
class Matrix:
    """How many counterexamples lead from each class (a row) to each other one: (number, share of the largest), None at home."""

    title: str
    classes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[int, float] | None, ...]], ...]


def matrix(found: Certification, names: Names) -> Matrix | None:
    """Confusions as a square, if there are any and it is not too large."""
    pairs = found.confusions(found.settings.eps[-1])
    if not pairs or found.classes > MATRIX:
        return None
    every, most = range(found.classes), max(pairs.values())
    rows = tuple((names.of(a), tuple(None if a == b else (pairs.get((a, b), 0), pairs.get((a, b), 0) / most) for b in every))
                 for a in every)
    title = f"Counterexamples at {widest(found)}: rows are the right class, columns what the network says instead"
    return Matrix(title, tuple(map(names.of, every)), rows)


def pairs(found: Certification, names: Names) -> Table:
    """The most frequent confusions at the largest radius."""
    every = sorted(found.confusions(found.settings.eps[-1]).items(), key=lambda item: (-item[1], item[0]))
    rows = [(names.of(a), names.of(b), str(count)) for (a, b), count in every[:MOST_PAIRS]]
    left = f", the most frequent {MOST_PAIRS} of {len(every)} kinds" if len(every) > MOST_PAIRS else ""
    return Table(("class", "becomes", "inputs"), rows, f"Counterexamples at {widest(found)}{left}", frozenset({"inputs"}))


def open_examples(found: Certification, names: Names) -> Table:
    """Examples that are open at some radius: how far they are decided, and why not further."""
    waiting: dict[int, list[Record]] = {}
    for record in found.records:
        if record.status in (Status.UNKNOWN, Status.FAILED):
            waiting.setdefault(record.index, []).append(record)
    reached = {one.index: one for one in found.reach}
    rows = [(called(records[0]), names.of(records[0].label), perhaps(reached[index].certified),
             perhaps(reached[index].falsified), joined(radius(one.eps) for one in records), short(records[0].finding.reason))
            for index, records in sorted(waiting.items(), key=lambda item: (item[1][0].eps, item[0]))[:MOST_OPEN]]
    left = f": {MOST_OPEN} of {len(waiting)}, smallest radius first" if len(waiting) > MOST_OPEN else ""
    return Table(("input", "class", "proven up to", "counterexample from", "open at", "why"), rows, f"Open inputs{left}",
                 frozenset({"proven up to", "counterexample from"}))


def perhaps(eps: float | None) -> str:
    """A radius, if there is one."""
    return "–" if eps is None else radius(eps)


def short(reason: str) -> str:
    """A reason without its middle if it is very long."""
    return reason if len(reason) <= LONGEST else f"{reason[:LONGEST // 2]} ... {reason[-LONGEST // 2:]}"


def layers(found: Explained) -> Table:
    """Where the bound of one margin is lost."""
    columns = ("layer", "neurons", "not exact", "mean width", "margin lost")
    rows = [(f"{one.name} ({one.operator})", f"{one.numbers:,}", f"{one.inexact:,}", f"{one.width:.4g}", f"{one.loss:.4g}")
            for one in found.losses.layers]
    return Table(columns, rows, "Nonlinear layers in their order", frozenset(columns[1:]))


def work(found: Certification) -> Table:
    """What each method has decided, over all radii, and the seconds spent on these questions."""
    held: dict[str, list[Record]] = {}
    for record in found.records:
        held.setdefault(decider(record), []).append(record)
    shown = [status for status in OUTCOMES if any(record.status is status for record in found.records)]
    columns = ("decided by", *(OUTCOMES[status] for status in shown), "seconds")
    rows = []
    for name, records in sorted(held.items(), key=lambda item: -len(item[1])):
        number = Counter(record.status for record in records)
        rows.append((name, *(f"{number[status]:,}" if number[status] else "–" for status in shown),
                     f"{sum(record.finding.seconds for record in records):.1f}"))
    count = len(found.by_eps[found.settings.eps[-1]])
    title = f"{len(found.records):,} questions: {count:,} inputs at {len(found.settings.eps)} radii"
    return Table(columns, rows, title, frozenset(columns[1:]))


def decider(record: Record) -> str:
    """What answered a question."""
    if record.status in (Status.UNKNOWN, Status.FAILED):
        return "nothing"
    return "its answer at another eps" if record.finding.nested is not None else record.finding.method or "–"


def why(found: Certification, status: Status) -> Table:
    """Why questions of a status have no answer."""
    every = list(reasons(found, status))
    rows = [(str(number), short(reason)) for reason, number in every[:MOST_REASONS]]
    left = f", {MOST_REASONS} of {len(every)} reasons" if len(every) > MOST_REASONS else ""
    title = {Status.FAILED: "Why questions failed", Status.UNKNOWN: "Why questions are open"}[status] + left
    return Table(("questions", "why"), rows, title, frozenset({"questions"}))


def settings(found: Certification) -> Table:
    """All that the records depend on."""
    chosen = found.settings
    rows: Iterable[tuple[str, str]] = (
        ("command", chosen.command or "bl.certify(...)"),
        ("network", chosen.network_name or "–"), ("network, SHA-256", chosen.network),
        ("data", chosen.data_name or "–"), ("data, SHA-256", chosen.data),
        ("radii", joined(radius(eps) for eps in chosen.eps)), ("norm", f"{chosen.p:g}"),
        ("inputs", domain(chosen)),
        ("stages", ",\n".join(chosen.stages)),
        ("rounding", "not counted" if chosen.rigour == "float" else f"counted ({chosen.rigour})"),
        ("seconds a question", f"{chosen.timeout:g}"),
        ("memory a question", "no limit" if chosen.memory is None else f"{chosen.memory:,} bytes"),
        ("versions", joined(f"{name} {version}" for name, version in chosen.versions.items() if name != "machine")),
        ("machine", chosen.versions.get("machine", "–")), ("seconds of this run", f"{found.seconds:.1f}"))
    return Table(("setting", "value"), list(rows), "What the answers depend on", frozenset())


def joined(parts: Iterable[str]) -> str:
    """Parts with commas between."""
    return ", ".join(parts)


def markdown(table: Table) -> str:
    """A table in Markdown, its title in front."""
    sides = ["---:" if name in table.numbers else "---" for name in table.columns]
    lines = [table.columns, sides, *table.rows]
    return "\n".join([*([f"{plain(table.title)}:", ""] if table.title else []),
                      *("| " + " | ".join(map(str if line is sides else plain, line)) + " |" for line in lines)])


def plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    escaped = "".join(f"\\{sign}" if sign in "\\`*_[]<>#|~$" else sign for sign in text)
    return one_line(escaped.replace("&", "&amp;"))

