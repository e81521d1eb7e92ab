"""Linear functions of a step pulled back to the inputs, with all that rounding may do counted in.

A column of coefficients C (size, r) stands for sum C x. A step writes x as a linear function of its arguments plus numbers
between `low` and `high`; these take part as C+ low + C- high. What rounding loses is a multiple of |C| (for instance
|C| (|W| |x|) times a constant, when C W is computed), so it is counted by moving `low` and `high` outward at no cost here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from boundlab.certificates.balls import Balls
from boundlab.certificates.functions import Ends, Lines, Slopes
from boundlab.certificates.network import Affine, Input, Network, Part
from boundlab.certificates.rounding import TINY, UNDERFLOW, UNIT, below, gamma

BLOCK = 2**15
"""Coefficients that pass a step at a time, but at least those of `FEWEST` entries."""
FEWEST = 64
Coefficients = dict[int, Part]
"""Coefficients by step."""
Read = np.ndarray | None
"""Entries (k,) of a step that rows read, in increasing order; None for all."""
RoomOf = Callable[[int, Read], "Room"]
"""A step's room in entries that rows read."""


def some(table: np.ndarray, read: Read) -> np.ndarray:
    """The rows of a table that are read."""
    return table if read is None else table[read]


def at(table: np.ndarray, owner: np.ndarray, read: Read = None) -> np.ndarray:
    """The columns `owner` (r,) of a table (size, f) in the rows `read`; one column if all are the same."""
    if table.shape[1] == 1:
        return some(table, read)
    if len(owner) and (owner == owner[0]).all():
        return table[:, owner[:1]] if read is None else table[read, owner[0], None]
    return table[:, owner] if read is None else table[read[:, None], owner]


@dataclass(frozen=True)
class Room:
    """A step's numbers between `low` and `high` (size, r or 1), moved outward by what rounding may lose in its place.

    For a nonlinear step there are slopes: `lower` for positive coefficients and `upper` for negative ones, for each argument.
    """

    low: np.ndarray
    high: np.ndarray
    lower: Slopes = ()
    upper: Slopes = ()

    def at(self, owner: np.ndarray, read: Read) -> Room:
        """The columns `owner` (r,) in entries that are read; slopes that are one array below and above stay one."""
        def own(slope: np.ndarray) -> np.ndarray:
            return at(slope, owner, None if len(slope) == 1 else read)

        lower = tuple(map(own, self.lower))
        upper = tuple(mine if above is below_ else own(above) for mine, below_, above in
                      zip(lower, self.lower, self.upper, strict=True))
        return Room(at(self.low, owner, read), at(self.high, owner, read), lower, upper)


def widened(low: np.ndarray, high: np.ndarray, slack: np.ndarray | float) -> Ends:
    """Ends moved outward by `slack` and by what a sum of products with them may be wrong by."""
    room = 2 * gamma(low.shape[0]) * np.maximum(np.abs(low), np.abs(high)) + 1.01 * slack + TINY
    return low - room, high + room


def room_of_lines(lines: Lines, magnitudes: tuple[np.ndarray, ...], error: np.ndarray | None = None) -> Room:
    """The room of a nonlinear step whose arguments are at most `magnitudes`, and whose values are wrong by at most `error`."""
    slack: np.ndarray | float = 0.0 if error is None else error
    for below_, above_, magnitude in zip(lines.lower, lines.upper, magnitudes, strict=True):
        slack = slack + 2 * UNIT * np.maximum(np.abs(below_), np.abs(above_)) * magnitude
    return Room(*widened(lines.low, lines.high, slack), lines.lower, lines.upper)


