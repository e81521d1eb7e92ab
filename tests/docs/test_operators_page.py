"""docs/operators.md is what the registry says now; every framework name of a record is on it."""

from __future__ import annotations

from pathlib import Path

from boundlab.cli.names import built_by, reached
from boundlab.cli.ops import Format, ops
from boundlab.cli.verb import Session
from boundlab.ops.op import REGISTRY

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operators.md"
COMMAND = "boundlab ops --format markdown > docs/operators.md"


def test_the_page_is_current():
    text = ops(Session(quiet=True), form=Format.MARKDOWN).text
    assert PAGE.read_text() == f"{text}\n", f"docs/operators.md is out of date; write it again: {COMMAND}"


def test_every_operator_has_a_line_and_a_meaning():
    lines = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in PAGE.read_text().splitlines()
             if line.startswith("| ")}
    assert set(REGISTRY) <= set(lines)
    assert [name for name in REGISTRY if lines[name][1] == "-"] == []


def test_names_are_read_from_the_rules():
    names = reached()
    assert "celu" in names["elu"][0] and "Selu" in names["elu"][1]
    assert "sigmoid_backward" in names["sigmoid_grad"][0] and "mul" in names["silu"][0]
    assert names["sinh"] == (["sinh"], ["Sinh"])


def elsewhere(build, x):
    """A rule outside the capture package."""
    return build.add("relu", x)


def test_only_the_capture_package_is_read():
    assert built_by(elsewhere) == set()
