"""Linear programs by every engine: the same bounds bit for bit, whatever dies, and nothing computed twice."""

from __future__ import annotations

import itertools
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.engines.engine import Engine, Serial

ROOT = Path(__file__).parents[2]
SEARCHED = os.pathsep.join([str(ROOT), *sys.path])
"""So that a script, and the workers of its engine, find this module."""
GREEDY = bl.CROWN(alpha=bl.parallel)
TINY, SMALL = (4, 8, 8, 3), (10, 48, 48, 48, 3)


def bounds(engine: Engine, sizes: tuple[int, ...] = TINY, batch: int = 2, method: type[bl.LP | bl.MILP] = bl.LP) -> bl.Bounds:
    """Bounds of a network with these layers; the same whenever it is asked, in any process."""
    torch.manual_seed(0)
    parts = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    module, x = nn.Sequential(*parts[:-1]).double(), torch.randn(batch, sizes[0], dtype=torch.float64)
    spec = bl.margins(torch.arange(batch) % 3, 3, torch.float64)
    model = bl.capture(module, x).detached()
    return bl.bound(model, bl.LpBall(x, 0.3), method=method(GREEDY, engine=engine), spec=spec)


def same(one: bl.Bounds, two: bl.Bounds) -> bool:
    """Equal to the last bit, inner neurons too."""
    assert one.intermediate.keys() == two.intermediate.keys()
    inner = all(torch.equal(one.intermediate[name].lower, two.intermediate[name].lower)
                and torch.equal(one.intermediate[name].upper, two.intermediate[name].upper) for name in one.intermediate)
    return inner and torch.equal(one.lower, two.lower)


@dataclass
class Watched:
    """An engine that counts the results of another one, and does something after the first."""

    engine: Engine
    after: Callable[[], None] | None = None
    count: int = 0

    def stream(self, function, tasks):
        for place, result in self.engine.stream(function, tasks):
            self.count += 1
            yield place, result
            if self.count == 1 and self.after is not None:
                self.after()


@pytest.mark.slow
@pytest.mark.parametrize("method", [bl.LP, bl.MILP])
def test_a_pool_gives_the_same_bounds_as_this_process(crew, method):
    alone = Watched(Serial())
    assert same(bounds(alone, method=method), bounds(crew, method=method)) and alone.count >= 2


def test_a_ledger_answers_without_computing(tmp_path):
    first, again = Watched(Serial()), Watched(Serial())
    one = bounds(bl.Recorded(first, tmp_path / "ledger"))
    two = bounds(bl.Recorded(again, tmp_path / "ledger"))
    assert first.count > 2 and again.count == 0 and same(one, two)


@pytest.mark.slow
def test_ray_gives_the_same_bounds_as_this_process(ray_engine):
    assert same(bounds(Serial()), bounds(ray_engine))


def kill_one(workers: list[psutil.Process]) -> None:
    """The death of a process that computes."""
    assert workers
    workers[0].kill()


@pytest.mark.slow
def test_a_killed_process_of_a_pool_changes_nothing():
    alone, others = Watched(Serial()), set(psutil.Process().children())

    def kill() -> None:
        fresh = [child for child in psutil.Process().children() if child not in others]
        kill_one([child for child in fresh if any("spawn_main" in word for word in child.cmdline())])

    with bl.Pool(workers=2).open() as engine:
        watched = Watched(engine, kill)
        assert same(bounds(alone, SMALL, 4), bounds(watched, SMALL, 4)) and watched.count == alone.count


@pytest.mark.slow
def test_a_killed_worker_of_ray_changes_nothing(ray_engine):
    alone = Watched(Serial())

    def kill() -> None:
        kill_one([child for child in psutil.Process().children(recursive=True) if child.cmdline()[:1] == ["ray::answers"]])

    watched = Watched(ray_engine, kill)
    assert same(bounds(alone, SMALL, 4), bounds(watched, SMALL, 4)) and watched.count == alone.count


DRIVER = """
import sys
import boundlab as bl
from tests.programs import test_engines
if __name__ == "__main__":
    test_engines.bounds(bl.Recorded(ENGINE, sys.argv[1]), test_engines.SMALL, 4)
"""


def kept(ledger: Path) -> int:
    """How many results a ledger holds."""
    if not ledger.exists():
        return 0
    with closing(sqlite3.connect(ledger, timeout=10)) as connection:
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return 0
        return int(connection.execute("SELECT count(*) FROM results").fetchone()[0])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["bl.Pool(workers=2)", "bl.Ray(workers=2)"])
def test_a_killed_run_goes_on_where_it_was(engine, tmp_path):
    if "Ray" in engine:
        pytest.importorskip("ray", reason="ray is not installed: pip install 'boundlab[ray]'")
    script, ledger, alone = tmp_path / "driver.py", tmp_path / "ledger", Watched(Serial())
    script.write_text(DRIVER.replace("ENGINE", engine))
    whole = bounds(alone, SMALL, 4)
    with subprocess.Popen([sys.executable, script, ledger], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, env={**os.environ, "PYTHONPATH": SEARCHED}, start_new_session=True) as driver:
        until = time.monotonic() + 120
        while kept(ledger) < 3 and driver.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        driver.kill()
        _, complaint = driver.communicate(timeout=60)
    done = kept(ledger)
    assert 3 <= done < alone.count, complaint
    rest = Watched(Serial())
    assert same(whole, bounds(bl.Recorded(rest, ledger), SMALL, 4))
    assert rest.count == alone.count - done
