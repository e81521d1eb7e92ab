"""Laws of the report page: its numbers are the certification's, it needs nothing else, and what users give stays text."""

from __future__ import annotations

import base64
import io
import itertools
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import boundlab as bl
from boundlab.bounds.problem import Rigour
from boundlab.certify.certification import Inputs
from boundlab.certify.record import Status
from boundlab.reports.certified import words
from boundlab.reports.certified.page import html_of, markdown_of
from boundlab.reports.certified.pictures import LARGEST, amplification, is_picture, pixels, png, smaller
from boundlab.reports.certified.tables import MOST_CLASSES, bars, markdown, plain
from boundlab.reports.certified.words import Names
from boundlab.table import Table, percent, radius
from tests.reports.cases import CASES, EVIL, certification
from tests.reports.reading import read, table_of


@pytest.fixture(scope="module", params=CASES)
def page(request):
    """A certification with its page: as text, and as it is read."""
    found = certification(**CASES[request.param])
    text = html_of(found, Names())
    return found, text, read(text)


def numbers(cell):
    return int(cell.split()[0].replace(",", ""))


def test_the_bars_count_every_example_once(page):
    found, _, root = page
    head, *rows = table_of(root, "What became of")
    assert [row[0] for row in rows] == [radius(eps) for eps in found.settings.eps]
    for row, eps in zip(rows, found.settings.eps, strict=True):
        number = Counter(record.status for record in found.by_eps[eps])
        own = dict(zip(head[2:], map(numbers, row[2:]), strict=True))
        assert sum(own.values()) == len(found.by_eps[eps])
        assert own["proven"] == number[Status.CERTIFIED] and own["counterexample"] == number[Status.FALSIFIED]
        assert own.get("open", 0) == number[Status.UNKNOWN] and own.get("failed", 0) == number[Status.FAILED]
    for bar in bars(found):
        assert sum(share for _, _, share in bar.parts) == pytest.approx(1)


def test_the_headline_counts_what_is_certified_at_the_ends(page):
    found, _, root = page
    lead, = (one.text() for one in root.every("p") if one.attributes.get("class") == "lead")
    for eps in (found.settings.eps[0], found.settings.eps[-1]):
        number = sum(record.status is Status.CERTIFIED for record in found.by_eps[eps])
        assert f"{number:,} ({100 * number / len(found.by_eps[eps]):.1f} %)" in lead and radius(eps) in lead
    assert ("pixel" in lead) == (len(found.inputs.shape) > 1 and found.settings.p == np.inf)


def test_accuracies_are_those_of_the_certification(page):
    found, _, root = page
    _, *rows = table_of(root, "Accuracy on")
    for row, share in zip(rows, found.shares, strict=True):
        shown = [float(cell.removesuffix(" %")) / 100 for cell in row[1:]]
        between = share.attacked - share.certified
        assert shown == pytest.approx([share.certified, share.attacked, between, share.clean], abs=6e-4)


def test_every_rightly_classified_example_ends_somewhere(page):
    found, _, root = page
    _, *rows = table_of(root, "How far")
    assert [sum(int(row[place]) for row in rows) for place in (1, 2)] == [len(found.ranking)] * 2
    assert {index for index, status in found.at_reach if status is not Status.MISCLASSIFIED} == set(found.ranking)


def test_work_counts_every_question_and_every_second(page):
    found, _, root = page
    _, *rows = table_of(root, f"{len(found.records):,} questions")
    assert sum(numbers(cell) for row in rows for cell in row[1:-1] if cell != "–") == len(found.records)
    assert sum(float(row[-1]) for row in rows) == pytest.approx(sum(one.seconds for one in found.shares), abs=0.06 * len(rows))


def test_layers_of_the_most_instructive_example_are_there(page):
    found, _, root = page
    assert ("Where a bound is lost" in root.text()) == (found.explained is not None)
    if found.explained is not None:
        _, row = table_of(root, "Nonlinear layers")
        assert row[1:] == ["1,000", "12", "0.25", "0.5"] and f"input #{found.explained.index}" in root.text()


