"""Searches side by side, which share the time: inputs are halved and neurons split until one of the two has decided."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from boundlab.bounds.observe import Deadline
from boundlab.bounds.problem import Method
from boundlab.errors import BoundError, MissingRule, OutOfTime
from boundlab.graph import Model
from boundlab.perturbations.sets import PerturbationSet
from boundlab.verify.branching import branchable, branching
from boundlab.verify.checkpoint import Checkpoint
from boundlab.verify.fixed import fixed
from boundlab.verify.options import Bisection, Branching, Race, Turn
from boundlab.verify.proof import Proof
from boundlab.verify.search import Found, State
from boundlab.verify.splitting import bisectable, bisection
from boundlab.verify.standing import Clock, Standing, describe
from boundlab.verify.task import Task
from boundlab.verify.team import Team

HEAD_START = 2.0
"""Seconds that a search has before the next one begins."""
EVERY = 10.0
"""Seconds between two checkpoints."""
SHARE = 0.05
"""The share of the time that writing them may take."""
FAR = 10.0
"""A search whose lowest bound is so many times as far below 0 as another's has no lead; the other takes LEAD times as long."""
FEW, LEAD = 8, 4.0
"""Boxes with so few perturbed inputs are halved for so many seconds for each one in which neurons are split."""


@dataclass(frozen=True)
class Runner:
    """A search in a race: what it is, its problems, its state once it has begun, its seconds so far, or why it failed.

    Of the time it takes `lead` seconds where others take one.
    """

    options: Bisection | Branching
    index: Tensor
    state: State | None
    spent: float
    failure: str | None = None
    lead: float = 1.0

    @property
    def running(self) -> bool:
        """Whether it may take a step."""
        return self.failure is None and len(self.index) > 0 and (self.state is None or not self.state.over)

    @property
    def below_zero(self) -> float:
        """How far the lowest bound of what it has open is below 0; NaN before there is one."""
        bound = math.nan if self.state is None else -self.state.found().bound
        return bound if math.isfinite(bound) else math.nan

    def name(self, task: Task) -> str:
        """The search as a reader names it."""
        if isinstance(self.options, Branching):
            return "branching on neurons"
        return f"bisection of {describe(self.options.chosen(task.model))}"

    def forward(self, task: Task, standing: Standing, clock: Clock, share: float, team: Team) -> Runner:
        """One step further by all of a team, or begun with a share of the time; what was not enough was spent in vain."""
        started = time.perf_counter()
        try:
            if self.state is None:
                moved = self.begun(task, standing, clock.part(share))
            else:
                left = self.state.without(set(standing.decided))
                moved = replace(self, state=left if left.over else left.step(clock.deadline, team))
        except OutOfTime:
            moved = self
        except (BoundError, MissingRule) as problem:
            moved = replace(self, failure=str(problem))
        return replace(moved, spent=self.spent + (time.perf_counter() - started) / self.lead)

    def begun(self, task: Task, standing: Standing, deadline: float) -> Runner:
        """At its beginning, on the problems that are open now."""
        if isinstance(self.options, Branching):
            index = branchable(task, standing.open)
            if len(index) == 0:
                return replace(self, index=index)
            state = branching(replace(task, observe=Deadline(deadline)), index, self.options, deadline, standing.learnt)
            return replace(self, index=index, state=replace(state, task=task))
        return replace(self, state=bisection(task, self.index, self.options))

    def counted(self, found: Found) -> str:
        """How much it has done."""
        return f"{found.parts} {'parts' if isinstance(self.options, Branching) else 'boxes'}"


def race(task: Task, standing: Standing, stage: Race, clock: Clock, first: bool) -> Standing:
    """What searches find out of the open problems by the deadline; with `first`, the first witness ends them."""
    runners = [Runner(options, able(task, standing, options), None, HEAD_START * place, lead=lead(task, standing, options))
               for place, options in enumerate(searched(task, standing, stage.searches))]
    log = None if stage.file is None else Log(Checkpoint(stage.file, task, stage.searches), time.perf_counter())
    known = None if log is None else log.checkpoint.load()
    standing, runners = (standing, runners) if known is None else (completed(judged(known[0], task), known[1], task), known[1])
    while not clock.over and len(standing.open) and not (first and standing.witnesses):
        ready = [place for place, runner in enumerate(runners) if runner.running]
        if not ready:
            break
        place = min(ready, key=lambda place: runners[place].spent * behind(runners, place))
        led = any(runners[other].lead > 1 for other in ready if other != place)
        runners[place] = runners[place].forward(task, standing, clock, 1 / LEAD if led else 1.0, stage.team)
        standing = decided(standing, runners[place], task, clock)
        log = None if log is None else log.written((replace(standing, learnt=()), runners))
        if stage.watch is not None:
            stage.watch(turn(standing, runners[place], task))
    for runner in runners:
        standing = standing.note(left_open(standing, runner, task))
    if log is not None:
        log.checkpoint.save((replace(standing, learnt=()), runners))
    return standing


