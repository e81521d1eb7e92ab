"""Laws of all engines: the same results in the same order, whatever dies, and errors that name the task."""

from __future__ import annotations

import functools
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import pytest

from boundlab import Pool, Recorded, Serial
from boundlab.engines import pool, shared
from boundlab.engines.engine import results
from boundlab.engines.ledger import key_of
from boundlab.engines.shared import LARGE, digest_of, shared_of
from boundlab.engines.waiting import Waiting
from boundlab.errors import EngineError, TaskError
from tests.engines import jobs


def numbers(count: int) -> list[dict[str, np.ndarray]]:
    return [{"x": np.array(float(place))} for place in range(count)]


def odd_arrays() -> list[dict[str, np.ndarray]]:
    """Arrays that a careless copy would change."""
    generator = np.random.default_rng(0)
    payload = np.array([0x7FF8000000000123, 0xFFF0000000000001], np.uint64).view(np.float64)
    record = np.zeros(3, dtype=[("a", "<i4"), ("b", ">f8", (2,))])
    return [{"x": np.array([np.nan, -np.nan, np.inf, -0.0, 5e-324])}, {"payload": payload}, {}, {"": np.zeros((0, 3), np.int8)},
            {"fortran": np.asfortranarray(generator.normal(size=(3, 4))), "strided": generator.normal(size=(9, 6))[::-2, ::3]},
            {"file": np.array("Zürich"), "names": np.array([True]), "a/b": np.array(1 + 2j), ".npy\0": np.array(1.5, ">f4"),
             "0": record}]


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    """The same names in the same order, types, shapes and bits."""
    return list(first) == list(second) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(first.values(), second.values(), strict=True))


@pytest.fixture(params=["serial", "recorded", *(pytest.param(name, marks=pytest.mark.slow) for name in ("crew", "ray_engine"))])
def engine(request, tmp_path):
    if request.param in ("crew", "ray_engine"):
        return request.getfixturevalue(request.param)
    return Serial() if request.param == "serial" else Recorded(Serial(), tmp_path / "ledger")


def test_results_come_in_the_order_of_the_tasks(engine):
    tasks = [{"x": np.random.default_rng(place).normal(size=place)} for place in range(25)]
    for task, result in zip(tasks, results(engine, jobs.square, tasks), strict=True):
        assert same(result, {"square": task["x"] ** 2, "sum": np.array(task["x"].sum())})


def test_stream_yields_every_place_once(engine):
    places = [place for place, _ in engine.stream(jobs.square, numbers(40))]
    assert sorted(places) == list(range(40))


def test_arrays_keep_every_bit(engine):
    for _ in range(2):  # the second time from the ledger
        for task, result in zip(odd_arrays(), results(engine, jobs.echo, odd_arrays()), strict=True):
            assert same(task, result)
            assert all(array.flags.writeable for array in result.values())


class Fresh(Sequence):
    """Tasks whose arrays are made anew whenever they are asked for, so that two of them may have the same `id`, one after the
    other."""

    def __len__(self):
        return 12

    def __getitem__(self, place):
        if place >= len(self):
            raise IndexError
        return {"x": np.full(LARGE, place)}


def test_tasks_share_large_arrays_only_where_they_are_the_same(engine):
    one, other = np.arange(LARGE), np.arange(LARGE)[::-1]
    tasks = [{"network": (one, other, one.copy())[place % 3], "x": np.array(place)} for place in range(9)]
    for _ in range(2):
        for task, result in zip(tasks, results(engine, jobs.echo, tasks), strict=True):
            assert same(task, result)
    for place, result in enumerate(results(engine, jobs.echo, Fresh())):
        assert result["x"].tolist() == [place] * LARGE


def test_a_shared_array_is_hashed_once_and_equal_ones_have_one_key(monkeypatch):
    network, hashed = np.arange(LARGE), []
    monkeypatch.setattr(shared, "digest_of", lambda array: hashed.append(array) or digest_of(array))
    tasks = [{"network": network, "x": np.array(place)} for place in range(9)]
    found = shared_of(tasks)
    keys = [key_of("f", "", task, found) for task in tasks]
    assert len(hashed) == 1 and len(set(keys)) == 9
    assert keys == [key_of("f", "", {**task, "network": network.copy()}) for task in tasks]
    assert key_of("f", "", {"network": network.reshape(2, -1), "x": np.array(0)}) != keys[0]
    assert key_of("f", "", {"network": network + 1, "x": np.array(0)}) != keys[0]


