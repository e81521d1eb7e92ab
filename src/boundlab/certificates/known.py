"""What is known of every step on f boxes (frames): intervals of all tensors, derived from the boxes alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from boundlab.certificates.balls import Balls
from boundlab.certificates.functions import Ends, lines_of
from boundlab.certificates.network import Affine, Input, Linear, Matrix, Network, Nonlinear, Part, arguments_of, repeated
from boundlab.certificates.pull import Pull, Read, Room, at, room_of_lines, some, widened
from boundlab.certificates.rounding import LARGEST, TINY, above, below, gamma, largest
from boundlab.certificates.work import ALONE, Work

MOST_NUMBERS = 2**18
"""Coefficients of one step that are pulled at a time, but at least `FEWEST` rows; measured: with fewer, calls cost more."""
FEWEST = 64
"""Rows that are pulled together at least."""
NARROW = 2.0**-40
"""The share of a step's largest absolute value from which down an interval counts as a point: rounding alone is as wide."""


@dataclass(frozen=True)
class Rows:
    """Lower or upper ends of neurons (r,) on frames (r,) of an argument, `target` = (step, number of the argument)."""

    target: tuple[int, int]
    neuron: np.ndarray
    frame: np.ndarray
    upper: bool = False


Given = Callable[[int, Rows, Read], Sequence[Ends | None] | None]
"""Slopes (k, r) for each argument of a step in entries that rows read while they are pulled through it, or None."""
Plain = Callable[[int], Sequence[Ends | None] | None]
"""Slopes (size, f or 1) for each argument of a step, or None."""


@dataclass
class Known:
    """Ends (size, f) of every step so far, and the rooms of steps: (size, f), of affine ones (size, 1) for all frames.

    `magnitudes` (size, 1) bound the absolute values on all frames; `balls` are those that frames lie in beside their boxes.
    `errors` (size, 1) are those of nonlinear steps as they run, where the proof is about that. On `empty` frames (f,) nothing
    is left of what is asked about. `points` are the ends of steps that hardly vary on any frame, where rows end.
    """

    network: Network
    frames: int
    balls: Balls | None = None
    errors: dict[int, np.ndarray] = field(default_factory=dict)
    ends: list[Ends] = field(default_factory=list)
    magnitudes: list[np.ndarray] = field(default_factory=list)
    rooms: dict[int, Room] = field(default_factory=dict)
    empty: np.ndarray | None = None
    points: dict[int, Room] = field(default_factory=dict)

    def learn(self, step: int, ends: Ends) -> None:
        """The ends of the next step, or better ends of an earlier one."""
        magnitude = largest(*ends).max(axis=1, keepdims=True)
        self.ends[step:step + 1], self.magnitudes[step:step + 1] = [ends], [magnitude]

    def magnitude(self, step: int) -> np.ndarray:
        """A bound of absolute values on all frames, (size, 1)."""
        return self.magnitudes[step]

    def arguments(self, step: int) -> list[Ends]:
        """Ends of a nonlinear step's arguments."""
        found = self.network.steps[step]
        assert isinstance(found, Nonlinear)
        return [self.ends[argument] for argument in found.arguments]

    def lined(self, step: int, ends: Sequence[Ends], slopes: Sequence[Ends | None], read: Read = None) -> Room:
        """The room of a nonlinear step in entries `read` (k,), of all for None: lines on ends (k, r or 1) of the arguments."""
        found, error = self.network.steps[step], self.errors.get(step)
        assert isinstance(found, Nonlinear)
        magnitudes = tuple(some(self.magnitude(argument), read) for argument in found.arguments)
        lines = lines_of(found.function.on(read), ends, slopes)
        return room_of_lines(lines, magnitudes, None if error is None else some(error, read))

    def room(self, step: int, owner: np.ndarray, read: Read) -> Room:
        """A step's room for rows of the frames `owner`, of the entries `read`."""
        return self.rooms[step].at(owner, read)

    def pull_of(self, owner: np.ndarray) -> Pull:
        """Functions of the frames `owner` (r,), nothing of which has arrived yet."""
        def point(step: int, read: Read) -> Room | None:
            return self.points[step].at(owner, read) if step in self.points else None

        balls = None if self.balls is None else self.balls.at(owner)
        return Pull(self.network, {}, np.zeros(len(owner)), self.magnitude, balls, point)


