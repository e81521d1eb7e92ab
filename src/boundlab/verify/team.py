"""Processes that take a share of the work of a search, each on a device: cores of a CPU, or several GPUs.

A turn of a search is a function of what all its parts have in common and of some of the parts. A team divides the parts; the
state stays in one process, so that what is found, kept and shown is the same whoever has computed it.
"""

from __future__ import annotations

import math
import pickle
import pkgutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor

from boundlab.certificates.work import Work
from boundlab.engines.child import READY, Child, child, end, send, stay_with_driver
from boundlab.engines.task import name_of
from boundlab.errors import BoundlabError
from boundlab.verify.joint import Helper, Joined, Lead, Order, take_part
from boundlab.verify.packing import packed, unpacked_on

MOST = 8
"""Cores beyond which one process has too much to do to keep the others busy."""
LEAST = 4
"""Parts that are worth a message."""
GRACE = 2.0
"""Seconds after a deadline for which an answer is waited for."""
Shared = Callable[..., Any]
"""A function of a module, of what all parts have in common and of some of the parts: values of a search, as its answer is."""
Found = TypeVar("Found")


@dataclass(eq=False)
class Member:
    """A process of a team: whether it can take part yet, what it holds of what parts have in common, how many shares it got.

    What it says has the number of the share, so that an answer for which nobody has waited is not taken for another.
    """

    device: str
    child: Child
    begun: bool = False
    held: object = None
    shares: int = 0


@dataclass(eq=False)
class Team:
    """This process and one for each of `devices`, such as ("cpu",) for two cores, or ("cuda:1", "cuda:2") beside "cuda:0".

    To be used in a `with` block, at whose end the processes end. They begin at the first turn of a search, or with `start`, and
    take part as soon as they have loaded boundlab; what one fails to do is done here. They are spawned, so that a script needs
    `if __name__ == "__main__":`, and use one thread each, as this process does while they work.
    """

    devices: tuple[str, ...] = ()
    members: list[Member] | None = field(default=None, repr=False)

    @classmethod
    def beside(cls, device: torch.device, cores: int) -> Team:
        """All that helps a search on a device of this machine: the other GPUs, or the other ones of so many cores."""
        if device.type == "cuda":
            others = [place for place in range(torch.cuda.device_count()) if place != (device.index or 0)]
            return cls(tuple(f"cuda:{place}" for place in others))
        return cls(("cpu",) * (min(cores, MOST) - 1))

    def __enter__(self) -> Team:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        end(member.child for member in self.members or [])
        self.members = None

    def start(self, wait: bool = False) -> None:
        """Begin, if that has not been done; with `wait` all processes that are missing, until they have loaded boundlab."""
        if self.members is None or wait:
            present = self.members or []
            missing = Counter(self.devices) - Counter(member.device for member in present)
            self.members = [*present, *(Member(device, child(life, device)) for device in missing.elements())]
        for member in [member for member in self.members if not member.begun]:
            if wait or member.child.pipe.poll():
                member.begun = self.heard(member, 0, math.inf) == READY

    def shares(self, count: int) -> list[Tensor]:
        """The places of `count` parts for this process and each other that can take part now, in order, all of them once."""
        self.start()
        able = 1 + sum(member.begun for member in self.members or [])
        return list(torch.arange(count).chunk(max(1, min(able, count // LEAST))))

    def run(self, work: Shared, common: object, each: Sequence[tuple[Any, ...]], deadline: float,
            device: torch.device) -> list[Any]:
        """`work(common, *arguments)` for the arguments of `each` share, in order, by the deadline, on this process's device."""
        others = [member for member in self.members or [] if member.begun][:len(each) - 1]
        told = [self.told(member, work, common, arguments) for member, arguments in zip(others, each[1:], strict=False)]
        with one_thread(any(told)):
            answers = [work(common, *each[0])]
            for place, arguments in enumerate(each[1:]):
                heard = place < len(told) and told[place]
                said = self.heard(others[place], others[place].shares, deadline) if heard else None
                answers.append(work(common, *arguments) if said is None else unpacked_on(device, *said))
        return answers

    def joint(self, here: Callable[[Work], Found], there: Joined, about: tuple[Any, ...], deadline: float) -> Found:
        """What `here(work)` finds by the deadline; the other processes that can take part run `there(work, *about)` for it.

        It holds whoever takes part, and differs by rounding alone. No process is begun for this.
        """
        if self.members is not None:
            self.start()
        others = [member for member in self.members or [] if member.begun]
        number = 1 + max((member.shares for member in others), default=0)
        helpers = [Helper(member.child.pipe) for member in others]
        for hand, (member, helper) in enumerate(zip(others, helpers, strict=True), start=1):
            member.shares = number
            helper.tell(Order(number, name_of(there), about, hand, 1 + len(others), deadline))
        deal = Lead(number, helpers, deadline).deal if others else None
        try:
            return here(Work(lambda: time.perf_counter() >= deadline, 1 + len(others), deal))
        finally:
            for member, helper in zip(others, helpers, strict=True):
                if not helper.ended(number):
                    self.leave(member)

    def told(self, member: Member, work: Shared, common: object, arguments: tuple[Any, ...]) -> bool:
        """Whether a process has got its share."""
        fresh = None if member.held is common else packed(common)
        member.shares, member.held = member.shares + 1, common
        try:
            send(member.child.pipe, (member.shares, name_of(work), fresh, packed(arguments)))
        except OSError:
            self.leave(member)
            return False
        return True

    def heard(self, member: Member, share: int, deadline: float) -> Any:
        """What a process says of a share; None if it has failed. One that is dead or late is left out from then on."""
        with suppress(EOFError, OSError):
            while member.child.pipe.poll(None if math.isinf(deadline) else max(0.0, deadline - time.perf_counter()) + GRACE):
                number, said = member.child.pipe.recv()
                if number == share:
                    return said
        self.leave(member)
        return None

    def leave(self, member: Member) -> None:
        """Go on without a process."""
        end([member.child])
        self.members = [other for other in self.members or [] if other is not member]


ALONE = Team()
"""This process without others."""


@contextmanager
def one_thread(really: bool) -> Generator[None, None, None]:
    """One thread of torch, as long as other processes use the other cores."""
    before = torch.get_num_threads()
    if really and before != 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def life(pipe: Connection, device: str) -> None:
    """The life of a process of a team: shares in, answers out, until the pipe ends; None for what it could not do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    stay_with_driver()
    torch.set_num_threads(1)
    common: Any = None
    place = torch.device(device)
    with suppress(EOFError, OSError):
        send(pipe, (0, READY))
        while True:
            order = pipe.recv()
            if isinstance(order, Order):
                take_part(pipe, order)
            if not isinstance(order, tuple):
                continue
            number, name, fresh, arguments = order
            common = common if fresh is None else unpacked_on(place, *fresh)
            try:
                said = packed(pkgutil.resolve_name(name)(common, *unpacked_on(place, *arguments)))
            except (BoundlabError, RuntimeError, MemoryError, pickle.PicklingError):
                said = None
            send(pipe, (number, said))