@pytest.mark.slow
def test_a_worker_gets_a_shared_array_once(crew, monkeypatch):
    sizes, send = [], pool.send
    monkeypatch.setattr(pool, "send", lambda pipe, message: sizes.append(len(pickle.dumps(message))) or send(pipe, message))
    network = np.arange(10 * LARGE)
    for _ in range(3):
        found = results(crew, jobs.ids, [{"network": network, "x": np.array(place)} for place in range(40)])
    assert sum(sizes) < 2.5 * network.nbytes and len(found) == 40
    results(crew, jobs.ids, numbers(40))  # it is let go of
    sizes.clear()
    results(crew, jobs.ids, [{"network": network, "x": np.array(place)} for place in range(40)])
    assert sum(sizes) > network.nbytes


def test_no_tasks_no_results(engine):
    assert results(engine, jobs.square, []) == []


def test_a_function_that_raises_is_named_with_its_task(engine):
    tasks = numbers(6)
    with pytest.raises(TaskError) as caught:
        results(engine, jobs.refuse_three, tasks)
    words = (r"task 3: tests\.engines\.jobs:refuse_three raised ValueError \(three is not a number that I like\) at "
             r".*jobs\.py:\d+; correct the function or this task, the other tasks are not to blame\.")
    assert re.fullmatch(words, str(caught.value))
    assert caught.value.place == 3
    notes = [*caught.value.__notes__] if caught.value.__cause__ is None else caught.value.__cause__.__notes__
    assert "raise ValueError" in notes[0]


def test_an_argument_cannot_be_written(engine):
    task = {"x": np.zeros(2)}
    with pytest.raises(TaskError, match=r"task 0: .*read-only"):
        results(engine, jobs.write_argument, [task])
    assert (task["x"] == 0).all() and task["x"].flags.writeable


@pytest.mark.parametrize("function, words", [(jobs.give_list, "it is a list"), (jobs.give_object, "'y' holds Python objects")])
def test_results_must_be_arrays(engine, function, words):
    with pytest.raises(TaskError, match=f"task 0: .*must return .*{words}"):
        results(engine, function, numbers(1))


def test_functions_without_a_name_of_their_own_are_refused(engine):
    def inner(task):
        return dict(task)

    for function in (lambda task: dict(task), inner, functools.partial(jobs.square), jobs.Place(), jobs.Place().__call__):
        with pytest.raises(EngineError, match="an engine runs a function"):
            engine.stream(function, numbers(1))


def test_a_function_of_a_class_has_a_name(engine):
    assert same(results(engine, jobs.Place.double, numbers(2))[1], {"double": np.array(2.0)})


@pytest.mark.parametrize("task, words", [
    ([np.zeros(1)], "it is a list"), ({1: np.zeros(1)}, "the name 1"), ({"x": 1.0}, "'x' is a float"),
    ({"x": np.array([None])}, "'x' holds Python objects"), ({"x": np.ma.array([1.0])}, "'x' is a MaskedArray")])
def test_tasks_must_be_arrays(engine, task, words):
    with pytest.raises(TaskError, match=f"^task 1: .*{words}"):
        engine.stream(jobs.echo, [*numbers(1), task])


def test_a_task_whose_worker_dies_is_tried_again(crew, tmp_path):
    tasks = [{"folder": np.array(str(tmp_path)), "place": np.array(place), "dies": np.array(place == 7)} for place in range(30)]
    found = results(crew, jobs.die_once, tasks)
    assert [int(result["place"]) for result in found] == [10 * place for place in range(30)]
    assert [path.name for path in tmp_path.iterdir()] == ["died-7"]


@pytest.mark.slow
def test_a_task_that_kills_every_worker_is_named():
    with Pool(workers=1, retries=0).open() as engine:
        before = results(engine, jobs.ids, numbers(2))
        with pytest.raises(TaskError, match="task 3: worker processes died 1 times"):
            results(engine, jobs.die, numbers(8))
        assert not engine.idle and not any(alive(int(result["process"])) for result in before)


