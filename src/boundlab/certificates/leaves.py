"""The proofs of single leaves: intervals end at the constraints, and the leaf's row is pulled back with its own slopes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from boundlab.certificates.certificate import Argument, CaseProof, Pair
from boundlab.certificates.functions import Ends
from boundlab.certificates.known import FEWEST, Known, Rows
from boundlab.certificates.narrowing import Narrowed
from boundlab.certificates.network import Affine, Input, Network, Nonlinear, Part, repeated
from boundlab.certificates.pull import Pull, Read, Room, at, dots, some, widened
from boundlab.certificates.rounding import TINY, UNDERFLOW, UNIT, below
from boundlab.certificates.unsafe import Atoms
from boundlab.errors import CertificateError

MOST_NUMBERS = 2**20
"""Numbers that the rows of ends on single leaves may hold over the whole network."""


@dataclass(frozen=True)
class Places:
    """Where a network has what certificates name: (step, argument number) by name, and the step that computes the tensor."""

    network: Network
    numbers: Mapping[Argument, tuple[int, int]]

    def tensor(self, argument: Argument) -> int:
        """The step that computes an argument; of an input or a linear operator, itself."""
        place, number = self.numbers[argument]
        step = self.network.steps[place]
        return step.arguments[number] if isinstance(step, Nonlinear) else place

    def size(self, argument: Argument) -> int:
        """How many entries an argument has."""
        return self.network.steps[self.numbers[argument][0]].size

    def goal(self, target: tuple[int, int]) -> Argument | None:
        """What the intervals are called that are derived for a source, `target` = (step, number): what it repeats, if so.

        None where another step has that name, too.
        """
        step = self.network.steps[target[0]]
        assert isinstance(step, Nonlinear)
        source, index = repeated(self.network, step.sources[target[1]])
        if index is None and step.asks is None:
            return Argument(step.name, target[1])
        own = Argument(self.network.steps[source].name)
        return own if self.numbers.get(own) == (source, 0) else None

    @cached_property
    def goals(self) -> frozenset[Argument | None]:
        """All that intervals are derived for."""
        return frozenset(self.goal((place, number)) for place, step in enumerate(self.network.steps)
                         if isinstance(step, Nonlinear) for number in range(len(step.sources)))

    def bends(self, argument: Argument) -> bool:
        """Whether it is an argument of a nonlinear step, which has lines."""
        return argument in self.numbers and isinstance(self.network.steps[self.numbers[argument][0]], Nonlinear)


def places_of(network: Network) -> Places:
    """All inputs, arguments of nonlinear steps, and values of linear ones with a name of their own.

    CertificateError for a name that two nonlinear steps or inputs have.
    """
    found: dict[Argument, tuple[int, int]] = {}
    for place, step in enumerate(network.steps):
        if isinstance(step, Affine):
            continue
        for number in range(len(step.arguments) if isinstance(step, Nonlinear) else 1):
            if Argument(step.name, number) in found:
                raise CertificateError(f"two steps of the network are called '{step.name}', which nobody can tell apart.")
            found[Argument(step.name, number)] = (place, number)
    names = Counter(step.name for step in network.steps)
    linear = {Argument(step.name): (place, 0) for place, step in enumerate(network.steps)
              if isinstance(step, Affine) and names[step.name] == 1}
    return Places(network, found | linear)


@dataclass(frozen=True)
class Leaves:
    """Some leaves of a case (r,) with the frame of each, by place in `known`."""

    proof: CaseProof
    places: Places
    known: Known
    chosen: np.ndarray
    owner: np.ndarray

    def constraints(self) -> Sequence[tuple[int, np.ndarray, int]]:
        """For each place in turn and each argument: the step that computes it, the leaves with such a constraint, the place."""
        found = []
        for depth in range(self.proof.step.shape[1]):
            named = self.proof.step[self.chosen, depth]
            for number in np.unique(named[named >= 0]):
                tensor = self.places.tensor(self.proof.steps[number])
                found.append((tensor, np.flatnonzero(named == number), depth))
        return found

    @np.errstate(all="ignore")
    def lower_bounds(self, atoms: Atoms) -> np.ndarray:
        """What each leaf's row is above, (r,): infinity for a leaf without any point."""
        clipped, empty = self.clipped()
        network = self.known.network
        pull = self.known.pull_of(self.owner)
        rows, constants, slack = atoms.rows(self.proof.weights[self.chosen], self.proof.clause[self.chosen])
        pull.bias = below(constants - dots(self.known.magnitude(network.output), slack))
        direct = self.on_interval(rows, pull.bias)
        self.multiply(pull, self.proof.multiplier[self.chosen])
        pull.arrive(network.output, Part(None, rows))
        if self.known.empty is not None:
            empty = empty | self.known.empty[self.owner]
        return np.where(empty, np.inf, np.fmax(direct, pull.to_inputs(lambda step, read: self.room(step, read, clipped))))

    def on_interval(self, rows: np.ndarray, constants: np.ndarray) -> np.ndarray:
        """What rows (size, r) plus constants (r,) are above on the output's interval: seldom more than what is pulled back."""
        low, high = (at(end, self.owner) for end in self.known.ends[self.known.network.output])
        room = Room(*widened(low, high, 0.0))
        total = below(dots(room.low, np.maximum(rows, 0)) + dots(room.high, np.minimum(rows, 0)))
        return below(below(constants + total) - UNDERFLOW)

    def clipped(self) -> tuple[dict[int, Ends], np.ndarray]:
        """Ends (size, r) of the tensors that constraints are about, and which leaves they leave without a point."""
        found: dict[int, Ends] = {}
        empty = np.zeros(len(self.chosen), dtype=bool)
        for tensor, leaves, depth in self.constraints():
            if tensor not in found:
                found[tensor] = self.whole(tensor)
            lower, upper = found[tensor]
            leaf = self.chosen[leaves]
            neuron, point = self.proof.neuron[leaf, depth], self.proof.point[leaf, depth]
            over = self.proof.side[leaf, depth] > 0
            lower[neuron[over], leaves[over]] = np.maximum(lower[neuron[over], leaves[over]], point[over])
            upper[neuron[~over], leaves[~over]] = np.minimum(upper[neuron[~over], leaves[~over]], point[~over])
        self.narrow(found)
        for lower, upper in found.values():
            empty |= (lower > upper).any(axis=0)
        for lower, upper in found.values():
            upper[:, empty] = np.maximum(lower, upper)[:, empty]
        return found, empty

    def whole(self, tensor: int) -> Ends:
        """A tensor's ends on the frames of the leaves, (size, r)."""
        shape = (self.known.network.steps[tensor].size, len(self.chosen))
        lower, upper = (np.broadcast_to(at(end, self.owner), shape).copy() for end in self.known.ends[tensor])
        return lower, upper

    def narrow(self, found: dict[int, Ends]) -> None:
        """Move the ends (size, r) of tensors to where the certificate's multipliers show that they are on single leaves."""
        if self.proof.narrowed is None:
            return
        own = self.proof.narrowed.of(self.chosen)
        for number in np.unique(own.step):
            tensor = self.places.tensor(self.proof.steps[number])
            if tensor not in found:
                found[tensor] = self.whole(tensor)
            lower, upper = found[tensor]
            members = np.flatnonzero(own.step == number)
            count = max(MOST_NUMBERS // sum(step.size for step in self.known.network.steps), FEWEST)
            for start in range(0, len(members), count):
                ends = own.at(members[start:start + count])
                point, above = self.least(tensor, ends), ends.side > 0
                np.fmax.at(lower, (ends.neuron[above], ends.leaf[above]), point[above])
                np.fmin.at(upper, (ends.neuron[~above], ends.leaf[~above]), -point[~above])

    def least(self, tensor: int, ends: Narrowed) -> np.ndarray:
        """What each end's neuron, times its side, is at least on its leaf, (m,); NaN where nothing is known."""
        leaves = replace(self, chosen=self.chosen[ends.leaf], owner=self.owner[ends.leaf])
        rows = np.zeros((self.known.network.steps[tensor].size, len(ends.leaf)))
        rows[ends.neuron, np.arange(len(ends.leaf))] = ends.side
        pull = self.known.pull_of(leaves.owner)
        leaves.multiply(pull, ends.multiplier.astype(np.float64))
        pull.arrive(tensor, Part(None, rows))
        return pull.to_inputs(lambda step, read: self.known.room(step, leaves.owner, read))

    def multiply(self, pull: Pull, multiplier: np.ndarray) -> None:
        """Subtract multiplier (r, c) * side * (value - point), which is at least 0 on the leaf, from each leaf's row."""
        for tensor, leaves, depth in self.constraints():
            if isinstance(self.known.network.steps[tensor], Input):
                continue
            leaf = self.chosen[leaves]
            neuron = self.proof.neuron[leaf, depth]
            factor = multiplier[leaves, depth] * self.proof.side[leaf, depth]
            if tensor not in pull.waiting:
                pull.waiting[tensor] = Part(None, np.zeros((self.known.network.steps[tensor].size, len(self.chosen))))
            waiting = pull.waiting[tensor].values
            waiting[neuron, leaves] -= factor
            magnitude = np.broadcast_to(pull.magnitude(tensor), waiting.shape)
            lost = UNIT * 1.01 * np.abs(waiting[neuron, leaves]) * magnitude[neuron, leaves] + TINY
            pull.bias[leaves] = below(pull.bias[leaves] + below(below(factor * self.proof.point[leaf, depth]) - lost))

    def room(self, step: int, read: Read, clipped: Mapping[int, Ends]) -> Room:
        """A step's room: new where a constraint ends its intervals or the leaf has lines of its own."""
        found = self.known.network.steps[step]
        if isinstance(found, Input) and step in clipped:
            lower, upper = clipped[step]
            return Room(*widened(some(lower, read), some(upper, read), 0.0))
        if not isinstance(found, Nonlinear):
            return self.known.room(step, self.owner, read)
        arguments = [Argument(found.name, number) for number in range(len(found.arguments))]
        if not any(argument in clipped for argument in found.arguments) and self.proof.lines.keys().isdisjoint(arguments):
            return self.known.room(step, self.owner, read)
        ends: list[Ends] = []
        for argument, (lower, upper) in zip(found.arguments, self.known.arguments(step), strict=True):
            own = clipped.get(argument)
            ends.append((at(lower, self.owner, read), at(upper, self.owner, read)) if own is None else (
                some(own[0], read), some(own[1], read)))
        return self.known.lined(step, ends, [self.given(argument, read) for argument in arguments], read)

    def given(self, argument: Argument, read: Read) -> Ends | None:
        """The leaves' own slopes, and those of their frames where these are NaN, (k, r or 1) in entries that are read."""
        own, plain = self.proof.lines.get(argument), self.proof.plain.get(argument)
        first = None if own is None else columns(own, self.chosen, read)
        second = None if plain is None else columns(plain, self.proof.frame[self.chosen], read)
        if first is None or second is None:
            return first or second
        low, high = (np.where(np.isnan(mine), its, mine) for mine, its in zip(first, second, strict=True))
        return low, high


def columns(pair: Pair, chosen: np.ndarray, read: Read = None) -> Ends:
    """Slopes (n or 1, size) of those that are chosen as columns (k, r or 1), in entries that are read."""
    low, high = (as_columns(slopes, (chosen if len(slopes) > 1 else np.zeros(1, dtype=np.int64),), read) for slopes in pair)
    return low, high


def inner_slopes(pair: Pair, rows: Rows, frames: np.ndarray, read: Read) -> Ends:
    """Slopes (k, r) out of a certificate's arrays, while rows on frames (r,), by number in the case, are pulled."""
    found = []
    for slopes in pair:
        wanted = (frames, np.full_like(frames, rows.upper), rows.neuron)
        places = tuple(place if size > 1 else np.zeros_like(place) for place, size in zip(wanted, slopes.shape, strict=False))
        found.append(as_columns(slopes, places, read))
    return found[0], found[1]


def as_columns(slopes: np.ndarray, places: tuple[np.ndarray, ...], read: Read) -> np.ndarray:
    """Some rows of slopes (..., size), by their places (r,) along each axis but the last, as columns (k, r)."""
    rows = slopes[places] if read is None else slopes[(*(place[:, None] for place in places), read)]
    return np.ascontiguousarray(rows.T, dtype=np.float64)
