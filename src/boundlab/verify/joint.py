"""Work that processes do jointly: all run the same function, and of its long lists of items each does every n-th.

Unlike shares of a turn the parts depend on each other: what one process found is needed by the others at the next list.
"""

from __future__ import annotations

import hashlib
import math
import pickle
import pkgutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from boundlab.certificates.work import Work
from boundlab.engines.child import send
from boundlab.errors import BoundlabError, OutOfTime

GRACE = 2.0
"""Seconds after the end of joint work for which a process may need to notice."""
Joined = Callable[..., Any]
"""A function of a module, of `Work` and of what it is about."""


@dataclass(frozen=True)
class Order:
    """Joint work by its number: a function's name and arguments, which of how many hands the process is, and the deadline."""

    number: int
    name: str
    about: tuple[Any, ...]
    hand: int
    hands: int
    deadline: float


@dataclass(frozen=True)
class Piece:
    """What a hand found for its share of the list `place`; `items` says which items the list has."""

    number: int
    place: int
    items: bytes
    found: Sequence[Any]


@dataclass(frozen=True)
class Whole:
    """What all hands found for the list `place`."""

    number: int
    place: int
    found: Sequence[Any]


@dataclass(frozen=True)
class Stop:
    """No more is wanted of joint work."""

    number: int


@dataclass(frozen=True)
class Done:
    """A process has ended its part of joint work."""

    number: int


def identity(items: Sequence[Any]) -> bytes:
    """What tells lists of items apart: an answer about other items would be a wrong bound."""
    return hashlib.blake2b(pickle.dumps(items, protocol=5)).digest()


@dataclass(eq=False)
class Hand:
    """A process that takes part, and how many lists it has shared."""

    pipe: Connection
    order: Order
    place: int = 0

    def deal(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Sequence[Any]:
        """What all hands found for the items; OutOfTime if that is no longer wanted."""
        self.place, order = self.place + 1, self.order
        own = [function(item) for item in items[order.hand::order.hands]]
        send(self.pipe, Piece(order.number, self.place, identity(items), own))
        said = self.pipe.recv()
        if not isinstance(said, Whole) or (said.number, said.place) != (order.number, self.place):
            raise OutOfTime("the joint work has been given up.")
        return said.found

    def over(self) -> bool:
        """Never: hands that see the time end at different moments would go different ways. OutOfTime instead."""
        if time.perf_counter() >= self.order.deadline:
            raise OutOfTime("the joint work was not done in time.")
        return False


def take_part(pipe: Connection, order: Order) -> None:
    """Joint work in a process that another leads; what it fails to do the others do."""
    hand = Hand(pipe, order)
    with suppress(BoundlabError, ArithmeticError, ValueError, RuntimeError, MemoryError):
        pkgutil.resolve_name(order.name)(Work(hand.over, order.hands, hand.deal), *order.about)
    send(pipe, Done(order.number))


@dataclass(eq=False)
class Helper:
    """The pipe to a process that takes part; whether it still keeps up with the others, and whether it has ended its part."""

    pipe: Connection
    keeps_up: bool = True
    done: bool = False

    def tell(self, message: object) -> None:
        """Say something to one that keeps up; one that cannot hear does not."""
        try:
            send(self.pipe, message)
        except OSError:
            self.keeps_up = False

    def heard(self, number: int, seconds: float | None) -> Piece | None:
        """The next piece of the joint work `number`; None if it has ended, or nothing comes in so many seconds (None: ever)."""
        with suppress(EOFError, OSError):
            while not self.done and self.pipe.poll(seconds):
                said = self.pipe.recv()
                self.done = said == Done(number)
                if isinstance(said, Piece) and said.number == number:
                    return said
        return None

    def ended(self, number: int) -> bool:
        """Whether the process has ended its part within GRACE; whatever it says before that is no longer wanted."""
        self.tell(Stop(number))
        while self.heard(number, GRACE) is not None:
            pass
        return self.done


@dataclass(eq=False)
class Lead:
    """The process that leads, and how many lists it has shared; it does what others have not done when it is needed."""

    number: int
    helpers: Sequence[Helper]
    deadline: float
    place: int = 0

    def deal(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Sequence[Any]:
        """What all hands found for the items."""
        self.place, hands, found = self.place + 1, 1 + len(self.helpers), [None] * len(items)
        found[::hands] = [function(item) for item in items[::hands]]
        mark = identity(items)
        for hand, helper in enumerate(self.helpers, start=1):
            mine = items[hand::hands]
            said = helper.heard(self.number, self.patience()) if helper.keeps_up else None
            if said is not None and (said.place, said.items, len(said.found)) == (self.place, mark, len(mine)):
                found[hand::hands] = said.found
            else:
                helper.keeps_up = False
                found[hand::hands] = [function(item) for item in mine]
        for helper in self.helpers:
            if helper.keeps_up:
                helper.tell(Whole(self.number, self.place, found))
        return found

    def patience(self) -> float | None:
        """Seconds until the deadline; None if there is none."""
        return None if math.isinf(self.deadline) else max(0.0, self.deadline - time.perf_counter())
