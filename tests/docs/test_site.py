"""The site builds without a warning: every page is in the navigation, every link and anchor leads somewhere."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_docs import PAGES, ROOT


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs mkdocs: pip install 'boundlab[docs]'")
def test_the_site_builds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0 and not ran.stderr, f"{ran.stdout}\n{ran.stderr}"
    for page in PAGES:
        place = page.relative_to(ROOT).with_suffix("")
        made = tmp_path / "site" / (place.parent if place.name == "README" else place) / "index.html"
        assert made.exists(), f"{page} is not on the site"
    assert json.loads((tmp_path / "site" / "search" / "search_index.json").read_text())["docs"]
