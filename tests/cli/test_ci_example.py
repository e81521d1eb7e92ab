"""The example of a GitHub workflow: it is well formed, and every command of boundlab in it is one, with options that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer.main

from boundlab.cli.app import app

EXAMPLE = Path(__file__).parents[2] / "examples/ci/github-certify.yml"
TEXT = EXAMPLE.read_text(encoding="utf-8")
COMMANDS = [shlex.split(line) for line in re.findall(r"^\s+run: (boundlab .*)$", TEXT, re.MULTILINE)]
ENVIRONMENT = dict(re.findall(r'^  ([A-Z]+): "?([^"\n]*)"?$', TEXT, re.MULTILINE))


def test_there_are_commands():
    assert [command[1] for command in COMMANDS] == ["certify", "report"] and set(ENVIRONMENT) == {
        "NETWORK", "DATA", "EPS", "SHARE"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[1])
def test_verbs_and_options_exist(command):
    verbs = typer.main.get_command(app).commands
    options = {name for parameter in verbs[command[1]].params for name in parameter.opts}
    assert {word for word in command if word.startswith("--")} <= options


def test_the_commands_do_in_turn_what_the_workflow_expects(folder, run):
    """With the values of its environment, and files of these names; the engine runs here, as processes take long to start."""
    x = np.array([[0.5, 0.25], [0.75, 0.5]], np.float32)
    np.savez(ENVIRONMENT["DATA"], x=x, y=np.array([0, 0]))
    (folder / "net.onnx").rename(ENVIRONMENT["NETWORK"])
    for command in COMMANDS:
        words = [re.sub(r"^\$(\w+)$", lambda match: ENVIRONMENT[match[1]], word) for word in command[1:]]
        result = run(*words, *(("--engine", "serial") if words[0] == "certify" else ()))
        assert result.exit_code == 0, result.output
    for name in re.findall(r"(?:path|sarif_file): (certified\S*)$", TEXT, re.MULTILINE):
        assert (folder / name).exists()
    assert {"report.html", "junit.xml", "README.md"} <= {path.name for path in (folder / "certified").iterdir()}


def test_every_line_is_a_key_an_item_or_a_comment():
    """The parts of YAML that the file uses: maps and lists two spaces deep, plain or quoted scalars, one block of text."""
    assert "\t" not in TEXT and TEXT.endswith("\n")
    for line in TEXT.splitlines():
        assert re.fullmatch(r"(  )*(- )?([\w-]+:( \S.*)?|certified\S*)|#.*|", line), line
        value = line.partition(": ")[2]
        assert not re.search(r": | #(?! for the upload)", value), f"a plain scalar ends before its end: {line}"
    assert TEXT.count("${{") == TEXT.count("}}") == 6


def test_it_is_read_by_a_parser_that_others_use():
    yaml = pytest.importorskip("yaml")
    held = yaml.safe_load(TEXT)
    steps = held["jobs"]["certify"]["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    assert [shlex.split(step["run"]) for step in steps if step.get("run", "").startswith("boundlab")] == COMMANDS
    assert held["env"] == ENVIRONMENT and held["permissions"]["security-events"] == "write"
