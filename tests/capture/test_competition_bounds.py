"""All networks of the verification competition: loaded, compared with onnxruntime, bounded on a box of their own instances.

`BOUNDLAB_DATA=FOLDER pytest tests/capture/test_competition_bounds.py -m slow` prints a line a network and a table a family.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from torch import Tensor

import boundlab as bl
from boundlab.question.vnnlib import parse_vnnlib
from boundlab.verify.query import problems

pytestmark = pytest.mark.slow
METHODS = {"IBP": bl.IBP(), "CROWN-IBP": bl.CROWN(intermediate=bl.IBP()), "CROWN": bl.CROWN()}
SHARES = (1.0, 0.01)
"""Parts of the instance's box, around its middle: the smaller one is asked where bounds on the whole have no numbers."""
LIMIT, MEMORY, SAMPLES = 60.0, 8 * 2**30, 8
DIVIDES = "cctsdb_yolo"
"""The family that divides by an interval around zero on the whole box."""


@dataclass
class Row:
    """What became of one network: worst difference to onnxruntime, and by method how its bounds came out."""

    name: str
    difference: float | None = None
    found: dict[str, str] = field(default_factory=dict)
    problem: str = ""


def networks(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Every ONNX file of the folder, with the property of its first instance."""
    with (folder / "instances.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    return {f"{row['family']}/{Path(row['onnx']).name}": (folder / row["family"] / f"{row['onnx']}.gz",
                                                          folder / row["family"] / f"{row['vnnlib']}.gz")
            for row in reversed(rows)}


def shrunk(box: bl.Box, share: float) -> bl.Box:
    """The first problem of a batch of boxes, with so much of its width."""
    middle, radius = (box.lower[:1] + box.upper[:1]) / 2, (box.upper[:1] - box.lower[:1]) / 2
    lower, upper = middle - share * radius, middle + share * radius
    return bl.Box(torch.maximum(lower, box.lower[:1]), torch.minimum(upper, box.upper[:1]))


def outputs(path: Path, points: Mapping[str, Tensor]) -> Tensor:
    """What onnxruntime computes at points (n, *shape), (n, *out)."""
    reference = bl.onnx_reference(path)
    wanted = reference.replay_all({name: point.numpy() for name, point in points.items()})
    return torch.from_numpy(next(iter(wanted.values())))


def bounded(model: bl.Model, asked, share: float, method: bl.Method, path: Path) -> str:
    """Finite, infinite or an error; AssertionError where an output of onnxruntime lies outside."""
    sets = {name: shrunk(box, share) for name, box in asked.sets.items()}
    spec = asked.spec.take(torch.tensor([0]))
    try:
        lower = bl.bound(model, sets, method=method, spec=spec).lower
    except bl.BoundlabError as refusal:
        return str(refusal)
    points = {name: torch.cat([box.sample(SAMPLES, torch.Generator().manual_seed(0))[:, 0], box.lower, box.upper])
              for name, box in sets.items()}
    values = outputs(path, points).to(spec.rows)
    margins = spec.values(values)
    slack = 1e-4 * (1 + margins.abs().amax() + values.abs().amax())
    assert (lower <= margins + slack).all(), f"{path.name}: {method} is above a sample by {(lower - margins).max():g}"
    return "finite" if bool(torch.isfinite(lower).all()) else "infinite"


def work(connection: Connection, path: Path, vnnlib: Path) -> None:
    """All that is asked of one network, told step by step, so that what came before an end at the limit is not lost."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    model = bl.load_onnx(path).detached()
    asked = problems(parse_vnnlib(vnnlib), model)[0]
    points = {name: shrunk(box, 1.0).sample(3, torch.Generator().manual_seed(1))[:, 0] for name, box in asked.sets.items()}
    wanted, found = outputs(path, points), bl.evaluate(model, points)
    wanted = wanted.reshape(found.shape).to(found)
    connection.send(("difference", float((found - wanted).abs().max() / (1 + wanted.abs().max()))))
    for name, method in METHODS.items():
        for share in SHARES:
            result = attempt(model, asked, share, method, path)
            connection.send((name if share == 1 else f"{name}, {share:g}", result))
            if result == "finite":
                break


def attempt(model, asked, share: float, method: bl.Method, path: Path) -> str:
    """As `bounded`, with a word for what does not fit into the memory that a network may have."""
    try:
        return bounded(model, asked, share, method, path)
    except (RuntimeError, MemoryError) as problem:
        if isinstance(problem, MemoryError) or "allocate" in str(problem):
            return "over the limit"
        raise


def examine(name: str, path: Path, vnnlib: Path) -> Row:
    """One network in a process of its own."""
    context, row = multiprocessing.get_context("spawn"), Row(name)
    here, there = context.Pipe()
    process = context.Process(target=work, args=(there, path, vnnlib), daemon=True)
    process.start()
    there.close()
    try:
        while here.poll(LIMIT):
            step, result = here.recv()
            if step == "difference":
                row.difference = result
            else:
                row.found[step] = result
        row.problem = "over the limit"
    except EOFError:
        process.join()
        row.problem = f"ended with {process.exitcode}" if process.exitcode else ""
    process.kill()
    process.join()
    return row


def count(rows: list[Row]) -> list[str]:
    """The cells of a family: files, agreeing, and for each method finite on the box, on a smaller one, over the limit."""
    cells = [str(len(rows)), str(sum(row.difference is not None and row.difference < 1e-4 for row in rows))]
    for name in METHODS:
        whole = sum(row.found.get(name) == "finite" for row in rows)
        small = sum(row.found.get(f"{name}, {SHARES[1]:g}") == "finite" for row in rows)
        cells += [str(whole) + (f" + {small}" if small else "")]
    return cells


def say(capfd: pytest.CaptureFixture[str], text: str) -> None:
    """A line on the real standard output, at once."""
    with capfd.disabled():
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def test_every_network_is_bounded_or_says_why_not(capfd):
    folder = os.environ.get("BOUNDLAB_DATA")
    if not folder:
        pytest.skip("BOUNDLAB_DATA is not set; it names the folder that holds vnncomp/instances.csv")
    families: dict[str, list[Row]] = defaultdict(list)
    for name, (path, vnnlib) in sorted(networks(Path(folder, "vnncomp")).items()):
        start = time.perf_counter()
        row = examine(name, path, vnnlib)
        families[name.split("/")[0]].append(row)
        said = "; ".join(f"{step}: {result}" for step, result in row.found.items())
        agrees = "-" if row.difference is None else f"{row.difference:.0e}"
        say(capfd, f"{name} ({time.perf_counter() - start:.0f} s, {agrees}) {said} {row.problem}".rstrip())
    table = [(family, *count(rows)) for family, rows in families.items()]
    table.append(("all", *count([row for rows in families.values() for row in rows])))
    say(capfd, "\n".join(["| family | files | agree | " + " | ".join(METHODS) + " |", "|" + "---|" * (3 + len(METHODS)),
                          *("| " + " | ".join(line) + " |" for line in table)]))
    everything = [row for rows in families.values() for row in rows]
    assert not [row for row in everything if row.difference is None or row.difference >= 1e-4]
    assert not [row for row in everything if row.problem not in ("", "over the limit")]
    for name in ("IBP", "CROWN-IBP"):  # CROWN may take longer than the limit
        unbounded = [row for row in everything if row.found.get(name) != "finite"]
        assert {row.name.split("/")[0] for row in unbounded} <= {DIVIDES}, f"{name} gives no finite bounds on the whole box"
        assert all(row.found.get(f"{name}, {SHARES[1]:g}") == "finite" for row in unbounded), name


