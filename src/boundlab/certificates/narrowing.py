"""What a certificate says of ends of intervals that hold on a single leaf: multipliers of the leaf's constraints.

A constraint is a function that is nowhere negative on the leaf, so that a neuron less a multiplier of at least 0 times it is
nowhere above the neuron there. So whatever the multipliers are, the least value of that bounds the neuron from below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from boundlab.errors import CertificateError


@dataclass(frozen=True)
class Narrowed:
    """m ends, each of a neuron on one leaf: `leaf` (m,), place in the proof's steps (m,), flat index in it (m,), and side (m,).

    A side of 1 is a lower end, of -1 an upper one; multiplier (m, c) >= 0, float32 or float64, is that of each constraint.
    """

    leaf: np.ndarray
    step: np.ndarray
    neuron: np.ndarray
    side: np.ndarray
    multiplier: np.ndarray

    @property
    def whole(self) -> dict[str, np.ndarray]:
        """The arrays of whole numbers by name."""
        return {"leaf": self.leaf, "step": self.step, "neuron": self.neuron, "side": self.side}

    def at(self, rows: np.ndarray) -> Narrowed:
        """Some ends."""
        return Narrowed(**{name: array[rows] for name, array in self.whole.items()}, multiplier=self.multiplier[rows])

    def of(self, leaves: np.ndarray) -> Narrowed:
        """The ends of some leaves (r,), which may stand there more than once, by their places among these."""
        number = np.argsort(leaves, kind="stable")
        start, end = (np.searchsorted(leaves[number], self.leaf, side) for side in ("left", "right"))
        row = np.repeat(np.arange(len(self.leaf)), end - start)
        rank = np.arange(len(row)) - np.repeat(np.cumsum(end - start) - (end - start), end - start)
        return replace(self.at(row), leaf=number[start[row] + rank])

    def wide(self, columns: int) -> Narrowed:
        """With more constraints, which have the multiplier 0."""
        return replace(self, multiplier=np.pad(self.multiplier, ((0, 0), (0, columns - self.multiplier.shape[1]))))


def stacked_ends(every: Sequence[Narrowed | None], leaves: Sequence[int], steps: Sequence[np.ndarray], columns: int
                 ) -> Narrowed | None:
    """The ends of several proofs, which have so many leaves, in one list; `steps` are new places of each proof's steps."""
    first = np.cumsum([0, *leaves])
    found = [replace(one.wide(columns), leaf=one.leaf + start, step=table[one.step])
             for one, start, table in zip(every, first, steps, strict=False) if one is not None]
    if not found:
        return None
    whole = {name: np.concatenate([one.whole[name] for one in found]) for name in found[0].whole}
    return Narrowed(**whole, multiplier=np.concatenate([one.multiplier for one in found]))


def validate_ends(ends: Narrowed, leaves: int, steps: int, columns: int) -> None:
    """CertificateError unless arrays have their types, shapes and ranges; sizes of steps are the checker's to know."""
    count = len(ends.leaf) if ends.leaf.ndim == 1 else -1
    for name, array in ends.whole.items():
        if array.shape != (count,) or not np.issubdtype(array.dtype, np.signedinteger):
            refuse(f"has ends of leaves whose '{name}' is no list of whole numbers, as many as the others")
    for array, limit in ((ends.leaf, leaves), (ends.step, steps), (ends.neuron, None)):
        if (array < 0).any() or (limit is not None and (array >= limit).any()):
            refuse("has ends of leaves with a leaf, step or neuron out of range")
    if (np.abs(ends.side) != 1).any():
        refuse("has ends of leaves whose side is neither 1 nor -1")
    if ends.multiplier.dtype not in (np.float32, np.float64) or ends.multiplier.shape != (count, columns):
        refuse(f"has ends of leaves with multipliers of shape {ends.multiplier.shape}, or of a type that is no float")
    if not np.isfinite(ends.multiplier).all() or (ends.multiplier < 0).any():
        refuse("has ends of leaves with multipliers below 0, or that are not finite")


def refuse(why: str) -> None:
    """CertificateError with what is wrong."""
    raise CertificateError(f"the certificate {why}.")
