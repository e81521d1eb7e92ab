"""What the barrier paper's experiments would cost today, from measured times, and how long workers would need for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.programs import Case
from boundlab.cli.answer import Table
from boundlab.engines.schedule import schedule

YEAR = 365.25 * 24 * 3600
PUBLISHED = 22 * YEAR
"""CPU seconds that the paper's experiments took, "more than 22 CPU-years" (Salman et al. 2019, Sec. 6)."""
WORKERS = (10, 100, 1000)


@dataclass(frozen=True)
class Experiment:
    """One of the paper's tables: so many rows (a network at a radius) of so many images, each bounded `rounds` times.

    Rows that were not measured are taken to cost what the costliest of `cases` does.
    """

    name: str
    cases: tuple[Case, ...]
    rows: int
    images: int
    rounds: int

    @property
    def costliest(self) -> Case:
        """The measured row that stands for those that were not measured."""
        return max(self.cases, key=Case.an_image)

    def weight(self, case: Case) -> float:
        """How often a case's images are bounded in the whole experiment, in one round."""
        rows = 1 + (self.rows - len(self.cases) if case is self.costliest else 0)
        return rows * self.images / len(case.setting.places)

    @property
    def measured(self) -> float:
        """CPU seconds of the measured rows."""
        return self.rounds * self.images * math.fsum(case.an_image() for case in self.cases)

    @property
    def unmeasured(self) -> float:
        """CPU seconds of the others, if each costs what the costliest does."""
        return self.rounds * self.images * (self.rows - len(self.cases)) * self.costliest.an_image()

    @property
    def driver(self) -> float:
        """The part of the seconds that is not spent in tasks."""
        return self.rounds * math.fsum(self.weight(case) * case.driver for case in self.cases)

    @property
    def programs(self) -> float:
        """How many programs are solved."""
        return self.rounds * math.fsum(self.weight(case) * case.programs for case in self.cases)

    @property
    def all_programs(self) -> float:
        """How many it would be with two for every neuron and nine margins, as in the paper."""
        return self.rounds * math.fsum(self.weight(case) * len(case.setting.places) * (2 * case.neurons + 9)
                                       for case in self.cases)

    def layers(self) -> list[list[float]]:
        """Seconds of all tasks, layer by layer: rows and images do not wait for each other, a round waits for the last one."""
        depth = max(len(case.layers) for case in self.cases)
        once = [[float(spent.task[0]) for case in self.cases if number < len(case.layers)
                 for spent in case.layers[number].tasks for _ in range(round(self.weight(case)))] for number in range(depth)]
        return once * self.rounds


def experiments_of(cases: Sequence[Case], radii: int) -> list[Experiment]:
    """Table 1, certified errors: 11 rows of 10,000 images. Table 2, radii on MNIST: 27 rows of ten images."""
    errors = tuple(case for case in cases if case.setting.enough is not None)
    rest = tuple(case for case in cases if case.setting.enough is None)
    both = Experiment("Table 1", errors, 11, 10_000, 1), Experiment("Table 2", rest, 27, 10, radii)
    return [experiment for experiment in both if experiment.cases]


def cost_table(experiments: Sequence[Experiment]) -> Table:
    """CPU hours of each experiment, measured rows and the others."""
    columns = ("experiment", "rows", "measured", "images", "radii", "programs", "at two a neuron", "measured h", "others h",
               "all h", "of it driver h")
    rows = [(each.name, str(each.rows), str(len(each.cases)), str(each.images), str(each.rounds), f"{each.programs:.3g}",
             f"{each.all_programs:.3g}", *(f"{value / 3600:.3g}" for value in (
                 each.measured, each.unmeasured, each.measured + each.unmeasured, each.driver))) for each in experiments]
    return Table(columns, rows, "The paper's experiments today, CPU hours", frozenset(columns))


def plan_table(experiments: Sequence[Experiment], overhead: float) -> Table:
    """How long workers would need for the tasks of all experiments, and with the time that one driver needs to write them."""
    driver = math.fsum(each.driver for each in experiments)
    layers = [layer for each in experiments for layer in each.layers()]
    plans = [(workers, schedule(layers, workers, overhead)) for workers in WORKERS]
    columns = ("workers", "hours", "share of work", "hours with one driver")
    rows = [(str(workers), f"{plan.makespan / 3600:.3g}", f"{plan.utilisation:.0%}", f"{(plan.makespan + driver) / 3600:.3g}")
            for workers, plan in plans]
    title = f"{sum(map(len, layers))} tasks in {len(layers)} layers, {overhead:g} s more for each task"
    return Table(columns, rows, title, frozenset(columns))


def comparison(experiments: Sequence[Experiment]) -> str:
    """Ours beside the published total."""
    ours = math.fsum(each.measured + each.unmeasured for each in experiments)
    others = math.fsum(each.unmeasured for each in experiments)
    measured, every = ours - others, math.fsum(each.all_programs for each in experiments)
    factor, share = (PUBLISHED - measured) / others, PUBLISHED / every
    return (f"{ours / 3600:.3g} CPU hours, one {PUBLISHED / ours:,.0f}th of 22 CPU-years ({PUBLISHED / 3600:,.0f} h). If each "
            f"row that was not measured cost {factor:,.0f} times as much as the costliest that was, it would be all 22; "
            f"shared out over two programs a neuron, 22 CPU-years are {share:.3g} s a program.")
