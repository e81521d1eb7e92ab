"""The least and the most robust examples, as pictures or as the numbers that changed most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from boundlab.certify.certification import Certification
from boundlab.certify.record import Adversary, Record, Status
from boundlab.reports.certified.pictures import amplification, is_picture, pixels, shown
from boundlab.reports.certified.words import Names, called
from boundlab.table import Table, radius

MOST = 6
"""Examples that are shown of each kind."""
FEATURES = 3
"""Changed numbers that are listed, of inputs that are no pictures."""


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI: what it shows for those who do not see it, and what stands below it."""

    source: str
    told: str
    caption: str


@dataclass(frozen=True)
class Card:
    """An example: a line about it, a smaller one, and its pictures."""

    title: str
    note: str
    pictures: tuple[Picture, ...]


def weakest(found: Certification) -> list[tuple[Record, np.ndarray, Adversary]]:
    """The least robust examples whose inputs are known: the record of the smallest falsified radius, input, counterexample."""
    chosen = [found.at_reach[index, Status.FALSIFIED] for index in found.extremes(MOST)[0] if index in found.inputs.x]
    return [(record, found.inputs.x[record.index], record.finding.adversary) for record in chosen
            if record.finding.adversary is not None]


def strongest(found: Certification) -> list[tuple[Record, np.ndarray]]:
    """The most robust examples whose inputs are known: the record of the largest certified radius, and the input."""
    return [(found.at_reach[index, Status.CERTIFIED], found.inputs.x[index]) for index in found.extremes(MOST)[1]
            if index in found.inputs.x]


def pictured(found: Certification) -> bool:
    """Whether inputs are pictures."""
    return is_picture(found.inputs.shape)


def ends_of(found: Certification, x: np.ndarray) -> tuple[float, float]:
    """The numbers that are black and white."""
    return found.settings.clip if found.settings.clip is not None else (float(x.min()), float(x.max()))


def weak_cards(found: Certification, names: Names) -> Iterator[Card]:
    """Each of the least robust examples beside its counterexample, with the difference of both made visible."""
    for record, x, adversary in weakest(found):
        low, high = ends_of(found, x)
        own, other = names.of(record.label), names.of(adversary.label)
        before, after = (pixels(value, found.inputs.shape) for value in (x, adversary.x))
        difference = after.astype(np.float64) - before
        factor, half = amplification(difference, low, high), (high - low) / 2
        yield Card(f"{called(record)}: {own} becomes {other}", weak_note(found, record, difference), (
            Picture(shown(before, low, high), f"Input {called(record)} of class {own}", f"input: {own}"),
            Picture(shown(after, low, high), f"The same, changed: the network says {other}", f"changed: {other}"),
            Picture(shown(half + difference * factor, 0, 2 * half), f"The change, {factor:g} times as large; grey is no change",
                    f"change × {factor:g}")))


def weak_note(found: Certification, record: Record, difference: np.ndarray) -> str:
    """At which radius an example breaks, and how large its change is."""
    proven = found.at_reach.get((record.index, Status.CERTIFIED))
    until = "" if proven is None else f", proven up to {radius(proven.eps)}"
    return (f"eps {radius(record.eps)}{until}; largest change {np.abs(difference).max():.3g}, Euclidean "
            f"{np.linalg.norm(difference):.3g}")


def strong_cards(found: Certification, names: Names) -> Iterator[Card]:
    """The most robust examples."""
    for record, x in strongest(found):
        low, high = ends_of(found, x)
        own = names.of(record.label)
        source = shown(pixels(x, found.inputs.shape), low, high)
        picture = Picture(source, f"Input {called(record)} of class {own}", f"class {own}")
        yield Card(called(record), f"proven up to {radius(record.eps)}", (picture,))


def weak_table(found: Certification, names: Names) -> Table:
    """The least robust examples with the features that changed most."""
    rows = [(called(record), names.of(record.label), names.of(adversary.label), radius(record.eps),
             "; ".join(changes(x, adversary.x))) for record, x, adversary in weakest(found)]
    return Table(("input", "class", "becomes", "at eps", "features that changed most"), rows,
                 "The least robust inputs and their counterexamples", frozenset({"at eps"}))


def changes(x: np.ndarray, changed: np.ndarray) -> Iterator[str]:
    """The features that changed most, by their place."""
    before, after = x.reshape(-1), changed.reshape(-1)
    order = np.argsort(-np.abs(after.astype(np.float64) - before), kind="stable")[:FEATURES]
    for place in order.tolist():
        if before[place] != after[place]:
            yield f"[{place}] {before[place]:.4g} to {after[place]:.4g}"


def strong_table(found: Certification, names: Names) -> Table:
    """The most robust examples."""
    rows = [(called(record), names.of(record.label), radius(record.eps), margin(record)) for record, _ in strongest(found)]
    return Table(("input", "class", "proven to", "margin there"), rows, "The most robust inputs",
                 frozenset({"proven to", "margin there"}))


def margin(record: Record) -> str:
    """The lower bound of the margin, if there is one."""
    return f"{record.finding.margin:.4g}" if np.isfinite(record.finding.margin) else "–"


def example_tables(found: Certification, names: Names) -> Sequence[Table]:
    """The examples as tables, those that have rows."""
    return [table for table in (weak_table(found, names), strong_table(found, names)) if table.rows]