def distinct(searches: Sequence[Bisection | Branching], model: Model, varying: Collection[int] | None = None
             ) -> list[Bisection | Branching]:
    """The searches without those that would halve inputs by the method of one before, each with its method; see `chosen`."""
    found, methods = list[Bisection | Branching](), list[Method]()
    for options in searches:
        method = options.chosen(model, varying) if isinstance(options, Bisection) else None
        if method is None or method not in methods:
            found.append(replace(options, method=method) if isinstance(options, Bisection) else options)
        methods += [] if method is None else [method]
    return found


def searched(task: Task, standing: Standing, searches: Sequence[Bisection | Branching]) -> list[Bisection | Branching]:
    """The searches of the open problems, by methods for that part of the network that varies in them."""
    sets = task.take(standing.open)[0]
    varying = {node.index for node in task.model.graph if node.source and isinstance(sets.get(node.name), PerturbationSet)}
    return distinct(searches, fixed(task.model, sets)[0], varying or None)


def judged(standing: Standing, task: Task) -> Standing:
    """What a file says is known, with those witnesses alone that are some."""
    real = {problem: found for problem, witness in standing.witnesses.items()
            if (found := task.accept(problem, witness.inputs)) is not None}
    lost = standing.witnesses.keys() - real.keys()
    decided = {problem: by for problem, by in standing.decided.items() if problem not in lost}
    return replace(standing, witnesses=real, decided=decided)


def completed(standing: Standing, runners: Sequence[Runner], task: Task) -> Standing:
    """With the proofs that searches had no time left to put together when they had decided."""
    missing = (standing.decided.keys() - standing.witnesses.keys() - standing.proofs.keys()) if task.keep else set()
    proofs = {problem: proof for runner in runners if missing and runner.state is not None
              for problem in missing & runner.state.found().proven.keys()
              if (proof := proof_in_time(runner.state, problem)) is not None}
    return standing.show(proofs)


@dataclass(frozen=True)
class Log:
    """A checkpoint, and from when on it should be written next, in seconds of `time.perf_counter`."""

    checkpoint: Checkpoint
    due: float

    def written(self, value: tuple[Standing, list[Runner]]) -> Log:
        """With the value on disk, if it is time; what takes long to write is written less often."""
        now = time.perf_counter()
        if now < self.due:
            return self
        self.checkpoint.save(value)
        took = time.perf_counter() - now
        return replace(self, due=now + took + max(EVERY, took / SHARE))


def turn(standing: Standing, runner: Runner, task: Task) -> Turn:
    """How far a search is after its turn."""
    if runner.state is None:
        return Turn(len(standing.open), runner.name(task), 0, 0, -math.inf)
    found = runner.state.found()
    return Turn(len(standing.open), runner.name(task), found.parts, found.left, found.bound)


def able(task: Task, standing: Standing, options: Bisection | Branching) -> Tensor:
    """The open problems that a search can take."""
    if isinstance(options, Branching):
        return branchable(task, standing.open)
    return bisectable(task, standing.open, options)


def lead(task: Task, standing: Standing, options: Bisection | Branching) -> float:
    """How many seconds a search takes where others take one."""
    return LEAD if isinstance(options, Bisection) and few(task, standing, options) else 1.0


def behind(runners: Sequence[Runner], place: int) -> float:
    """How many times as dear a search's time is: its lead and LEAD more where its lowest bound is far below another's."""
    own, *others = (runner.below_zero for runner in (runners[place], *runners[:place], *runners[place + 1:]))
    return LEAD * runners[place].lead if any(own > FAR * other for other in others) else 1.0


def few(task: Task, standing: Standing, options: Bisection) -> bool:
    """Whether so few inputs vary that halving boxes has a lead."""
    return len(able(task, standing, replace(options, most_inputs=FEW))) > 0


def decided(standing: Standing, runner: Runner, task: Task, clock: Clock) -> Standing:
    """With what a search has found out by now of problems that were open."""
    if runner.state is None:
        return standing
    found, still = runner.state.found(), set(standing.open.tolist())
    proven = {problem: rows for problem, rows in found.proven.items() if problem in still}
    witnesses = {problem: witness for problem, witness in found.witnesses.items() if problem in still}
    proofs = {problem: proof_in_time(runner.state, problem) for problem in proven}
    by = f"{runner.name(task)}, {runner.counted(found)}"
    return standing.raised(proven).show({i: proof for i, proof in proofs.items() if proof is not None}).decide(
        {**dict.fromkeys(proven), **witnesses}, by, clock.spent)


def proof_in_time(state: State, problem: int) -> Proof | None:
    """The proof that a search has kept; None without one, or if it cannot be put together by the deadline."""
    try:
        return state.proof(problem)
    except OutOfTime:
        return None


def left_open(standing: Standing, runner: Runner, task: Task) -> dict[int, str]:
    """Why a search has not decided the problems that are open."""
    still = [problem for problem in runner.index.tolist() if problem not in standing.decided]
    if runner.failure is not None:
        return dict.fromkeys(still, f"{runner.name(task)}: {runner.failure}")
    if runner.state is None:
        return {}
    found = runner.state.found()
    said = "; ".join((f"{runner.counted(found)}, {found.left} left open", *found.notes))
    return dict.fromkeys(still, f"{runner.name(task)}, {said}")