def test_confusions_are_all_there(page):
    found, _, root = page
    pairs = found.confusions(found.settings.eps[-1])
    if not pairs:
        assert "Counterexamples at" not in root.text()
    elif found.classes <= 12:
        _, *rows = table_of(root, "Counterexamples at")
        assert {(a, b): int(cell) for a, row in enumerate(rows) for b, cell in enumerate(row[1:])
                if cell not in ("–", "0")} == dict(pairs)
    else:
        _, *rows = table_of(root, "Counterexamples at")
        assert all(pairs[int(a), int(b)] == int(number) for a, b, number in rows) and int(rows[0][2]) == max(pairs.values())


def test_classes_are_those_of_the_certification(page):
    found, _, root = page
    _, *rows = table_of(root, "Robust accuracy by class")
    tables = [found.by_class(eps) for eps in found.settings.eps]
    assert len(rows) == min(len(tables[0]), MOST_CLASSES)
    for row in rows:
        own = [table[int(row[0])] for table in tables]
        assert int(row[1]) == own[0].examples
        for cell, share in zip(row[3:], own, strict=True):
            low, high = (float(part.removesuffix(" %")) / 100 for part in (cell.split(" to ") * 2)[:2])
            assert low == pytest.approx(share.certified, abs=0.0101) and high == pytest.approx(share.attacked, abs=0.0101)
            assert low == high or (low <= share.certified + 1e-9 and high >= share.attacked - 1e-9)


def test_the_page_stands_alone_and_can_be_read_aloud(page):
    _, text, root = page
    bare = re.sub(r"data:image/png;base64,[\w+/=]+", "data:", text)
    assert not re.search(r"https?:|//[a-z]|@import|src=\"(?!data:)", bare), "nothing comes from elsewhere"
    assert not root.every("script", "link", "iframe", "object") and len(text) < 2**20
    identifiers = [one.attributes["id"] for one in root.every() if "id" in one.attributes]
    assert len(identifiers) == len(set(identifiers))
    assert all(name in identifiers for name in re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    for picture in root.every("img"):
        assert picture.attributes["alt"] and picture.attributes["src"].startswith("data:image/png;base64,")
    assert len(root.every("svg")) == 2
    for figure in root.every("svg"):
        title, = figure.every("title")
        assert figure.attributes["role"] == "img" and figure.attributes["aria-labelledby"] == title.attributes["id"]
        assert title.text()
        assert "#0" not in "".join(one.attributes.get("style", "") for one in figure.every()), "colours are the page's"
    for table in root.every("table"):
        assert len(table.every("caption")) == 1 and all("scope" in cell.attributes for cell in table.every("th"))
    assert root.every("html")[0].attributes["lang"] == "en" and len(root.every("h1")) == 1
    levels = [int(one.tag[1]) for one in root.every("h1", "h2", "h3")]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_handlers_and_styles_hold_no_text_of_users():
    root = read(html_of(certification(name=EVIL), Names([EVIL] * 4)))
    assert not root.every("script") and EVIL in root.text()
    assert EVIL in root.every("title")[0].text() and all(EVIL in one.text() for one in root.every("h1"))
    assert any(EVIL in one.attributes["alt"] for one in root.every("img"))
    for element in root.every():
        assert not any(name.startswith("on") for name in element.attributes)
        assert "alert" not in element.attributes.get("style", "") + element.attributes.get("class", "")
    text = markdown_of(certification(name=EVIL), Names([EVIL] * 4))
    assert "<script" not in text.replace("\\<", "") and "\\<script\\>" in text


def test_markdown_has_the_same_tables(page):
    found, _, root = page
    text = markdown_of(found, Names())
    for title in ("What became of", "Accuracy on", "How far the", "Robust accuracy by class"):
        cells = table_of(root, title)
        lines = text[text.index(plain(title)):].split("\n")[2:]
        own = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[:1] + lines[2:len(cells) + 1]]
        if title == "What became of":
            cells = [[row[0], *row[2:]] for row in cells]
        assert [row[1:] for row in own[1:]] == [row[1:] for row in cells[1:]]
    assert "data:" not in text and "<svg" not in text