@dataclass(frozen=True)
class Slopes:
    """Slopes of lines by step: of frames' `plain` lines, and while `rows` of inner intervals are pulled through it.

    With `thorough` the intervals of all neurons are derived, not only of those whose lines need them. Intervals that are not
    reached in time stay as wide as they are.
    """

    rows: Given = lambda step, rows, read: None
    plain: Plain = lambda step: None
    thorough: bool = False
    work: Work = ALONE


@np.errstate(all="ignore")
def derive(network: Network, boxes: Sequence[Ends], slopes: Slopes, balls: Balls | None = None,
           reach: Sequence[np.ndarray] | None = None) -> Known:
    """Everything about f boxes, one pair of ends (size, f) for each input in turn, met with balls.

    With `reach` no more than interval arithmetic about entries of steps that it leaves out.
    """
    known = Known(network, boxes[0][0].shape[1], balls)
    shapes, straight, inputs = exactness(network, balls is not None), linear_in_inputs(network), iter(boxes)
    asked: set[int] = set()
    for place, step in enumerate(network.steps):
        if isinstance(step, Input):
            ends = finite(next(inputs), (step.size, known.frames))
            known.learn(place, ends)
            known.rooms[place] = Room(*widened(*ends, 0.0))
        elif isinstance(step, Affine):
            known.learn(place, affine_ends(known, place, step))
        else:
            for number, source in enumerate(step.sources):
                if not shapes[source] and source not in asked:
                    every = slopes.thorough or step.asks is not None or straight[source]
                    refine(known, (place, number), slopes, every, None if reach is None else reach[source])
            asked |= set(step.asks or ())
            if step.asks:
                for argument in step.arguments:
                    again(known, argument)
            values = nonlinear_values(known, place, step)
            plain = slopes.plain(place) or [None] * len(step.arguments)
            known.rooms[place] = known.lined(place, known.arguments(place), plain)
            known.learn(place, values)
        if not isinstance(step, Input) and pointed(known.ends[place]).all():
            known.points[place] = Room(*widened(*known.ends[place], 0.0))
    return known


def exactness(network: Network, balls: bool) -> list[bool]:
    """Steps whose interval arithmetic loses nothing: linear functions of inputs, each of which arrives along one path.

    On balls only multiples of single inputs are exact.
    """
    apart: list[bool] = []
    found: list[bool] = []
    for step in network.steps:
        single = isinstance(step, Affine) and len(step.arguments) == 1
        source = step.arguments[0] if isinstance(step, Affine) else 0
        scaling = isinstance(step, Affine) and single and one_each(step)
        apart.append(isinstance(step, Input) or (scaling and apart[source]))
        found.append(apart[-1] if balls else isinstance(step, Input) or (single and apart[source]))
    return found


def linear_in_inputs(network: Network) -> list[bool]:
    """Steps that no nonlinear step comes before."""
    found: list[bool] = []
    for step in network.steps:
        found.append(not isinstance(step, Nonlinear) and all(found[argument] for argument in arguments_of(step)))
    return found


def one_each(step: Affine) -> bool:
    """Whether each entry is a multiple of one entry of the argument, which no other reads."""
    return single_entries(step.matrices[0])


def single_entries(matrix: Linear) -> bool:
    """The same for a matrix."""
    if not isinstance(matrix, Matrix):
        return False
    nonzero = matrix.absolute != 0
    return int(nonzero.sum(axis=0).max()) <= 1 and int(nonzero.sum(axis=1).max()) <= 1


def finite(ends: Ends, shape: tuple[int, int]) -> Ends:
    """Ends of full shape, infinite where they are no numbers or larger than `LARGEST`."""
    low, high = (np.broadcast_to(end, shape) for end in ends)
    return np.where(np.abs(low) <= LARGEST, low, -np.inf), np.where(np.abs(high) <= LARGEST, high, np.inf)


