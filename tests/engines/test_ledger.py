"""Laws of a ledger: nothing finished is computed twice, whatever dies, and a damaged file gives no wrong number."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from boundlab import Recorded, Serial
from boundlab.engines.engine import results
from boundlab.engines.ledger import key_of
from boundlab.errors import EngineError, TaskError
from tests.engines import jobs

ROOT = Path(__file__).parents[2]


def marked(folder: Path, count: int, seconds: float = 0.0) -> list[dict[str, np.ndarray]]:
    """Tasks that leave a file in `folder` each time that they are computed."""
    folder.mkdir(exist_ok=True)
    return [{"folder": np.array(str(folder)), "place": np.array(place), "seconds": np.array(seconds)} for place in range(count)]


def computed(folder: Path) -> list[int]:
    """The places that have been computed, once for each time."""
    return sorted(int(path.name.split("-")[0]) for path in folder.iterdir())


@pytest.fixture
def ledger(tmp_path):
    """A closed ledger with the results of six tasks."""
    path = tmp_path / "ledger"
    results(Recorded(Serial(), path), jobs.mark, marked(tmp_path / "marks", 6))
    return path


def test_what_is_recorded_comes_first_and_is_not_computed_again(tmp_path, ledger):
    tasks = marked(tmp_path / "marks", 9)
    found = list(Recorded(Serial(), ledger).stream(jobs.mark, [*tasks[6:], *tasks[:6]]))
    assert [place for place, _ in found] == [3, 4, 5, 6, 7, 8, 0, 1, 2]
    assert [int(result["place"]) for _, result in found] == [0, 10, 20, 30, 40, 50, 60, 70, 80]
    assert computed(tmp_path / "marks") == list(range(9))


def test_each_result_is_recorded_before_it_is_seen(tmp_path):
    tasks = marked(tmp_path / "marks", 6)
    stream = Recorded(Serial(), tmp_path / "ledger").stream(jobs.mark, tasks)
    next(stream), next(stream)
    stream.close()
    assert len(results(Recorded(Serial(), tmp_path / "ledger"), jobs.mark, tasks)) == 6
    assert computed(tmp_path / "marks") == list(range(6))


def test_what_was_done_before_a_failure_is_kept_and_the_task_has_its_own_place(tmp_path):
    tasks = [{"x": np.array(float(x))} for x in (5, 4, 3, 2)]
    recorded = Recorded(Serial(), tmp_path / "ledger")
    results(recorded, jobs.refuse_three, tasks[:1])
    with pytest.raises(TaskError, match="task 2: ") as caught:
        results(recorded, jobs.refuse_three, tasks)
    assert caught.value.place == 2
    assert [place for place, _ in recorded.stream(jobs.refuse_three, tasks[:2])] == [0, 1]


def test_equal_tasks_are_computed_once(tmp_path):
    tasks = marked(tmp_path / "marks", 2) * 3
    found = results(Recorded(Serial(), tmp_path / "ledger"), jobs.mark, tasks)
    assert [int(result["place"]) for result in found] == [0, 10] * 3 and computed(tmp_path / "marks") == [0, 1]
    found[0]["place"] += 1
    assert int(found[2]["place"]) == 0


def test_another_function_or_version_finds_nothing(tmp_path):
    tasks, path = [{"x": np.array(2.0)}], tmp_path / "ledger"
    assert float(results(Recorded(Serial(), path), jobs.square, tasks)[0]["square"]) == 4
    assert float(results(Recorded(Serial(), path), jobs.cube, tasks)[0]["square"]) == 8
    marks = marked(tmp_path / "marks", 1)
    for version in ("", "2", "2", ""):
        results(Recorded(Serial(), path, version=version), jobs.mark, marks)
    assert computed(tmp_path / "marks") == [0, 0]


def test_a_key_tells_apart_whatever_determines_a_result():
    x = np.arange(4.0)
    different = [{"x": x}, {"y": x}, {"x": x.reshape(2, 2)}, {"x": x.astype(np.float32)}, {"x": x.view(np.int64)},
                 {"x": x.astype(">f8")}, {"x": -x}, {"x": x * -0.0}, {"x": x * 0.0}, {"x": x, "y": x},
                 {"x": x[:3]}, {}]
    keys = [key_of("m:f", "", task) for task in different] + [key_of("m:g", "", {"x": x}), key_of("m:f", "1", {"x": x})]
    assert len(set(keys)) == len(keys)
    assert key_of("m:f", "", {"x": x, "y": x}) == key_of("m:f", "", {"y": x, "x": np.repeat(x, 2)[::2]})
    assert key_of("m:f", "", {"x": x.reshape(2, 2)}) == key_of("m:f", "", {"x": np.asfortranarray(x.reshape(2, 2))})


def test_a_function_of_the_script_itself_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs.echo, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "echo", jobs.echo, raising=False)
    assert len(results(Serial(), jobs.echo, [{}])) == 1
    with pytest.raises(EngineError, match="write the function in a module of its own"):
        Recorded(Serial(), tmp_path / "ledger").stream(jobs.echo, [{}])


DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from boundlab import Pool, Ray, Recorded
from tests.engines import jobs, test_ledger
if __name__ == "__main__":
    folder = Path(sys.argv[2])
    tasks = test_ledger.marked(folder / "marks", 24, seconds=0.15)
    for place, _ in Recorded(ENGINE, folder / "ledger").stream(jobs.mark, tasks):
        print(place, flush=True)
"""


