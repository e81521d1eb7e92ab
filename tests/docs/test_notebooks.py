"""Every notebook runs, its code cells in order in one namespace, and prints what it holds, but for a little in numbers."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.docs.test_docs import CODE, LINK, ROOT, name

NOTEBOOKS = sorted(ROOT.glob("examples/*.ipynb"))
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?")


def cells_of(page: Path) -> list[dict[str, Any]]:
    return json.loads(page.read_text())["cells"]


def text_of(lines: str | list[str]) -> str:
    return "".join(lines)


def alike(want: str, got: str) -> bool:
    """Whether two texts differ in nothing but blanks and a little in numbers: machines and versions train differently."""
    words = [" ".join(NUMBER.sub("#", text).split()) for text in (want, got)]
    numbers = [[float(found) for found in NUMBER.findall(text)] for text in (want, got)]
    return words[0] == words[1] and all(math.isclose(a, b, rel_tol=0.2, abs_tol=0.08) for a, b in zip(*numbers, strict=True))


@pytest.mark.parametrize("page", NOTEBOOKS, ids=name)
def test_the_notebook_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_operators: None) -> None:
    for package in ("sklearn", "matplotlib", "onnxruntime"):
        if package in page.read_text() or package == "onnxruntime":
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("notebook")
    monkeypatch.setitem(sys.modules, "notebook", module)
    with torch.random.fork_rng(devices=[]):
        for place, cell in enumerate(cells_of(page)):
            if cell["cell_type"] == "code":
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed):
                    exec(compile(text_of(cell["source"]), f"{page}, cell {place}", "exec"), vars(module))
                stored, now = "".join(text_of(output["text"]) for output in cell["outputs"]), printed.getvalue()
                assert alike(stored, now), f"{name(page)}, cell {place}, prints\n{now}but holds\n{stored}"


@pytest.mark.parametrize("page", NOTEBOOKS, ids=name)
def test_the_notebook_is_whole(page: Path) -> None:
    """What Jupyter and code hosts need of format 4.5; a title; cells that ran in order; links that lead somewhere."""
    notebook, cells = json.loads(page.read_text()), cells_of(page)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5) and "kernelspec" in notebook["metadata"]
    assert len({cell["id"] for cell in cells}) == len(cells) <= 15
    assert cells[0]["cell_type"] == "markdown" and text_of(cells[0]["source"]).startswith("# ")
    ran = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in ran] == list(range(1, len(ran) + 1))
    assert any(cell["outputs"] for cell in ran)
    prose = CODE.sub("", "\n".join(text_of(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"))
    for target in LINK.findall(prose):
        assert (page.parent / target).exists(), f"{name(page)} links to {target}, which does not exist."


def test_every_notebook_is_listed():
    listed = LINK.findall((ROOT / "examples" / "README.md").read_text())
    assert sorted(listed) == [page.name for page in NOTEBOOKS]


def test_numbers_may_differ_a_little_and_words_not():
    assert alike("width 0.50, VERIFIED 3", "width  0.52, VERIFIED 3")
    assert not alike("width 0.50", "width 0.70") and not alike("VERIFIED", "UNKNOWN") and not alike("1 2", "1")
