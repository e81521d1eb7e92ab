"""Damaged files of both kinds end in one clear sentence or a right answer, within limits of time and memory."""

from __future__ import annotations

import ast
import functools
import math
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

import boundlab as bl
from tests.capture.onnx_nets import SINGLES, save_single
from tests.fuzz.mutations import damaged_network, damaged_text

ROOT = Path(__file__).parents[2]
WALL = 60.0
"""Seconds of the clock after which a worker hangs; its own limit is of the processor."""


def property_of(network: Path) -> str:
    """A property of a network: a box, two cases, a sum."""
    graph = bl.load_onnx(network).graph
    inputs, outputs = sum(math.prod(node.shape) for node in graph.inputs), math.prod(graph.output.shape)
    lines = [f"(declare-const X_{i} Real)" for i in range(inputs)] + [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    for i in range(inputs):
        lines += [f"(assert (<= X_{i} 0.7))", f"(assert (>= X_{i} {0.2 + 0.01 * i}))"]
    lines.append(f"(assert (or (and (<= Y_0 -3.5) (>= Y_{outputs - 1} 0.25)) (>= (+ (* 2.0 Y_0) 1.5) 1e3)))")
    return "\n".join(lines) + "\n"


class Bench:
    """A worker that is started again whenever it dies."""

    def __init__(self, network: Path, spec: Path) -> None:
        self.command = [sys.executable, "-m", "tests.fuzz.worker", str(network), str(spec)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(self.command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL)
        assert self.answer(600.0) == "ready"

    def answer(self, seconds: float) -> str | None:
        assert self.process is not None and self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return self.process.stdout.readline().decode().rstrip("\n") if ready else None

    def ask(self, network: Path, spec: Path) -> str:
        """What is wrong with two files, or nothing."""
        if self.process is None:
            self.start()
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(f"{network}\t{spec}\n".encode())
        self.process.stdin.flush()
        said = self.answer(WALL)
        if said:
            return str(ast.literal_eval(said))
        self.end()
        return f"no answer in {WALL} s" if said is None else "the process died"

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


BASES = [(name, single) for name, single in SINGLES.items() if single.outputs == 1]
"""Sound networks of one node each."""


@functools.cache
def base(place, folder):
    """The name of a sound network, its content, and a property of it."""
    name, single = BASES[place % len(BASES)]
    network = save_single(folder / "base.onnx", single)
    return name, network.read_bytes(), property_of(network)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    _, content, text = base(0, folder)
    (folder / "net.onnx").write_bytes(content)
    (folder / "spec.vnnlib").write_text(text)
    found = Bench(folder / "net.onnx", folder / "spec.vnnlib")
    yield found
    found.end()


def complaints(bench, numbers, folder):
    """What is wrong, by number; even numbers damage the network, odd ones the property."""
    found = {}
    for number in numbers:
        name, content, text = base(number * 37 % len(BASES), folder.parent)
        network, spec = folder / "net.onnx", folder / "spec.vnnlib"
        network.write_bytes(damaged_network(content, number) if number % 2 == 0 else content)
        spec.write_bytes(damaged_text(text, number) if number % 2 else text.encode())
        said = bench.ask(network, spec)
        if said:
            found[number, name] = said
    return found


def test_sound_files_are_answered(bench, tmp_path):
    for place in range(0, len(BASES), 60):
        name, content, text = base(place, tmp_path.parent)
        (tmp_path / "net.onnx").write_bytes(content)
        (tmp_path / "spec.vnnlib").write_text(text)
        assert bench.ask(tmp_path / "net.onnx", tmp_path / "spec.vnnlib") == "", name


def test_damaged_files_end_in_a_sentence_or_a_right_answer(bench, tmp_path):
    assert not complaints(bench, range(100), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 10_000, 500))
def test_10000_damaged_files(bench, tmp_path, start):
    assert not complaints(bench, range(start, start + 500), tmp_path)
