"""What linear programs cost on networks that were published with the barrier paper: seconds of each, layer by layer."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import boundlab as bl
from boundlab.cli.answer import Table
from boundlab.data.idx import read_idx_folder
from boundlab.engines.engine import Engine, Serial, Stream
from boundlab.engines.task import Arrays, Function
from boundlab.programs.program import Array, program_of
from boundlab.programs.solve import Minimiser, Minimum, minimiser
from boundlab.programs.tasks import ends_by, ends_of_neurons, minima_by, minima_of_rows
from boundlab.reproduce.barrier import GREEDY, TEN
from boundlab.reproduce.files import named_tensors, network_of, weights_in
from boundlab.reproduce.published import BARRIER_1, BARRIER_2

WEIGHTS, IMAGES = Path("paper_models") / "lp_all_salman2019", Path("datasets") / "mnist"


@dataclass(frozen=True)
class Setting:
    """A network at a radius, on test images: the first ones, or some of the paper's ten.

    Where `enough` is given, a row's search stops once it is proven to be above it, and images of which greedy bounds prove that
    are left alone.
    """

    network: str
    eps: float
    places: tuple[int, ...]
    enough: float | None

    def question(self, data: Path) -> tuple[bl.Model, bl.LpBall, bl.Specification]:
        """The network, the balls around the images within [0, 1], and the margins of their labels."""
        x, labels = read_idx_folder(data / IMAGES).labelled()
        chosen = list(self.places)
        x, labels = x[chosen], labels[chosen]
        module = network_of(named_tensors(weights_in(data / WEIGHTS, self.network)))
        model = bl.capture(module, x.repeat(2, 1, 1, 1)[:2]).detached()
        return model, bl.LpBall(x, self.eps, clip=(0, 1)), bl.margins(labels, 10, x.dtype)


def settings_of(errors: int, radii: int) -> list[Setting]:
    """The paper's two experiments: certified errors on the first images, radii at the mean that it proved on its ten images."""
    return [*(Setting(name, eps, tuple(range(errors)), 0.0) for name, eps in BARRIER_1 if errors),
            *(Setting(name, found.everywhere, TEN[:radii], None) for name, found in BARRIER_2.items() if radii)]


@dataclass
class Clock:
    """A solver that keeps the CPU and wall seconds of each of its programs."""

    solver: Minimiser
    spent: list[tuple[float, float]] = field(default_factory=list)

    def minimum(self, cost: Array, enough: float | None = None) -> Minimum:
        cpu, wall = time.thread_time(), time.perf_counter()
        found = self.solver.minimum(cost, enough)
        self.spent.append((time.thread_time() - cpu, time.perf_counter() - wall))
        return found


def clocked(task: Arrays, by: Callable[[Minimiser, Arrays], Arrays]) -> Arrays:
    """What `by` returns, with the seconds (CPU, wall) of the task and of each of its programs, and the process it ran in."""
    cpu, wall = time.thread_time(), time.perf_counter()
    clock = Clock(minimiser(program_of(task)))
    result = by(clock, task)
    whole = np.array([time.thread_time() - cpu, time.perf_counter() - wall])
    return {**result, "clock programs": np.array(clock.spent).reshape(-1, 2), "clock task": whole,
            "clock process": np.array(os.getpid())}


def clocked_ends(task: Arrays) -> Arrays:
    """`ends_of_neurons`, with its seconds."""
    return clocked(task, ends_by)


def clocked_minima(task: Arrays) -> Arrays:
    """`minima_of_rows`, with its seconds."""
    return clocked(task, minima_by)


CLOCKED: dict[Function, Function] = {ends_of_neurons: clocked_ends, minima_of_rows: clocked_minima}


@dataclass(frozen=True)
class Spent:
    """One task: how many functions it minimises, its program's rows, columns and nonzeros, and its seconds (CPU, wall).

    `programs` (n, 2) are the seconds of each of its programs, `process` is where it ran.
    """

    functions: int
    size: tuple[int, int, int]
    task: Array
    programs: Array
    process: int


@dataclass(frozen=True)
class Layer:
    """The tasks that one layer's neurons, or the specification's rows, gave rise to."""

    rows: bool
    tasks: list[Spent] = field(default_factory=list)

    @property
    def programs(self) -> int:
        """How many programs were solved."""
        return sum(len(spent.programs) for spent in self.tasks)

    def seconds(self, clock: int = 0) -> float:
        """The seconds of all tasks, CPU (0) or wall (1)."""
        return math.fsum(float(spent.task[clock]) for spent in self.tasks)


