"""verify: attacks and bounds from cheap to dear, then splits of inputs or neurons; only problems still open go on.

Nothing becomes VERIFIED without a lower bound above 0 in every clause, nor FALSIFIED without a replayed witness.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from boundlab.attack.pgd import PGD, attack
from boundlab.bounds.methods import CROWN, IBP, bound
from boundlab.bounds.observe import Deadline
from boundlab.bounds.problem import Bounds, Method, Rigour, problem_of
from boundlab.errors import BoundError, MissingRule, OutOfTime, SpecError
from boundlab.graph import Model
from boundlab.perturbations.joint import Regions
from boundlab.perturbations.sets import PerturbationSet
from boundlab.question.exact import Query
from boundlab.spec import Specification
from boundlab.verify.base import FIRST
from boundlab.verify.fixed import fixed
from boundlab.verify.learnt import learnt
from boundlab.verify.options import Bisection, Branching, Race, team_of
from boundlab.verify.proof import Proof, best_rows, plain_of, some, whole
from boundlab.verify.query import Reduced, batches, reduced
from boundlab.verify.race import few, race
from boundlab.verify.sound import Original, exact_query, exactly, sounded, written
from boundlab.verify.standing import Clock, Standing, describe, result_of
from boundlab.verify.task import Task, take_regions, task_of_cases, task_of_sets
from boundlab.verify.verdict import Result, Results, Verdict

CHUNK = 2**25
"""Numbers that the rows of one chunk of problems may hold at the widest node."""
OF_BOUNDS = 0.8
"""The share of the time left that bounds may take: attacks that come later decide networks that are too large for bounds."""
OF_FEW, OF_TRIES = 0.3, 0.05
"""That share where few inputs vary and boxes will be halved: bounds of the whole box are seldom worth waiting for there. And
the share of an attack there, which matters where problems are many: halves are attacked, too."""
Stage = PGD | Method | Bisection | Branching | Race
LADDER: tuple[Stage, ...] = (IBP(), PGD(steps=10, targets=0), CROWN(IBP()), CROWN(), PGD(), Race())
"""What `verify` tries by default, in this order."""


def verify(model: Model | Original, sets: PerturbationSet | Regions | Query, spec: Specification | None = None, *,
           stages: Sequence[Stage] = LADDER, timeout: float | None = None, rigour: Rigour = Rigour.SOUND
           ) -> Results:
    """Prove or refute a specification on every problem of a batch of sets, or a query (one result for all its cases).

    What is proven in floating point is derived again with rounding counted in, and FLOAT_ONLY where that does not succeed. With
    the `rigour` FLOAT32 that is about the network as it runs in float32, else as a function of real numbers; with FLOAT what is
    proven is VERIFIED as it is. `sets` as for `bound`, with `spec` (b or 1, s, *out); a query brings its own.
    `stages` are attacks, methods and searches, tried in turn on the problems that are still open. `timeout` in seconds is for
    all problems together and is looked at between steps. The result of a query is FALSIFIED if one of its cases is. Of an
    Original (see load_original) witnesses are replayed in its own runtime, and proofs are about its file. SpecError for sets
    without a specification, a query with one, and a limit that is no number of seconds; ShapeError as for `bound`. What a
    stage cannot do is no error but a note of the result.
    """
    if timeout is not None and not timeout >= 0:
        raise SpecError(f"a time limit is a number of seconds, 0 or more; got {timeout}.")
    start = time.perf_counter()
    clock = Clock(start, start + (math.inf if timeout is None else timeout))
    original, keep = (model if isinstance(model, Original) else Original(model)).detached(), rigour is not Rigour.FLOAT
    model, team = original.model, team_of(stages)
    if isinstance(sets, Query):
        if spec is not None:
            raise SpecError("a query states its own specification; leave out `spec`.")
        asked = reduced(sets, model)
        found = verify_query(original, asked, stages, clock, keep)
        if not keep:
            return Results((found,))
        return Results(sounded(written(original, asked), [found], [exact_query(asked)], clock, rigour, team))
    if spec is None:
        raise SpecError("sets alone are no question: give a specification, for example margins(labels, classes).")
    named = sets if isinstance(sets, Mapping) else {model.graph.inputs[0].name: sets}
    problem_of(model, named, spec)
    task = task_of_sets(model, named, spec, original.replay)
    exact = exactly(model, named, spec, task.count) if keep else []
    task = replace(task, keep=any(isinstance(query, Query) for query in exact), observe=Deadline(clock.deadline))
    standing = run(task, stages, clock, first=False)
    results = tuple(result_of(standing, i, clock) for i in range(task.count))
    return Results(sounded(original, results, exact, clock, rigour, team) if keep else results)


def verify_query(original: Original, asked: Reduced, stages: Sequence[Stage], clock: Clock, keep: bool) -> Result:
    """One result for all cases: a witness of any falsifies, and all have to be proven."""
    results: list[Result] = []
    proofs: dict[int, Proof] = {}
    for cases in batches(asked):
        task = replace(task_of_cases(original.model, cases, original.replay), keep=keep, observe=Deadline(clock.deadline))
        standing = run(task, stages, clock, first=True)
        results += [result_of(standing, i, clock) for i in range(task.count)]
        proofs |= {cases.places[i]: proof for i, proof in standing.proofs.items()}
        if standing.witnesses:
            break
    if not results:
        raise SpecError("the query has no case, so it asks nothing.")
    order = (Verdict.FALSIFIED, Verdict.TIMEOUT, Verdict.UNKNOWN, Verdict.FLOAT_ONLY, Verdict.VERIFIED)
    leading = min(results, key=lambda result: order.index(result.verdict))
    proven = leading.verdict is Verdict.VERIFIED
    methods = ", ".join(dict.fromkeys(result.method for result in results)) if proven else leading.method
    notes = tuple(dict.fromkeys(note for result in results for note in result.notes))
    kept = tuple(proofs[place] for place in range(len(asked.cases))) if proven and len(proofs) == len(asked.cases) else ()
    return replace(leading, lower=torch.cat([result.lower for result in results]), method=methods, notes=notes,
                   seconds=clock.spent, proofs=kept)


def run(task: Task, stages: Sequence[Stage], clock: Clock, first: bool) -> Standing:
    """All stages in turn; with `first`, the first witness ends them."""
    standing = Standing(task.spec.offset.new_full((task.count, task.spec.rows.shape[1]), -torch.inf))
    for turn, stage in enumerate(stages, start=1):
        if clock.over or len(standing.open) == 0 or (first and standing.witnesses):
            break
        if isinstance(stage, PGD):
            ends = clock.part(OF_TRIES) if halving(task, standing, stages[turn:]) else clock.deadline
            standing = attacked(task, standing, stage, replace(clock, deadline=ends))
        elif isinstance(stage, Race | Bisection | Branching):
            standing = race(task, standing, stage if isinstance(stage, Race) else Race((stage,)), clock, first)
        else:
            share = OF_FEW if halving(task, standing, stages[turn:]) else OF_BOUNDS
            ends = clock.part(share) if turn < len(stages) else clock.deadline
            standing = bounded(replace(task, observe=Deadline(ends)), standing, stage, clock, awaited(stage, stages[turn:]))
    return standing


def halving(task: Task, standing: Standing, later: Sequence[Stage]) -> bool:
    """Whether the `later` stages halve boxes in which few inputs vary."""
    return any(isinstance(one, Bisection) and few(task, standing, one) for one in apart(later))


def awaited(method: Method, later: Sequence[Stage]) -> bool:
    """Whether a search among the `later` stages begins with the intervals of a method."""
    return method == FIRST and any(isinstance(one, Branching) and one.base is None for one in apart(later))


def apart(stages: Sequence[Stage]) -> list[Stage]:
    """The stages, with the searches of races each on its own."""
    return [one for stage in stages for one in (stage.searches if isinstance(stage, Race) else (stage,))]


def chunks(task: Task, index: Tensor) -> tuple[Tensor, ...]:
    """The problems `index` (m,) in parts whose rows fit into memory."""
    widest = max(math.prod(node.shape) for node in task.model.graph)
    return index.split(max(1, CHUNK // (widest * max(2, task.spec.rows.shape[1]))))


@torch.no_grad()
def attacked(task: Task, standing: Standing, how: PGD, clock: Clock) -> Standing:
    """The attack's violating points, replayed; its random starts are the same in every run."""
    for index in chunks(task, standing.open):
        if clock.over:
            break
        regions = take_regions(task.reachable, index)
        try:
            found = attack(task.model, regions, task.spec.take(index), how, torch.Generator().manual_seed(0), clock.deadline)
        except MissingRule as missing:  # a set whose points nobody knows
            standing = standing.note(dict.fromkeys(index.tolist(), f"attack: {missing}"))
            continue
        points = {key: region for key, region in regions.items() if isinstance(key, str) and isinstance(region, Tensor)}
        points |= found.points
        for place in found.violated.nonzero().flatten().tolist():
            problem = int(index[place])
            witness = task.accept(problem, {name: point[place:place + 1] for name, point in points.items()})
            if witness is not None:
                standing = standing.decide({problem: witness}, "attack", clock.spent)
    return standing


