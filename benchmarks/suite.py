"""The grids, case by case: all libraries take turns on one case, then the next; what failed small is not tried larger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import ours, peer
from benchmarks.cases import NATURAL, OURS, PEER, Job, Limits, Line
from benchmarks.networks import Network
from benchmarks.record import bounds_entry, side, step_entry
from benchmarks.turns import Measured, take_turns
from benchmarks.worker import Contender, remote


@dataclass(frozen=True)
class Effort:
    """How much a case may cost: limits of one call, and the seconds that one contender's repetitions should take."""

    limits: Limits
    patience: float = 10.0


@dataclass(frozen=True)
class Plan:
    """What to measure, by which libraries, on which device; `enter` makes a contender of a job."""

    libraries: tuple[str, ...]
    effort: Effort
    device: str = "cpu"
    enter: Callable[[Job, Limits], Contender] = remote


METHODS = {OURS: tuple(ours.METHODS), PEER: tuple(peer.METHODS)}
STEPS = {OURS: tuple(ours.STEPS), PEER: peer.STEPS}


def compete(jobs: Mapping[Any, Job], plan: Plan) -> dict[Any, Measured]:
    """All jobs in turns, each in a contender of its own."""
    contenders: dict[Any, Contender] = {}
    try:
        for name, job in jobs.items():
            contenders[name] = plan.enter(job, plan.effort.limits)
        return take_turns(contenders, plan.effort.patience)
    finally:
        for contender in contenders.values():
            contender.end()


def measure_bounds(lines: Sequence[Line], networks: Mapping[str, Network], plan: Plan) -> Iterator[dict[str, Any]]:
    """One entry for each batch of each line, as they come."""
    for line in lines:
        given_up: dict[str, Measured] = {}
        for batch in sorted(line.batches):
            jobs = {library: Job(library, networks[line.network], line.method, batch, plan.device) for library in plan.libraries
                    if line.method in METHODS[library] and library not in given_up}
            found = compete(jobs, plan) | given_up
            given_up |= {library: replace(measured, state="skipped", note=f"{measured.note} at batch {batch}")
                         for library, measured in found.items() if measured.state not in ("done", "skipped")}
            yield bounds_entry({"network": line.network, "method": line.method, "batch": batch}, found)


def measure_steps(network: Network, steps: tuple[str, ...], batch: int, plan: Plan) -> list[dict[str, Any]]:
    """One entry for each training step; all steps of all libraries take turns, the natural one among them."""
    named = dict.fromkeys((NATURAL, *steps))
    jobs = {(library, step): Job(library, network, step, batch, plan.device, training=True)
            for step in named for library in plan.libraries if step in STEPS[library]}
    found = compete(jobs, plan)
    naturals = {library: found[library, NATURAL] for library in plan.libraries}
    entries = []
    for step in named:
        sides = {library: side(found[library, step]) for library in plan.libraries if (library, step) in found}
        if sides:
            entries.append(step_entry({"network": network.name, "step": step, "batch": batch}, sides, naturals))
    return entries