@dataclass(frozen=True)
class Clocked:
    """An engine that keeps the times of the tasks that another one runs; results are the same."""

    engine: Engine
    layers: list[Layer] = field(default_factory=list)

    def stream(self, function: Function, tasks: Sequence[Arrays]) -> Stream:
        return self._stream(self.engine.stream(CLOCKED[function], tasks), Layer(function is minima_of_rows), tasks)

    def _stream(self, stream: Stream, layer: Layer, tasks: Sequence[Arrays]) -> Stream:
        if tasks:
            self.layers.append(layer)
        with closing(stream):
            for place, result in stream:
                task = tasks[place]
                size = len(task["row_lower"]), len(task["lower"]), len(task["data"])
                layer.tasks.append(Spent(len(task["constant"]), size, result["clock task"], result["clock programs"],
                                         int(result["clock process"])))
                yield place, {name: value for name, value in result.items() if not name.startswith("clock ")}


@dataclass(frozen=True)
class Case:
    """What a setting cost: its layers' tasks, all CPU seconds of this process, and how many neurons bend in the network."""

    setting: Setting
    layers: list[Layer]
    seconds: float
    neurons: int

    @property
    def driver(self) -> float:
        """The CPU seconds that are not a task's: greedy bounds, and writing programs."""
        return self.seconds - math.fsum(layer.seconds() for layer in self.layers)

    @property
    def programs(self) -> int:
        """How many programs were solved."""
        return sum(layer.programs for layer in self.layers)

    def an_image(self) -> float:
        """CPU seconds of an image, with all that is done around programs."""
        return self.seconds / len(self.setting.places)


def measure(setting: Setting, data: Path) -> Case:
    """LP-ALL of one setting, in this process; images that greedy bounds prove have no programs."""
    model, ball, spec = setting.question(data)
    torch.set_num_threads(1)
    engine, began = Clocked(Serial()), time.process_time()
    bl.bound(model, ball, method=bl.LP(GREEDY, enough=setting.enough, engine=engine), spec=spec)
    neurons = sum(math.prod(node.shape) for node in model.graph if node.op == "relu")
    return Case(setting, engine.layers, time.process_time() - began, neurons)


def lines_of(case: Case) -> Iterator[dict[str, Any]]:
    """One line for each layer with programs; sizes are means over the tasks."""
    for number, layer in enumerate(case.layers, 2):  # the first layer's intervals are exact without programs
        sizes = np.array([spent.size for spent in layer.tasks]).mean(0)
        first = np.array([spent.programs[0] for spent in layer.tasks if len(spent.programs)]).reshape(-1, 2)
        later = np.concatenate([spent.programs[1:] for spent in layer.tasks])
        images = len(case.setting.places)
        yield {"network": case.setting.network, "eps": case.setting.eps, "images": images,
               "layer": "rows" if layer.rows else str(number),
               "open": sum(spent.functions for spent in layer.tasks) / images, "programs": layer.programs / images,
               "rows": sizes[0], "columns": sizes[1], "nonzeros": sizes[2],
               "first": mean(first[:, 0]), "later": mean(later[:, 0]), "wall": mean(np.concatenate([first, later])[:, 1]),
               "seconds": layer.seconds() / images}


def mean(values: Array) -> float | None:
    """The mean of what there is."""
    return float(values.mean()) if len(values) else None


def programs_table(lines: Sequence[Mapping[str, Any]]) -> Table:
    """The lines as a table."""
    def cell(line: Mapping[str, Any], name: str) -> str:
        value = line[name]
        if name in ("rows", "columns", "nonzeros", "open", "programs"):
            return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
        return "" if value is None else value if isinstance(value, str) else f"{value:.3g}"

    heads = {"network": "network", "eps": "eps", "images": "images", "layer": "layer", "open": "open neurons",
             "programs": "programs", "rows": "rows", "columns": "columns", "nonzeros": "nonzeros", "first": "first s",
             "later": "later s", "wall": "wall s", "seconds": "s an image"}
    rows = [[cell(line, name) for name in heads] for line in lines]
    return Table(tuple(heads.values()), rows, "Linear programs, an image; seconds of one program", frozenset(heads.values()))
