"""The report page in a browser: it is drawn without a complaint, figures have a size, and nothing is wider than the window."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

from boundlab.reports.certified.page import html_of
from boundlab.reports.certified.words import Names
from tests.reports.cases import CASES, certification

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open pages in")]
MEASURE = """<script>addEventListener("load", () => { document.body.textContent = JSON.stringify({
  sizes: [...document.querySelectorAll("svg, img, .bar")].filter(one => one.offsetParent || one.ownerSVGElement === null).map(
    one => [one.getBoundingClientRect().width, one.getBoundingClientRect().height]),
  wide: document.documentElement.scrollWidth, window: innerWidth, paper: getComputedStyle(document.body).backgroundColor,
  cut: [...document.querySelectorAll("svg text")].filter(one => { const a = one.getBoundingClientRect(),
    b = one.ownerSVGElement.getBoundingClientRect(); return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1
    || a.bottom > b.bottom + 1; }).map(one => one.textContent),
  met: [...document.querySelectorAll("svg")].flatMap(one => { const texts = [...one.querySelectorAll("text")].map(
    text => [text.textContent, text.getBoundingClientRect()]); return texts.flatMap(([name, a], i) => texts.slice(i + 1).filter(
    ([_, b]) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2).map(
    ([other, _]) => name + " / " + other)); }) }); });</script>"""


def opened(path, profile, *options):
    """What a browser without a window says and gives."""
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--hide-scrollbars", "--enable-logging=stderr")
    command = [CHROMIUM, *quiet, f"--user-data-dir={profile}", *options, path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def complaints(process):
    return [line for line in process.stderr.splitlines() if ":CONSOLE" in line or "Refused" in line]


@pytest.mark.parametrize("name", ["of all kinds", *(pytest.param(name, marks=pytest.mark.slow) for name in CASES
                                                    if name != "of all kinds")])
@pytest.mark.parametrize(("width", "scheme"), [(1200, 1), (500, 0)])
def test_the_page_is_drawn(tmp_path, name, width, scheme):
    path = tmp_path / "page.html"
    path.write_text(html_of(certification(**CASES[name]), Names()).replace("</body>", f"{MEASURE}</body>"))
    ran = opened(path, tmp_path / "profile", f"--window-size={width},3000", f"--blink-settings=preferredColorScheme={scheme}",
                 "--dump-dom")
    assert not complaints(ran)
    seen = json.loads(html.unescape(re.search(r"<body>(.*)</body>", ran.stdout, re.DOTALL)[1]))
    assert len(seen["sizes"]) >= 2 and all(min(size) >= 8 for size in seen["sizes"])
    assert seen["window"] == width and seen["wide"] <= width
    assert seen["cut"] == [] and seen["met"] == []
    assert seen["paper"] == ("rgb(255, 255, 255)" if scheme else "rgb(17, 22, 28)")


def test_it_can_be_photographed(tmp_path):
    path, picture = tmp_path / "page.html", tmp_path / "page.png"
    path.write_text(html_of(certification(), Names()))
    opened(path, tmp_path / "profile", "--window-size=1200,3000", f"--screenshot={picture}")
    held = pytest.importorskip("PIL.Image").open(picture)
    assert held.size == (1200, 3000) and len(held.convert("RGB").getcolors(2**24)) > 50
