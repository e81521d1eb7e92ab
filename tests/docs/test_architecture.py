"""The picture of the layers in docs/architecture.md is true of every import (sizes and the like: tests/test_layers.py)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "boundlab"
TOP = ("cli", "testing")
"""What may import the package itself, which re-exports everything."""


def picture() -> dict[str, int]:
    """The height of each part: 0 is the lowest line of the picture."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    block = re.search(r"^```layers\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert block is not None, "docs/architecture.md has no block ```layers"
    lines = [re.split(r"\s{2,}", line)[0] for line in block[1].strip().splitlines()]
    return {name.strip(): height for height, line in enumerate(reversed(lines)) for name in line.split("|")}


def part_of(module: str) -> str:
    """The part of the picture that a dotted module name belongs to; empty for the package itself."""
    words = module.split(".")
    return words[1] if len(words) > 1 else ""


def imports_of(path: Path) -> set[str]:
    """Parts that a file imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {part_of(alias.name) for alias in node.names if alias.name.split(".")[0] == "boundlab"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "boundlab":
            names = [f"boundlab.{alias.name}" for alias in node.names] if node.module == "boundlab" else [node.module]
            found |= {part_of(name) if part_of(name) in PARTS else "" for name in names if name}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path} uses a relative import"
    return found


PARTS = {path.stem if path.suffix else path.name for path in SOURCE.iterdir() if not path.name.startswith("__")} - {"py"}
HEIGHTS = picture()
FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert own in HEIGHTS, f"{own} is not in the picture of the layers in docs/architecture.md; enter it where it belongs"
    for other in imports_of(path) - {own}:
        if other == "":
            assert own in TOP, f"{path} imports the whole package; import the part that it needs"
        else:
            assert other in HEIGHTS, f"{path} imports {other}, which is not in the picture"
            assert HEIGHTS[other] < HEIGHTS[own], f"{path}: {own} may not import {other}, which is not beneath it"