@torch.no_grad()
def bounded(task: Task, standing: Standing, method: Method, clock: Clock, keep: bool = False) -> Standing:
    """One method's bounds of the open problems; each row keeps the best that is known of it.

    `keep`: with the intervals of those that stay open.
    """
    for index in chunks(task, standing.open):
        started = time.perf_counter()
        try:
            parts, notes = attempt(task, index, method)
        except OutOfTime as late:
            return standing.note(dict.fromkeys(standing.open.tolist(), f"{describe(method)}: {late}"))
        standing = standing.note(notes)
        for own, found in parts:
            lower = torch.maximum(standing.lower[own], found.lower)
            proven = (task.spec.worst(lower) > 0).nonzero().flatten()
            standing = replace(standing, lower=standing.lower.index_copy(0, own, lower))
            standing = standing.decide(dict.fromkeys(own[proven].tolist()), describe(method), clock.spent)
            if task.keep:
                standing = standing.show(at_once(task, own, proven, lower, found))
            if keep:
                seconds = (time.perf_counter() - started) * len(own) / len(index)
                standing = replace(standing, learnt=(*standing.learnt, *learnt(found, own, standing.open, seconds)))
    return standing


def at_once(task: Task, index: Tensor, proven: Tensor, lower: Tensor, found: Bounds) -> dict[int, Proof]:
    """The proofs of those of the problems `index` that bounds of their rows on whole sets have `proven`."""
    if len(proven) == 0:
        return {}
    plain, weights = plain_of(found.graph, found.env, proven), best_rows(task.spec, lower[proven]).transpose(0, 1)
    return {problem: whole(weights[place], some(plain, torch.tensor([place])))
            for place, problem in enumerate(index[proven].tolist())}


def attempt(task: Task, index: Tensor, method: Method) -> tuple[list[tuple[Tensor, Bounds]], dict[int, str]]:
    """Bounds of the rows for parts of the problems `index`, and notes where the method says nothing; one bad problem spoils no
    other."""
    sets, spec = task.take(index)
    model, sets = fixed(task.model, sets)
    try:
        return [(index, bound(model, sets, method=method, spec=spec, observe=task.observe))], {}
    except (BoundError, MissingRule) as problem:
        if len(index) == 1 or isinstance(problem, MissingRule):
            return [], dict.fromkeys(index.tolist(), f"{describe(method)}: {problem}")
    halves = [attempt(task, half, method) for half in index.chunk(2)]
    return [part for parts, _ in halves for part in parts], {i: note for _, notes in halves for i, note in notes.items()}
