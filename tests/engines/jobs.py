"""Functions that the tests give to engines; workers import them from here."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np


def square(task):
    return {"square": task["x"] * task["x"], "sum": np.array(task["x"].sum())}


def cube(task):
    return {"square": task["x"] ** 3}


def echo(task):
    return dict(task)


def mark(task):
    """Leaves a file with a name of its own for each time that a task is computed."""
    folder = Path(str(task["folder"]))
    (folder / f"{int(task['place'])}-{time.monotonic_ns()}-{os.getpid()}").touch()
    time.sleep(float(task["seconds"]))
    return {"place": task["place"] * 10}


def die_once(task):
    """Kills its own process the first time that it meets a task with `dies`."""
    marker = Path(str(task["folder"])) / f"died-{int(task['place'])}"
    if task["dies"] and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"place": task["place"] * 10}


def die(task):
    if task["x"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return dict(task)


def refuse_three(task):
    if task["x"] == 3:
        raise ValueError("three is\nnot a number that I like")
    return dict(task)


def write_argument(task):
    task["x"][0] = 1.0
    return dict(task)


def give_list(task):
    return [task["x"]]


def give_object(task):
    return {"y": np.array([None])}


def ids(task):
    time.sleep(0.02)
    return {"process": np.array(os.getpid())}


def slow(task):
    """The first task is short, so that there is a result while others run."""
    time.sleep(0.01 if task["x"] == 0 else 2)
    return {"process": np.array(os.getpid())}


def has_compiler(task):
    return {"loaded": np.array("torch._dynamo" in sys.modules), "threads": np.array(sys.modules["torch"].get_num_threads())}


def work(task):
    """About `seconds` of one core's time, whatever the clock says."""
    until = time.thread_time() + float(task["seconds"])
    total = 0
    while time.thread_time() < until:
        total += sum(range(1000))
    return {"seconds": task["seconds"]}


class Place:
    @staticmethod
    def double(task):
        return {"double": task["x"] * 2}

    def __call__(self, task):
        return dict(task)
