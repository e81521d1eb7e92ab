"""A task: named arrays in, named arrays out, by a function that every process can find by its name."""

from __future__ import annotations

import pkgutil
import time
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from boundlab.errors import BoundlabError, EngineError, TaskError

Arrays = Mapping[str, np.ndarray]
Function = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class Failure:
    """Why a function gave no result, in one sentence, and the traceback of the process it ran in."""

    reason: str
    trace: str
    kind: type[BoundlabError] | None = None


@dataclass(frozen=True)
class Answer:
    """What became of the task at `place`, and the seconds that its function ran."""

    place: int
    seconds: float
    result: dict[str, np.ndarray] | Failure


def name_of(function: Function) -> str:
    """`module:function`, by which any process finds the function; EngineError if that name does not lead to it."""
    if not isinstance(function, (types.FunctionType, types.BuiltinFunctionType)):
        raise EngineError(f"an engine runs a function of a module, got {function!r:.80}; write a function with `def`, and give "
                          "what it should know as arrays of the task.")
    name = f"{function.__module__}:{function.__qualname__}"
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        found = None
    if found is not function:
        raise EngineError(f"an engine runs a function that other processes can import, and '{name}' is not found by that name; "
                          "write it with `def` at the top of a module, and give what it should know as arrays of the task.")
    return name


def name_elsewhere(function: Function) -> str:
    """As `name_of`, for processes that do not import this script: its own functions are refused."""
    name = name_of(function)
    if name.startswith("__main__:"):
        raise EngineError(f"'{name}' is a function of the script that runs, a name that means something else in others; "
                          "write the function in a module of its own and import it.")
    return name


def check_tasks(tasks: Sequence[Arrays]) -> None:
    """TaskError for a task that is not named arrays of plain numbers."""
    for place, task in enumerate(tasks):
        fault = fault_of(task)
        if fault is not None:
            raise TaskError(place, f"it must be a mapping from names to numpy arrays of plain numbers, but {fault}.")


def fault_of(arrays: Arrays) -> str | None:
    """What keeps `arrays` from being sent and stored bit for bit; None if nothing does."""
    if not isinstance(arrays, Mapping):
        return f"it is a {type(arrays).__name__}"
    for name, array in arrays.items():
        if not isinstance(name, str):
            return f"the name {name!r:.40} is no string"
        if type(array) not in (np.ndarray, np.memmap):
            return f"'{name}' is a {type(array).__name__}"
        if array.dtype.hasobject:
            return f"'{name}' holds Python objects"
    return None


def answer(name: str, place: int, task: Arrays) -> Answer:
    """The task's answer, computed in this process; whatever the function raises is a Failure."""
    began = time.perf_counter()
    result: dict[str, np.ndarray] | Failure
    try:
        function = pkgutil.resolve_name(name)
    except Exception as problem:
        reason = (f"a worker could not import {name} ({type(problem).__name__}: {' '.join(str(problem).split()):.200}); write "
                  "the function in a module that every worker finds.")
        return Answer(place, 0.0, Failure(reason, "".join(traceback.format_exception(problem))))
    try:
        result = own(function(read_only(task)), name)
    except Exception as problem:
        result = failure(name, problem)
    return Answer(place, time.perf_counter() - began, result)


def read_only(task: Arrays) -> Arrays:
    """Views that cannot be written: a function that changed its arguments would not give the same result twice."""
    views = {name: array.view() for name, array in task.items()}
    for view in views.values():
        view.flags.writeable = False
    return views


def own(result: Arrays, name: str) -> dict[str, np.ndarray]:
    """Copies of what the function returned, which share no memory with the task; EngineError if these are not arrays."""
    if isinstance(result, Mapping):  # arithmetic on arrays without axes gives scalars
        result = {key: np.asarray(value) if isinstance(value, np.generic) else value for key, value in result.items()}
    fault = fault_of(result)
    if fault is not None:
        raise EngineError(f"{name} must return a mapping from names to numpy arrays of plain numbers, but {fault}.")
    return {key: np.array(array) for key, array in result.items()}


def failure(name: str, problem: Exception) -> Failure:
    """The exception as one sentence, with its place in the source."""
    trace = "".join(traceback.format_exception(problem))
    if isinstance(problem, BoundlabError):
        plain = type(problem).__module__ == BoundlabError.__module__ and not isinstance(problem, EngineError)
        return Failure(str(problem), trace, type(problem) if plain else None)
    last = traceback.extract_tb(problem.__traceback__)[-1]
    words = " ".join(str(problem).split())
    said = f"{type(problem).__name__} ({words:.300})" if words else type(problem).__name__
    return Failure(f"{name} raised {said} at {last.filename}:{last.lineno}; correct the function or this task, the other tasks "
                   "are not to blame.", trace)


def result_of(answered: Answer) -> dict[str, np.ndarray]:
    """The result; TaskError, with the worker's traceback as a note, if there is none."""
    if isinstance(answered.result, Failure):
        error = TaskError(answered.place, answered.result.reason, answered.result.kind)
        error.add_note(answered.result.trace)
        raise error
    return answered.result
