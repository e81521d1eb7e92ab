"""What results look like: short whatever the batch, honest about which side of a bound is shown, safe in a page."""

from __future__ import annotations

import math
import random

import pytest
import torch

import boundlab as bl
from boundlab.graph import Graph, Node
from boundlab.table import FEW, STYLE, Table, Tone, above, below
from boundlab.train.history import Epoch
from boundlab.verify.verdict import WORDS
from tests.certify.cases import examples, model
from tests.reports.reading import read
from tests.reports.test_browser import CHROMIUM, complaints, opened

EVIL = "<script>alert(1)</script>&\"'"
MANY = 10_000
LINES, CHARACTERS, BYTES = FEW + 3, 1500, 6000
"""Most that a result may take in a REPL, and in a notebook."""


def bounds(count, upper=True):
    lower = torch.rand(count, 3, generator=torch.Generator().manual_seed(0))
    return bl.Bounds(lower, lower + 0.25 if upper else None, model().graph, {})


def results(count):
    verdicts = [list(bl.Verdict)[place % 5] for place in range(count)]
    witness = bl.Witness({EVIL: torch.zeros(1, 784)}, torch.zeros(1, 10))
    return bl.Results(bl.Result(verdict, torch.full((9,), 0.1), EVIL, 1.0, witness, (EVIL,) * 50) for verdict in verdicts)


def fitted(count):
    return bl.Fitted(torch.nn.Linear(2, 3), model(), tuple(
        Epoch(place, 0.5, 0.1, 1e-3, 2.0, 0.9, None, 0.25) for place in range(count)), 0)


def certification(count):
    names = tuple(f"{EVIL}{place}" for place in range(count))
    data = examples(count)
    plan = bl.Plan(stages=(bl.IBP(),), rigour=bl.Rigour.FLOAT, batch=count)
    return bl.certify(model(), bl.Examples(data.x, data.labels, names), [0.001 * place for place in range(1, 10)], plan)


def wide(count):
    nodes = [Node(place, "input", (), {}, (2,), f"{EVIL}{place}") for place in range(count)]
    return bl.Model(Graph((*nodes, Node(count, "relu", (0,), {}, (2,), EVIL)), (count,)))


KINDS = {
    "bounds": bounds, "rows": lambda count: bounds(count, upper=False), "results": results,
    "result": lambda count: results(2)[1], "fitted": fitted, "certification": lambda count: certification(min(count, 40)),
    "radius": lambda count: bl.Radius(torch.rand(count), torch.full((count,), math.inf), torch.arange(count) > 0),
    "radius by target": lambda count: bl.Radius(torch.rand(count, 9), torch.rand(count, 9) + 1, torch.ones(count, 9).bool()),
    "model": lambda count: model(), "a model of many inputs": lambda count: wide(min(count, 500)),
}


@pytest.mark.parametrize("count", [1, MANY])
@pytest.mark.parametrize("name", KINDS)
def test_a_result_is_a_few_lines_and_a_small_table(name, count):
    found = KINDS[name](count)
    text, fragment = repr(found), found._repr_html_()
    assert len(text.splitlines()) <= LINES and len(text) <= CHARACTERS and len(fragment) <= BYTES
    (root,) = read(fragment).every("div")
    (table,) = root.every("table")
    assert not root.every("script") and all(EVIL not in text for text in (fragment, root.every("style")[0].text()))
    rows = table.every("tbody")[0].every("tr")
    assert rows and table.every("caption")[0].text()
    assert all(cell.attributes["scope"] == "row" for row in rows for cell in row.every("th"))
    assert all(cell.text() and cell.attributes["scope"] == "col" for cell in table.every("thead")[0].every("th"))
    assert EVIL in table.text() or name not in ("results", "result", "a model of many inputs")
    if count == MANY and name in ("bounds", "rows", "results", "fitted"):
        assert "more" in text.splitlines()[-1] and "more" in rows[-1].text()


def test_numbers_are_where_they_are_said_to_be():
    found = bounds(2)
    for line, flat in zip(repr(found).splitlines()[2:], range(6), strict=True):
        problem, output, lower, upper, width = line.split()
        place = int(problem), int(output)
        assert 3 * place[0] + place[1] == flat
        ends = float(found.lower[place]), float(found.upper[place])
        assert float(lower) <= ends[0] and ends[1] <= float(upper) and float(width) >= ends[1] - ends[0]
        assert float(lower) == pytest.approx(ends[0], rel=1e-4) and float(upper) == pytest.approx(ends[1], rel=1e-4)


def test_what_is_shown_of_a_bound_holds():
    draw = random.Random(0)
    for value in [draw.uniform(-1, 1) * 10 ** draw.randint(-40, 30) for _ in range(2000)]:
        assert float(below(value)) <= value <= float(above(value))
        assert float(above(value)) - float(below(value)) <= 1.1e-4 * abs(value)
    assert [below(value) for value in (0.1, math.inf, -math.inf)] == ["0.1", "inf", "-inf"]
    assert below(math.nan) == above(math.nan) == "nan"


def test_results_are_a_tuple_and_count_their_verdicts():
    found = results(7)
    assert isinstance(found, tuple) and found == tuple(found) and found[0].verdict is bl.Verdict.VERIFIED
    assert repr(found).startswith("7 problems: 2 verified, 2 falsified, 1 float_only, 1 unknown, 1 timeout\n")
    assert repr(bl.Results()) == "0 problems: nothing was asked"
    ball = bl.LpBall(torch.rand(3, 2), 0.01)
    assert isinstance(bl.verify(model(), ball, bl.margins([0, 1, 2], 3)), bl.Results)


def luminance(colour):
    """Relative luminance of a colour (WCAG 2, section 1.4.3)."""
    parts = [int(colour[place:place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_verdict_is_a_word_on_a_colour_of_enough_contrast():
    for tone in Tone:
        low, high = sorted(map(luminance, tone.value))
        assert (high + 0.05) / (low + 0.05) >= 4.5, tone
    marks = read(results(5)._repr_html_()).every("mark")
    assert [mark.text() for mark in marks] == [verdict.name.lower() for verdict in bl.Verdict] == list(WORDS)
    assert "color:" in STYLE and "#fff" not in STYLE, "letters take the page's colour"


def test_a_table_says_what_it_leaves_out():
    table = Table(("a", "b"), [("1", "x" * 999)], EVIL, frozenset({"a"}), more=1234)
    assert table.plain().splitlines()[-1] == "... 1,234 more"
    cells = [cell.text() for cell in read(table.fragment()).every("td")]
    assert cells[-1] == "... 1,234 more" and len(cells[0]) < 220


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open pages in")
def test_a_browser_draws_fragments_without_complaint(tmp_path):
    body = "".join(kind(3)._repr_html_() for kind in KINDS.values())
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8><title>t</title><body>{body}</body>")
    ran = opened(tmp_path / "page.html", tmp_path / "profile", "--dump-dom")
    assert not complaints(ran) and ran.stdout.count("<table") == len(KINDS)
