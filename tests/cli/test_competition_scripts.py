"""The scripts that VNN-COMP calls: results files by its rules, time limits to the second, and nothing left behind."""

import gzip
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import boundlab as bl
from boundlab.question.vnnlib import parse_vnnlib

SCRIPTS = Path(__file__).parents[2] / "vnncomp"
WORDS = {"sat", "unsat", "unknown", "timeout", "error"}


@pytest.fixture
def script(folder, tmp_path):
    """script("run", ...) calls a script with `boundlab` on the path: this one, or what tool(text) puts there."""
    shims = tmp_path / "shims"
    shims.mkdir()
    environment = {**os.environ, "PATH": f"{shims}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}

    def tool(text):
        (shims / "boundlab").write_text(f"#!/bin/bash\n{text}\n")
        (shims / "boundlab").chmod(0o755)

    def call(name, *arguments, wait=True):
        command = [SCRIPTS / name, *map(str, arguments)]
        if not wait:
            return subprocess.Popen(command, env=environment, cwd=folder)
        return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)

    call.tool = tool
    tool(f'exec {sys.executable} -m boundlab "$@"')
    return call


def run(script, spec, limit):
    """The lines of the results file."""
    done = script("run_instance.sh", "v1", "any", "net.onnx", spec, "out.txt", limit)
    assert done.returncode == 0, done.stderr
    return Path("out.txt").read_text().splitlines()


def test_a_counterexample_is_one_that_the_competition_accepts(script, folder):
    packed = folder / "unsafe.vnnlib.gz"
    packed.write_bytes(gzip.compress((folder / "unsafe.vnnlib").read_bytes()))
    (folder / "unsafe.vnnlib").unlink()
    assert script("prepare_instance.sh", "v1", "any", "net.onnx", "unsafe.vnnlib").returncode == 0
    word, *witness = run(script, "unsafe.vnnlib", 60)
    text = " ".join(witness)
    assert word == "sat" and re.fullmatch(r"\((\([XY]_\d+ \S+\) *)+\)", text)
    names, values = zip(*re.findall(r"([XY]_\d+) ([^)\s]+)", text), strict=True)
    assert names == ("X_0", "X_1", "Y_0", "Y_1")
    x, y = np.array(values[:2], dtype=np.float32), np.array(values[2:], dtype=np.float32)
    assert parse_vnnlib(packed).accepts(x, y, np.float32)
    assert np.array_equal(bl.onnx_reference("net.onnx").replay(x[None])[0], y), "digits were lost"


@pytest.mark.parametrize(("answer", "code", "lines"), [
    ("unknown", 20, ["unknown"]), ("timeout", 20, ["timeout"]), ("unsat", 0, ["unsat"]), ("unsat", 1, ["error"]),
    ("half a line", 2, ["error"]), ("unsat", 139, ["error"]),
])
def test_an_answer_counts_only_with_its_exit_code(script, answer, code, lines):
    script.tool(f"echo {answer}; exit {code}")
    assert run(script, "safe.vnnlib", 5) == lines and set(lines) <= WORDS


@pytest.mark.parametrize("tool", ["echo unsat; sleep 60", "trap '' TERM; while true; do sleep 0.2; done"])
def test_the_limit_is_kept_to_the_second(script, tool):
    script.tool(tool)
    start = time.perf_counter()
    assert run(script, "safe.vnnlib", 1) == ["timeout"]
    assert 0.9 < time.perf_counter() - start < 5.0


def test_what_an_earlier_run_left_behind_is_ended(script, folder):
    script.tool("echo $$ >alive; trap '' TERM; while true; do sleep 0.2; done")
    left = script("run_instance.sh", "v1", "any", "net.onnx", "safe.vnnlib", "out.txt", 60, wait=False)
    while not (folder / "alive").exists():
        time.sleep(0.02)
    number = int((folder / "alive").read_text())
    left.kill()
    left.wait()
    assert Path(f"/proc/{number}").exists()
    assert script("prepare_instance.sh", "v1", "any", "net.onnx", "safe.vnnlib").returncode == 0
    deadline = time.perf_counter() + 5
    while Path(f"/proc/{number}").exists() and "(Z)" not in Path(f"/proc/{number}/status").read_text():
        assert time.perf_counter() < deadline, "it still runs"
        time.sleep(0.02)
    assert Path("out.txt").read_text() == "timeout\n"


def test_a_process_of_someone_else_is_left_alone(script, tmp_path):
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        (tmp_path / f"boundlab-vnncomp-{os.getuid()}.pid").write_text(f"{other.pid}\n")
        assert script("prepare_instance.sh", "v1", "any", "net.onnx", "safe.vnnlib").returncode == 0
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize(("name", "arguments", "said"), [
    ("prepare_instance.sh", ("v2", "any", "net.onnx", "safe.vnnlib"), "v1"),
    ("prepare_instance.sh", ("v1", "any", "none.onnx", "safe.vnnlib"), "none.onnx"),
    ("prepare_instance.sh", ("v1", "any", "net.onnx", "none.vnnlib"), "none.vnnlib"),
    ("prepare_instance.sh", ("v1", "any", "net.onnx"), "4 arguments"),
    ("run_instance.sh", ("v1", "any", "none.onnx", "safe.vnnlib", "out.txt", "5"), "none.onnx"),
    ("run_instance.sh", ("v1", "any", "net.onnx", "safe.vnnlib", "out.txt", "soon"), "soon"),
    ("run_instance.sh", ("v1", "any", "net.onnx", "safe.vnnlib", "nowhere/out.txt", "5"), "nowhere"),
    ("install_tool.sh", ("v3",), "v1"),
])
def test_bad_calls_are_refused(script, name, arguments, said):
    done = script(name, *arguments)
    assert done.returncode == 1 and said in done.stderr and not Path("out.txt").exists()


def test_no_name_changes_what_is_done():
    for path in SCRIPTS.glob("*.sh"):
        text = re.sub(r"#.*", "", path.read_text())
        assert "CATEGORY" not in text and "$2" not in text, f"{path.name} reads the category"
