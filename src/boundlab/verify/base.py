"""The intervals of inner nodes on whole sets, from which parts begin, by the better of two methods for which there is time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from boundlab.bounds.backward import Env
from boundlab.bounds.methods import CROWN
from boundlab.bounds.optimise import Optimised
from boundlab.bounds.problem import Bounds, Method, Problem
from boundlab.bounds.start import NeuronStart
from boundlab.verify.learnt import Learnt

SHARE, DEARER = 0.2, 10.0
"""Inner bounds may be optimised for such a share of the time that is left, if that is more than so many times what CROWN takes:
beginning with each group of neurons takes several passes, whatever the time."""
FIRST = CROWN()
"""The method of these intervals, if none is asked for."""


@dataclass(frozen=True)
class Base:
    """Intervals of every node, and by node the variables of lines of those inner neurons that were optimised."""

    env: Env
    kept: Mapping[int, NeuronStart] = field(default_factory=dict)


def base_of(problem: Problem, base: Method | None, deadline: float, keep: bool, known: Learnt | None = None) -> Base:
    """Intervals by `base`; without one by FIRST, unless they are `known`, and optimised where there is time.

    `keep` says whether variables are kept.
    """
    if base is not None:
        return Base(base.environment(problem))
    started = time.perf_counter()
    env = FIRST.environment(problem) if known is None else known.env
    now = time.perf_counter()
    took, share = now - started if known is None else known.seconds, SHARE * (deadline - now)
    if DEARER * took >= share:
        return Base(env)
    envs, kept = Optimised(Given(env), inner=True, keep=keep, deadline=now + share).stages(problem)
    return Base(envs[-1], kept)


@dataclass(frozen=True)
class Given(Method):
    """Intervals that are known already, as a method."""

    env: Env

    def environment(self, problem: Problem) -> Env:
        return self.env

    def run(self, problem: Problem) -> Bounds:
        return CROWN(self).run(problem)
