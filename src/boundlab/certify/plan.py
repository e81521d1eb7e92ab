"""What is certified and how: the values that a caller gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from boundlab.attack.pgd import PGD
from boundlab.bounds.budget import bytes_of
from boundlab.bounds.methods import method_value
from boundlab.bounds.problem import Rigour
from boundlab.certify.limits import check_memory_limit
from boundlab.engines.engine import Engine, Serial, engine_value
from boundlab.errors import SpecError
from boundlab.verify.options import Bisection, Branching, Race
from boundlab.verify.verify import LADDER, Stage


@dataclass(frozen=True)
class Plan:
    """Balls of norm `p` within the box `clip` (None: no box), and how the question of each is decided.

    `stages` are those of `verify`, cheap ones first: what stands before the first search runs for `batch` questions at once,
    and what these leave open is searched one by one. `timeout` is seconds for a question in a batch, on average, and again for
    its search; `memory` is what the process of a question may allocate while it works (bytes, or text such as "4GB"; None: no
    limit). `rigour` as for `verify`. SpecError for numbers that are none of these.
    """

    p: float = math.inf
    clip: tuple[float, float] | None = (0.0, 1.0)
    stages: Sequence[Stage] = LADDER
    rigour: Rigour = Rigour.SOUND
    timeout: float = 60.0
    memory: str | int | None = None
    batch: int = 32

    def __post_init__(self) -> None:
        if not self.p >= 1:
            raise SpecError(f"certified balls have a norm of order p >= 1 (or inf), got p = {self.p}.")
        if self.clip is not None and not self.clip[0] <= self.clip[1]:
            raise SpecError(f"the domain of the data goes from a low to a high number, got {self.clip}.")
        if not self.timeout > 0:
            raise SpecError(f"a question needs a time limit above 0, in seconds, got {self.timeout}.")
        if self.batch < 1 or not self.stages:
            raise SpecError("a plan needs at least one stage and batches of at least one question, got "
                            f"{len(self.stages)} stages and batch={self.batch}.")
        for stage in self.stages:
            if not isinstance(stage, PGD | Race | Bisection | Branching):
                method_value(stage)
        if self.memory is not None:
            check_memory_limit(bytes_of(self.memory))

    @property
    def most_memory(self) -> int | None:
        """The limit of memory in bytes."""
        return None if self.memory is None else bytes_of(self.memory)

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """The stages as they are run: those for batches, then the searches."""
        first = next((place for place, stage in enumerate(self.stages) if isinstance(stage, Race | Bisection | Branching)),
                     len(self.stages))
        parts = (Rung(tuple(self.stages[:first]), self.batch), Rung(tuple(self.stages[first:]), 1))
        return tuple(rung for rung in parts if rung.stages)


@dataclass(frozen=True)
class Rung:
    """Stages that run one after the other for `batch` questions at a time."""

    stages: tuple[Stage, ...]
    batch: int


@dataclass(frozen=True)
class Progress:
    """How far a run is: questions answered of all, those that wait for the rung that runs (its number, from 1), seconds so far.

    `rate` is questions a second of this rung lately, and `left` the seconds that it takes if it goes on so; an answer about one
    radius often answers others, so it may be less. `certified` and `attacked` are the shares of examples at each radius that
    are proven so far, and that are not broken so far.
    """

    rung: int
    rungs: int
    answered: int
    questions: int
    waiting: int
    seconds: float
    rate: float
    left: float
    certified: tuple[float, ...]
    attacked: tuple[float, ...]


@dataclass(frozen=True)
class Jobs:
    """What runs the work: an engine, a ledger file that keeps results (None: nothing is kept), a device, and who watches.

    With `retry_failed` computations that failed are tried again, even if the ledger has their failure.
    """

    engine: Engine = field(default_factory=Serial)
    ledger: str | Path | None = None
    device: str = "cpu"
    watch: Callable[[Progress], None] | None = None
    retry_failed: bool = False

    def __post_init__(self) -> None:
        engine_value(self.engine)
