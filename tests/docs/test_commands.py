"""Commands of `bash` blocks, which take long or need data: what they name exists, and they can be parsed."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from benchmarks.__main__ import app as benchmarks
from boundlab.cli.app import app
from tests.docs.test_docs import ROOT, blocks_of, name, pages_with

PROGRAMS = {("boundlab",): app, ("python", "-m", "benchmarks"): benchmarks}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def refused(words: list[str]) -> str:
    """Why a command of ours cannot be what it seems to be; empty if nothing is wrong with it, or it is not ours."""
    words = [words[0].removeprefix(".venv/bin/"), *words[1:]]
    for start, program in PROGRAMS.items():
        if tuple(words[:len(start)]) == start:
            return unparsable(typer.main.get_command(program), words[len(start):])
    if words[0] == "make":
        targets = set(re.findall(r"(?m)^([\w.-]+):", (ROOT / "Makefile").read_text()))
        return "".join(f"make has no target {word}" for word in words[1:] if "=" not in word and word not in targets)
    if words[:1] == ["python"] and words[1].endswith(".py") and "/" in words[1]:
        return "" if (ROOT / words[1]).exists() else f"{words[1]} does not exist"
    if words[:2] == ["pip", "install"]:
        asked = [extra for text in re.findall(r"(?:^|boundlab|\.)\[([\w,]+)\]", " ".join(words)) for extra in text.split(",")]
        return "".join(f"there is no extra {extra}" for extra in asked if extra not in EXTRAS)
    return ""


def unparsable(command, words: list[str]) -> str:
    """What a program's own parser has against its arguments."""
    verbs = command.commands if isinstance(command, typer.core.TyperGroup) else {}
    place = next((i for i, word in enumerate(words) if word in verbs), len(words))
    if verbs and words and place == len(words) and not words[0].startswith("-"):
        return f"there is no verb {words[0]}"
    try:
        context = command.make_context(command.name, words[:place], resilient_parsing=True)
    except Exception as problem:
        return str(problem) or type(problem).__name__
    if context.args:
        return f"{context.args} are too many arguments"
    return unparsable(verbs[words[place]], words[place + 1:]) if place < len(words) else ""


@pytest.mark.parametrize("page", pages_with("bash"), ids=name)
def test_commands_of_bash_blocks_can_be_parsed(page: Path) -> None:
    for block in blocks_of(page):
        if block.language == "bash":
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                assert not words or not refused(words), f"{name(page)}, line {block.line}: `{line}`: {refused(words)}"


@pytest.mark.parametrize("line", ["boundlab certfy net.onnx", "boundlab radius net.onnx --norms 2", "make demos",
                                  "python -m benchmarks scalings", "python -m benchmarks limits --device cpu net",
                                  "pip install 'boundlab[reports]'", "python docs/tools/references.py"])
def test_what_does_not_exist_is_seen(line: str) -> None:
    assert refused(shlex.split(line))
