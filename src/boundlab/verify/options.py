"""Searches as values: when and how inputs are halved, and neurons split."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from boundlab.bounds.intermediate import perturbed_nodes
from boundlab.bounds.methods import CROWN, IBP
from boundlab.bounds.problem import Method
from boundlab.errors import SpecError
from boundlab.graph import Model
from boundlab.verify.team import ALONE, Team

SMALL = 2**14
"""Numbers that a network computes from its inputs, up to which full CROWN decides sooner than CROWN-IBP, box for box dearer."""

NUMBERS, LEAST_ROWS, MOST_ROWS = 2**21, 2**11, 2**15
"""Rows that are pulled together hold so many numbers at the widest node, within these ends, to fit a cache."""


@dataclass(frozen=True)
class Bisection:
    """When and how to halve inputs: at most `boxes` at a time bounded by `method`, for at most `most_inputs` coordinates.

    Without a method it is CROWN for networks that hold at most SMALL numbers, or if `tight`, and CROWN-IBP for others. The
    search gives up when more than `most_open` boxes wait.
    """

    method: Method | None = None
    boxes: int = 8192
    most_inputs: int = 32
    most_open: int = 1_000_000
    tight: bool = False

    def chosen(self, model: Model, varying: Collection[int] | None = None) -> Method:
        """The method for a network, of which the sources `varying` vary, by index (None: all inputs)."""
        sources = {node.index for node in model.graph.inputs} if varying is None else varying
        sizes = [math.prod(model.graph[index].shape) for index in perturbed_nodes(model.graph, sources)]
        small, rows = sum(sizes) <= SMALL, min(MOST_ROWS, max(LEAST_ROWS, NUMBERS // max(sizes)))
        return self.method or (CROWN(problems=self.boxes, max_rows=rows) if small or self.tight else CROWN(IBP()))


@dataclass(frozen=True)
class Branching:
    """When and how to split neurons: at most `parts` at a time, each bounded by `steps` steps from its parent's lines.

    `base` bounds inner nodes once; without one it is CROWN, whose inner bounds are optimised where there is time for that. With
    `negation` some are bounded again where a goal fails that is not proven soon. The whole sets get `first_steps` of size
    `rate`, parts shorter ones. Of the `candidates` best neurons by score, that one is split whose halves have the best bounds
    by their parent's lines. The search gives up when more than `most_open` parts wait, or when these hold more than `memory`
    (bytes, or text such as "4GB"; None: a quarter of what is free when it begins). SpecError if `negation` is neither True nor
    False.
    """

    base: Method | None = None
    parts: int = 256
    steps: int = 8
    first_steps: int = 40
    rate: float = 0.25
    candidates: int = 3
    most_open: int = 100_000
    memory: str | int | None = None
    negation: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.negation, bool):
            raise SpecError(f"negation is True or False, got {self.negation!r:.60}.")


@dataclass(frozen=True)
class Race:
    """Searches side by side: whichever has had the least time goes on, and the first that decides a problem decides it.

    Each begins once the one before it has had HEAD_START seconds; searches that cannot take a problem leave it to the others.
    Of two that halve inputs by the same method the first runs.
    `watch` is told after each turn how far they are. With a `file` they are put there every EVERY seconds, and go on from it
    where it has what they were asked before; CheckpointError if it is about another network. A `team`
    of processes shares the work of each turn.
    """

    searches: tuple[Bisection | Branching, ...] = (Bisection(), Bisection(tight=True), Branching())
    watch: Callable[[Turn], None] | None = None
    file: Path | None = None
    team: Team = ALONE


def team_of(stages: Iterable[object]) -> Team:
    """The team of the first race among stages, which helps with what comes after the search, too."""
    return next((stage.team for stage in stages if isinstance(stage, Race)), ALONE)


@dataclass(frozen=True)
class Turn:
    """How far a race is: open problems, which search has had the turn, its parts so far, those that wait, and the lowest bound
    of these, which never falls."""

    problems: int
    search: str
    parts: int
    left: int
    bound: float

    def __str__(self) -> str:
        return f"{self.search}: {self.parts} done, {self.left} open, all above {self.bound:.4g}"
