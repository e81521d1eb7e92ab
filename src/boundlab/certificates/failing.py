"""Intervals that hold where a frame's clause fails, derived after all others: its atoms go back with the neurons."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from boundlab.certificates.assumption import Assumption, Assumptions, of_frames
from boundlab.certificates.functions import Ends
from boundlab.certificates.known import FEWEST, MOST_NUMBERS, Given, Known, Plain, Rows, again, begun, finite, room_of
from boundlab.certificates.leaves import Places, as_columns
from boundlab.certificates.naming import Argument
from boundlab.certificates.network import Nonlinear, Part, repeated
from boundlab.certificates.pull import Read, dots
from boundlab.certificates.rounding import below
from boundlab.certificates.unsafe import Atoms
from boundlab.certificates.work import Work

Members = tuple[Rows, np.ndarray]
"""Some neurons on frames, and their places (r,) in an assumption."""


@dataclass(frozen=True)
class Failing:
    """What is assumed on f frames: assumptions for them, the clause of each (f,), all atoms, and slopes of frames' lines."""

    assumed: Assumptions
    clause: np.ndarray
    atoms: Atoms
    plain: Plain
    work: Work


@np.errstate(all="ignore")
def learn_failing(known: Known, places: Places, failing: Failing) -> None:
    """Better ends of the arguments that assumptions are about, in the order of the steps; which frames have no point left."""
    empty = np.zeros(known.frames, dtype=bool)
    for target, assumption in targets(places, failing.assumed):
        step = known.network.steps[target[0]]
        assert isinstance(step, Nonlinear)
        tensor = step.sources[target[1]]
        argument, repeats = repeated(known.network, tensor)
        low, high = (end.copy() for end in known.ends[argument])
        for side in range(2):
            for rows, found in bounded(known, target, side, assumption, failing):
                if side:
                    high[rows.neuron, rows.frame] = np.fmin(high[rows.neuron, rows.frame], -found)
                else:
                    low[rows.neuron, rows.frame] = np.fmax(low[rows.neuron, rows.frame], found)
        crossed = (low > high).any(axis=0)
        empty |= crossed
        low, high = (np.where(crossed, old, new) for old, new in zip(known.ends[argument], (low, high), strict=True))
        known.learn(argument, finite((low, high), low.shape))
        if repeats is not None:
            known.learn(tensor, (known.ends[argument][0][repeats], known.ends[argument][1][repeats]))
        renew(known, {argument, tensor}, failing.plain)
    known.empty = empty


def targets(places: Places, assumed: Assumptions) -> Iterator[tuple[tuple[int, int], Assumption]]:
    """What assumptions are about, each once, as (step, number of the source) in the order of the steps."""
    left = dict(assumed)
    for place, step in enumerate(places.network.steps):
        for number in range(len(step.sources) if isinstance(step, Nonlinear) else 0):
            goal = places.goal((place, number))
            if goal is not None and goal in left:
                yield (place, number), left.pop(goal)


def bounded(known: Known, target: tuple[int, int], side: int, assumption: Assumption, failing: Failing
            ) -> list[tuple[Rows, np.ndarray]]:
    """Lower bounds of neurons (side 0) or of their negatives (1), some at a time, where any multiplier is above 0."""
    network = known.network
    argument, _ = repeated(network, network.steps[target[0]].sources[target[1]])  # type: ignore[union-attr]

    def found(members: Members, work: Work) -> np.ndarray:
        rows, number = members
        coefficients, constants, slack = failing.atoms.rows(multipliers[rows.frame, number], failing.clause[rows.frame])
        pull = begun(known, argument, rows)
        pull.bias = below(pull.bias + below(constants - dots(known.magnitude(network.output), slack)))
        pull.arrive(network.output, Part(None, coefficients))
        return pull.to_inputs(functools.partial(room_of, known, given(known, assumption, side, number), rows))

    multipliers = np.broadcast_to(assumption.multipliers, (known.frames, *assumption.multipliers.shape[1:]))[:, side]
    frames, numbers = np.nonzero((multipliers > 0).any(axis=2))
    together = max(MOST_NUMBERS // max(step.size for step in network.steps), FEWEST)
    together = failing.work.portion(len(frames), together, FEWEST)
    every: list[Members] = []
    for start in range(0, len(frames), together):
        number = numbers[start:start + together]
        every.append((Rows(target, assumption.neurons[number], frames[start:start + together], bool(side)), number))
    return [(rows, bounds) for (rows, _), bounds in failing.work.each(found, every)]


def given(known: Known, assumption: Assumption, side: int, number: np.ndarray) -> Given:
    """The slopes of an assumption for its neurons `number` (r,), by place."""
    def slopes(step: int, rows: Rows, read: Read) -> Sequence[Ends | None] | None:
        found = known.network.steps[step]
        assert isinstance(found, Nonlinear)
        pairs: list[Ends | None] = []
        for place in range(len(found.arguments)):
            lines = assumption.lines.get(Argument(found.name, place))
            frame = rows.frame if lines is not None and len(lines) > 1 else np.zeros_like(rows.frame)
            own = None if lines is None else as_columns(lines, (frame, np.full_like(frame, side), number), read)
            pairs.append(None if own is None else (own, own))
        return pairs if any(pair is not None for pair in pairs) else None

    return slopes


def renew(known: Known, tensors: set[int], plain: Plain) -> None:
    """New rooms of the nonlinear steps that read some tensors, or whose arguments are bounded by theirs."""
    for place, step in enumerate(known.network.steps):
        if not isinstance(step, Nonlinear):
            continue
        asks = not tensors.isdisjoint(step.asks or ())
        for argument in step.arguments if asks else ():
            again(known, argument)
        if asks or not tensors.isdisjoint(step.arguments):
            slopes = plain(place) or [None] * len(step.arguments)
            known.rooms[place] = known.lined(place, known.arguments(place), slopes)


def assumed_on(assumed: Assumptions, frames: np.ndarray) -> Assumptions:
    """Assumptions for some frames."""
    return {target: one.at(frames) for target, one in assumed.items() if len(of_frames(one.multipliers, frames))}
