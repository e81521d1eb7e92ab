"""Every page runs: Python blocks in order in one namespace (or as the file they name) with their output; commands, links."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from boundlab.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("vnncomp/*.md")])
FENCE = re.compile(r"^```(\w*) *([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
CODE = re.compile(r"`[^`\n]+`")
CHECKER = doctest.OutputChecker()
LOOSELY = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file that it is (or ""), text, line, and whether it follows the one before at once."""

    language: str
    file: str
    text: str
    line: int
    adjacent: bool


def blocks_of(page: Path) -> list[Block]:
    text, found, last = page.read_text(), [], -2
    for match in FENCE.finditer(text):
        found.append(Block(match[1], match[2], match[3], text.count("\n", 0, match.start()) + 1, match.start() == last + 1))
        last = match.end()
    return found


def pages_with(language: str, pattern: str = "") -> list[Path]:
    return [page for page in PAGES if any(b.language == language and re.search(pattern, b.text) for b in blocks_of(page))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def agree(want: str, got: str, place: str) -> None:
    assert CHECKER.check_output(want, got, LOOSELY), f"{place} prints\n{got}\nbut the page says\n{want}"


@pytest.mark.parametrize("page", pages_with("python"), ids=name)
def test_python_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_operators: None) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    printed = ""
    with torch.random.fork_rng(devices=[]):
        for block in blocks_of(page):
            place = f"{name(page)}, line {block.line}"
            if block.language == "python" and block.file:  # a module that later blocks import
                (tmp_path / block.file).write_text(block.text)
            elif block.language == "python":
                output = io.StringIO()
                text = block.text.replace('if __name__ == "__main__":', "if True:")  # a page is a script
                with contextlib.redirect_stdout(output):
                    exec(compile("\n" * block.line + text, str(page), "exec"), vars(module))
                printed = output.getvalue()
            elif block.language == "text" and block.adjacent:
                agree(block.text, printed, place)


def commands_of(page: Path) -> list[tuple[int, str, str]]:
    """(line, command, output that the page shows) of every `$ boundlab ...`."""
    found = []
    for block in blocks_of(page):
        if block.language == "console":
            for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                command, _, shown = part.partition("\n")
                found.append((block.line, command, shown))
    return [entry for entry in found if entry[1].startswith("boundlab ")]


def make_files(folder: Path) -> None:
    """The files that the pages' commands name: a small network, inputs with labels, and a property that holds of it."""
    helper, onnx = pytest.importorskip("onnx.helper"), pytest.importorskip("onnx")
    generator = np.random.default_rng(0)
    weights = {"w1": (4, 8), "b1": (8,), "w2": (8, 3), "b2": (3,)}
    held = [onnx.numpy_helper.from_array(generator.normal(size=size).astype(np.float32), key) for key, size in weights.items()]
    nodes = [helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]), helper.make_node("Relu", ["h"], ["a"]),
             helper.make_node("Gemm", ["a", "w2", "b2"], ["y"])]
    ends = [helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, [1, size]) for key, size in (("x", 4), ("y", 3))]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "net.onnx")
    np.savez(folder / "images.npz", x=generator.random((2, 4), dtype=np.float32), y=np.array([0, 1]))
    lines = [f"(declare-const X_{i} Real)" for i in range(4)] + [f"(declare-const Y_{i} Real)" for i in range(3)]
    lines += [f"(assert (>= X_{i} 0.4))\n(assert (<= X_{i} 0.5))" for i in range(4)] + ["(assert (>= Y_0 1000.0))"]
    (folder / "property.vnnlib").write_text("\n".join(lines))


@pytest.mark.parametrize("page", pages_with("console", r"(?m)^\$ boundlab "), ids=name)
def test_commands(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which takes seconds less a command; tests/cli starts the program itself."""
    make_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    for line, command, shown in commands_of(page):
        ran = CliRunner().invoke(app, shlex.split(command, comments=True)[1:])
        place = f"{name(page)}, line {line}: `{command}`"
        assert ran.exit_code in (0, 10, 20), f"{place} failed ({ran.exit_code}):\n{ran.stdout}\n{ran.stderr}"
        if shown.strip():
            agree(shown, ran.stdout, place)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    prose = CODE.sub("", FENCE.sub("", page.read_text()))
    for target in LINK.findall(prose):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{name(page)} links to {target}, which does not exist."


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_named_files_exist(page: Path) -> None:
    prose = FENCE.sub("", page.read_text())
    for named in re.findall(r"`([\w/-]+\.(?:py|md|toml|txt|sh))`", prose):
        places = (page.parent / named, ROOT / named, ROOT / "src" / "boundlab" / named)
        assert any(place.exists() for place in places), f"{name(page)} names {named}, which does not exist."


CITED = re.compile(r"\b([A-Z][\wäöüéè-]+)(?: and [A-Z]\w+| et al\.)?,? ((?:19|20)\d\d)\b")
OTHERS = {"VNN-COMP", "COMP", "November", "Alpaydin"}
"""What is followed by a year and is no paper's author: a competition, a date, a data set's."""


def test_papers_that_pages_cite_are_listed():
    words, papers = (ROOT / "docs" / "glossary.md").read_text().split("## Papers")
    texts = {name(page): page.read_text() for page in PAGES if page.name != "glossary.md"} | {"docs/glossary.md": words}
    for title, text in texts.items():
        for author, year in set(CITED.findall(FENCE.sub("", text))):
            assert author in OTHERS or re.search(rf"{author}[^*\n]* {year}, ", papers), (
                f"{title} cites {author} {year}, which is not among the papers of docs/glossary.md.")