DEATHS = [pytest.param(engine, kind, wait, marks=pytest.mark.slow)
          for engine, wait in (("Pool(workers=2)", 4), ("Ray(workers=2)", 14)) for kind in (signal.SIGKILL, signal.SIGINT)]


@pytest.mark.parametrize("engine, kind, in_flight", DEATHS)
def test_a_killed_driver_loses_nothing_and_leaves_no_process(tmp_path, engine, kind, in_flight):
    if engine.startswith("Ray"):
        pytest.importorskip("ray", reason="ray is not installed: pip install 'boundlab[ray]'")
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.replace("ENGINE", engine))
    with subprocess.Popen([sys.executable, script, ROOT, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, start_new_session=True) as driver:
        reported = [int(driver.stdout.readline()) for _ in range(5)]
        family = psutil.Process(driver.pid).children(recursive=True)
        if kind == signal.SIGINT:
            os.killpg(driver.pid, kind)  # as Ctrl-C in a terminal
        else:
            driver.kill()
        output, complaint = driver.communicate(timeout=60)
        reported += [int(line) for line in output.split()]
    assert kind == signal.SIGKILL or complaint.count("Traceback") == 1, complaint  # the driver's own
    # Ray's own agents, which run no tasks, take about half a minute to notice.
    assert len(family) >= 2 and not psutil.wait_procs(family, timeout=120)[1], "processes go on without their driver"
    before = computed(tmp_path / "marks")
    assert len(set(before)) == len(before) < 24
    found = results(Recorded(Serial(), tmp_path / "ledger"), jobs.mark, marked(tmp_path / "marks", 24, seconds=0.15))
    assert [int(result["place"]) for result in found] == [10 * place for place in range(24)]
    times = {place: computed(tmp_path / "marks").count(place) for place in range(24)}
    assert all(times[place] == 1 for place in reported) and all(1 <= count <= 2 for count in times.values())
    assert sum(times.values()) <= 24 + in_flight, "only what was being computed or sent is computed again"


def write_garbage(path):
    path.write_bytes(b"not a ledger, but words that someone wants to keep" * 100)


def write_text(path):
    path.write_text("short")


def write_foreign(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE songs (name TEXT)")


def write_future(path):
    results(Recorded(Serial(), path), jobs.echo, [{}])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize("write", [write_garbage, write_text, write_foreign, write_future])
def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path, write):
    path = tmp_path / "file"
    write(path)
    before = path.read_bytes()
    with pytest.raises(EngineError, match="ledger") as caught:
        results(Recorded(Serial(), path), jobs.echo, [{"x": np.zeros(2)}])
    assert "\n" not in str(caught.value) and path.read_bytes() == before


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(EngineError, match="its folder is missing"):
        results(Recorded(Serial(), tmp_path / "no" / "ledger"), jobs.echo, [{}])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Tasks, their results, and the bytes of a ledger of some pages that holds them."""
    path = tmp_path_factory.mktemp("whole") / "ledger"
    tasks = [{"x": np.random.default_rng(place).normal(size=150)} for place in range(40)]
    return tasks, results(Recorded(Serial(), path), jobs.square, tasks), path.read_bytes()


def never_a_wrong_number(path, whole):
    """Opens a damaged ledger: an error of one sentence, or the right results; True if it was an error."""
    tasks, right, _ = whole
    try:
        found = results(Recorded(Serial(), path), jobs.square, tasks)
    except EngineError as problem:
        assert str(path) in str(problem) and "\n" not in str(problem)
        return True
    for one, two in zip(right, found, strict=True):
        assert one["square"].tobytes() == two["square"].tobytes() and one["sum"] == two["sum"]
    return False


def test_a_truncated_ledger_is_an_error(tmp_path, whole):
    sizes = np.linspace(100, len(whole[2]) - 1, 25).astype(int)
    for size in sizes:
        path = tmp_path / f"cut-{size}"
        path.write_bytes(whole[2][:size])
        assert never_a_wrong_number(path, whole)


def test_a_ledger_with_changed_bytes_gives_no_wrong_number(tmp_path, whole):
    generator = np.random.default_rng(0)
    errors = 0
    for trial in range(60):
        damaged = bytearray(whole[2])
        start = int(generator.integers(len(damaged) - 16))
        damaged[start:start + 16] = generator.bytes(16)
        path = tmp_path / f"damaged-{trial}"
        path.write_bytes(damaged)
        errors += never_a_wrong_number(path, whole)
    assert errors > 20, "most of the file is results, and damage to them is noticed"


@pytest.mark.slow
def test_two_processes_share_a_ledger(tmp_path):
    code = ("import sys; from pathlib import Path; from boundlab import Recorded, Serial; "
            "from tests.engines import jobs, test_ledger; "
            "tasks = test_ledger.marked(Path(sys.argv[1]) / 'marks', 200, 0.002)[::int(sys.argv[2])]; "
            "print(len(list(Recorded(Serial(), Path(sys.argv[1]) / 'ledger').stream(jobs.mark, tasks))))")
    drivers = [subprocess.Popen([sys.executable, "-c", code, tmp_path, step], cwd=ROOT, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE) for step in ("1", "-1")]
    for driver in drivers:
        output, complaint = driver.communicate(timeout=120)
        assert output.strip() == "200", complaint
    done = len(computed(tmp_path / "marks"))
    assert done >= 200
    assert len(results(Recorded(Serial(), tmp_path / "ledger"), jobs.mark, marked(tmp_path / "marks", 200, 0.002))) == 200
    assert len(computed(tmp_path / "marks")) == done
