"""A process that tries damaged files under limits of memory and time: `python -m tests.fuzz.worker NETWORK PROPERTY`,
both sound ones.

Each line of its input is a network and a property; each line of its output is what was wrong, or nothing: an error that is
not one clear sentence, a traceback, a hang, a wrong answer.
"""

from __future__ import annotations

import resource
import signal
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from typer.testing import CliRunner

import boundlab as bl
from boundlab.cli.app import app
from boundlab.question.vnnlib import parse_vnnlib
from boundlab.verify.query import NUMPY, problems

SECONDS = 2.0
"""Of the processor, for each file."""
MEMORY = 2 * 2**30
"""Bytes beyond what the libraries take."""
SAMPLES = 12


class Hang(BaseException):
    """The time of a file is over."""


def alarm(*_: object) -> NoReturn:
    raise Hang


def limit_memory() -> None:
    """All that this process may ever map."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))


def tried(network: str, spec: str) -> str:
    """What is wrong with how `boundlab verify` takes two files, or nothing."""
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    result = CliRunner().invoke(app, ["verify", network, spec, "--timeout", "0.2"])
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return f"raised {type(result.exception).__name__}: {result.exception}"
    said = result.stderr.strip()
    if result.exit_code == 2:
        good = said.startswith("boundlab: ") and "\n" not in said and len(said) < 2000 and said.endswith((".", ")"))
        return "" if good else f"exit code 2 with: {said[:600]}"
    if result.exit_code not in (0, 10, 20) or said:
        return f"exit code {result.exit_code}, standard error: {said[:600]}"
    return wrong(network, spec, result.exit_code)


def wrong(network: str, spec: str, code: int) -> str:
    """How a verdict disagrees with samples in onnxruntime, or nothing."""
    query, model, reference = parse_vnnlib(Path(spec)), bl.load_onnx(network), bl.onnx_reference(network)
    generator = torch.Generator().manual_seed(0)
    for batch in problems(query, model):
        points = {name: box.sample(SAMPLES, generator)[:, 0] for name, box in batch.rounded.items()}
        try:
            theirs = reference.replay({name: point.numpy() for name, point in points.items()})
        except bl.CaptureError:  # a node that onnxruntime refuses only when it runs: there is nothing to compare with
            return ""
        ours = bl.evaluate(model, points).numpy().reshape(SAMPLES, -1)
        theirs = theirs.reshape(SAMPLES, -1)
        scale = 1 + np.abs(theirs).max(initial=0.0, where=np.isfinite(theirs))
        if np.isfinite(theirs).all() and not np.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * scale):
            return f"the network computes other numbers than onnxruntime: {np.abs(ours - theirs).max()}"
        flat = np.concatenate([points[node.name].numpy().reshape(SAMPLES, -1) for node in model.graph.inputs], 1)
        if code == 0 and any(query.accepts(x, y, NUMPY[model.dtype]) for x, y in zip(flat, theirs, strict=True)):
            return "verified, but a sample is a counterexample"
    return ""


def main() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGVTALRM, alarm)
    tried(*sys.argv[1:3])  # a sound network and property: everything is loaded now
    limit_memory()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        network, spec = line.rstrip("\n").split("\t")
        try:
            said = tried(network, spec)
        except Hang:
            said = f"took more than {SECONDS} s of the processor"
        except bl.BoundlabError as problem:
            said = f"was answered once and refused then: {problem}"
        sys.stdout.write(f"{said!r}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
