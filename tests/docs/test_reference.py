"""docs/reference is what the docstrings say now, and has every public name once."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
from types import ModuleType

import pytest

import boundlab
from tests.docs.test_docs import ROOT

FOLDER = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_reference", ROOT / "docs" / "tools" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_current(reference):
    written = {path.name: path.read_text() for path in FOLDER.glob("*.md")}
    assert written == reference.files(), f"docs/reference is out of date; write it again: {reference.COMMAND}"


def test_every_public_name_has_one_entry():
    pages = [page.read_text() for page in sorted(FOLDER.glob("*.md"))]
    headings = [name for page in pages for name in re.findall(r"(?m)^## (\w+) \(\w+\)$", page)]
    assert sorted(headings) == sorted(boundlab.__all__)


def test_what_python_shows_is_what_the_pages_show(reference):
    for entry in reference.entries():
        assert entry.text, f"{entry.name} has no docstring in {entry.module}"
        value = vars(boundlab)[entry.name]
        if entry.kind in ("dataclass", "function"):
            assert (value.__module__, value.__name__) == (entry.module, entry.name)
        if entry.kind == "dataclass":
            fields = re.findall(r"(?m)^    (\w+): ", reference.code(entry))
            assert fields == [field.name for field in dataclasses.fields(value)], entry.name


def test_marks_of_markdown_are_none(reference):
    shown = reference.escaped("(b, *node, *source) and `(b, *node)` of maps[0]")
    assert shown == r"(b, \*node, \*source) and `(b, *node)` of maps\[0\]"


def test_defaults_are_as_a_caller_writes_them(reference):
    shown = {entry.name: reference.code(entry) for entry in reference.entries()}
    assert "base: Method = CROWN()" in shown["Optimised"] and "p: float = math.inf" in shown["LpBall"]
    assert "stages: Sequence[Stage] = LADDER," in shown["verify"]