def test_rows_of_markdown_have_as_many_cells_as_columns():
    text = markdown(Table(("a|b", "c"), [("x\ny", EVIL)], "t", frozenset({"c"})))
    lines = text.split("\n")[2:]
    assert all(len(re.split(r"(?<!\\)\|", line)) == 4 for line in lines) and len(lines) == 3 and lines[1] == "| --- | ---: |"


def test_what_is_said_of_rounding():
    for rigour in Rigour:
        found = certification(rigour=rigour)
        said = f"{words.headline(found)} {words.rigour_sentence(found)}"
        assert ("proven" in said.lower()) == (rigour is not Rigour.FLOAT) and words.ABOUT[rigour] in said
    records = certification().records
    first = next(place for place, record in enumerate(records) if record.status is Status.CERTIFIED)
    finding = replace(records[first].finding, rigour=Rigour.FLOAT)
    mixed = replace(certification(), records=(*records[:first], replace(records[first], finding=finding), *records[first + 1:]))
    assert "1 answer in ordinary floating point" in words.rigour_sentence(mixed) and "are proven" not in words.headline(mixed)
    assert words.rigour_sentence(certification(kinds=(Status.FAILED,))) == "Nothing is certified, so nothing is claimed."


def test_radii_and_shares_say_no_more_than_is_so():
    for eps in (0.0, 0.1, 1 / 255, 8 / 255, 1 / 3, 1e-9, 0.30000000000000004):
        text = radius(eps)
        top, _, bottom = text.partition("/")
        assert float(top) / float(bottom or 1) == eps and (len(text) <= 7 or eps in (1 / 3, 0.30000000000000004))
    assert [percent(share) for share in (0, 1e-6, 0.5, 1 - 1e-6, 1)] == ["0.0 %", "0.1 %", "50.0 %", "99.9 %", "100.0 %"]


def test_reasons_that_differ_in_numbers_are_one():
    found = certification(kinds=(Status.UNKNOWN,), count=3, eps=(0.1,))
    records = tuple(replace(record, finding=replace(record.finding, reason=text)) for record, text in
                    zip(found.records, ("12 parts", "1,345.5 parts", "7 boxes"), strict=True))
    assert list(words.reasons(replace(found, records=records), Status.UNKNOWN)) == [("… parts", 2), ("7 boxes", 1)]


def test_the_same_run_gives_the_same_page_from_its_files_too(tmp_path):
    found = certification(count=40)
    bl.save_certification(found, tmp_path)
    written = {path.name: path.read_bytes() for path in bl.save_report(found, tmp_path, ["a", "b", "c", "d"])}
    kept = bl.read_certification(tmp_path)
    assert 0 < len(kept.inputs.x) < 40, "only the extremes are kept"
    again = {path.name: path.read_bytes() for path in bl.save_report(kept, tmp_path, ["a", "b", "c", "d"])}
    assert again == written and set(written) == {"report.html", "report.md"}


def test_the_extremes_are_the_ends_of_the_ranking():
    found = certification(count=60)
    weak, strong = found.extremes(5)
    assert len(weak) == len(strong) == 5
    reach = {one.index: one for one in found.reach}
    left = set(found.ranking) - set(weak)
    assert max(reach[index].falsified for index in weak) <= min(reach[index].falsified or 1 for index in left)
    assert min(reach[index].certified for index in strong) >= max(
        reach[index].certified or 0 for index in set(found.ranking) - set(strong) if reach[index].falsified is None)
    assert found.extremes(10**6)[0] == tuple(index for index in found.ranking if reach[index].falsified is not None)