def nonlinear_values(known: Known, place: int, step: Nonlinear) -> Ends:
    """The ends of a nonlinear step's values; as it runs, further apart by its error, which is noted."""
    low, high = step.function.values(known.arguments(place))
    if known.network.single is not None:
        error = known.errors[place] = known.network.single.nonlinear(step, known.arguments(place), (low, high))
        low, high = below(low - error), above(high + error)
    return finite((low, high), (step.size, known.frames))


def affine_ends(known: Known, place: int, step: Affine) -> Ends:
    """Interval arithmetic through an affine step, whose room is noted on the way."""
    center = np.repeat(step.bias[:, None], known.frames, axis=1)
    radius, slack, total = np.zeros_like(center), step.slack[:, None], step.scale[:, None]
    for argument, matrix in zip(step.arguments, step.matrices, strict=True):
        lower, upper = known.ends[argument]
        middle = lower / 2 + upper / 2
        reach = above(np.maximum(upper - middle, middle - lower))
        center, radius = center + matrix.times(middle), radius + matrix.times_absolute(reach)
        size = matrix.times_absolute(known.magnitude(argument))
        slack, total = slack + matrix.error * size, total + size
    if known.network.single is not None:
        slack = slack + known.network.single.affine(place, 1.01 * total, [known.magnitude(one) for one in step.arguments])
    count = 4 * (len(step.arguments) + 2)
    bias, size = step.bias[:, None], (np.abs(center) + radius).max(axis=1, keepdims=True)
    slack = 1.01 * slack + gamma(count) * (np.abs(bias) + size) + TINY
    known.rooms[place] = Room(*widened(bias, bias, slack))
    # The radius is a sum of as many terms as the center, with absolute values that are no larger: thrice covers both.
    room = radius + 3 * slack
    low, high = below(center - room), above(center + room)
    if step.range is not None and known.network.single is None:
        least, most = step.range.within(known.ends[step.arguments[0]])
        low, high = np.fmax(low, least), np.fmin(high, most)
    return finite((low, high), room.shape)


def again(known: Known, place: int) -> None:
    """Better ends of an affine step, from those of its arguments."""
    step, old = known.network.steps[place], known.ends[place]
    assert isinstance(step, Affine)
    low, high = affine_ends(known, place, step)
    known.learn(place, (np.fmax(old[0], low), np.fmin(old[1], high)))


