"""What is special about Ray: it starts and ends with its stream, or joins what is there. (Common laws: test_engines.py.)"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from boundlab import Ray
from boundlab.engines.engine import results
from boundlab.errors import EngineError, MissingPackage, TaskError
from tests.engines import jobs
from tests.engines.test_engines import numbers, odd_arrays, same

ROOT = Path(__file__).parents[2]


def test_without_ray_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match=r"pip install 'boundlab\[ray\]'"):
        Ray().stream(jobs.echo, numbers(1))


def test_functions_of_the_script_are_refused(monkeypatch):
    monkeypatch.setattr(jobs.echo, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "echo", jobs.echo, raising=False)
    with pytest.raises(EngineError, match="write the function in a module of its own"):
        Ray().stream(jobs.echo, numbers(1))


@pytest.mark.slow
def test_ray_agrees_with_the_others_whatever_dies_and_ends(ray, tmp_path):
    """One test, because Ray takes seconds to start."""
    tasks = [{"folder": np.array(str(tmp_path)), "place": np.array(place), "dies": np.array(place == 7)} for place in range(30)]
    with Ray(workers=2).open() as engine:
        for task, result in zip(odd_arrays(), results(engine, jobs.echo, odd_arrays()), strict=True):
            assert same(task, result) and all(array.flags.writeable for array in result.values())
        assert [int(result["place"]) for result in results(engine, jobs.die_once, tasks)] == [10 * place for place in range(30)]
        assert [path.name for path in tmp_path.iterdir()] == ["died-7"]
        with pytest.raises(TaskError, match=r"task 3: .* raised ValueError"):
            results(engine, jobs.refuse_three, numbers(5))
        assert ray.is_initialized()
    assert not ray.is_initialized()


@pytest.fixture
def own_ray(ray):
    """A Ray for one test; a shared one would be what the other tests connect to."""
    with Ray(workers=2).open() as engine:
        yield engine


@pytest.mark.slow
def test_a_task_that_kills_every_worker_is_named(own_ray):
    with pytest.raises(TaskError, match="task 3: Ray gave it up after 1 retries"):
        results(Ray(retries=1), jobs.die, numbers(40))
    assert len(results(own_ray, jobs.echo, numbers(3))) == 3


@pytest.mark.slow
def test_a_closed_stream_cancels_what_runs(own_ray, tmp_path):
    tasks = [{"folder": np.array(str(tmp_path)), "place": np.array(place), "seconds": np.array(0.2)} for place in range(60)]
    stream = own_ray.stream(jobs.mark, tasks)
    next(stream)
    stream.close()
    assert len(results(own_ray, jobs.echo, numbers(4))) == 4
    assert len(list(tmp_path.iterdir())) < 20


@dataclass(frozen=True)
class Cluster:
    """A cluster on this machine, whose nodes and drivers are processes with a secret in common, as on several machines."""

    address: str
    environment: dict[str, str]

    def node(self, *options: str) -> subprocess.Popen:
        command = [Path(sys.executable).with_name("ray"), "start", "--block", "--num-cpus=1", "--disable-usage-stats", *options]
        node = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert any("Ray runtime started" in line for line in node.stdout)
        return node

    def driver(self, folder: Path, **changed: str) -> subprocess.Popen:
        """A script that runs 40 tasks and prints the place of each as its result comes."""
        command = [sys.executable, "-c", DRIVER, self.address, folder]
        return subprocess.Popen(command, cwd=ROOT, env={**self.environment, **changed}, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)


DRIVER = """
import sys
from pathlib import Path
from boundlab import Ray
from tests.engines import jobs
from tests.engines.test_ledger import marked
for place, result in Ray(address=sys.argv[1]).stream(jobs.mark, marked(Path(sys.argv[2]), 40, seconds=0.3)):
    assert result["place"] == 10 * place
    print(f"[{place}]", flush=True)
"""


def kill(node):
    """The end of a machine: all its processes at once."""
    for process in [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    node.communicate()


@pytest.fixture
def cluster(ray):
    """A cluster with one node of one CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster = Cluster(f"127.0.0.1:{port}", dict(os.environ))
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # in its default folder Ray would leave word of this cluster
        node = cluster.node("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}")
        yield cluster
        kill(node)


def whole(output: str) -> list[int]:
    """The places that a driver has printed; a busy Ray prints warnings of its own in between, even within lines."""
    return [int(place) for place in re.findall(r"\[(\d+)\]", output)]


@pytest.mark.slow
def test_a_cluster_is_joined_and_left_running(cluster, tmp_path):
    for _ in range(2):
        output, complaint = cluster.driver(tmp_path).communicate(timeout=180)
        assert sorted(whole(output)) == list(range(40)), complaint
    output, complaint = cluster.driver(tmp_path, RAY_AUTH_TOKEN=secrets.token_hex(32)).communicate(timeout=180)
    last = complaint.strip().splitlines()[-1]
    assert not whole(output) and last.startswith("boundlab.errors.EngineError: no Ray cluster answers at"), complaint


@pytest.mark.slow
def test_a_machine_of_the_cluster_dies(cluster, tmp_path):
    other = cluster.node(f"--address={cluster.address}")
    driver = cluster.driver(tmp_path)
    places: list[int] = []
    while len(places) < 12 and driver.poll() is None:
        places += whole(driver.stdout.readline())
    assert len({path.name.split("-")[2] for path in tmp_path.iterdir()}) >= 2, "both machines work"
    kill(other)
    places += whole(driver.stdout.read())  # `communicate` would lose what `readline` has read ahead
    _, complaint = driver.communicate(timeout=180)
    assert sorted(places) == list(range(40)), complaint


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_no_cluster_at_the_address(ray, address):
    with pytest.raises(EngineError, match=f"no Ray cluster answers at '{address}'"):
        results(Ray(address=address), jobs.echo, numbers(1))
