"""The page of a certified data set: one HTML file that needs nothing else, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from boundlab.certify.certification import Certification
from boundlab.certify.record import Status
from boundlab.reports.certified import examples, tables, words
from boundlab.reports.certified.figures import accuracy_figure, reach_figure
from boundlab.reports.certified.tables import Bar, Matrix
from boundlab.reports.certified.words import Names
from boundlab.table import Table, percent, plural
from boundlab.whole_file import write_whole

HTML, MARKDOWN = "report.html", "report.md"
"""What `save_report` writes into a folder."""


@dataclass(frozen=True)
class Section:
    """A heading, tables, and what only one of the two files has: figures, cards, a square of confusions."""

    title: str
    tables: Sequence[Table]
    text: str = ""
    figure: str | None = None
    matrix: Matrix | None = None
    weak: Sequence[examples.Card] = ()
    strong: Sequence[examples.Card] = ()


@dataclass(frozen=True)
class Page:
    """All that is on the page; figures are left out of Markdown."""

    title: str
    subtitle: str
    lead: str
    sentences: Sequence[str]
    bars: Sequence[Bar]
    outcomes: Table
    sections: Sequence[Section]


def save_report(found: Certification, folder: str | Path, classes: Sequence[str] = ()) -> tuple[Path, ...]:
    """Writes report.html and report.md into a folder that exists, and says so; `classes` are what classes are called.

    MissingPackage without matplotlib; OSError if a file cannot be written.
    """
    names, place = Names(classes), Path(folder)
    contents = {HTML: html_of(found, names), MARKDOWN: markdown_of(found, names)}
    return tuple(write_whole(place / name, content.encode(errors="replace")) for name, content in contents.items())


def html_of(found: Certification, names: Names) -> str:
    """The page as HTML: no scripts, no other files, all that comes from outside escaped."""
    page = page_of(found, names, figures=True)
    from jinja2 import Environment, PackageLoader, StrictUndefined  # a tenth of a second that no other command shall wait for

    loader = PackageLoader("boundlab.reports.certified", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("page.html").render(page=page, Markup=Markup, percent=percent)


def markdown_of(found: Certification, names: Names) -> str:
    """The page as Markdown."""
    page = page_of(found, names, figures=False)
    parts = [f"# {tables.plain(page.title)}", tables.plain(page.subtitle), f"**{tables.plain(page.lead)}**",
             *map(tables.plain, page.sentences), tables.markdown(page.outcomes)]
    for section in page.sections:
        parts += [f"## {tables.plain(section.title)}", *([tables.plain(section.text)] if section.text else []),
                  *map(tables.markdown, section.tables)]
    return "\n\n".join(parts) + "\n"


def page_of(found: Certification, names: Names, figures: bool) -> Page:
    """What is on the page."""
    chosen = found.settings
    title = f"{chosen.network_name or 'Network'}: which inputs are proven safe"
    count = plural(len(found.by_eps[chosen.eps[0]]), "example")
    subtitle = (f"{count} of {chosen.data_name or 'a data set'}, {words.domain(chosen)}, norm {chosen.p:g}, boundlab "
                f"{chosen.versions.get('boundlab', '')}")
    stopped = [words.unasked_sentence(found)] if found.unasked else []
    sentences = (*stopped, words.remainder(found), words.rigour_sentence(found), words.limits_sentence(found))
    return Page(title, subtitle, words.headline(found), sentences, tables.bars(found), tables.outcomes(found),
                (accuracy(found, figures), how_far(found, figures), classes(found, names, figures),
                 shown_examples(found, names, figures), *lost(found, names), work(found), settings(found)))


def accuracy(found: Certification, figures: bool) -> Section:
    """Accuracy against the radius."""
    return Section("Accuracy against eps", (tables.lines(found),), (
        "The robust accuracy on these inputs lies between the two lines: what is certified, and what is neither misclassified "
        "nor has a known counterexample. Between them questions are open."), accuracy_figure(found) if figures else None)


def how_far(found: Certification, figures: bool) -> Section:
    """Radii that examples reach."""
    return Section("How far each input goes", (tables.reach(found),), (
        "The largest eps asked for at which an input is proven, and the smallest at which a counterexample is known."),
                   reach_figure(found) if figures else None)


def classes(found: Certification, names: Names, figures: bool) -> Section:
    """Classes, and what they are confused with."""
    square = tables.matrix(found, names)
    pairs = [tables.pairs(found, names)] if found.confusions(found.settings.eps[-1]) and not (figures and square) else []
    text = "Where two numbers stand, the robust accuracy lies between them." if any(
        one.certified < one.attacked for one in found.shares) else ""
    return Section("By class", (tables.by_class(found, tables.MOST_CLASSES, names), *pairs), text, matrix=square)


def shown_examples(found: Certification, names: Names, figures: bool) -> Section:
    """The least and the most robust examples, and open ones."""
    waiting = tables.open_examples(found, names)
    left = [waiting] if waiting.rows else []
    if figures and examples.pictured(found):
        return Section("Examples", left, weak=list(examples.weak_cards(found, names)),
                       strong=list(examples.strong_cards(found, names)))
    return Section("Examples", (*examples.example_tables(found, names), *left))


def lost(found: Certification, names: Names) -> tuple[Section, ...]:
    """Where the bound of the most instructive example is lost, if that is known."""
    if found.explained is None or not found.explained.losses.layers:
        return ()
    text = words.explanation(found, found.explained, names)
    return (Section("Where a bound is lost", (tables.layers(found.explained),), text),)


def work(found: Certification) -> Section:
    """What decided, what it took, and why the rest has no answer."""
    why = [tables.why(found, status) for status in (Status.FAILED, Status.UNKNOWN)]
    return Section("What decided", (tables.work(found), *(table for table in why if table.rows)), (
        f"{plural(round(sum(one.seconds for one in found.shares)), 'second')} of work for all questions, in this run or "
        "in those that it went on from."))


def settings(found: Certification) -> Section:
    """What the answers depend on."""
    return Section("To repeat it", (tables.settings(found),), (
        "The same command on the same network and data gives the same answers, except where searches ended by the clock."))
