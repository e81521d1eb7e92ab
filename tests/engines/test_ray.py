"""What is special about Ray: it starts and ends with its stream, or joins what is there. (Common laws: test_engines.py.)"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from boundlab import Ray
from boundlab.engines.engine import results
from boundlab.errors import EngineError, MissingPackage, TaskError
from tests.engines import jobs
from tests.engines.test_engines import numbers, odd_arrays, same


def test_without_ray_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match=r"pip install 'boundlab\[ray\]'"):
        Ray().stream(jobs.echo, numbers(1))


def test_functions_of_the_script_are_refused(monkeypatch):
    monkeypatch.setattr(jobs.echo, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "echo", jobs.echo, raising=False)
    with pytest.raises(EngineError, match="write the function in a module of its own"):
        Ray().stream(jobs.echo, numbers(1))


def test_ray_agrees_with_the_others_whatever_dies_and_ends(tmp_path):
    """One test, because Ray takes seconds to start."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'boundlab[ray]'")
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
def own_ray():
    """A Ray for one test; a shared one would be what the tests below connect to."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'boundlab[ray]'")
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


@pytest.mark.slow
def test_a_cluster_is_joined_and_left_running():
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'boundlab[ray]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--num-cpus=2", f"--port={port}",
               "--include-dashboard=false", "--disable-usage-stats"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as head:
        try:
            assert any("Ray runtime started" in line for line in head.stdout)
            for _ in range(2):
                found = results(Ray(address=f"127.0.0.1:{port}"), jobs.echo, numbers(9))
                assert [float(result["x"]) for result in found] == list(range(9))
                assert not ray.is_initialized()
        finally:
            head.terminate()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_no_cluster_at_the_address(address):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'boundlab[ray]'")
    with pytest.raises(EngineError, match=f"no Ray cluster answers at '{address}'"):
        results(Ray(address=address), jobs.echo, numbers(1))