def test_a_worker_has_one_thread_and_starts_without_torchs_compiler(crew):
    (result,) = results(crew, jobs.has_compiler, numbers(1))
    assert result["threads"] == 1 and not result["loaded"], "the compiler takes a third of the time to start"


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_script_without_its_guard_is_told_so(tmp_path):
    (tmp_path / "script.py").write_text(
        "import numpy as np\nfrom boundlab import Pool\nfrom boundlab.engines.engine import results\n"
        "def same(task):\n    return dict(task)\n"
        "results(Pool(workers=1, retries=0), same, [{'x': np.zeros(1)}])\n")
    ran = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    last = ran.stderr.strip().splitlines()[-1]
    assert ran.returncode == 1 and last.startswith("boundlab.errors.EngineError: 1 worker processes ended while starting")
    assert "`if __name__ ==" in last


@pytest.mark.slow
def test_a_worker_that_died_while_idle_is_nobodys_fault():
    with Pool(workers=1, retries=0).open() as engine:
        (result,) = results(engine, jobs.ids, numbers(1))
        os.kill(int(result["process"]), signal.SIGKILL)
        engine.idle[0].child.process.join()
        assert len(results(engine, jobs.echo, numbers(3))) == 3


@pytest.mark.slow
def test_two_streams_of_one_crew_do_not_mix(crew):
    first, second = crew.stream(jobs.square, numbers(9)), crew.stream(jobs.cube, numbers(9))
    pairs = [(next(first), next(second)) for _ in range(9)]
    assert all(float(one[1]["square"]) == one[0] ** 2 and float(two[1]["square"]) == two[0] ** 3 for one, two in pairs)
    first.close()
    second.close()
    assert len(crew.idle) <= crew.workers


@pytest.mark.parametrize("numbers", [{"workers": 0}, {"retries": -1}])
def test_numbers_that_make_no_pool(numbers):
    with pytest.raises(EngineError, match="at least one worker"):
        Pool(**numbers)


def test_batches_grow_to_what_a_message_is_worth_and_shrink_at_the_end():
    waiting = Waiting(numbers(1000), workers=2, seconds=1.0)
    sizes = [len(waiting.take())]
    waiting.learn(0.01)
    while waiting:
        sizes.append(len(waiting.take()))
    assert sizes[:3] == [1, 100, 100] and sum(sizes) == 1000
    assert sizes[1:] == sorted(sizes[1:], reverse=True) and sizes[-1] == 1


def test_batches_are_bounded_in_bytes_and_failures_go_alone():
    waiting = Waiting([{"x": np.zeros(4_000_000)} for _ in range(40)], workers=1, seconds=1.0)
    waiting.learn(1e-6)
    assert waiting.take() == [0, 1]
    waiting.put_back([0, 1])
    assert [waiting.take(), waiting.take(), waiting.take()] == [[0], [1], [2, 3]]


@pytest.mark.slow
def test_processes_stay_with_an_open_pool_and_end_with_a_closed_stream(crew):
    first, second = ({int(result["process"]) for result in results(crew, jobs.ids, numbers(30))} for _ in range(2))
    assert first & second and len(first | second) <= 2
    stream = crew.stream(jobs.slow, numbers(8))
    _, result = next(stream)
    assert all(alive(process) for process in first)
    stream.close()
    assert not alive(int(result["process"])), "it was busy with the next task"


@pytest.mark.slow
def test_two_workers_take_little_more_than_half_the_time():
    """0.6 of one worker's, where two processes without an engine take half; more where the machine has less to give."""
    tasks = [{"seconds": np.array(0.3)}] * 24
    with Pool(workers=1).open() as one, Pool(workers=2).open() as two:
        for engine in (one, two):
            results(engine, jobs.square, numbers(8))
        ratios = [(spent(two, tasks) / spent(one, tasks), counted(2) / counted(1)) for _ in range(3)]
    assert any(pool <= 0.6 * max(1.0, bare / 0.5) for pool, bare in ratios), ratios


def counted(at_once):
    """Seconds until two processes have used 3 seconds of a core each, one or two of them at once."""
    code = "import time\nwhile time.process_time() < 3: sum(range(1000))"
    began = time.monotonic()
    for _ in range(2 // at_once):
        for process in [subprocess.Popen([sys.executable, "-S", "-c", code]) for _ in range(at_once)]:
            process.wait()
    return time.monotonic() - began


def spent(engine, tasks):
    began = time.monotonic()
    results(engine, jobs.work, tasks)
    return time.monotonic() - began


