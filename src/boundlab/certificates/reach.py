"""Which entries of steps the rows of a proof can reach: of the others interval arithmetic is enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from boundlab.certificates.network import Input, Network, Nonlinear


def reached(network: Network, begin: Mapping[int, np.ndarray]) -> Sequence[np.ndarray]:
    """Entries (size,) of every step that rows can reach which begin at some entries, by step."""
    found = [np.zeros(step.size, dtype=bool) for step in network.steps]
    for place, entries in begin.items():
        found[place][entries] = True
    for place in reversed(range(len(network.steps))):
        step, mask = network.steps[place], found[place]
        if isinstance(step, Input) or not mask.any():
            continue
        if isinstance(step, Nonlinear):
            for argument in step.arguments:
                found[argument] |= mask
            for asked in step.asks or ():
                found[asked][:] = True
            continue
        for argument, matrix in zip(step.arguments, step.matrices, strict=True):
            found[argument] |= matrix.reads(mask)
        if step.range is not None:  # it depends on all of the first argument
            found[step.arguments[0]][:] = True
    return found