def refine(known: Known, target: tuple[int, int], slopes: Slopes, everything: bool, reach: np.ndarray | None = None) -> None:
    """Better ends of a source of a nonlinear step, `target` = (step, number), pulled back with the slopes given.

    Of an argument that only repeats entries of an earlier step, those of that step, each once.
    Of those that are in `reach` (all for None), where they help its lines, or `everything`, from which later intervals gain.
    Upper ends come first, because many neurons of a trained network turn out to be dead, and need no lower ends then.
    """
    place, number = target
    step = known.network.steps[place]
    assert isinstance(step, Nonlinear)
    source = step.sources[number]
    argument, repeats = repeated(known.network, source)
    widest = max(one.size for one in known.network.steps[:place + 1])
    near = whereabouts(known.network, argument)
    together, order = max(MOST_NUMBERS // widest, FEWEST), np.argsort(near, kind="stable")
    for upper in (True, False):
        open_ = ~pointed(known.ends[source])
        if reach is not None:
            open_ &= reach[:, None]
        if not everything:
            open_ &= ~step.function.settled([collapsed(one) for one in known.arguments(place)])
        if repeats is not None:
            open_, asked = np.zeros((known.network.steps[argument].size, known.frames), dtype=bool), open_
            np.logical_or.at(open_, repeats, asked)
        frames, neurons = np.nonzero(open_[order].T)
        neurons = order[neurons]
        ends = known.ends[argument]
        low, high = ends[0].copy(), ends[1].copy()
        count = slopes.work.portion(len(frames), together, FEWEST)
        every = [Rows(target, neurons[part], frames[part], upper) for part in parted(frames, near[neurons], count)]
        for rows, found in slopes.work.each(functools.partial(pulled_back, known, argument, slopes.rows), every):
            where = (rows.neuron, rows.frame)
            if upper:
                high[where] = np.fmin(high[where], -found)
            else:
                low[where] = np.fmax(low[where], found)
        known.learn(argument, finite((low, high), low.shape))
        if repeats is not None:
            known.learn(source, tuple(end[repeats] for end in known.ends[argument]))


def pulled_back(known: Known, argument: int, given: Given, rows: Rows, work: Work) -> np.ndarray:
    """Lower bounds of an argument's neurons (r,), or of their negatives for upper ends."""
    return begun(known, argument, rows).to_inputs(functools.partial(room_of, known, given, rows))


def parted(frames: np.ndarray, near: np.ndarray, together: int) -> Iterator[slice]:
    """Rows of frames (r,), in order, so many at a time at most, and at least half as many: up to where a frame or, by the
    numbers `near` (r,), most of what the rows read ends."""
    apart = (near[1:] ^ near[:-1]).astype(np.int64)
    change = np.append(np.where(frames[1:] == frames[:-1], apart, np.iinfo(np.int64).max), 0)
    start = 0
    while start < len(frames):
        stop = min(start + together, len(frames))
        if stop < len(frames):
            least = start + (together + 1) // 2
            stop = least + int(change[least - 1:stop].argmax())
        yield slice(start, stop)
        start = stop


def pointed(ends: Ends) -> np.ndarray:
    """Where an interval is so narrow that rows pulled back would tell no more."""
    size = largest(*ends)
    return ends[1] - ends[0] <= NARROW * size.max(axis=0, keepdims=True, initial=0, where=np.isfinite(size))


def collapsed(ends: Ends) -> Ends:
    """Intervals that are as good as points as points, for asking what is linear on them."""
    middle, point = ends[0] / 2 + ends[1] / 2, pointed(ends)
    return np.where(point, middle, ends[0]), np.where(point, middle, ends[1])


def whereabouts(network: Network, place: int, made: dict[int, np.ndarray] | None = None) -> np.ndarray:
    """For each entry of a step a number that is near for entries that read the same: rows that are pulled together read few.

    It is the first entry that the last sparse affine step before reads, for a convolution the place of its window. Of several
    arguments that one counts by which most entries are alike. `made` are those of earlier steps.
    """
    made = {} if made is None else made
    if place not in made:
        step = network.steps[place]
        if isinstance(step, Input):
            made[place] = np.arange(step.size)
        elif isinstance(step, Nonlinear):
            made[place] = whereabouts(network, step.arguments[0], made)
        else:
            found = [beyond(network, argument, matrix, made)
                     for argument, matrix in zip(step.arguments, step.matrices, strict=True)]
            made[place] = min(found, key=lambda one: len(np.unique(one)), default=np.arange(step.size))
    return made[place]


def beyond(network: Network, argument: int, matrix: Linear, made: dict[int, np.ndarray]) -> np.ndarray:
    """The same for an affine step by one of its arguments."""
    first = matrix.near()
    if first is None:
        return np.arange(matrix.shape[0])
    return whereabouts(network, argument, made)[first] if single_entries(matrix) else first


def room_of(known: Known, given: Given, rows: Rows, step: int, read: Read) -> Room:
    """A step's room for rows: that of their frames, or a new one where they have slopes of their own."""
    slopes = given(step, rows, read) if isinstance(known.network.steps[step], Nonlinear) else None
    if slopes is None:
        return known.room(step, rows.frame, read)
    ends = [(at(low, rows.frame, read), at(high, rows.frame, read)) for low, high in known.arguments(step)]
    return known.lined(step, ends, slopes, read)


def begun(known: Known, argument: int, rows: Rows) -> Pull:
    """The neurons of a step, for upper ends their negatives; those of an affine step are rows of its matrices: a step less."""
    step, pull, sign = known.network.steps[argument], known.pull_of(rows.frame), -1.0 if rows.upper else 1.0
    if not isinstance(step, Affine):
        single = np.zeros((step.size, len(rows.neuron)))
        single[rows.neuron, np.arange(len(rows.neuron))] = sign
        pull.arrive(argument, Part(None, single))
        return pull
    room = known.rooms[argument]
    pull.bias = -room.high[rows.neuron, 0] if rows.upper else room.low[rows.neuron, 0]
    for source, matrix in zip(step.arguments, step.matrices, strict=True):
        chosen = matrix.rows(rows.neuron)
        pull.arrive(source, Part(chosen.read, np.ascontiguousarray(sign * chosen.values)))
    return pull