def test_ten_thousand_examples_are_a_small_page():
    shape, found = (3, 32, 32), certification(count=10_000, shape=(3, 2, 2), classes=10)
    large = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    records = tuple(record if record.finding.adversary is None else replace(record, finding=replace(
        record.finding, adversary=replace(record.finding.adversary, x=large[0]))) for record in found.records)
    text = html_of(replace(found, records=records, inputs=Inputs(dict.fromkeys(range(10_000), large[0] * 0.9), shape)), Names())
    assert text.count("<img ") == 24 and len(text) < 1_000_000


def decoded(source):
    return np.asarray(pytest.importorskip("PIL.Image").open(io.BytesIO(source)))


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_what_others_read(channels):
    values = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    assert np.array_equal(decoded(png(values)).reshape(values.shape), values)


def test_pictures_on_the_page_are_the_inputs():
    for shape in ((1, 6, 5), (3, 6, 5), (6, 5, 3), (6, 5)):
        found = certification(shape=shape)
        source = read(html_of(found, Names())).every("img")[0].attributes["src"]
        own = pixels(found.inputs.x[found.extremes(1)[0][0]], shape)
        seen = decoded(base64.b64decode(source.partition(",")[2])).reshape(own.shape)
        assert np.abs(seen / 255 - own).max() <= 0.5 / 255 + 1e-6


def test_pixels_find_the_picture_in_what_the_network_takes():
    image = np.arange(24).reshape(3, 2, 4)
    last = image.transpose(1, 2, 0)
    assert all(np.array_equal(pixels(value, image.shape), last) for value in (image, last, image.reshape(-1)))
    assert all(np.array_equal(pixels(value, last.shape), last) for value in (last, last.reshape(-1)))
    assert is_picture((28, 28)) and is_picture((1, 28, 28)) and is_picture((32, 32, 3))
    assert not any(is_picture(shape) for shape in ((784,), (2, 28), (5, 9, 9), (1, 1, 28, 28)))


def test_smaller_pictures_are_means():
    values = np.random.default_rng(0).random((2 * LARGEST, 3 * LARGEST, 1))
    small = smaller(values)
    assert max(small.shape[:2]) <= LARGEST
    assert small[0, 0, 0] == pytest.approx(values[:3, :3].mean()) and smaller(small) is small
    assert np.allclose(smaller(np.full((2, 5000, 3), 0.5)), 0.5)


@pytest.mark.parametrize("most", [1e-30, 1e-9, 0.0123, 0.5, 1.0, 300.0])
def test_differences_are_as_visible_as_they_can_be(most):
    factor = amplification(np.array([most, -most / 2]), 0, 1)
    assert 0.9 * 0.5 <= factor * most <= 0.5 * (1 + 1e-3)
    assert float(f"{factor:.2g}") == pytest.approx(factor) and amplification(np.zeros(3), 0, 1) == 1


def luminance(color):
    """Relative luminance (WCAG 2.2)."""
    full = color if len(color) == 7 else "#" + "".join(2 * sign for sign in color[1:])
    parts = [int(full[place:place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_have_contrast_in_light_and_dark():
    blocks = re.findall(r":root \{(.*?)\}", html_of(certification(), Names()), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        color = dict(re.findall(r"--(\w+): (#\w+)", block))
        assert min(contrast(color[name], color["paper"]) for name in ("ink", "muted")) >= 4.5
        assert min(contrast(color[name], color["paper"]) for name in ("proven", "broken", "failed")) >= 3
        heat = "#" + "".join(f"{round(0.45 * int(color['broken'][i:i + 2], 16) + 0.55 * paper):02x}" for i, paper in zip(
            (1, 3, 5), bytes.fromhex(color["paper"][1:] if len(color["paper"]) == 7 else 2 * color["paper"][1:]), strict=True))
        assert contrast(color["ink"], heat) >= 4.5