def dots(table: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """The sum over entries of a table (size, r or 1) times coefficients (size, r), (r,)."""
    if table.shape[1] == 1:
        return table[:, 0] @ coefficients
    return np.einsum("sr,sr->r", table, coefficients)


def beside(first: Part, second: Part, size: int) -> tuple[Part, Part]:
    """Coefficients of one step on the same entries."""
    if first.read is None or second.read is None:
        return Part(None, first.of(size)), Part(None, second.of(size))
    if np.array_equal(first.read, second.read):
        return first, second
    read = np.union1d(first.read, second.read)
    return first.on(read), second.on(read)


def nowhere(step: int, read: Read) -> Room | None:
    """No step hardly varies."""
    return None


@dataclass
class Pull:
    """r linear functions on their way to the inputs: coefficients that wait at steps, and a bias (r,) so far.

    `magnitude` of a step is a bound of the absolute value of its entries, (size, 1). With `balls` (one for each function) the
    coefficients of inputs are kept in `arrived` until all are there, and `boxed` (r,) is their least value on the box. Where a
    step hardly varies its `point` ends the way: its ends, which say as much as any line.
    """

    network: Network
    waiting: Coefficients
    bias: np.ndarray
    magnitude: Callable[[int], np.ndarray]
    balls: Balls | None = None
    point: Callable[[int, Read], Room | None] = nowhere
    arrived: Coefficients = field(default_factory=dict)
    boxed: np.ndarray | float = 0.0

    def arrive(self, step: int, part: Part) -> None:
        """More coefficients of a step."""
        known, size = self.waiting.get(step), self.network.steps[step].size
        if known is not None:
            part, known = beside(part, known, size)
            part = Part(part.read, known.values + part.values)
            magnitude = self.magnitude(step) if part.read is None else self.magnitude(step)[part.read]
            self.bias = below(self.bias - 1.01 * UNIT * dots(magnitude, np.abs(part.values)) - TINY)
        self.waiting[step] = part

    def to_inputs(self, room: RoomOf) -> np.ndarray:
        """Lower bounds (r,) of the functions; NaN where something on the way was too large for a float."""
        while self.waiting:
            step = max(self.waiting)
            self.through(step, self.waiting.pop(step), room)
        if self.balls is None:
            return below(self.bias - UNDERFLOW)
        none = Part(np.zeros(0, dtype=np.int64), np.zeros((0, len(self.bias))))
        whole = [self.arrived.get(place, none).of(step.size) for place, step in enumerate(self.network.steps)
                 if isinstance(step, Input)]
        least = np.fmax(self.boxed, self.balls.least(np.concatenate(whole)))
        return below(below(self.bias + least) - UNDERFLOW)

    def through(self, step: int, part: Part, room: RoomOf) -> None:
        """Coefficients of a step become coefficients of its arguments, and a share of the bias."""
        found, point = self.network.steps[step], self.point(step, part.read)
        share, passed = shared(room(step, part.read) if point is None else point, part.values)
        if self.balls is not None and isinstance(found, Input):
            self.arrived[step], self.boxed = part, below(self.boxed + below(share))
            return
        self.bias = below(self.bias + below(share))
        if point is not None:
            return
        if isinstance(found, Affine):
            for argument, matrix in zip(found.arguments, found.matrices, strict=True):
                self.arrive(argument, matrix.pulled(part))
        elif not isinstance(found, Input):
            for argument, values in zip(found.arguments, passed, strict=True):
                self.arrive(argument, Part(part.read, values))


def shared(room: Room, values: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """What numbers between a room's ends give to functions (r,) at least, and for each argument the coefficients (size, r).

    A block of entries at a time, which stays in the processor's cache.
    """
    size, count = values.shape
    total, passed = np.zeros(count), [np.empty(values.shape) for _ in room.lower]
    length = max(BLOCK // max(count, 1), FEWEST)
    for block in (slice(start, start + length) for start in range(0, size, length)):
        part = values[block]
        positive, negative = np.maximum(part, 0), np.minimum(part, 0)
        total += dots(room.low[block], positive) + dots(room.high[block], negative)
        for lower, upper, out in zip(room.lower, room.upper, passed, strict=True):
            if lower is upper:
                np.multiply(shared_rows(lower, block), part, out=out[block])
                continue
            np.multiply(shared_rows(lower, block), positive, out=out[block])
            out[block] += shared_rows(upper, block) * negative
    return total, passed


def shared_rows(table: np.ndarray, block: slice) -> np.ndarray:
    """Some entries of a table (size, r or 1), or its only one."""
    return table if len(table) == 1 else table[block]
