"""The zoo, measured: how long capture and bounds of each network take, beside what `check` expects."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from boundlab.bounds.methods import CROWN, IBP, bound
from boundlab.bounds.problem import Method
from boundlab.capture.torch import capture
from boundlab.check.check import check
from boundlab.perturbations.sets import Box
from boundlab.spec import Specification, margins
from boundlab.zoo import Record, build, parameter_count

RADIUS = 1 / 1000
"""Half-width of the boxes: small, since untrained networks have huge intervals on large ones."""
OTHERS = 9
"""Margins at most: of the label against so many other classes."""
REPEATS = 3
METHODS: dict[str, Method] = {"IBP": IBP(), "CROWN-IBP": CROWN(intermediate=IBP())}


@dataclass(frozen=True)
class Timing:
    """One network: seconds for capture and, by method, measured and expected seconds for `rows` margins of a batch."""

    name: str
    parameters: int
    rows: int
    capture: float
    measured: dict[str, float]
    expected: dict[str, float]


def timed(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def few_margins(labels: torch.Tensor, classes: int, most: int = OTHERS) -> Specification:
    """The margins of each label (b,) against at most so many other classes."""
    every = margins(labels, classes)
    return Specification(every.rows[:, :most], every.offset[:, :most], every.clause[:most])


def time_network(record: Record, batch: int) -> Timing:
    """Capture a network with weights from seed 0, and bound it around random inputs; medians of several runs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, x = build(record.name).eval(), torch.rand(batch, *record.shape)
    with torch.no_grad():
        spec = few_margins(module(x).argmax(1), record.classes)
    rows, box = spec.rows.shape[1], Box(x - RADIUS, x + RADIUS)
    seconds = timed(partial(capture, module, x))
    model = capture(module, x).detached()
    measured = {name: statistics.median(timed(partial(bound, model, box, method=method, spec=spec)) for _ in range(REPEATS))
                for name, method in METHODS.items()}
    costs = {cost.method: cost.seconds for cost in check(model, batch=batch, rows=rows).costs}
    return Timing(record.name, parameter_count(module), rows, seconds, measured, {name: costs[name] for name in METHODS})
